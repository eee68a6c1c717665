/**
 * Plain gradient descent: the judge of other optimizers, and enough for small problems.
 *
 *     w ← w − η g
 *
 * g gradients · w parameters · η learning rate
 *
 * From     Robbins & Monro 1951.
 * Checked  test/optimize/Optimizer.test.ts.
 *
 * @module
 */
import * as T from "../tensor/Tensor.ts"
import type { Optimizer } from "./Optimizer.ts"
import { perTensor } from "./Optimizer.ts"

/** Gradient descent without memory. */
export const sgd: Optimizer = perTensor([], ({ learningRate }) => ({ gradient, parameter }) => ({
  parameter: T.subtract(parameter, T.multiply(gradient, learningRate)),
  memory: {}
}))
