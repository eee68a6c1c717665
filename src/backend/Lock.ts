/**
 * A lock that work done at once may pass without taking it, where it is free: nothing else of this process can run
 * until such work has ended.
 *
 * Checked  test/backend/Lock.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

/** A lock that a fixed number may hold together. */
export interface Lock {
  /** Whether one more may hold it now. */
  readonly isFree: () => boolean
  /** Waits for it, and holds it while some work runs. */
  readonly hold: <A, E, R>(work: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** A lock that so many may hold together; one by default. */
export const make = (count = 1): Lock => {
  const semaphore = Semaphore.makeUnsafe(count)
  let holders = 0
  return {
    isFree: () => holders < count,
    hold: (work) => semaphore.withPermit(Effect.uninterruptibleMask((restore) => {
      holders++
      return Effect.ensuring(restore(work), Effect.sync(() => { holders-- }))
    }))
  }
}
