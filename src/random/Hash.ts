/**
 * A 128-bit hash of texts and bytes: names documents by their content and turns words into keys.
 *
 *     H ← E(message block; H) ⊕ H, from H = 0, over the blocks of the message, then over one block with its length
 *
 * E(k; x) Threefry-4×32 of counter x under key k · H the running hash
 *
 * From     the construction of Davies and Meyer, with Merkle and Damgård's length block, over the cipher of
 *          Threefry.ts.
 * Checked  test/random/Hash.test.ts (no collision among near-equal inputs, every bit balanced, pinned values).
 * Departs  from the usual SHA-256: this one is synchronous and needs no service. It guards against accidents, not
 *          against someone who wants two documents to collide; snapshots use a cryptographic digest.
 *
 * @module
 */
import type { Words } from "./Threefry.ts"
import { fillBlocks } from "./Threefry.ts"

const absorb = (state: Int32Array, message: Int32Array): void => {
  const [h0, h1, h2, h3] = [state[0]!, state[1]!, state[2]!, state[3]!]
  fillBlocks(message, h0, h1, h2, h3, 1, state)
  state[0]! ^= h0, state[1]! ^= h1, state[2]! ^= h2, state[3]! ^= h3
}

const finish = (state: Int32Array, length: number, unit: number): Words => {
  absorb(state, Int32Array.of(length, Math.floor(length / 2 ** 32), unit, -1))
  return [state[0]! >>> 0, state[1]! >>> 0, state[2]! >>> 0, state[3]! >>> 0]
}

/** The hash of a text, over its UTF-16 code units (so unpaired surrogates count too). */
export const ofText = (text: string): Words => {
  const state = new Int32Array(4)
  const message = new Int32Array(4)
  for (let at = 0; at < text.length; at += 8) {
    for (let lane = 0; lane < 4; lane++) {
      const unit = at + 2 * lane // charCodeAt past the end is NaN, which the operators below read as 0
      message[lane] = text.charCodeAt(unit) | (text.charCodeAt(unit + 1) << 16)
    }
    absorb(state, message)
  }
  return finish(state, text.length, 2)
}

/**
 * The hash of bytes. The hash of a typed array's buffer depends on the machine's byte order; all of today's are
 * little-endian.
 */
export const ofBytes = (bytes: Uint8Array): Words => {
  const state = new Int32Array(4)
  const message = new Int32Array(4)
  for (let at = 0; at < bytes.length; at += 16) {
    for (let lane = 0; lane < 4; lane++) {
      const byte = at + 4 * lane // undefined past the end, which the operators below read as 0
      message[lane] = bytes[byte]! | (bytes[byte + 1]! << 8) | (bytes[byte + 2]! << 16) | (bytes[byte + 3]! << 24)
    }
    absorb(state, message)
  }
  return finish(state, bytes.length, 1)
}

/** Four words as 32 hexadecimal digits. */
export const toHex = (words: Words): string => words.map((word) => word.toString(16).padStart(8, "0")).join("")
