/**
 * The transformer: tokens to a residual stream, block after block, normalized; from there to scores of the next token.
 *
 *     x₀ = E[ids],   xₗ = Blockₗ(xₗ₋₁),   hidden = norm(x_L),   logits = hidden W
 *
 * E `embedding` · W `head`, a matrix of its own (untied) · L `layerCount`
 *
 * `hidden` and `logits` are two functions: reward and value heads attach to `hidden`.
 *
 * From     Llama 2 §2.2.
 * Checked  test/llama/Transformer.test.ts (causality, recomputation, variants); test/parity/Llama.test.ts (logits and
 *          all gradients of Hugging Face's Llama); test/parity/Stories.test.ts (llama2.c's 260K model).
 * Departs  a sequence longer than `contextLength` is refused, not extrapolated.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { fail, show } from "../tensor/Node.ts"
import type { Specifications } from "../tensor/Specification.ts"
import * as Specification from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import * as Attention from "./Attention.ts"
import * as Block from "./Block.ts"
import type { Component } from "./Component.ts"
import type { Config } from "./Config.ts"
import * as FeedForward from "./FeedForward.ts"
import { weight } from "./Initialization.ts"
import * as RmsNorm from "./RmsNorm.ts"
import * as Rope from "./Rope.ts"
import type { Visibility } from "./Visibility.ts"

type Residual = Tensor<"batch" | "position" | "embed">
type Logits = Tensor<"batch" | "position" | "vocab">

/** Parameters, given those of the parts: position encoding `E`, normalization `N`, attention `A`, feed-forward `F`. */
export interface Parameters<E, N, A, F> {
  readonly embedding: Tensor<"vocab" | "embed">
  readonly encoding: E
  readonly block: ReadonlyArray<Block.Parameters<N, A, F>>
  readonly norm: N
  readonly head: Tensor<"embed" | "vocab">
}

/** Parameters of the plain Llama. */
export interface LlamaParameters
  extends Parameters<Rope.Parameters, RmsNorm.Parameters, Attention.Parameters, FeedForward.Parameters> {}

/** The parts that a model is made of. */
export interface Parts<E, N, A, F> extends Block.Parts<N, A, F> {
  readonly encoding: Component<E, Rope.Positions, Rope.Encode>
}

/** What a model is given. */
export interface Input {
  readonly ids: Tensor<"batch" | "position", "id">
  /** Where each token stands in its sequence; 0, 1, 2 … by default. */
  readonly positions?: Rope.Positions
  readonly visibility: Visibility
  /** What each block looks at besides the tokens at hand: see `KeyValueCache`. Nothing by default. */
  readonly recall?: (block: number) => Attention.Recall
}

/** How a model runs; no choice here changes its results. */
export interface Options {
  /** Run each block once more when its gradient is taken, instead of keeping what it computes. */
  readonly recomputeBlocks?: boolean
}

/** A model with parameters `P`: pure functions. */
export interface Transformer<P> {
  readonly config: Config
  /** The sizes of the parameters, and how they begin. */
  readonly specification: Specifications<P>
  /** The normalized residual stream after the last block. */
  readonly hidden: (parameters: P, input: Input, options?: Options) => Residual
  /** The scores of each token of the vocabulary to come next. */
  readonly logits: (parameters: P, hidden: Residual) => Logits
}

/** Assembles a model from parts that are given. */
export const assemble = <E, N, A, F>(
  config: Config, parts: Parts<E, N, A, F>
): Transformer<Parameters<E, N, A, F>> => ({
  config,
  specification: {
    embedding: Specification.real({ vocab: config.vocabSize, embed: config.embedSize }, weight),
    encoding: parts.encoding.specification(config),
    block: Array.from({ length: config.layerCount }, () => Block.specification(parts, config)),
    norm: parts.normalization.specification(config),
    head: Specification.real({ embed: config.embedSize, vocab: config.vocabSize }, weight)
  },
  hidden: (parameters, { ids, positions, recall = () => Attention.atHand, visibility }, options) => {
    const length = T.size(ids, "position")
    if (length > config.contextLength) {
      fail("transformer", `at most contextLength = ${config.contextLength} positions`, [["ids", show(ids)]],
        "Cut the sequences, or configure a longer context: positions that were never trained give nonsense.")
    }
    const places = positions ?? T.positions("position", length)
    const run = (i: number, block: Block.Parameters<N, A, F>, encoding: E, x: Residual): Residual => {
      const encode = parts.encoding.apply(encoding, places, config)
      return Block.apply(parts, block, { x, encode, visibility, recall: recall(i) }, config)
    }
    const embedded: Residual = T.take(parameters.embedding, "vocab", ids).pipe(T.label("embedded"))
    const last = parameters.block.reduce((x, block, i) => T.within(`block.${i}`, () =>
      options?.recomputeBlocks === true
        ? T.recompute({ block, encoding: parameters.encoding, x }, (kept) => run(i, kept.block, kept.encoding, kept.x))
        : run(i, block, parameters.encoding, x)), embedded)
    return T.within("norm", () => parts.normalization.apply(parameters.norm, last, config).pipe(T.label("result")))
  },
  logits: (parameters, hidden) => T.contract(hidden, parameters.head, "embed").pipe(T.label("logits"))
})

/** The Llama of the paper: grouped-query attention, RMSNorm, rotary positions, SwiGLU. */
export const llama = (config: Config): Transformer<LlamaParameters> => assemble(config, {
  encoding: Rope.component,
  normalization: RmsNorm.component,
  attention: Attention.component,
  feedForward: FeedForward.component
})

/** Assembles the model from the components that the services hold. */
export const make = (config: Config) => Effect.gen(function*() {
  const parts = {
    encoding: yield* Rope.PositionEncoding,
    normalization: yield* RmsNorm.Normalization,
    attention: yield* Attention.Attention,
    feedForward: yield* FeedForward.FeedForward
  }
  return assemble(config, parts)
})

/** The layer that provides all components of the paper. */
export const layer = Layer.mergeAll(Rope.layer, RmsNorm.layer, Attention.layer, FeedForward.layer)
