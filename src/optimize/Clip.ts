/**
 * Clipping by the global norm: gradients keep their direction, and together no more than a given length.
 *
 *     |g| = √(Σ over all tensors Σ g²),   g ← g · min(1, c / |g|)
 *
 * g gradients · c `most`
 *
 * From     Pascanu et al. 2013, algorithm 1, over all tensors together; c = 1 in Llama 2 §2.2.
 * Checked  test/optimize/Clip.test.ts (length and direction, short gradients untouched, zero gradients).
 * Departs  PyTorch divides by |g| + 10⁻⁶; here a gradient longer than c has the length c.
 *
 * @module
 */
import type { Scalar } from "../tensor/Node.ts"
import { isTensor } from "../tensor/Node.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import { mapAs, tensors } from "../tensor/Tree.ts"
import type { GradientMap } from "./Optimizer.ts"

/** The Euclidean length of all tensors of a tree together, as if they were one vector. */
export const globalNorm = (tree: unknown): Scalar =>
  T.sqrt(tensors(tree).map(([, leaf]) => sumOfSquares(leaf as Tensor<string>)).reduce(
    (total, part) => T.add(total, part), T.constant(0)
  ))

const sumOfSquares = (leaf: Tensor<string>): Scalar => T.sum(T.square(leaf), Object.keys(leaf.sizes))

/**
 * Scales all gradients down where they are together longer than `most`: by the norm that the step gives, that of the
 * gradients before any map, so clip first in a chain. Throws a RangeError unless `most` is above 0.
 */
export const clipByGlobalNorm = (most: number): GradientMap => {
  if (!(most > 0)) throw new RangeError(`clipByGlobalNorm: the greatest norm must be above 0, got ${most}`)
  return (gradients, { gradientNorm }) => {
    const factor = T.minimum(T.divide(T.constant(most), gradientNorm), 1) // c / 0 = ∞ is 1 too
    return mapAs<typeof gradients>()(gradients, isTensor, (leaf) => T.multiply(leaf as Tensor<string>, factor))
  }
}
