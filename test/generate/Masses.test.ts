import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as fc from "fast-check"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import { make, program } from "../../src/generate/Masses.ts"
import { sampling } from "../../src/generate/Sampling.ts"
import { forAll } from "../../src/testing/BackendLaw.ts"

const sizes = fc.record({
  batch: fc.integer({ min: 1, max: 3 }), run: fc.integer({ min: 1, max: 4 }), id: fc.integer({ min: 1, max: 5 })
})

const drawn = sizes.chain((sizes) => fc.record({
  sizes: fc.constant(sizes), inverse: fc.constantFrom(0.5, 1, 10),
  logits: fc.array(fc.oneof(fc.integer({ min: -5, max: 5 }), fc.double({ min: -1e4, max: 1e4, noNaN: true })), {
    minLength: sizes.batch * sizes.run * sizes.id, maxLength: sizes.batch * sizes.run * sizes.id
  })
}))

layer(Reference.layer)("masses", (it) => {
  it.effect("are the sums of the weights of runs, by the greatest of the row", () =>
    forAll(drawn, ({ inverse, logits, sizes: { batch, id, run } }) => Effect.gen(function*() {
      const closed = yield* program(batch, { run, id })
      const { run: compute } = yield* (yield* (yield* Backend).compile(closed)).bind({})
      const { masses, tops } = yield* compute({ logits: Float64Array.from(logits), inverse })
      const rows = Array.from({ length: batch }, (_, row) => logits.slice(row * run * id, (row + 1) * run * id))
      rows.forEach((row, i) => {
        for (let r = 0; r < run; r++) {
          const own = row.slice(r * id, (r + 1) * id)
          const mass = own.reduce((sum, logit) => sum + Math.exp((logit - Math.max(...row)) * inverse), 0)
          assert.closeTo(masses.elements[i * run + r]!, mass, 1e-12)
          assert.strictEqual(tops.elements[i * run + r], Math.max(...own))
        }
      })
    }).pipe(Effect.scoped), { numRuns: 30 }))

  it.effect("are left out where the rule needs none, and where engines interpret or lie on a device", () =>
    Effect.gen(function*() {
      const reference = yield* Backend
      const { capabilities } = reference
      const isQuick = (changes: Partial<typeof capabilities>, rule = sampling({ temperature: 1 }), vocabSize = 32) => {
        const backend = { ...reference, capabilities: { ...capabilities, ...changes } }
        return Effect.gen(function*() {
          const weigh = yield* (yield* make(1, vocabSize))(rule)
          return yield* weigh({ logits: new Float32Array(vocabSize) }, ({ masses, tops }) =>
            Effect.sync(() => tops !== undefined && masses !== undefined))
        }).pipe(Effect.scoped, Effect.provide(Layer.succeed(Backend, backend)))
      }
      const quick = { kernels: ["softmax"] }
      assert.isTrue(yield* isQuick(quick))
      assert.isFalse(yield* isQuick({}))
      assert.isFalse(yield* isQuick({ ...quick, device: "cuda" }))
      assert.isFalse(yield* isQuick(quick, sampling({ temperature: 1, topK: 5 })))
      assert.isFalse(yield* isQuick(quick, sampling({ temperature: 1 }), 31 * 3 * 5 + 2)) // a prime
    }))
})
