/**
 * AdamW: a step along the running mean of gradients, each coordinate measured by its own running size, with weight
 * decay beside it.
 *
 *     m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
 *     w ← w − η (m / c₁) / (√(v / c₂) + ε) − η λ w,   c₁ = 1 − β₁ᵗ,   c₂ = 1 − β₂ᵗ
 *
 * g gradients · w parameters · η learning rate · λ `weightDecay` · ε `epsilon` · t the number of the update, from 1
 *
 * From     Loshchilov & Hutter 2019, algorithm 2, after Kingma & Ba 2015; β₁ 0.9, β₂ 0.95, ε 10⁻⁵, λ 0.1 in Llama 2
 *          §2.2.
 * Checked  test/optimize/AdamW.test.ts (equal to the form above; no gradient is pure decay; which tensors decay).
 * Departs  what is kept is M = m / (1 − β₁) and V = v / (1 − β₂), so that each element costs eleven operations and not
 *          thirteen:
 *
 *              M ← β₁ M + g,   V ← β₂ V + g²,   w ← (1 − η λ) w − η′ M / (√V + ε′)
 *              η′ = η (1 − β₁) / c₁ · √(c₂ / (1 − β₂)),   ε′ = ε √(c₂ / (1 − β₂))
 *
 *          Put M and V in, and the factor √(c₂ / (1 − β₂)) of numerator and denominator cancels. Multiply by 1 − β to
 *          hand moments to another program. The paper does not say which tensors decay: here those with two axes or
 *          more, that is all but the gains of normalization.
 *
 * @module
 */
import * as T from "../tensor/Tensor.ts"
import type { Optimizer, Step } from "./Optimizer.ts"
import { perTensor } from "./Optimizer.ts"

/** The numbers of AdamW; Llama 2's by default. */
export interface Options {
  readonly beta1?: number
  readonly beta2?: number
  readonly epsilon?: number
  readonly weightDecay?: number
  /** Which tensors decay, by path and number of axes; those with two axes or more by default. */
  readonly decays?: (path: string, axisCount: number) => boolean
}

/**
 * AdamW, by default with Llama 2's numbers. Its memory is `first` and `second`, the scaled moments. Throws a RangeError
 * unless 0 ≤ β < 1 for both, ε > 0 and λ ≥ 0.
 */
export const adamW = (options: Options = {}): Optimizer => {
  const { beta1 = 0.9, beta2 = 0.95, decays = isMatrix, epsilon = 1e-5, weightDecay = 0.1 } = options
  if (!([beta1, beta2].every((beta) => beta >= 0 && beta < 1) && epsilon > 0 && weightDecay >= 0)) {
    throw new RangeError("adamW: 0 ≤ beta1 < 1, 0 ≤ beta2 < 1, epsilon > 0 and weightDecay ≥ 0, got " +
      `beta1 ${beta1}, beta2 ${beta2}, epsilon ${epsilon} and weightDecay ${weightDecay}`)
  }
  return perTensor(["first", "second"], (step) => {
    const { keep, rate, smallest } = scalars(step, { beta1, beta2, epsilon, weightDecay })
    return ({ gradient, memory, parameter, path }) => {
      const first = T.add(T.multiply(memory.first, beta1), gradient)
      const second = T.add(T.multiply(memory.second, beta2), T.square(gradient))
      const change = T.divide(first, T.add(T.sqrt(second), smallest)).pipe(T.multiply(rate))
      const kept = decays(path, Object.keys(parameter.sizes).length) ? T.multiply(parameter, keep) : parameter
      return { parameter: T.subtract(kept, change), memory: { first, second } }
    }
  })
}

const isMatrix = (_: string, axisCount: number): boolean => axisCount >= 2

/** 1 − η λ, η′ and ε′: the only numbers that change from update to update. */
const scalars = ({ count, learningRate }: Step, options: {
  readonly beta1: number
  readonly beta2: number
  readonly epsilon: number
  readonly weightDecay: number
}) => {
  const { beta1, beta2, epsilon, weightDecay } = options
  const correction = (beta: number): T.Scalar => // (1 − βᵗ) / (1 − β)
    T.subtract(T.constant(1), T.power(T.constant(beta), count)).pipe(T.multiply(1 / (1 - beta)))
  const scale = T.sqrt(correction(beta2))
  return {
    keep: T.subtract(T.constant(1), T.multiply(learningRate, weightDecay)),
    rate: T.divide(T.multiply(learningRate, scale), correction(beta1)),
    smallest: T.multiply(scale, epsilon)
  }
}
