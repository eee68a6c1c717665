/**
 * What the arbitraries draw.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Arbitrary from "../../src/testing/Arbitrary.ts"

describe("sizes", () => {
  it("favour 1, and are 0 only where that is asked for", () => {
    const drawn = fc.sample(Arbitrary.size, { numRuns: 400, seed: 1 })
    assert.isTrue(drawn.every((size) => Number.isInteger(size) && size >= 1 && size <= 7))
    const share = drawn.filter((size) => size === 1).length / drawn.length
    assert.isTrue(share > 0.25 && share < 0.45, `${share} of them are 1`)
    assert.isTrue(fc.sample(Arbitrary.sizeOrZero, { numRuns: 200, seed: 1 }).includes(0))
  })
  it("reordered are the same, in every order", () => {
    const drawn = fc.sample(Arbitrary.reordered({ a: 1, b: 2, c: 3 }), { numRuns: 200, seed: 1 })
    drawn.forEach((sizes) => assert.deepEqual(sizes, { a: 1, b: 2, c: 3 }))
    assert.strictEqual(new Set(drawn.map((sizes) => Object.keys(sizes).join())).size, 6)
  })
  it("may be some of the axes", () => {
    const drawn = fc.sample(Arbitrary.part({ a: 1, b: 2 }), { numRuns: 200, seed: 1 })
    assert.strictEqual(new Set(drawn.map((sizes) => Object.keys(sizes).join())).size, 5)
  })
})

describe("tensors", () => {
  const sizes = { i: 3, j: 4 }
  it("of reals lie between −2 and 2, none equal to another", () =>
    fc.assert(fc.property(Arbitrary.real("x", sizes), ({ elements, kind }) => {
      assert.strictEqual(kind, "real")
      assert.strictEqual(new Set(elements).size, 12)
      assert.isTrue(elements.every((x) => Math.abs(x) <= 2))
    })))
  it("of ids stay below their bound", () =>
    fc.assert(fc.property(fc.integer({ min: 1, max: 5 }).chain(
      (below) => fc.tuple(fc.constant(below), Arbitrary.ids("ids", sizes, below))
    ),
    ([below, { elements }]) => assert.isTrue(
      elements.length === 12 && elements.every((id) => id >= 0 && id < below)
    ))))
  it("of truths are 0 and 1", () => {
    const drawn = fc.sample(
      Arbitrary.truth("seen", sizes), { numRuns: 20, seed: 1 }
    ).flatMap(({ elements }) => [...elements])
    assert.deepStrictEqual([...new Set(drawn)].toSorted(), [0, 1])
  })
})
