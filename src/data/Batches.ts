/**
 * Batches of shuffled windows, each a pure function of (store, key, place): a run that resumes goes on exactly where
 * it stopped.
 *
 *     item g = epoch · W + index;   its window = π_epoch(index)
 *
 * W the number of windows · π_epoch a permutation of the windows, keyed by the epoch, that needs no memory
 *
 * Items follow one another through the epochs, so every batch is full, and every window comes exactly once per epoch.
 * A batch that reaches past the end of an epoch takes the rest from the next one.
 *
 * From     Llama 2 §2.2 is silent on the order of its data.
 * Checked  test/data/Batches.test.ts (an epoch is every window once, resuming changes nothing, slices make the whole).
 *
 * @module
 */
import * as Schema from "effect/Schema"
import * as Key from "../random/Key.ts"
import type { Windows } from "./Packing.ts"
import * as Packing from "./Packing.ts"
import type { TokenStore } from "./TokenStore.ts"

/** Where the next batch begins; goes into snapshots. */
export const Cursor = Schema.Struct({ epoch: Schema.Natural, index: Schema.Natural })
/** Where the next batch begins. */
export interface Cursor extends Schema.Schema.Type<typeof Cursor> {}

/** The place before the first batch. */
export const start: Cursor = { epoch: 0, index: 0 }

/** Shuffled batches over a store. */
export interface Batches {
  readonly store: TokenStore
  /** The order of the windows in every epoch depends on this key alone. */
  readonly key: Key.Key
  /** Windows in a batch. */
  readonly batchSize: number
  /** Tokens in a window. */
  readonly length: number
  /** Windows in an epoch. */
  readonly windowCount: number
}

/**
 * Batches of `batchSize` shuffled windows of `length` tokens. Throws a RangeError where one of the two is not a whole
 * number of at least 1, or the store holds no target.
 */
export const make = (store: TokenStore, options: {
  readonly key: Key.Key
  readonly batchSize: number
  readonly length: number
}): Batches => {
  for (const name of ["batchSize", "length"] as const) {
    if (!(Number.isInteger(options[name]) && options[name] >= 1)) {
      throw new RangeError(`Batches.make: ${name} must be a whole number of at least 1, got ${options[name]}`)
    }
  }
  const windowCount = Packing.windowCount(store, options.length)
  if (windowCount === 0) {
    throw new RangeError(`Batches.make: the store holds ${store.tokens.length} tokens, and a target needs two`)
  }
  return { ...options, store, windowCount }
}

/**
 * The batch at a cursor, and the cursor after it. Throws a RangeError for a cursor of other data or another length.
 */
export const next = (self: Batches, cursor: Cursor): { readonly batch: Windows; readonly cursor: Cursor } => {
  const { batchSize, key, length, store, windowCount } = self
  if (cursor.index >= windowCount) {
    throw new RangeError(
      `Batches.next: the cursor stands at index ${cursor.index} of an epoch of ${windowCount} windows; it was saved ` +
        `with other data or another window length, and must start again from epoch ${cursor.epoch + 1}, index 0`)
  }
  const place = (row: number): Cursor => ({
    epoch: cursor.epoch + Math.floor((cursor.index + row) / windowCount),
    index: (cursor.index + row) % windowCount
  })
  const numbers = Array.from({ length: batchSize }, (_, row) => {
    const { epoch, index } = place(row)
    return Key.permuted(Key.derive(key, "epoch", epoch), windowCount, index)
  })
  return { batch: Packing.windows(store, length, numbers), cursor: place(batchSize) }
}

/** The cursor before the batch of a step, counted from 0. */
export const cursorAt = (self: Batches, step: number): Cursor => {
  const item = step * self.batchSize
  return { epoch: Math.floor(item / self.windowCount), index: item % self.windowCount }
}

/** The batch of a step, counted from 0. */
export const at = (self: Batches, step: number): Windows => next(self, cursorAt(self, step)).batch

/**
 * A batch cut into `count` micro-batches of equally many rows, in order: views that share the batch's memory. Throws a
 * RangeError unless `count` divides the rows.
 */
export const microBatches = (batch: Windows, count: number): ReadonlyArray<Windows> => {
  if (!(Number.isInteger(count) && count >= 1 && batch.rows % count === 0)) {
    throw new RangeError(`Batches.microBatches: ${batch.rows} rows cannot be cut into ${count} equal parts; ` +
      `choose a divisor of the batch size, because a compiled program has one size`)
  }
  const rows = batch.rows / count
  return Array.from({ length: count }, (_, part) => {
    const [from, to] = [part * rows * batch.length, (part + 1) * rows * batch.length]
    const mask = batch.mask.subarray(from, to)
    return {
      rows,
      length: batch.length,
      ids: batch.ids.subarray(from, to),
      targets: batch.targets.subarray(from, to),
      mask,
      segments: batch.segments.subarray(from, to),
      positions: batch.positions.subarray(from, to),
      targetCount: mask.reduce((sum, one) => sum + one, 0)
    }
  })
}
