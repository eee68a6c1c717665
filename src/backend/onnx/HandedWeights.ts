/**
 * Weights that a session is handed, instead of reading them from its model: the engine copies only what it packs.
 *
 * The graph says of such a weight that its bytes stand in another file, and the session is given a tensor in their
 * place. The file is never read, but must exist. A rewrite of the graph that needed the bytes would look for them
 * there: so only weights are handed over that nothing but products and look-ups reads, which have an operand that is no
 * constant, and that are longer than the file, so that reading them there would fail and not give others.
 *
 * From     `AddInitializer` of ONNX Runtime's C interface.
 * Checked  test/backend/onnx/HandedWeights.test.ts.
 *
 * @module
 */
import { readsOf } from "./Emit.ts"
import { machineDomain } from "./MachineOperator.ts"
import type { Graph, Initializer, Node } from "./ModelProto.ts"

/** Operators that take weights as they are, and the operand that a weight may be. */
const readers: Readonly<Record<string, ReadonlyArray<number>>> = {
  MatMul: [1], FusedMatMul: [1], Gemm: [1], MatMulNBits: [1, 2], MatMulIntegerToFloat: [1, 3],
  Gather: [0]
}

const readsWeight = ({ domain, op }: Node, operand: number): boolean =>
  domain === machineDomain ? operand > 0 : readers[op]?.includes(operand) ?? false

/** The fewest bytes of a weight that is handed over; the file that it is said to stand in has fewer. */
export const fewestBytes = 2 ** 16

/** The graph without the weights that can be handed over, and those; `location` names a file that exists. */
export const handOver = (
  graph: Graph, location: string
): { readonly graph: Graph; readonly weights: ReadonlyArray<Initializer> } => {
  const constant = new Set(graph.initializers.map(({ name }) => name))
  const folds = new Set<Node>() // computed from constants alone, when the graph is loaded
  for (const node of graph.nodes) {
    if (!readsOf(node).every((read) => constant.has(read))) continue
    folds.add(node)
    node.outputs.forEach((output) => constant.add(output))
  }
  const isOperand = ({ name }: Initializer): boolean => graph.nodes.every((node) => {
    const reads = readsOf(node).filter((read) => read === name)
    const allowed = node.inputs.filter((input, i) => input === name && readsWeight(node, i))
    return reads.length === 0 || !folds.has(node) && reads.length === allowed.length
  })
  const isWeight = (initializer: Initializer): boolean =>
    initializer.bytes.length >= fewestBytes && isOperand(initializer)
  const weights = graph.initializers.filter(isWeight)
  const initializers = graph.initializers.filter((initializer) => !weights.includes(initializer))
  const externals = weights.map(({ name, sizes, type }) => ({ name, sizes, type, location }))
  return { weights, graph: weights.length === 0 ? graph : { ...graph, initializers, externals } }
}
