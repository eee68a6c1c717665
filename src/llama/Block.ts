/**
 * A block of the transformer: attention, then the feed-forward layer, each on a normalized copy of the residual stream.
 *
 *     h = x + Attention(norm(x)),   y = h + FeedForward(norm(h))
 *
 * x, y the residual stream before and after
 *
 * From     Llama 2 §2.2 (pre-normalization).
 * Checked  test/llama/Transformer.test.ts; test/parity/Llama.test.ts.
 *
 * @module
 */
import type { Specifications } from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import type { Input as AttentionInput, Recall } from "./Attention.ts"
import type { Component } from "./Component.ts"
import type { Config } from "./Config.ts"
import type { Encode } from "./Rope.ts"
import type { Visibility } from "./Visibility.ts"

type Residual = Tensor<"batch" | "position" | "embed">

/** Parameters of a block, given those of its parts: normalization `N`, attention `A`, feed-forward `F`. */
export interface Parameters<N, A, F> {
  readonly attentionNorm: N
  readonly attention: A
  readonly feedForwardNorm: N
  readonly feedForward: F
}

/** The parts of a block. */
export interface Parts<N, A, F> {
  readonly normalization: Component<N, Residual, Residual>
  readonly attention: Component<A, AttentionInput, Residual>
  readonly feedForward: Component<F, Residual, Residual>
}

/** What a block is given. */
export interface Input {
  readonly x: Residual
  readonly encode: Encode
  readonly visibility: Visibility
  readonly recall: Recall
}

/** The specification of a block's parameters: their sizes, and how they begin. */
export const specification = <N, A, F>(
  { attention, feedForward, normalization }: Parts<N, A, F>, config: Config
): Specifications<Parameters<N, A, F>> => ({
  attentionNorm: normalization.specification(config),
  attention: attention.specification(config),
  feedForwardNorm: normalization.specification(config),
  feedForward: feedForward.specification(config)
})

/** The residual stream after the block. */
export const apply = <N, A, F>(
  { attention, feedForward, normalization }: Parts<N, A, F>,
  parameters: Parameters<N, A, F>, { encode, recall, visibility, x }: Input, config: Config
): Residual => {
  const attended = T.within("attention", () => {
    const normal = normalization.apply(parameters.attentionNorm, x, config)
    const given = { x: normal, encode, visibility, recall }
    return attention.apply(parameters.attention, given, config).pipe(T.label("result"))
  })
  const between = T.add(x, attended)
  const fed = T.within("feedForward", () => {
    const normal = normalization.apply(parameters.feedForwardNorm, between, config)
    return feedForward.apply(parameters.feedForward, normal, config).pipe(T.label("result"))
  })
  return T.add(between, fed).pipe(T.label("residual"))
}
