/**
 * Softmax over an axis, over the visible part of an axis, and the smooth gates built on the logistic function.
 *
 *     softmax(x)ᵢ = e^xᵢ / Σⱼ e^xⱼ
 *
 * From     Vaswani et al. 2017 §3.2.1 (softmax); Elfwing et al. 2017 (SiLU); Llama 2 §2.2.
 * Checked  test/tensor/Softmax.test.ts (shift invariance, gradients, fully masked rows).
 * Departs  a row that sees nothing is all zeros with zero gradient, never NaN.
 *
 * @module
 */
import { type Composite, composite, withLast } from "./Composite.ts"
import { add, divide, exp, maximum, multiply, real, select, sigmoid, subtract } from "./Elementwise.ts"
import type { Tensor, Untyped } from "./Node.ts"
import { requireAxes, requireKind, stopGradientNode } from "./Node.ts"
import { max, sum } from "./Reduction.ts"

const first = (outputs: ReadonlyArray<Untyped>): Untyped => {
  const [output] = outputs
  if (output === undefined) throw new TypeError("a composite must have an output")
  return output
}

/** p ∘ (ȳ − Σ ȳ ∘ p): the pullback of every softmax, from its output alone. */
const pullSoftmax = (weights: Untyped, bar: Untyped, axis: string): Untyped =>
  multiply(weights, subtract(bar, sum(multiply(bar, weights), axis)))

const softmaxOver = (axis: string): Composite => ({
  name: "softmax",
  attributes: { axis },
  residuals: 0,
  decompose: ([x]) => {
    const input = x as Untyped
    const power = exp(subtract(input, stopGradientNode(max(input, axis))))
    return [divide(power, sum(power, axis))]
  },
  pullback: (_, [weights], [bar]) =>
    [weights === undefined || bar === undefined ? undefined : pullSoftmax(weights, bar, axis)],
  layout: ([order]) => {
    const last = withLast(order ?? [], [axis])
    return { inputs: [last], outputs: [last] }
  }
})

/** Positive weights along an axis that sum to one. */
export const softmax = <const X extends string>(axis: X) => <A extends string>(x: Tensor<A | X>): Tensor<A | X> => {
  requireAxes("softmax", x, [axis])
  return first(composite(softmaxOver(axis), [x]))
}

const softmaxWhereOver = (axis: string, everyRowSees: boolean): Composite => ({
  name: "softmaxWhere",
  attributes: { axis, everyRowSees: everyRowSees ? "yes" : "no" },
  residuals: 0,
  decompose: (inputs) => {
    const [x, visible] = inputs as ReadonlyArray<Untyped>
    if (x === undefined || visible === undefined) return []
    const masked: Untyped = select(visible, x, -3.4e38)
    const power: Untyped = multiply(exp(subtract(masked, stopGradientNode(max(masked, axis)))), real(visible))
    // the greatest visible term is e⁰, so a sum below 1 sees nothing
    return [divide(power, maximum(sum(power, axis), 1))]
  },
  pullback: (_, [weights], [bar]) => [
    weights === undefined || bar === undefined ? undefined : pullSoftmax(weights, bar, axis),
    undefined
  ],
  layout: ([order, visible]) => {
    const last = withLast(order ?? [], [axis])
    return { inputs: [last, last.filter((name) => visible?.includes(name))], outputs: [last] }
  }
})

/**
 * Softmax along an axis over the elements where `visible` holds; zero elsewhere.
 *
 * A row that sees nothing is all zeros and passes no gradient. `everyRowSees` promises that there is none, which saves
 * a backend a pass; every axis of `visible` must be one of `x`.
 */
export const softmaxWhere = <A extends string, V extends A, const X extends V>(
  x: Tensor<A>, visible: Tensor<V, "truth">, axis: X, options?: { readonly everyRowSees?: boolean }
): Tensor<NoInfer<A>> => {
  requireAxes("softmaxWhere", x, [axis, ...Object.keys(visible.sizes).filter((name) => name !== axis)])
  requireAxes("softmaxWhere", visible, [axis])
  requireKind("softmaxWhere", [visible], ["truth"])
  return first(composite(softmaxWhereOver(axis, options?.everyRowSees ?? false), [x, visible]))
}

const siluComposite: Composite = {
  name: "silu",
  attributes: {},
  residuals: 0,
  decompose: ([x]) => [multiply(x as Untyped, sigmoid(x as Untyped))],
  pullback: ([x], [y], [bar]) => {
    if (x === undefined || y === undefined || bar === undefined) return [undefined]
    const gate = sigmoid(x)
    return [multiply(bar, add(gate, subtract(y, multiply(y, gate))))] // σ + y (1 − σ)
  },
  layout: ([order]) => ({ inputs: [order ?? []], outputs: [order ?? []] })
}

/** x · σ(x), the sigmoid linear unit. */
export const silu = <A extends string>(x: Tensor<A>): Tensor<A> => first(composite(siluComposite, [x]))
