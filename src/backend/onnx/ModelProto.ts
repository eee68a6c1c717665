/**
 * The bytes of an ONNX model: a graph of operators written as a protobuf `ModelProto`.
 *
 * Five bytes are kept for the length of every message, so that nothing, and no constant above all, is ever moved.
 *
 * From     onnx.proto3 of ONNX (IR version 10); com.microsoft is ONNX Runtime's own domain of fused operators.
 * Checked  test/backend/onnx/ModelProto.test.ts (an independent reader gives the graph back; ONNX Runtime runs it).
 * Departs  writes the subset Cria needs: dense tensors as raw bytes, here or in a file beside, fixed sizes, no
 *          functions.
 *
 * @module
 */
import { type Writer, writeBytes, writeFloat, writeInt, writeMessage, writer as makeWriter, writeText } from
  "../../format/Protobuf.ts"

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

/** A named constant of a graph whose bytes stand in another file, beside that of the model, at its start by default. */
export interface External extends Value {
  readonly location: string
  readonly offset?: number
  readonly length?: number
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
  readonly externals?: ReadonlyArray<External>
}

/**
 * A graph as the bytes of a model file, for opset 23 unless told otherwise (the `Random*` operators need ≤ 21).
 *
 * Throws a `RangeError` for what ONNX cannot say: an attribute beyond 64-bit integers, a constant whose bytes do not
 * fill its sizes. What the operators mean is for the engine to judge when it loads the model.
 */
export const encodeModel = (graph: Graph, options: { readonly opset?: number } = {}): Uint8Array => {
  const constants = graph.initializers.reduce((total, constant) => total + constant.bytes.length, 0)
  const writer = makeWriter(constants + 128 * graph.nodes.length + 1024)
  writeInt(writer, 1, 10)
  writeText(writer, 2, "cria")
  writeNested(writer, 7, () => writeGraph(writer, graph))
  const own = new Set(graph.nodes.flatMap(({ domain = "com.microsoft" }) => domain === "com.microsoft" ? [] : [domain]))
  const domains = ["com.microsoft", ...own].map((domain) => [domain, 1] as const)
  for (const [domain, version] of [["", options.opset ?? 23] as const, ...domains]) {
    writeNested(writer, 8, () => {
      writeText(writer, 1, domain)
      writeInt(writer, 2, version)
    })
  }
  return writer.bytes.subarray(0, writer.length)
}

const writeGraph = (writer: Writer, graph: Graph): void => {
  for (const node of graph.nodes) writeNested(writer, 1, () => writeNode(writer, node))
  writeText(writer, 2, graph.name ?? "graph")
  for (const constant of graph.initializers) {
    writeNested(writer, 5, () => writeTensor(writer, constant, constant.name))
  }
  for (const constant of graph.externals ?? []) writeNested(writer, 5, () => writeExternal(writer, constant))
  for (const input of graph.inputs) writeNested(writer, 11, () => writeValue(writer, input))
  for (const output of graph.outputs) writeNested(writer, 12, () => writeValue(writer, output))
}

const writeNode = (writer: Writer, node: Node): void => {
  for (const input of node.inputs) writeText(writer, 1, input)
  for (const output of node.outputs) writeText(writer, 2, output)
  writeText(writer, 3, node.outputs.find((output) => output !== "") ?? node.op) // the engine's errors quote this name
  writeText(writer, 4, node.op)
  for (const name in node.attributes) {
    const attribute = node.attributes[name]
    if (attribute !== undefined) writeNested(writer, 5, () => writeAttribute(writer, name, attribute, node))
  }
  if (node.domain !== undefined) writeText(writer, 7, node.domain)
}

const writeAttribute = (writer: Writer, name: string, attribute: Attribute, node: Node): void => {
  writeText(writer, 1, name)
  if ("int" in attribute) {
    writeInt(writer, 3, int64(attribute.int, name, node))
    writeInt(writer, 20, 2)
  } else if ("float" in attribute) {
    writeFloat(writer, 2, attribute.float)
    writeInt(writer, 20, 1)
  } else if ("ints" in attribute) {
    for (const value of attribute.ints) writeInt(writer, 8, int64(value, name, node))
    writeInt(writer, 20, 7)
  } else if ("floats" in attribute) {
    for (const value of attribute.floats) writeFloat(writer, 7, value)
    writeInt(writer, 20, 6)
  } else if ("string" in attribute) {
    writeText(writer, 4, attribute.string)
    writeInt(writer, 20, 3)
  } else if ("tensor" in attribute) {
    writeNested(writer, 5, () => writeTensor(writer, attribute.tensor, ""))
    writeInt(writer, 20, 4)
  } else {
    writeNested(writer, 6, () => writeGraph(writer, attribute.graph))
    writeInt(writer, 20, 5)
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
  for (const size of sizes) writeInt(writer, 1, size)
  writeInt(writer, 2, elements[type].code)
  if (name !== "") writeText(writer, 8, name)
  writeBytes(writer, 9, bytes)
}

const writeExternal = (writer: Writer, { length, location, name, offset, sizes, type }: External): void => {
  for (const size of sizes) writeInt(writer, 1, size)
  writeInt(writer, 2, elements[type].code)
  writeText(writer, 8, name)
  for (const [key, value] of Object.entries({ location, offset, length })) {
    if (value !== undefined) writeNested(writer, 13, () => {
      writeText(writer, 1, key)
      writeText(writer, 2, String(value))
    })
  }
  writeInt(writer, 14, 1) // the bytes are external
}

const writeValue = (writer: Writer, value: Value): void => {
  writeText(writer, 1, value.name)
  writeNested(writer, 2, () =>
    writeNested(writer, 1, () => {
      writeInt(writer, 1, elements[value.type].code)
      writeNested(writer, 2, () => {
        for (const size of value.sizes) writeNested(writer, 1, () => writeInt(writer, 1, size))
      })
    }))
}

/** Bytes of a message's length: enough for any, so that no body moves. */
const lengthBytes = 5

const writeNested = (writer: Writer, field: number, body: () => void): void =>
  writeMessage(writer, field, body, lengthBytes)
