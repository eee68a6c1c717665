/**
 * Tensor values: descriptions, sizes, places, notation.
 */
import { assert, describe, it } from "@effect/vitest"
import * as T from "../../src/tensor/Tensor.ts"

const x = T.fill({ batch: 2, embed: 3 }, 1)

describe("a tensor", () => {
  it("reads the same in a chain and as a call", () => {
    const chained = x.pipe(T.square, T.mean("embed"), T.add(1), T.rsqrt)
    const called = T.rsqrt(T.add(T.mean(T.square(x), "embed"), 1))
    assert.deepStrictEqual(chained, called)
    assert.deepStrictEqual(chained.sizes, { batch: 2 })
  })
  it("says its kind and sizes", () => {
    assert.strictEqual(String(x), "real [batch: 2, embed: 3]")
    assert.strictEqual(String(T.positions("batch", 2)), "id [batch: 2]")
    assert.strictEqual(String(T.constant(1)), "real []")
  })
  it("has sizes by name", () => assert.strictEqual(T.size(x, "embed"), 3))
  it("is not built where nothing would be computed", () => {
    assert.strictEqual(T.add(x, 0), x)
    assert.strictEqual(T.multiply(x, 1), x)
    assert.strictEqual(T.divide(x, 1), x)
    assert.strictEqual(T.pad(x, "embed", 0, 0), x)
    assert.strictEqual(T.sum(x, []), x)
  })
  it("is built where a neutral operand adds an axis", () => {
    assert.deepStrictEqual(T.add(x, T.fill({ source: 2 }, 0)).sizes, { batch: 2, embed: 3, source: 2 })
    assert.deepStrictEqual(T.multiply(T.fill({ source: 2 }, 1), x).sizes, { source: 2, batch: 2, embed: 3 })
  })
})

describe("within", () => {
  it("names places, which nest and end", () => {
    const [outer, inner] = T.within("block.3", () => [T.square(x), T.within("attention", () => T.square(x))])
    assert.deepStrictEqual([outer!.place, inner!.place, T.square(x).place], ["block.3", "block.3.attention", ""])
  })
  it("ends where its thunk throws", () => {
    assert.throws(() => T.within("block", () => T.sum(T.fill({ a: 1 }, 1), "b" as never)))
    assert.strictEqual(T.square(x).place, "")
  })
  it("gives labels their full names", () => {
    const labelled = T.within("block.3", () => T.label("scores")(T.square(x)))
    assert.deepStrictEqual(labelled.operation, { _tag: "Label", name: "block.3.scores" })
  })
})
