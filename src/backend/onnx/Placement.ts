/**
 * Which cells of a graph can be replaced where they lie.
 *
 * A cell's new value may be written over the old one only where every other reader of the old value is an ancestor of
 * the writer: then no order in which the engine may run the graph reads what is already overwritten. The writer itself
 * may read the old value element by element, scatter into it, or add a product to it.
 *
 * The engine also fuses neighbours (a product and a sum, x and its logistic function), and a fused operator may read an
 * operand again after it began to write. So of the old value at most one reader may stand near the writer, and from
 * there to the writer all must be elementwise.
 *
 * On a device only what nothing reads is replaced, and what a scatter is put into: no other operator is known to bear
 * that an operand and its result are one piece of memory (WebGPU forbids it).
 *
 * From     Cria's own; both hazards were seen (an aliased parameter that another operator still read gave wrong
 *          gradients; a matrix product written over its operand is silently wrong).
 * Checked  test/backend/onnx/Placement.test.ts (what is decided, and against the reference).
 *
 * @module
 */
import type { Port } from "../../tensor/Instruction.ts"
import { cellName, readsOf, writeName } from "./Emit.ts"
import type { Graph, Node } from "./ModelProto.ts"

/** Names of the written cells, by whether the new value may lie where the old one does. */
export interface Placement {
  readonly inPlace: ReadonlyArray<string>
  readonly copied: ReadonlyArray<string>
}

const elementwise: ReadonlySet<string> = new Set([
  "Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Tanh", "Sigmoid",
  "Abs", "Sign", "Floor", "Neg", "Where", "And", "Or", "Not"
])

/** The same elements in the same order: the engine may or may not copy them. */
const renaming: ReadonlySet<string> = new Set(["Identity", "Reshape"])

/** How far upstream of the writer a fusion could begin, at a product or at anything else: beyond any that is known. */
const reach = { product: 4, other: 8 }

const reachOf = ({ op }: Node): number =>
  elementwise.has(op) || op.startsWith("Reduce") ? reach.other : reach.product

/** Decides for every written cell. */
export const placement = (graph: Graph, writes: ReadonlyArray<Port>, isOnDevice = false): Placement => {
  const links = linksOf(graph)
  const isSafe = (port: Port): boolean => {
    const writer = links.producers.get(writeName(port))
    if (writer === undefined) return false
    const names = namesOf(links, cellName(port), writer)
    const readers = new Set([...names].flatMap((name) => links.readers.get(name) ?? []))
    if (readers.size === 0) return true
    if (isOnDevice && !(writer.op.startsWith("Scatter") && addsTo(writer, writeName(port), names))) return false
    if ([...readers].every((reader) => reader === writer || isRenamedFor(links, reader, writer))) {
      return addsTo(writer, writeName(port), names) || elementwise.has(writer.op) || renaming.has(writer.op)
    }
    const upstream = ancestorsOf(links, writer)
    if (![...readers].every((reader) => upstream.has(reader))) return false
    const near = [...readers].filter((reader) =>
      !renaming.has(reader.op) && (upstream.get(reader) ?? 0) <= reachOf(reader))
    return near.length <= 1 && near.every((reader) => reader === writer && addsTo(writer, writeName(port), names) ||
      [...between(links, reader, upstream)].every(({ op }) => elementwise.has(op) || renaming.has(op)))
  }
  const decided = writes.map((port) => [port.name, isSafe(port)] as const)
  const named = (safe: boolean): ReadonlyArray<string> => decided.flatMap(([name, is]) => is === safe ? [name] : [])
  return { inPlace: named(true), copied: named(false) }
}

interface Links {
  readonly producers: ReadonlyMap<string, Node>
  readonly readers: ReadonlyMap<string, ReadonlyArray<Node>>
}

const linksOf = ({ nodes }: Graph): Links => {
  const readers = new Map<string, Array<Node>>()
  for (const node of nodes) {
    for (const name of new Set(readsOf(node))) {
      const known = readers.get(name)
      if (known === undefined) readers.set(name, [node])
      else known.push(node)
    }
  }
  return { producers: new Map(nodes.flatMap((node) => node.outputs.map((output) => [output, node] as const))), readers }
}

/** A node that only renames, and for nothing but the writer. */
const isRenamedFor = ({ readers }: Links, { op, outputs }: Node, writer: Node): boolean =>
  renaming.has(op) && outputs.every((output) => {
    const next = readers.get(output) ?? []
    return next.length > 0 && next.every((reader) => reader === writer)
  })

/** The operand that an operator overwrites where its result lies there, for each of its outputs. */
const bases: Readonly<Record<string, ReadonlyArray<number | undefined>>> = {
  ScatterElements: [0], ScatterND: [0], Gemm: [2], GroupQueryAttention: [undefined, 3, 4]
}

/** The writer only adds to the old value (a scatter, a product, a place of a cache), and reads it for nothing else. */
const addsTo = ({ inputs, op, outputs }: Node, result: string, names: ReadonlySet<string>): boolean => {
  const base = bases[op]?.[outputs.indexOf(result)]
  return inputs.every((input, i) => names.has(input) === (i === base))
}

/** The names under which the old value of a cell goes, as far as the writer. */
const namesOf = ({ readers }: Links, cell: string, writer: Node): ReadonlySet<string> => {
  const names = new Set([cell])
  for (const name of names) { // grows while it is walked
    for (const node of readers.get(name) ?? []) {
      if (node !== writer && renaming.has(node.op) && node.inputs[0] === name) {
        node.outputs.forEach((output) => names.add(output))
      }
    }
  }
  return names
}

/** The ancestors of a node, itself at 0, with the number of steps to each. */
const ancestorsOf = ({ producers }: Links, node: Node): ReadonlyMap<Node, number> => {
  const found = new Map([[node, 0]])
  for (const [next, distance] of found) { // grows while it is walked, the nearest first
    for (const name of readsOf(next)) {
      const producer = producers.get(name)
      if (producer !== undefined && !found.has(producer)) found.set(producer, distance + 1)
    }
  }
  return found
}

/** The nodes from a reader to the writer, both included. */
const between = ({ readers }: Links, reader: Node, upstream: ReadonlyMap<Node, number>): ReadonlySet<Node> => {
  const found = new Set([reader])
  for (const node of found) { // grows while it is walked
    for (const name of node.outputs) {
      for (const next of readers.get(name) ?? []) if (upstream.has(next)) found.add(next)
    }
  }
  return found
}
