/**
 * Root-mean-square normalization: scale a vector to unit RMS, then by a learned gain.
 *
 *     y = g · x r,   r = 1 / √(mean(x²) + ε)
 *     x̄ = r (ȳ g) − x r³ mean(ȳ g x),   ḡ = Σ ȳ x r over all other axes
 *
 * x the residual stream · g `gain` · ε `epsilon` · r the inverse RMS, kept for the pullback
 *
 * From     Zhang & Sennrich 2019, eq. 4; before each sub-layer and before the head in Llama 2 §2.2. ε is 10⁻⁵ in
 *          Meta's released files (the paper does not say).
 * Checked  test/llama/RmsNorm.test.ts (scale invariance, unit RMS, pullback); test/parity/Llama.test.ts.
 * Departs  computes in the backend's width; Meta's code casts half precision up to float32 and back.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import { type Composite, composite, withLast } from "../tensor/Composite.ts"
import type { Untyped } from "../tensor/Node.ts"
import * as Specification from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import type { Component, Sealed } from "./Component.ts"
import { seal } from "./Component.ts"

type Residual = Tensor<"batch" | "position" | "embed">

/** Parameters of the normalization. */
export interface Parameters {
  readonly gain: Tensor<"embed">
}

/**
 * `x` with unit root mean square along `embed`, times the gain. Where `x` is not large beside √ε, it is less.
 */
export const rmsNorm = <A extends string>(
  x: Tensor<A | "embed">, gain: Tensor<"embed">, epsilon: number
): Tensor<A | "embed"> => composite(rmsNormComposite(epsilon), [x, gain])[0]!

const rmsNormComposite = (epsilon: number): Composite => ({
  name: "rmsNorm",
  attributes: { epsilon },
  residuals: 1,
  decompose: (inputs) => {
    const [x, gain] = inputs as readonly [Tensor<"embed">, Tensor<"embed">]
    const inverseRms = x.pipe(T.square, T.mean("embed"), T.add(epsilon), T.rsqrt)
    return [x.pipe(T.multiply(inverseRms), T.multiply(gain)), inverseRms]
  },
  pullback: ([x, gain], [, inverseRms], [bar]) => bar === undefined ? [] : pull(x!, gain!, inverseRms!, bar),
  layout: ([order]) => {
    const last = withLast(order ?? [], ["embed"])
    return { inputs: [last, ["embed"]], outputs: [last, last.slice(0, -1)] }
  }
})

/** Both sums are products with a vector: five passes over x, where the derived pullback takes eight. */
const pull = (x: Untyped, gain: Untyped, inverseRms: Untyped, bar: Untyped): ReadonlyArray<Untyped> => {
  const product = T.multiply(bar, x)
  const along: Untyped = T.contract(product, gain, "embed")
  const cube = inverseRms.pipe(T.square, T.multiply(inverseRms))
  const share = T.multiply(along, T.multiply(cube, 1 / T.size(x, "embed")))
  const barX = T.subtract(bar.pipe(T.multiply(gain), T.multiply(inverseRms)), T.multiply(x, share))
  return [barX, T.contract(inverseRms, product, Object.keys(inverseRms.sizes))]
}

const one: Specification.Initial = { _tag: "Constant", value: 1 }

/** RMSNorm as a component: one gain, beginning at 1. */
export const component: Component<Parameters, Residual, Residual> = {
  specification: ({ embedSize }) => ({ gain: Specification.real({ embed: embedSize }, one) }),
  apply: ({ gain }, x, { epsilon }) => rmsNorm(x, gain, epsilon)
}

/** Normalization as a service: what comes before each sub-layer and before the head. */
export class Normalization extends Context.Service<Normalization, Sealed<Residual, Residual>>()(
  "cria/llama/Normalization"
) {}

/** The layer that provides RMSNorm. */
export const layer: Layer.Layer<Normalization> = Layer.succeed(Normalization, seal(component))
