/**
 * Rotary position encoding: turn pairs of coordinates by angles that grow with the position.
 *
 *     (y₀, y₁) = (x₀ cos φ − x₁ sin φ,  x₁ cos φ + x₀ sin φ),   φ = p θ^(−2i/D)
 *
 * p the position · i the `plane` · (x₀, x₁) the two `part`s of the plane · θ `theta` · D `headSize`, two parts a plane
 *
 * Rotated queries and keys meet in a product that depends on the distance of their positions only. The two layouts in
 * which checkpoints store a head are the two orders of `plane` and `part`: a fact of loaders, none of this file.
 *
 * From     Su et al. 2021, §3.2.2; Llama 2 §2.2.
 * Checked  test/llama/Rope.test.ts (norms, distances, pullback); test/parity/Llama.test.ts.
 * Departs  angles are computed in the backend's width (float32 in Meta's code too). In memory the parts lie apart, as
 *          in Hugging Face's files; Meta's interleave them.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import { type Composite, composite } from "../tensor/Composite.ts"
import type { Untyped } from "../tensor/Node.ts"
import { requireAxes } from "../tensor/Node.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import type { Component, Sealed } from "./Component.ts"
import { seal } from "./Component.ts"

/** The place of each token in its sequence: the same in all examples, or given for each of them. */
export type Positions = Tensor<"position", "id"> | Tensor<"batch" | "position", "id">

/** Cosines and sines of the angles, one for each position and plane. */
export interface Angles {
  readonly cos: Tensor<"position" | "plane"> | Tensor<"batch" | "position" | "plane">
  readonly sin: Tensor<"position" | "plane"> | Tensor<"batch" | "position" | "plane">
}

/** Writes the position into the heads of queries and of keys. */
export type Encode = <A extends string>(
  heads: Tensor<A | "position" | "part" | "plane">
) => Tensor<A | "position" | "part" | "plane">

/** The angles by which each position turns each plane. `headSize` must be even; `theta` is 10 000 in Llama 2. */
export const angles = (
  positions: Positions, sizes: { readonly headSize: number; readonly theta: number }
): Angles => {
  const planeCount = sizes.headSize / 2
  const frequencies = Array.from({ length: planeCount }, (_, plane) => sizes.theta ** (-plane / planeCount))
  const place = T.real(positions as Tensor<"position", "id">) // or with "batch": the rest is the same
  const angle = T.multiply(place, T.values({ plane: planeCount }, frequencies))
  return { cos: T.cos(angle), sin: T.sin(angle) }
}

/** Turns each plane of the heads by its angle. */
export const rotate = <A extends string>(
  heads: Tensor<A | "part" | "plane">, { cos, sin }: Angles
): Tensor<A | "part" | "plane"> => {
  requireAxes("rotate", heads, Object.keys(cos.sizes))
  return composite(rotation, [heads, cos, sin])[0]!
}

type Heads = Tensor<"position" | "part" | "plane">

const parts = (x: Heads): readonly [Heads, Heads] => [T.slice(x, "part", 0, 1), T.slice(x, "part", 1, 2)]

const rotation: Composite = {
  name: "rotate",
  attributes: {},
  residuals: 0,
  decompose: (inputs) => {
    const [x, cos, sin] = inputs as readonly [Heads, Tensor<"position" | "plane">, Tensor<"position" | "plane">]
    const [first, second] = parts(x)
    return [T.concat("part", [
      T.subtract(T.multiply(first, cos), T.multiply(second, sin)),
      T.add(T.multiply(second, cos), T.multiply(first, sin))
    ])]
  },
  pullback: ([x, cos, sin], _, [bar]) => bar === undefined ? [] : pull(x!, cos!, sin!, bar),
  layout: ([order = [], angle = []]) => {
    const edges = ["batch", "position", "part", "plane"]
    const heads = order.filter((axis) => !edges.includes(axis))
    const x = [...order.filter((axis) => axis === "batch"), "position", ...heads, "part", "plane"]
    const table = [...angle.filter((axis) => axis === "batch"), "position", "plane"]
    return { inputs: [x, table, table], outputs: [x] }
  }
}

/** The opposite rotation; and, for those whose frequencies are learned, the cotangents of the angles. */
const pull = (x: Untyped, cos: Untyped, sin: Untyped, bar: Untyped): ReadonlyArray<Untyped> => {
  const [barX] = composite(rotation, [bar, cos, T.negate(sin)])
  const [first, second] = parts(x)
  const [barFirst, barSecond] = parts(bar)
  const others = Object.keys(x.sizes).filter((axis) => !(axis in cos.sizes))
  const across = T.subtract(T.multiply(barSecond, first), T.multiply(barFirst, second)) as Untyped
  return [barX!, T.sum(T.multiply(bar, x), others), T.sum(across, others)]
}

/** Rotary encoding has no parameters. */
export interface Parameters {}

/** Rotary encoding as a component: from the positions of the tokens to what it does with queries and keys. */
export const component: Component<Parameters, Positions, Encode> = {
  specification: () => ({}),
  apply: (_, positions, config) => {
    const turned = angles(positions, config)
    return (heads) => rotate(heads, turned)
  }
}

/** The position encoding as a service: how queries and keys learn where they stand. */
export class PositionEncoding extends Context.Service<PositionEncoding, Sealed<Positions, Encode>>()(
  "cria/llama/PositionEncoding"
) {}

/** The layer that provides rotary encoding. */
export const layer: Layer.Layer<PositionEncoding> = Layer.succeed(PositionEncoding, seal(component))
