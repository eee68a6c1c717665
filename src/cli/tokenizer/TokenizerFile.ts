/**
 * Tokenizer files as commands name them: a file of any format, a folder that holds one, or the run that trained last.
 *
 *     .model = SentencePiece        .json = Hugging Face        .bin = llama2.c
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
import * as Flag from "effect/cli/Flag"
import * as Durable from "../../store/Durable.ts"
import * as SentencePiece from "../../token/SentencePiece.ts"
import * as Tokenizer from "../../token/Tokenizer.ts"
import * as TokenizerBin from "../../token/TokenizerBin.ts"
import * as TokenizerJson from "../../token/TokenizerJson.ts"
import * as Utf8 from "../../token/Utf8.ts"
import { given } from "../Flags.ts"
import * as RunFolder from "../RunFolder.ts"

/** How a format is read and written. */
interface Format {
  readonly ending: string
  readonly parse: (bytes: Uint8Array) => Result.Result<SentencePiece.Model, Tokenizer.TokenizerFileError["reason"]>
  readonly print: (model: SentencePiece.Model) => Result.Result<Uint8Array, Tokenizer.TokenizerFileError["reason"]>
}

/** The formats, in the order in which a folder is searched for them. */
const formats: ReadonlyArray<Format> = [
  { ending: ".model", parse: SentencePiece.parse, print: ({ bytes }) => Result.succeed(bytes) },
  {
    ending: ".json",
    parse: (bytes) => TokenizerJson.parse(Utf8.lenientText(bytes)),
    print: (model) => Result.map(TokenizerJson.print(model), (text) => new TextEncoder().encode(text))
  },
  { ending: ".bin", parse: TokenizerBin.parse, print: TokenizerBin.print }
]

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

/** A file that is there already. */
export class FileTakenError extends Schema.TaggedError<FileTakenError>()("FileTakenError", { path: Schema.String }) {
  override get message() {
    return `${this.path} exists already\n  Give another name with --out, or move it away: nothing is written over.`
  }
}

const formatOf = (path: string): Effect.Effect<Format, NoTokenizerError> => {
  const found = formats.find(({ ending }) => path.endsWith(ending))
  return found === undefined
    ? Effect.fail(new NoTokenizerError({ path, problem: "its ending is none that Cria knows" }))
    : Effect.succeed(found)
}

/** A tokenizer that was read. */
export interface Opened {
  readonly path: string
  readonly model: SentencePiece.Model
  readonly codec: Tokenizer.Codec
}

/** Reads what the tokenizer of a file is made of, or of a folder that holds one. */
export const load = Effect.fnUntraced(function*(given: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const { join } = yield* Path.Path
  const places = formats.map(({ ending }) => join(given, `tokenizer${ending}`))
  const { type } = yield* fileSystem.stat(given).pipe(
    Effect.mapError((error) => new NoTokenizerError({ path: given, problem: Durable.reason(error) }))
  )
  const [inside] = type === "Directory" ? yield* Effect.filter(places, (place) => fileSystem.exists(place)) : [given]
  if (inside === undefined) {
    return yield* new NoTokenizerError({ path: given, problem: "it is a folder without one" })
  }
  const { parse } = yield* formatOf(inside)
  const bytes = yield* fileSystem.readFile(inside)
  const model = yield* Effect.fromResult(unusable(inside, parse(bytes)))
  return { path: inside, model }
})

const unusable = <A>(path: string, result: Result.Result<A, Tokenizer.TokenizerFileError["reason"]>) =>
  Result.mapError(result, (reason) => new Tokenizer.TokenizerFileError({ path, reason }))

/** Reads the tokenizer of a file, or of a folder that holds one. */
export const open = Effect.fnUntraced(function*(given: string) {
  const { model, path } = yield* load(given)
  const codec = yield* Effect.fromResult(unusable(path, Tokenizer.fromModel(model)))
  return { path, model, codec } satisfies Opened
})

/** The flag that names a tokenizer. */
export const flag = given(Flag.String("tokenizer"), "PATH", "A tokenizer file (.model, .json, .bin), or a folder " +
  "with one; by default that of the run that trained last")

/** The tokenizer that a command means. */
export const chosen = (path: Option.Option<string>) =>
  Effect.flatMap(Option.isSome(path) ? Effect.succeed(path.value) : RunFolder.latest, open)

/** Fails unless a file of a known ending can be written at a path where nothing stands. */
export const requireWritable = Effect.fnUntraced(function*(path: string) {
  yield* formatOf(path)
  if (yield* (yield* FileSystem.FileSystem).exists(path)) return yield* new FileTakenError({ path })
})

/** Writes a model in the format of the path's ending: all of it, or nothing. */
export const save = Effect.fnUntraced(function*(path: string, model: SentencePiece.Model) {
  yield* requireWritable(path)
  const { dirname } = yield* Path.Path
  const { print } = yield* formatOf(path)
  const bytes = yield* Effect.fromResult(unusable(path, print(model)))
  yield* Durable.makeFolder(dirname(path))
  yield* Durable.replaceFile(path, bytes)
})
