/**
 * Products with weights in codes, as fused operators that sum whole numbers.
 *
 *     x · ŵ ≈ s x̂ · ŵ,   x̂ = round(x / s) whole numbers from −127 to 127,   s = max |x| / 127
 *
 * x the other operand · ŵ the weights that codes stand for · s a scale for each block of x, or for each of its vectors
 *
 * Codes in blocks: MatMulNBits codes each block of x as it multiplies. Codes of rows: each vector of x is coded by
 * itself, so that none depends on those beside it, and MatMulIntegerToFloat multiplies matrices of whole numbers. Its
 * sums are exact: a vector has the same product in every bit, alone or among others. Where sums of bytes are not exact
 * (see `Saturation`) the decomposition runs.
 *
 * From     com.microsoft 1 of ONNX Runtime; Dettmers et al. 2022, §3.1 ("vector-wise").
 * Checked  test/backend/onnx/CodedProduct.test.ts, test/backend/onnx/RowProduct.test.ts.
 * Departs  an element of x is off by at most 1/254 of the largest of its block, or of its vector. An x that is not a
 *          number mostly goes unseen by MatMulNBits; with codes of rows the product of its vector is none either.
 *
 * @module
 */
import type { Instruction } from "../../tensor/Instruction.ts"
import type { Kernel } from "./Kernel.ts"
import { elementCount, elements } from "./ModelProto.ts"
import { type Lying, microsoft, type Writer } from "./Writer.ts"

const lastAxis = { axis: { int: -1 } }

/** Codes as [rows, blocks, bytes], and their scales in one row. */
const asBlocks = (shape: ReadonlyArray<number>, operand: number): ReadonlyArray<number> =>
  operand === 1 ? [elementCount(shape.slice(0, -2)), ...shape.slice(-2)]
    : operand === 2 ? [elementCount(shape)] : shape

/** How many weights of a row may share a scale. */
const blockSizes: ReadonlySet<number> = new Set([16, 32, 64, 128, 256])

/** Writes the product with so many rows of so many weights, over x as [...outer, summed]. */
type Product = (x: Lying, result: string) => void

/**
 * A product where its operands lie: x as it does, if its vectors are whole there. Where weights were joined (see
 * `JoinedProducts`), each output is the part of the product that its rows make.
 */
const writeProduct = (
  writer: Writer, { inputs: [x = -1], outputs }: Instruction, rows: number, summed: number, product: Product
): void => {
  const { fresh, give, giveParts, isDeclared, longs, lying, node, reshape, target, value } = writer
  const [out = -1] = outputs
  const count = elementCount(value(x).shape) / summed
  const isResult = outputs.length === 1 && isDeclared(out) && lying(out).shape.at(-1) === rows
  const outer = isResult ? lying(out).shape.slice(0, -1)
    : lying(x).shape.at(-1) === summed ? lying(x).shape.slice(0, -1) : [count]
  const result = isResult ? target(out).name : fresh()
  const shape = [...outer, summed]
  product({ name: reshape(lying(x), shape), shape }, result)
  if (isResult) return
  const parts = outputs.map((id) => elementCount(value(id).shape) / count)
  const names = parts.length === 1 ? [result] : parts.map(fresh)
  if (parts.length > 1) {
    node("Split", [result, longs(parts)], names, lastAxis)
    giveParts(outputs, { name: result, shape: [...outer, rows] })
  }
  outputs.forEach((id, i) => give(id, { name: names[i] ?? "", shape: [...outer, parts[i] ?? 1] }))
}

/** Products of 8-bit integers: each block of x is coded in 8 bits too, and sums are exact until they are scaled. */
export const contractCodes: Kernel = {
  applies: ([, codes], { attributes }) => blockSizes.has((codes?.sizes["byte"] ?? 0) * 8 / Number(attributes["bits"])),
  reads: asBlocks,
  write: (writer, instruction, { attributes }) => {
    const { lying, node, reshape, value } = writer
    const [, codes = -1, scales = -1] = instruction.inputs
    const bits = Number(attributes["bits"])
    const [rows = 1, blocks = 1, bytes = 1] = asBlocks(value(codes).shape, 1)
    const [block, summed] = [bytes * 8 / bits, blocks * bytes * 8 / bits]
    writeProduct(writer, instruction, rows, summed, (x, result) =>
      node("MatMulNBits", [
        x.name, reshape(lying(codes), [rows, blocks, bytes]), reshape(lying(scales), asBlocks(value(scales).shape, 2))
      ], [result], {
        K: { int: summed }, N: { int: rows }, bits: { int: bits }, block_size: { int: block },
        accuracy_level: { int: 4 }
      }, microsoft))
  }
}

/** Codes as [summed, rows], the axes that are contracted in one, and the scales in one row. */
const asMatrix = (shape: ReadonlyArray<number>, operand: number): ReadonlyArray<number> =>
  operand === 1 ? [elementCount(shape.slice(0, 2)), elementCount(shape.slice(2))]
    : operand === 2 ? [elementCount(shape)] : shape

/** The longest rows: sums of so many products of two codes stay within 32 bits. */
const longestRow = 2 ** 16

/**
 * Products of matrices of whole numbers: each vector of x is coded in 8 bits, and sums are exact. Codes that are no
 * constants are made numbers: the engine would have to pack them for every run.
 */
export const contractRows: Kernel = {
  applies: ([x, codes]) => (codes?.sizes["byte"] ?? Infinity) <= longestRow && codes?.sizes["block"] === 1 &&
    [x, codes].every((operand) => elementCount(Object.values(operand?.sizes ?? {})) > 0),
  reads: asMatrix,
  readsAs: (operand) => operand === 1 ? "i8" : undefined,
  write: (writer, instruction) => {
    const { lying, node, one, reshape, scalar, value } = writer
    const [, codes = -1, scales = -1] = instruction.inputs
    const [summed = 1, rows = 1] = asMatrix(value(codes).shape, 1)
    const weights = reshape(lying(codes), [summed, rows])
    const perRow = reshape(lying(scales), [rows])
    const isConstant = lying(codes).type === "i8"
    writeProduct(writer, instruction, rows, summed, ({ name }, result) => {
      if (!isConstant) {
        const signed = one("Cast", [weights], { to: { int: elements.i8.code } })
        const steps = one("Cast", [signed], { to: { int: elements.f32.code } })
        return node("MatMul", [name, one("Mul", [steps, perRow])], [result])
      }
      const zero = scalar(128, "code")
      const { coded, largest } = vectorCodes(writer, name, zero)
      const product = one("MatMulIntegerToFloat", [coded, weights, scalar(1 / 127), perRow, zero], {}, microsoft)
      node("Mul", [product, largest], [result])
    })
  }
}

/**
 * The vectors of x in codes of 8 bits around `zero`, and the largest |x| of each. The engine's maximum overlooks what
 * is not a number, but its sum does not, nor does its lesser of two, and no sum of sizes is less than one of them.
 * Zeros are divided by zero: whatever their codes are, zero times them is zero.
 */
const vectorCodes = (
  { once, one, longs, scalar }: Writer, x: string, zero: string
): { readonly coded: string; readonly largest: string } => {
  const last = longs([-1])
  const size = once(`sizes of ${x}`, () => one("Abs", [x]))
  const most = once(`most of ${x}`, () => one("ReduceMax", [size, last], { keepdims: { int: 1 } }))
  const largest = once(`largest of ${x}`, () =>
    one("Min", [most, one("ReduceSum", [size, last], { keepdims: { int: 1 } })]))
  const coded = once(`codes of ${x}`, () => one("QuantizeLinear", [one("Div", [x, most]), scalar(1 / 127), zero]))
  return { coded, largest }
}
