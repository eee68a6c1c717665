/**
 * Every backend that starts, side by side: matrix products, memory, a training step, a decode step. Each runs in a
 * process of its own, one after the other.
 */
import { Config, MatmulRate, Tokenizer } from "cria"
import { Effect, Layer } from "effect"
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { choices, names } from "../dist/cli/BackendChoice.js"
import { configOf, decoding, median, trainingStep } from "./workload.mjs"

const [rows, length] = [4, 64]
const config = configOf({ embedSize: 128, layerCount: 4 })

/**
 * Milliseconds of runs after a first, the median; for at most so many seconds.
 *
 * @param {Effect.Effect<unknown, unknown>} run
 * @param {number} limit
 */
const timed = Effect.fnUntraced(function*(run, limit) {
  yield* run
  /** @type {Array<number>} */
  const times = []
  for (const began = performance.now(); times.length < 15 && performance.now() - began < limit * 1e3;) {
    const start = performance.now()
    yield* run
    times.push(performance.now() - start)
  }
  return median(times)
})

const measure = Effect.gen(function*() {
  const small = yield* MatmulRate.matmulRate({ size: 256, seconds: 0.2 })
  const size = small > 4e9 ? 1024 : 256
  const matmul = size === 256 ? small : yield* MatmulRate.matmulRate({ size, seconds: 1 })
  const bandwidth = yield* MatmulRate.bandwidth({ size: 1 << 22, seconds: 0.3 })
  const { model, parameters, take } = yield* trainingStep(config, rows, length)
  const train = yield* timed(take, 15)
  const write = yield* decoding(model, parameters, train < 1e3 ? 64 : 8) // of slow ones the first eight tokens
  let count = 0
  const decode = (yield* timed(Effect.tap(write, (tokens) => Effect.sync(() => count = tokens)), 15)) / count
  return { matmul, size, bandwidth, train, decode }
})

const [, , only] = process.argv

if (only !== undefined) {
  /** @type {Layer.Layer<import("cria").Backend.Backend>} */
  const layer = Layer.orDie(choices[/** @type {keyof typeof choices} */ (only)].start(undefined))
  const services = Layer.merge(layer, Tokenizer.layerBytes)
  const measured = /** @type {any} */ (measure.pipe(Effect.scoped, Effect.provide(services)))
  const found = await Effect.runPromise(/** @type {Effect.Effect<unknown>} */ (measured))
  console.log(JSON.stringify(found))
} else {
  const millions = (Config.parameterCount(config) / 1e6).toFixed(1)
  console.log(`a training step is ${rows} x ${length} tokens, a decode step one token; ${millions} M parameters`)
  console.log(["backend", "matmul", "memory", "training step", "decode step"].map((text) => text.padEnd(22)).join(""))
  for (const name of names.filter((name) => name !== "reference")) {
    const { stdout } = spawnSync(process.execPath, [fileURLToPath(import.meta.url), name], { encoding: "utf8" })
    const line = stdout.trim().split("\n").at(-1) ?? ""
    if (!line.startsWith("{")) {
      console.log(`${name.padEnd(22)}skipped: it does not start (cria doctor says why)`)
      continue
    }
    const { bandwidth, decode, matmul, size, train } = JSON.parse(line)
    console.log([
      name, `${(matmul / 1e9).toFixed(1)} GF/s (${size})`, `${(bandwidth / 1e9).toFixed(1)} GB/s`,
      `${train.toFixed(1)} ms`, `${decode.toFixed(2)} ms`
    ].map((text) => text.padEnd(22)).join(""))
  }
  if (/swiftshader|lavapipe|lvp_/i.test(process.env.VK_DRIVER_FILES ?? "")) {
    console.log("WebGPU runs on a card in software here (VK_DRIVER_FILES): its figures say nothing about cards")
  }
}
