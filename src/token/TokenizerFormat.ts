/**
 * The formats of tokenizer files, by the endings of their names.
 *
 *     .model = SentencePiece        .json = Hugging Face        .bin = llama2.c
 *
 * Checked  test/token/TokenizerFormat.test.ts, test/cli/TokenizerCommand.test.ts, test/llama/Checkpoint.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import * as Result from "effect/Result"
import * as SentencePiece from "./SentencePiece.ts"
import * as Tokenizer from "./Tokenizer.ts"
import * as TokenizerBin from "./TokenizerBin.ts"
import * as TokenizerJson from "./TokenizerJson.ts"
import * as Utf8 from "./Utf8.ts"

type Reason = Tokenizer.TokenizerFileError["reason"]

/** How a format is read and written. */
export interface TokenizerFormat {
  readonly ending: string
  /** The model of a file whose function is `Tokenizer.fromModel`; other files are refused. */
  readonly parse: (bytes: Uint8Array) => Result.Result<SentencePiece.Model, Reason>
  /** The model of a file, and its function, whichever of the two it is. */
  readonly read: (bytes: Uint8Array) => Result.Result<Read, Reason>
  /** The file of a model whose function is `Tokenizer.fromModel`. */
  readonly print: (model: SentencePiece.Model) => Result.Result<Uint8Array, Reason>
}

/** A model, and which function of it a file means. */
export interface Read {
  readonly model: SentencePiece.Model
  readonly isLegacy: boolean
  readonly codec: Tokenizer.Codec
}

/** A model as Meta's function of it. */
export const ofModel = (model: SentencePiece.Model): Result.Result<Read, Tokenizer.UnsupportedModelError> =>
  Result.map(Tokenizer.fromModel(model), (codec) => ({ model, isLegacy: true, codec }))

const nonLegacy = (model: SentencePiece.Model): Result.Result<Read, Reason> =>
  Result.map(Tokenizer.fromModelNonLegacy(model), (codec) => ({ model, isLegacy: false, codec }))

const sentencePiece: TokenizerFormat = {
  ending: ".model",
  parse: SentencePiece.parse,
  read: (bytes) => Result.flatMap(SentencePiece.parse(bytes), ofModel),
  print: ({ bytes }) => Result.succeed(bytes)
}

const huggingFace: TokenizerFormat = {
  ending: ".json",
  parse: (bytes) => TokenizerJson.parse(Utf8.lenientText(bytes)),
  read: (bytes) =>
    Result.flatMap(TokenizerJson.parseEither(Utf8.lenientText(bytes)), ({ isLegacy, model }) =>
      isLegacy ? ofModel(model) : nonLegacy(model)),
  print: (model) => Result.map(TokenizerJson.print(model), (text) => new TextEncoder().encode(text))
}

const llama2c: TokenizerFormat = {
  ending: ".bin",
  parse: TokenizerBin.parse,
  read: (bytes) => Result.flatMap(TokenizerBin.parse(bytes), ofModel),
  print: TokenizerBin.print
}

/** All formats, in the order in which a folder is searched for them. */
export const all: ReadonlyArray<TokenizerFormat> = [sentencePiece, huggingFace, llama2c]

/** The format that the ending of a name tells. */
export const ofName = (name: string): TokenizerFormat | undefined => all.find(({ ending }) => name.endsWith(ending))

/** Reads a tokenizer whose function is `Tokenizer.fromModel`, by the ending of its name; SentencePiece's by default. */
export const load = (
  path: string
): Effect.Effect<
  SentencePiece.Model, Tokenizer.TokenizerFileError | PlatformError.PlatformError, FileSystem.FileSystem
> => file(path, (ofName(path) ?? sentencePiece).parse)

/** Reads a tokenizer and its function, by the ending of its name; SentencePiece's by default. */
export const open = (
  path: string
): Effect.Effect<Read, Tokenizer.TokenizerFileError | PlatformError.PlatformError, FileSystem.FileSystem> =>
  file(path, (ofName(path) ?? sentencePiece).read)

const file = <A>(path: string, parse: (bytes: Uint8Array) => Result.Result<A, Reason>) =>
  Effect.flatMap(FileSystem.FileSystem, (files) => files.readFile(path)).pipe(
    Effect.flatMap((bytes) => Effect.fromResult(Result.mapError(parse(bytes), (reason) =>
      new Tokenizer.TokenizerFileError({ path, reason }))))
  )
