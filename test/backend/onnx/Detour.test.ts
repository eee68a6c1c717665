import { assert, describe, it } from "@effect/vitest"
import { composeTruths, onHost, spreadPowers } from "../../../src/backend/onnx/Detour.ts"
import type { Graph } from "../../../src/backend/onnx/ModelProto.ts"
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

describe("composeTruths", () => {
  it("makes a sign out of two comparisons", () => {
    const { instructions, values } = composeTruths({
      ...lowered([4], "add"),
      instructions: [{ primitive: { _tag: "unary", function: "sign" }, inputs: [0], outputs: [2], place: "here" }]
    })
    assert.deepStrictEqual(instructions.map(({ inputs, outputs, primitive }) => [primitive._tag, inputs, outputs]), [
      ["constant", [], [3]], ["compare", [3, 0], [4]], ["convert", [4], [5]], ["compare", [0, 3], [6]],
      ["convert", [6], [7]], ["binary", [5, 7], [2]]
    ])
    assert.isTrue(instructions.every(({ place }) => place === "here"))
    assert.deepStrictEqual(values.slice(3).map(({ kind }) => kind), ["real", "truth", "real", "truth", "real"])
  })
  it("makes a disjunction out of what is not", () => {
    const truth = (...shape: ReadonlyArray<number>) => ({ ...value(...shape), kind: "truth" as const })
    const { instructions, values } = composeTruths({
      ...lowered([4], "add"), values: [truth(1), truth(4), truth(4)],
      instructions: [{ primitive: { _tag: "logic", function: "or" }, inputs: [0, 1], outputs: [2], place: "here" }]
    })
    assert.deepStrictEqual(instructions.map(({ inputs, outputs, primitive }) =>
      ["function" in primitive && primitive.function, inputs, outputs]), [
      ["not", [0], [3]], ["not", [1], [4]], ["and", [3, 4], [5]], ["not", [5], [2]]
    ])
    assert.deepStrictEqual(values.slice(3), [truth(1), truth(4), truth(4)])
  })
  it("leaves everything else", () => {
    const program = lowered([1], "power")
    assert.deepStrictEqual(composeTruths(program), program)
  })
})

describe("onHost", () => {
  const node = (op: string, inputs: ReadonlyArray<string>, output: string) => ({ op, inputs, outputs: [output] })
  const real = (name: string) => ({ name, type: "f32" as const, sizes: [4] })
  const graph = (...nodes: Graph["nodes"]): Graph => ({
    nodes, inputs: [real("input:x"), real("cell:w")], outputs: [],
    initializers: [{ ...real("c"), bytes: new Uint8Array(16) }]
  })
  it("names what leads from inputs and constants to a sine or to places", () => {
    assert.deepStrictEqual([...onHost(graph(
      node("Add", ["input:x", "c"], "a"), node("Mul", ["a", "c"], "b"), node("Sin", ["b"], "s"),
      node("Exp", ["a"], "e"), node("Cast", ["input:x"], "i"), node("ScatterND", ["cell:w", "i", "e"], "y")
    ))], ["a", "b", "s", "i"])
  })
  it("names nothing that a cell leads to, and nothing without need", () => {
    assert.deepStrictEqual([...onHost(graph(
      node("Add", ["input:x", "cell:w"], "a"), node("Cos", ["a"], "s"), node("Exp", ["input:x"], "e")
    ))], [])
  })
})
