/**
 * Every primitive: its numbers against plain loops over named indices, and cases worked by hand.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Any } from "../../src/tensor/Node.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { evaluate } from "../../src/testing/Computation.ts"
import { allOperations, programs } from "../../src/testing/ProgramArbitrary.ts"
import { requireEqual } from "../../src/testing/TensorLaw.ts"
import { elementsOf } from "../law/Meaning.ts"
import * as Tolerance from "../law/Tolerance.ts"

describe("every operation is what plain loops say", () => {
  it.each(allOperations)("%s", (operation) =>
    fc.assert(fc.property(programs({ operations: [operation], zero: true }), (program) => {
      requireEqual(operation, elementsOf(program), evaluate(program), Tolerance.reordered)
    }), { numRuns: 25 }))
  it("whole programs", () =>
    fc.assert(fc.property(programs({ zero: true }), (program) => {
      const found = evaluate(program)
      assert.isTrue(found.every((elements) => elements.every(Number.isFinite)))
      requireEqual("a program", elementsOf(program), found, Tolerance.reordered)
    }), { numRuns: 300 }))
})

/** The elements of one expression without leaves, as written. */
const numbers = (x: Any): ReadonlyArray<number> => [...evaluate({ given: [], build: () => [x] })[0]!]

const row = (...elements: ReadonlyArray<number>) => T.values({ i: elements.length }, elements)
const square = T.values({ i: 2, j: 3 }, [1, 2, 3, 4, 5, 6])
const { ids: rankIds, values: rankValues } = T.topK(row(3, 1, 3, 2), "i", "rank", 3)

const cases: ReadonlyArray<readonly [text: string, expression: Any, expected: ReadonlyArray<number>]> = [
  ["arithmetic broadcasts by name", T.add(T.values({ i: 2 }, [1, 2]), T.values({ j: 2 }, [10, 20])), [11, 21, 12, 22]],
  ["a number stands for all elements", row(1, 2).pipe(T.subtract(3), T.divide(2), T.power(2)), [1, 0.25]],
  ["sigmoid stays finite on both sides", T.sigmoid(row(-1e4, 0, 1e4)), [0, 0.5, 1]],
  ["sign of zero is zero", T.sign(row(-2, 0, 3)), [-1, 0, 1]],
  ["floor goes down", T.floor(row(-1.5, 1.5)), [-2, 1]],
  ["0 to the power 0 is 1", T.power(row(0), 0), [1]],
  ["comparison with NaN is false", T.lessEqual(row(NaN, 1), row(1, NaN)), [0, 0]],
  ["select takes no part in what it leaves", T.select(T.less(row(1, 3), row(2, 2)), row(NaN, 5), row(7, 8)), [NaN, 8]],
  ["real numbers become ids towards zero", T.toIds(row(-1.9, 1.9)), [-1, 1]],
  ["ids add", T.addIds(T.ids({ i: 2 }, [3, 4]), 5), [8, 9]],
  ["a sum over no element is 0", T.sum(T.fill({ i: 0, j: 2 }, 1), "i"), [0, 0]],
  ["max over several axes", T.max(square, ["i", "j"]), [6]],
  ["the mean", T.mean(square, "j"), [2, 5]],
  ["logSumExp of large numbers", T.logSumExp(row(1000, 1000), "i"), [1000 + Math.LN2]],
  ["logSumExp of nothing but −∞", T.logSumExp(row(-Infinity, -Infinity), "i"), [-Infinity]],
  ["contraction over one axis", T.contract(square, row(1, 10), "i"), [41, 52, 63]],
  ["contraction over all axes", T.contract(square, square, ["i", "j"]), [91]],
  ["contraction keeps shared axes together", T.contract(square, square, "j"), [14, 77]],
  ["running sums", T.cumulativeSum(row(1, 2, 3), "i"), [1, 3, 6]],
  ["running sums from the end", T.cumulativeSum(row(1, 2, 3), "i", { reverse: true }), [6, 5, 3]],
  ["slice", T.slice(square, "j", 1, 3), [2, 3, 5, 6]],
  ["pad", T.pad(row(1, 2), "i", 1, 2), [0, 1, 2, 0, 0]],
  ["concat", T.concat("i", [row(1, 2), row(3)]), [1, 2, 3]],
  ["stack", T.stack("k", [row(1, 2), row(3, 4)]), [1, 3, 2, 4]],
  [
    "split: the first axis changes slowest", T.at(T.split(row(1, 2, 3, 4, 5, 6), "i", { a: 2, b: 3 }), "a", 1),
    [4, 5, 6]
  ],
  ["merge: the first axis changes slowest", T.merge(square, ["j", "i"], "k"), [1, 4, 2, 5, 3, 6]],
  ["take: other axes of the ids are outer", T.take(square, "j", T.ids({ k: 2 }, [2, 0])), [3, 1, 6, 4]],
  ["take: shared axes go together", T.take(square, "j", T.ids({ i: 2 }, [2, 0])), [3, 4]],
  ["pick", T.pick("j")(square, T.ids({ i: 2 }, [1, 1])), [2, 5]],
  [
    "put adds repeated ids", T.put(row(1, 1, 1), "i", T.ids({ k: 3 }, [2, 0, 2]), T.values({ k: 3 }, [1, 2, 3]), "add"),
    [3, 1, 5]
  ],
  ["put sets", T.put(row(1, 1, 1), "i", T.ids({ k: 2 }, [2, 0]), T.values({ k: 2 }, [7, 8]), "set"), [8, 1, 7]],
  ["one-hot", T.oneHot(T.ids({ k: 2 }, [1, 0]), "vocab", 3), [0, 1, 1, 0, 0, 0]],
  ["topK: of equal ones the first comes first", rankIds, [0, 2, 3]],
  ["topK: values", rankValues, [3, 3, 2]],
  ["positions", T.positions("i", 3), [0, 1, 2]],
  ["−0 is not 0", T.reciprocal(T.concat("i", [row(-0), row(0)])), [-Infinity, Infinity]]
]

describe("by hand", () => {
  it.each(cases)("%s", (_, expression, expected) => assert.deepStrictEqual(numbers(expression), expected))
})

describe("sharing", () => {
  it("tells −0 from 0", () => {
    const [zero, other] = [T.constant(0), T.constant(-0)]
    assert.deepStrictEqual(numbers(T.subtract(T.reciprocal(zero), T.reciprocal(other))), [Infinity])
  })
})
