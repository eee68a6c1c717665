/**
 * Sums and maxima over axes, one run of neighbouring axes after another.
 *
 * The wasm engine adds float32 numbers up one after the other: there, long sums are summed in parts, whose error grows
 * with the root of their length.
 *
 * From     Cria's own; TensorFlow.js 4.22, as measured.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts (every primitive, on every engine that starts, against the
 *          reference).
 *
 * @module
 */
import { chain, type Map1, type Pieces, reshaped } from "./Piece.ts"
import { reduction, type Shape, total } from "./Shape.ts"

/** A reduction over some axes. */
export const reduce = (p: Pieces, kernel: "Sum" | "Max", from: Shape, over: ReadonlyArray<number>, to: Shape): Map1 => {
  const { axes, shape } = reduction(from, over)
  if (axes.length === 0) return chain(p, reshaped(p, from, to))
  const steps = [...axes].reverse().flatMap((axis): ReadonlyArray<Map1> => {
    const before = shape.filter((_, i) => i < axis)
    const after = shape.filter((_, i) => i > axis && !axes.includes(i))
    return reduceMiddle(p, kernel, total(before), shape[axis] ?? 1, total(after))
  })
  return chain(p, [...steps, p.reshape(to)])
}

/** Sums longer than this are summed in parts where an engine adds up float32 one after the other. */
const longest = 64

/** [outer · size · inner] → [outer, inner]. */
const reduceMiddle = (
  p: Pieces, kernel: "Sum" | "Max", outer: number, size: number, inner: number
): ReadonlyArray<Map1> => {
  const attributes = kernel === "Sum" ? { axis: [1], keepDims: false } : { reductionIndices: [1], keepDims: false }
  const once = (count: number, length: number): ReadonlyArray<Map1> =>
    [p.reshape(inner === 1 ? [count, length] : [count, length, inner]), p.map(kernel, attributes)]
  if (p.engine.name !== "wasm" || kernel === "Max" || size <= longest) return once(outer, size)
  const part = partOf(size)
  const count = Math.ceil(size / part)
  const padded: ReadonlyArray<Map1> = count * part === size ? [] : [
    p.reshape([outer, size * inner]),
    p.map("PadV2", { paddings: [[0, 0], [0, (count * part - size) * inner]], constantValue: 0 })
  ]
  return [...padded, ...once(outer * count, part), ...reduceMiddle(p, kernel, outer, count, inner)]
}

/** The length of parts: a divisor near the square root if there is one, else such that little is padded. */
const partOf = (size: number): number => {
  const root = Math.ceil(Math.sqrt(size))
  const near = Array.from({ length: root }, (_, i) => root + (i % 2 === 0 ? i / 2 : -(i + 1) / 2))
  return near.find((part) => 4 * part > root && size % part === 0) ?? root
}
