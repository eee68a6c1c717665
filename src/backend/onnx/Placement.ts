/**
 * Which cells of a program can be replaced where they lie.
 *
 * A cell's new value may be written over the old one only where every other reader of the old value is an ancestor of
 * the writer: then no order in which the engine may run the graph reads what is already overwritten. The writer itself
 * may read the old value element by element, or scatter into it.
 *
 * From     Cria's own; the hazard was seen (an aliased parameter that another operator still read gave wrong gradients).
 * Checked  backend/onnx/Placement.test.ts.
 *
 * @module
 */
import type { Instruction, Lowered } from "../../tensor/Instruction.ts"

/** Names of the written cells, by whether the new value may lie where the old one does. */
export interface Placement {
  readonly inPlace: ReadonlySet<string>
  readonly copied: ReadonlySet<string>
}

const elementwise: ReadonlySet<string> = new Set(["unary", "binary", "compare", "logic", "select", "convert"])

/** Decides for every written cell. */
export const placement = (lowered: Lowered): Placement => {
  const producers = new Map<number, Instruction>()
  for (const instruction of lowered.instructions) for (const output of instruction.outputs) producers.set(output, instruction)
  const cells = new Map(lowered.cells.map(({ name, value }) => [name, value]))
  const written = new Map<number, number>()
  for (const { value } of [...lowered.writes, ...lowered.outputs, ...lowered.watched]) written.set(value, (written.get(value) ?? 0) + 1)
  const inPlace = new Set<string>()
  const copied = new Set<string>()
  for (const { name, value } of lowered.writes) {
    const cell = cells.get(name)
    const safe = cell !== undefined && written.get(value) === 1 && isSafe(lowered, producers, cell, value)
    ;(safe ? inPlace : copied).add(name)
  }
  return { inPlace, copied }
}

const isSafe = (lowered: Lowered, producers: ReadonlyMap<number, Instruction>, cell: number, value: number): boolean => {
  const writer = producers.get(skipReshapes(producers, value))
  if (writer === undefined) return false
  const aliases = aliasesOf(lowered, cell)
  if ([...lowered.outputs, ...lowered.watched, ...lowered.writes].some((port) => aliases.has(port.value))) return false
  const ancestors = ancestorsOf(producers, writer)
  const shape = lowered.values[writer.outputs[0] ?? -1]?.shape.join()
  return lowered.instructions.every((reader) => {
    if (!reader.inputs.some((input) => aliases.has(input)) || reader.primitive._tag === "reshape") return true
    if (reader !== writer) return ancestors.has(reader)
    const [base, ...others] = reader.inputs
    if (reader.primitive._tag === "scatter") return base !== undefined && aliases.has(base) && !others.some((input) => aliases.has(input))
    return elementwise.has(reader.primitive._tag) &&
      reader.inputs.every((input) => !aliases.has(input) || lowered.values[input]?.shape.join() === shape)
  })
}

const skipReshapes = (producers: ReadonlyMap<number, Instruction>, value: number): number => {
  let source = value
  for (let made = producers.get(source); made?.primitive._tag === "reshape"; made = producers.get(source)) source = made.inputs[0] ?? -1
  return source
}

/** A value and everything that is only a reshape of it: the same memory. */
const aliasesOf = (lowered: Lowered, value: number): ReadonlySet<number> => {
  const aliases = new Set([value])
  for (const { inputs, outputs, primitive } of lowered.instructions) {
    const [input] = inputs
    if (primitive._tag === "reshape" && input !== undefined && aliases.has(input)) outputs.forEach((output) => aliases.add(output))
  }
  return aliases
}

const ancestorsOf = (producers: ReadonlyMap<number, Instruction>, instruction: Instruction): ReadonlySet<Instruction> => {
  const found = new Set<Instruction>()
  const queue = [instruction]
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    for (const input of next.inputs) {
      const producer = producers.get(input)
      if (producer !== undefined && !found.has(producer)) {
        found.add(producer)
        queue.push(producer)
      }
    }
  }
  return found
}
