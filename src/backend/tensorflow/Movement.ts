/**
 * Transposes and joins, over few axes.
 *
 * From     Cria's own; TensorFlow.js 4.22, as measured.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts (every primitive, on every engine that starts, against the
 *          reference).
 *
 * @module
 */
import { chain, type Map1, most, type Operand, type Pieces, reshaped, type Step } from "./Piece.ts"
import { around, permutation, type Shape, total } from "./Shape.ts"

/** A permutation of axes. */
export const transpose = (p: Pieces, { kind, shape: from }: Operand, order: ReadonlyArray<number>, to: Shape): Map1 => {
  const few = permutation(from, order)
  if (few.order.every((axis, i) => axis === i)) return chain(p, [p.reshape(to)])
  if (p.engine.name === "webgpu" && kind !== "real") return gathered(p, few.shape, few.order, to)
  const turned = few.order.map((axis) => few.shape[axis] ?? 1)
  if (few.order.length <= most) {
    return chain(p, [
      ...reshaped(p, from, few.shape), p.map("Transpose", { perm: few.order }), ...reshaped(p, turned, to)
    ])
  }
  const current = few.order.map((_, axis) => axis)
  const sizes = (axes: ReadonlyArray<number>): number => total(axes.map((axis) => few.shape[axis] ?? 1))
  const steps = few.order.flatMap((axis, i): ReadonlyArray<Map1> => {
    const place = current.indexOf(axis)
    if (place === i) return []
    const block = [
      sizes(current.slice(0, i)), sizes(current.slice(i, place)), sizes([axis]), sizes(current.slice(place + 1))
    ]
    current.splice(place, 1)
    current.splice(i, 0, axis)
    return [p.reshape(block), p.map("Transpose", { perm: [0, 2, 1, 3] })]
  })
  return chain(p, [...steps, p.reshape(to)])
}

/** The kernel of webgpu turns nothing but real numbers: others are gathered one by one. */
const gathered = (p: Pieces, shape: Shape, order: ReadonlyArray<number>, to: Shape): Map1 => {
  const steps = order.map((axis) => total(shape.slice(axis + 1)))
  const places = order.reduce<ReadonlyArray<number>>((places, axis, i) =>
    places.flatMap((place) => Array.from({ length: shape[axis] ?? 1 }, (_, k) => place + k * (steps[i] ?? 0))), [0])
  const indices = p.constant(Int32Array.from(places), [places.length], "int32")
  return chain(p, [
    p.reshape([places.length]), (x) => p.engine.run("GatherV2", { x, indices }, { axis: 0, batchDims: 0 }),
    p.reshape(to)
  ])
}

/** Operands one behind another along an axis. */
export const concat = (p: Pieces, axis: number, operands: ReadonlyArray<Operand>, output: Operand): Step => {
  const [outer, , inner] = around(output.shape, axis)
  const rows = operands.map(({ shape }) => chain(p, [p.reshape([outer, (shape[axis] ?? 1) * inner])]))
  const back = p.reshape(output.shape)
  return (inputs) => [p.engine.tidy(() =>
    back(p.engine.join("Concat", inputs.map((x, i) => rows[i]?.(x) ?? x), { axis: 1 })))]
}
