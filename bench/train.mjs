// @ts-check
/**
 * The training step of a 24 M-parameter Llama: tokens a second, share of the machine's matrix-product rate, memory.
 *
 * With CRIA_PEER_PYTHON naming a Python that has PyTorch, the peer takes its steps in turn with ours, so that both see
 * the same machine; the ratio is the median over pairs of neighbouring steps.
 */
import { AdamW, Backend, Clip, Config, CrossEntropy, Initialization, Key, Mask, Optimizer, Program, Specification,
  Tensor as T, TrainStep, Transformer, Visibility } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

const [rows, length, rounds] = [4, 256, Number(process.env.ROUNDS ?? 15)]
const config = Config.presets["24M"]

/** @param {ReadonlyArray<number>} values */
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN

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

const matmul = Effect.gen(function*() {
  const backend = yield* Backend.Backend
  const size = 2048
  const state = { left: Specification.real({ row: size, inner: size }),
    right: Specification.real({ inner: size, column: size }) }
  const program = yield* Program.make("matmul", { inputs: {}, state }, (_, { left, right }) => ({
    outputs: { corner: T.at(T.at(T.contract(left, right, "inner"), "row", 0), "column", 0) }
  }))
  const cells = yield* backend.allocate(state)
  const bound = yield* Effect.flatMap(backend.compile(program), (executable) => executable.bind(cells))
  yield* bound.run({})
  return Effect.gen(function*() {
    const began = performance.now()
    yield* bound.run({})
    return 2 * size ** 3 / (performance.now() - began) / 1e6
  })
})

const main = Effect.gen(function*() {
  const model = Transformer.llama(config)
  const tokens = { batch: rows, position: length }
  const train = yield* TrainStep.make({
    name: "bench",
    inputs: { ids: Specification.ids(tokens), targets: Specification.ids(tokens), mask: Specification.real(tokens),
      tokenCount: Specification.real({}) },
    parameters: model.specification,
    optimizer: Optimizer.chain(Clip.clipByGlobalNorm(1), AdamW.adamW()),
    loss: (parameters, { ids, mask, targets, tokenCount }) => {
      const logits = model.logits(parameters, model.hidden(parameters, { ids, visibility: Visibility.causal }))
      return { loss: Mask.maskedMean(CrossEntropy.tokenCrossEntropy(logits, targets), mask, tokenCount), outputs: {} }
    },
    initial: Initialization.draws(Key.make(0), model.specification)
  })
  const draw = (/** @type {string} */ name) =>
    Int32Array.from({ length: rows * length }, (_, i) => Key.below(Key.derive(Key.make(0), name), i, config.vocabSize))
  const microBatches =
    [{ ids: draw("ids"), targets: draw("targets"), mask: new Float32Array(rows * length).fill(1),
      tokenCount: rows * length }]
  const rate = yield* matmul
  const peer = yield* Effect.promise(startPeer)
  let step = 0
  const ours = Effect.gen(function*() {
    const began = performance.now()
    yield* train.run({ step: ++step, learningRate: 1e-3, microBatches, describe: () => "random tokens" })
    return performance.now() - began
  })
  for (let i = 0; i < 3; i++) yield* ours
  const [mine, theirs, rates] =
    [/** @type {Array<number>} */ ([]), /** @type {Array<number>} */ ([]), /** @type {Array<number>} */ ([])]
  for (let i = 0; i < rounds; i++) {
    mine.push(yield* ours)
    if (peer !== undefined) theirs.push(yield* Effect.promise(() => peer.step()))
    rates.push(yield* rate)
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
