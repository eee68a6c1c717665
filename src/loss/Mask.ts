/**
 * Means over the tokens that count.
 *
 *     mean = Σ m x / n
 *
 * x `values` · m `mask`, 1 where a value counts and 0 where it does not · n `count`
 *
 * The count is given, not derived, because it is that of the whole step: where a batch is cut into micro-batches or
 * over machines, every part divides by the same number and the sum of the parts is the mean of the batch, however it
 * was cut. `countVisible` finds it and fails where nothing counts, so that 0 / 0 is a message and never a NaN.
 *
 * From     Cria's own; the paper is silent.
 * Checked  test/loss/Mask.test.ts (any split equals the whole, the error's message).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Scalar } from "../tensor/Node.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"

/** Fails when no token of a step counts, for there is no mean over nothing. */
export class AllMaskedError extends Schema.TaggedError<AllMaskedError>()("AllMaskedError", {
  /** What was masked, e.g. `step 12`. */
  place: Schema.String,
  /** The tokens that were there, none of which counts. */
  tokenCount: Schema.Int
}) {
  override get message() {
    return `${this.place}: at least one token must count, and the mask leaves out all ${this.tokenCount}\n` +
      "  Usual causes: answers cut off by the sequence length, so that only prompts are left; padding alone; a mask " +
      "made for other data. Drop such examples before they are batched."
  }
}

/**
 * Σ mask · values / count: the share of these values in the mean over all `count` values that the whole step counts.
 */
export const maskedMean = <A extends string>(values: Tensor<A>, mask: Tensor<A>, count: Scalar): Scalar => {
  const weights = T.divide(mask, count)
  return T.sum(T.multiply(values, weights), Object.keys(values.sizes) as Array<A>)
}

/** How many elements of all these masks count; fails where none does. `place` says in the error where they stand. */
export const countVisible = (
  place: string, masks: ReadonlyArray<Float32Array>
): Effect.Effect<number, AllMaskedError> => Effect.suspend(() => {
  const count = masks.reduce((total, mask) => mask.reduce((sum, value) => sum + value, total), 0)
  const tokenCount = masks.reduce((total, mask) => total + mask.length, 0)
  return count > 0 ? Effect.succeed(count) : Effect.fail(new AllMaskedError({ place, tokenCount }))
})
