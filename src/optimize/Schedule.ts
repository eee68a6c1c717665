/**
 * Learning rates over the updates of a run: pure functions of the number of the update.
 *
 *     η(t) = η₀ t / w                                             t ≤ w
 *     η(t) = η₀ (f + (1 − f) (1 + cos π (t − w) / (T − w)) / 2)   w ≤ t ≤ T
 *
 * t the number of the update, counted from 1 · η₀ `peak` · w `warmupSteps` · T `totalSteps` · f `finalFraction`
 *
 * The first update has η₀ / w, the last f η₀; beyond the last a schedule stays where it ended. Numbers that make no
 * schedule throw a RangeError when it is made.
 *
 * From     Llama 2 §2.2: 2 000 steps of warm-up, then cosine down to 10 % of the peak (Loshchilov & Hutter 2017);
 *          Llama 2 §3.2.3: a constant rate for PPO. The straight line is the common alternative.
 * Checked  test/optimize/Schedule.test.ts (values by hand, continuity, bounds, what is refused).
 * Departs  the paper does not say from what the warm-up starts: from zero at t = 0, which no update has.
 *
 * @module
 */

/** The learning rate of an update, counted from 1. */
export type Schedule = (step: number) => number

/** What a warm-up with a decay after it is told. */
export interface Options {
  /** The highest learning rate, which the last step of the warm-up reaches. */
  readonly peak: number
  readonly warmupSteps: number
  readonly totalSteps: number
  /** The share of the peak that is left at the last step; a tenth by default. */
  readonly finalFraction?: number
}

/** Linear warm-up, then half a cosine down to a fraction of the peak. */
export const warmupCosine = (options: Options): Schedule =>
  decay("warmupCosine", options, (progress) => (1 + Math.cos(Math.PI * progress)) / 2)

/** Linear warm-up, then a straight line down to a fraction of the peak. */
export const warmupLinear = (options: Options): Schedule => decay("warmupLinear", options, (progress) => 1 - progress)

/** The same learning rate for every update; 0 trains nothing. */
export const constant = (rate: number): Schedule => {
  requireRate("constant: rate", rate)
  return () => rate
}

const requireRate = (place: string, rate: number): void => {
  if (!(Number.isFinite(rate) && rate >= 0)) {
    throw new RangeError(`${place} must be a finite number of at least 0, got ${rate}; a negative rate climbs, and a ` +
      "NaN reaches every parameter")
  }
}

const decay = (
  name: string, { finalFraction = 0.1, peak, totalSteps, warmupSteps }: Options, shape: (progress: number) => number
): Schedule => {
  requireRate(`${name}: peak`, peak)
  const areWhole = Number.isInteger(warmupSteps) && Number.isInteger(totalSteps)
  if (!(areWhole && 0 <= warmupSteps && warmupSteps < totalSteps)) {
    throw new RangeError(`${name}: 0 ≤ warmupSteps < totalSteps, both whole, got warmupSteps ${warmupSteps} and ` +
      `totalSteps ${totalSteps}; a short run needs a short warm-up`)
  }
  if (!(finalFraction >= 0 && finalFraction <= 1)) {
    throw new RangeError(`${name}: finalFraction must be between 0 and 1, got ${finalFraction}`)
  }
  return (step) => {
    if (step < warmupSteps) return peak * step / warmupSteps
    const progress = Math.min(1, (step - warmupSteps) / (totalSteps - warmupSteps))
    return peak * (finalFraction + (1 - finalFraction) * shape(progress))
  }
}
