/**
 * The bytes of an ONNX model: a graph of operators written as a protobuf `ModelProto`.
 *
 * A varint is 7 bits a byte, lowest first · a message inside a message is its length, then its bytes. The length is
 * known only afterwards, so five bytes are kept for it and filled with a varint padded to that width, which every
 * protobuf reader accepts; nothing is ever moved or copied.
 *
 * From     onnx.proto3 of ONNX (IR version 10); com.microsoft is ONNX Runtime's own domain of fused operators.
 * Checked  test/backend/onnx/ModelProto (an independent reader gives the graph back; ONNX Runtime runs it).
 * Departs  writes the subset Cria needs: dense tensors as raw bytes, fixed sizes, no external data, no functions.
 *
 * @module
 */

/** Number formats an ONNX tensor may have here; `f16` and `bf16` are two-byte patterns, `bool` is one byte. */
export type ElementType = "f32" | "f64" | "i32" | "i64" | "bool" | "u8" | "f16" | "bf16" | "i8"

/** What ONNX calls each element type (`TensorProto.DataType`), and how many bytes one element takes. */
export const elements: { readonly [T in ElementType]: { readonly code: number; readonly bytes: number } } = {
  f32: { code: 1, bytes: 4 },
  u8: { code: 2, bytes: 1 },
  i8: { code: 3, bytes: 1 },
  i32: { code: 6, bytes: 4 },
  i64: { code: 7, bytes: 8 },
  bool: { code: 9, bytes: 1 },
  f16: { code: 10, bytes: 2 },
  f64: { code: 11, bytes: 8 },
  bf16: { code: 16, bytes: 2 }
}

/** Every element type. */
export const elementTypes: ReadonlyArray<ElementType> = ["f32", "f64", "i32", "i64", "bool", "u8", "f16", "bf16", "i8"]

/** The element type with this ONNX code, if it is one of ours. */
export const elementTypeOf = (code: number): ElementType | undefined =>
  elementTypes.find((type) => elements[type].code === code)

/** How many elements a tensor of these sizes has; a scalar (no sizes) has one. */
export const elementCount = (sizes: ReadonlyArray<number>): number => sizes.reduce((product, size) => product * size, 1)

/** A constant: little-endian bytes in row-major order. */
export interface Tensor {
  readonly type: ElementType
  readonly sizes: ReadonlyArray<number>
  readonly bytes: Uint8Array
}

/** The name, element type and fixed sizes of a graph's input or output. */
export interface Value {
  readonly name: string
  readonly type: ElementType
  readonly sizes: ReadonlyArray<number>
}

/** A named constant of a graph. */
export interface Initializer extends Value {
  readonly bytes: Uint8Array
}

/** A setting of an operator; the key says which kind. Integers are 64-bit and must be safe integers. */
export type Attribute =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly ints: ReadonlyArray<number> }
  | { readonly floats: ReadonlyArray<number> }
  | { readonly string: string }
  | { readonly tensor: Tensor }
  | { readonly graph: Graph }

/** One operator; an empty name stands for an optional input or output left out. */
export interface Node {
  readonly op: string
  readonly inputs: ReadonlyArray<string>
  readonly outputs: ReadonlyArray<string>
  readonly attributes?: Readonly<Record<string, Attribute>>
  /** `com.microsoft` for ONNX Runtime's own operators. */
  readonly domain?: string
}

/** Operators in an order where every name is produced before it is used. A subgraph may use its parent's names. */
export interface Graph {
  readonly name?: string
  readonly nodes: ReadonlyArray<Node>
  readonly inputs: ReadonlyArray<Value>
  readonly outputs: ReadonlyArray<Value>
  readonly initializers: ReadonlyArray<Initializer>
}

/**
 * A graph as the bytes of a model file, for opset 23 unless told otherwise (the `Random*` operators need ≤ 21).
 *
 * Throws a `RangeError` for what ONNX cannot say: an attribute beyond 64-bit integers, a constant whose bytes do not
 * fill its sizes. What the operators mean is for the engine to judge when it loads the model.
 */
export const encodeModel = (graph: Graph, options: { readonly opset?: number } = {}): Uint8Array => {
  const constants = graph.initializers.reduce((total, constant) => total + constant.bytes.length, 0)
  const writer: Writer = { bytes: new Uint8Array(constants + 128 * graph.nodes.length + 1024), length: 0 }
  integer(writer, 1, 10)
  text(writer, 2, "cria")
  message(writer, 7, () => writeGraph(writer, graph))
  for (const [domain, version] of [["", options.opset ?? 23], ["com.microsoft", 1]] as const) {
    message(writer, 8, () => {
      text(writer, 1, domain)
      integer(writer, 2, version)
    })
  }
  return writer.bytes.subarray(0, writer.length)
}

const writeGraph = (writer: Writer, graph: Graph): void => {
  for (const node of graph.nodes) message(writer, 1, () => writeNode(writer, node))
  text(writer, 2, graph.name ?? "graph")
  for (const constant of graph.initializers) {
    message(writer, 5, () => writeTensor(writer, constant, constant.name))
  }
  for (const input of graph.inputs) message(writer, 11, () => writeValue(writer, input))
  for (const output of graph.outputs) message(writer, 12, () => writeValue(writer, output))
}

const writeNode = (writer: Writer, node: Node): void => {
  for (const input of node.inputs) text(writer, 1, input)
  for (const output of node.outputs) text(writer, 2, output)
  text(writer, 3, node.outputs.find((output) => output !== "") ?? node.op) // the engine's errors quote this name
  text(writer, 4, node.op)
  for (const name in node.attributes) {
    const attribute = node.attributes[name]
    if (attribute !== undefined) message(writer, 5, () => writeAttribute(writer, name, attribute, node))
  }
  if (node.domain !== undefined) text(writer, 7, node.domain)
}

const writeAttribute = (writer: Writer, name: string, attribute: Attribute, node: Node): void => {
  text(writer, 1, name)
  if ("int" in attribute) {
    integer(writer, 3, int64(attribute.int, name, node))
    integer(writer, 20, 2)
  } else if ("float" in attribute) {
    float(writer, 2, attribute.float)
    integer(writer, 20, 1)
  } else if ("ints" in attribute) {
    for (const value of attribute.ints) integer(writer, 8, int64(value, name, node))
    integer(writer, 20, 7)
  } else if ("floats" in attribute) {
    for (const value of attribute.floats) float(writer, 7, value)
    integer(writer, 20, 6)
  } else if ("string" in attribute) {
    text(writer, 4, attribute.string)
    integer(writer, 20, 3)
  } else if ("tensor" in attribute) {
    message(writer, 5, () => writeTensor(writer, attribute.tensor, ""))
    integer(writer, 20, 4)
  } else {
    message(writer, 6, () => writeGraph(writer, attribute.graph))
    integer(writer, 20, 5)
  }
}

const int64 = (value: number, name: string, node: Node): number => {
  if (Number.isSafeInteger(value)) return value
  throw new RangeError(
    `attribute ${name} of ${node.op} (${node.outputs.join(", ")}) must be an integer below 2^53 in size, not ${value}`
      + `: write { float: ${value} } where the operator takes a float`
  )
}

const writeTensor = (writer: Writer, tensor: Tensor, name: string): void => {
  const { bytes, sizes, type } = tensor
  const expected = elementCount(sizes) * elements[type].bytes
  if (bytes.length !== expected) {
    throw new RangeError(
      `constant ${name}: ${type} [${sizes.join(", ")}] takes ${expected} bytes, not ${bytes.length}`
        + `: pass the bytes of the whole tensor (new Uint8Array(data.buffer, data.byteOffset, data.byteLength))`
    )
  }
  for (const size of sizes) integer(writer, 1, size)
  integer(writer, 2, elements[type].code)
  if (name !== "") text(writer, 8, name)
  raw(writer, 9, bytes)
}

const writeValue = (writer: Writer, value: Value): void => {
  text(writer, 1, value.name)
  message(writer, 2, () =>
    message(writer, 1, () => {
      integer(writer, 1, elements[value.type].code)
      message(writer, 2, () => {
        for (const size of value.sizes) message(writer, 1, () => integer(writer, 1, size))
      })
    }))
}

/** Protobuf's wire format: one buffer that grows, and its length so far. */
interface Writer {
  bytes: Uint8Array
  length: number
}

const encoder = new TextEncoder()
const floatBytes = new DataView(new ArrayBuffer(4))

const reserve = (writer: Writer, count: number): void => {
  const needed = writer.length + count
  if (needed <= writer.bytes.length) return
  const grown = new Uint8Array(Math.max(2 * writer.bytes.length, needed))
  grown.set(writer.bytes.subarray(0, writer.length))
  writer.bytes = grown
}

/** A 64-bit two's complement integer, as two 32-bit halves: −1 is ten bytes, as protobuf wants, without BigInt. */
const varint = (writer: Writer, value: number): void => {
  reserve(writer, 10)
  let low = value >>> 0
  let high = Math.floor(value / 4294967296) >>> 0
  while (high !== 0 || low > 127) {
    writer.bytes[writer.length++] = (low & 127) | 128
    low = ((low >>> 7) | (high << 25)) >>> 0
    high >>>= 7
  }
  writer.bytes[writer.length++] = low
}

const tag = (writer: Writer, field: number, wire: number): void => varint(writer, field * 8 + wire)

const integer = (writer: Writer, field: number, value: number): void => {
  tag(writer, field, 0)
  varint(writer, value)
}

const float = (writer: Writer, field: number, value: number): void => {
  tag(writer, field, 5)
  reserve(writer, 4)
  floatBytes.setFloat32(0, value, true)
  for (let i = 0; i < 4; i++) writer.bytes[writer.length++] = floatBytes.getUint8(i)
}

const raw = (writer: Writer, field: number, bytes: Uint8Array): void => {
  tag(writer, field, 2)
  varint(writer, bytes.length)
  reserve(writer, bytes.length)
  writer.bytes.set(bytes, writer.length)
  writer.length += bytes.length
}

const text = (writer: Writer, field: number, value: string): void => {
  const start = writer.length
  tag(writer, field, 2)
  varint(writer, value.length)
  reserve(writer, value.length)
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i)
    if (code > 127) { // not ASCII after all: start again with the real encoder
      writer.length = start
      return raw(writer, field, encoder.encode(value))
    }
    writer.bytes[writer.length++] = code
  }
}

const message = (writer: Writer, field: number, write: () => void): void => {
  tag(writer, field, 2)
  reserve(writer, 5)
  writer.length += 5
  const start = writer.length
  write()
  let size = writer.length - start
  for (let i = start - 5; i < start - 1; i++) {
    writer.bytes[i] = (size & 127) | 128
    size >>>= 7
  }
  writer.bytes[start - 1] = size
}
