/**
 * Products of one operand with several frozen weights in codes, as one product with all of them.
 *
 *     x A, x B, x C = the parts of x [A B C]
 *
 * Queries, keys and values are three products of one vector, gate and up two: where the weights are constants they can
 * lie one behind the other, and the operator then codes the vector once and wakes its threads once.
 *
 * From     Cria's own. Of weights that are numbers: `JoinedMatrices`.
 * Checked  test/backend/onnx/JoinedProducts.test.ts.
 *
 * @module
 */
import type { Instruction, Lowered, Port, Value } from "../../tensor/Instruction.ts"
import { elementCount } from "./ModelProto.ts"

/** The bytes of frozen cells, by path. */
export type Constants = ReadonlyMap<string, Uint8Array>

/** A product, and the frozen cells of its weights. */
interface Candidate {
  readonly instruction: Instruction
  readonly codes: Port
  readonly scales: Port
}

/** Joins constants, given by path: all one behind the other, or row by row of so many rows. */
export type Join = (parts: ReadonlyArray<readonly [path: string, bytes: Uint8Array]>, rows?: number) => Uint8Array

/**
 * Joins constants that change no more once, for all programs that hold them. `sealed` gives what such a constant lies
 * in; what was joined of it is held as long as that.
 */
export const joinOnce = (): (sealed: (path: string) => object | undefined) => Join => {
  const known = new WeakMap<object, Array<{ readonly all: ReadonlyArray<unknown>; readonly bytes: Uint8Array }>>()
  return (sealed) => (parts, rows = 1) => {
    const cells = parts.map(([path]) => sealed(path))
    const [first] = cells
    if (first === undefined || cells.includes(undefined)) return concatenated(parts, rows)
    const all = [...cells, rows]
    const others = known.get(first) ?? []
    known.set(first, others)
    const found = others.find((other) => other.all.length === all.length && other.all.every((one, i) => one === all[i]))
    if (found !== undefined) return found.bytes
    const bytes = concatenated(parts, rows)
    others.push({ all, bytes })
    return bytes
  }
}

/**
 * Constants of so many bytes together are joined; of larger ones a second copy would be dear. Of codes it won nothing.
 */
export const largest = 2 ** 22

/** Products with codes: those of blocks lie row behind row, those of rows next to each other. */
const names: ReadonlySet<string> = new Set(["contractCodes", "contractRows"])

/** A product with frozen codes whose scales are not: the engine would take those for zeros. Its two cells by path. */
export const halfFrozen = ({ cells, instructions }: Lowered, constants: Constants): ReadonlyArray<string> => {
  const paths = new Map(cells.map(({ name, value }) => [value, name] as const))
  for (const { inputs: [, codes = -1, scales = -1], primitive } of instructions) {
    if (primitive._tag !== "composite" || primitive.composite.name !== "contractCodes") continue
    const [of, by] = [paths.get(codes), paths.get(scales)]
    if (of !== undefined && constants.has(of) && (by === undefined || !constants.has(by))) return [of, by ?? "computed"]
  }
  return []
}

/** The program over joined constants, and those constants in place of their parts. */
export const joinProducts = (
  lowered: Lowered, constants: Constants, joined: Join = concatenated
): { readonly lowered: Lowered; readonly constants: Constants } => {
  const frozen = new Map(lowered.cells.flatMap((port) => constants.has(port.name) ? [[port.value, port] as const] : []))
  const shapeOf = (id: number): ReadonlyArray<number> => lowered.values[id]?.shape ?? []
  const groups = new Map<string, Array<Candidate>>()
  for (const instruction of lowered.instructions) {
    const { inputs: [x = -1, codesId = -1, scalesId = -1], primitive } = instruction
    const [codes, scales] = [frozen.get(codesId), frozen.get(scalesId)]
    if (primitive._tag !== "composite" || !names.has(primitive.composite.name)) continue
    if (codes === undefined || scales === undefined) continue
    const { attributes, name } = primitive.composite
    const summed = name === "contractRows" ? shapeOf(codesId).slice(0, 2) : shapeOf(codesId).slice(-2)
    const key = JSON.stringify([x, attributes, summed])
    groups.set(key, [...groups.get(key) ?? [], { instruction, codes, scales }])
  }
  const values: Array<Value> = [...lowered.values]
  const cells: Array<Port> = [...lowered.cells]
  const bytes = new Map(constants)
  const replaced = new Map<Instruction, Instruction | undefined>()
  for (const group of groups.values()) {
    const [first, ...others] = group
    const size = group.reduce((total, { codes }) => total + elementCount(shapeOf(codes.value)), 0)
    if (first === undefined || others.length === 0 || size > largest) continue
    const { primitive } = first.instruction
    const isRows = primitive._tag === "composite" && primitive.composite.name === "contractRows"
    const join = (ports: ReadonlyArray<Port>, kind: "code" | "real"): number => {
      const blocks = kind === "code" ? ["block", "byte"] : ["block"]
      const counts = ports.map(({ value }) => elementCount(shapeOf(value)))
      const [own = []] = ports.map(({ value }) => shapeOf(value))
      const sizes = isRows ? own.slice(0, blocks.length) : own.slice(-blocks.length)
      const row = counts.reduce((total, each) => total + each, 0) / elementCount(sizes)
      const [axes, shape] = isRows ? [[...blocks, "row"], [...sizes, row]] : [["row", ...blocks], [row, ...sizes]]
      const value = values.push({ shape, axes, kind }) - 1
      const name = ports.map(({ name }) => name).join("\n+ ") // no path of a cell has a line break
      cells.push({ name, value, sizes: Object.fromEntries(axes.map((axis, i) => [axis, shape[i] ?? 1])) })
      bytes.set(name, joined(
        ports.map(({ name }) => [name, constants.get(name) ?? new Uint8Array()]), isRows ? elementCount(sizes) : 1))
      return value
    }
    const [x = -1] = first.instruction.inputs
    const codes = join(group.map((each) => each.codes), "code")
    const scales = join(group.map((each) => each.scales), "real")
    replaced.set(first.instruction, {
      ...first.instruction,
      inputs: [x, codes, scales],
      outputs: group.flatMap(({ instruction }) => instruction.outputs)
    })
    for (const { instruction } of others) replaced.set(instruction, undefined)
  }
  if (replaced.size === 0) return { lowered, constants }
  const instructions = lowered.instructions.flatMap((instruction) =>
    replaced.has(instruction) ? replaced.get(instruction) ?? [] : [instruction])
  return { lowered: { ...lowered, values, cells, instructions }, constants: bytes }
}

/** Joins constants anew. */
export const concatenated: Join = (parts, rows = 1) => {
  const all = new Uint8Array(parts.reduce((total, [, { length }]) => total + length, 0))
  let at = 0
  for (let row = 0; row < rows; row++) {
    for (const [, part] of parts) {
      const length = part.length / rows
      all.set(part.subarray(row * length, (row + 1) * length), at)
      at += length
    }
  }
  return all
}
