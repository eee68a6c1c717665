import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer, Stream } from "effect"
import * as fc from "fast-check"
import { execFileSync, spawn } from "node:child_process"
import * as Zlib from "node:zlib"
import * as Corpus from "../../src/data/Corpus.ts"
import * as Document from "../../src/data/Document.ts"
import * as SourceFile from "../../src/data/SourceFile.ts"
import * as Split from "../../src/data/Split.ts"

type Files = Readonly<Record<string, string | Uint8Array>>

/** Writes files into a fresh folder, which goes when the test ends. */
const folderOf = Effect.fnUntraced(function*(files: Files) {
  const fileSystem = yield* FileSystem.FileSystem
  const folder = yield* fileSystem.makeTempDirectoryScoped()
  for (const [name, content] of Object.entries(files)) {
    const parent = name.split("/").slice(0, -1).join("/")
    yield* fileSystem.makeDirectory(`${folder}/${parent}`, { recursive: true })
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content
    yield* fileSystem.writeFile(`${folder}/${name}`, bytes)
  }
  return folder
})

const read = (paths: ReadonlyArray<string>, options?: Parameters<typeof Corpus.layerFiles>[1]) =>
  Corpus.Corpus.use((corpus) => Stream.runCollect(corpus.documents)).pipe(
    Effect.provide(Corpus.layerFiles(paths, options)))

const texts = (documents: ReadonlyArray<Document.Document>) => documents.map(({ text }) => text)

const { layer } = NodeServices

describe("the text of a file", () => {
  it.live.skipIf(process.platform === "win32")("is read of a pipe too, to its end", () =>
    Effect.gen(function*() {
      const pipe = `${yield* folderOf({})}/pipe`
      execFileSync("mkfifo", [pipe])
      const writer = spawn("sh", ["-c", `printf 'One\\nTwo' > '${pipe}'`])
      assert.strictEqual(yield* Stream.mkString(SourceFile.text(pipe)), "One\nTwo")
      writer.kill()
    }).pipe(Effect.provide(layer)))
})

describe("Corpus", () => {
  it.effect("a short file is one document; a long one is cut, and its documents put together are the file", () =>
    Effect.gen(function*() {
      const paragraph = (_: unknown, i: number) => `Paragraph ${i} of the file, with é and 𝄞.\nSecond line.\n\n`
      const long = Array.from({ length: 400 }, paragraph).join("")
      const folder = yield* folderOf({ "short.txt": "One.\n\nTwo.\n", "long.txt": long })
      assert.deepStrictEqual(yield* read([`${folder}/short.txt`]), [
        Document.make("One.\n\nTwo.\n", { file: `${folder}/short.txt`, line: 1 })
      ])
      const documents = yield* read([`${folder}/long.txt`])
      assert.strictEqual(texts(documents).join(""), long)
      assert.isAbove(documents.length, 10)
      for (const document of documents) {
        assert.isAtMost(document.text.length, 2048)
        const before = long.slice(0, long.indexOf(document.text))
        assert.strictEqual(document.source.line, before.split("\n").length)
      }
      const parts = new Set(documents.map((document) => Split.part(document, 0.3)))
      assert.strictEqual(parts.size, 2, "one file gives both a training and a validation part")
      assert.isAbove((yield* read([`${folder}/long.txt`], { documentCharacters: 200 })).length, documents.length * 5)
    }).pipe(Effect.provide(layer)))

  it("files of any text, packed or not, give their text back", () =>
    fc.assert(fc.asyncProperty(
      fc.string({ unit: "grapheme", minLength: 1 }).filter((text) => !/^\ufeff|\0/.test(text)),
      fc.integer({ min: 2, max: 30 }),
      (text, documentCharacters) => Effect.runPromise(Effect.gen(function*() {
        const folder = yield* folderOf({ "a.txt": text, "a.txt.gz": new Uint8Array(Zlib.gzipSync(text)) })
        const plain = yield* read([`${folder}/a.txt`], { documentCharacters })
        assert.strictEqual(texts(plain).join(""), text)
        const packed = yield* read([`${folder}/a.txt.gz`], { documentCharacters })
        assert.deepStrictEqual(packed.map(({ id }) => id), plain.map(({ id }) => id))
      }).pipe(Effect.scoped, Effect.provide(layer)))), { numRuns: 25 }))

  it.effect("rows of JSON lines are documents, with their lines; blank lines are none; the field can be named", () =>
    Effect.gen(function*() {
      const folder = yield* folderOf({
        "a.jsonl": "{\"text\":\"One \\u00e9\\n\",\"other\":1}\n\n{\"text\":\"Two\"}\r\n{\"text\":\"Three\"}",
        "b.jsonl.gz": new Uint8Array(Zlib.gzipSync("{\"story\":\"Four\",\"text\":\"not this\"}\n"))
      })
      const rows = yield* read([`${folder}/a.jsonl`])
      assert.deepStrictEqual(texts(rows), ["One é\n", "Two", "Three"])
      assert.deepStrictEqual(rows.map(({ source }) => source.line), [1, 3, 4])
      assert.deepStrictEqual(texts(yield* read([`${folder}/b.jsonl.gz`], { field: "story" })), ["Four"])
    }).pipe(Effect.provide(layer)))

  it.effect("folders are read with all below them in the order of names, without hidden files; no file twice", () =>
    Effect.gen(function*() {
      const folder = yield* folderOf({
        "b.txt": "b", "a.md": "a", "sub/d.txt": "d", "sub/deep/c.jsonl": "{\"text\":\"c\"}",
        ".hidden/x.txt": "x", ".y": "y"
      })
      assert.deepStrictEqual(texts(yield* read([folder])), ["a", "b", "d", "c"])
      assert.deepStrictEqual(texts(yield* read([`${folder}/b.txt`, `${folder}/`])), ["b", "a", "d", "c"])
      assert.deepStrictEqual(texts(yield* read([`${folder}/sub/../b.txt`, `${folder}/b.txt`])), ["b"])
    }).pipe(Effect.provide(layer)))

  it.effect("patterns choose files of any ending", () => Effect.gen(function*() {
    const folder = yield* folderOf({ "a.txt": "a", "sub/b.ts": "b", "sub/c.py": "c", "[odd].txt": "odd" })
    assert.deepStrictEqual(texts(yield* read([`${folder}/**/*.{ts,py}`])), ["b", "c"])
    assert.deepStrictEqual(texts(yield* read([`${folder}/*/*.py`])), ["c"])
    assert.deepStrictEqual(texts(yield* read([`${folder}/[odd].txt`])), ["odd"], "a file's own name is no pattern")
  }).pipe(Effect.provide(layer)))

  it.effect("reading again gives the same documents; the size is known unless packed", () => Effect.gen(function*() {
    const folder = yield* folderOf({ "a.txt": "some text", "b.txt.gz": new Uint8Array(Zlib.gzipSync("more")) })
    const corpus = (paths: ReadonlyArray<string>) => Effect.provide(Corpus.Corpus, Corpus.layerFiles(paths))
    const plain = yield* corpus([`${folder}/a.txt`])
    assert.strictEqual(plain.bytes, 9)
    assert.strictEqual(plain.name, `${folder}/a.txt`)
    assert.deepStrictEqual(yield* Stream.runCollect(plain.documents), yield* Stream.runCollect(plain.documents))
    assert.isFalse("bytes" in (yield* corpus([folder])))
  }).pipe(Effect.provide(layer)))

  it.effect("reads no further than it must: documents of an endless file come at once", () => Effect.gen(function*() {
    let pieces = 0
    const piece = new TextEncoder().encode("A line of an endless file.\n".repeat(1000))
    const endless = FileSystem.makeNoop({
      ...(yield* FileSystem.FileSystem),
      stream: () => Stream.forever(Stream.sync(() => { pieces++; return piece }))
    })
    const folder = yield* folderOf({ "endless.txt": "on disk it is short" })
    const first = yield* Corpus.Corpus.use(({ documents }) => documents.pipe(Stream.take(1000), Stream.runCount)).pipe(
      Effect.provide(Corpus.layerFiles([`${folder}/endless.txt`]).pipe(
        Layer.provide(Layer.succeed(FileSystem.FileSystem, endless)))))
    assert.strictEqual(first, 1000)
    assert.isBelow(pieces, 1000 * 2048 / piece.length + 20)
  }).pipe(Effect.provide(layer)))

  it.effect("documents in memory are given as they are", () => Effect.gen(function*() {
    const documents = ["a", "b"].map((text, i) => Document.make(text, { file: "memory", line: i + 1 }))
    const given = yield* Corpus.Corpus.use((corpus) => Stream.runCollect(corpus.documents)).pipe(
      Effect.provide(Corpus.layerOf(documents)))
    assert.deepStrictEqual(given, documents)
  }))

  const data = process.env["CRIA_TEST_DATA"]
  it.effect.skipIf(data === undefined)("Shakespeare in one file comes back whole (needs CRIA_TEST_DATA)", () =>
    Effect.gen(function*() {
      const file = `${data}/tinyshakespeare.txt`
      const documents = yield* read([file])
      assert.strictEqual(texts(documents).join(""), yield* (yield* FileSystem.FileSystem).readFileString(file))
      const kept = documents.filter((document) => Split.part(document, 0.1) === "validation")
      assert.closeTo(kept.length / documents.length, 0.1, 0.05)
    }).pipe(Effect.provide(layer)))
})
