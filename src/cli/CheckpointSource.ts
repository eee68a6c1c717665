/**
 * A checkpoint as commands are given it: what stands at a path, with its tokenizer or one that is named, and who
 * computes with it.
 *
 * Where the vocabulary of the model was filled up beyond the tokenizer, the tokens beyond are left out, in every
 * command, and that is said; a tokenizer with more pieces than the model has tokens is refused.
 *
 * Checked  test/cli/ImportCommand.test.ts, test/cli/ExportCommand.test.ts, test/cli/GenerateCommand.test.ts,
 *          test/cli/EvaluateCommand.test.ts.
 *
 * @module
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Argument from "effect/cli/Argument"
import * as Checkpoint from "../llama/Checkpoint.ts"
import { parameterCount } from "../llama/Config.ts"
import type { Model } from "../token/SentencePiece.ts"
import type { Codec } from "../token/Tokenizer.ts"
import * as BackendChoice from "./BackendChoice.ts"
import { count, given, pathArgument, pathFlag } from "./Flags.ts"
import * as RunFolder from "./RunFolder.ts"
import * as Screen from "./Screen.ts"
import * as Settings from "./Settings.ts"
import * as TokenizerFile from "./tokenizer/TokenizerFile.ts"

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
  path: pathArgument("checkpoint").pipe(Argument.withDescription(
    "A run or snapshot of Cria, a Hugging Face folder, a Meta folder, a .gguf, or a .bin of llama2.c"
  )),
  tokenizer: given(pathFlag("tokenizer"), "PATH", "The tokenizer, where the checkpoint has none: .model, " +
    ".json (Hugging Face) or .bin (llama2.c), or a folder with one"),
  contextLength: count("context-length", "The longest sequence, which Meta's folders do not say; 4096 by default")
}

/** Opens a checkpoint, with its tokenizer if there is one. Tokens beyond the tokenizer are left out, which is said. */
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
  if (checkpoint.format === "meta" && Option.isNone(contextLength)) {
    yield* Console.error(`${path} does not say the longest sequence, as no folder of Meta's does: ` +
      `${checkpoint.config.contextLength} is taken (--context-length N says another)`)
  }
  const read = Option.isSome(tokenizer)
    ? yield* TokenizerFile.open(tokenizer.value)
    : Option.getOrUndefined(yield* checkpoint.tokenizer)
  const { vocabSize } = checkpoint.config
  const pieces = read?.model.pieces.length ?? vocabSize
  const known = yield* Effect.fromResult(Checkpoint.withVocabulary(checkpoint, pieces, read?.path))
  if (pieces < vocabSize) {
    yield* Console.error(`the model has ${vocabSize} tokens, and its tokenizer ${pieces} pieces: the tokens from ` +
      `${pieces} on, which no text has, are left out (if they are not of one model: --tokenizer names another)`)
  }
  return { ...known, tokenizer: read?.model, codec: read?.codec, isLegacy: read?.isLegacy } satisfies Source
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
export const openToConvert = Effect.fnUntraced(function*(from: Parameters<typeof open>[0]) {
  const source = yield* open(from)
  const { config: { contextLength }, format, isLegacy, path } = source
  if (Option.isSome(from.contextLength) && format !== "meta") {
    return yield* new ContextLengthError({ path, contextLength })
  }
  if (isLegacy === false) {
    return yield* new TokenizerKindError({ path: Option.getOrElse(from.tokenizer, () => path) })
  }
  return source
})

/** A tokenizer that no form of checkpoint can be given. */
export class TokenizerKindError extends Schema.TaggedError<TokenizerKindError>()("TokenizerKindError", {
  path: Schema.String
}) {
  override get message() {
    return `${this.path}: its tokenizer.json was saved with legacy = false, and puts spaces elsewhere than the other ` +
      "forms of the same tokenizer, which is what would be written\n" +
      "  cria generate and cria evaluate take it as it is. To write the model, name the tokenizer.model that it was " +
      "made from: --tokenizer PATH."
  }
}

/** A checkpoint that was opened, with its tokenizer if there is one. */
export interface Source extends Omit<Checkpoint.Checkpoint, "tokenizer"> {
  readonly tokenizer: Model | undefined
  /** The tokenizer's function. */
  readonly codec: Codec | undefined
  /** Whether that is Meta's. */
  readonly isLegacy: boolean | undefined
}

type Sized = Pick<Checkpoint.Checkpoint, "config" | "isTied">

/** How many parameters a checkpoint has: a head that is its embedding has none of its own. */
export const countOf = ({ config, isTied }: Sized): number =>
  parameterCount(config) - (isTied ? config.vocabSize * config.embedSize : 0)

/** The number of parameters in words. */
export const sizeOf = (checkpoint: Sized): string =>
  `${Screen.quantity(countOf(checkpoint))} parameters${checkpoint.isTied ? " (the head is the embedding)" : ""}`

/** Text to ids and back, as the model learned it; fails where the checkpoint has no tokenizer. */
export const codecOf = ({ codec, path }: Source) =>
  codec === undefined ? Effect.fail(new TokenizerMissingError({ model: path })) : Effect.succeed(codec)

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
  yield* BackendChoice.requireThreads(Option.getOrUndefined(threads))
  if (Option.isSome(backend)) return backend.value
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const settings = path.join(place, "..", RunFolder.configurationName)
  const trained = format === "cria" && (yield* fileSystem.exists(settings))
    ? (yield* Settings.read(settings)).backend : undefined
  return trained ?? (yield* BackendChoice.fastest(Option.getOrUndefined(threads)))
})
