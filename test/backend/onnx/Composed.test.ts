/**
 * What the backend says of its primitives is so: those it calls composed take several operators, all others one.
 */
import { assert, it } from "@effect/vitest"
import { emit } from "../../../src/backend/onnx/Emit.ts"
import { composed } from "../../../src/backend/onnx/OnnxRuntime.ts"
import type { Lowered, Primitive } from "../../../src/tensor/Instruction.ts"
import { lower } from "../../../src/tensor/Lower.ts"
import { rewrite } from "../../../src/tensor/Rewrite.ts"
import { leavesOf } from "../../../src/testing/Computation.ts"
import { rows } from "../../../src/testing/PrimitiveCase.ts"

const nameOf = (primitive: Primitive): string =>
  [primitive._tag, ...["function", "relation", "mode"].flatMap((key) =>
    key in primitive ? [String(primitive[key as keyof Primitive])] : [])].join(" ")

/** The most operators that an instruction of each primitive is written in, one alone, views not counted. */
const most = new Map<string, number>()
for (const { computations } of rows) {
  for (const { build, given } of computations) {
    const leaves = leavesOf(given)
    const outputs = build(leaves)
    const written = rewrite(outputs, () => false)
    const { instructions, values } = lower({
      inputs: Object.entries(leaves), cells: [], writes: [], watched: [],
      outputs: outputs.map((output, i) => ({ name: String(i), node: written[i] ?? output, sizes: output.sizes }))
    })
    for (const instruction of instructions) {
      const port = (value: number) => ({ name: String(value), value, sizes: {} })
      const alone: Lowered = {
        values, instructions: [instruction], inputs: [...new Set(instruction.inputs)].map(port), cells: [],
        outputs: instruction.outputs.map(port), writes: [], watched: []
      }
      const { nodes } = emit(alone, "f32", new Map()).graph
      const count = nodes.filter(({ op }) => op !== "Reshape" && op !== "Identity").length
      const name = nameOf(instruction.primitive)
      most.set(name, Math.max(most.get(name) ?? 0, count))
    }
  }
}

it("says which primitives are composed", () =>
  assert.deepStrictEqual(
    Object.keys(composed).toSorted(), [...most].filter(([, count]) => count > 1).map(([name]) => name).toSorted()
  ))
