/**
 * Windows of a fixed length over a token store: inputs and, one place further, what is to be predicted.
 *
 *     window w:  ids = t[wL … wL + L),  targets = t[wL + 1 … wL + L + 1)
 *
 * t the tokens of the store · L `length`
 *
 * Every token of the store but the very first BOS (which nothing precedes) is the target of exactly one place. The
 * last window is filled up with BOS under a mask of 0: nothing is dropped, nothing is counted twice.
 *
 * From     Llama 2 §2.2 trains on full sequences of 4 096 tokens; §3.1 concatenates examples "to ensure the model
 *          sequence length is properly filled".
 * Checked  test/data/Packing.test.ts (windows give the documents back; segments and positions agree with the
 *          documents).
 * Departs  the paper is silent on attention between documents of one window. Pretraining here attends across them,
 *          the plain reading of concatenation; `segments` and `positions` are there for those who keep documents
 *          apart.
 *
 * @module
 */
import type { TokenStore } from "./TokenStore.ts"

/** Rows of windows, row after row: `ids[row · length + position]`. */
export interface Windows {
  readonly rows: number
  readonly length: number
  /** Input ids: [rows, length]. */
  readonly ids: Int32Array
  /** The id that follows each input: [rows, length]. */
  readonly targets: Int32Array
  /** 1 where the target is a token of the store, 0 where the row is padding: [rows, length]. */
  readonly mask: Float32Array
  /** Which document of its row each input belongs to, from 0; padding is a document of its own: [rows, length]. */
  readonly segments: Int32Array
  /**
   * The place of each input within its segment, from 0 (a document cut by the window's border starts again at 0):
   * [rows, length].
   */
  readonly positions: Int32Array
  /** The number of targets that count: the sum of `mask`. */
  readonly targetCount: number
}

/** The number of windows that hold every target of the store. */
export const windowCount = (store: TokenStore, length: number): number => Math.ceil((store.tokens.length - 1) / length)

/**
 * The windows with the given numbers, one row each, in that order. Throws a RangeError for a number that no window has.
 */
export const windows = (store: TokenStore, length: number, numbers: ReadonlyArray<number>): Windows => {
  const size = numbers.length * length
  const ids = new Int32Array(size).fill(store.bosId)
  const targets = new Int32Array(size).fill(store.bosId)
  const mask = new Float32Array(size)
  const segments = new Int32Array(size)
  const positions = new Int32Array(size)
  let targetCount = 0
  numbers.forEach((number, row) => {
    const offset = row * length
    const from = windowStart(store, length, number)
    const filled = Math.min(length, store.tokens.length - 1 - from)
    const inputs = store.tokens.subarray(from, from + filled)
    ids.set(inputs, offset)
    targets.set(store.tokens.subarray(from + 1, from + 1 + filled), offset)
    mask.fill(1, offset, offset + filled)
    targetCount += filled
    let segment = 0
    let position = 0
    for (let i = 0; i < length; i++) {
      if (i > 0 && (inputs[i] === store.bosId || i === filled)) {
        segment++
        position = 0
      }
      segments[offset + i] = segment
      positions[offset + i] = position++
    }
  })
  return { rows: numbers.length, length, ids, targets, mask, segments, positions, targetCount }
}

const windowStart = (store: TokenStore, length: number, number: number): number => {
  const count = windowCount(store, length)
  if (!(Number.isInteger(number) && number >= 0 && number < count)) {
    throw new RangeError(`Packing.windows: window ${number} must be a whole number in [0, ${count}): the store's ` +
      `${store.tokens.length} tokens fill ${count} windows of ${length}`)
  }
  return number * length
}
