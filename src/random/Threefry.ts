/**
 * The Threefry-4×32 block function with 20 rounds: 128 bits of counter under 128 bits of key become 128
 * random-looking bits.
 *
 *     mix(x, y; r) = (x + y, (y ⋘ r) ⊕ (x + y)); after every four rounds the key schedule is added to the lanes
 *
 * r the rotation distances of the published table · the key schedule is the four key words and their parity with
 * 1BD11BDA
 *
 * From     Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (Random123), after
 *          Threefish.
 * Checked  test/random/Threefry.test.ts (the three published known answers; one bit changes half of all; blocks one by
 *          one and many at once).
 * Departs  nothing: 20 rounds are the authors' safe choice. Only additions, rotations and xors of 32-bit integers are
 *          used, so every JavaScript engine computes the same bits.
 *
 * @module
 */

/** Four unsigned 32-bit words. */
export type Words = readonly [number, number, number, number]

const parity = 0x1bd11bda

/**
 * Writes the blocks of `count` consecutive counters into `out`, four signed 32-bit words each.
 *
 * Block b encrypts the counter [low + b, high, c2, c3]; `low + count` must not pass 2³².
 */
export const fillBlocks = (
  key: Words | Int32Array, low: number, high: number, c2: number, c3: number, count: number, out: Int32Array
): void => {
  const key0 = key[0]! | 0
  const key1 = key[1]! | 0
  const key2 = key[2]! | 0
  const key3 = key[3]! | 0
  const key4 = parity ^ key0 ^ key1 ^ key2 ^ key3
  for (let b = 0; b < count; b++) {
    let k0 = key0, k1 = key1, k2 = key2, k3 = key3, k4 = key4
    let x0 = (low + b + k0) | 0
    let x1 = (high + k1) | 0
    let x2 = (c2 + k2) | 0
    let x3 = (c3 + k3) | 0
    for (let round = 1; round <= 5; round++) {
      if ((round & 1) === 1) {
        x0 = (x0 + x1) | 0, x1 = ((x1 << 10) | (x1 >>> 22)) ^ x0
        x2 = (x2 + x3) | 0, x3 = ((x3 << 26) | (x3 >>> 6)) ^ x2
        x0 = (x0 + x3) | 0, x3 = ((x3 << 11) | (x3 >>> 21)) ^ x0
        x2 = (x2 + x1) | 0, x1 = ((x1 << 21) | (x1 >>> 11)) ^ x2
        x0 = (x0 + x1) | 0, x1 = ((x1 << 13) | (x1 >>> 19)) ^ x0
        x2 = (x2 + x3) | 0, x3 = ((x3 << 27) | (x3 >>> 5)) ^ x2
        x0 = (x0 + x3) | 0, x3 = ((x3 << 23) | (x3 >>> 9)) ^ x0
        x2 = (x2 + x1) | 0, x1 = ((x1 << 5) | (x1 >>> 27)) ^ x2
      } else {
        x0 = (x0 + x1) | 0, x1 = ((x1 << 6) | (x1 >>> 26)) ^ x0
        x2 = (x2 + x3) | 0, x3 = ((x3 << 20) | (x3 >>> 12)) ^ x2
        x0 = (x0 + x3) | 0, x3 = ((x3 << 17) | (x3 >>> 15)) ^ x0
        x2 = (x2 + x1) | 0, x1 = ((x1 << 11) | (x1 >>> 21)) ^ x2
        x0 = (x0 + x1) | 0, x1 = ((x1 << 25) | (x1 >>> 7)) ^ x0
        x2 = (x2 + x3) | 0, x3 = ((x3 << 10) | (x3 >>> 22)) ^ x2
        x0 = (x0 + x3) | 0, x3 = ((x3 << 18) | (x3 >>> 14)) ^ x0
        x2 = (x2 + x1) | 0, x1 = ((x1 << 20) | (x1 >>> 12)) ^ x2
      }
      const k5 = k0
      k0 = k1, k1 = k2, k2 = k3, k3 = k4, k4 = k5
      x0 = (x0 + k0) | 0
      x1 = (x1 + k1) | 0
      x2 = (x2 + k2) | 0
      x3 = (x3 + k3 + round) | 0
    }
    const at = 4 * b
    out[at] = x0, out[at + 1] = x1, out[at + 2] = x2, out[at + 3] = x3
  }
}

/** The block of one counter as four unsigned words. */
export const block = (key: Words, counter: Words): Words => {
  const out = new Int32Array(4)
  fillBlocks(key, counter[0], counter[1], counter[2], counter[3], 1, out)
  return [out[0]! >>> 0, out[1]! >>> 0, out[2]! >>> 0, out[3]! >>> 0]
}
