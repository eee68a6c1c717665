/**
 * Evaluating, showing and comparing computations.
 */
import { assert, describe, it } from "@effect/vitest"
import * as T from "../../src/tensor/Tensor.ts"
import { type Computation, distance, evaluate, print } from "../../src/testing/Computation.ts"

const given: Computation["given"] = [{ name: "x", kind: "real", sizes: { i: 2 }, elements: Float64Array.of(1, 2) }]

describe("a computation", () => {
  it("is evaluated in float64", () => {
    const outputs = evaluate({ given, build: ({ x }) => [T.divide(x!, 3), T.less(x!, 1.5)] })
    assert.deepStrictEqual(outputs.map((elements) => [...elements]), [[1 / 3, 2 / 3], [1, 0]])
  })
  it("says which id is outside its axis", () => {
    assert.throws(
      () => evaluate({ given, build: ({ x }) => [T.take(x!, "i", T.ids({ k: 1 }, [5]))] }),
      `evaluation: id 5 (element 0) is outside axis "i" of size 2`
    )
  })
  it("is shown with its operations and its numbers", () => {
    assert.strictEqual(
      print({ given, build: ({ x }) => [T.exp(x!)] }),
      ["", "  %1 = exp(x)  real [i: 2]", `x: real {"i":2} 1 2`].join("\n")
    )
  })
})

describe("distance", () => {
  it.each<readonly [string, ReadonlyArray<number>, ReadonlyArray<number>, number]>([
    ["is 0 between equals", [1, -Infinity, NaN], [1, -Infinity, NaN], 0],
    ["is relative to the largest expected element", [100, 0], [100, 1], 0.01],
    ["is absolute below 1", [0.5], [0.25], 0.25],
    ["does not forgive a NaN", [1, 2], [NaN, 2], Infinity],
    ["does not forgive an infinity", [1], [Infinity], Infinity],
    ["does not forgive a length", [1], [1, 1], Infinity]
  ])("%s", (_, expected, found, apart) => assert.strictEqual(distance(expected, found), apart))
})
