/**
 * A coded model decodes on ONNX Runtime as on the reference, but for the coding of the other operands of its products.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Backend } from "../../../src/backend/Backend.ts"
import * as Reference from "../../../src/backend/Reference.ts"
import * as Slots from "../../../src/generate/Slots.ts"
import * as Config from "../../../src/llama/Config.ts"
import { draws } from "../../../src/llama/Initialization.ts"
import * as Quantization from "../../../src/llama/Quantization.ts"
import * as Transformer from "../../../src/llama/Transformer.ts"
import * as Key from "../../../src/random/Key.ts"
import { backends, saturating } from "./layers.ts"

const model = Transformer.llama(Config.make({
  vocabSize: 37, embedSize: 32, layerCount: 2, headCount: 4, kvHeadCount: 2, headSize: 16, hiddenSize: 96,
  contextLength: 12
}))

/** Scores after a prompt and after each of two more tokens, the parameters built into the programs. */
const scores = (width: Quantization.Width) => Effect.gen(function*() {
  const quantized = yield* Quantization.quantized(model, Quantization.schemes[width])
  const draw = draws(Key.make(3), model.specification)
  const parameters = yield* Quantization.load(quantized, (path, sizes) => Effect.sync(() => {
    const count = Object.values(sizes).reduce((product, size) => product * size, 1)
    return draw(path)?.map((weight) => weight * 5) ?? new Float32Array(count).fill(1)
  }))
  const machine = yield* Slots.make({ model: quantized, parameters, slots: 2, blockLengths: [4], frozen: true })
  const { prefill, seat, step } = yield* machine.allocate()
  const found = [...(yield* prefill([5, 1, 30])).logits]
  yield* seat(0)
  yield* seat(1)
  for (const place of [3, 4]) {
    yield* step(Int32Array.of(7, 36), new Int32Array(2).fill(place), ({ logits }) =>
      Effect.sync(() => found.push(...logits)))
  }
  return found
})

describe("a coded model", () => {
  const widths = ["8-bit", "8-bit-rows", "4-bit"] as const
  const onReference = Object.fromEntries(widths.map((width) =>
    [width, Effect.runSync(Effect.cached(Effect.scoped(scores(width)).pipe(Effect.provide(Reference.layer))))]))
  for (const [engine, backend] of [...backends, saturating]) {
    it.effect.each(widths)(`over ${engine} scores %s weights as the reference does`, (width) =>
      Effect.gen(function*() {
        const { capabilities: { kernels } } = yield* Effect.provide(Backend, backend)
        const found = yield* Effect.scoped(scores(width)).pipe(Effect.provide(backend))
        const wanted = yield* onReference[width]!
        const distance = Math.hypot(...found.map((score, i) => score - wanted[i]!)) / Math.hypot(...wanted)
        const isFused = width !== "8-bit-rows" || kernels.includes("contractRows")
        assert.strictEqual(distance > 1e-5, isFused) // where it is not, nothing but rounding
        assert.isBelow(distance, 0.02)
      }))
  }
})
