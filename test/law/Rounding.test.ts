/**
 * Rounding decides at jumps, between near equals and after cancellation, and not elsewhere.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Untyped } from "../../src/tensor/Node.ts"
import * as T from "../../src/tensor/Tensor.ts"
import type { Computation } from "../../src/testing/Computation.ts"
import { gradients } from "../../src/testing/TensorLaw.ts"
import { differentiable, programs } from "../../src/testing/ProgramArbitrary.ts"
import { isDecidedByRounding } from "../../src/testing/Rounding.ts"

const computation = (elements: ReadonlyArray<number>, build: (x: Untyped) => Untyped): Computation => ({
  given: [{ name: "x", kind: "real", sizes: { i: elements.length }, elements: Float64Array.from(elements) }],
  build: ({ x }) => [build(x!)]
})

const single = { precision: "f32", tolerance: 1e-4 } as const

const decided = (elements: ReadonlyArray<number>, build: (x: Untyped) => Untyped, how = single): boolean =>
  isDecidedByRounding(computation(elements, build), how)

describe("rounding decides", () => {
  it("at a jump", () => {
    assert.isTrue(decided([0.3, 0.2, 1.7], (x) => T.floor(T.sum(T.softmax("i")(x), "i"))))
    assert.isTrue(decided([1 - 1e-9], (x) => T.floor(x))) // in float32 it is 1
    assert.isTrue(decided([0.7], (x) => T.real(T.toIds(T.add(T.exp(T.log(x)), 0.3)))))
    assert.isTrue(decided([0.7], (x) => T.real(T.less(T.exp(T.log(x)), x))))
  })
  it("where an id may leave its axis", () =>
    assert.isTrue(decided([0.3, 0.7 - 1e-9], (x) =>
      T.take(x, "i", T.toIds(T.add(T.exp(T.log(T.rename(x, "i", "k"))), 1.3))))))
  it("between near equals, on their gradients alone", () => {
    const greater = computation([0.7, 0.7 + 1e-9], (x) => T.max(x, "i"))
    assert.isFalse(isDecidedByRounding(greater, single))
    assert.isTrue(isDecidedByRounding(gradients(greater), single))
  })
  it("after cancellation", () => {
    assert.isTrue(decided([0.3], (x) => T.subtract(T.add(x, 1e6), 1e6)))
    assert.isTrue(decided([0.3], (x) => T.sin(T.multiply(x, 1e6))))
  })
})

describe("rounding does not decide", () => {
  it("what is smooth, or far from its jumps", () => {
    assert.isFalse(decided([0.3, -1.2], (x) => T.sin(T.exp(x))))
    assert.isFalse(decided([0.3, -1.2], (x) => T.floor(x)))
    assert.isFalse(decided([0.3, -1.2], (x) => T.real(T.less(x, 0.1))))
  })
  it("what stays the same: whole numbers that are given, ids, equality of a leaf and itself", () => {
    assert.isFalse(decided([1, -2, 0, -0], (x) => T.floor(x)))
    assert.isFalse(decided([0.1, 0.7], (x) => T.real(T.equal(x, x))))
    assert.isFalse(decided([0.1, 0.7], (x) => T.take(x, "i", T.ids({ k: 2 }, [1, 0]))))
  })
  it("in float64 what it decides in float32", () => {
    const large = computation([0.3], (x) => T.subtract(T.add(x, 1e6), 1e6))
    assert.isFalse(isDecidedByRounding(large, { precision: "f64", tolerance: 1e-8 }))
    assert.isTrue(isDecidedByRounding(large, { precision: "f64", tolerance: 1e-12 }))
  })
  it("more than a few of the random programs", () => {
    const drawn = fc.sample(programs({ zero: true }), { numRuns: 60, seed: 1 })
    assert.isBelow(drawn.filter((program) => isDecidedByRounding(program, single)).length, 4)
  })
  it("any program of one smooth operation", () => {
    const jumps = ["abs", "sign", "floor", "maximum", "minimum", "max", "topK", "toIds"]
    const smooth = fc.constantFrom(...differentiable.filter((name) => !jumps.includes(name)))
    const once = smooth.chain((operation) =>
      programs({ operations: [operation] }).filter(({ operations }) => operations.length === 1))
    fc.assert(fc.property(once, (program) => assert.isFalse(isDecidedByRounding(program, single))), {
      numRuns: 30, seed: 1
    })
  })
})
