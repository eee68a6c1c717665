/**
 * Writes a positional program as an ONNX graph.
 *
 * Leaves and results that are only reshaped are declared in the shape in which they are used and computed, so that no
 * reshape copies them. On the processor a cell that becomes zeros with something put in is itself the zeros: whoever
 * runs the graph clears it first, which is quicker than copying zeros. What no result needs is left out.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/Emit.test.ts; test/backend/onnx/OnnxRuntime.test.ts.
 *
 * @module
 */
import type { Instruction, Lowered, Port } from "../../tensor/Instruction.ts"
import type { Precision } from "../Backend.ts"
import { kernels } from "./Kernel.ts"
import type { MachineOperator } from "./MachineOperator.ts"
import type { ElementType, Graph, Node, Value } from "./ModelProto.ts"
import { productSum, writeInstruction } from "./Operator.ts"
import { elementType, type Machine, makeWriter, type Writer } from "./Writer.ts"

/** An ONNX graph, and what is known of its names. */
export interface Emitted {
  readonly graph: Graph
  /** The shape in which each input, cell and result is declared, by graph name. */
  readonly shapes: ReadonlyMap<string, ReadonlyArray<number>>
  /** Operators of our own that the graph has. */
  readonly operators: ReadonlyArray<MachineOperator>
  /** Cells that must be all zeros when a run begins. */
  readonly cleared: ReadonlyArray<string>
  /** The instruction that each node belongs to, as text, by the name of the node's first output. */
  readonly places: ReadonlyMap<string, string>
}

// Every name that a user gave gets a role and a colon, which no name that the graph makes for itself has.

/** The graph's name of an input. */
export const inputName = (port: Port): string => `input:${port.name}`
/** The graph's name of a cell's value when a run begins. */
export const cellName = (port: Port): string => `cell:${port.name}`
/** The graph's name of an output. */
export const outputName = (port: Port): string => `output:${port.name}`
/** The graph's name of a cell's value when a run ends. */
export const writeName = (port: Port): string => `write:${port.name}`
/** The graph's name of a watched value. */
export const watchName = (port: Port): string => `watch:${port.name}`

/**
 * Emits a program. `constants` holds the bytes of cells that are frozen; cells on a device are not cleared. With
 * `machine` some products are operators of our own, of which the graph then names some.
 */
export const emit = (
  lowered: Lowered, precision: Precision, constants: ReadonlyMap<string, Uint8Array>, provider = "cpu",
  machine?: Omit<Machine, "frozen">
): Emitted => {
  const frozenCells = new Map<string, Uint8Array>(lowered.cells.flatMap((port) => {
    const bytes = constants.get(port.name)
    return bytes === undefined ? [] : [[cellName(port), bytes]]
  }))
  const writer = makeWriter(lowered, precision, provider, machine === undefined ? undefined : {
    ...machine, frozen: (name) => frozenCells.get(name)
  })
  const ends: ReadonlyArray<readonly [Port, string]> = [
    ...lowered.writes.map((port) => [port, writeName(port)] as const),
    ...lowered.outputs.map((port) => [port, outputName(port)] as const),
    ...lowered.watched.map((port) => [port, watchName(port)] as const)
  ]
  const isConstant = ({ name }: Port): boolean => constants.has(name)
  const leaves = declareLeaves(lowered, writer, new Set(ends.map(([{ value }]) => value)), isConstant)
  const cleared = provider === "cpu" ? declareCleared(lowered, writer) : []
  const given = new Set([...leaves.reshaped, ...cleared.map(({ zeros }) => zeros)])
  const results = ends.map(([port, name]) => nameResult(writer, port, name))
  const places = new Map<string, string>()
  for (const instruction of lowered.instructions) {
    if (instruction.outputs.every((id) => given.has(id))) continue
    const before = writer.nodes.length
    writeInstruction(writer, instruction)
    const { place, primitive } = instruction
    const operation = primitive._tag === "composite" ? primitive.composite.name : primitive._tag
    const text = place === "" ? operation : `${operation}, in ${place}`
    for (const { outputs } of writer.nodes.slice(before)) places.set(outputs[0] ?? "", text)
  }
  for (const { copyOf, name } of results) {
    if (copyOf !== undefined) writer.node("Identity", [writer.name(copyOf)], [name])
  }
  const outputs = results.map(({ name, sizes, type }): Value => ({ name, sizes, type }))
  const frozen = leaves.cells.flatMap(({ port, value }) => {
    const bytes = constants.get(port.name)
    return bytes === undefined ? [] : [{ ...value, bytes }]
  })
  const cells = leaves.cells.filter(({ port }) => !constants.has(port.name))
  const inputs = [...leaves.inputs, ...cells, ...cleared].map(({ value }) => value)
  const nodes = needed(writer.nodes, outputs.map(({ name }) => name))
  const read = new Set(nodes.flatMap(readsOf))
  return {
    graph: {
      nodes, inputs, outputs, initializers: [...frozen, ...writer.initializers].filter(({ name }) => read.has(name))
    },
    operators: [...writer.operators.values()],
    shapes: new Map([...inputs, ...frozen, ...outputs].map(({ name, sizes }) => [name, sizes])),
    cleared: cleared.map(({ port }) => port.name),
    places
  }
}

interface Leaf {
  readonly port: Port
  readonly value: Value
}

interface Leaves {
  readonly inputs: ReadonlyArray<Leaf>
  readonly cells: ReadonlyArray<Leaf>
  /** Reshapes of leaves that need no node, for the leaf is declared in that shape. */
  readonly reshaped: ReadonlySet<number>
}

/** Declares the leaves that are used: in the one shape in which they are read, where nothing sees another. */
const declareLeaves = (
  { cells, inputs, instructions }: Lowered, writer: Writer, ends: ReadonlySet<number>,
  isConstant: (port: Port) => boolean
): Leaves => {
  const readers = new Map<number, Set<number>>()
  instructions.forEach(({ inputs }, index) => {
    for (const id of inputs) readers.set(id, (readers.get(id) ?? new Set()).add(index))
  })
  const reshaped = new Set<number>()
  const declare = (port: Port, name: string): Leaf => {
    const [index = -1, ...others] = readers.get(port.value) ?? []
    const reader = instructions[index]
    const target = reader?.primitive._tag === "reshape" && others.length === 0 && !ends.has(port.value)
      ? reader.outputs[0] ?? port.value
      : port.value
    if (target !== port.value) reshaped.add(target)
    const { kind, shape: own } = writer.value(target)
    const isReadOnce = others.length === 0 && !ends.has(port.value)
    const shape = isReadOnce ? shapeRead(reader, port.value, own) : own
    const type = isReadOnce && isConstant(port) ? typeRead(reader, port.value) : undefined
    writer.give(target, { name, shape, ...type === undefined ? {} : { type } })
    return { port, value: { name, type: type ?? elementType(kind, writer.precision), sizes: shape } }
  }
  const isUsed = ({ value }: Port): boolean => readers.has(value) || ends.has(value)
  return {
    inputs: inputs.filter(isUsed).map((port) => declare(port, inputName(port))),
    cells: cells.filter(isUsed).map((port) => declare(port, cellName(port))),
    reshaped
  }
}

/** The shape in which a fused operator reads its operand. */
const shapeRead = (
  reader: Instruction | undefined, operand: number, shape: ReadonlyArray<number>
): ReadonlyArray<number> =>
  reader?.primitive._tag === "composite"
    ? kernels[reader.primitive.composite.name]?.reads?.(shape, reader.inputs.indexOf(operand)) ?? shape
    : shape

/** The type in which a fused operator reads a constant, where it is another than that of its kind. */
const typeRead = (reader: Instruction | undefined, operand: number): ElementType | undefined =>
  reader?.primitive._tag === "composite"
    ? kernels[reader.primitive.composite.name]?.readsAs?.(reader.inputs.indexOf(operand)) : undefined

/** The shape in which a fused operator writes its result. */
const shapeWritten = (
  made: Instruction | undefined, result: number, shape: ReadonlyArray<number>
): ReadonlyArray<number> =>
  made?.primitive._tag === "composite"
    ? kernels[made.primitive.composite.name]?.writes?.(shape, made.outputs.indexOf(result)) ?? shape
    : shape

interface Cleared extends Leaf {
  /** The value that the cell stands for. */
  readonly zeros: number
}

/** Declares the cells that nothing reads and whose new value is zeros with something put in, as those zeros. */
const declareCleared = ({ cells, writes }: Lowered, writer: Writer): ReadonlyArray<Cleared> =>
  writes.flatMap(({ name, value: result }): ReadonlyArray<Cleared> => {
    const { producer, uses, value } = writer
    const made = producer(result)
    const [zeros = -1] = made?.primitive._tag === "scatter" ? made.inputs : []
    const spread = producer(zeros)
    const [number = -1] = spread?.primitive._tag === "expand" ? spread.inputs : []
    const zero = producer(number)?.primitive
    const port = cells.find((cell) => cell.name === name)
    const { kind, shape } = value(zeros)
    const isZeros = zero?._tag === "constant" && Object.is(zero.elements, 0) && uses(zeros) === 1
    if (port === undefined || !isZeros || uses(port.value) > 0) return []
    if (value(port.value).shape.join() !== shape.join()) return []
    writer.give(zeros, { name: cellName(port), shape })
    return [{ port, zeros, value: { name: cellName(port), type: elementType(kind, writer.precision), sizes: shape } }]
  })

/** A result of the graph; `copyOf` where its value has another name and must be copied. */
interface Result extends Value {
  readonly copyOf: number | undefined
}

/** Has a result computed under its own name, before the reshapes that end it, and in the shape of a last product. */
const nameResult = (writer: Writer, port: Port, name: string): Result => {
  const isFree = (id: number): boolean => writer.producer(id) !== undefined && !writer.isPlaced(id)
  let target = port.value
  let isOnlyResult = writer.uses(target) === 1
  for (;;) {
    const last = writer.producer(target)
    const [inner = -1] = last?.primitive._tag === "reshape" ? last.inputs : []
    if (!isFree(target) || !isFree(inner)) break
    target = inner
    isOnlyResult &&= writer.uses(target) === 1
  }
  const copyOf = isFree(target) ? undefined : target
  const { kind, shape } = writer.value(target)
  const sizes = copyOf !== undefined ? shape
    : (isOnlyResult ? productSum(writer, target)?.shape : undefined) ??
      shapeWritten(writer.producer(target), target, shape)
  if (copyOf === undefined) writer.declare(target, { name, shape: sizes })
  return { name, type: elementType(kind, writer.precision), sizes, copyOf }
}

/** All names that a node reads, its subgraphs' too; an operand that is left out has none. */
export const readsOf = (node: Node): ReadonlyArray<string> => [
  ...node.inputs.filter((name) => name !== ""),
  ...Object.values(node.attributes ?? {}).flatMap((attribute) =>
    "graph" in attribute ? attribute.graph.nodes.flatMap(readsOf) : [])
]

/** The nodes that some names depend on. */
const needed = (nodes: ReadonlyArray<Node>, names: ReadonlyArray<string>): ReadonlyArray<Node> => {
  const used = new Set(names)
  return nodes.toReversed().filter((node) => {
    if (!node.outputs.some((output) => used.has(output))) return false
    readsOf(node).forEach((name) => used.add(name))
    return true
  }).reverse()
}
