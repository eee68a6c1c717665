import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { clipByGlobalNorm, globalNorm } from "../../src/optimize/Clip.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { agree, evaluate, flat, normals, number } from "../law/Evaluation.ts"

const treeOf = (seed: number, size: number) => ({
  matrix: normals(seed, { embed: size, hidden: 2 }),
  rest: [{ gain: normals(seed + 1, { embed: 3 }) }],
  one: normals(2, {})
})

const clipped = (gradients: ReturnType<typeof treeOf>, most: number) =>
  clipByGlobalNorm(most)(gradients, {
    learningRate: T.constant(1), count: T.constant(1), gradientNorm: globalNorm(gradients)
  })

describe("globalNorm", () => {
  it("is the length of all tensors as one vector", () => {
    fc.assert(fc.property(fc.nat(), fc.integer({ min: 1, max: 5 }), (seed, size) => {
      const { norm, tree } = evaluate(() => ({ norm: globalNorm(treeOf(seed, size)), tree: treeOf(seed, size) }))
      agree([number(norm)], [Math.hypot(...flat(tree))])
    }), { numRuns: 20 })
  })
})

describe("clipByGlobalNorm", () => {
  it("leaves the direction, and a length of at most the given one", () => {
    fc.assert(fc.property(fc.nat(), fc.double({ min: 0.01, max: 10, noNaN: true }), (seed, most) => {
      const { after, before } = evaluate(() => ({ before: treeOf(seed, 2), after: clipped(treeOf(seed, 2), most) }))
      const [from, to] = [flat(before), flat(after)]
      const length = Math.hypot(...from)
      agree([Math.hypot(...to)], [Math.min(length, most)])
      agree(to, from.map((x) => x * Math.min(1, most / length)))
    }), { numRuns: 30 })
  })

  it("leaves short gradients as they are, bit by bit, and zeros zero", () => {
    const { after, before, none } = evaluate(() => ({
      before: treeOf(1, 2), after: clipped(treeOf(1, 2), 1000),
      none: clipByGlobalNorm(1)({ x: T.fill({ embed: 2 }, 0) }, {
        learningRate: T.constant(1), count: T.constant(1), gradientNorm: T.constant(0)
      })
    }))
    assert.deepStrictEqual(flat(after), flat(before))
    assert.deepStrictEqual(flat(none), [0, 0])
  })

  it("refuses a norm that is none", () => {
    assert.throws(() => clipByGlobalNorm(0), "clipByGlobalNorm: the greatest norm must be above 0, got 0")
  })
})
