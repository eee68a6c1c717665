/**
 * Tokenizer files as commands name them: a file of any format, a folder that holds one, or the run that trained last.
 *
 * Checked  test/cli/TokenizerCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Durable from "../../store/Durable.ts"
import type * as SentencePiece from "../../token/SentencePiece.ts"
import * as Tokenizer from "../../token/Tokenizer.ts"
import * as TokenizerFormat from "../../token/TokenizerFormat.ts"
import { given, pathFlag } from "../Flags.ts"
import * as RunFolder from "../RunFolder.ts"

/** A path that leads to no tokenizer. */
export class NoTokenizerError extends Schema.TaggedError<NoTokenizerError>()("NoTokenizerError", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `${this.path} is no tokenizer: ${this.problem}\n  Name a .model (SentencePiece), .json (Hugging Face) or ` +
      ".bin (llama2.c) file, or a folder that holds tokenizer.model, tokenizer.json or tokenizer.bin."
  }
}

/** A name that does not say how a tokenizer is to be written. */
export class TokenizerEndingError extends Schema.TaggedError<TokenizerEndingError>()("TokenizerEndingError", {
  path: Schema.String
}) {
  override get message() {
    return `${this.path}: the ending says how a tokenizer is written, and this is none that Cria knows\n  Give a ` +
      "name that ends in .model (SentencePiece), .json (Hugging Face) or .bin (llama2.c): --out tokenizer.model."
  }
}

/** A file that is there already. */
export class FileTakenError extends Schema.TaggedError<FileTakenError>()("FileTakenError", { path: Schema.String }) {
  override get message() {
    return `${this.path} exists already\n  Give another name with --out, or move it away: nothing is written over.`
  }
}

const formatOf = (path: string): Effect.Effect<TokenizerFormat.TokenizerFormat, NoTokenizerError> => {
  const found = TokenizerFormat.ofName(path)
  return found === undefined
    ? Effect.fail(new NoTokenizerError({ path, problem: "its ending is none that Cria knows" }))
    : Effect.succeed(found)
}

/** A tokenizer that was read. */
export interface Opened extends TokenizerFormat.Read {
  readonly path: string
}

/** Reads the tokenizer of a file, or of a folder that holds one, as the function that the file means. */
export const open = Effect.fnUntraced(function*(given: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const { join } = yield* Path.Path
  const places = TokenizerFormat.all.map(({ ending }) => join(given, `tokenizer${ending}`))
  const { type } = yield* fileSystem.stat(given).pipe(
    Effect.mapError((error) => new NoTokenizerError({ path: given, problem: Durable.reason(error) }))
  )
  const [path] = type === "Directory" ? yield* Effect.filter(places, (place) => fileSystem.exists(place)) : [given]
  if (path === undefined) return yield* new NoTokenizerError({ path: given, problem: "it is a folder without one" })
  yield* formatOf(path)
  return { path, ...yield* TokenizerFormat.open(path) } satisfies Opened
})

/** The flag that names a tokenizer. */
export const flag = given(pathFlag("tokenizer"), "PATH", "A tokenizer file (.model, .json, .bin), or a folder " +
  "with one; by default that of the run that trained last")

/** The tokenizer that a command means. */
export const chosen = (path: Option.Option<string>) =>
  Effect.flatMap(Option.isSome(path) ? Effect.succeed(path.value) : RunFolder.latest, open)

/** Fails unless a file of a known ending can be written at a path where nothing stands. */
export const requireWritable = Effect.fnUntraced(function*(path: string) {
  if (TokenizerFormat.ofName(path) === undefined) return yield* new TokenizerEndingError({ path })
  if (yield* (yield* FileSystem.FileSystem).exists(path)) return yield* new FileTakenError({ path })
})

/** Writes a model in the format of the path's ending: all of it, or nothing. */
export const save = Effect.fnUntraced(function*(path: string, model: SentencePiece.Model) {
  yield* requireWritable(path)
  const { dirname } = yield* Path.Path
  const { print } = yield* formatOf(path)
  const bytes = yield* Effect.fromResult(Result.mapError(print(model), (reason) =>
    new Tokenizer.TokenizerFileError({ path, reason })))
  yield* Durable.makeFolder(dirname(path))
  yield* Durable.replaceFile(path, bytes)
})
