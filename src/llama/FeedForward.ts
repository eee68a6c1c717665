/**
 * The SwiGLU feed-forward layer: a gate decides how much of each hidden value passes.
 *
 *     y = W_down (silu(W_gate x) ∘ W_up x),   silu(z) = z σ(z)
 *
 * W_gate `gate` · W_up `up` · W_down `down` (w1, w3 and w2 in Meta's files)
 *
 * From     Shazeer 2020, eq. 6 (without biases); Llama 2 §2.2; the width of `hidden` is found in llama/Config.ts.
 * Checked  test/llama/FeedForward.test.ts; test/parity/Llama.test.ts.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as Specification from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import type { Component, Sealed } from "./Component.ts"
import { seal } from "./Component.ts"
import { residualWeight, weight } from "./Initialization.ts"

type Residual = Tensor<"batch" | "position" | "embed">

/** Parameters of the feed-forward layer. */
export interface Parameters {
  readonly gate: Tensor<"embed" | "hidden">
  readonly up: Tensor<"embed" | "hidden">
  readonly down: Tensor<"hidden" | "embed">
}

/** The gated feed-forward layer. */
export const swiGlu = ({ down, gate, up }: Parameters, x: Residual): Residual => {
  const open = T.silu(T.contract(x, gate, "embed"))
  const passed = T.multiply(open, T.contract(x, up, "embed")).pipe(T.label("passed"))
  return T.contract(passed, down, "hidden")
}

/** SwiGLU as a component. */
export const component: Component<Parameters, Residual, Residual> = {
  specification: (config) => {
    const { embedSize: embed, hiddenSize: hidden } = config
    return {
      gate: Specification.real({ embed, hidden }, weight),
      up: Specification.real({ embed, hidden }, weight),
      down: Specification.real({ hidden, embed }, residualWeight(config))
    }
  },
  apply: swiGlu
}

/** The feed-forward layer as a service: what each position does with what it knows. */
export class FeedForward extends Context.Service<FeedForward, Sealed<Residual, Residual>>()("cria/llama/FeedForward") {}

/** The layer that provides SwiGLU. */
export const layer: Layer.Layer<FeedForward> = Layer.succeed(FeedForward, seal(component))
