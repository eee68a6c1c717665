import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Result } from "effect"
import * as Fs from "node:fs"
import { fileURLToPath } from "node:url"
import * as EncodingWorkers from "../../src/token/EncodingWorkers.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as Trainer from "../../src/token/Trainer.ts"
import { codecOf, modelOf } from "./vocabularies.ts"

/** Threads of Node run no TypeScript: these are started from what `npm run build` made. */
const entry = new URL("../../dist/token/EncodingWorker.js", import.meta.url)
const isBuilt = Fs.existsSync(fileURLToPath(entry))

const { model } = Result.getOrThrow(Trainer.trainSync(
  ["the llama sleeps under a tree", "the cria walks on the hill and the llama listens"],
  Trainer.llama(320)
))
const codec = codecOf(model)
const texts = Array.from({ length: 600 }, (_, i) => `${"the llama ".repeat(i % 50)}${i} 🦙\ud800`)
  .concat("", " ", "a".repeat(1 << 18), "\n", "b".repeat(1 << 18))
const expected = texts.map((text) => codec.encode(text).join(" "))
/** The first text whose ids are others; comparing whole arrays would take minutes to say how they differ. */
const firstDifference = (ids: ReadonlyArray<Int32Array>): number =>
  ids.length === expected.length ? ids.findIndex((part, i) => part.join(" ") !== expected[i]) : ids.length

describe("EncodingWorkers", () => {
  it.effect("little text is encoded in this thread: no worker is started", () => Effect.gen(function*() {
    const nowhere = new URL("file:///nowhere.js")
    const ids = yield* EncodingWorkers.encodeTexts(model, texts, { workerCount: 2, entry: nowhere })
    assert.strictEqual(firstDifference(ids), -1)
  }))

  it.effect.each([0, 1.5, NaN])("refuses to wait for %d workers", (workerCount) => Effect.gen(function*() {
    const exit = yield* Effect.exit(EncodingWorkers.make(model, { workerCount }))
    assert.include(
      String(exit), `EncodingWorkers: workerCount must be a whole number of at least 1, got ${workerCount}`)
  }))

  describe.skipIf(!isBuilt)("on threads (needs npm run build)", () => {
    it.effect.each([1, 2])("%i workers give the ids of one thread, in order", (workerCount) =>
      Effect.gen(function*() {
        const encodeMany = yield* EncodingWorkers.make(model, { workerCount, entry })
        const found = yield* Effect.all([encodeMany(texts), encodeMany([]), encodeMany(["the"])], { concurrency: 3 })
        assert.strictEqual(firstDifference(found[0]), -1)
        assert.deepStrictEqual(found[1], [])
        assert.deepStrictEqual(found[2], [codec.encode("the")])
      }))

    it.effect("threads end with their scope, and what is asked of them then is an error", () =>
      Effect.gen(function*() {
        const encodeMany = yield* Effect.scoped(EncodingWorkers.make(model, { workerCount: 2, entry }))
        const error = yield* Effect.flip(encodeMany(["the"]))
        assert.include(error.message, `encoding worker ${entry.href}: it ended with code `)
      }))

    it.effect("an interrupted call leaves the workers to others", () => Effect.gen(function*() {
      const encodeMany = yield* EncodingWorkers.make(model, { workerCount: 1, entry })
      for (let i = 0; i < 5; i++) {
        const fiber = yield* Effect.forkChild(encodeMany(texts), { startImmediately: true })
        yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
      }
      assert.deepStrictEqual(yield* encodeMany(["the"]), [codec.encode("the")])
    }))
  })

  it.effect("a worker that cannot start is an error that says what to do", () => Effect.gen(function*() {
    const encodeMany = yield* EncodingWorkers.make(model, { workerCount: 2, entry: new URL("file:///nowhere.js") })
    const error = yield* Effect.flip(encodeMany(texts))
    assert.match(error.message, /^encoding worker file:\/\/\/nowhere\.js: Cannot find module .*nowhere\.js/)
    assert.include(error.message, "run from the built package, or name its token/EncodingWorker.js")
    assert.isTrue(Exit.isFailure(yield* Effect.exit(encodeMany(["again"]))))
  }))

  it.effect("an address that no thread can be started from is an error, not a defect", () => Effect.gen(function*() {
    const remote = new URL("https://example.org/EncodingWorker.js")
    const error = yield* Effect.flip(EncodingWorkers.make(model, { workerCount: 1, entry: remote }))
    assert.instanceOf(error, EncodingWorkers.EncodingWorkerError)
    assert.include(error.message, `encoding worker ${remote.href}: TypeError [ERR_INVALID_URL_SCHEME]: `)
  }))

  it.effect("a model that cannot encode is refused before a thread starts", () => Effect.gen(function*() {
    const words = modelOf([], false, {}, { modelType: "word" })
    const error = yield* Effect.flip(EncodingWorkers.make(words, { workerCount: 1, entry }))
    assert.instanceOf(error, Tokenizer.UnsupportedModelError)
  }))
})
