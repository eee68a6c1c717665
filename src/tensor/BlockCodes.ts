/**
 * Weights in 8 or 4 bits: codes with one scale for each block of elements that are summed together, or for the whole
 * row of them.
 *
 *     ŵ = s (c − z),   s = max |w| / (z − 1) over the block,   c = z + round(w / s),   z = 2^(bits − 1)
 *     |w − ŵ| ≤ s / 2
 *
 * w the weights of a block · c their codes, whole numbers from 1 to 2 z − 1 · s the block's scale
 *
 * A block runs along the axes over which the weights are contracted, so that a kernel can sum codes and scale a sum.
 * The codes lie as bytes, two of 4 bits in one, the first in its low half.
 *
 * Codes of rows are signed bytes c − z, and lie with the axes that are contracted first: a kernel can then sum a whole
 * row in whole numbers, and multiply matrices of them as they lie. One scale for so many weights is coarser: the
 * largest of a row rounds all of it.
 *
 * From     the common symmetric scheme (Dettmers et al. 2022, §2.1, "absmax"; Q8_0 of llama.cpp), block by block, and
 *          "vector-wise" (§3.1); bytes and zero as MatMulNBits and MatMulIntegerToFloat of ONNX Runtime want them.
 * Checked  test/tensor/BlockCodes.test.ts (the bound, products equal those of the decoded weights, gradients);
 *          test/backend/onnx/CodedProduct.test.ts, test/backend/onnx/RowProduct.test.ts (the fused products).
 * Departs  4 bits use 15 of their 16 codes, for one bound that holds on both sides of zero.
 *
 * @module
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as BlockEncoder from "./BlockEncoder.ts"
import { type Composite, composite, withLast } from "./Composite.ts"
import { divide, floor, multiply, real, subtract } from "./Elementwise.ts"
import type { Any, Sizes, Tensor, Untyped } from "./Node.ts"
import { count, describe, fail, omit, requireKind, show } from "./Node.ts"
import { contract } from "./Reduction.ts"
import * as RowEncoder from "./RowEncoder.ts"
import type { Specification } from "./Specification.ts"
import * as Specifications from "./Specification.ts"
import { merge, split, stack } from "./Structure.ts"

/**
 * How weights are coded: the bits of a code, and how many weights share a scale (a power of two, at least 16); or 8
 * bits and all of a row, which are all weights that are summed together.
 */
export type Scheme = { readonly bits: 4 | 8; readonly block: number } | { readonly bits: 8; readonly block: "row" }

/** How a code lies: in so many bits, or as a signed byte of a row. */
export type Coding = 4 | 8 | "row"

/** How the codes of a scheme lie. */
export const codingOf = ({ bits, block }: Scheme): Coding => block === "row" ? "row" : bits

/**
 * Coded weights: for each block of weights its codes, as bytes, and its scale. `R` are the axes over which the weights
 * are not contracted.
 */
export interface BlockCodes<R extends string> {
  readonly codes: Tensor<R | "block" | "byte", "code">
  readonly scales: Tensor<R | "block">
}

/** Fails where a weight is not a finite float32 number, for only those have codes; names the first of them. */
export class WeightError extends Schema.TaggedError<WeightError>()("WeightError", {
  element: Schema.Int,
  value: Schema.String
}) {
  override get message() {
    return `block codes: element ${this.element} of the weights is ${this.value}
  Only finite float32 weights have codes. Training that went wrong leaves others; is the checkpoint damaged?`
  }
}

const sizesOf = (sizes: Sizes, over: ReadonlyArray<string>, { bits, block }: Scheme) => {
  const summed = over.reduce((product, axis) => product * (sizes[axis] ?? 0), 1)
  if (!over.every((axis) => axis in sizes) || "block" in sizes || "byte" in sizes) {
    fail("block codes", "the weights must have the axes over which they are coded, and none of \"block\" and \"byte\"",
      [["weights", describe(sizes)], ["over", over.join()]], "Name their axes otherwise.")
  }
  if (block === "row") {
    const rest = omit(sizes, over)
    return { codes: { block: 1, byte: summed, ...rest }, scales: { block: 1, ...rest } }
  }
  if (!(block >= 16 && Number.isInteger(Math.log2(block)) && summed > 0 && summed % block === 0)) {
    fail("block codes", `the block must be a power of two from 16 on that divides ${summed}, the size of ${
      over.map((axis) => `"${axis}"`).join(" · ")}`, [["weights", describe(sizes)], ["block", String(block)]],
    "Choose a smaller block, one scale for each row (block: \"row\"), or leave these weights as they are.")
  }
  const rest = omit(sizes, over)
  return {
    codes: { ...rest, block: summed / block, byte: block * bits / 8 },
    scales: { ...rest, block: summed / block }
  }
}

/** The cells of coded weights, given the sizes of the weights and the axes over which they are contracted. */
export const specification = <A extends string, const K extends A>(
  sizes: Readonly<Record<A, number>>, over: ReadonlyArray<K>, scheme: Scheme
): {
  readonly codes: Specification<Exclude<A, K> | "block" | "byte", "code">
  readonly scales: Specification<Exclude<A, K> | "block">
} => {
  const { codes, scales } = sizesOf(sizes, over, scheme)
  return { codes: Specifications.codes(codes as never), scales: Specifications.real(scales as never) }
}

/** Codes and scales as they lie in their cells. */
export interface Encoded {
  readonly codes: Uint8Array
  readonly scales: Float32Array
}

/**
 * Codes weights whose elements lie in the order of `sizes`, in blocks along the axes `over`. Fails where a weight is
 * not finite; throws a `ShapeError` where those axes do not hold whole blocks, or there are more elements or fewer.
 */
export const encode = (
  elements: Float32Array | Float64Array, sizes: Sizes, over: ReadonlyArray<string>, scheme: Scheme
): Result.Result<Encoded, WeightError> => {
  if (elements.length !== count(sizes)) {
    fail("block codes", "there must be as many elements as the sizes have places",
      [["elements", String(elements.length)], ["weights", describe(sizes)]], "Are they those of another parameter?")
  }
  const coder = encoder(sizes, over, scheme)
  return Result.map(coder.add(elements, 0), () => coder.encoded)
}

/** Codes weights as they are read. */
export interface Encoder {
  /** So many successive elements have codes of their own: pieces are multiples of it, in any order. */
  readonly together: number
  /**
   * Codes a piece, whose first element lies at place `start` of `lying`. Fails where one is not finite; throws a
   * `ShapeError` for what is no piece.
   */
  readonly add: (elements: BlockEncoder.Weights, start: number) => Result.Result<void, WeightError>
  /** Their codes, once all have been added. */
  readonly encoded: Encoded
}

/**
 * Codes weights whose elements lie with the same axes in another order, `lying`: as `encode` does those in the order of
 * `sizes`. Where the axes `over` are the last ones there, elements may be added row by row; where they are the first,
 * so many rows as a block has, which is all of them if a whole row shares a scale; else all.
 */
export const encoder = (
  sizes: Sizes, over: ReadonlyArray<string>, scheme: Scheme, lying: Sizes = sizes
): Encoder => {
  sizesOf(sizes, over, scheme)
  const rest = Object.keys(sizes).filter((axis) => !over.includes(axis))
  const { add, codes, scales, together } = scheme.block === "row" ? RowEncoder.make(lying, rest, over)
    : BlockEncoder.make(lying, rest, over, scheme.bits, scheme.block)
  return {
    together,
    encoded: { codes, scales },
    add: (elements, start) => {
      const { length } = elements
      if (start < 0 || start % together > 0 || length % together > 0 || start + length > count(lying)) {
        fail("block codes",
          `a piece must begin at a multiple of ${together}, have a multiple of it, and end with the weights`,
          [["piece", `${length} elements from ${start}`], ["weights", describe(lying)]],
          "`together` says how many elements have codes of their own.")
      }
      return add(elements, start) ? Result.void : Result.fail(notFinite(elements, start, lying, sizes))
    }
  }
}

/** The first of some elements that is not finite, counted in the order of `sizes`; they begin at `start` of `lying`. */
const notFinite = (elements: BlockEncoder.Weights, start = 0, lying: Sizes = {}, sizes = lying): WeightError => {
  const odd = elements.findIndex((element) => !Number.isFinite(Math.fround(element)))
  const axes = Object.entries(lying).toReversed()
  let rest = start + odd
  const index = Object.fromEntries(axes.map(([axis, size]) => {
    const at = rest % size
    rest = (rest - at) / size
    return [axis, at]
  }))
  const element = Object.entries(sizes).reduce((place, [axis, size]) => place * size + (index[axis] ?? 0), rest)
  return new WeightError({ element, value: String(elements[odd]) })
}

const name = "dequantize"

/**
 * The weights that codes stand for, as real numbers. In place of `block` and `byte` they have the axes `over`, given
 * with their sizes in the order in which they were coded.
 *
 * If the result is contracted over just these axes, a backend may multiply with the codes themselves and never write
 * the weights out. A gradient flows to the scales; codes are whole numbers and have none.
 */
export const dequantize = <R extends string, const K extends string>(
  { codes, scales }: BlockCodes<R>, over: Readonly<Record<K, number>>, coding: Coding
): Tensor<NoInfer<R> | NoInfer<K>> => {
  requireKind(name, [codes], ["code"])
  requireKind(name, [scales], ["real"])
  const { block = 0, byte = 0 } = codes.sizes as Sizes
  const bits = coding === "row" ? 8 : coding
  const coded = block * byte * 8 / bits
  const isFree = Object.keys(over).every((axis) => !(axis in codes.sizes))
  const areScaled = sorted(omit(codes.sizes, ["byte"])) === sorted(scales.sizes)
  if (count(over) !== coded || !isFree || !areScaled) {
    fail(name, `as many weights in "block" and "byte" of ${bits}-bit codes as in the new axes that come from them`,
      [["codes", show(codes)], ["scales", show(scales)], ["into", describe(over)]],
      "The scales have the axes of the codes without \"byte\". Were they coded with another number of bits?")
  }
  return composite(decoding(over, coding), [codes, scales])[0]!
}

const sorted = (sizes: Sizes): string =>
  describe(Object.fromEntries(Object.entries(sizes).toSorted(([left], [right]) => left < right ? -1 : 1)))

const decoding = (over: Sizes, coding: Coding): Composite => ({
  name,
  attributes: { bits: coding, over: Object.keys(over).join() },
  residuals: 0,
  decompose: (inputs) => {
    const [codes, scales] = inputs as readonly [Tensor<"block" | "byte", "code">, Tensor<"block">]
    const bytes = real(codes)
    const steps: Tensor<"block" | "byte"> = coding === "row" ? subtract(bytes, multiply(floor(divide(bytes, 128)), 256))
      : subtract(coding === 8 ? bytes : nibbles(bytes), 2 ** (coding - 1))
    const weights = multiply(steps, scales)
    const axes = Object.keys(over)
    const flat: Untyped = merge(weights, ["block", "byte"], "byte")
    return [axes.length === 0 ? flat : split(flat, "byte", over)]
  }
})

/** The two codes of each byte, the low one first. */
const nibbles = (bytes: Tensor<"block" | "byte">): Tensor<"block" | "byte"> => {
  const high = floor(divide(bytes, 16))
  const low = subtract(bytes, multiply(high, 16))
  return merge(stack("half", [low, high]), ["byte", "half"], "byte")
}

/**
 * Where a contraction has coded weights as an operand, over just the axes that were coded: the contraction and the
 * decoding as one composite. Any other node as it is.
 */
export const fuseContraction = (node: Any): Any => {
  if (node.operation._tag !== "Contract") return node
  const { over } = node.operation
  for (const [x, weights] of [node.operands, node.operands.toReversed()]) {
    const coded = weights?.operation._tag === "Output" ? weights.operands[0] : undefined
    if (x === undefined || coded?.operation._tag !== "Composite" || coded.operation.composite.name !== name) continue
    const { attributes } = coded.operation.composite
    const axes = String(attributes["over"]).split(",")
    const [codes, scales] = coded.operands
    const isApart = Object.keys(codes?.sizes ?? {}).every((axis) => !(axis in x.sizes))
    if (codes === undefined || scales === undefined || !isApart) continue
    if (axes.length !== over.length || !axes.every((axis) => over.includes(axis))) continue
    const into = Object.fromEntries(axes.map((axis) => [axis, x.sizes[axis] ?? 0]))
    const { bits } = attributes
    return composite(product(into, bits === "row" || bits === 4 ? bits : 8), [x, codes, scales])[0]!
  }
  return node
}

const product = (over: Sizes, coding: Coding): Composite => ({
  name: coding === "row" ? "contractRows" : "contractCodes",
  attributes: { bits: coding, over: Object.keys(over).join() },
  residuals: 0,
  decompose: (inputs) => {
    const [x, codes, scales] = inputs as readonly [Untyped, Untyped, Untyped]
    return [contract(x, dequantize({ codes, scales }, over, coding), Object.keys(over))]
  },
  layout: ([order = [], codes = []]) => {
    const rest = codes.filter((axis) => axis !== "block" && axis !== "byte")
    const x = withLast(order, Object.keys(over))
    return {
      inputs: coding === "row" ? [x, ["block", "byte", ...rest], ["block", ...rest]]
        : [x, [...rest, "block", "byte"], [...rest, "block"]],
      outputs: [[...x.slice(0, x.length - Object.keys(over).length), ...rest]]
    }
  }
})
