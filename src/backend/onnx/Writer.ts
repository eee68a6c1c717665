/**
 * What writes the nodes of an ONNX graph: names of values, literals that are kept once, nodes with fresh names.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/Emit.
 *
 * @module
 */
import type { Instruction, Lowered, Primitive, Value } from "../../tensor/Instruction.ts"
import type { Kind } from "../../tensor/Node.ts"
import type { Precision } from "../Backend.ts"
import { type Attribute, elementCount, type ElementType, type Initializer, type Node } from "./ModelProto.ts"

/** Settings of an operator. */
export type Attributes = Readonly<Record<string, Attribute>>

/** Writes nodes of one graph. Values are indices into the lowered program, everything else goes by graph names. */
export interface Writer {
  readonly precision: Precision
  readonly nodes: Array<Node>
  readonly initializers: Array<Initializer>
  readonly value: (id: number) => Value
  /** The instruction that computes a value. */
  readonly producer: (id: number) => Instruction | undefined
  /** How many operands and results of the program a value is. */
  readonly uses: (id: number) => number
  /** The name of a value in the graph. */
  readonly name: (id: number) => string
  /** Decides the name of a value, which has none yet; and of an end of the graph the shape in which it is declared. */
  readonly call: (id: number, name: string, shape?: ReadonlyArray<number>) => void
  /** Whether the name of a value has been decided. */
  readonly isCalled: (id: number) => boolean
  /** The shape in which a value is declared, if it is an end of the graph. */
  readonly declared: (id: number) => ReadonlyArray<number> | undefined
  /** A name that nothing has. */
  readonly fresh: () => string
  readonly node: (
    op: string, inputs: ReadonlyArray<string>, outputs: ReadonlyArray<string>, attributes?: Attributes, domain?: string
  ) => void
  /** A node with one output, whose fresh name is returned. */
  readonly one: (op: string, inputs: ReadonlyArray<string>, attributes?: Attributes, domain?: string) => string
  /** A constant in the graph, kept once for each key. */
  readonly literal: (key: string, type: ElementType, shape: ReadonlyArray<number>, bytes: () => Uint8Array) => string
  readonly longs: (values: ReadonlyArray<number>) => string
  readonly scalar: (value: number, kind?: Kind) => string
  readonly filled: (value: number, kind: Kind, shape: ReadonlyArray<number>) => string
  /** A tensor in another shape, by a node only where there is not one already; never a reshape of a reshape. */
  readonly reshape: (name: string, from: ReadonlyArray<number>, to: ReadonlyArray<number>) => string
  /** Says that a value is what `name` holds, in whatever shape. */
  readonly give: (id: number, name: string, from: ReadonlyArray<number>) => void
}

/** ONNX Runtime's own operators. */
export const microsoft = "com.microsoft"

/** The ONNX element type of a kind. */
export const elementType = (kind: Kind, precision: Precision): ElementType =>
  kind === "real" ? precision : kind === "id" ? "i32" : "bool"

/** Elements in the width of a kind and precision. */
export const bytesOf = (elements: ArrayLike<number>, kind: Kind, precision: Precision): Uint8Array => {
  const Elements = kind === "id" ? Int32Array : kind === "truth" ? Uint8Array
    : precision === "f32" ? Float32Array : Float64Array
  return new Uint8Array(new Elements(elements).buffer)
}

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
export const makeWriter = (lowered: Lowered, precision: Precision): Writer => {
  const nodes: Array<Node> = []
  const initializers: Array<Initializer> = []
  const names = new Map<number, string>()
  const shapes = new Map<number, ReadonlyArray<number>>()
  const literals = new Map<string, string>()
  const producers = new Map(lowered.instructions.flatMap((instruction) =>
    instruction.outputs.map((output) => [output, instruction] as const)))

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
  const longs: Writer["longs"] = (values) =>
    literal(`longs ${values.join()}`, "i64", [values.length],
      () => new Uint8Array(BigInt64Array.from(values, BigInt).buffer))
  const filled: Writer["filled"] = (value, kind, shape) =>
    literal(`${kind} ${Object.is(value, -0) ? "-0" : value} ${shape.join()}`, elementType(kind, precision), shape,
      () => bytesOf(new Float64Array(elementCount(shape)).fill(value), kind, precision))
  const value: Writer["value"] = (id) => lowered.values[id] ?? { shape: [], axes: [], kind: "real" }
  const call: Writer["call"] = (id, name, shape) => {
    names.set(id, name)
    if (shape !== undefined) shapes.set(id, shape)
  }
  const origins = new Map<string, { readonly name: string; readonly shape: ReadonlyArray<number> }>()
  const reshapes = new Map<string, string>()
  const reshape: Writer["reshape"] = (name, from, to) => {
    const origin = origins.get(name) ?? { name, shape: from }
    if (origin.shape.join() === to.join()) return origin.name
    const key = `${origin.name} ${to.join()}`
    const known = reshapes.get(key)
    if (known !== undefined) return known
    const output = one("Reshape", [origin.name, longs(to)])
    origins.set(output, origin)
    reshapes.set(key, output)
    return output
  }
  const give: Writer["give"] = (id, given, from) => {
    const shape = shapes.get(id) ?? value(id).shape
    const name = names.get(id)
    if (name === undefined) call(id, reshape(given, from, shape))
    else if (from.join() === shape.join()) node("Identity", [given], [name])
    else node("Reshape", [origins.get(given)?.name ?? given, longs(shape)], [name])
  }
  return {
    precision, nodes, initializers, fresh, node, one, literal, longs, filled, value, call, reshape, give,
    producer: (id) => producers.get(id),
    uses: (id) => uses.get(id) ?? 0,
    name: (id) => names.get(id) ?? `v${id}`,
    isCalled: (id) => names.has(id),
    declared: (id) => shapes.get(id),
    scalar: (value, kind = "real") => filled(value, kind, [])
  }
}
