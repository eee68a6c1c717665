/**
 * How each primitive is written in ONNX operators: one for one mostly, seldom a few.
 *
 * Operators never see an empty tensor, which many of them refuse: an empty result is a constant, and what is made of an
 * empty operand (a sum, a product, a join) is written without it.
 *
 * From     the operator definitions of ONNX opset 23 and of com.microsoft 1.
 * Checked  test/backend/onnx/Emit.test.ts; test/backend/onnx/OnnxRuntime.test.ts (the laws, against the float64
 *          reference).
 * Departs  a scatter that adds uses ScatterElements: ScatterND with a reduction races on several threads. A negative id
 *          that a program computes counts from the end, as ONNX has it (inputs have none); one outside its axis fails
 *          the run.
 *
 * @module
 */
import type { Instruction, Primitive } from "../../tensor/Instruction.ts"
import type { BinaryFunction, Kind, Relation, UnaryFunction } from "../../tensor/Node.ts"
import type { Precision } from "../Backend.ts"
import { panelsOf, writePanelProduct } from "./MachineProduct.ts"
import { kernels } from "./Kernel.ts"
import { elementCount, elements, type Node } from "./ModelProto.ts"
import {
  branch, bytesOf, elementType, fewRows, type Lying, microsoft, productNode, rowsOf, writeElementwise, type Writer
} from "./Writer.ts"

type Of<Tag extends Primitive["_tag"]> = Extract<Primitive, { readonly _tag: Tag }>

const unaryOperators: Record<Exclude<UnaryFunction, "rsqrt" | "square">, string> = {
  exp: "Exp", log: "Log", sqrt: "Sqrt", reciprocal: "Reciprocal", sin: "Sin", cos: "Cos", tanh: "Tanh",
  sigmoid: "Sigmoid", abs: "Abs", sign: "Sign", floor: "Floor", negate: "Neg"
}

const binaryOperators: Record<BinaryFunction, string> = {
  add: "Add", subtract: "Sub", multiply: "Mul", divide: "Div", maximum: "Max", minimum: "Min", power: "Pow"
}

const relations: Record<Relation, string> = { equal: "Equal", less: "Less", lessEqual: "LessOrEqual" }

const logic: Record<"and" | "or" | "not", string> = { and: "And", or: "Or", not: "Not" }

const castTo = (kind: Kind, precision: Precision) => ({ to: { int: elements[elementType(kind, precision)].code } })

/** Writes the nodes of an instruction. */
export const writeInstruction = (writer: Writer, instruction: Instruction): void => {
  const isEmpty = (id: number): boolean => elementCount(writer.value(id).shape) === 0
  if (instruction.outputs.every(isEmpty)) {
    for (const id of instruction.outputs) writer.give(id, emptyLiteral(writer, id))
  } else if (instruction.inputs.some(isEmpty)) writeOverNothing(writer, instruction, isEmpty)
  else writeOperator(writer, instruction)
}

const emptyLiteral = ({ filled, value }: Writer, id: number): Lying => {
  const { kind, shape } = value(id)
  return { name: filled(0, kind, shape), shape }
}

/** An instruction some of whose operands are empty, but not its result. */
const writeOverNothing = (writer: Writer, instruction: Instruction, isEmpty: (id: number) => boolean): void => {
  const { inputs, outputs, primitive } = instruction
  const [x = -1] = inputs
  const [output = -1] = outputs
  const { kind, shape } = writer.value(output)
  switch (primitive._tag) {
    case "reduce": // only sums: of nothing there is no largest
    case "matmul":
    case "pad":
      return writer.give(output, { name: writer.filled(0, kind, shape), shape })
    case "concat": {
      const [first, ...rest] = inputs.filter((id) => !isEmpty(id))
      return rest.length === 0 && first !== undefined
        ? writer.give(output, writer.lying(first))
        : writeOperator(writer, { ...instruction, inputs: inputs.filter((id) => !isEmpty(id)) })
    }
    case "scatter":
    case "barrier":
      return writer.give(output, writer.lying(x))
    default:
      return writeOperator(writer, instruction)
  }
}

const writeOperator = (writer: Writer, instruction: Instruction): void => {
  const { inputs, outputs, primitive } = instruction
  const [x = -1, y = -1] = inputs
  const [output = -1] = outputs
  switch (primitive._tag) {
    case "constant":
      return writer.give(output, literalOf(writer, primitive, output))
    case "unary":
      return writeUnary(writer, primitive.function, instruction)
    case "binary":
      return primitive.function === "add"
        ? writeSum(writer, instruction)
        : writeElementwise(writer, binaryOperators[primitive.function], instruction)
    case "compare":
      return writeElementwise(writer, relations[primitive.relation], instruction)
    case "logic":
      return writeElementwise(writer, logic[primitive.function], instruction)
    case "select":
      return writeElementwise(writer, "Where", instruction)
    case "convert":
      return writeElementwise(writer, "Cast", instruction, { attributes: castTo(primitive.to, writer.precision) })
    case "reduce":
      return writeReduction(writer, primitive, x, output)
    case "matmul":
      return outputs.length > 1 ? writeJoined(writer, instruction) : writeProduct(writer, primitive, x, y, output)
    case "reshape":
      return writer.give(output, writer.lying(x))
    case "gather":
      return writeGather(writer, primitive, x, y, output)
    case "scatter":
      return writeScatter(writer, primitive, inputs, output)
    case "topK":
      return writeTopK(writer, primitive, x, outputs)
    case "barrier":
      return writeBarrier(writer, x, y, output)
    case "transpose":
    case "expand":
    case "slice":
    case "pad":
    case "concat":
    case "cumulativeSum":
      return writePlain(writer, primitive, inputs, output)
    case "composite": {
      const kernel = kernels[primitive.composite.name]
      if (kernel === undefined) throw new TypeError(`no kernel for composite ${primitive.composite.name}`)
      return kernel.write(writer, instruction, primitive.composite, primitive.orders)
    }
  }
}

const writeUnary = (writer: Writer, name: UnaryFunction, instruction: Instruction): void =>
  name === "rsqrt"
    ? writeElementwise(writer, "Reciprocal", instruction, { before: "Sqrt" })
    : name === "square"
      ? writeElementwise(writer, "Mul", { ...instruction, inputs: [...instruction.inputs, ...instruction.inputs] })
      : writeElementwise(writer, unaryOperators[name], instruction)

/** Primitives that are one operator over whole shapes. */
const writePlain = (
  writer: Writer, primitive: Of<"transpose" | "expand" | "slice" | "pad" | "concat" | "cumulativeSum">,
  inputs: ReadonlyArray<number>, output: number
): void => {
  const { longs, node } = writer
  const [x = "", ...rest] = inputs.map(writer.name)
  const { name, shape } = writer.target(output)
  switch (primitive._tag) {
    case "transpose":
      return node("Transpose", [x], [name], { perm: { ints: primitive.permutation } })
    case "expand":
      return node("Expand", [x, longs(shape)], [name])
    case "slice":
      return node("Slice", [x, longs([primitive.start]), longs([primitive.end]), longs([primitive.axis])], [name])
    case "pad": {
      const at = (size: number): ReadonlyArray<number> => shape.map((_, i) => i === primitive.axis ? size : 0)
      return node("Pad", [x, longs([...at(primitive.before), ...at(primitive.after)])], [name])
    }
    case "concat":
      return node("Concat", [x, ...rest], [name], { axis: { int: primitive.axis } })
    case "cumulativeSum":
      return node("CumSum", [x, longs([primitive.axis])], [name], { reverse: { int: primitive.reverse ? 1 : 0 } })
  }
}

const literalOf = ({ filled, literal, precision, value }: Writer, { elements }: Of<"constant">, id: number): Lying => {
  const { kind, shape } = value(id)
  const name = typeof elements === "number"
    ? filled(elements, kind, shape)
    : literal(`v${id}`, elementType(kind, precision), shape, () => bytesOf(elements, kind, precision))
  return { name, shape }
}

const writeReduction = (writer: Writer, primitive: Of<"reduce">, x: number, output: number): void => {
  const from = writer.producer(x)
  const [squared] = from?.primitive._tag === "unary" && from.primitive.function === "square" ? from.inputs : []
  const isOfAll = primitive.axes.length === writer.value(x).shape.length
  if (primitive.function === "sum" && isOfAll && squared !== undefined) {
    return writeSumOfSquares(writer, squared, writer.target(output).name)
  }
  const { longs, name, node, target } = writer
  const operands = [name(x), longs(primitive.axes)] as const
  if (primitive.function === "max") return writeLargest(writer, operands, output)
  node("ReduceSum", operands, [target(output).name], { keepdims: { int: 0 } })
}

/**
 * The largest, which is NaN where there is one: ReduceMax overlooks it. A sum does not, but is NaN as well where
 * infinities cancel, or numbers so large that they overflow both ways. Magnitudes cancel nowhere; they are summed only
 * where the sum of all leaves a doubt, for that takes longer.
 */
const writeLargest = (writer: Writer, operands: readonly [x: string, axes: string], output: number): void => {
  const { branches, fresh, node, nodes, one, precision, target } = writer
  const [x, axes] = operands
  const attributes = { keepdims: { int: 0 } }
  const largest = one("ReduceMax", operands, attributes)
  const { name, shape } = target(output)
  const [magnitudes, sum, isNumber] = [fresh(), fresh(), fresh()]
  const seen = (result: string): ReadonlyArray<Node> => [
    { op: "Abs", inputs: [x], outputs: [magnitudes] },
    { op: "ReduceSum", inputs: [magnitudes, axes], outputs: [sum], attributes },
    { op: "Equal", inputs: [sum, sum], outputs: [isNumber] },
    { op: "Where", inputs: [isNumber, largest, sum], outputs: [result] }
  ]
  if (!branches) return void nodes.push(...seen(name))
  const all = one("ReduceSum", [one("ReduceSum", operands, attributes)], attributes)
  node("If", [one("Equal", [all, all])], [name], {
    then_branch: branch(precision, shape, [{ op: "Identity", inputs: [largest], outputs: [fresh()] }]),
    else_branch: branch(precision, shape, seen(fresh()))
  })
}

const rowSize = 65_536

/** Into how many equal rows of about `rowSize` elements, at most, so many elements can be cut. */
const rowCount = (total: number): number | undefined => {
  const least = Math.ceil(total / rowSize)
  for (let count = least; count < 16 * least; count++) if (total % count === 0) return count
  return undefined
}

/** Σ x²: of big arrays as many dot products of rows, which run on all threads and sum in parts. */
const writeSumOfSquares = (writer: Writer, x: number, output: string): void => {
  const { fuses, longs, lying, node, one, reshape, value } = writer
  const total = elementCount(value(x).shape)
  const count = fuses && total > rowSize ? rowCount(total) : undefined
  if (count === undefined) {
    return node("ReduceSumSquare", [reshape(lying(x), [total])], [output], { keepdims: { int: 0 } })
  }
  const rows = reshape(lying(x), [count, 1, total / count])
  const dots = one("FusedMatMul", [rows, rows], { transB: { int: 1 } }, microsoft)
  node("ReduceSum", [dots, longs([0, 1, 2])], [output], { keepdims: { int: 0 } })
}

/** Transposed operands and the scale are part of the operator, where there is one that takes them. */
const writeProduct = (writer: Writer, primitive: Of<"matmul">, x: number, y: number, output: number): void => {
  const { fuses, name, node, nodes, one, scalar, target, value } = writer
  const { scale, transposeLeft, transposeRight } = primitive
  const isPlain = scale === 1 && !transposeLeft && !transposeRight
  const [count = 1, size = 1] = value(output).shape
  if (fuses && scale === 1 && !transposeLeft && value(x).shape.length === 2 && count <= fewRows) {
    const panels = panelsOf(writer, y, transposeRight)
    const rows = rowsOf(writer, x, output)
    const result = [...rows.shape.slice(0, -1), size]
    if (panels !== undefined) return writePanelProduct(writer, rows, panels, target(output, result).name)
    if (isPlain) return node("MatMul", [rows.name, name(y)], [target(output, result).name])
  }
  const result = target(output).name
  if (fuses) {
    const [rows, columns] = value(output).shape.slice(-2)
    const vector = scale === 1 ? -1 : rows === 1 ? 0 : columns === 1 ? 1 : -1
    const operands = [x, y].map((id, i) => i === vector ? scaled(writer, id, scale) : name(id))
    return void nodes.push(productNode({ ...primitive, scale: vector < 0 ? scale : 1 }, operands, result))
  }
  const swapped = { perm: { ints: value(x).shape.length === 3 ? [0, 2, 1] : [1, 0] } }
  const product = [
    transposeLeft ? one("Transpose", [name(x)], swapped) : name(x),
    transposeRight ? one("Transpose", [name(y)], swapped) : name(y)
  ]
  if (scale === 1) node("MatMul", product, [result])
  else node("Mul", [one("MatMul", product), scalar(scale)], [result])
}

/** A product with matrices that were joined (see `JoinedProducts`): each output is a part of its rows. */
const writeJoined = (writer: Writer, { inputs, outputs }: Instruction): void => {
  const { fresh, fuses, give, giveParts, longs, name, node, value } = writer
  const [x = -1, y = -1] = inputs
  const rows = fuses ? rowsOf(writer, x) : { name: name(x), shape: value(x).shape }
  const outer = rows.shape.slice(0, -1)
  const panels = fuses ? panelsOf(writer, y, false) : undefined
  const whole = fresh()
  if (panels !== undefined) writePanelProduct(writer, rows, panels, whole)
  else node("MatMul", [rows.name, name(y)], [whole])
  const parts = outputs.map((id) => elementCount(value(id).shape) / elementCount(outer))
  const names = parts.map(fresh)
  node("Split", [whole, longs(parts)], names, { axis: { int: -1 } })
  giveParts(outputs, { name: whole, shape: [...outer, parts.reduce((total, part) => total + part, 0)] })
  outputs.forEach((id, i) => give(id, { name: names[i] ?? "", shape: [...outer, parts[i] ?? 1] }))
}

/**
 * A vector times a number: for the product of a vector and a matrix, which takes half the time without a scale.
 *
 * The number is written as often as the last axis is long: a single one the engine would move into the product again.
 */
const scaled = ({ filled, name, one, value }: Writer, id: number, scale: number): string =>
  one("Mul", [name(id), filled(scale, "real", [value(id).shape.at(-1) ?? 1])])

/** The sum of something and of a product of two matrices that nothing else uses: one operator, a pass less. */
interface ProductSum {
  readonly product: Instruction & { readonly primitive: Of<"matmul"> }
  readonly other: number
  /** The shape of the product: that of the sum, or one of as many elements. */
  readonly shape: ReadonlyArray<number>
}

/** A value as a product and a sum in one, if it is that. */
export const productSum = (writer: Writer, id: number): ProductSum | undefined => {
  const { precision, producer, value } = writer
  const made = producer(id)
  if (precision !== "f32" || made?.primitive._tag !== "binary" || made.primitive.function !== "add") return undefined
  if (isAddedByNorm(writer, id)) return undefined
  for (const [summand = -1, other = -1] of [made.inputs, made.inputs.toReversed()]) {
    const product = productOf(writer, summand)
    const { shape } = value(product?.outputs[0] ?? -1)
    const isOfOneSize = [id, other].every((each) => elementCount(value(each).shape) === elementCount(shape))
    const isEmpty = product?.inputs.some((each) => elementCount(value(each).shape) === 0)
    if (product !== undefined && shape.length === 2 && isOfOneSize && !isEmpty) return { product, other, shape }
  }
  return undefined
}

/** Whether the first that reads a sum of few rows is a norm, whose operator adds as well (see `rmsNorm`). */
const isAddedByNorm = ({ fuses, isDeclared, reader, uses, value }: Writer, id: number): boolean => {
  const { inputs: [x] = [], outputs: [, inverse = -1] = [], primitive } = reader(id) ?? {}
  const isNorm = primitive?._tag === "composite" && primitive.composite.name === "rmsNorm" && x === id
  const { shape } = value(id)
  return fuses && isNorm && uses(inverse) === 0 && !isDeclared(id) && elementCount(shape.slice(0, -1)) <= fewRows
}

/** The product behind a value that is used once, reshaped or not. */
const productOf = (writer: Writer, id: number): ProductSum["product"] | undefined => {
  const made = writer.producer(id)
  if (writer.uses(id) !== 1 || made === undefined || made.outputs.length > 1) return undefined
  const { primitive } = made
  return primitive._tag === "reshape"
    ? productOf(writer, made.inputs[0] ?? -1)
    : primitive._tag === "matmul" ? { ...made, primitive } : undefined
}

const writeSum = (writer: Writer, instruction: Instruction): void => {
  const { isDeclared, lying, name, node, reshape, target } = writer
  const [output = -1] = instruction.outputs
  const sum = productSum(writer, output)
  const isInShape = sum !== undefined && (!isDeclared(output) || lying(output).shape.join() === sum.shape.join())
  if (!isInShape) return writeElementwise(writer, "Add", instruction) // a result is not to be copied
  const { other, product, shape } = sum
  const { scale, transposeLeft, transposeRight } = product.primitive
  const operands = [...product.inputs.map(name), reshape(lying(other), shape)]
  node("Gemm", operands, [target(output, shape).name], {
    transA: { int: transposeLeft ? 1 : 0 }, transB: { int: transposeRight ? 1 : 0 }, alpha: { float: scale }
  })
}

/** The shape of a table with so many rows in place of its indexed axis. */
const rowsShape = (table: ReadonlyArray<number>, axis: number, count: number): ReadonlyArray<number> =>
  table.map((size, i) => i === axis ? count : size)

/** An id for every element of the rows: ids [batch…, i…] stretched over the other axes. */
const indexOver = (
  { longs, lying, one, reshape }: Writer, ids: number, batch: number, axis: number, rows: ReadonlyArray<number>
): string => {
  const flat = rows.map((size, i) => i < batch || i === axis ? size : 1)
  const index = reshape(lying(ids), flat)
  return flat.join() === rows.join() ? index : one("Expand", [index, longs(rows)])
}

const writeGather = (writer: Writer, { axis, batch }: Of<"gather">, x: number, ids: number, output: number): void => {
  const { give, isDeclared, lying, name, node, one, target, value } = writer
  const { shape } = value(x)
  const isShared = elementCount(shape.slice(0, batch)) === 1 // one table, whose rows all ids choose from
  const index = lying(ids)
  const rows = isShared ? [...shape.slice(0, axis), ...index.shape, ...shape.slice(axis + 1)]
    : rowsShape(shape, axis, elementCount(value(ids).shape.slice(batch)))
  const operands = [name(x), isShared ? index.name : indexOver(writer, ids, batch, axis, rows)]
  const [op, attributes] = [isShared ? "Gather" : "GatherElements", { axis: { int: axis } }]
  if (isDeclared(output) && rows.join() !== lying(output).shape.join()) {
    return give(output, { name: one(op, operands, attributes), shape: rows })
  }
  node(op, operands, [target(output, rows).name], attributes)
}

/** Rows of at least so many elements are written as rows, shorter ones element by element. */
const shortestRow = 8

/** The base is written in the shape it has, so that a base that nothing else reads is written where it lies. */
const writeScatter = (
  writer: Writer, { axis, batch, mode }: Of<"scatter">, inputs: ReadonlyArray<number>, output: number
): void => {
  const { lying, name, node, reshape, target, value } = writer
  const [base = -1, ids = -1, values = -1] = inputs
  const rows = rowsShape(value(base).shape, axis, elementCount(value(ids).shape.slice(batch)))
  if (mode === "set" && elementCount(rows.slice(axis + 1)) >= shortestRow) {
    const places = coordinates(writer, ids, batch, rows.slice(0, axis + 1))
    return node("ScatterND", [name(base), places, reshape(lying(values), rows)], [target(output).name])
  }
  node("ScatterElements", [
    name(base), indexOver(writer, ids, batch, axis, rows), reshape(lying(values), rows)
  ], [target(output).name], { axis: { int: axis }, reduction: { string: mode === "add" ? "add" : "none" } })
}

/** The place of each row in the base: its index along the axes before the chosen one, and its id. */
const coordinates = (
  { literal, longs, lying, one, reshape }: Writer, ids: number, batch: number, rows: ReadonlyArray<number>
): string => {
  const axis = rows.length - 1
  const index = reshape(lying(ids), [...rows.map((size, i) => i < batch || i === axis ? size : 1), 1])
  const chosen = one("Expand", [one("Cast", [index], { to: { int: elements.i64.code } }), longs([...rows, 1])])
  if (axis === 0) return chosen
  const before = literal(`grid ${rows.join()}`, "i64", [...rows, axis], () => {
    const grid = Array.from({ length: elementCount(rows) }, (_row, place) => rows.slice(0, axis)
      .map((size, i) => BigInt(Math.floor(place / elementCount(rows.slice(i + 1))) % size)))
    return new Uint8Array(BigInt64Array.from(grid.flat()).buffer)
  })
  return one("Concat", [before, chosen], { axis: { int: rows.length } })
}

const writeTopK = (writer: Writer, { count }: Of<"topK">, x: number, outputs: ReadonlyArray<number>): void => {
  const { fresh, longs, name, node, precision, target } = writer
  const [values = -1, ids = -1] = outputs
  const found = fresh()
  const { name: largest, shape } = target(values)
  node("TopK", [name(x), longs([count])], [largest, found], { axis: { int: shape.length - 1 } })
  node("Cast", [found], [target(ids).name], castTo("id", precision))
}

/** x where a truth holds that always does, which the engine can only know once `after` is computed. */
const writeBarrier = (writer: Writer, x: number, after: number, output: number): void => {
  const { lying, name, node, one, reshape, scalar, value } = writer
  const { kind, shape } = value(after)
  const result = [writer.target(output).name]
  const first = shape.length === 0
    ? name(after)
    : one("Gather", [reshape(lying(after), [elementCount(shape)]), scalar(0, "id")])
  const is = kind === "truth" ? first : one("Equal", [first, first]) // not so of a NaN
  const always = one("Or", [is, one("Not", [is])])
  if (value(x).kind === "truth") node("And", [name(x), always], result)
  else node("Where", [always, name(x), scalar(0, value(x).kind)], result)
}
