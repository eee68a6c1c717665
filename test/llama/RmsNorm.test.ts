import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { rmsNorm } from "../../src/llama/RmsNorm.ts"
import * as T from "../../src/tensor/Tensor.ts"
import {
  agree, evaluate, hasTheSlopeOfDifferences, normals, numbers, pullsBackAsItsDecomposition
} from "../law/Evaluation.ts"

const shape = fc.record({
  seed: fc.nat(), batch: fc.integer({ min: 1, max: 3 }), embed: fc.integer({ min: 1, max: 6 })
})
const ones = (embed: number) => T.fill({ embed }, 1)

describe("rmsNorm", () => {
  it("gives [1, 2, 3, 4] its golden values", () => {
    const x = T.values({ embed: 4 }, [1, 2, 3, 4])
    agree(numbers(rmsNorm(x, ones(4), 1e-5)), [0.36514813, 0.73029626, 1.09544438, 1.46059251], 1e-8)
  })

  it("has unit root mean square at gain 1", () => {
    fc.assert(fc.property(shape, ({ batch, embed, seed }) => {
      const y = rmsNorm(normals(seed, { batch, embed }), ones(embed), 0)
      agree(numbers(y.pipe(T.square, T.mean("embed"))), Array.from({ length: batch }, () => 1), 1e-6)
    }), { numRuns: 30 })
  })

  it("does not see the scale of x, nor change its direction; the gain is a factor", () => {
    fc.assert(fc.property(shape, fc.double({ min: 0.01, max: 1000, noNaN: true }), ({ batch, embed, seed }, factor) => {
      const [x, gain] = [normals(seed, { batch, embed }), normals("gain", { embed })]
      const plain = numbers(T.multiply(rmsNorm(x, ones(embed), 0), gain))
      agree(numbers(rmsNorm(T.multiply(x, factor), gain, 0)), plain)
    }), { numRuns: 30 })
  })

  it("adds epsilon to the mean square: zeros stay zeros", () => {
    agree(numbers(rmsNorm(T.fill({ batch: 2, embed: 3 }, 0), ones(3), 1e-5)), [0, 0, 0, 0, 0, 0])
    agree(numbers(rmsNorm(T.fill({ embed: 2 }, 0.01), ones(2), 1e-4)), [Math.SQRT1_2, Math.SQRT1_2])
  })

  it("lifts over any leading axes", () => {
    const gain = normals("gain", { embed: 5 })
    const x = normals("x", { batch: 2, position: 3, embed: 5 })
    const lifted = evaluate(() => ({ y: rmsNorm(x, gain, 1e-5) })).y
    const rows = Array.from({ length: 6 }, (_, i) =>
      numbers(rmsNorm(x.pipe((all) => T.at(T.at(all, "batch", Math.floor(i / 3)), "position", i % 3)), gain, 1e-5)))
    agree([...lifted.elements], rows.flat())
  })

  it("pulls back as its decomposition does, and as differences say", () => {
    fc.assert(fc.property(shape, ({ batch, embed, seed }) => {
      const inputs = { x: normals(seed, { batch, embed }), gain: normals("gain", { embed }) }
      pullsBackAsItsDecomposition(inputs, ({ gain, x }) => rmsNorm(x, gain, 1e-5))
      hasTheSlopeOfDifferences(inputs, ({ gain, x }) => rmsNorm(x, gain, 1e-2))
    }), { numRuns: 20 })
    const vector = { x: normals("x", { embed: 4 }), gain: normals("gain", { embed: 4 }) }
    pullsBackAsItsDecomposition(vector, ({ gain, x }) => rmsNorm(x, gain, 1e-5))
  })

  it("is refused where the gain has another width", () => {
    assert.throws(
      () => T.within("block.3", () => rmsNorm(normals("x", { batch: 1, embed: 4 }), ones(5), 1e-5)),
      "multiply, in block.3: axis \"embed\" must agree"
    )
  })
})
