/**
 * A checkpoint as commands are given it: what stands at a path, with its tokenizer or one that is named, and who
 * computes with it.
 *
 * The tokenizer must have as many pieces as the model has tokens, in every command: a model whose vocabulary was filled
 * up needs the tokenizer that was filled up with it.
 *
 * Checked  test/cli/ImportCommand.test.ts, test/cli/ExportCommand.test.ts, test/cli/GenerateCommand.test.ts,
 *          test/cli/EvaluateCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import * as Checkpoint from "../llama/Checkpoint.ts"
import type { Model } from "../token/SentencePiece.ts"
import * as Tokenizer from "../token/Tokenizer.ts"
import * as BackendChoice from "./BackendChoice.ts"
import { count, given } from "./Flags.ts"
import * as RunFolder from "./RunFolder.ts"
import * as Settings from "./Settings.ts"
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
    return yield* new VocabularyMismatchError({ path: checkpoint.path, pieces: model.pieces.length, vocabSize })
  }
  return { ...checkpoint, tokenizer: model } satisfies Source
})

/** A longest sequence that is asked of a checkpoint which says its own. */
export class ContextLengthError extends Schema.TaggedError<ContextLengthError>()("ContextLengthError", {
  path: Schema.String,
  contextLength: Schema.Number
}) {
  override get message() {
    return `${this.path} says itself that its longest sequence has ${this.contextLength} tokens\n` +
      "  --context-length is for folders of Meta's, which do not say: leave it out."
  }
}

/** Opens a checkpoint that is to be written in another form. */
export const openToConvert = (from: Parameters<typeof open>[0]) =>
  Effect.flatMap(open(from), (source) => Option.isSome(from.contextLength) && source.format !== "meta"
    ? Effect.fail(new ContextLengthError({ path: source.path, contextLength: source.config.contextLength }))
    : Effect.succeed(source))

/** A checkpoint that was opened, with its tokenizer if there is one. */
export interface Source extends Omit<Checkpoint.Checkpoint, "tokenizer"> {
  readonly tokenizer: Model | undefined
}

/** Text to ids and back, as the model learned it; fails where the checkpoint has no tokenizer. */
export const codecOf = ({ path, tokenizer }: Source) =>
  tokenizer === undefined
    ? Effect.fail(new TokenizerMissingError({ model: path }))
    : Effect.fromResult(Tokenizer.fromModel(tokenizer))

/** Who computes: the backend that is asked for, or that trained, of a run, or else the fastest. */
export const backendOf = Effect.fnUntraced(function*(
  { format, path: place }: Source,
  { backend, threads }: {
    readonly backend: Option.Option<BackendChoice.Name>
    readonly threads: Option.Option<number>
  }
) {
  // checked here, or the fastest would be one that takes no number of threads
  if (Option.isSome(threads)) yield* Effect.fromResult(Settings.parse("flags", { threads: threads.value }))
  if (Option.isSome(backend)) return backend.value
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const settings = path.join(place, "..", RunFolder.configurationName)
  const trained = format === "cria" && (yield* fileSystem.exists(settings))
    ? (yield* Settings.read(settings)).backend : undefined
  return trained ?? (yield* BackendChoice.fastest(Option.getOrUndefined(threads)))
})
