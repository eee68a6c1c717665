/**
 * Cross-entropy of the next token: how many nats the model was surprised by each token.
 *
 *     ℓ = log Σ e^z − z_t,   z̄ = ℓ̄ (softmax(z) − 1_t)
 *
 * z `logits` · t `targets` · 1_t one at the target, zero elsewhere; the difference is kept for the pullback
 *
 * From     Llama 2 §2.2 (the autoregressive objective).
 * Checked  test/loss/CrossEntropy.test.ts (against −log softmax, shifts, huge logits, pullback).
 * Departs  no target means "ignore", as −100 does in PyTorch: what is not to count has no weight in the mean.
 *
 * @module
 */
import { type Composite, composite, withLast } from "../tensor/Composite.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"

/**
 * −log softmax(logits) at the target, in nats, for each token; reduce it with a visible mean (see `loss/Mask`).
 *
 * Every target must be a piece of the vocabulary, those that a mask leaves out too.
 */
export const tokenCrossEntropy = <A extends string>(
  logits: Tensor<A | "vocab">, targets: Tensor<A, "id">
): Tensor<A> => composite(softmaxCrossEntropy, [logits, targets])[0]!

const softmaxCrossEntropy: Composite = {
  name: "softmaxCrossEntropy",
  attributes: {},
  residuals: 1,
  decompose: (inputs) => {
    const [logits, targets] = inputs as readonly [Tensor<"batch" | "vocab">, Tensor<"batch", "id">]
    const shifted = T.subtract(logits, T.stopGradient(T.max(logits, "vocab"))) // at most 0: e^z cannot overflow
    const power = T.exp(shifted)
    const total = T.sum(power, "vocab")
    const loss = T.subtract(T.log(total), T.pick("vocab")(shifted, targets))
    const minusOne = T.fill(targets.sizes as Readonly<Record<"batch", number>>, -1)
    return [loss, T.put(T.divide(power, total), "vocab", targets, minusOne, "add")]
  },
  pullback: (_, [, difference], [bar]) =>
    difference === undefined || bar === undefined ? [] : [T.multiply(difference, bar), undefined],
  layout: ([order]) => {
    const last = withLast(order ?? [], ["vocab"])
    const rows = last.slice(0, -1)
    return { inputs: [last, rows], outputs: [rows, last] }
  }
}
