import { assert, describe, it } from "@effect/vitest"
import { spreadPowers } from "../../../src/backend/onnx/Detour.ts"
import type { Lowered } from "../../../src/tensor/Instruction.ts"

const value = (...shape: ReadonlyArray<number>) => ({ shape, axes: shape.map(() => "i"), kind: "real" as const })

const lowered = (left: ReadonlyArray<number>, f: "power" | "add"): Lowered => ({
  values: [value(...left), value(4), value(4)],
  instructions: [{ primitive: { _tag: "binary", function: f }, inputs: [0, 1], outputs: [2], place: "here" }],
  inputs: [], cells: [], outputs: [], writes: [], watched: []
})

describe("spreadPowers", () => {
  it("stretches what is not of the result's shape, at its place", () => {
    const { instructions, values } = spreadPowers(lowered([1], "power"))
    assert.deepStrictEqual(instructions, [
      { primitive: { _tag: "expand" }, inputs: [0], outputs: [3], place: "here" },
      { primitive: { _tag: "binary", function: "power" }, inputs: [3, 1], outputs: [2], place: "here" }
    ])
    assert.deepStrictEqual(values[3], value(4))
  })
  it("leaves everything else", () => {
    for (const program of [lowered([4], "power"), lowered([1], "add")]) {
      assert.deepStrictEqual(spreadPowers(program), program)
    }
  })
})
