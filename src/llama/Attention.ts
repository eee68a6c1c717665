/**
 * Grouped-query attention: every position takes a mean of the values it may see, weighted by how its query meets keys.
 *
 *     S = q kᵀ / √D,   P = softmax of S over the visible sources,   y = P v
 *     v̄ = Pᵀ ȳ,   S̄ = P ∘ (ȳ vᵀ − ȳ·y),   q̄ = S̄ k / √D,   k̄ = S̄ᵀ q / √D
 *
 * q, k, v queries, keys and values · D the size of a head · ȳ·y one number for each query: it equals Σ P ∘ (ȳ vᵀ), and
 * costs a pass over y instead of one over all weights · P is kept for the pullback
 *
 * Each key and value head serves a `group` of query heads; with one query head a group this is multi-head attention.
 *
 * From     Vaswani et al. 2017 §3.2; Ainslie et al. 2023 (groups); Llama 2 §2.2 and A.2.1. The pullback is that of
 *          Dao et al. 2022, appendix B.
 * Checked  test/llama/Attention.test.ts (causality, groups against repeated heads, rows that see nothing, pullback);
 *          test/parity/Llama.test.ts.
 * Departs  a position that sees nothing receives zeros, never NaN.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import { type Composite, composite } from "../tensor/Composite.ts"
import type { Untyped } from "../tensor/Node.ts"
import * as Specification from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import type { Component, Sealed } from "./Component.ts"
import { seal } from "./Component.ts"
import { residualWeight, weight } from "./Initialization.ts"
import type { Encode } from "./Rope.ts"
import type { Visibility } from "./Visibility.ts"
import { visible } from "./Visibility.ts"

type Residual = Tensor<"batch" | "position" | "embed">

/** Queries: `group` query heads for each key and value head. */
export type Queries = Tensor<"batch" | "position" | "kvHead" | "group" | "part" | "plane">

/** Keys or values of the tokens that are looked at. */
export type Keys = Tensor<"batch" | "source" | "kvHead" | "part" | "plane">

/** Keys or values of the tokens that are computed. */
export type Fresh = Tensor<"batch" | "position" | "kvHead" | "part" | "plane">

/** Keys and values of the tokens that are computed. */
export interface AtHand {
  readonly key: Fresh
  readonly value: Fresh
}

/** What attention looks at: the tokens at hand, to which a cache adds what earlier runs kept. */
export interface Recall {
  /** The keys and values that are looked at. */
  readonly sources: (fresh: AtHand) => { readonly key: Keys; readonly value: Keys }
  /** `attend` over the sources: the same in one step, for which a cache may have an operator of its own. */
  readonly attend: (query: Queries, fresh: AtHand, visibility: Visibility) => Queries
}

/** Attends to sources that are made of the tokens at hand. */
export const recalling = (sources: Recall["sources"]): Recall => ({
  sources,
  attend: (query, fresh, visibility) => {
    const { key, value } = sources(fresh)
    return attend(query, key, value, visibility)
  }
})

/** Looks at the tokens at hand and no others. */
export const atHand: Recall = recalling(({ key, value }) => ({
  key: T.rename(key, "position", "source"), value: T.rename(value, "position", "source")
}))

/** Parameters of attention. */
export interface Parameters {
  readonly query: Tensor<"embed" | "kvHead" | "group" | "part" | "plane">
  readonly key: Tensor<"embed" | "kvHead" | "part" | "plane">
  readonly value: Tensor<"embed" | "kvHead" | "part" | "plane">
  readonly output: Tensor<"kvHead" | "group" | "part" | "plane" | "embed">
}

/** What attention is given: the normalized residual stream, how to encode positions, who sees whom. */
export interface Input {
  readonly x: Residual
  readonly encode: Encode
  readonly visibility: Visibility
  readonly recall: Recall
}

/** Projects to heads, encodes positions, attends, and projects back to the residual stream. */
export const groupedQueryAttention = (
  parameters: Parameters, x: Residual, encode: Encode, visibility: Visibility, recall: Recall = atHand
): Residual => {
  const query = encode(T.contract(x, parameters.query, "embed"))
  const fresh = {
    key: encode(T.contract(x, parameters.key, "embed")), value: T.contract(x, parameters.value, "embed")
  }
  const mixed = recall.attend(query, fresh, visibility).pipe(T.label("mixed"))
  return T.contract(mixed, parameters.output, ["kvHead", "group", "part", "plane"])
}

/** softmax(q kᵀ / √D) v over the sources that each position may see. */
export const attend = (query: Queries, key: Keys, value: Keys, visibility: Visibility): Queries => {
  const sees = visible(visibility, T.size(query, "position"), T.size(key, "source"))
  return composite(attention(visibility._tag, sees.everyRowSees), [query, key, value, sees.truth])[0]!
}

const attention = (tag: Visibility["_tag"], everyRowSees: boolean): Composite => ({
  name: "attend",
  attributes: { visibility: tag },
  residuals: 1,
  decompose: (inputs) => {
    const [query, key, value, truth] = inputs as readonly [Queries, Keys, Keys, Tensor<"position" | "source", "truth">]
    const scores = T.contract(query, key, ["part", "plane"]).pipe(T.multiply(scale(query)), T.label("scores"))
    const weights = T.softmaxWhere(scores, truth, "source", { everyRowSees }).pipe(T.label("weights"))
    return [T.contract(weights, value, "source"), weights]
  },
  pullback: ([query, key, value], [mixed, weights], [bar]) =>
    bar === undefined ? [] : pull(query!, key!, value!, mixed!, weights!, bar)
})

const scale = (query: Queries): number => 1 / Math.sqrt(T.size(query, "part") * T.size(query, "plane"))

const pull = (
  query: Queries, key: Keys, value: Keys, mixed: Queries, weights: Untyped, bar: Queries
): ReadonlyArray<Untyped | undefined> => {
  const barWeights: Untyped = T.contract(bar, value, ["part", "plane"])
  const rowTotal = T.sum(T.multiply(bar, mixed), ["part", "plane"])
  const barScores: Untyped = T.multiply(weights, T.subtract(barWeights, rowTotal))
  return [
    T.multiply(T.contract(barScores, key, "source"), scale(query)),
    T.multiply(T.contract(barScores, query, ["position", "group"]), scale(query)),
    T.contract(weights, bar, ["position", "group"]),
    undefined
  ]
}

/** Grouped-query attention as a component. */
export const component: Component<Parameters, Input, Residual> = {
  specification: (config) => {
    const { embedSize: embed, headCount, headSize, kvHeadCount: kvHead } = config
    const heads = { kvHead, group: headCount / kvHead, part: 2, plane: headSize / 2 }
    const { part, plane } = heads
    return {
      query: Specification.real({ embed, ...heads }, weight),
      key: Specification.real({ embed, kvHead, part, plane }, weight),
      value: Specification.real({ embed, kvHead, part, plane }, weight),
      output: Specification.real({ ...heads, embed }, residualWeight(config))
    }
  },
  apply: (parameters, { encode, recall, visibility, x }) =>
    groupedQueryAttention(parameters, x, encode, visibility, recall)
}

/** How positions exchange what they know. */
export class Attention extends Context.Service<Attention, Sealed<Input, Residual>>()("cria/llama/Attention") {}

/** Grouped-query attention. */
export const layer: Layer.Layer<Attention> = Layer.succeed(Attention, seal(component))
