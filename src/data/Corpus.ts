/**
 * A corpus: a stream of documents, from files, from memory, or from the embedded stories.
 *
 * `Corpus` is a service, so a recipe reads whatever text it is given. Files are UTF-8: plain text, or JSON lines
 * (`.jsonl`, one document a row), each also compressed (`.gz`). They are read in pieces while the stream runs, so
 * memory does not grow with them; a mistake in them ends the stream with an error that names file, line and field, or
 * the byte.
 *
 * From     Llama 2 §2.1 describes its sources, not their format.
 * Checked  test/data/Corpus.test.ts (lossless, blind to the size of pieces, order, formats, memory);
 *          test/data/CorpusError.test.ts (messages).
 * Departs  a plain text file of up to `documentCharacters` is one document; a longer one is cut at paragraphs (see
 *          Cut), so that one file can give both a training and a validation part.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as Stream from "effect/Stream"
import type { CorpusError } from "./CorpusError.ts"
import { EmptyCorpusError } from "./CorpusError.ts"
import type { Document } from "./Document.ts"
import * as SourceFile from "./SourceFile.ts"
import * as Stories from "./Stories.ts"

/**
 * The service: the documents a run learns from. The stream may be run any number of times and gives the same documents.
 */
export class Corpus extends Context.Service<Corpus, {
  /** What the corpus is, in a few words, for manifests and progress. */
  readonly name: string
  readonly documents: Stream.Stream<Document, CorpusError>
  /**
   * About how many bytes of text there are, for progress; absent where it is not known before reading (compressed
   * files).
   */
  readonly bytes?: number
}>()("cria/data/Corpus") {}

/**
 * Layer of the text under `paths`: files, folders (with all below them) and patterns such as `texts/**\/*.txt`.
 *
 * Paths are found, and empty or unreadable ones refused, while the layer builds. Documents come in the order of
 * `paths`, within a folder or a pattern in the order of file names.
 */
export const layerFiles = (
  paths: ReadonlyArray<string>, options: Partial<SourceFile.Options> = {}
): Layer.Layer<Corpus, CorpusError, FileSystem.FileSystem | Path.Path> =>
  Layer.effect(Corpus, Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const found = (yield* Effect.forEach(paths, SourceFile.find)).flat()
    const places = found.map(({ file }) => path.resolve(file))
    const firsts = new Map(places.toReversed().map((place, i) => [place, places.length - 1 - i]))
    const files = found.filter((_, i) => firsts.get(places[i]!) === i) // each file once, where it came first
    if (files.length === 0) return yield* new EmptyCorpusError({ paths })
    const documents = Stream.fromIterable(files).pipe(
      Stream.flatMap(({ file }) => SourceFile.documents(file, { ...SourceFile.defaults, ...options })),
      Stream.orElseIfEmpty(() => Stream.fail(new EmptyCorpusError({ paths }))),
      Stream.provideService(FileSystem.FileSystem, fileSystem)
    )
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
    return { name: paths.join(", "), documents, ...(files.some(({ file }) => file.endsWith(".gz")) ? {} : { bytes }) }
  }))

/** Layer of documents held in memory. */
export const layerOf = (documents: ReadonlyArray<Document>): Layer.Layer<Corpus, EmptyCorpusError> =>
  Layer.effect(Corpus, documents.length === 0
    ? Effect.fail(new EmptyCorpusError({ paths: [] }))
    : Effect.succeed({ name: `${documents.length} documents in memory`, documents: Stream.fromIterable(documents) }))

/** Layer of the embedded stories: no file needed. See {@link Stories}. */
export const layerStories = (options: Stories.Options): Layer.Layer<Corpus> =>
  Layer.succeed(Corpus, {
    name: `${options.train} stories of seed ${options.seed}`,
    documents: Stories.documents(options),
    bytes: Stories.estimatedBytes(options)
  })
