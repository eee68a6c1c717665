/**
 * Words that were encoded before, and their ids: the inner loop of encoding real text.
 *
 *     slot = (hash, place of the word, word length + 256 · id count, place of the ids);  empty ⇔ id count = 0
 *
 * From     open addressing with linear probing, at most half full; emptied, not aged, when it has grown to its limit.
 * Checked  test/token/BytePair.test.ts (what is forgotten changes nothing; texts twice against the plain algorithm).
 *
 * @module
 */
import { grown } from "./GrowingArray.ts"

/** The memory grows to this many slots (about 10 MB with the words in them), and is emptied when they are half full. */
const mostSlots = 1 << 18

/** A bounded memory; words have at most 255 code units. */
export interface WordMemory {
  slots: Int32Array<ArrayBuffer>
  /** Ids of all words, one after another. */
  pool: Int32Array<ArrayBuffer>
  /** The slot of the word `text[start, end)`, or the empty one where it would be. */
  readonly find: (text: string, start: number, end: number, hash: number) => number
  /** Remembers `ids[from, to)` for a word that `find` did not find. */
  readonly keep: (
    text: string, start: number, end: number, hash: number, ids: Int32Array, from: number, to: number
  ) => void
}

/** An empty memory. */
export const make = (): WordMemory => {
  const memory: WordMemory = {
    slots: new Int32Array(1 << 12),
    pool: new Int32Array(1 << 12),
    find: (text, start, end, hash) => {
      const length = end - start
      const { slots } = memory
      for (let slot = firstSlot(hash);; slot = (slot + 4) & (slots.length - 4)) {
        const lengths = slots[slot + 2]!
        if (lengths === 0) return slot
        if (slots[slot] !== hash || (lengths & 0xff) !== length) continue
        const from = slots[slot + 1]!
        let i = 0
        while (i < length && words[from + i] === text.charCodeAt(start + i)) i++
        if (i === length) return slot
      }
    },
    keep: (text, start, end, hash, ids, from, to) => {
      const { pool } = memory
      const isFull = used * 8 >= memory.slots.length || wordUnits + end - start > words.length ||
        poolUsed + to - from > pool.length
      if (isFull) {
        makeRoom()
        return memory.keep(text, start, end, hash, ids, from, to)
      }
      const slot = emptySlot(hash)
      const { slots } = memory
      slots[slot] = hash
      slots[slot + 1] = wordUnits
      slots[slot + 2] = (end - start) | ((to - from) << 8)
      slots[slot + 3] = poolUsed
      used++
      for (let i = start; i < end; i++) words[wordUnits++] = text.charCodeAt(i)
      for (let i = from; i < to; i++) pool[poolUsed++] = ids[i]!
    }
  }
  let words = new Uint16Array(1 << 12)
  let wordUnits = 0
  let poolUsed = 0
  let used = 0
  const firstSlot = (hash: number): number => ((hash ^ (hash >>> 16)) << 2) & (memory.slots.length - 4)
  const emptySlot = (hash: number): number => {
    let slot = firstSlot(hash)
    while (memory.slots[slot + 2] !== 0) slot = (slot + 4) & (memory.slots.length - 4)
    return slot
  }
  const makeRoom = (): void => {
    if (memory.slots.length >= mostSlots * 4) {
      memory.slots.fill(0)
      used = wordUnits = poolUsed = 0
      return
    }
    const old = memory.slots
    memory.slots = new Int32Array(old.length * 4)
    memory.pool = grown(new Int32Array(memory.pool.length * 4), memory.pool)
    words = grown(new Uint16Array(words.length * 4), words)
    for (let i = 0; i < old.length; i += 4) {
      if (old[i + 2] === 0) continue
      const slot = emptySlot(old[i]!)
      for (let k = 0; k < 4; k++) memory.slots[slot + k] = old[i + k]!
    }
  }
  return memory
}
