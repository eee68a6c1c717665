import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Print from "../../src/tensor/Print.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"

describe("Print", () => {
  it.effect("shows inputs, cells, each node once under its place, outputs and replaced cells", () =>
    Effect.gen(function*() {
      const program = yield* Program.make(
        "step",
        {
          inputs: { x: Specification.real({ batch: 2, embed: 3 }), rate: Specification.real({}),
            spare: Specification.ids({}) },
          state: { weight: Specification.real({ embed: 3 }) }
        },
        ({ rate, x }, { weight }) => {
          const score = T.within("model", () => T.contract(x, weight, "embed"))
          const loss = T.mean(T.square(score), "batch")
          return { outputs: { loss }, state: { weight: T.subtract(weight, T.multiply(weight, rate)) } }
        }
      )
      assert.strictEqual(Print.program(program), [
        "program step",
        "  input x                               real [batch: 2, embed: 3]",
        "  input rate                            real []",
        "  input spare (unused)                  id []",
        "  cell weight                           real [embed: 3]",
        "  -- model",
        "  %1 = contract(x, weight; over embed)  real [batch: 2]",
        "  -- outside every place",
        "  %2 = square(%1)                       real [batch: 2]",
        "  %3 = sum(%2; over batch)              real []",
        "  %4 = multiply(%3, 0.5)                real []",
        "  %5 = multiply(weight, rate)           real [embed: 3]",
        "  %6 = subtract(weight, %5)             real [embed: 3]",
        "  output loss = %4",
        "  replace weight = %6"
      ].join("\n"))
    }))

  it("writes every operation with what else it is told", () => {
    const x = T.values({ row: 2, column: 3 }, [1, 2, 3, 4, 5, 6])
    const top = T.topK(x, "column", "rank", 2)
    const text = Print.expressions([
      T.rename(T.slice(x, "row", 0, 1), "row", "line"), T.merge(x, ["row", "column"], "all"), top.ids,
      T.softmax("column")(x),
      T.take(x, "row", T.ids({ pick: 2 }, [1, 0])), T.cumulativeSum(x, "row", { reverse: true }), T.pad(x, "row", 1, 2)
    ])
    for (const part of [
      "slice(%1; row from 0 to 1)", "rename(%2; row to line)", "merge(%1; row, column into all)",
      "topK ids(%1; along column as rank)", "softmax(%1; axis column)", "take(%1, %", "; along row)",
      "cumulativeSum(%1; along row from its end)", "pad(%1; row by 1 and 2)"
    ]) assert.include(text, part)
  })

  it("calls the outputs of a composite by its number and theirs", () => {
    const x = T.values({ row: 2 }, [1, 2])
    assert.strictEqual(Print.expressions([T.square(T.softmax("row")(x))]), [
      "  %1 = constant(2 elements)   real [row: 2]",
      "  %2 = softmax(%1; axis row)  real [row: 2]",
      "  %3 = square(%2.0)           real [row: 2]"
    ].join("\n"))
  })
})
