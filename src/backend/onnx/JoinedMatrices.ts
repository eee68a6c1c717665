/**
 * Products of few rows with several frozen matrices, as one product with all of them.
 *
 *     x A, x B, x C = the parts of the rows of x [A B C]
 *
 * A step of decoding reads its weights and does little else; fewer operators then leave fewer gaps. Attention takes
 * queries, keys and values as they lie in one row.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/JoinedMatrices.test.ts.
 *
 * @module
 */
import type { Instruction, Lowered, Port, Value } from "../../tensor/Instruction.ts"
import { concatenated, type Constants, type Join, largest } from "./JoinedProducts.ts"
import { elementCount } from "./ModelProto.ts"

/** Rows of a product that is joined, at most: to part the rows of more takes longer than is won. */
const mostRows = 32

/** A frozen cell, and the matrix that it is behind some reshapes. */
interface Matrix {
  readonly port: Port
  readonly value: number
  readonly reshapes: ReadonlyArray<Instruction>
}

/** The program over joined matrices, and those constants in place of their parts. */
export const joinMatrices = (
  lowered: Lowered, constants: Constants, joined: Join = concatenated
): { readonly lowered: Lowered; readonly constants: Constants } => {
  const shapeOf = (id: number): ReadonlyArray<number> => lowered.values[id]?.shape ?? []
  const groups = groupsOf(lowered, frozenMatrices(lowered, constants), shapeOf)
  const values: Array<Value> = [...lowered.values]
  const cells: Array<Port> = [...lowered.cells]
  const bytes = new Map(constants)
  const replaced = new Map<Instruction, Instruction | undefined>()
  for (const group of groups) {
    const [first, ...others] = group
    const parts = group.map(({ matrix: { port: { name } } }) =>
      [name, constants.get(name) ?? new Uint8Array()] as const)
    const size = parts.reduce((total, [, { length }]) => total + length, 0)
    if (first === undefined || others.length === 0 || size > largest) continue
    const [row = 1] = shapeOf(first.matrix.value)
    const column = group.reduce((total, { matrix }) => total + (shapeOf(matrix.value)[1] ?? 0), 0)
    const value = values.push({ shape: [row, column], axes: ["row", "column"], kind: "real" }) - 1
    const name = parts.map(([path]) => path).join("\n+ ") // no path of a cell has a line break
    cells.push({ name, value, sizes: { row, column } })
    bytes.set(name, joined(parts, row))
    const { inputs: [x = -1] } = first.instruction
    for (const { instruction, matrix } of group) {
      replaced.set(instruction, undefined)
      for (const reshape of matrix.reshapes) replaced.set(reshape, undefined)
    }
    const outputs = group.flatMap(({ instruction }) => instruction.outputs)
    replaced.set(first.instruction, { ...first.instruction, inputs: [x, value], outputs })
  }
  if (replaced.size === 0) return { lowered, constants }
  const instructions = lowered.instructions.flatMap((instruction) =>
    replaced.has(instruction) ? replaced.get(instruction) ?? [] : [instruction])
  return { lowered: { ...lowered, values, cells, instructions }, constants: bytes }
}

/** Frozen cells that are read once, as the matrices that products see. */
const frozenMatrices = (
  { cells, instructions, outputs, watched, writes }: Lowered, constants: Constants
): ReadonlyMap<number, Matrix> => {
  const reads = new Map<number, number>()
  const ends = [...outputs, ...writes, ...watched].map(({ value }) => value)
  for (const id of [...instructions.flatMap(({ inputs }) => inputs), ...ends]) reads.set(id, (reads.get(id) ?? 0) + 1)
  const isReadOnce = (id: number): boolean => reads.get(id) === 1
  const found = new Map<number, Matrix>()
  for (const port of cells) {
    const { name, value } = port
    if (constants.has(name) && isReadOnce(value)) found.set(value, { port, value, reshapes: [] })
  }
  for (const instruction of instructions) {
    const [matrix, value = -1] = [found.get(instruction.inputs[0] ?? -1), instruction.outputs[0]]
    if (instruction.primitive._tag !== "reshape" || matrix === undefined || !isReadOnce(value)) continue
    found.set(value, { port: matrix.port, value, reshapes: [...matrix.reshapes, instruction] })
  }
  return found
}

interface Product {
  readonly instruction: Instruction
  readonly matrix: Matrix
}

/** Products of one operand, of few rows, with frozen matrices. */
const groupsOf = (
  { instructions }: Lowered, matrices: ReadonlyMap<number, Matrix>, shapeOf: (id: number) => ReadonlyArray<number>
): Iterable<ReadonlyArray<Product>> => {
  const groups = new Map<number, Array<Product>>()
  for (const instruction of instructions) {
    const { inputs: [x = -1, y = -1], primitive } = instruction
    const matrix = matrices.get(y)
    if (primitive._tag !== "matmul" || matrix === undefined || shapeOf(x).length !== 2) continue
    const { scale, transposeLeft, transposeRight } = primitive
    const isPlain = !transposeLeft && !transposeRight && scale === 1
    const [rows = 0] = shapeOf(x)
    if (!isPlain || rows > mostRows || rows * elementCount(shapeOf(y)) === 0) continue
    groups.set(x, [...groups.get(x) ?? [], { instruction, matrix }])
  }
  return groups.values()
}
