/**
 * Products of matrices, batched, turned and scaled.
 *
 * From     Cria's own; TensorFlow.js 4.22, as measured.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts (every primitive, on every engine that starts, against the
 *          reference).
 *
 * @module
 */
import type { Elements } from "../Backend.ts"
import type { Tensor } from "./Engine.ts"
import { inTwo, type Map2, type Of, type Operand, type Pieces, type Step } from "./Piece.ts"
import { type Shape, total } from "./Shape.ts"

/** The scale goes to the smallest of the three. */
export const matmul = (
  p: Pieces, { scale, transposeLeft, transposeRight }: Of<"matmul">, left: Operand, right: Operand, output: Operand
): Step => {
  const { engine, join } = p
  const attributes = { transposeA: transposeLeft, transposeB: transposeRight }
  const product: Map2 = engine.name === "wasm"
    ? matmulOnWasm(p, attributes, left.shape, right.shape, output.shape)
    : (a, b) => engine.run("BatchMatMul", { a, b }, attributes)
  if (scale === 1) return inTwo(product)
  const [multiply, factor] = [join("Multiply"), p.number(scale)]
  const sizes = [output, left, right].map(({ shape }) => total(shape))
  const smallest = sizes.indexOf(Math.min(...sizes))
  if (smallest === 1) return inTwo((a, b) => engine.tidy(() => product(multiply(a, factor), b)))
  if (smallest === 2) return inTwo((a, b) => engine.tidy(() => product(a, multiply(b, factor))))
  return inTwo((a, b) => engine.tidy(() => multiply(product(a, b), factor)))
}

/** Matrices of fewer multiplications are left to the slow kernel: what surrounds the fast one costs more. */
const worthSlicing = 30_000

/**
 * The fast kernel on wasm takes one pair of matrices that lie as they are; all else runs ten times slower. So operands
 * are turned and batches cut before it. It keeps the right matrix in its own order, and finds it by its data alone: the
 * same data in another shape would be multiplied as it was before, and is copied.
 */
const matmulOnWasm = (
  p: Pieces, { transposeA, transposeB }: { readonly transposeA: boolean; readonly transposeB: boolean }, left: Shape,
  right: Shape, output: Shape
): Map2 => {
  const { engine, join, map, number, reshape } = p
  const [m = 1, n = 1] = output.slice(-2)
  const k = left.at(transposeA ? -2 : -1) ?? 1
  const batch = total(output.slice(0, -2))
  const plain = { transposeA: false, transposeB: false }
  const [turn, turnBatch] = [map("Transpose", { perm: [1, 0] }), map("Transpose", { perm: [0, 2, 1] })]
  const [copy, one] = [join("Multiply"), number(1)]
  const once: Map2 = (a, b) => {
    const rows = rowsOfRight.get(b.dataId)
    if (rows === undefined) rowsOfRight.set(b.dataId, k)
    return engine.run("BatchMatMul", { a, b: rows === undefined || rows === k ? b : copy(b, one) }, plain)
  }
  const [asLeft, asRight, back] = [
    reshape(transposeA ? [k, m] : [m, k]), reshape(transposeB ? [n, k] : [k, n]), reshape(output)
  ]
  if (batch === 1) {
    return (a, b) => engine.tidy(() => {
      const [x, y] = [left.length === 2 ? a : asLeft(a), right.length === 2 ? b : asRight(b)]
      const product = once(transposeA ? turn(x) : x, transposeB ? turn(y) : y)
      return output.length === 2 ? product : back(product)
    })
  }
  if (m * k * n < worthSlicing) return (a, b) => engine.run("BatchMatMul", { a, b }, { transposeA, transposeB })
  const part = (elements: Elements, i: number, rows: number, columns: number): Tensor =>
    engine.upload(elements.subarray(i * rows * columns, (i + 1) * rows * columns), [rows, columns], "float32")
  return (a, b) => engine.tidy(() => {
    const [x, y] = [(transposeA ? turnBatch(a) : a).dataSync(), (transposeB ? turnBatch(b) : b).dataSync()]
    const products = Array.from({ length: batch }, (_, i) => once(part(x, i, m, k), part(y, i, k, n)))
    return back(engine.join("Concat", products, { axis: 0 }))
  })
}

/** How many rows a right matrix had when the wasm kernel first took its data. */
const rowsOfRight = new WeakMap<object, number>()
