/**
 * Counter-based random keys: every draw is a pure function of (key, index), and keys are derived from keys by name.
 *
 *     draw i of key k = Threefry's block at counter [i low, i high, attempt, purpose] under k;  derive(k, w) is one too
 *
 * A key holds 128 bits. There is no hidden state: drawing in another order, in another batch size, or on another day
 * gives the same numbers, so any draw of a run can be replayed. Derive a key per stage, item, candidate and position,
 * then draw from it.
 *
 * From     Salmon, Moraes, Dror & Shaw 2011 (counters instead of state); the splitting of keys follows Claessen &
 *          Pałka 2013.
 * Checked  test/random/Key.test.ts (order independence, no collisions, moments, chi-square, permutations, pinned
 *          values).
 * Departs  from generators with state; indices and seeds reach 2⁵³, the safe integers of JavaScript, and what lies
 *          outside its range is a RangeError that names it.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as Hash from "./Hash.ts"
import { quantile } from "./Normal.ts"
import type { Words } from "./Threefry.ts"
import * as Threefry from "./Threefry.ts"

/** A random key: four unsigned 32-bit words, a plain value that may be compared, stored and sent. */
export type Key = Words

/** The last word of the counter tells purposes apart, so that no two kinds of draw of one key share a block. */
const purpose = { uniform: 0, normal: 1, below: 2, permuted: 3, deriveNumber: 4, deriveText: 5 } as const

/** Schema of a key as 32 hexadecimal digits, for snapshots and manifests. */
export const KeyFromHex = Schema.String.check(Schema.isPattern(/^[0-9a-f]{32}$/)).pipe(
  Schema.decodeTo(
    Schema.Tuple([Schema.Int, Schema.Int, Schema.Int, Schema.Int]),
    SchemaTransformation.transform<Words, string>({
      decode: (hex) => {
        const word = (lane: number) => Number.parseInt(hex.slice(8 * lane, 8 * lane + 8), 16)
        return [word(0), word(1), word(2), word(3)]
      },
      encode: Hash.toHex
    })
  )
)

/** A key as 32 hexadecimal digits. */
export const toHex = (key: Key): string => Hash.toHex(key)

/** The key of a seed: any safe integer or any text. */
export const make = (seed: number | string): Key => derive([0, 0, 0, 0], seed)

/**
 * The key that `words` name below `key`, e.g. `derive(key, "rollout", item, candidate)`.
 *
 * `derive(key, a, b)` equals `derive(derive(key, a), b)`. Numbers are safe integers (else a RangeError); a number and
 * its digits as text give different keys. Two different paths meet with a probability of 2⁻¹²⁸.
 */
export const derive = (key: Key, ...words: ReadonlyArray<number | string>): Key => {
  let derived = key
  for (const word of words) {
    derived = typeof word === "number"
      ? Threefry.block(derived, [low(word), high(word), 0, purpose.deriveNumber])
      : Threefry.block(Threefry.block(derived, [0, 0, 0, purpose.deriveText]), Hash.ofText(word))
  }
  return derived
}

/** The number at `index` of the key's uniform draws: a multiple of 2⁻⁵³ in [0, 1). */
export const uniform = (key: Key, index: number): number => {
  const block = draw(key, index, 2, purpose.uniform)
  return index % 2 === 0 ? fraction(block[0], block[1]) : fraction(block[2], block[3])
}

/**
 * The standard normal at `index`: one of 2³² values between −6.34 and 6.34, from 32 bits through the quantile function.
 */
export const normal = (key: Key, index: number): number =>
  quantile((draw(key, index, 4, purpose.normal)[index % 4]! + 0.5) * 2 ** -32)

/** A whole number in [0, count), every one exactly as likely; `count` is at most 2⁵³. */
export const below = (key: Key, index: number, count: number): number => {
  mustBeIn("Key.below: the count", count, 1, 2 ** 53)
  const accepted = 2 ** 53 - 2 ** 53 % count // a multiple of count, so the remainder favours nobody
  for (let attempt = 0;; attempt++) {
    const block = draw(key, index, 1, purpose.below, attempt)
    const value = (block[0] >>> 11) * 2 ** 32 + block[1]
    if (value < accepted) return value % count
  }
}

/**
 * Fills `out` with the draws `uniform(key, 0)`, `uniform(key, 1)`, …
 *
 * A Float32Array gets them cut to 24 bits, not rounded, so that 1 never appears.
 */
export const fillUniform = (key: Key, out: Float32Array | Float64Array): void => {
  const isSingle = out instanceof Float32Array
  forEachBlock(key, purpose.uniform, Math.ceil(out.length / 2), (blocks, first, count) => {
    const start = 2 * first
    const length = Math.min(2 * count, out.length - start)
    for (let i = 0; i < length; i++) {
      const word = blocks[2 * i]!
      out[start + i] = isSingle ? (word >>> 8) * 2 ** -24 : fraction(word, blocks[2 * i + 1]!)
    }
  })
}

/** Fills `out` with `mean + deviation · normal(key, i)`. */
export const fillNormal = (
  key: Key, out: Float32Array | Float64Array, options: { readonly mean: number; readonly deviation: number }
): void => {
  const { deviation, mean } = options
  forEachBlock(key, purpose.normal, Math.ceil(out.length / 4), (blocks, first, count) => {
    const start = 4 * first
    const length = Math.min(4 * count, out.length - start)
    for (let i = 0; i < length; i++) {
      out[start + i] = mean + deviation * quantile(((blocks[i]! >>> 0) + 0.5) * 2 ** -32)
    }
  })
}

/** A uniformly drawn order of 0 … count − 1 (Fisher and Yates). For orders too long to hold, see {@link permuted}. */
export const permutation = (key: Key, count: number): Uint32Array => {
  mustBeIn("Key.permutation: the count", count, 0, 2 ** 32 - 1)
  const order = new Uint32Array(count)
  for (let i = 0; i < count; i++) {
    const other = below(key, i, i + 1)
    order[i] = order[other]!
    order[other] = i
  }
  return order
}

/**
 * The place of `index` in a shuffled order of 0 … count − 1, without holding the order: a bijection for every key.
 *
 * A Feistel network of eight rounds permutes the smallest even power of two that holds `count`; outcomes past the end
 * walk on along their cycle (Black & Rogaway 2002), less than four steps on average. Every index is equally likely to
 * go everywhere, but not all `count!` orders can occur; where that matters and the order fits in memory, use {@link
 * permutation}.
 */
export const permuted = (key: Key, count: number, index: number): number => {
  mustBeIn("Key.permuted: the count", count, 1, 2 ** 52)
  mustBeIn("Key.permuted: the index", index, 0, count - 1)
  let half = 1
  while (4 ** half < count) half++
  const side = 2 ** half
  const out = new Int32Array(4)
  let place = index
  do {
    let left = Math.floor(place / side)
    let right = place % side
    for (let round = 0; round < 8; round++) {
      Threefry.fillBlocks(key, right, half, round, purpose.permuted, 1, out)
      const next = left ^ (out[0]! & (side - 1))
      left = right
      right = next
    }
    place = left * side + right
  } while (place >= count)
  return place
}

const blocksAtOnce = 1024

const forEachBlock = (
  key: Key, counterPurpose: number, total: number, use: (blocks: Int32Array, first: number, count: number) => void
): void => {
  const blocks = new Int32Array(4 * blocksAtOnce)
  for (let first = 0; first < total; first += blocksAtOnce) {
    const count = Math.min(blocksAtOnce, total - first)
    // 1024 divides 2³²: no carry inside
    Threefry.fillBlocks(key, first % 2 ** 32, high(first), 0, counterPurpose, count, blocks)
    use(blocks, first, count)
  }
}

const fraction = (word: number, next: number): number => ((word >>> 0) * 2 ** 21 + (next >>> 11)) * 2 ** -53

const draw = (key: Key, index: number, perBlock: number, counterPurpose: number, attempt = 0): Words => {
  mustBeIn("Key: the index of a draw", index, 0, Number.MAX_SAFE_INTEGER)
  const at = Math.floor(index / perBlock)
  return Threefry.block(key, [low(at), high(at), attempt, counterPurpose])
}

const low = (integer: number): number => {
  if (!Number.isSafeInteger(integer)) {
    throw new RangeError(
      `Key: a seed or a number in a derivation must be a safe integer, got ${integer}; name other things by text`)
  }
  return integer >>> 0
}

const high = (integer: number): number => Math.floor(integer / 2 ** 32) >>> 0

const mustBeIn = (what: string, value: number, from: number, to: number): void => {
  if (!(Number.isInteger(value) && value >= from && value <= to)) {
    throw new RangeError(`${what} must be a whole number from ${from} to ${to}, got ${value}`)
  }
}
