/**
 * Fused operators: which composites ONNX Runtime runs whole on a CPU, and how each is written.
 *
 * Every kernel is used in float32 only; float64 programs run the decompositions, which is what checks the kernels.
 *
 * From     ONNX opset 23, com.microsoft 1, and an operator that ONNX Runtime keeps for itself
 *          (SimplifiedLayerNormalization).
 * Checked  test/backend/onnx/Kernel.test.ts (each against the float64 reference, the rare branch of the cross-entropy
 *          too); products with coded weights are in `CodedProduct`, attention over a cache in `CachedAttention`.
 * Departs  a score that is hidden by causality and is not a number makes its row so too; a decomposition overlooks it.
 *
 * @module
 */
import type { Composite } from "../../tensor/Composite.ts"
import type { Instruction } from "../../tensor/Instruction.ts"
import type { Any } from "../../tensor/Node.ts"
import { attendKept } from "./CachedAttention.ts"
import { contractCodes, contractRows } from "./CodedProduct.ts"
import { elementCount, type ElementType, type Node } from "./ModelProto.ts"
import { branch, type Lying, microsoft, productNode, rowsOf, writeElementwise, type Writer } from "./Writer.ts"

type Orders = ReadonlyArray<ReadonlyArray<string>>

/** How a composite becomes a fused operator. */
export interface Kernel {
  /** When the fused operator computes the composite; always, if absent. */
  readonly applies?: (inputs: ReadonlyArray<Any>, composite: Composite) => boolean
  /** The shape in which the fused operator reads an operand, where it is another than the operand's own. */
  readonly reads?: (shape: ReadonlyArray<number>, operand: number) => ReadonlyArray<number>
  /** The type in which the fused operator reads a constant, where it is another, as wide, than that of its kind. */
  readonly readsAs?: (operand: number) => ElementType | undefined
  /** The shape in which the fused operator writes a result of the graph. */
  readonly writes?: (shape: ReadonlyArray<number>, output: number) => ReadonlyArray<number>
  readonly write: (writer: Writer, instruction: Instruction, composite: Composite, orders: Orders) => void
}

const lastAxis = { axis: { int: -1 } }

const softmax: Kernel = {
  write: (writer, { inputs, outputs }) => {
    const [x = -1] = inputs
    const [out = -1] = outputs
    const { name, shape } = rowsOf(writer, x, out)
    writer.node("Softmax", [name], [writer.target(out, shape).name], lastAxis)
  }
}

const softmaxWhere: Kernel = {
  write: (writer, { inputs, outputs }, composite, [order = [], own = []]) => {
    const { lying, name, node, one, reshape, scalar, target, value } = writer
    const [x = -1, visible = -1] = inputs
    const result = target(outputs[0] ?? -1).name
    const first = order.findIndex((axis) => own.includes(axis))
    const aligned = value(x).shape.map((size, i) => own.includes(order[i] ?? "") ? size : 1).slice(Math.max(0, first))
    const sees = reshape(lying(visible), aligned)
    if (composite.attributes["everyRowSees"] === "yes") { // a sum is far quicker than a choice
      const bias = one("Where", [sees, scalar(0), scalar(-1e30)])
      return node("Softmax", [one("Add", [name(x), bias])], [result], lastAxis)
    }
    const masked = one("Where", [sees, name(x), scalar(-3.4e38)])
    node("Where", [sees, one("Softmax", [masked], lastAxis), scalar(0)], [result])
  }
}

const silu: Kernel = {
  write: (writer, instruction) =>
    writeElementwise(writer, "QuickGelu", instruction, { attributes: { alpha: { float: 1 } }, domain: microsoft })
}

const rmsNorm: Kernel = {
  applies: ([x]) => (x?.sizes["embed"] ?? 0) > 1, // the operator refuses a single element
  write: (writer, { inputs, outputs }, { attributes }) => {
    const { fresh, give, name, node, target, uses } = writer
    const [x = -1, gain = -1] = inputs
    const [y = -1, inverse = -1] = outputs
    const { name: rows, shape } = rowsOf(writer, x, y)
    const summands = uses(inverse) === 0 ? summandsOf(writer, x, { name: rows, shape }) : undefined
    if (summands !== undefined) { // the operator gives their sum too, for whoever reads it from here on
      const sum = fresh()
      node("SkipSimplifiedLayerNormalization", [...summands, name(gain)], [target(y, shape).name, "", "", sum], {
        epsilon: { float: Number(attributes["epsilon"]) }
      }, microsoft)
      return give(x, { name: sum, shape })
    }
    const column = fresh()
    node("SimplifiedLayerNormalization", [rows, name(gain)], [target(y, shape).name, column], {
      ...lastAxis, epsilon: { float: Number(attributes["epsilon"]) }
    })
    give(inverse, { name: column, shape: [...shape.slice(0, -1), 1] })
  }
}

/** The two arrays whose sum lies so, as the node that adds them has them; `undefined` where that must stay. */
const summandsOf = (
  { fuses, isDeclared, nodes, producer, value }: Writer, id: number, { name, shape }: Lying
): ReadonlyArray<string> | undefined => {
  const made = producer(id)
  const isSum = made?.primitive._tag === "binary" && made.primitive.function === "add" &&
    made.inputs.every((each) => elementCount(value(each).shape) === elementCount(shape))
  if (!fuses || !isSum || isDeclared(id) || (shape.length !== 2 && shape.length !== 3)) return undefined
  return elementCount(shape) === 0 ? undefined
    : nodes.find(({ op, outputs }) => op === "Add" && outputs[0] === name)?.inputs
}

const smallestProbability = 1e-30 // float32 loses digits below 1e-38

/**
 * One Softmax; the loss is −log of the target's probability, the difference writes that probability − 1 over it.
 *
 * The target's element is written, not added to, so that the scatter waits for the gather and runs where the
 * probabilities lie.
 */
const softmaxCrossEntropy: Kernel = {
  write: (writer, { inputs, outputs }) => {
    const { give, lying, one, reshape, scalar, value } = writer
    const [logits = -1, targets = -1] = inputs
    const [loss = -1, difference = -1] = outputs
    const { shape } = value(logits)
    const vocabSize = shape.at(-1) ?? 1
    const rows = elementCount(shape) / vocabSize
    const probabilities = one("Softmax", [reshape(lying(logits), [rows, vocabSize])], lastAxis)
    const index = reshape(lying(targets), [rows, 1])
    const hit = one("GatherElements", [probabilities, index], { axis: { int: 1 } })
    const written = one("ScatterElements", [probabilities, index, one("Sub", [hit, scalar(1)])], { axis: { int: 1 } })
    give(difference, { name: written, shape: [rows, vocabSize] })
    give(loss, { name: surprise(writer, logits, [rows, vocabSize], index, hit), shape: [rows, 1] })
  }
}

/** −log of the probabilities; where one underflowed, from the logits, which that rare branch computes once more. */
const surprise = (
  writer: Writer, logits: number, shape: readonly [rows: number, vocabSize: number], index: string, hit: string
): string => {
  const { fresh, one, precision, scalar } = writer
  const isRare = one("Less", [one("ReduceMin", [hit], { keepdims: { int: 0 } }), scalar(smallestProbability)])
  const column = [shape[0], 1]
  const again = recomputed(writer, logits, shape)
  const [logProbabilities, logHit, negated, log, direct] = [fresh(), fresh(), fresh(), fresh(), fresh()]
  return one("If", [isRare], {
    then_branch: branch(precision, column, [
      ...again.nodes,
      { op: "LogSoftmax", inputs: [again.name], outputs: [logProbabilities], attributes: lastAxis },
      { op: "GatherElements", inputs: [logProbabilities, index], outputs: [logHit], attributes: { axis: { int: 1 } } },
      { op: "Neg", inputs: [logHit], outputs: [negated] }
    ]),
    else_branch: branch(precision, column, [
      { op: "Log", inputs: [hit], outputs: [log] },
      { op: "Neg", inputs: [log], outputs: [direct] }
    ])
  })
}

/** The logits, from the product that made them: kept alive for a rare branch they would cost their whole size. */
const recomputed = (
  { fresh, longs, name, producer, value }: Writer, logits: number, shape: ReadonlyArray<number>
): { readonly nodes: ReadonlyArray<Node>; readonly name: string } => {
  const flat = fresh()
  const flatten = (from: string): Node => ({ op: "Reshape", inputs: [from, longs(shape)], outputs: [flat] })
  let source = logits
  let made = producer(source)
  for (; made?.primitive._tag === "reshape"; made = producer(source)) source = made.inputs[0] ?? -1
  if (made?.primitive._tag !== "matmul" || made.outputs.length > 1 || value(source).shape.length !== 2) {
    return { nodes: [flatten(name(logits))], name: flat }
  }
  const product = fresh()
  return { nodes: [productNode(made.primitive, made.inputs.map(name), product), flatten(product)], name: flat }
}

const rotate: Kernel = {
  applies: ([x, cos, sin]) => {
    if (x === undefined || cos === undefined || sin === undefined) return false
    const { batch = 0, part = 0, plane = 0, position = 0 } = x.sizes as Readonly<Record<string, number>>
    const isTable = ({ sizes }: Any): boolean => {
      const axes = Object.keys(sizes).filter((axis) => axis !== "batch")
      return axes.length === 2 && axes.every((axis) => axis === "position" || axis === "plane")
    }
    return batch > 0 && position > 0 && part === 2 && plane > 0 && isTable(cos) && isTable(sin) &&
      ("batch" in cos.sizes) === ("batch" in sin.sizes)
  },
  write: ({ give, longs, lying, name, one, reshape, value }, { inputs, outputs }, _, [, angles = []]) => {
    const [x = -1, cos = -1, sin = -1] = inputs
    const [out = -1] = outputs
    const { shape } = value(x)
    const [batch = 1, position = 1, ...heads] = shape
    const headSize = heads.slice(-2).reduce((total, size) => total * size, 1)
    const headCount = elementCount(heads) / headSize
    const numbers = longs(Array.from({ length: position }, (_position, i) => i))
    const places = angles.includes("batch")
      ? []
      : [one("Expand", [reshape({ name: numbers, shape: [position] }, [1, position]), longs([batch, position])])]
    const flat = [batch, position, headCount * headSize]
    const rotated = one("RotaryEmbedding", [reshape(lying(x), flat), name(cos), name(sin), ...places], {
      num_heads: { int: headCount }, interleaved: { int: 0 }
    })
    give(out, { name: rotated, shape: flat })
  }
}

/** The kernels by composite name. */
export const kernels: Readonly<Record<string, Kernel>> = {
  softmax, softmaxWhere, silu, rmsNorm, softmaxCrossEntropy, rotate, attendKept, contractCodes, contractRows
}

/** Whether a composite runs as a fused operator here. */
export const hasKernel = (composite: Composite, inputs: ReadonlyArray<Any>): boolean => {
  const kernel = kernels[composite.name]
  return kernel !== undefined && (kernel.applies?.(inputs, composite) ?? true)
}
