/**
 * Decoding on ONNX Runtime: the cache lies still, and each token has the probability that the reference gives it.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Backend } from "../../../src/backend/Backend.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/OnnxRuntime.ts"
import * as Reference from "../../../src/backend/Reference.ts"
import { collect } from "../../../src/generate/Answer.ts"
import * as Decoder from "../../../src/generate/Decoder.ts"
import { logProbability, sampling } from "../../../src/generate/Sampling.ts"
import * as KeyValueCache from "../../../src/llama/KeyValueCache.ts"
import * as Key from "../../../src/random/Key.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as Tokenizer from "../../../src/token/Tokenizer.ts"
import { codec, contextLength, model, parameters, whole } from "../../generate/models.ts"
import { composed } from "../../law/Tolerance.ts"

layer(Layer.merge(OnnxRuntime.layer(), Layer.succeed(Tokenizer.Tokenizer, codec)))("decoding", (it) => {
  it.effect.each([1, 3])("replaces the cache where it lies, with blocks of %d", (position) =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* Program.make("block", {
        inputs: { ids: Specification.ids({ batch: 2, position }), starts: Specification.ids({ batch: 2 }) },
        state: {
          parameters: model.specification,
          cache: KeyValueCache.specification(model.config, { batch: 2, source: contextLength })
        }
      }, (inputs, state) => {
        const { cache, hidden } = KeyValueCache.extend(model, state.parameters, state.cache, inputs)
        return { outputs: { hidden }, state: { cache } }
      })
      const { placement } = yield* backend.compile(program)
      assert.deepStrictEqual(placement.copied, [])
      assert.strictEqual(placement.inPlace.length, 2 * model.config.layerCount)
    }))

  it.effect("gives each token the probability that the reference gives it", () =>
    Effect.gen(function*() {
      const rule = sampling({ temperature: 0.8, topK: 50 })
      const prompts = [[1], [1, 70, 260], [1, 9, 8, 7, 6, 5, 4]]
      const request = { prompts, candidates: 2, maximumTokens: 5, rule, key: Key.make(4), stopIds: [] }
      const cells = yield* parameters(3)
      const decoder = yield* Decoder.make({ model, parameters: cells })
      const wide = yield* Decoder.make({ model, parameters: cells, slots: 4, blockLengths: [2], frozen: true })
      const alone = yield* collect(decoder.generate(request))
      const together = yield* collect(wide.generate(request))
      assert.deepStrictEqual(together.map(({ ids, text }) => [ids, text]), alone.map(({ ids, text }) => [ids, text]))
      const reference = Effect.gen(function*() {
        const full = yield* (yield* Backend).compile(yield* whole)
        const { run } = yield* full.bind({ parameters: yield* parameters(3) })
        for (const { ids, item, logProbs } of [...alone, ...together]) {
          const before = prompts[item]!
          const all = Int32Array.from({ length: contextLength }, (_, i) => [...before, ...ids][i] ?? 0)
          const { logits } = yield* run({ ids: all })
          ids.forEach((id, i) => {
            const place = before.length + i
            const row = logits.elements.subarray((place - 1) * codec.vocabSize, place * codec.vocabSize)
            assert.closeTo(logProbs[i]!, logProbability(rule(row), id), composed)
          })
        }
      })
      yield* Effect.provide(reference, Reference.layer)
    }))
})
