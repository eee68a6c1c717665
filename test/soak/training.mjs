/**
 * Whether training leaks: `npm run build`, then `node test/soak/training.mjs [steps]`.
 *
 * Pretrains a small model on the embedded stories for 2 000 steps, with validation, snapshots and journal as in any
 * run, and prints every hundred steps what memory the process holds, after a garbage collection. Exits 1 if the median
 * of any quarter of the run is more than 2 % above or below that of the first, which begins after a hundred steps:
 * single readings scatter by 5 %, as batches and validations in flight come and go.
 *
 * Held is, on Linux, resident memory of its own (no pages of files, which the system takes and gives as it likes; with
 * those that were swapped out), without the room that V8 keeps ready for new objects; elsewhere resident memory.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer, Result, Stream } from "effect"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as OnnxRuntime from "../../dist/backend/onnx/index.js"
import { Config, Journal, Pretrain, SnapshotStore, Stories, Tokenizer, TokenStore, Trainer, Transformer } from
  "../../dist/index.js"

const steps = Number(process.argv[2] ?? 2000)
const every = 100
const between = 75 // steps at which no snapshot is being written
const bound = 0.02

const config = {
  ...Pretrain.defaults,
  model: Config.make({ vocabSize: 512, embedSize: 64, layerCount: 2, headCount: 2, multipleOf: 32, contextLength: 64 }),
  sequenceLength: 64, batchSize: 4, stepCount: steps, warmupSteps: 100, learningRate: 3e-3,
  evaluateEvery: 50, snapshotEvery: 50 // all that a run does is done once before memory is first looked at
}

setFlagsFromString("--expose-gc")
const collectGarbage = runInNewContext("gc")

const held = () => {
  collectGarbage()
  collectGarbage() // what the first found is freed on another thread
  const { heapTotal, heapUsed, rss } = process.memoryUsage()
  const status = existsSync("/proc/self/status") ? readFileSync("/proc/self/status", "utf8") : undefined
  const kilobytes = (name) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1])
  const own = status === undefined ? rss : 1024 * (kilobytes("RssAnon") + kilobytes("VmSwap"))
  return own - (heapTotal - heapUsed)
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1]

const train = (folder) =>
  Effect.gen(function*() {
    const documents = Stories.documents({ seed: 1, train: 2000, validation: 40 })
    const texts = Stream.map(documents, ({ text }) => text)
    const { model } = yield* Trainer.train(texts, Trainer.llama(config.model.vocabSize))
    const codec = Result.getOrThrow(Tokenizer.fromModel(model))
    const data = yield* TokenStore.tokenize(documents, { ...codec, validationShare: 0.1 })
    const environment = { engine: { name: "onnx", version: "1" }, cpu: { model: "", features: [] }, threadCount: 1 }
    const sizes = []
    yield* Pretrain.pretrain(config, { data, environment, tokenizerHash: "soak", resume: "never" }).pipe(
      Stream.runForEach((event) =>
        Effect.sync(() => {
          if (event._tag !== "Stepped" || event.step % every !== between) return
          sizes.push(held())
          console.log(`step ${event.step}: ${(sizes.at(-1) / 2 ** 20).toFixed(1)} MiB, loss ${event.loss.toFixed(3)}`)
        })
      )
    )
    return sizes
  }).pipe(Effect.provide(Layer.mergeAll(
    OnnxRuntime.layer(),
    Transformer.layer,
    Journal.layer().pipe(Layer.provideMerge(SnapshotStore.layer({ folder, keepLast: 2 })))
  ).pipe(Layer.provideMerge(NodeServices.layer))))

const folder = mkdtempSync(join(tmpdir(), "cria-soak-"))
try {
  const [, ...sizes] = await Effect.runPromise(Effect.scoped(train(folder)))
  const border = (i) => Math.round(i * sizes.length / 4)
  const [first = NaN, ...rest] = [0, 1, 2, 3].map((i) => median(sizes.slice(border(i), border(i + 1))))
  const changes = rest.map((size) => size / first - 1)
  const worst = Math.max(...changes.map(Math.abs))
  const percents = changes.map((change) => `${(100 * change).toFixed(2)} %`).join(", ")
  console.log(`${steps} steps: ${(first / 2 ** 20).toFixed(1)} MiB, then ${percents}`)
  process.exitCode = worst <= bound ? 0 : 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
