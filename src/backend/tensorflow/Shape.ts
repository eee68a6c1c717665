/**
 * Shapes as kernels like them: few axes. Neighbours that an operation treats alike are merged, axes of size 1 dropped.
 *
 * Kernels of TensorFlow.js take at most six axes (some fewer, and some then give wrong numbers without a word), and
 * most are faster with fewer.
 *
 * From     Cria's own.
 * Checked  test/backend/tensorflow/Shape.test.ts.
 *
 * @module
 */

/** Sizes of axes, outermost first. */
export type Shape = ReadonlyArray<number>

/** The number of elements. */
export const total = (shape: Shape): number => shape.reduce((product, size) => product * size, 1)

/** Are these the same sizes in the same order? */
export const same = (left: Shape, right: Shape): boolean =>
  left.length === right.length && left.every((size, axis) => size === right[axis])

/** The sizes before, along and after an axis. */
export const around = (shape: Shape, axis: number): readonly [outer: number, size: number, inner: number] =>
  [total(shape.slice(0, axis)), shape[axis] ?? 1, total(shape.slice(axis + 1))]

/** Runs of neighbouring axes of `output` for which `alike` holds, by the first and last axis; size 1 is passed over. */
const runs = (output: Shape, alike: (left: number, right: number) => boolean): ReadonlyArray<ReadonlyArray<number>> => {
  const found: Array<Array<number>> = []
  output.forEach((size, axis) => {
    if (size === 1) return
    const last = found.at(-1)
    const previous = last?.at(-1)
    if (last !== undefined && previous !== undefined && alike(previous, axis)) last.push(axis)
    else found.push([axis])
  })
  return found
}

/** Operands that broadcast to an output (aligned at the last axis) and the output, with as few axes as can be. */
export const broadcasting = (
  operands: ReadonlyArray<Shape>, output: Shape
): { readonly operands: ReadonlyArray<Shape>; readonly output: Shape } => {
  const aligned = operands.map((shape) => [...Array.from({ length: output.length - shape.length }, () => 1), ...shape])
  const merged = runs(output, (left, right) => aligned.every((shape) => (shape[left] === 1) === (shape[right] === 1)))
  const merge = (shape: Shape): Shape => merged.map((axes) => total(axes.map((axis) => shape[axis] ?? 1)))
  return { operands: aligned.map(merge), output: merge(output) }
}

/** A permutation of a shape with as few axes as can be: neighbours that stay neighbours are one. */
export const permutation = (
  shape: Shape, order: ReadonlyArray<number>
): { readonly shape: Shape; readonly order: ReadonlyArray<number> } => {
  const kept = order.filter((axis) => shape[axis] !== 1)
  const place = new Map([...kept].toSorted((a, b) => a - b).map((axis, i) => [axis, i]))
  const groups: Array<Array<number>> = []
  for (const axis of kept) {
    const last = groups.at(-1)
    const previous = last?.at(-1)
    if (last !== undefined && previous !== undefined && place.get(axis) === (place.get(previous) ?? -2) + 1) {
      last.push(axis)
    } else {
      groups.push([axis])
    }
  }
  const sorted = [...groups].toSorted((a, b) => (a[0] ?? 0) - (b[0] ?? 0))
  return {
    shape: sorted.map((axes) => total(axes.map((axis) => shape[axis] ?? 1))),
    order: groups.map((group) => sorted.indexOf(group))
  }
}

/** A reduction over axes with as few axes as can be. */
export const reduction = (
  shape: Shape, axes: ReadonlyArray<number>
): { readonly shape: Shape; readonly axes: ReadonlyArray<number> } => {
  const merged = runs(shape, (left, right) => axes.includes(left) === axes.includes(right))
  return {
    shape: merged.map((group) => total(group.map((axis) => shape[axis] ?? 1))),
    axes: merged.flatMap((group, i) => axes.includes(group[0] ?? -1) ? [i] : [])
  }
}
