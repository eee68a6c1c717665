import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { AllMaskedError, countVisible, maskedMean } from "../../src/loss/Mask.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { agree, evaluate, normals, number } from "../law/Evaluation.ts"

const rows = fc.array(fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }), { minLength: 1, maxLength: 6 })

describe("maskedMean", () => {
  it("of any parts, over the count of the whole, sums to the mean of what counts", () => {
    fc.assert(fc.property(rows, fc.nat(), fc.nat(5), (visible, seed, cut) => {
      const count = visible.flat().filter((isVisible) => isVisible).length
      fc.pre(count > 0)
      const at = cut % (visible.length + 1)
      const batch = visible.length
      const values = normals(seed, { batch, position: 3 })
      const mask = T.values({ batch, position: 3 }, visible.flat().map(Number))
      const part = (start: number, end: number) =>
        maskedMean(T.slice(values, "batch", start, end), T.slice(mask, "batch", start, end), T.constant(count))
      const { all, first, second, value } = evaluate(() => ({
        all: maskedMean(values, mask, T.constant(count)), first: part(0, at), second: part(at, batch), value: values
      }))
      const counted = [...value.elements].filter((_, i) => visible.flat()[i])
      agree([number(all)], [counted.reduce((sum, x) => sum + x, 0) / count])
      agree([number(first) + number(second)], [number(all)])
    }), { numRuns: 40 })
  })

  it("is 0 for a part in which nothing counts", () => {
    const empty = T.fill({ position: 2 }, 0)
    agree([number(evaluate(() => ({ x: maskedMean(normals(1, { position: 2 }), empty, T.constant(7)) })).x)], [0])
  })
})

describe("countVisible", () => {
  it.effect("counts over all parts of a step", () =>
    Effect.gen(function*() {
      const parts = [Float32Array.of(0, 0), Float32Array.of(1, 0, 1)]
      assert.strictEqual(yield* countVisible("step 1", parts), 2)
    }))

  it.effect("fails where no token counts, rather than to divide by zero", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(countVisible("step 12", [new Float32Array(3), new Float32Array(5)]))
      assert.instanceOf(error, AllMaskedError)
      assert.strictEqual(
        error.message,
        `step 12: at least one token must count, and the mask leaves out all 8
  Usual causes: answers cut off by the sequence length, so that only prompts are left; padding alone; a mask ` +
          "made for other data. Drop such examples before they are batched."
      )
    }))
})
