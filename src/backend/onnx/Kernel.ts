/**
 * Fused operators: which composites ONNX Runtime runs whole on a CPU, and how each is written.
 *
 * Every kernel is used in float32 only; float64 programs run the decompositions, which is what checks the kernels.
 *
 * From     ONNX opset 23, com.microsoft 1, and the operators ONNX Runtime keeps for itself (SimplifiedLayerNormalization).
 * Checked  backend/onnx/Kernel.test.ts (each against the float64 reference).
 *
 * @module
 */
import type { Composite } from "../../tensor/Composite.ts"
import type { Instruction } from "../../tensor/Instruction.ts"
import type { Any } from "../../tensor/Node.ts"
import { matmul, microsoft, type Writer } from "./Emit.ts"
import type { Attribute, Node } from "./ModelProto.ts"

interface Kernel {
  /** When the fused operator computes the composite; always, if absent. */
  readonly applies?: (composite: Composite, inputs: ReadonlyArray<Any>) => boolean
  readonly emit: (writer: Writer, instruction: Instruction, composite: Composite, orders: ReadonlyArray<ReadonlyArray<string>>) => void
}

const number = (composite: Composite, attribute: string): number => Number(composite.attributes[attribute])

const size = (shape: ReadonlyArray<number>): number => shape.reduce((product, extent) => product * extent, 1)

/** The kernels by composite name. */
export const kernels: Readonly<Record<string, Kernel>> = {
  softmax: {
    emit: ({ name, node }, { inputs, outputs }) => node("Softmax", inputs.map(name), outputs.map(name), { axis: { int: -1 } })
  },
  softmaxWhere: {
    emit: (writer, { inputs, outputs }, composite, orders) => {
      const [x = -1, visible = -1] = inputs
      const [order = [], own = []] = orders
      const tail = order.slice(Math.max(0, order.findIndex((axis) => own.includes(axis))))
      const shape = writer.value(x).shape.slice(order.length - tail.length).map((extent, i) => own.includes(tail[i] ?? "") ? extent : 1)
      const sees = writer.reshape(writer.name(visible), shape)
      const out = outputs.map(writer.name)
      if (composite.attributes["everyRowSees"] === "yes") {
        const bias = writer.one("Where", [sees, writer.scalar(0), writer.scalar(-1e30)])
        return writer.node("Softmax", [writer.one("Add", [writer.name(x), bias])], out, { axis: { int: -1 } })
      }
      const masked = writer.one("Where", [sees, writer.name(x), writer.scalar(-3.4e38)])
      writer.node("Where", [sees, writer.one("Softmax", [masked], { axis: { int: -1 } }), writer.scalar(0)], out)
    }
  },
  silu: {
    emit: ({ name, node }, { inputs, outputs }) => node("QuickGelu", inputs.map(name), outputs.map(name), { alpha: { float: 1 } }, microsoft)
  },
  rmsNorm: {
    emit: (writer, { inputs, outputs }, composite) => {
      const [y = -1, inverse = -1] = outputs
      const column = writer.fresh()
      writer.node("SimplifiedLayerNormalization", inputs.map(writer.name), [writer.name(y), column], {
        axis: { int: -1 }, epsilon: { float: number(composite, "epsilon") }
      })
      writer.node("Reshape", [column, writer.longs(writer.value(inverse).shape)], [writer.name(inverse)])
    }
  },
  softmaxCrossEntropy: {
    emit: (writer, { inputs, outputs }) => {
      const { longs, name, node, one, reshape, scalar, value } = writer
      const [logits = -1, targets = -1] = inputs
      const [loss = -1, difference = -1] = outputs
      const shape = value(logits).shape
      const vocab = shape.at(-1) ?? 1
      const rows = size(shape) / vocab
      const weights = one("Softmax", [reshape(name(logits), [rows, vocab])], { axis: { int: -1 } })
      const index = reshape(name(targets), [rows, 1])
      const hit = one("GatherElements", [weights, index], { axis: { int: 1 } })
      // written, not added, so that the scatter waits for the gather and runs where the weights lie
      const scattered = one("ScatterElements", [weights, index, one("Sub", [hit, scalar(1)])], { axis: { int: 1 }, reduction: { string: "none" } })
      node("Reshape", [scattered, longs(shape)], [name(difference)])
      // −log of a probability that underflowed is taken from the logits, which that rare branch computes once more
      const rare = one("Less", [one("ReduceMin", [hit], { keepdims: { int: 0 } }), scalar(1e-30)])
      const branch = (nodes: ReadonlyArray<Node>): Attribute => ({
        graph: { nodes, inputs: [], initializers: [], outputs: [{ name: nodes.at(-1)?.outputs[0] ?? "", type: writer.precision, sizes: [rows, 1] }] }
      })
      const [logWeights, logHit, stable, logDirect, direct] = [writer.fresh(), writer.fresh(), writer.fresh(), writer.fresh(), writer.fresh()]
      const again = recomputed(writer, logits, [rows, vocab])
      const chosen = one("If", [rare], {
        then_branch: branch([
          ...again.nodes,
          { op: "LogSoftmax", inputs: [again.name], outputs: [logWeights], attributes: { axis: { int: -1 } } },
          { op: "GatherElements", inputs: [logWeights, index], outputs: [logHit], attributes: { axis: { int: 1 } } },
          { op: "Neg", inputs: [logHit], outputs: [stable] }
        ]),
        else_branch: branch([
          { op: "Log", inputs: [hit], outputs: [logDirect] },
          { op: "Neg", inputs: [logDirect], outputs: [direct] }
        ])
      })
      node("Reshape", [chosen, longs(value(loss).shape)], [name(loss)])
    }
  },
  rotate: {
    applies: (_, [x]) => x !== undefined && "batch" in x.sizes && "position" in x.sizes,
    emit: (writer, { inputs, outputs }, _, orders) => {
      const { longs, name, node, one, reshape, value } = writer
      const [x = -1, cos = -1, sin = -1] = inputs
      const [out = -1] = outputs
      const shape = value(x).shape
      const [batch = 1, position = 1] = shape
      const headSize = (shape.at(-1) ?? 1) * (shape.at(-2) ?? 1)
      const width = size(shape.slice(2))
      const places = orders[1]?.includes("batch") === true
        ? []
        : [one("Expand", [reshape(longs(Array.from({ length: position }, (__, i) => i)), [1, position]), longs([batch, position])])]
      const rotated = one("RotaryEmbedding", [reshape(name(x), [batch, position, width]), name(cos), name(sin), ...places], {
        num_heads: { int: width / headSize }, interleaved: { int: 0 }
      })
      node("Reshape", [rotated, longs(shape)], [name(out)])
    }
  }
}

/** The logits once more, from the product that made them: kept alive for a rare branch they would cost their whole size. */
const recomputed = (writer: Writer, logits: number, shape: readonly [number, number]): { readonly nodes: ReadonlyArray<Node>; readonly name: string } => {
  const flat = writer.fresh()
  let source = logits
  for (let made = writer.producer(source); made?.primitive._tag === "reshape"; made = writer.producer(source)) source = made.inputs[0] ?? -1
  const made = writer.producer(source)
  const flatten = (from: string): Node => ({ op: "Reshape", inputs: [from, writer.longs(shape)], outputs: [flat] })
  if (made?.primitive._tag !== "matmul" || writer.value(source).shape.length !== 2) return { nodes: [flatten(writer.name(logits))], name: flat }
  const product = writer.fresh()
  return { nodes: [matmul(made.primitive, made.inputs.map(writer.name), product), flatten(product)], name: flat }
}

/** Whether a composite runs as a fused operator here. */
export const hasKernel = (composite: Composite, inputs: ReadonlyArray<Any>): boolean => {
  const kernel = kernels[composite.name]
  return kernel !== undefined && (kernel.applies?.(composite, inputs) ?? true)
}
