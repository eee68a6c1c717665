/**
 * A checkpoint as commands are given it: what stands at a path, with its tokenizer or one that is named.
 *
 * Checked  test/cli/ImportCommand.test.ts, test/cli/ExportCommand.test.ts, test/cli/GenerateCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import * as Checkpoint from "../llama/Checkpoint.ts"
import { count, given } from "./Flags.ts"
import * as TokenizerFile from "./tokenizer/TokenizerFile.ts"

/** A tokenizer of another size than the model's vocabulary. */
export class VocabularyMismatchError extends Schema.TaggedError<VocabularyMismatchError>()("VocabularyMismatchError", {
  path: Schema.String,
  pieces: Schema.Number,
  vocabSize: Schema.Number
}) {
  override get message() {
    return `${this.path}: the model knows ${this.vocabSize} tokens, and the tokenizer ${this.pieces}\n` +
      "  They belong to different models, or the vocabulary was filled up: name the right one with --tokenizer."
  }
}

/** A model whose text cannot be read or written, for it comes without a tokenizer. */
export class TokenizerMissingError extends Schema.TaggedError<TokenizerMissingError>()("TokenizerMissingError", {
  model: Schema.String
}) {
  override get message() {
    return `${this.model} has no tokenizer beside it, and its tokens are no text without the one it learned with\n` +
      "  Name that: --tokenizer PATH."
  }
}

/** The flags of commands that take a checkpoint. */
export const flags = {
  path: Argument.String("checkpoint").pipe(Argument.withDescription(
    "A run or snapshot of Cria, a Hugging Face folder, a Meta folder, a .gguf, or a .bin of llama2.c"
  )),
  tokenizer: given(Flag.String("tokenizer"), "PATH", "The tokenizer, where the checkpoint has none: .model, " +
    ".json (Hugging Face) or .bin (llama2.c), or a folder with one"),
  contextLength: count("context-length", "The longest sequence, which Meta's folders do not say; 4096 by default")
}

/** Opens a checkpoint, with its tokenizer if there is one. */
export const open = Effect.fnUntraced(function*(
  { contextLength, path, tokenizer }: {
    readonly path: string
    readonly tokenizer: Option.Option<string>
    readonly contextLength: Option.Option<number>
  }
) {
  const checkpoint = yield* Checkpoint.open(path, Option.isNone(contextLength) ? {} : {
    contextLength: contextLength.value
  })
  const model = Option.isSome(tokenizer)
    ? (yield* TokenizerFile.load(tokenizer.value)).model
    : Option.getOrUndefined(yield* checkpoint.tokenizer)
  const { vocabSize } = checkpoint.config
  if (model !== undefined && model.pieces.length !== vocabSize) {
    return yield* new VocabularyMismatchError({ path, pieces: model.pieces.length, vocabSize })
  }
  return { ...checkpoint, tokenizer: model }
})
