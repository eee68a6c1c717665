/**
 * How close is close enough: every tolerance of the tests, in one place. Raising one needs a line in docs/log.md.
 *
 * Distances are relative to the largest expected element, or to 1 where all are smaller (`Computation.distance`).
 */

/** The same sums in the same order, or without any. */
export const exact = 0

/** The same sums in another order, in float64. */
export const reordered = 1e-12

/** The same differences of numbers a million apart, in float64. */
export const shifted = 1e-9

/** A gradient against differences, in float64. */
export const differences = 1e-6

/** One operation in float32 against float64. */
export const single = 1e-5

/** A composed computation in float32 against float64. */
export const composed = 1e-4
