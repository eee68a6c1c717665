/**
 * Runs a positional program on plain arrays, in float64: the judge of every other backend.
 *
 * The code is meant to be obviously right, not fast. Every primitive is loops over offsets: for each element of an
 * array, in order, the place of its partner in another one.
 *
 * From     Cria's own.
 * Checked  test/tensor/Primitive.test.ts (every primitive against loops written for the test).
 * Departs  ids that point outside their axis, and ids that do not fit 32 bits, are faults, never clamped or wrapped.
 *
 * @module
 */
import type { Instruction, Lowered, Port, Primitive, Value } from "../../tensor/Instruction.ts"
import type { BinaryFunction, Kind, Relation, UnaryFunction } from "../../tensor/Node.ts"
import type { Elements } from "../Backend.ts"

/** Why a program cannot go on: something in the data that no array can hold. */
export interface Fault {
  readonly instruction: string
  readonly place: string
  readonly detail: string
  readonly remedy: string
}

/** Elements by the name of an input, cell, output or watched value. */
export type Arrays = ReadonlyMap<string, Elements>

/** What a run computes. Nothing that it was given has been changed. */
export interface Computed {
  readonly outputs: Arrays
  readonly writes: Arrays
  readonly watched: Arrays
}

/** Runs a program once on inputs and cells, whose elements lie in the order of their values' axes. */
export const run = (lowered: Lowered, inputs: Arrays, cells: Arrays): Computed | Fault => {
  const arrays = new Map<number, Elements>()
  const load = (ports: ReadonlyArray<Port>, given: Arrays): void =>
    ports.forEach(({ name, value }) => arrays.set(value, found(given.get(name), name)))
  load(lowered.inputs, inputs)
  load(lowered.cells, cells)
  const lastUse = lastUses(lowered)
  for (const [index, instruction] of lowered.instructions.entries()) {
    const operands = instruction.inputs.map(
      (id): Operand => ({ ...valueOf(lowered, id), elements: elementsOf(arrays, id) })
    )
    const results = evaluate(instruction, operands, instruction.outputs.map((id) => valueOf(lowered, id)))
    if (typeof results === "string") return faultOf(instruction, results)
    instruction.outputs.forEach((id, i) => arrays.set(id, found(results[i], instruction.primitive._tag)))
    instruction.inputs.forEach(
      (id) => lastUse.get(id) === index && arrays.delete(id)
    ) // what nothing reads again is freed
  }
  const collect = (ports: ReadonlyArray<Port>): Arrays =>
    new Map(ports.map(({ name, value }) => [name, elementsOf(arrays, value).slice()]))
  return { outputs: collect(lowered.outputs), writes: collect(lowered.writes), watched: collect(lowered.watched) }
}

/** Is this a fault? */
export const isFault = (result: Computed | Fault): result is Fault => "instruction" in result

interface Operand extends Value {
  readonly elements: Elements
}

const found = <X>(item: X | undefined, name: string | number): X => {
  if (item === undefined) throw new TypeError(`the lowered program is not closed: ${name} has no elements`)
  return item
}

const valueOf = (lowered: Lowered, id: number): Value => found(lowered.values[id], id)

const elementsOf = (arrays: ReadonlyMap<number, Elements>, id: number): Elements => found(arrays.get(id), id)

const lastUses = (lowered: Lowered): ReadonlyMap<number, number> => {
  const uses = new Map<number, number>()
  lowered.instructions.forEach(({ inputs }, index) => inputs.forEach((id) => uses.set(id, index)))
  for (const { value } of [...lowered.outputs, ...lowered.writes, ...lowered.watched]) uses.set(value, Infinity)
  return uses
}

/** What to do about an id outside its axis. */
export const idRemedy =
  "Ids must be whole numbers from 0 up to, not including, the size of their axis: check the data that made them"
  + " (a vocabulary larger than the model's, a padding id of −1, positions past the end of a table)."

const faultOf = ({ place, primitive }: Instruction, detail: string): Fault => ({
  instruction: primitive._tag, place, detail, remedy: idRemedy
})

/** Elements of the outputs, or what is wrong with the data. */
type Results = ReadonlyArray<Elements> | string

const evaluate = (
  { primitive }: Instruction, operands: ReadonlyArray<Operand>, outputs: ReadonlyArray<Value>
): Results => {
  const operand = (index: number): Operand => found(operands[index], primitive._tag)
  const output = found(outputs[0], primitive._tag)
  switch (primitive._tag) {
    case "constant":
      return [typeof primitive.elements === "number"
        ? empty(output).fill(primitive.elements)
        : primitive.elements]
    case "unary":
      return [zip(output, operands, unary[primitive.function])]
    case "binary":
      return within32Bits(output, zip(output, operands, binary[primitive.function]))
    case "compare":
      return [zip(output, operands, (x, y) => Number(relation[primitive.relation](x, y)))]
    case "logic":
      return [zip(output, operands, logic[primitive.function])]
    case "select":
      return [zip(output, operands, (condition, x, y) => condition === 1 ? x : y)]
    case "convert":
      return within32Bits(output, zip(output, operands, output.kind === "id" ? Math.trunc : (x) => x))
    case "reduce":
      return [reduce(primitive, operand(0), output)]
    case "matmul":
      return [matmul(primitive, operand(0), operand(1), output)]
    case "transpose": {
      const steps = strides(operand(0).shape)
      return [pick(output, operand(0), offsets(output.shape, primitive.permutation.map((axis) => steps[axis] ?? 0)))]
    }
    case "reshape":
    case "barrier":
      return [operand(0).elements]
    case "expand":
      return [pick(output, operand(0), broadcast(operand(0).shape, output.shape))]
    case "slice":
      return slice(primitive, operand(0), output)
    case "pad":
      return [lay(empty(output), output.shape, primitive.axis, primitive.before, operand(0))]
    case "concat": {
      const whole = empty(output)
      let start = 0
      for (const part of operands) {
        lay(whole, output.shape, primitive.axis, start, part)
        start += part.shape[primitive.axis] ?? 0
      }
      return [whole]
    }
    case "gather":
      return gather(primitive, operand(0), operand(1), output)
    case "scatter":
      return scatter(primitive, operand(0), operand(1), operand(2), output)
    case "topK":
      return topK(primitive.count, operand(0), outputs)
    case "cumulativeSum":
      return [cumulativeSum(primitive, operand(0), output)]
    case "composite":
      throw new TypeError(`the interpreter has no kernels: composite ${primitive.composite.name} must be expanded`)
  }
}

const unary: Record<UnaryFunction, (x: number) => number> = {
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  reciprocal: (x) => 1 / x,
  sin: Math.sin,
  cos: Math.cos,
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)), // e^−x may be ∞: then this is 0, which is right
  abs: Math.abs,
  sign: Math.sign,
  floor: Math.floor,
  negate: (x) => -x,
  square: (x) => x * x
}

const binary: Record<BinaryFunction, (x: number, y: number) => number> = {
  add: (x, y) => x + y,
  subtract: (x, y) => x - y,
  multiply: (x, y) => x * y,
  divide: (x, y) => x / y,
  maximum: (x, y) => Math.max(x, y),
  minimum: (x, y) => Math.min(x, y),
  power: (x, y) => x ** y
}

const relation: Record<Relation, (x: number, y: number) => boolean> = {
  equal: (x, y) => x === y,
  less: (x, y) => x < y,
  lessEqual: (x, y) => x <= y
}

const logic: Record<"and" | "or" | "not", (x: number, y: number) => number> = {
  and: (x, y) => x & y,
  or: (x, y) => x | y,
  not: (x) => 1 - x
}

const total = (shape: ReadonlyArray<number>): number => shape.reduce((product, size) => product * size, 1)

const zeros: Record<Kind, (length: number) => Elements> = {
  real: (length) => new Float64Array(length),
  id: (length) => new Int32Array(length),
  truth: (length) => new Uint8Array(length),
  code: (length) => new Uint8Array(length)
}

const empty = ({ kind, shape }: Value): Elements => zeros[kind](total(shape))

/** How far apart neighbours along each axis lie. */
const strides = (shape: ReadonlyArray<number>): ReadonlyArray<number> =>
  shape.map((_, axis) => total(shape.slice(axis + 1)))

/** Σ index · step for every element of a shape, in order. */
const offsets = (shape: ReadonlyArray<number>, steps: ReadonlyArray<number>): Int32Array => {
  let places = new Int32Array(1)
  shape.forEach((size, axis) => {
    const step = steps[axis] ?? 0
    const next = new Int32Array(places.length * size)
    for (let i = 0; i < places.length; i++) {
      for (let k = 0; k < size; k++) next[i * size + k] = places[i]! + k * step
    }
    places = next
  })
  return places
}

/** The place in an array of shape `from` of every element of `to`, aligned at the last axis; size 1 stretches. */
const broadcast = (from: ReadonlyArray<number>, to: ReadonlyArray<number>): Int32Array => {
  const own = strides(from)
  const lead = to.length - from.length
  return offsets(to, to.map((_, axis) => axis < lead || from[axis - lead] === 1 ? 0 : own[axis - lead] ?? 0))
}

const pick = (output: Value, { elements }: Operand, places: Int32Array): Elements => {
  const picked = empty(output)
  for (let i = 0; i < picked.length; i++) picked[i] = elements[places[i]!]!
  return picked
}

/** A function of one, two or three operands, element by element; ids come as float64, to be checked. */
const zip = (
  output: Value, operands: ReadonlyArray<Operand>, f: (x: number, y: number, z: number) => number
): Elements => {
  const [x, y = x, z = x] = operands.map((operand) =>
    pick({ ...operand, shape: output.shape }, operand, broadcast(operand.shape, output.shape)))
  const zipped = output.kind === "id" ? new Float64Array(total(output.shape)) : empty(output)
  if (x === undefined || y === undefined || z === undefined) return zipped
  for (let i = 0; i < zipped.length; i++) zipped[i] = f(x[i]!, y[i]!, z[i]!)
  return zipped
}

/** Ids as 32-bit integers, if they are. */
const within32Bits = (output: Value, numbers: Elements): Results => {
  if (output.kind !== "id") return [numbers]
  const odd = numbers.findIndex((id) => id !== (id | 0))
  return odd < 0 ? [Int32Array.from(numbers)] : `element ${odd} is ${numbers[odd]}, not a whole number of 32 bits`
}

type Of<Tag extends Primitive["_tag"]> = Extract<Primitive, { readonly _tag: Tag }>

const reduce = (primitive: Of<"reduce">, x: Operand, output: Value): Elements => {
  const kept = strides(output.shape)
  let next = 0
  const steps = x.shape.map((_, axis) => primitive.axes.includes(axis) ? 0 : kept[next++] ?? 0)
  const places = offsets(x.shape, steps)
  const reduced = empty(output).fill(primitive.function === "sum" ? 0 : -Infinity)
  const join = primitive.function === "sum" ? binary.add : binary.maximum
  for (let i = 0; i < places.length; i++) reduced[places[i]!] = join(reduced[places[i]!]!, x.elements[i]!)
  return reduced
}

const matmul = (
  { scale, transposeLeft, transposeRight }: Of<"matmul">, left: Operand, right: Operand, output: Value
): Elements => {
  const [m = 1, n = 1] = output.shape.slice(-2)
  const k = left.shape.at(transposeLeft ? -2 : -1) ?? 1
  const [row, inner] = transposeLeft ? [1, m] : [k, 1]
  const [outer, column] = transposeRight ? [1, k] : [n, 1]
  const product = empty(output)
  for (let i = 0; i < product.length; i++) {
    const batch = Math.floor(i / (m * n))
    let a = batch * m * k + Math.floor(i / n) % m * row
    let b = batch * k * n + i % n * column
    let sum = 0
    for (let s = 0; s < k; s++, a += inner, b += outer) sum += left.elements[a]! * right.elements[b]!
    product[i] = scale * sum
  }
  return product
}

const slice = ({ axis, end, start }: Of<"slice">, x: Operand, output: Value): Results => {
  const size = x.shape[axis] ?? 0
  if (start < 0 || end > size) return `elements ${start} up to ${end} of axis "${x.axes[axis]}", whose size is ${size}`
  const steps = strides(x.shape)
  const places = offsets(output.shape, steps)
  return [pick(output, { ...x, elements: x.elements.subarray(start * (steps[axis] ?? 0)) }, places)]
}

/** Writes a part into a whole of the given shape, from `start` along an axis. */
const lay = (whole: Elements, shape: ReadonlyArray<number>, axis: number, start: number, part: Operand): Elements => {
  const steps = strides(shape)
  const places = offsets(part.shape, steps)
  const first = start * (steps[axis] ?? 0)
  for (let i = 0; i < places.length; i++) whole[first + places[i]!] = part.elements[i]!
  return whole
}

/** The loops that gather and scatter share: [batch, outer, k, rest] and ids [batch, i] make [batch, outer, i, rest]. */
const eachRow = (
  { axis, batch }: { readonly axis: number; readonly batch: number }, table: Value, ids: Operand,
  visit: (inTable: number, inRows: number, length: number) => void
): string | undefined => {
  const size = table.shape[axis] ?? 0
  const outside = ids.elements.findIndex((id) => id < 0 || id >= size)
  if (outside >= 0) {
    return `id ${ids.elements[outside]} (element ${outside}) is outside axis "${table.axes[axis]}" of size ${size}`
  }
  const batches = total(table.shape.slice(0, batch))
  const outer = total(table.shape.slice(batch, axis))
  const rest = total(table.shape.slice(axis + 1))
  const rows = total(ids.shape.slice(batch))
  for (let b = 0; b < batches; b++) {
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < rows; i++) {
        const id = ids.elements[b * rows + i]!
        visit(((b * outer + o) * size + id) * rest, ((b * outer + o) * rows + i) * rest, rest)
      }
    }
  }
  return undefined
}

const gather = (primitive: Of<"gather">, table: Operand, ids: Operand, output: Value): Results => {
  const gathered = empty(output)
  const fault = eachRow(primitive, table, ids, (inTable, inRows, length) => {
    for (let r = 0; r < length; r++) gathered[inRows + r] = table.elements[inTable + r]!
  })
  return fault ?? [gathered]
}

const scatter = (primitive: Of<"scatter">, base: Operand, ids: Operand, values: Operand, output: Value): Results => {
  const scattered = empty(output)
  scattered.set(base.elements)
  const fault = eachRow(primitive, base, ids, (inTable, inRows, length) => {
    for (let r = 0; r < length; r++) {
      const before = primitive.mode === "add" ? scattered[inTable + r]! : 0
      scattered[inTable + r] = before + values.elements[inRows + r]!
    }
  })
  return fault ?? [scattered]
}

const topK = (count: number, x: Operand, [values, ids]: ReadonlyArray<Value>): Results => {
  const size = x.shape.at(-1) ?? 0
  const [largest, places] = [empty(found(values, "topK")), empty(found(ids, "topK"))]
  for (let row = 0; row * count < largest.length; row++) {
    const at = (id: number): number => x.elements[row * size + id]!
    const order = Array.from({ length: size }, (_, id) => id).sort((i, j) => at(j) - at(i) || i - j)
    for (let rank = 0; rank < count; rank++) {
      places[row * count + rank] = order[rank]!
      largest[row * count + rank] = at(order[rank]!)
    }
  }
  return [largest, places]
}

const cumulativeSum = ({ axis, reverse }: Of<"cumulativeSum">, x: Operand, output: Value): Elements => {
  const sums = empty(output)
  sums.set(x.elements)
  const size = x.shape[axis] ?? 0
  const step = strides(x.shape)[axis] ?? 1
  for (let i = 0; i < sums.length; i++) {
    const place = reverse ? sums.length - 1 - i : i
    const along = Math.floor(place / step) % size
    const isFirst = reverse ? along === size - 1 : along === 0
    if (!isFirst) sums[place] = sums[place]! + sums[reverse ? place + step : place - step]!
  }
  return sums
}
