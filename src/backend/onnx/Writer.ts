/**
 * What writes the nodes of an ONNX graph: names of values, literals that are kept once, nodes with fresh names.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/Emit.test.ts.
 *
 * @module
 */
import type { Instruction, Lowered, Primitive, Value } from "../../tensor/Instruction.ts"
import type { Kind } from "../../tensor/Node.ts"
import type { Precision } from "../Backend.ts"
import type { Sizes } from "../machine/PanelProduct.ts"
import type { MachineOperator } from "./MachineOperator.ts"
import { type Attribute, elementCount, type ElementType, type Initializer, type Node } from "./ModelProto.ts"

/** Settings of an operator. */
export type Attributes = Readonly<Record<string, Attribute>>

/** A tensor of the graph. */
export interface Lying {
  readonly name: string
  readonly shape: ReadonlyArray<number>
  /** Its type, where that is not the one of its kind. */
  readonly type?: ElementType
}

/**
 * Writes nodes of one graph. Values are indices into the lowered program, everything else goes by graph names.
 *
 * A value may lie in another shape than its own (the same elements in the same order): who needs that asks for `lying`,
 * who needs its own shape for `name`, which reshapes.
 */
export interface Writer {
  readonly precision: Precision
  /** Whether products take transposed operands and a scale, and norms a sum: neither in float64 nor on WebGPU. */
  readonly fuses: boolean
  /** Frozen cells, packed for operators of our own; absent where there are none. */
  readonly machine?: Machine
  /** Operators of our own that nodes name. */
  readonly operators: Map<string, MachineOperator>
  /** Whether a branch waits for nothing: a condition on a device has to be fetched from there. */
  readonly branches: boolean
  readonly nodes: Array<Node>
  readonly initializers: Array<Initializer>
  readonly value: (id: number) => Value
  /** The instruction that computes a value. */
  readonly producer: (id: number) => Instruction | undefined
  /** The first instruction that reads a value. */
  readonly reader: (id: number) => Instruction | undefined
  /** How many operands and results of the program a value is. */
  readonly uses: (id: number) => number
  /** A value as it lies. */
  readonly lying: (id: number) => Lying
  /** The name of a value in its own shape. */
  readonly name: (id: number) => string
  /** Declares a value as a result of the graph. */
  readonly declare: (id: number, result: Lying) => void
  /** Where a value is to be computed: as it is declared, else in the given shape, or its own. */
  readonly target: (id: number, shape?: ReadonlyArray<number>) => Lying
  /** Says where a value lies that is there already; a declared one is copied. */
  readonly give: (id: number, given: Lying) => void
  /** Says that values are the parts of the rows of one tensor, in this order. */
  readonly giveParts: (ids: ReadonlyArray<number>, whole: Lying) => void
  /** The tensor whose rows consist of these values in this order, reshaped or not, if there is one. */
  readonly wholeOf: (ids: ReadonlyArray<number>) => Lying | undefined
  /** Whether it is decided where a value lies. */
  readonly isPlaced: (id: number) => boolean
  readonly isDeclared: (id: number) => boolean
  /** A name that nothing has. */
  readonly fresh: () => string
  readonly node: (
    op: string, inputs: ReadonlyArray<string>, outputs: ReadonlyArray<string>, attributes?: Attributes, domain?: string
  ) => void
  /** A node with one output, whose fresh name is returned. */
  readonly one: (op: string, inputs: ReadonlyArray<string>, attributes?: Attributes, domain?: string) => string
  /** The name that was written for a key; what nodes it needs are written the first time. */
  readonly once: (key: string, write: () => string) => string
  /** A constant in the graph, kept once for each key. */
  readonly literal: (key: string, type: ElementType, shape: ReadonlyArray<number>, bytes: () => Uint8Array) => string
  /** Whole numbers of 64 bits, in one row or in another shape. */
  readonly longs: (values: ReadonlyArray<number>, shape?: ReadonlyArray<number>) => string
  readonly scalar: (value: number, kind?: Kind) => string
  readonly filled: (value: number, kind: Kind, shape: ReadonlyArray<number>) => string
  /**
   * A tensor in another shape, by a node only where there is not one already; never a reshape of a reshape, nor of a
   * literal, which is kept in either shape.
   */
  readonly reshape: (tensor: Lying, shape: ReadonlyArray<number>) => string
}

/** What operators of our own have to know. */
export interface Machine {
  readonly threads: number
  /** The bytes of a frozen cell, by its graph's name, if it is one. */
  readonly frozen: (name: string) => Uint8Array | undefined
  readonly pack: Pack
}

/** Packs a matrix of float32 in panels. */
export type Pack = (bytes: Uint8Array, sizes: Omit<Sizes, "rows">, isTransposed: boolean) => Uint8Array

/** ONNX Runtime's own operators. */
export const microsoft = "com.microsoft"

/** The ONNX element type of a kind. */
export const elementType = (kind: Kind, precision: Precision): ElementType =>
  kind === "real" ? precision : elementTypes[kind]

const elementTypes: Readonly<Record<Exclude<Kind, "real">, ElementType>> = { id: "i32", truth: "bool", code: "u8" }

/** Elements in the width of a kind and precision. */
export const bytesOf = (elements: ArrayLike<number>, kind: Kind, precision: Precision): Uint8Array => {
  const Elements = kind === "id" ? Int32Array : kind !== "real" ? Uint8Array
    : precision === "f32" ? Float32Array : Float64Array
  return new Uint8Array(new Elements(elements).buffer)
}

/** The nodes of one branch of an If; the last computes its result, of the given type and sizes. */
export const branch = (
  type: ElementType, sizes: ReadonlyArray<number>, nodes: ReadonlyArray<Node>
): Attribute => ({
  graph: { nodes, inputs: [], initializers: [], outputs: [{ name: nodes.at(-1)?.outputs[0] ?? "", type, sizes }] }
})

/** An operand as it lies, if its last axis is whole there and the results may lie so too; else in its own shape. */
export const rowsOf = (
  { isDeclared, lying, name, value }: Writer, id: number, ...results: ReadonlyArray<number>
): Lying => {
  const { shape } = value(id)
  return !results.some(isDeclared) && lying(id).shape.at(-1) === shape.at(-1) ? lying(id) : { name: name(id), shape }
}

/** Products of so many rows, at most, are written in as few operators as can be; of more, in few passes over memory. */
export const fewRows = 32

/** A matrix product in float32: transposed operands and the scale are part of the operator. */
export const productNode = (
  { scale, transposeLeft, transposeRight }: Extract<Primitive, { readonly _tag: "matmul" }>,
  inputs: ReadonlyArray<string>, output: string
): Node => {
  if (!transposeLeft && !transposeRight && scale === 1) return { op: "MatMul", inputs, outputs: [output] }
  const attributes = {
    transA: { int: transposeLeft ? 1 : 0 }, transB: { int: transposeRight ? 1 : 0 }, alpha: { float: scale }
  }
  return { op: "FusedMatMul", inputs, outputs: [output], attributes, domain: microsoft }
}

/** A writer of an empty graph. */
export const makeWriter = (
  lowered: Lowered, precision: Precision, provider: string, machine?: Machine
): Writer => {
  const nodes: Array<Node> = []
  const initializers: Array<Initializer> = []
  const places = new Map<number, Lying>()
  const declared = new Set<number>()
  const literals = new Map<string, string>()
  const written = new Map<string, string>()
  const producers = new Map(lowered.instructions.flatMap((instruction) =>
    instruction.outputs.map((output) => [output, instruction] as const)))

  const readers = new Map(lowered.instructions.toReversed().flatMap((instruction) =>
    instruction.inputs.map((input) => [input, instruction] as const)))

  const uses = new Map<number, number>()
  const ends = [...lowered.outputs, ...lowered.writes, ...lowered.watched].map(({ value }) => value)
  for (const id of [...lowered.instructions.flatMap(({ inputs }) => inputs), ...ends]) {
    uses.set(id, (uses.get(id) ?? 0) + 1)
  }

  let count = 0
  const fresh = (): string => `t${count++}`
  const node: Writer["node"] = (op, inputs, outputs, attributes, domain) => {
    nodes.push({
      op, inputs, outputs,
      ...(attributes === undefined ? {} : { attributes }),
      ...(domain === undefined ? {} : { domain })
    })
  }
  const one: Writer["one"] = (op, inputs, attributes, domain) => {
    const output = fresh()
    node(op, inputs, [output], attributes, domain)
    return output
  }
  const literal: Writer["literal"] = (key, type, sizes, bytes) => {
    const found = literals.get(key)
    if (found !== undefined) return found
    const name = `c${literals.size}`
    literals.set(key, name)
    initializers.push({ name, type, sizes, bytes: bytes() })
    return name
  }
  const once: Writer["once"] = (key, write) => {
    const name = written.get(key) ?? write()
    written.set(key, name)
    return name
  }
  const longs: Writer["longs"] = (values, shape = [values.length]) =>
    literal(`longs ${values.join()} ${shape.join()}`, "i64", shape,
      () => new Uint8Array(BigInt64Array.from(values, BigInt).buffer))
  const filled: Writer["filled"] = (value, kind, shape) =>
    literal(`${kind} ${Object.is(value, -0) ? "-0" : value} ${shape.join()}`, elementType(kind, precision), shape,
      () => bytesOf(new Float64Array(elementCount(shape)).fill(value), kind, precision))
  const value: Writer["value"] = (id) => lowered.values[id] ?? { shape: [], axes: [], kind: "real" }
  const origins = new Map<string, Lying>()
  const reshapes = new Map<string, string>()
  const reshape: Writer["reshape"] = (tensor, shape) => {
    const origin = origins.get(tensor.name) ?? tensor
    if (origin.shape.join() === shape.join()) return origin.name
    const key = `${origin.name} ${shape.join()}`
    const known = reshapes.get(key)
    if (known !== undefined) return known
    const constant = initializers.find(({ name }) => name === origin.name)
    const output = constant === undefined ? one("Reshape", [origin.name, longs(shape)])
      : literal(key, constant.type, shape, () => constant.bytes)
    origins.set(output, origin)
    reshapes.set(key, output)
    return output
  }
  const lying: Writer["lying"] = (id) => places.get(id) ?? { name: `v${id}`, shape: value(id).shape }
  const target: Writer["target"] = (id, shape) => {
    const place = declared.has(id) ? lying(id) : { name: `v${id}`, shape: shape ?? value(id).shape }
    places.set(id, place)
    return place
  }
  const wholes = new Map<string, Lying>()
  const origin = (id: number): number => {
    const made = producers.get(id)
    return made?.primitive._tag === "reshape" ? origin(made.inputs[0] ?? -1) : id
  }
  const give: Writer["give"] = (id, given) => {
    if (!declared.has(id)) return void places.set(id, given)
    const { name, shape } = lying(id)
    const isSame = given.shape.join() === shape.join()
    node(isSame ? "Identity" : "Reshape", isSame ? [given.name] : [given.name, longs(shape)], [name])
  }
  return {
    ...machine === undefined ? {} : { machine }, operators: new Map(),
    precision, fuses: precision === "f32" && provider !== "webgpu", branches: provider === "cpu", nodes, initializers,
    fresh, node, one, once, literal, longs, filled, value, lying,
    reshape, target, give,
    giveParts: (ids, whole) => void wholes.set(ids.map(origin).join(), whole),
    wholeOf: (ids) => wholes.get(ids.map(origin).join()),
    producer: (id) => producers.get(id),
    reader: (id) => readers.get(id),
    uses: (id) => uses.get(id) ?? 0,
    name: (id) => reshape(lying(id), value(id).shape),
    declare: (id, result) => {
      declared.add(id)
      places.set(id, result)
    },
    isPlaced: (id) => places.has(id),
    isDeclared: (id) => declared.has(id),
    scalar: (value, kind = "real") => filled(value, kind, [])
  }
}

/** An elementwise operator. Where each operand has as many elements as the result, or is a number, as they lie. */
export const writeElementwise = (
  writer: Writer, op: string, { inputs, outputs }: Instruction,
  options: { readonly attributes?: Attributes; readonly domain?: string; readonly before?: string } = {}
): void => {
  const { lying, name, node, one, reshape, target, value } = writer
  const [output = -1] = outputs
  const count = elementCount(value(output).shape)
  const isNumber = (id: number): boolean => value(id).shape.length === 0
  const isInStep = inputs.every((id) => isNumber(id) || elementCount(value(id).shape) === count)
  const [first] = isInStep // as the operand with the fewest axes lies: products leave matrices
    ? inputs.filter((id) => !isNumber(id)).toSorted((x, y) => lying(x).shape.length - lying(y).shape.length) : []
  const result = target(output, first === undefined ? undefined : lying(first).shape)
  const operands = inputs.map((id) =>
    first === undefined || isNumber(id) ? name(id) : reshape(lying(id), result.shape))
  const { attributes, before, domain } = options
  const prepared = before === undefined ? operands : operands.map((operand) => one(before, [operand]))
  node(op, prepared, [result.name], attributes, domain)
}
