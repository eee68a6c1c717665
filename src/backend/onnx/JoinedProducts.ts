/**
 * Products of one operand with several frozen weights, as one product with all of them.
 *
 *     x A, x B, x C = the parts of x [A B C]
 *
 * Queries, keys and values are three products of one vector, gate and up two: where the weights are constants they can
 * lie one behind the other, or next to each other. A step of decoding reads its weights and does little else: fewer
 * operators leave fewer gaps, codes are made of the vector once, and attention takes queries, keys and values as they
 * lie in one row.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/JoinedProducts.test.ts (weights in codes), test/backend/onnx/JoinedMatrices.test.ts.
 *
 * @module
 */
import type { Instruction, Lowered, Port, Value } from "../../tensor/Instruction.ts"
import { elementCount } from "./ModelProto.ts"
import { fewRows } from "./Writer.ts"

/** The bytes of frozen cells, by path. */
export type Constants = ReadonlyMap<string, Uint8Array>

/** A frozen cell as a product reads it, and the axis along which it is joined. */
interface Weight {
  readonly port: Port
  readonly value: Value
  readonly axis: number
}

/** A product that can be joined. */
interface Candidate {
  readonly instruction: Instruction
  /** What products that are joined have in common. */
  readonly alike: string
  /** A matrix, or codes and their scales. */
  readonly weights: ReadonlyArray<Weight>
  /** Reshapes of weights, which would have nothing left to read. */
  readonly reshapes: ReadonlyArray<Instruction>
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

/** Joins constants anew. */
const concatenated: Join = (parts, rows = 1) => {
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

/**
 * Matrices, or codes, of so many bytes together are joined; of larger ones a second copy would be dear. Of codes it won
 * nothing.
 */
const largest = 2 ** 22

/** The program over joined constants, and those constants in place of their parts. */
export const joinProducts = (
  lowered: Lowered, constants: Constants, joined: Join = concatenated
): { readonly lowered: Lowered; readonly constants: Constants } => {
  const groups = new Map<string, Array<Candidate>>()
  for (const candidate of [...codedProducts(lowered, constants), ...plainProducts(lowered, constants)]) {
    groups.set(candidate.alike, [...groups.get(candidate.alike) ?? [], candidate])
  }
  const values: Array<Value> = [...lowered.values]
  const cells: Array<Port> = [...lowered.cells]
  const bytes = new Map(constants)
  const replaced = new Map<Instruction, Instruction | undefined>()
  const partOf = ({ name }: Port) => [name, constants.get(name) ?? new Uint8Array()] as const
  for (const group of groups.values()) {
    const [first, ...others] = group
    const size = group.reduce((total, { weights: [weight] }) => total + (weight ? partOf(weight.port)[1].length : 0), 0)
    if (first === undefined || others.length === 0 || size > largest) continue
    const weights = first.weights.map(({ axis, value: { axes, kind, shape } }, operand) => {
      const all = group.flatMap(({ weights }) => weights[operand] ?? [])
      const whole = shape.with(axis, all.reduce((total, { value }) => total + (value.shape[axis] ?? 0), 0))
      const value = values.push({ axes, kind, shape: whole }) - 1
      const name = all.map(({ port }) => port.name).join("\n+ ") // no path of a cell has a line break
      cells.push({ name, value, sizes: Object.fromEntries(axes.map((each, i) => [each, whole[i] ?? 1])) })
      bytes.set(name, joined(all.map(({ port }) => partOf(port)), elementCount(shape.slice(0, axis))))
      return value
    })
    for (const { instruction, reshapes } of group) {
      for (const each of [instruction, ...reshapes]) replaced.set(each, undefined)
    }
    const { inputs: [x = -1] } = first.instruction
    const outputs = group.flatMap(({ instruction }) => instruction.outputs)
    replaced.set(first.instruction, { ...first.instruction, inputs: [x, ...weights], outputs })
  }
  if (replaced.size === 0) return { lowered, constants }
  const instructions = lowered.instructions.flatMap((instruction) =>
    replaced.has(instruction) ? replaced.get(instruction) ?? [] : [instruction])
  return { lowered: { ...lowered, values, cells, instructions }, constants: bytes }
}

const valueOf = ({ values }: Lowered, id: number): Value => values[id] ?? { shape: [], axes: [], kind: "real" }

/** Products with codes: those of blocks lie row behind row, those of rows next to each other. */
const codedProducts = (lowered: Lowered, constants: Constants): ReadonlyArray<Candidate> => {
  const { cells, instructions } = lowered
  const frozen = new Map(cells.flatMap((port) => constants.has(port.name) ? [[port.value, port] as const] : []))
  const weightOf = (port: Port, summed: ReadonlyArray<string>, isRows: boolean): Weight => {
    const { kind, shape } = valueOf(lowered, port.value)
    const sizes = isRows ? shape.slice(0, summed.length) : shape.slice(-summed.length)
    const row = elementCount(shape) / elementCount(sizes)
    return isRows ? { port, axis: summed.length, value: { kind, axes: [...summed, "row"], shape: [...sizes, row] } }
      : { port, axis: 0, value: { kind, axes: ["row", ...summed], shape: [row, ...sizes] } }
  }
  return instructions.flatMap((instruction): ReadonlyArray<Candidate> => {
    const { inputs: [x, codes = -1, scales = -1], primitive } = instruction
    const [of, by] = [frozen.get(codes), frozen.get(scales)]
    if (primitive._tag !== "composite" || of === undefined || by === undefined) return []
    const { attributes, name } = primitive.composite
    if (name !== "contractCodes" && name !== "contractRows") return []
    const isRows = name === "contractRows"
    const weights = [weightOf(of, ["block", "byte"], isRows), weightOf(by, ["block"], isRows)]
    const summed = weights[0]?.value.shape.toSpliced(weights[0].axis, 1)
    return [{ instruction, weights, reshapes: [], alike: JSON.stringify([x, attributes, summed]) }]
  })
}

/** Products of few rows with matrices: to part the rows of more takes longer than is won. */
const plainProducts = (lowered: Lowered, constants: Constants): ReadonlyArray<Candidate> => {
  const matrices = frozenMatrices(lowered, constants)
  return lowered.instructions.flatMap((instruction): ReadonlyArray<Candidate> => {
    const { inputs: [x = -1, y = -1], primitive } = instruction
    const [matrix, value, { shape }] = [matrices.get(y), valueOf(lowered, y), valueOf(lowered, x)]
    if (primitive._tag !== "matmul" || matrix === undefined || shape.length !== 2) return []
    const { scale, transposeLeft, transposeRight } = primitive
    const isPlain = !transposeLeft && !transposeRight && scale === 1
    const [rows = 0] = shape
    if (!isPlain || rows > fewRows || rows * elementCount(value.shape) === 0) return []
    const weight = { port: matrix.port, axis: 1, value: { ...value, axes: ["row", "column"] } }
    return [{ instruction, weights: [weight], reshapes: matrix.reshapes, alike: String(x) }]
  })
}

/** Frozen cells that are read once, as the matrices that products see behind some reshapes. */
const frozenMatrices = (
  { cells, instructions, outputs, watched, writes }: Lowered, constants: Constants
): ReadonlyMap<number, { readonly port: Port; readonly reshapes: ReadonlyArray<Instruction> }> => {
  const reads = new Map<number, number>()
  const ends = [...outputs, ...writes, ...watched].map(({ value }) => value)
  for (const id of [...instructions.flatMap(({ inputs }) => inputs), ...ends]) reads.set(id, (reads.get(id) ?? 0) + 1)
  const isReadOnce = (id: number): boolean => reads.get(id) === 1
  const found = new Map(cells.flatMap((port) => constants.has(port.name) && isReadOnce(port.value)
    ? [[port.value, { port, reshapes: [] as ReadonlyArray<Instruction> }] as const] : []))
  for (const instruction of instructions) {
    const [matrix, value = -1] = [found.get(instruction.inputs[0] ?? -1), instruction.outputs[0]]
    if (instruction.primitive._tag !== "reshape" || matrix === undefined || !isReadOnce(value)) continue
    found.set(value, { port: matrix.port, reshapes: [...matrix.reshapes, instruction] })
  }
  return found
}
