/**
 * Softmax: its laws, what is seen and what is not.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Untyped } from "../../src/tensor/Node.ts"
import * as T from "../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../src/testing/Arbitrary.ts"
import { evaluate, type Given } from "../../src/testing/Computation.ts"
import { liftsOver, requireEqual } from "../../src/testing/TensorLaw.ts"
import * as Tolerance from "../law/Tolerance.ts"

const sizes = Arbitrary.sizes(["batch", "source"])
const scores = sizes.chain((all) => Arbitrary.real("x", all))
const seenScores = sizes.chain((all) => fc.tuple(Arbitrary.real("x", all), Arbitrary.truth("seen", all)))

const run = (
  given: ReadonlyArray<Given>, build: (x: Untyped, seen: Untyped) => ReadonlyArray<T.Any>
): ReadonlyArray<ReadonlyArray<number>> =>
  evaluate({ given, build: ({ seen, x }) => build(x!, seen!) }).map((elements) => [...elements])

const ones = (count: number): ReadonlyArray<number> => Array.from({ length: count }, () => 1)

describe("softmax", () => {
  it("gives positive weights that sum to one", () =>
    fc.assert(fc.property(scores, (x) => {
      const [weights, sums] = run([x], (x) => [T.softmax("source")(x), T.sum(T.softmax("source")(x), "source")])
      assert.isTrue(weights!.every((weight) => weight > 0 && weight <= 1))
      requireEqual("sums", [ones(sums!.length)], [sums!], Tolerance.reordered)
    })))
  it("does not change when all scores shift, however far", () =>
    fc.assert(fc.property(scores, fc.constantFrom(-1e6, -3, 0.5, 1e6), (x, shift) => {
      const [before, after] = run([x], (x) => [T.softmax("source")(x), T.softmax("source")(T.add(x, shift))])
      requireEqual("shift", [before!], [after!], Tolerance.shifted)
    })))
  it("keeps the order of the scores", () =>
    fc.assert(fc.property(scores, (x) => {
      const [most, best] = run(
        [x], (x) => [T.topK(T.softmax("source")(x), "source", "rank", 1).ids, T.topK(x, "source", "rank", 1).ids]
      )
      assert.deepStrictEqual(most, best)
    })))
  it("lifts over other axes", () =>
    fc.assert(fc.property(scores, (x) =>
      liftsOver(
        "batch", { given: [x], build: ({ x }) => [T.softmax("source")(x!), T.logSumExp(x!, "source")] },
        Tolerance.reordered
      ))))
  it("of scores without an overflow in sight", () => {
    const x = T.values({ source: 3 }, [1e4, 1e4, -1e4])
    assert.deepStrictEqual([...evaluate({ given: [], build: () => [T.softmax("source")(x)] })[0]!], [0.5, 0.5, 0])
  })
})

describe("softmaxWhere", () => {
  it("is softmax where everything is seen", () =>
    fc.assert(fc.property(scores, (x) => {
      const [all, some] = run([x], (x) => [T.softmax("source")(x), T.softmaxWhere(x, T.less(x, 1e9), "source")])
      requireEqual("all seen", [all!], [some!], Tolerance.reordered)
    })))
  it("does not see what is hidden", () =>
    fc.assert(fc.property(seenScores, (given) => {
      const [one, other, hidden] = run(given, (x, seen) => [
        T.softmaxWhere(x, seen, "source"),
        T.softmaxWhere(T.select(seen, x, Infinity), seen, "source"),
        T.multiply(T.softmaxWhere(x, seen, "source"), T.real(T.not(seen)))
      ])
      requireEqual("hidden scores", [one!, one!.map(() => 0)], [other!, hidden!], Tolerance.exact)
    })))
  it("sums to one where something is seen and to zero where nothing is", () =>
    fc.assert(fc.property(seenScores, (given) => {
      const [sums, some] = run(
        given, (x, seen) => [T.sum(T.softmaxWhere(x, seen, "source"), "source"), T.max(T.real(seen), "source")]
      )
      requireEqual("sums", [some!], [sums!], Tolerance.reordered)
    })))
  it("gives a row that sees nothing zeros and no gradient, never NaN", () => {
    const x = T.values({ batch: 2, source: 2 }, [1, 2, 3, 4])
    const seen = T.less(T.values({ batch: 2, source: 2 }, [0, 0, 9, 9]), 5)
    const weights = T.softmaxWhere(x, seen, "source")
    const { x: slope } = T.gradient(T.sum(T.square(weights), ["batch", "source"]), { x })
    const [rows, slopes] = evaluate({ given: [], build: () => [weights, slope] })
    assert.deepStrictEqual([...rows!.subarray(2)], [0, 0])
    assert.deepStrictEqual([...slopes!.subarray(2)], [0, 0])
    assert.isTrue(slopes!.every(Number.isFinite) && slopes![0] !== 0)
  })
})

describe("silu", () => {
  it("is x σ(x)", () =>
    fc.assert(fc.property(scores, (x) => {
      const [gated, expected] = run([x], (x) => [T.silu(x), T.multiply(x, T.sigmoid(x))])
      requireEqual("silu", [expected!], [gated!], Tolerance.exact)
    })))
})
