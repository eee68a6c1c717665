/**
 * One file of a corpus: found on disk, unpacked, decoded, and cut into documents or rows, piece by piece.
 *
 * Checked  test/data/Corpus.test.ts, through the service.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Durable from "../store/Durable.ts"
import type { CorpusError } from "./CorpusError.ts"
import {
  EmptyCorpusError, EmptyFileError, GzipError, NotTextError, RowError, UnknownFormatError, UnreadablePathError
} from "./CorpusError.ts"
import * as Cut from "./Cut.ts"
import * as Document from "./Document.ts"
import * as StrictUtf8 from "./StrictUtf8.ts"

/** How files become documents. */
export interface Options {
  /** The longest document that a plain text file is cut into, in UTF-16 code units. */
  readonly documentCharacters: number
  /** The field of a .jsonl row that holds the text. */
  readonly field: string
}

/** Documents of at most 2 048 characters; rows with a field `text`. */
export const defaults: Options = { documentCharacters: 2048, field: "text" }

/** A file of a corpus and its size on disk. */
export interface Found {
  readonly file: string
  readonly bytes: number
}

/** The files that a path leads to: itself, all text files below a folder, or the matches of a pattern. */
export const find = Effect.fnUntraced(function*(path: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const isPattern = /[*?[{]/.test(path) && !(yield* fileSystem.exists(path).pipe(Effect.mapError(unreadable(path))))
  const found = yield* isPattern ? findMatches(path) : findAt(path)
  return found.length === 0 ? yield* new EmptyCorpusError({ paths: [path] }) : found
})

/** The documents of one file, in order. Runs in constant memory: a piece of the file, and one document or row. */
export const documents = (
  file: string, options: Options
): Stream.Stream<Document.Document, CorpusError, FileSystem.FileSystem> => {
  const text = notEmptyText(file)
  return isRows(file) ? rows(file, text, options.field) : cut(file, text, options.documentCharacters)
}

const isRows = (file: string): boolean => /\.jsonl(\.gz)?$/.test(file)

const isKnown = (file: string): boolean => /\.(txt|md|jsonl)(\.gz)?$/.test(file)

const unreadable = (path: string) => (error: PlatformError.PlatformError) =>
  new UnreadablePathError({ path, problem: Durable.reason(error) })

const status = Effect.fnUntraced(function*(path: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const info = yield* fileSystem.stat(path).pipe(
    Effect.tap(() => fileSystem.access(path, { readable: true })),
    Effect.mapError(unreadable(path)))
  return { file: path, bytes: Number(info.size), type: info.type }
})

const findMatches = Effect.fnUntraced(function*(pattern: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const matches = yield* fileSystem.glob(pattern).pipe(Effect.mapError(unreadable(pattern)))
  return (yield* Effect.forEach(matches.sort(), Effect.fnUntraced(function*(match) {
    const found = yield* status(match)
    return found.type === "Directory" ? [] : [yield* lasting(found)]
  }))).flat()
})

const findAt = Effect.fnUntraced(function*(path: string) {
  const found = yield* status(path)
  return found.type === "Directory" ? yield* findBelow(path) : [yield* lasting(found)]
})

/** A file that holds something, and will when it is read again. */
const lasting = (
  { bytes, file, type }: Found & { readonly type: FileSystem.File.Type }
): Effect.Effect<Found, EmptyFileError | UnreadablePathError> =>
  type !== "File"
    ? Effect.fail(new UnreadablePathError({
      path: file, problem: "it is a pipe or a device, and a corpus is read more than once",
      remedy: "write it to a file first"
    }))
    : bytes === 0 ? Effect.fail(new EmptyFileError({ file })) : Effect.succeed({ file, bytes })

const findBelow: (folder: string) => Effect.Effect<ReadonlyArray<Found>, CorpusError, FileSystem.FileSystem> =
  Effect.fnUntraced(function*(folder) {
    const fileSystem = yield* FileSystem.FileSystem
    const names = yield* fileSystem.readDirectory(folder).pipe(Effect.mapError(unreadable(folder)))
    const visible = names.filter((name) => !name.startsWith(".")).sort()
    return (yield* Effect.forEach(visible, Effect.fnUntraced(function*(name) {
      const found = yield* status(`${folder.replace(/\/$/, "")}/${name}`)
      if (found.type === "Directory") return yield* findBelow(found.file)
      return isKnown(name) ? [yield* lasting(found)] : yield* new UnknownFormatError({ file: found.file, folder })
    }))).flat()
  })

const bytesOf = (file: string): Stream.Stream<Uint8Array, CorpusError, FileSystem.FileSystem> => {
  const packed = Stream.unwrap(Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const { type } = yield* Effect.mapError(fileSystem.stat(file), unreadable(file))
    if (type === "Directory") {
      return yield* new UnreadablePathError({ path: file, problem: "it is a folder", remedy: "name a file" })
    }
    // a pipe has no places to be read at: it is read to its end
    const pieces = type === "File" ? fileSystem.stream(file) : Stream.fromEffect(fileSystem.readFile(file))
    return Stream.mapError(pieces, unreadable(file))
  }))
  if (!file.endsWith(".gz")) return packed
  return Stream.unwrap(Effect.map(Stream.toReadableStreamEffect(packed), (readable) =>
    Stream.fromReadableStream<Uint8Array, CorpusError>({
      evaluate: () => readable.pipeThrough(new DecompressionStream("gzip")),
      onError: (error) =>
        error instanceof UnreadablePathError
          ? error
          : new GzipError({ file, problem: Predicate.isError(error) ? error.message : String(error) })
    })))
}

/** Bytes as text, piece by piece; what is not UTF-8 is refused by its place in what is called `file`. */
export const decoded = <E, R>(
  file: string, bytes: Stream.Stream<Uint8Array, E, R>
): Stream.Stream<string, E | NotTextError, R> =>
  Stream.suspend(() => {
    const decoder = StrictUtf8.decoder()
    const notText = (invalid: StrictUtf8.Invalid) => Effect.fail(new NotTextError({ file, ...invalid }))
    const pieces = Stream.mapEffect(bytes, (piece) => {
      const text = decoder.push(piece)
      return typeof text === "string" ? Effect.succeed(text) : notText(text)
    })
    const end = Stream.fromEffectDrain(Effect.suspend((): Effect.Effect<void, NotTextError> => {
      const invalid = decoder.end()
      return invalid === undefined ? Effect.void : notText(invalid)
    }))
    return Stream.concat(pieces, end)
  })

/** The text of a file, piece by piece; a file whose name ends in .gz is unpacked. */
export const text = (file: string): Stream.Stream<string, CorpusError, FileSystem.FileSystem> =>
  decoded(file, bytesOf(file))

const notEmptyText = (file: string): Stream.Stream<string, CorpusError, FileSystem.FileSystem> =>
  Stream.suspend(() => {
    let isEmpty = true
    const end = Stream.fromEffectDrain(Effect.suspend(() =>
      isEmpty ? Effect.fail(new EmptyFileError({ file })) : Effect.void))
    return text(file).pipe(Stream.map((piece) => {
      isEmpty &&= piece === ""
      return piece
    }), Stream.concat(end))
  })

const cut = <E, R>(
  file: string, text: Stream.Stream<string, E, R>, limit: number
): Stream.Stream<Document.Document, E, R> =>
  Stream.suspend(() => {
    const cutter = Cut.cutter(limit)
    let line = 1
    const document = (piece: string) => {
      const made = Document.make(piece, { file, line })
      for (let at = piece.indexOf("\n"); at >= 0; at = piece.indexOf("\n", at + 1)) line++
      return made
    }
    return text.pipe(
      Stream.map(cutter.push),
      Stream.concat(Stream.suspend(() => Stream.succeed(cutter.end()))),
      Stream.flattenIterable,
      Stream.map(document))
  })

const rows = <E, R>(
  file: string, text: Stream.Stream<string, E, R>, field: string
): Stream.Stream<Document.Document, E | RowError, R> => {
  const decode = Schema.decodeUnknownEffect(
    Schema.fromJsonString(Schema.Struct({ text: Schema.NonEmptyString }).pipe(Schema.encodeKeys({ text: field }))))
  return text.pipe(
    Stream.splitLines,
    Stream.zipWithIndex,
    Stream.filter(([row]) => row.trim() !== ""),
    Stream.mapEffect(([row, index]) => decode(row).pipe(
      Effect.mapBoth({
        onFailure: ({ message }) =>
          new RowError({ file, line: index + 1, field, problem: message.replace(/\s+/g, " "), row }),
        onSuccess: ({ text }) => Document.make(text, { file, line: index + 1 })
      }))))
}
