/**
 * Whether training leaks: `npm run build`, then `node test/soak/training.mjs [steps]`.
 *
 * Pretrains a small model on the embedded stories for 2 000 steps, with validation, snapshots and journal as in any
 * run, and prints the resident memory every hundred steps, after a garbage collection. Exits 1 if it ever is more than
 * 2 % above what it was after the first hundred. It runs in a process of its own with one arena of malloc, so that
 * memory which one thread gave back does not count because another thread holds it ready.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer, Result, Stream } from "effect"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as OnnxRuntime from "../../dist/backend/onnx/index.js"
import { Config, Journal, Pretrain, SnapshotStore, Stories, Tokenizer, TokenStore, Trainer, Transformer } from
  "../../dist/index.js"

const steps = Number(process.argv[2] ?? 2000)
const every = 100
const bound = 0.02

const config = {
  ...Pretrain.defaults,
  model: Config.make({ vocabSize: 512, embedSize: 64, layerCount: 2, headCount: 2, multipleOf: 32, contextLength: 64 }),
  sequenceLength: 64, batchSize: 4, stepCount: steps, warmupSteps: 100, learningRate: 3e-3,
  evaluateEvery: 50, snapshotEvery: 50 // all that a run does is done once before memory is first looked at
}

const resident = () => {
  globalThis.gc?.()
  return process.memoryUsage.rss()
}

const train = (folder) =>
  Effect.gen(function*() {
    const documents = Stories.documents({ seed: 1, train: 2000, validation: 40 })
    const texts = Stream.map(documents, ({ text }) => text)
    const { model } = yield* Trainer.train(texts, Trainer.llama(config.model.vocabSize))
    const codec = Result.getOrThrow(Tokenizer.fromModel(model))
    const data = yield* TokenStore.tokenise(documents, { ...codec, validationShare: 0.1 })
    const environment = { engine: { name: "onnx", version: "1" }, cpu: { model: "", features: [] }, threadCount: 1 }
    const sizes = []
    yield* Pretrain.pretrain(config, { data, environment, tokenizerHash: "soak", resume: "never" }).pipe(
      Stream.runForEach((event) =>
        Effect.sync(() => {
          if (event._tag !== "Stepped" || event.step % every !== 0) return
          sizes.push(resident())
          const change = sizes.at(-1) / sizes[0] - 1
          const size = (sizes.at(-1) / 2 ** 20).toFixed(1)
          console.log(`step ${event.step}: ${size} MiB (${(100 * change).toFixed(2)} %), loss ${event.loss.toFixed(3)}`)
        })
      )
    )
    return sizes
  }).pipe(Effect.provide(Layer.mergeAll(
    OnnxRuntime.layer(),
    Transformer.layer,
    Journal.layer().pipe(Layer.provideMerge(SnapshotStore.layer({ folder, keepLast: 2 })))
  ).pipe(Layer.provideMerge(NodeServices.layer))))

const measure = async () => {
  const folder = mkdtempSync(join(tmpdir(), "cria-soak-"))
  try {
    const sizes = await Effect.runPromise(Effect.scoped(train(folder)))
    const [first = 0] = sizes
    const worst = Math.max(...sizes.map((size) => size / first - 1))
    const size = (first / 2 ** 20).toFixed(1)
    console.log(`${steps} steps: never more than ${(100 * worst).toFixed(2)} % above ${size} MiB`)
    process.exitCode = worst <= bound ? 0 : 1
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (process.env.MALLOC_ARENA_MAX === "1") {
  await measure()
} else {
  const args = ["--expose-gc", fileURLToPath(import.meta.url), String(steps)]
  const { status } = spawnSync(process.execPath, args, {
    stdio: "inherit", env: { ...process.env, MALLOC_ARENA_MAX: "1" }
  })
  process.exitCode = status ?? 1
}
