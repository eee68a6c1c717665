// @ts-check
/**
 * The training step of a 24 M-parameter Llama: tokens a second, share of the machine's matrix-product rate, memory.
 *
 * With CRIA_PEER_PYTHON naming a Python that has PyTorch, the peer takes its steps in turn with ours, so that both see
 * the same machine; the ratio is the median over pairs of neighbouring steps.
 */
import { Backend, Config, MatmulRate } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { median, trainingStep } from "./workload.mjs"

const [rows, length, rounds] = [4, 256, Number(process.env.ROUNDS ?? 15)]
const config = Config.presets["24M"]

/** The peer as a function that takes one step and gives its milliseconds. */
const startPeer = async () => {
  const python = process.env.CRIA_PEER_PYTHON
  if (python === undefined) return undefined
  const child = spawn(python, [fileURLToPath(new URL("peer/train_step.py", import.meta.url)), "compile"],
    { stdio: ["pipe", "pipe", "inherit"] })
  const lines = createInterface({ input: child.stdout })
  const ask = async (/** @type {string} */ question) => {
    const answer = once(lines, "line")
    if (question !== "") child.stdin.write(`${question}\n`)
    return String((await answer)[0])
  }
  return { name: await ask(""), step: async () => Number(await ask("step")), rss: async () => Number(await ask("rss")),
    stop: () => child.kill() }
}

const main = Effect.gen(function*() {
  const { take } = yield* trainingStep(config, rows, length)
  const peer = yield* Effect.promise(startPeer)
  const ours = Effect.gen(function*() {
    const began = performance.now()
    yield* take
    return performance.now() - began
  })
  for (let i = 0; i < 3; i++) yield* ours
  const [mine, theirs, rates] =
    [/** @type {Array<number>} */ ([]), /** @type {Array<number>} */ ([]), /** @type {Array<number>} */ ([])]
  for (let i = 0; i < rounds; i++) {
    mine.push(yield* ours)
    if (peer !== undefined) theirs.push(yield* Effect.promise(() => peer.step()))
    rates.push((yield* MatmulRate.matmulRate({ size: 2048, seconds: 0 })) / 1e9)
  }
  const flops = Config.flopsPerToken(config, length) * rows * length
  /** @param {number} time @param {number} rate */
  const share = (time, rate) => (flops / time / 1e6 / rate * 100).toFixed(0)
  const report = (/** @type {string} */ name, /** @type {ReadonlyArray<number>} */ times,
    /** @type {number} */ memory) =>
    console.log([
      name.padEnd(38),
      `${median(times).toFixed(0).padStart(5)} ms (best ${Math.min(...times).toFixed(0)})`,
      `${(rows * length / median(times) * 1e3).toFixed(0).padStart(5)} tokens/s`,
      `${share(median(times), median(rates))} % of the matmul rate`,
      `(best ${share(Math.min(...times), Math.max(...rates))} %)`,
      `${memory.toFixed(0)} MB at most`
    ].join("  "))
  const millions = (Config.parameterCount(config) / 1e6).toFixed(1)
  console.log(`training step, ${millions} M parameters, ${rows} x ${length} tokens, ${(flops / 1e9).toFixed(1)} GFLOP`)
  console.log(`matmul 2048: ${median(rates).toFixed(0)} GF/s (best ${Math.max(...rates).toFixed(0)})`)
  const backend = yield* Backend.Backend
  report(`Cria, ${backend.version}`, mine, process.resourceUsage().maxRSS / 1024)
  if (peer === undefined) console.log("the peer was skipped: set CRIA_PEER_PYTHON to a Python with PyTorch")
  else {
    report(peer.name.split(",")[0] ?? "", theirs, yield* Effect.promise(() => peer.rss()))
    peer.stop()
    const pairs = median(mine.map((time, i) => (theirs[i] ?? NaN) / time)).toFixed(2)
    const best = (Math.min(...theirs) / Math.min(...mine)).toFixed(2)
    console.log(`ratio ${pairs} x (median of ${rounds} pairs), ${best} x (best steps)`)
  }
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))
