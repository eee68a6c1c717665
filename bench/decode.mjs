// @ts-check
/**
 * Decoding with a 15 M-parameter Llama (embeddings tied, random weights): tokens a second of one sequence and of
 * sixteen, with weights in float32, 8 bits (in blocks, and in rows) and 4 bits, and of one in float32 with a draft in
 * 8, greedy; the rate at which a prompt is computed; the time to the first token, and the longest pause of the event
 * loop.
 *
 * A rate is that of a whole context, from its second token to its last, as the peer's is; of all rounds the median and
 * the best are told.
 *
 * With CRIA_PEER_LLAMA2C naming the binary of llama2.c's run.c (`gcc -Ofast -march=native -fopenmp run.c -lm -o run`)
 * and CRIA_PEER_LLAMA2C_TOKENIZER its tokenizer.bin, the peer continues the same file with two threads, in turn with
 * ours; the ratios are to its float32 run of one sequence. ROUNDS sets how often all take their turn.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Backend, Checkpoint, Drafting, MatmulRate, Quantization, Sampling, Slots, Transformer } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect, Layer } from "effect"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pauses } from "./pauses.mjs"
import { median } from "./workload.mjs"

const [dim, hidden, layers, heads, vocab, length] = [288, 768, 6, 6, 32_000, 256]
const rounds = Number(process.env.ROUNDS ?? 7)
const slotCount = 16

/** The file that both read: version 0 of llama2.c, uniform weights, gains of one. */
const writeCheckpoint = (/** @type {string} */ path) => {
  const square = layers * dim * dim
  const sizes = [vocab * dim, layers * dim, square, square, square, square, layers * dim, layers * hidden * dim,
    layers * hidden * dim, layers * hidden * dim, dim, length * dim / heads / 2, length * dim / heads / 2]
  const gains = [1, 6, 10]
  const bytes = new ArrayBuffer(28 + 4 * sizes.reduce((total, size) => total + size, 0))
  new Int32Array(bytes, 0, 7).set([dim, hidden, layers, heads, heads, vocab, length])
  const weights = new Float32Array(bytes, 28)
  let [at, state] = [0, 1]
  sizes.forEach((size, tensor) => {
    for (let i = 0; i < size; i++) {
      state = Math.imul(state, 1_664_525) + 1_013_904_223 >>> 0
      weights[at++] = gains.includes(tensor) ? 1 : (state / 2 ** 32 - 0.5) / 10
    }
  })
  writeFileSync(path, new Uint8Array(bytes))
}

const likeliest = (/** @type {Sampling.Scores} */ { logits, tops }) => Sampling.greedy(logits, tops).ids[0] ?? 0

/** Tokens a second of the peer over a whole context, as it reports them. */
const peerRate = (/** @type {string} */ path) => {
  const [binary, tokenizer] = [process.env.CRIA_PEER_LLAMA2C, process.env.CRIA_PEER_LLAMA2C_TOKENIZER]
  if (binary === undefined || tokenizer === undefined) return undefined
  const { stderr } = spawnSync(binary, [path, "-t", "0", "-n", String(length), "-i", "", "-z", tokenizer], {
    encoding: "utf8", env: { ...process.env, OMP_NUM_THREADS: "2" }
  })
  const rate = /achieved tok\/s: ([\d.]+)/.exec(stderr)?.[1]
  if (rate === undefined) throw new Error(`the peer gave no rate: ${stderr}`)
  return Number(rate)
}

const main = Effect.fn(function*(/** @type {string} */ path) {
  const backend = yield* Backend.Backend
  const checkpoint = yield* Checkpoint.open(path)
  const model = Transformer.llama(checkpoint.config)
  const floats = yield* backend.allocate(model.specification, {
    initial: (_, sizes) => new Float32Array(Object.values(sizes).reduce((total, size) => total * size, 1))
  })
  yield* Checkpoint.load(checkpoint, floats)
  yield* backend.seal(floats)
  /** @type {Array<{ name: string, count: number, times: Array<number>, run: Effect.Effect<void, any> }>} */
  const variants = []
  const add = (
    /** @type {string} */ weights, /** @type {any} */ model, /** @type {any} */ parameters,
    /** @type {any} */ draft = undefined
  ) =>
    Effect.gen(function*() {
      for (const slots of [1, slotCount]) {
        if (draft !== undefined && slots > 1) continue
        const machine = yield* Slots.make({
          model, parameters, slots, frozen: true, blockLengths: [128], ...draft === undefined ? {} : { draft }
        })
        const own = yield* machine.allocate()
        yield* own.prefill([1])
        for (let slot = 0; slot < slots; slot++) yield* own.seat(slot)
        const times = /** @type {Array<number>} */ ([])
        const run = Effect.gen(function*() {
          const began = performance.now()
          let ids = Int32Array.from({ length: slots }, (_, slot) => slot + 1)
          let place = 1
          while (own.ahead !== undefined && place + own.ahead.count < length) {
            const draw = (/** @type {Sampling.Scores} */ scores) => Effect.sync(() => {
              place++
              return ids[0] = likeliest(scores)
            })
            yield* Drafting.leap(own.ahead, ids[0] ?? 0, place, length - place, likeliest, draw)
          }
          for (; place < length; place++) {
            ids = yield* own.step(ids, new Int32Array(slots).fill(place), (scores) => Effect.sync(() =>
              ids.map((_, slot) => likeliest(Sampling.rowOf(scores, slot, slots)))))
          }
          times.push((performance.now() - began) / (length - 1))
        })
        variants.push({ name: `${weights}, ${slots === 1 ? "one sequence" : `${slots} sequences`}`, count: slots, times,
          run })
        if (slots > 1 || draft !== undefined) continue
        const prompt = Int32Array.from({ length: 128 }, (_, i) => 1 + 7 * i)
        const prefills = /** @type {Array<number>} */ ([])
        variants.push({ name: `${weights}, prompt of 128`, count: 128, times: prefills, run: Effect.gen(function*() {
          for (let i = 0; i < 4; i++) {
            const began = performance.now()
            yield* own.prefill(prompt)
            prefills.push(performance.now() - began)
          }
        }) })
      }
    })
  yield* add("float32", model, floats)
  for (const width of /** @type {const} */ (["8-bit", "8-bit-rows", "4-bit"])) {
    const quantized = yield* Quantization.quantized(model, Quantization.schemes[width])
    const parameters = yield* Quantization.load(quantized, checkpoint.read)
    yield* add(width, quantized, parameters)
    if (width === "8-bit") yield* add("float32, 8-bit draft", model, floats, { model: quantized, parameters })
  }
  for (const [slots, length] of /** @type {const} */ ([[1, 1], [1, 128], [1, 256], [slotCount, 1], [slotCount, 128]])) {
    const longer = Transformer.llama({ ...checkpoint.config, contextLength: 512 }) // for a prompt of 256 and its answer
    yield* pauses({ model: longer, parameters: floats }, slots, length, rounds)
  }
  const peer = /** @type {Array<number>} */ ([])
  const rates = /** @type {Array<number>} */ ([])
  for (let round = 0; round < rounds; round++) {
    for (const { run } of round % 2 === 0 ? variants : variants.toReversed()) yield* run
    rates.push((yield* MatmulRate.matmulRate({ size: 1024, seconds: 0.2 })) / 1e9)
    const rate = peerRate(path)
    if (rate !== undefined) peer.push(rate)
  }
  const base = peer.length === 0 ? undefined : { best: Math.max(...peer), median: median(peer) }
  console.log(`decoding, ${(15_191_712 / 1e6).toFixed(1)} M parameters, ${backend.version}, ${rounds} rounds`)
  console.log(base === undefined
    ? "the peer was skipped: set CRIA_PEER_LLAMA2C and CRIA_PEER_LLAMA2C_TOKENIZER"
    : `llama2.c, float32, two threads: ${base.median.toFixed(0)} tokens/s (best ${base.best.toFixed(0)})`)
  for (const { count, name, times } of variants) {
    const [usual, best] = [count * 1e3 / median(times), count * 1e3 / Math.min(...times)]
    const ratio = base === undefined ? ""
      : `  ${(usual / base.median).toFixed(2)} x (best ${(best / base.best).toFixed(2)} x)`
    console.log(`${name.padEnd(36)} ${usual.toFixed(0).padStart(6)} tokens/s (best ${best.toFixed(0)})${ratio}`)
  }
  const flops = 2 * layers * (4 * dim * dim + 3 * dim * hidden) + 4 * layers * length * dim
  const prefill = variants.find(({ name }) => name === "float32, prompt of 128")
  const share = (128 * flops + 2 * vocab * dim) / Math.min(...prefill?.times ?? []) / 1e6 / Math.max(...rates)
  console.log(`a prompt in float32 runs at ${(100 * share).toFixed(0)} % of the matmul rate, best of each`)
})

const folder = mkdtempSync(join(tmpdir(), "cria-decode-"))
try {
  const path = join(folder, "model.bin")
  writeCheckpoint(path)
  await Effect.runPromise(main(path).pipe(Effect.scoped, Effect.provide(
    Layer.mergeAll(OnnxRuntime.layer(), NodeServices.layer))))
} finally {
  rmSync(folder, { recursive: true, force: true })
}
