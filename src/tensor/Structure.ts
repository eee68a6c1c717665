/**
 * Operations on axes: rename, spread, slice, pad, join, split, merge. No arithmetic, no order.
 *
 * From     Cria's own.
 * Checked  test/tensor/Primitive.test.ts; test/message/ShapeError.test.ts.
 *
 * @module
 */
import { dual } from "effect/Function"
import type { Any, Kind, Sizes, Tensor, Untyped } from "./Node.ts"
import {
  count, describe, fail, make, omit, requireAxes, requireFree, requireKind, requireSizes, show, unite
} from "./Node.ts"

/** Gives an axis another name. */
export interface Rename {
  <const F extends string, const To extends string>(
    from: F, to: To
  ): <A extends string, K extends Kind>(x: Tensor<A | F, K>) => Tensor<NoInfer<A> | NoInfer<To>, K>
  <A extends string, K extends Kind, const F extends A, const To extends string>(
    x: Tensor<A, K>, from: F, to: To
  ): Tensor<Exclude<NoInfer<A>, NoInfer<F>> | NoInfer<To>, K>
}

/** Calls an axis by another name; two axes of one tensor may never share a name. */
export const rename: Rename = dual(3, (x: Any, from: string, to: string): Untyped => {
  requireAxes("rename", x, [from])
  if (from !== to) requireFree("rename", x, to)
  const sizes: Sizes =
    Object.fromEntries(Object.entries(x.sizes).map(([axis, size]) => [axis === from ? to : axis, size]))
  return make({ _tag: "Rename", from, to }, [x], sizes, x.kind)
})

/** Repeats a tensor along a new axis. Seldom needed, for operands broadcast by name. */
export const spread = <A extends string, K extends Kind, const X extends string>(
  x: Tensor<A, K>, axis: X, size: number
): Tensor<NoInfer<A> | NoInfer<X>, K> => {
  requireFree("spread", x, axis)
  requireSizes("spread", { [axis]: size })
  return make({ _tag: "Spread", axis }, [x], { ...x.sizes, [axis]: size }, x.kind)
}

/** The elements from `start` up to, not including, `end` of an axis. */
export const slice = <A extends string, K extends Kind>(
  x: Tensor<A, K>, axis: NoInfer<A>, start: number, end: number
): Tensor<A, K> => {
  requireAxes("slice", x, [axis])
  const size = x.sizes[axis] ?? 0
  if (!(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= size)) {
    fail("slice", `0 ≤ start ≤ end ≤ ${size}, the size of "${axis}"`, [
      ["tensor", show(x)], ["start", String(start)], ["end", String(end)]
    ], "Counted from 0, the end not included; nothing is clamped.")
  }
  return make({ _tag: "Slice", axis, start, end }, [x], { ...x.sizes, [axis]: end - start }, x.kind)
}

/** Zeros (or falsehoods) before and after along an axis. */
export const pad = <A extends string, K extends Kind>(
  x: Tensor<A, K>, axis: NoInfer<A>, before: number, after: number
): Tensor<A, K> => {
  requireAxes("pad", x, [axis])
  requireSizes("pad", { before, after })
  if (before === 0 && after === 0) return x
  return make({ _tag: "Pad", axis, before, after }, [x], { ...x.sizes, [axis]: (x.sizes[axis] ?? 0) + before + after },
    x.kind)
}

/** Joins tensors end to end along an axis they all have. */
export const concat = <const X extends string, A extends string, K extends Kind>(
  axis: X, parts: ReadonlyArray<Tensor<A | X, K>>
): Tensor<NoInfer<A> | NoInfer<X>, K> => {
  const [first] = parts
  if (first === undefined) {
    return fail("concat", "needs at least one part", [["axis", axis]], "The list of parts is empty.")
  }
  for (const part of parts) requireAxes("concat", part, [axis])
  if (parts.length === 1) return first as Untyped
  requireKind("concat", parts, [first.kind])
  const rest = parts.map((part): Any => make(part.operation, part.operands, omit(part.sizes, [axis]), part.kind))
  const sizes = unite("concat", rest.map((part, i) => [`part ${i + 1}`, part] as const))
  const isRagged = parts.some((part) => Object.keys(sizes).some((name) => !(name in part.sizes)))
  if (isRagged) {
    fail("concat", "parts must have the same axes", parts.map((part, i) => [`part ${i + 1}`, show(part)] as const),
      "Spread the part that lacks an axis.")
  }
  const total = parts.reduce((sum, part) => sum + ((part.sizes as Sizes)[axis] ?? 0), 0)
  const order = Object.keys(first.sizes).map((name) => [name, name === axis ? total : sizes[name] ?? 0] as const)
  return make({ _tag: "Concat", axis }, parts, Object.fromEntries(order), first.kind)
}

/** Lays tensors beside each other along a new axis. */
export const stack = <const X extends string, A extends string, K extends Kind>(
  axis: X, parts: ReadonlyArray<Tensor<A, K>>
): Tensor<NoInfer<A> | NoInfer<X>, K> =>
  concat(axis, parts.map((part): Untyped => spread(part, axis, 1)))

/** Cuts one axis into several, the first named changing slowest. */
export const split = <A extends string, K extends Kind, const X extends A, const S extends Readonly<Record<string,
  number>>>(
  x: Tensor<A, K>, axis: X, into: S
): Tensor<Exclude<NoInfer<A>, NoInfer<X>> | (keyof S & string), K> => {
  requireAxes("split", x, [axis])
  requireSizes("split", into)
  const size = x.sizes[axis] ?? 0
  if (Object.keys(into).length === 0) {
    fail("split", "needs at least one new axis", [["tensor", show(x)]],
      "An axis of size 1 is taken away by `at(x, axis, 0)`.")
  }
  if (count(into) !== size) {
    fail("split", `the new sizes must multiply to ${size}, the size of "${axis}"`,
      [["tensor", show(x)], ["into", describe(into)]], "Does the configuration divide, heads into widths?")
  }
  for (const name of Object.keys(into)) if (name !== axis) requireFree("split", x, name)
  const entries = Object.entries(x.sizes).flatMap((entry) => entry[0] === axis ? Object.entries(into) : [entry])
  return make({ _tag: "Split", axis, into: Object.keys(into) }, [x], Object.fromEntries(entries), x.kind)
}

/** Makes one axis of several, the first named changing slowest. */
export const merge = <A extends string, K extends Kind, const Axes extends ReadonlyArray<NoInfer<A>>,
  const R extends string>(
  x: Tensor<A, K>, axes: Axes, into: R
): Tensor<Exclude<NoInfer<A>, Axes[number]> | R, K> => {
  requireAxes("merge", x, axes)
  const [first] = axes
  if (first === undefined) return fail("merge", "needs at least one axis", [["tensor", show(x)]],
    "A new axis of size 1 is made by `spread(x, axis, 1)`.")
  if (!(axes as ReadonlyArray<string>).includes(into)) requireFree("merge", x, into)
  const size = axes.reduce((product, axis) => product * (x.sizes[axis] ?? 0), 1)
  const entries = Object.entries(x.sizes).flatMap(([name, value]): ReadonlyArray<readonly [string, number]> =>
    name === first ? [[into, size]] : axes.some((axis) => axis === name) ? [] : [[name, value]])
  return make({ _tag: "Merge", axes, into }, [x], Object.fromEntries(entries), x.kind)
}
