/**
 * Writes a positional program as an ONNX graph.
 *
 * One primitive becomes one operator, seldom a few; a composite that `Kernel` knows becomes its fused operator. Leaves and
 * results that are only reshaped are declared in the shape in which they are used, so that no reshape copies them.
 *
 * From     the operator definitions of ONNX opset 23 and of com.microsoft 1.
 * Checked  tensor/Primitive.test.ts and backend tests on this layer, against the float64 reference.
 * Departs  scatter uses ScatterElements: ScatterND with a reduction races on several threads. Random numbers are inputs.
 *
 * @module
 */
import type { Instruction, Lowered, Port, Primitive, Value } from "../../tensor/Instruction.ts"
import type { BinaryFunction, Kind, Relation, UnaryFunction } from "../../tensor/Node.ts"
import type { Precision } from "../Backend.ts"
import { kernels } from "./Kernel.ts"
import type { Attribute, ElementType, Graph, Initializer, Node } from "./ModelProto.ts"

/** An ONNX graph with the names of its ends. */
export interface Emitted {
  readonly graph: Graph
  /** Graph inputs by name, with the shape they are declared in. */
  readonly shapes: ReadonlyMap<string, ReadonlyArray<number>>
}

/** Writes nodes; `Kernel` gets it too. */
export interface Writer {
  readonly precision: Precision
  readonly lowered: Lowered
  /** The instruction that computes a value. */
  readonly producer: (value: number) => Instruction | undefined
  readonly name: (value: number) => string
  readonly value: (value: number) => Value
  /** A fresh name. */
  readonly fresh: () => string
  readonly node: (op: string, inputs: ReadonlyArray<string>, outputs: ReadonlyArray<string>, attributes?: Readonly<Record<string, Attribute>>, domain?: string) => void
  /** A node with one output of a fresh name, which is returned. */
  readonly one: (op: string, inputs: ReadonlyArray<string>, attributes?: Readonly<Record<string, Attribute>>, domain?: string) => string
  readonly longs: (values: ReadonlyArray<number>) => string
  readonly scalar: (value: number, kind?: Kind) => string
  readonly reshape: (name: string, shape: ReadonlyArray<number>) => string
}

/** The ONNX element type of a kind. */
export const elementType = (kind: Kind, precision: Precision): ElementType => kind === "real" ? precision : kind === "id" ? "i32" : "bool"

/** ONNX Runtime's own operators. */
export const microsoft = "com.microsoft"

const size = (shape: ReadonlyArray<number>): number => shape.reduce((product, extent) => product * extent, 1)

/** Graph names of the ends of a program. */
export const inputName = (port: Port): string => `input:${port.name}`
export const cellName = (port: Port): string => `cell:${port.name}`
export const outputName = (port: Port): string => `output:${port.name}`
export const writeName = (port: Port): string => `write:${port.name}`
export const watchName = (port: Port): string => `watch:${port.name}`

/** Emits a program. `constants` holds the bytes of cells that are frozen. */
export const emit = (lowered: Lowered, precision: Precision, constants: ReadonlyMap<string, Uint8Array>): Emitted => {
  const nodes: Array<Node> = []
  const initializers: Array<Initializer> = []
  const names = new Map<number, string>()
  const literals = new Map<string, string>()
  const shapes = new Map<string, ReadonlyArray<number>>()
  const producers = new Map<number, Instruction>()
  for (const instruction of lowered.instructions) for (const output of instruction.outputs) producers.set(output, instruction)
  const used = new Set([...lowered.instructions.flatMap(({ inputs }) => inputs), ...[...lowered.outputs, ...lowered.writes, ...lowered.watched].map(({ value }) => value)])

  let count = 0
  const fresh = (): string => `t${count++}`
  const node: Writer["node"] = (op, inputs, outputs, attributes, domain) => {
    nodes.push({ op, inputs, outputs, ...(attributes === undefined ? {} : { attributes }), ...(domain === undefined ? {} : { domain }) })
  }
  const one: Writer["one"] = (op, inputs, attributes, domain) => {
    const output = fresh()
    node(op, inputs, [output], attributes, domain)
    return output
  }
  const literal = (key: string, type: ElementType, sizes: ReadonlyArray<number>, bytes: () => Uint8Array): string => {
    const found = literals.get(key)
    if (found !== undefined) return found
    const name = `c${literals.size}`
    literals.set(key, name)
    initializers.push({ name, type, sizes, bytes: bytes() })
    return name
  }
  const longs = (values: ReadonlyArray<number>): string =>
    literal(`longs ${values.join()}`, "i64", [values.length], () => new Uint8Array(BigInt64Array.from(values.map(BigInt)).buffer))
  const filled = (value: number, kind: Kind, shape: ReadonlyArray<number>): string =>
    literal(`${kind} ${Object.is(value, -0) ? "-0" : value} ${shape.join()}`, elementType(kind, precision), shape, () => bytesOf(Array.from({ length: size(shape) }, () => value), kind, precision))
  const name = (value: number): string => names.get(value) ?? `v${value}`
  const value = (id: number): Value => lowered.values[id] ?? { shape: [], axes: [], kind: "real" }
  const reshape = (from: string, shape: ReadonlyArray<number>): string => one("Reshape", [from, longs(shape)], shape.includes(0) ? { allowzero: { int: 1 } } : undefined)
  const writer: Writer = { precision, lowered, producer: (id) => producers.get(id), name, value, fresh, node, one, longs, reshape, scalar: (x, kind = "real") => filled(x, kind, []) }

  // leaves: declared in the one shape they are reshaped to, if there is one
  const declared = new Set<number>()
  const declare = (port: Port, portName: string): Graph["inputs"][number] => {
    const { kind, shape } = value(port.value)
    const readers = lowered.instructions.filter(({ inputs }) => inputs.includes(port.value))
    const [reader] = readers
    const target = reader?.primitive._tag === "reshape" && readers.length === 1 ? reader.outputs[0] : undefined
    names.set(target ?? port.value, portName)
    if (target !== undefined) declared.add(target)
    const sizes = target === undefined ? shape : value(target).shape
    shapes.set(portName, sizes)
    return { name: portName, type: elementType(kind, precision), sizes }
  }
  const ends = new Set([...lowered.outputs, ...lowered.writes, ...lowered.watched].map(({ value: id }) => id))
  const inputs: Array<Graph["inputs"][number]> = []
  for (const port of lowered.inputs) if (used.has(port.value) && !ends.has(port.value)) inputs.push(declare(port, inputName(port)))
  for (const port of lowered.inputs) if (ends.has(port.value)) inputs.push(declarePlain(port, inputName(port)))
  for (const port of lowered.cells) {
    if (!used.has(port.value)) continue
    const bytes = constants.get(port.name)
    const declaration = ends.has(port.value) ? declarePlain(port, cellName(port)) : declare(port, cellName(port))
    if (bytes === undefined) inputs.push(declaration)
    else initializers.push({ ...declaration, bytes })
  }
  function declarePlain(port: Port, portName: string): Graph["inputs"][number] {
    const { kind, shape } = value(port.value)
    names.set(port.value, portName)
    shapes.set(portName, shape)
    return { name: portName, type: elementType(kind, precision), sizes: shape }
  }

  // results: computed under their own names, before a last reshape where there is one
  const results: Array<Graph["outputs"][number]> = []
  const late: Array<readonly [from: number, to: string]> = []
  const finish = (port: Port, portName: string): void => {
    const { kind, shape } = value(port.value)
    const producer = producers.get(port.value)
    const inner = producer?.primitive._tag === "reshape" ? producer.inputs[0] : undefined
    const free = (id: number): boolean => producers.has(id) && !names.has(id)
    const target = inner !== undefined && free(inner) && free(port.value) && producers.get(inner)?.primitive._tag !== "reshape" ? inner : port.value
    const sizes = target === port.value ? shape : value(target).shape
    if (free(target)) names.set(target, portName)
    else late.push([target, portName])
    shapes.set(portName, sizes)
    results.push({ name: portName, type: elementType(kind, precision), sizes })
  }
  for (const port of lowered.writes) finish(port, writeName(port))
  for (const port of lowered.outputs) finish(port, outputName(port))
  for (const port of lowered.watched) finish(port, watchName(port))

  for (const instruction of lowered.instructions) {
    if (instruction.outputs.every((id) => declared.has(id))) continue
    if (instruction.primitive._tag === "constant") {
      const [id] = instruction.outputs
      if (id === undefined) continue
      const { kind, shape } = value(id)
      const { elements } = instruction.primitive
      const constant = typeof elements === "number" ? filled(elements, kind, shape) : literal(`v${id}`, elementType(kind, precision), shape, () => bytesOf(elements, kind, precision))
      if (names.has(id)) node("Identity", [constant], [name(id)])
      else names.set(id, constant)
    } else emitInstruction(writer, instruction)
  }
  for (const [from, to] of late) node("Identity", [name(from)], [to])
  return { graph: { nodes, inputs, outputs: results, initializers }, shapes }
}

/** Elements in the width of a kind and precision. */
export const bytesOf = (elements: ArrayLike<number>, kind: Kind, precision: Precision): Uint8Array => {
  const array = kind === "real" ? (precision === "f32" ? Float32Array.from(elements) : Float64Array.from(elements)) : kind === "id" ? Int32Array.from(elements) : Uint8Array.from(elements)
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
}

/** A matrix product in float32: transposed operands and the scale are part of the operator. */
export const matmul = (primitive: Primitive & { readonly _tag: "matmul" }, inputs: ReadonlyArray<string>, output: string): Node => {
  const { scale, transposeLeft, transposeRight } = primitive
  if (!transposeLeft && !transposeRight && scale === 1) return { op: "MatMul", inputs, outputs: [output] }
  const attributes = { transA: { int: transposeLeft ? 1 : 0 }, transB: { int: transposeRight ? 1 : 0 }, alpha: { float: scale } }
  return { op: "FusedMatMul", inputs, outputs: [output], attributes, domain: microsoft }
}

const unaryOperators: Partial<Record<UnaryFunction, string>> = {
  exp: "Exp", log: "Log", sqrt: "Sqrt", reciprocal: "Reciprocal", sin: "Sin", cos: "Cos", tanh: "Tanh", sigmoid: "Sigmoid", abs: "Abs", sign: "Sign",
  floor: "Floor", negate: "Neg"
}
const binaryOperators: Record<BinaryFunction, string> = {
  add: "Add", subtract: "Sub", multiply: "Mul", divide: "Div", maximum: "Max", minimum: "Min", power: "Pow"
}
const relations: Record<Relation, string> = { equal: "Equal", less: "Less", lessEqual: "LessOrEqual" }
const onnxType: Record<Kind, (precision: Precision) => number> = { real: (precision) => precision === "f32" ? 1 : 11, id: () => 6, truth: () => 9 }

const emitInstruction = (writer: Writer, { inputs, outputs, primitive }: Instruction): void => {
  const { longs, name, node, one, precision, value } = writer
  const names = inputs.map(name)
  const [x = "", y = "", z = ""] = names
  const [xId = -1, yId = -1] = inputs
  const out = outputs.map(name)
  const [outId = -1] = outputs
  const { kind, shape } = value(outId)
  switch (primitive._tag) {
    case "constant":
      return
    case "unary": {
      const operator = unaryOperators[primitive.function]
      if (operator !== undefined) node(operator, [x], out)
      else if (primitive.function === "rsqrt") node("Reciprocal", [one("Sqrt", [x])], out)
      else node("Mul", [x, x], out)
      return
    }
    case "binary":
      return node(binaryOperators[primitive.function], [x, y], out)
    case "compare":
      return node(relations[primitive.relation], [x, y], out)
    case "logic":
      return node({ and: "And", or: "Or", not: "Not" }[primitive.function], names, out)
    case "select":
      return node("Where", [x, y, z], out)
    case "convert":
      return node("Cast", [x], out, { to: { int: onnxType[primitive.to](precision) } })
    case "reduce": {
      const from = writer.producer(xId)
      const everything = primitive.axes.length === value(xId).shape.length
      if (primitive.function === "sum" && everything && from?.primitive._tag === "unary" && from.primitive.function === "square") {
        return emitSumOfSquares(writer, from.inputs[0] ?? -1, out[0] ?? "")
      }
      return node(primitive.function === "sum" ? "ReduceSum" : "ReduceMax", [x, longs(primitive.axes)], out, { keepdims: { int: 0 } })
    }
    case "matmul": {
      const { scale, transposeLeft, transposeRight } = primitive
      if (precision === "f32") {
        const product = matmul(primitive, [x, y], out[0] ?? "")
        return node(product.op, product.inputs, product.outputs, product.attributes, product.domain)
      }
      const rank = value(xId).shape.length
      const swapped = { perm: { ints: rank === 3 ? [0, 2, 1] : [1, 0] } }
      const product = [transposeLeft ? one("Transpose", [x], swapped) : x, transposeRight ? one("Transpose", [y], swapped) : y]
      return scale === 1 ? node("MatMul", product, out) : node("Mul", [one("MatMul", product), writer.scalar(scale)], out)
    }
    case "transpose":
      return node("Transpose", [x], out, { perm: { ints: primitive.permutation } })
    case "reshape":
      return node("Reshape", [x, longs(shape)], out, shape.includes(0) ? { allowzero: { int: 1 } } : undefined)
    case "expand":
      return node("Expand", [x, longs(shape)], out)
    case "slice":
      return node("Slice", [x, longs([primitive.start]), longs([primitive.end]), longs([primitive.axis])], out)
    case "pad":
      return node("Pad", [x, longs([...shape.map((_, i) => i === primitive.axis ? primitive.before : 0), ...shape.map((_, i) => i === primitive.axis ? primitive.after : 0)])], out)
    case "concat":
      return node("Concat", names, out, { axis: { int: primitive.axis } })
    case "gather":
      return emitGather(writer, primitive, [xId, yId], outId)
    case "scatter":
      return emitScatter(writer, primitive, inputs, outId)
    case "topK": {
      const [values = "", ids = ""] = out
      const found = writer.fresh()
      node("TopK", [x, longs([primitive.count])], [values, found], { axis: { int: shape.length - 1 } })
      return node("Cast", [found], [ids], { to: { int: 6 } })
    }
    case "cumulativeSum":
      return node("CumSum", [x, longs([primitive.axis])], out, { reverse: { int: primitive.reverse ? 1 : 0 } })
    case "barrier": {
      if (y === "" || size(value(yId).shape) === 0) return node("Identity", [x], out)
      const first = one("Slice", [writer.reshape(y, [size(value(yId).shape)]), longs([0]), longs([1]), longs([0])])
      const other = value(yId).kind === kind ? first : one("Cast", [first], { to: { int: onnxType[kind](precision) } })
      return node("Where", [one("Equal", [first, first]), x, other], out)
    }
    case "composite":
      return kernels[primitive.composite.name]?.emit(writer, { inputs, outputs, primitive, place: "" }, primitive.composite, primitive.orders)
  }
}

/** Σ x²: of big arrays as many dot products of rows, which run on all threads and sum in parts. */
const emitSumOfSquares = ({ longs, name, node, one, precision, reshape, value }: Writer, x: number, output: string): void => {
  const { shape } = value(x)
  const total = size(shape)
  let columns = 1
  for (let axis = shape.length - 1; axis >= 0 && columns < 4096; axis--) columns *= shape[axis] ?? 1
  if (precision === "f64" || total < 65_536 || total === columns) {
    return node("ReduceSumSquare", [reshape(name(x), [total])], [output], { keepdims: { int: 0 } })
  }
  const rows = reshape(name(x), [total / columns, 1, columns])
  const dots = one("FusedMatMul", [rows, rows], { transB: { int: 1 } }, microsoft)
  node("ReduceSum", [dots, longs([0, 1, 2])], [output], { keepdims: { int: 0 } })
}

/** Batch, outer, indexed and inner extents of an indexed array. */
const extents = (shape: ReadonlyArray<number>, batch: number, axis: number): readonly [number, number, number, number] =>
  [size(shape.slice(0, batch)), size(shape.slice(batch, axis)), shape[axis] ?? 1, size(shape.slice(axis + 1))]

const emitGather = (writer: Writer, primitive: { readonly batch: number; readonly axis: number }, inputs: readonly [number, number], output: number): void => {
  const { longs, name, node, one, reshape, value } = writer
  const [x, ids] = inputs
  const { axis, batch } = primitive
  const { shape } = value(output)
  if (batch === 0) return node("Gather", [name(x), name(ids)], [name(output)], { axis: { int: axis } })
  const [b, outer, extent, inner] = extents(value(x).shape, batch, axis)
  const count = size(value(ids).shape.slice(batch))
  const index = (): string => one("Expand", [reshape(name(ids), [b, 1, count, 1]), longs([b, outer, count, inner])])
  const picked = outer === 1 && inner === 1
    ? one("GatherElements", [reshape(name(x), [b, extent]), reshape(name(ids), [b, count])], { axis: { int: 1 } })
    : one("GatherElements", [reshape(name(x), [b, outer, extent, inner]), index()], { axis: { int: 2 } })
  node("Reshape", [picked, longs(shape)], [name(output)], shape.includes(0) ? { allowzero: { int: 1 } } : undefined)
}

const emitScatter = (
  writer: Writer, primitive: { readonly batch: number; readonly axis: number; readonly mode: "set" | "add" }, inputs: ReadonlyArray<number>, output: number
): void => {
  const { longs, name, node, one, reshape, value } = writer
  const [base = -1, ids = -1, values = -1] = inputs
  const { axis, batch, mode } = primitive
  const [b, outer, extent, inner] = extents(value(base).shape, batch, axis)
  const count = size(value(ids).shape.slice(batch))
  const flat = b === 1 && outer === 1 // the common case: rows of a table
  const index = one("Expand", [reshape(name(ids), flat ? [count, 1] : [b, 1, count, 1]), longs(flat ? [count, inner] : [b, outer, count, inner])])
  const scattered = one("ScatterElements", [
    reshape(name(base), flat ? [extent, inner] : [b, outer, extent, inner]), index,
    reshape(name(values), flat ? [count, inner] : [b, outer, count, inner])
  ], { axis: { int: flat ? 0 : 2 }, reduction: { string: mode === "add" ? "add" : "none" } })
  const { shape } = value(output)
  node("Reshape", [scattered, longs(shape)], [name(output)], shape.includes(0) ? { allowzero: { int: 1 } } : undefined)
}
