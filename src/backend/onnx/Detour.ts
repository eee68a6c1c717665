/**
 * Detours around what WebGPU computes wrongly or not at all, as rewrites of the positional program.
 *
 * What it lacks the processor would compute, which waits for the card, fetches, and puts back. Sine and cosine stay
 * there: in a model they are taken of positions, which come from the host, so that nothing need be fetched if all that
 * leads to them is computed there as well.
 *
 * From     Cria's own; found by the laws of backends on ONNX Runtime 1.30.
 * Checked  test/backend/onnx/Detour.test.ts, test/backend/onnx/Provider.test.ts (the laws fail without it, and a
 *          training step runs on the card).
 *
 * @module
 */
import type { Instruction, Lowered, Primitive, Value } from "../../tensor/Instruction.ts"
import { readsOf } from "./Emit.ts"
import type { Graph } from "./ModelProto.ts"

/** Adds an instruction before the one that is rewritten; gives its value. */
type Add = (primitive: Primitive, inputs: ReadonlyArray<number>, value: Value) => number

/** Rewrites instructions: `detour` adds what comes before, and gives what takes the instruction's place. */
const rewritten = (
  lowered: Lowered,
  detour: (instruction: Instruction, output: Value, add: Add) => Pick<Instruction, "inputs" | "primitive"> | undefined
): Lowered => {
  const values: Array<Value> = [...lowered.values]
  const instructions = lowered.instructions.flatMap((instruction): ReadonlyArray<Instruction> => {
    const { outputs, place } = instruction
    const before: Array<Instruction> = []
    const output = values[outputs[0] ?? -1]
    const add: Add = (primitive, inputs, value) => {
      before.push({ primitive, inputs, outputs: [values.push(value) - 1], place })
      return values.length - 1
    }
    const last = output === undefined ? undefined : detour(instruction, output, add)
    return last === undefined ? [instruction] : [...before, { ...instruction, ...last }]
  })
  return { ...lowered, values, instructions }
}

/** Powers of operands of one shape only: WebGPU's Pow reads a single base wrongly where it stretches over a row. */
export const spreadPowers = (lowered: Lowered): Lowered =>
  rewritten(lowered, ({ inputs, primitive }, output, add) => {
    if (primitive._tag !== "binary" || primitive.function !== "power") return undefined
    const isSpread = (id: number): boolean => lowered.values[id]?.shape.join() === output.shape.join()
    return { primitive, inputs: inputs.map((id) => isSpread(id) ? id : add({ _tag: "expand" }, [id], output)) }
  })

const not: Primitive = { _tag: "logic", function: "not" }
const real: Primitive = { _tag: "convert", to: "real" }

/**
 * Signs and disjunctions out of what WebGPU has: sgn x = [0 < x] − [x < 0], a ∨ b = ¬(¬a ∧ ¬b). The sign of NaN is 0.
 */
export const composeTruths = (lowered: Lowered): Lowered =>
  rewritten(lowered, ({ inputs, primitive }, output, add) => {
    const [x = -1] = inputs
    if (primitive._tag === "unary" && primitive.function === "sign") {
      const truth: Value = { ...output, kind: "truth" }
      const zero = add({ _tag: "constant", elements: 0 }, [], { shape: [], axes: [], kind: "real" })
      const [above, below] = [[zero, x], [x, zero]].map((pair) =>
        add(real, [add({ _tag: "compare", relation: "less" }, pair, truth)], output))
      return { primitive: { _tag: "binary", function: "subtract" }, inputs: [above ?? -1, below ?? -1] }
    }
    if (primitive._tag === "logic" && primitive.function === "or") {
      const neither = inputs.map((id) => add(not, [id], lowered.values[id] ?? output))
      return { primitive: not, inputs: [add({ _tag: "logic", function: "and" }, neither, output)] }
    }
    return undefined
  })

/**
 * The nodes that lead from inputs and constants, and nothing else, to what the processor computes anyway (a sine, a
 * cosine, the long integers that say where rows are put), by the names of their outputs.
 */
export const onHost = ({ initializers, inputs, nodes }: Graph): ReadonlySet<string> => {
  const given = new Set([...initializers, ...inputs.filter(({ name }) => name.startsWith("input:"))]
    .map(({ name }) => name))
  const fromHost = nodes.filter((node) => {
    const isGiven = readsOf(node).every((name) => given.has(name))
    if (isGiven) node.outputs.forEach((output) => given.add(output))
    return isGiven
  })
  const wanted = new Set(nodes.flatMap(({ inputs: [, places = ""], op }) => op === "ScatterND" ? [places] : []))
  for (const node of fromHost.toReversed()) {
    const isWanted = node.op === "Sin" || node.op === "Cos" || node.outputs.some((output) => wanted.has(output))
    if (isWanted) [...node.inputs, ...node.outputs].forEach((name) => wanted.add(name))
  }
  return new Set(fromHost.flatMap(({ outputs: [name = ""] }) => wanted.has(name) ? [name] : []))
}
