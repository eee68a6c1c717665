/**
 * A hash table from a pair of symbols to a number, in one flat array: the inner loop of encoding and of training.
 *
 *     slot = (left, right, value, unused);  empty ⇔ left = −1
 *
 * From     open addressing with linear probing, at most half full (Knuth, volume 3, §6.4).
 * Checked  test/token/PairTable.test.ts (agreement with a Map over random insertions).
 *
 * @module
 */

/** Symbols are 0 or greater, values any 32-bit integer but {@link absent}. `slots` is replaced when the table grows. */
export interface PairTable {
  slots: Int32Array
  count: number
}

/** What {@link get} answers for a pair that is not there. */
export const absent = -1

/** An empty table with room for `capacity` pairs before it first grows. */
export const make = (capacity: number): PairTable => {
  let slots = 16
  while (slots < capacity * 2) slots *= 2
  return { slots: new Int32Array(slots * 4).fill(-1), count: 0 }
}

const place = (slots: Int32Array, left: number, right: number): number => {
  const mask = slots.length - 4
  const h = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)
  let slot = ((h ^ (h >>> 15)) << 2) & mask
  while (slots[slot]! >= 0 && (slots[slot]! !== left || slots[slot + 1]! !== right)) slot = (slot + 4) & mask
  return slot
}

/**
 * The value of a pair, or −1; also −1 if either symbol is negative. Takes {@link PairTable.slots}, so that a loop can
 * hold it.
 */
export const get = (slots: Int32Array, left: number, right: number): number =>
  left < 0 || right < 0 ? absent : slots[place(slots, left, right) + 2]!

/** Sets the value of a pair. */
export const set = (table: PairTable, left: number, right: number, value: number): void => {
  const slot = place(table.slots, left, right)
  if (table.slots[slot]! < 0) {
    if (++table.count * 8 > table.slots.length) {
      grow(table)
      return set(table, left, right, value)
    }
    table.slots[slot] = left
    table.slots[slot + 1] = right
  }
  table.slots[slot + 2] = value
}

const grow = (table: PairTable): void => {
  const old = table.slots
  table.slots = new Int32Array(old.length * 2).fill(-1)
  for (let i = 0; i < old.length; i += 4) {
    if (old[i]! < 0) continue
    const slot = place(table.slots, old[i]!, old[i + 1]!)
    for (let k = 0; k < 3; k++) table.slots[slot + k] = old[i + k]!
  }
  table.count--
}
