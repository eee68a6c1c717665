/**
 * Ids that cannot lie outside are proved so; of the others it is known where they come from.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Range from "../../../src/backend/tensorflow/Range.ts"
import type { Any } from "../../../src/tensor/Node.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"

interface Leaves {
  readonly table: T.Tensor<"row" | "i">
  readonly ids: T.Tensor<"k", "id">
  readonly x: T.Tensor<"k">
}

/** What the one take or put of a program needs. */
const needs = (build: (leaves: Leaves) => Any) =>
  Effect.map(
    Program.make("ids", {
      inputs: {
        table: Specification.real({ row: 5, i: 2 }), ids: Specification.ids({ k: 3 }), x: Specification.real({ k: 3 })
      },
      state: {}
    }, (leaves) => ({ outputs: { y: build(leaves) } })),
    (program) => Range.needs(Program.lower(program, { hasKernel: () => false, watch: [] }))
      .map(({ axis, input, size }) => ({ axis, size, input }))
  )

const cases: ReadonlyArray<readonly [name: string, build: (leaves: Leaves) => Any, expected: unknown]> = [
  ["an input as it was given", ({ ids, table }) => T.take(table, "row", ids), [{ axis: "row", size: 5, input: "ids" }]],
  ["an input to put at", ({ ids, table, x }) => T.put(table, "row", ids, T.spread(x, "i", 2), "add"),
    [{ axis: "row", size: 5, input: "ids" }]],
  ["a part of an input", ({ ids, table }) => T.take(table, "row", T.slice(ids, "k", 0, 2)),
    [{ axis: "row", size: 5, input: undefined }]],
  ["positions", ({ table }) => T.take(table, "row", T.positions("k", 5)), []],
  ["too many positions", ({ table }) => T.take(table, "row", T.positions("k", 6)),
    [{ axis: "row", size: 5, input: undefined }]],
  ["sums of positions", ({ table }) => T.take(table, "row", T.addIds(T.positions("k", 3), T.positions("l", 3))), []],
  ["differences of positions", ({ table }) =>
    T.take(table, "row", T.subtractIds(T.positions("k", 3), T.positions("l", 3))),
  [{ axis: "row", size: 5, input: undefined }]],
  ["ranks", ({ table }) => T.take(table, "row", T.topK(T.at(table, "i", 0), "row", "rank", 2).ids), []],
  ["real numbers", ({ table, x }) => T.take(table, "row", T.toIds(x)), [{ axis: "row", size: 5, input: undefined }]],
  ["constants and padding", ({ table }) =>
    T.take(table, "row", T.pad(T.concat("k", [T.positions("k", 3), T.ids({ k: 2 }, [4, 0])]), "k", 1, 1)), []],
  ["a constant beyond", ({ table }) => T.take(table, "row", T.ids({ k: 2 }, [5, 0])),
    [{ axis: "row", size: 5, input: undefined }]]
]

describe("what is needed of", () => {
  it.effect.each([...cases])("%s", ([, build, expected]) =>
    Effect.map(needs(build), (found) => assert.deepStrictEqual<unknown>(found, expected)))
})

describe("an id outside", () => {
  it("is named with its place", () => {
    assert.strictEqual(
      Range.outside(Int32Array.of(0, 5), "vocab", 5), "id 5 (element 1) is outside axis \"vocab\" of size 5"
    )
    assert.strictEqual(
      Range.outside(Int32Array.of(-1), "vocab", 5), "id -1 (element 0) is outside axis \"vocab\" of size 5"
    )
    assert.strictEqual(Range.outside(7, "vocab", 5), "id 7 (every element) is outside axis \"vocab\" of size 5")
    assert.isUndefined(Range.outside(Int32Array.of(0, 4), "vocab", 5))
  })
})
