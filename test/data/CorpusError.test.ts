import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { ByteSize, Effect, FileSystem, Layer, PlatformError, Stream } from "effect"
import * as Zlib from "node:zlib"
import * as Corpus from "../../src/data/Corpus.ts"
import * as SourceFile from "../../src/data/SourceFile.ts"

/** The message of reading `paths`, where the folder is written F. */
const failure = (
  files: Readonly<Record<string, string | Uint8Array>>, paths: ReadonlyArray<string>,
  change: (fileSystem: FileSystem.FileSystem) => FileSystem.FileSystem = (same) => same
) =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const folder = yield* fileSystem.makeTempDirectoryScoped()
    for (const [name, content] of Object.entries(files)) {
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content
      yield* fileSystem.writeFile(`${folder}/${name}`, bytes)
    }
    const error = yield* Corpus.Corpus.use((corpus) => Stream.runDrain(corpus.documents)).pipe(
      Effect.provide(Corpus.layerFiles(paths.map((path) => path.replace("F", folder))).pipe(
        Layer.provide(Layer.succeed(FileSystem.FileSystem, change(fileSystem))))),
      Effect.flip)
    return [error._tag, error.message.replaceAll(folder, "F")]
  }).pipe(Effect.provide(NodeServices.layer))

const gzip = (text: string) => new Uint8Array(Zlib.gzipSync(text))

describe("CorpusError", () => {
  it.effect("a path that does not exist, or may not be read", () => Effect.gen(function*() {
    assert.deepStrictEqual(yield* failure({}, ["F/missing.txt"]), ["UnreadablePathError",
      "cannot read F/missing.txt: ENOENT: no such file or directory, stat 'F/missing.txt'\n" +
      "  check the spelling and the permissions; a relative path starts at the folder the command runs in"])
    const denied = PlatformError.systemError({ _tag: "PermissionDenied", module: "FileSystem", method: "access" })
    assert.deepStrictEqual(
      yield* failure({ "a.txt": "a" }, ["F/a.txt"], (files) => ({ ...files, access: () => Effect.fail(denied) })),
      ["UnreadablePathError", "cannot read F/a.txt: PermissionDenied: FileSystem.access\n" +
        "  check the spelling and the permissions; a relative path starts at the folder the command runs in"])
  }))

  it.effect("what is read only once, and a folder where one file is read", () => Effect.gen(function*() {
    const onPipe = (files: FileSystem.FileSystem): FileSystem.FileSystem => ({
      ...files, stat: (path) => Effect.map(files.stat(path), (info) =>
        path.endsWith(".txt") ? { ...info, size: ByteSize.bytes(0), type: "FIFO" as const } : info)
    })
    for (const path of ["F/a.txt", "F/*.txt", "F"]) {
      assert.deepStrictEqual(yield* failure({ "a.txt": "a" }, [path], onPipe), ["UnreadablePathError", "cannot read " +
        "F/a.txt: it is a pipe or a device, and a corpus is read more than once\n  write it to a file first"])
    }
    const folder = yield* Stream.runDrain(SourceFile.text(".")).pipe(Effect.flip, Effect.provide(NodeServices.layer))
    assert.strictEqual(folder.message, "cannot read .: it is a folder\n  name a file")
  }))

  it.effect("a disk that fails while a file is read, packed or not", () => Effect.gen(function*() {
    const broken = PlatformError.systemError({ _tag: "BadResource", module: "FileSystem", method: "read" })
    for (const name of ["a.txt", "a.txt.gz"]) {
      const [tag, message = ""] = yield* failure({ [name]: gzip("a") }, [`F/${name}`], (fileSystem) =>
        ({ ...fileSystem, stream: () => Stream.fail(broken) }))
      assert.strictEqual(tag, "UnreadablePathError")
      assert.include(message, `cannot read F/${name}: BadResource: FileSystem.read\n`)
    }
  }))

  it.effect("a file of an unknown kind in a folder", () => Effect.gen(function*() {
    assert.deepStrictEqual(yield* failure({ "a.txt": "a", "picture.png": "p" }, ["F"]), ["UnknownFormatError",
      "F/picture.png: of a folder, files ending in .txt, .md or .jsonl (each also .gz) are read, and this one is " +
      "none\n  move it out of F, or name the files by a pattern such as F/**/*.txt: a file that is named or matched " +
      "is read as plain text whatever its ending"])
  }))

  it.effect("an empty file, also one that unpacks to nothing or to a byte-order mark", () => Effect.gen(function*() {
    const message = (name: string) => ["EmptyFileError", `F/${name} is empty: every file of a corpus must hold text\n` +
      "  remove it, or see whether writing it was cut short"]
    assert.deepStrictEqual(yield* failure({ "a.txt": "" }, ["F/a.txt"]), message("a.txt"))
    assert.deepStrictEqual(yield* failure({ "a.txt": "a", "b.txt": "" }, ["F"]), message("b.txt"))
    assert.deepStrictEqual(yield* failure({ "a.txt.gz": gzip("") }, ["F/a.txt.gz"]), message("a.txt.gz"))
    assert.deepStrictEqual(yield* failure({ "a.txt": "\ufeff" }, ["F/a.txt"]), message("a.txt"))
  }))

  it.effect("a corpus without a document", () => Effect.gen(function*() {
    const message = (paths: string) => ["EmptyCorpusError",
      `no text found under ${paths}: a corpus must hold at least one document\n` +
      "  name a text file, a .jsonl file, a folder of them, or a pattern that matches some"]
    assert.deepStrictEqual(yield* failure({}, []), message("an empty list of paths"))
    assert.deepStrictEqual(yield* failure({}, ["F"]), message("F"))
    assert.deepStrictEqual(yield* failure({}, ["F/*.txt"]), message("F/*.txt"))
    assert.deepStrictEqual(yield* failure({ "a.txt": "a" }, ["F/a.txt", "F/*.md"]), message("F/*.md"))
    assert.deepStrictEqual(yield* failure({ "a.jsonl": "\n\n" }, ["F/a.jsonl"]), message("F/a.jsonl"))
    const inMemory = yield* Effect.flip(Effect.provide(Corpus.Corpus, Corpus.layerOf([])))
    assert.strictEqual(inMemory._tag, "EmptyCorpusError")
  }))

  it.effect("bytes that are not text, by offset", () => Effect.gen(function*() {
    const remedy = "convert it, for instance with iconv -f LATIN1 -t UTF-8, or leave it out"
    assert.deepStrictEqual(yield* failure({ "a.txt": Uint8Array.of(72, 101, 233, 108) }, ["F/a.txt"]), ["NotTextError",
      "F/a.txt: byte 0xE9 at byte 2 is not UTF-8, as text must be\n" +
      "  likely another encoding, or a binary file: " + remedy])
    assert.deepStrictEqual(yield* failure({ "a.txt": Uint8Array.of(72, 0, 101, 0) }, ["F/a.txt"]), ["NotTextError",
      "F/a.txt: byte 1 is zero: this is a binary file (or UTF-16), and text must be UTF-8\n  " + remedy])
    assert.deepStrictEqual(yield* failure({ "a.txt": Uint8Array.of(72, 0xe2, 0x82) }, ["F/a.txt"]), ["NotTextError",
      "F/a.txt: ends within a character that begins at byte 1: text must be UTF-8\n" +
      "  likely the file was cut short; if it is not UTF-8, " + remedy])
    const late = new Uint8Array(300_000).fill(97)
    late[299_000] = 0xff
    assert.include((yield* failure({ "a.txt": late }, ["F/a.txt"]))[1]!, "byte 0xFF at byte 299000 is not UTF-8")
  }))

  it.effect("a row that is not JSON, lacks the field, or holds something else in it, by line and field", () =>
    Effect.gen(function*() {
      const row = (problem: string) => ["RowError",
        "F/a.jsonl:2: a row must be a JSON object whose field \"text\" holds a text that is not empty\n" +
        `  ${problem}\n  repair or remove the row; if the text stands in another field, name that field`]
      const of = (second: string) => failure({ "a.jsonl": `{"text":"fine"}\n${second}\n` }, ["F/a.jsonl"])
      assert.deepStrictEqual(yield* of("{\"txt\":\"typo\"}"),
        row("Missing key at [\"text\"]; the row reads {\"txt\":\"typo\"}"))
      assert.deepStrictEqual(yield* of("{\"text\":7}"),
        row("Expected string at [\"text\"]; the row reads {\"text\":7}"))
      assert.deepStrictEqual(yield* of("{\"text\":\"\"}"),
        row("Expected a value with a length of at least 1 at [\"text\"]; the row reads {\"text\":\"\"}"))
      const [, broken = ""] = yield* of(`{"text":"cut${"!".repeat(90)}`)
      assert.include(broken, `\n  Expected a valid JSON string; the row reads {"text":"cut${"!".repeat(68)}…\n  repair`)
    }))

  it.effect("a packed file that is cut short, or is none", () => Effect.gen(function*() {
    const message = (problem: string) => ["GzipError", `F/a.txt.gz does not unpack as gzip: ${problem}\n` +
      "  likely the file was cut short or damaged on its way: fetch it again, or test it with gzip -t"]
    assert.deepStrictEqual(
      yield* failure({ "a.txt.gz": gzip("some text ".repeat(99)).subarray(0, 20) }, ["F/a.txt.gz"]),
      message("unexpected end of file"))
    assert.deepStrictEqual(yield* failure({ "a.txt.gz": "plain" }, ["F/a.txt.gz"]), message("incorrect header check"))
  }))
})
