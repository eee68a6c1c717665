/**
 * Operations along axes: sums, maxima, means, contractions, which take them away, and running sums, which keep them.
 *
 * From     Cria's own.
 * Checked  test/tensor/Primitive.test.ts; test/tensor/Rewrite.test.ts.
 *
 * @module
 */
import { dual } from "effect/Function"
import { add, exp, log, maximum, multiply, subtract } from "./Elementwise.ts"
import type { Any, Tensor, Untyped } from "./Node.ts"
import { fail, isTensor, make, omit, requireAxes, requireKind, show, stopGradientNode, unite } from "./Node.ts"

/** A function that removes axes: `T.sum(x, "embed")` or `x.pipe(T.sum("embed"))`. */
export interface Reduction {
  <const K extends string>(axis: K | ReadonlyArray<K>): <A extends string>(x: Tensor<A | K>) => Tensor<A>
  <A extends string, const K extends A>(x: Tensor<A>, axis: K | ReadonlyArray<K>): Tensor<Exclude<NoInfer<A>,
    NoInfer<K>>>
}

type Axes = string | ReadonlyArray<string>

const list = (axes: Axes): ReadonlyArray<string> => typeof axes === "string" ? [axes] : axes

const isDataFirst = (args: IArguments): boolean => isTensor(args[0])

const reduction = (name: string, body: (x: Any, axes: ReadonlyArray<string>) => Untyped): Reduction =>
  dual(isDataFirst, (x: Any, axis: Axes): Untyped => {
    requireKind(name, [x], ["real"])
    requireAxes(name, x, list(axis))
    return list(axis).length === 0 ? x as Untyped : body(x, list(axis))
  })

const reduce = (fn: "sum" | "max", x: Any, axes: ReadonlyArray<string>): Untyped =>
  make({ _tag: "Reduce", function: fn, axes }, [x], omit(x.sizes, axes), "real")

const requireSome = (name: string, x: Any, axes: ReadonlyArray<string>): void => {
  if (axes.some((axis) => x.sizes[axis] === 0)) {
    fail(name, "an axis of size 0 has no such value", [["tensor", show(x)], ["over", axes.join(", ")]],
      "Nothing came in: an empty batch, an empty text, or a slice that left nothing.")
  }
}

/** The sum along axes; 0 along an axis of size 0. */
export const sum: Reduction = reduction("sum", (x, axes) => reduce("sum", x, axes))

/**
 * The largest along axes, none of which may have size 0. Where several are largest the gradient is shared equally among
 * them.
 */
export const max: Reduction = reduction("max", (x, axes) => {
  requireSome("max", x, axes)
  return reduce("max", x, axes)
})

/** The mean along axes, none of which may have size 0. */
export const mean: Reduction = reduction("mean", (x, axes) => {
  requireSome("mean", x, axes)
  const number = axes.reduce((product, axis) => product * (x.sizes[axis] ?? 1), 1)
  return multiply(reduce("sum", x, axes), 1 / number)
})

/**
 * log Σ eˣ along axes, none of which may have size 0. The greatest element is taken out first, so that nothing
 * overflows. −∞ where every element is, and NaN its gradient there.
 */
export const logSumExp: Reduction = reduction("logSumExp", (x, axes) => {
  requireSome("logSumExp", x, axes)
  const top: Untyped = maximum(stopGradientNode(reduce("max", x, axes)), -3.4e38)
  return add(log(reduce("sum", exp(subtract(x as Untyped, top)), axes)), top)
})

/**
 * Multiplies and sums over the named axes (a matrix product): Σ x · y.
 *
 * Axes that both operands have and that are not summed over are walked together, as in a batch of products; axes that
 * only one has are kept.
 */
export const contract = <A extends string, B extends string, const K extends A & B>(
  x: Tensor<A>, y: Tensor<B>, over: K | ReadonlyArray<K>
): Tensor<Exclude<NoInfer<A> | NoInfer<B>, NoInfer<K>>> => {
  const axes = list(over)
  requireKind("contract", [x, y], ["real"])
  requireAxes("contract", x, axes)
  requireAxes("contract", y, axes)
  const sizes = omit(unite("contract", [["left", x], ["right", y]]), axes)
  if (axes.length === 0) return multiply(x as Untyped, y as Untyped)
  return make({ _tag: "Contract", over: axes }, [x, y], sizes, "real")
}

/** Running sums along an axis, each element included; from the end with `reverse`. */
export const cumulativeSum = <A extends string>(
  x: Tensor<A>, axis: NoInfer<A>, options?: { readonly reverse?: boolean }
): Tensor<A> => {
  requireKind("cumulativeSum", [x], ["real"])
  requireAxes("cumulativeSum", x, [axis])
  return make({ _tag: "CumulativeSum", axis, reverse: options?.reverse ?? false }, [x], x.sizes, "real")
}
