import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, FileSystem, Option, Path } from "effect"
import * as RunFolder from "../../src/cli/RunFolder.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { withFiles } from "./Cria.ts"

const on = <A, E>(
  files: Readonly<Record<string, string>>, effect: Effect.Effect<A, E, FileSystem.FileSystem | Path.Path>
) =>
  Effect.gen(function*() {
    const disk = MemoryDisk.make()
    yield* withFiles(disk, files)
    const times = new Map([["runs/b/journal.jsonl", 3], ["runs/a/journal.jsonl", 2]])
    const fileSystem = {
      ...disk.fileSystem,
      stat: (path: string) => Effect.map(disk.fileSystem.stat(path), (info) =>
        ({ ...info, mtime: Option.fromNullishOr(times.get(path)).pipe(Option.map((time) => new Date(time))) }))
    }
    return [yield* Effect.provideService(effect, FileSystem.FileSystem, fileSystem), disk] as const
  }).pipe(Effect.provide(Path.layer))

describe("RunFolder", () => {
  it.effect("names a run after its first text", () =>
    Effect.gen(function*() {
      const names: ReadonlyArray<readonly [ReadonlyArray<string>, string]> = [
        [[], "stories"], [["a/shakespeare.txt", "b.txt"], "shakespeare"], [["rows.jsonl.gz"], "rows"],
        [["texts/"], "texts"], [["books/**/*.txt"], "text"], [["Ä book!.md"], "Ä-book-"]
      ]
      for (const [text, name] of names) assert.strictEqual(yield* RunFolder.nameOf(text), name)
    }).pipe(Effect.provide(Path.layer)))
  it.effect("counts on while folders hold runs, of which a configuration or a snapshot is the sign", () =>
    Effect.gen(function*() {
      const [first] = yield* on({}, RunFolder.find("a"))
      assert.deepStrictEqual(first, { free: "runs/a", last: undefined })
      const files = {
        "/runs/a/configuration.json": "{}", "/runs/a-2/snapshot-00000002/x": "", "/runs/a-3/notes.txt": ""
      }
      const [third] = yield* on(files, RunFolder.find("a"))
      assert.deepStrictEqual(third, { free: "runs/a-3", last: "runs/a-2" })
    }))
  it.effect("finds the run that trained last", () =>
    Effect.gen(function*() {
      const files = { "/runs/a/journal.jsonl": "", "/runs/b/journal.jsonl": "", "/runs/c/other": "", "/runs/d": "" }
      assert.strictEqual((yield* on(files, RunFolder.latest))[0], "runs/b")
      assert.strictEqual((yield* Effect.flip(on({}, RunFolder.latest))).message,
        "no run in runs/ has trained\n  Begin one with cria pretrain, or name a model: --model PATH (to cria " +
          "tokenizer: --tokenizer PATH).")
      const made = { "/runs/b/configuration.json": "{}", "/runs/a/configuration.json": "{}", "/runs/c/x": "" }
      assert.strictEqual((yield* Effect.flip(on(made, RunFolder.latest))).message,
        "no run in runs/ has trained; there are runs/a, runs/b, which did not\n  Begin one with cria pretrain, or " +
          "name a model: --model PATH (to cria tokenizer: --tokenizer PATH).")
    }))
  it.effect("writes the configuration last, so that what has one is a whole run", () =>
    Effect.gen(function*() {
      const files = { "/runs/a/x": "" }
      const write = RunFolder.write("runs/a", { steps: 3, text: ["b"] }, Tokenizer.bytesModel)
      const [, whole] = yield* on(files, write)
      const written = [...whole.files().keys()].slice(1)
      assert.deepStrictEqual(written, ["/runs/a/tokenizer.model", "/runs/a/configuration.json"])
      const json = Buffer.from(whole.files().get("/runs/a/configuration.json") ?? []).toString()
      assert.strictEqual(json, `{\n  "text": [\n    "b"\n  ],\n  "steps": 3\n}\n`)
      yield* on({ "/runs/a/configuration.json": "{}" }, RunFolder.require("runs/a"))
    }))
  it.effect("killed, or cut off from power, at any point of its writing, leaves no mark of a run or a whole run", () =>
    Effect.gen(function*() {
      const write = RunFolder.write("/runs/a", { steps: 3, text: ["b"] }, Tokenizer.bytesModel)
      const [, whole] = yield* on({ "/runs/a/x": "" }, write)
      const expected = whole.files()
      const marks: Array<boolean> = []
      for (const survives of [true, false]) {
        for (let n = 0, isKilled = true; isKilled; n++) {
          const disk = MemoryDisk.make()
          yield* withFiles(disk, { "/runs/a/x": "" })
          disk.cutPower(() => true)
          disk.killAfter(n)
          const exit = yield* Effect.exit(Effect.provideService(write, FileSystem.FileSystem, disk.fileSystem))
          isKilled = Exit.isFailure(exit)
          disk.cutPower(() => survives)
          const files = disk.files()
          marks.push(files.has("/runs/a/configuration.json"))
          if (marks.at(-1) === false) continue
          for (const name of ["configuration.json", "tokenizer.model"]) {
            assert.deepStrictEqual(files.get(`/runs/a/${name}`), expected.get(`/runs/a/${name}`), `${name}, ${n}`)
          }
        }
      }
      assert.deepStrictEqual([...new Set(marks)].sort(), [false, true])
    }).pipe(Effect.provide(Path.layer)))
  it.effect("says that a folder is taken, or holds nothing, and what is beside it", () =>
    Effect.gen(function*() {
      const taken = on({ "/runs/a/configuration.json": "{}" }, RunFolder.requireFree("runs/a"))
      assert.strictEqual((yield* Effect.flip(taken)).message,
        "runs/a holds a run already\n  Go on with it: --resume --out runs/a. Or begin a new one in another folder: " +
          "--out FOLDER.")
      const missing = on({ "/runs/a/configuration.json": "{}", "/runs/file": "" }, RunFolder.require("runs/b"))
      assert.strictEqual((yield* Effect.flip(missing)).message,
        "runs/b holds no run: it has no configuration.json\n  There are runs/a: name the folder of a run, or begin " +
          "one with cria pretrain.")
    }))
})
