/**
 * Operations by position: positions, gather, scatter, one-hot, the k largest.
 *
 * From     Cria's own.
 * Checked  test/tensor/Primitive.test.ts.
 * Departs  an id outside its axis is an error of the data; the reference interpreter names it, other backends may read
 *          anything.
 *
 * @module
 */
import { equal, idConstant, real } from "./Elementwise.ts"
import type { Any, Elements, Kind, Sizes, Tensor, Untyped } from "./Node.ts"
import {
  count, describe, fail, make, omit, requireAxes, requireFree, requireIds, requireKind, requireSizes, show, unite
} from "./Node.ts"

/** 0, 1, 2 … along an axis. */
export const positions = <const X extends string>(axis: X, size: number): Tensor<X, "id"> => {
  requireSizes("positions", { [axis]: size })
  return make({ _tag: "Positions", axis }, [], { [axis]: size }, "id")
}

const literal = (sizes: Sizes, elements: Elements, kind: Kind): Untyped => {
  requireSizes("constant", sizes)
  if (elements.length !== count(sizes)) {
    fail("constant", `${describe(sizes)} has ${count(sizes)} elements`, [["elements", String(elements.length)]],
      "Elements are given in the order of the keys of the sizes, the last changing fastest.")
  }
  return make({ _tag: "Constant", elements }, [], sizes, kind)
}

/** A real constant; elements in the order of the keys of `sizes`, the last changing fastest. */
export const values =
  <const A extends string>(sizes: Readonly<Record<A, number>>, elements: Iterable<number>): Tensor<A> =>
    literal(sizes, Float64Array.from(elements), "real")

/** A constant of ids; elements in the order of the keys of `sizes`, the last changing fastest. */
export const ids = <const A extends string>(
  sizes: Readonly<Record<A, number>>, elements: Iterable<number>
): Tensor<A, "id"> => {
  const numbers = Array.from(elements)
  requireIds("ids", numbers)
  return literal(sizes, Int32Array.from(numbers), "id")
}

/**
 * Gather: for each id, the elements of `x` at that index of `axis`.
 *
 * Axes that `x` and `ids` share are walked together; the other axes of `ids` become axes of the result, in place of
 * `axis`.
 */
export const take = <A extends string, K extends Kind, const X extends A, I extends string>(
  x: Tensor<A, K>, axis: X, ids: Tensor<I, "id">
): Tensor<Exclude<NoInfer<A>, NoInfer<X>> | NoInfer<I>, K> => takeNode(x, axis, ids)

const takeNode = (x: Any, axis: string, ids: Any): Untyped => {
  requireAxes("take", x, [axis])
  requireChoice("take", x, axis, ids)
  const rest = make(x.operation, x.operands, omit(x.sizes, [axis]), x.kind)
  return make({ _tag: "Take", axis }, [x, ids], unite("take", [["tensor", rest], ["ids", ids]]), x.kind)
}

const requireChoice = (operation: string, x: Any, axis: string, ids: Any): void => {
  requireKind(`${operation} ids`, [ids], ["id"])
  if (axis in ids.sizes) {
    fail(operation, `the ids must not have the axis "${axis}" they choose from`,
      [["tensor", show(x)], ["ids", show(ids)]],
      "Rename it in the ids.")
  }
  if (isOne(ids)) requireIndex(operation, x, axis, ids.operation.value)
}

/** `take` for code that is generic in its other axes: one element along `axis` for each id. */
export const pick = <const X extends string>(axis: X) => <A extends string>(
  x: Tensor<A | X>, ids: Tensor<A, "id">
): Tensor<A> => takeNode(x, axis, ids)

/** What stands at one index of an axis; the axis is gone. */
export const at = <A extends string, K extends Kind, const X extends A>(
  x: Tensor<A, K>, axis: X, index: number
): Tensor<Exclude<NoInfer<A>, NoInfer<X>>, K> => {
  requireAxes("at", x, [axis])
  requireIndex("at", x, axis, index)
  return take(x, axis, idConstant(index))
}

const requireIndex = (operation: string, x: Any, axis: string, index: number): void => {
  const size = x.sizes[axis] ?? 0
  if (!Number.isInteger(index) || index < 0 || index >= size) {
    fail(operation, `0 ≤ index < ${size}, the size of "${axis}"`, [["tensor", show(x)], ["index", String(index)]],
      "Indices count from 0, and never from the end.")
  }
}

/** Is this one id, known while the graph is built? */
export const isOne =
  (ids: Any): ids is Any & { readonly operation: { readonly _tag: "Fill"; readonly value: number } } =>
    ids.operation._tag === "Fill" && Object.keys(ids.sizes).length === 0

/**
 * Scatter: `base` with `values` written at `ids` along `axis`; the transpose of `take`.
 *
 * Mode `add` sums repeated ids. Mode `set` replaces; ids must then not repeat (which of them wins is not defined).
 */
export const put = <A extends string, const X extends A, I extends string, V extends string>(
  base: Tensor<A>, axis: X, ids: Tensor<I, "id">,
  values: Tensor<V> & Tensor<NoInfer<Exclude<A, X> | I>>, mode: "set" | "add"
): Tensor<A> => putNode(base, axis, ids, values, mode)

/** {@link put} without its types, for pullbacks and rewrites. */
export const putNode = (base: Any, axis: string, ids: Any, values: Any, mode: "set" | "add"): Untyped => {
  requireAxes("put", base, [axis])
  requireKind("put", [base, values], ["real"])
  requireChoice("put", base, axis, ids)
  const rest = make(base.operation, base.operands, omit(base.sizes, [axis]), base.kind)
  const wanted = unite("put", [["base", rest], ["ids", ids]])
  const room = make({ _tag: "Fill", value: 0 }, [], wanted, "real")
  const sizes = unite("put", [["values", values], ["room for them", room]])
  if (Object.keys(sizes).length !== Object.keys(values.sizes).length ||
    Object.keys(sizes).length !== Object.keys(wanted).length) {
    fail("put", `the values must have the axes ${describe(wanted)}`,
      [["base", show(base)], ["ids", show(ids)], ["values", show(values)]],
      `Those of the base without "${axis}", and those of the ids: what \`take\` would give.`)
  }
  return make({ _tag: "Put", axis, mode }, [base, ids, values], base.sizes, "real")
}

/** 1 at the id, 0 elsewhere, along a new axis. */
export const oneHot = <I extends string, const X extends string>(
  ids: Tensor<I, "id">, axis: X, size: number
): Tensor<NoInfer<I> | NoInfer<X>> => real(equal(positions(axis, size), ids))

/**
 * The `count` largest along an axis and the indices at which they stand, both along a new axis `rank` in its place:
 * largest first, of equal ones the first. Gradients flow to the elements that were chosen.
 */
export const topK = <A extends string, const X extends A, const R extends string>(
  x: Tensor<A>, axis: X, rank: R, count: number
): {
  readonly values: Tensor<Exclude<NoInfer<A>, X> | R>
  readonly ids: Tensor<Exclude<NoInfer<A>, X> | R, "id">
} => {
  requireKind("topK", [x], ["real"])
  requireAxes("topK", x, [axis])
  const size = (x.sizes as Sizes)[axis] ?? 0
  if (!Number.isInteger(count) || count < 0 || count > size) {
    fail("topK", `0 ≤ count ≤ ${size}, the size of "${axis}"`, [["tensor", show(x)], ["count", String(count)]],
      "There are not more elements to choose from.")
  }
  const rest = omit(x.sizes, [axis])
  requireFree("topK", x, rank)
  const sizes = { ...rest, [rank]: count }
  return {
    values: make({ _tag: "TopK", axis, rank, part: "values" }, [x], sizes, "real"),
    ids: make({ _tag: "TopK", axis, rank, part: "ids" }, [x], sizes, "id")
  }
}

/** Zeros with the sizes of a tensor. */
export const zerosLike = (x: Any): Untyped =>
  make({ _tag: "Fill", value: 0 }, [], x.sizes, "real")
