/**
 * Detours around what a provider computes wrongly, as rewrites of the positional program.
 *
 * From     Cria's own; found by the laws of backends on ONNX Runtime 1.30.
 * Checked  test/backend/onnx/Detour.test.ts, test/backend/onnx/Provider.test.ts (the laws fail without it).
 *
 * @module
 */
import type { Instruction, Lowered, Value } from "../../tensor/Instruction.ts"

/** Powers of operands of one shape only: WebGPU's Pow reads a single base wrongly where it stretches over a row. */
export const spreadPowers = (lowered: Lowered): Lowered => {
  const values: Array<Value> = [...lowered.values]
  const instructions = lowered.instructions.flatMap((instruction): ReadonlyArray<Instruction> => {
    const { inputs, outputs, place, primitive } = instruction
    const output = values[outputs[0] ?? -1]
    if (primitive._tag !== "binary" || primitive.function !== "power" || output === undefined) return [instruction]
    const spread = inputs.map((id): readonly [id: number, made: ReadonlyArray<Instruction>] => {
      if (values[id]?.shape.join() === output.shape.join()) return [id, []]
      values.push(output)
      return [values.length - 1, [{ primitive: { _tag: "expand" }, inputs: [id], outputs: [values.length - 1], place }]]
    })
    return [...spread.flatMap(([, made]) => made), { ...instruction, inputs: spread.map(([id]) => id) }]
  })
  return { ...lowered, values, instructions }
}
