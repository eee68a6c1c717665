/**
 * Which ids of a program may lie outside their axis, and where that is found out.
 *
 * An engine gathers rubbish, or nothing, where an id lies outside, and does not say so. Each gather and scatter is
 * therefore proved at compile time (ids that are positions, ranks, or below a bound), checked on the inputs of a run
 * before it begins (ids that are an input as it was given), or checked while the program runs.
 *
 * From     Cria's own; interval arithmetic.
 * Checked  test/backend/tensorflow/Range.test.ts.
 *
 * @module
 */
import type { Instruction, Lowered } from "../../tensor/Instruction.ts"
import type { Elements } from "../Backend.ts"

/** Where ids lie: from `least` up to `greatest`, both included; `input` is the input that they are, as it was given. */
interface Interval {
  readonly least: number
  readonly greatest: number
  readonly input?: string
}

/** What an instruction needs of its ids. */
export interface Need {
  readonly instruction: number
  /** The axis, and its size, which no id may reach. */
  readonly axis: string
  readonly size: number
  /** The input to check; without it the check is for the run. */
  readonly input?: string
}

const anything: Interval = { least: -Infinity, greatest: Infinity }

const extremes = (elements: Elements | number): Interval => {
  if (typeof elements === "number") return { least: elements, greatest: elements }
  let [least, greatest] = [Infinity, -Infinity]
  for (const element of elements) {
    least = Math.min(least, element)
    greatest = Math.max(greatest, element)
  }
  return { least, greatest }
}

const union = (intervals: ReadonlyArray<Interval>): Interval => ({
  least: Math.min(...intervals.map(({ least }) => least)),
  greatest: Math.max(...intervals.map(({ greatest }) => greatest))
})

const whole = ({ greatest, least }: Interval): Interval => ({ least, greatest })

const sum = (x: Interval, y: Interval): Interval => ({ least: x.least + y.least, greatest: x.greatest + y.greatest })

const negative = ({ greatest, least }: Interval): Interval => ({ least: -greatest, greatest: -least })

/** Where the first or second output of an instruction lies. */
const intervalOf = (
  { primitive }: Instruction, operands: ReadonlyArray<Interval>, size: number, output: number
): Interval => {
  const [x = anything, y = anything] = operands
  switch (primitive._tag) {
    case "constant":
      return extremes(primitive.elements)
    case "reshape":
    case "transpose":
    case "expand":
    case "barrier":
      return x
    case "slice":
    case "gather":
      return whole(x)
    case "pad":
      return union([x, { least: 0, greatest: 0 }])
    case "concat":
      return union(operands)
    case "topK":
      return output === 1 ? { least: 0, greatest: size - 1 } : anything
    case "binary":
      if (primitive.function === "add") return sum(x, y)
      if (primitive.function === "subtract") return sum(x, negative(y))
      return anything
    default:
      return anything
  }
}

/** What the gathers and scatters of a program need that is not so by construction. Inputs are known to count from 0. */
export const needs = ({ inputs, instructions, values }: Lowered): ReadonlyArray<Need> => {
  const intervals = new Map<number, Interval>()
  for (const { name, value } of inputs) {
    if (values[value]?.kind === "id") intervals.set(value, { least: 0, greatest: Infinity, input: name })
  }
  const found: Array<Need> = []
  instructions.forEach((instruction, index) => {
    const { primitive } = instruction
    const [first, second] = instruction.inputs
    const table = first === undefined ? undefined : values[first]
    const isIndexed = (primitive._tag === "gather" || primitive._tag === "scatter") && second !== undefined &&
      values[second]?.shape.includes(0) === false
    if (isIndexed && table !== undefined) {
      const size = table.shape[primitive.axis] ?? 0
      const { greatest, input, least } = intervals.get(second) ?? anything
      if (least < 0 || greatest >= size) {
        found.push({
          instruction: index, axis: table.axes[primitive.axis] ?? "", size,
          ...(input === undefined ? {} : { input })
        })
      }
    }
    const operands = instruction.inputs.map((id) => intervals.get(id) ?? anything)
    instruction.outputs.forEach((id, output) => {
      if (values[id]?.kind === "id") {
        intervals.set(id, intervalOf(instruction, operands, table?.shape.at(-1) ?? 0, output))
      }
    })
  })
  return found
}

/** The first id that lies outside an axis of this size, as a message has it. */
export const outside = (ids: Elements | number, axis: string, size: number): string | undefined => {
  if (typeof ids === "number") {
    return ids >= 0 && ids < size ? undefined : `id ${ids} (every element) is outside axis "${axis}" of size ${size}`
  }
  const place = ids.findIndex((id) => id < 0 || id >= size)
  return place < 0 ? undefined : `id ${ids[place]} (element ${place}) is outside axis "${axis}" of size ${size}`
}
