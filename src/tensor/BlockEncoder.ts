/**
 * How weights become the codes of blocks, at the speed at which they can be read.
 *
 *     s = f32(max |w| / (z − 1)),   c = z + round(w / s) = z + ⌊(⌊2 w / s⌋ + 1) / 2⌋
 *
 * w the weights of a block · s its scale · z the code of zero · c the codes (see `BlockCodes`)
 *
 * The second form rounds halves up, as `Math.round` does, without a branch that depends on the weight. The largest
 * weight is found among bits, for those of float32 numbers without their sign are ordered as the numbers are. Weights
 * can be coded piece by piece, in the order of a file: row by row where the blocks of a row lie one after another; so
 * many places of all rows as a block has where they lie beside one another, and the blocks are gathered.
 *
 * From     Cria's own.
 * Checked  test/tensor/BlockEncoder.test.ts (the codes of the formula written out, in any layout and any pieces).
 *
 * @module
 */
import type { Sizes } from "./Node.ts"

/** Weights as they are given. */
export type Weights = Float32Array | Float64Array

/** Codes weights that come piece by piece. */
export interface Encoder {
  /** So many successive elements have codes of their own: pieces are multiples of it. */
  readonly together: number
  readonly codes: Uint8Array
  readonly scales: Float32Array
  /** Codes a piece, whose first element lies at place `start`. False if one is not finite. */
  readonly add: (weights: Weights, start: number) => boolean
}

/** What float32 rounds to a finite number is at most this. */
export const greatest = (2 - 2 ** -23 + 2 ** -24) * 2 ** 127 * (1 - 2 ** -53)

/** Where every index of some axes lies, the last of them changing fastest. */
export const places = (sizes: Sizes, axes: ReadonlyArray<string>): Int32Array => {
  const order = Object.keys(sizes)
  const step = (axis: string): number =>
    order.slice(order.indexOf(axis) + 1).reduce((product, name) => product * (sizes[name] ?? 1), 1)
  let found = new Int32Array(1)
  for (const axis of axes) {
    const [size, stride] = [sizes[axis] ?? 1, step(axis)]
    const next = new Int32Array(found.length * size)
    for (let i = 0; i < found.length; i++) {
      for (let k = 0; k < size; k++) next[i * size + k] = found[i]! + k * stride
    }
    found = next
  }
  return found
}

/**
 * Codes blocks along the axes `over` of weights that lie in the order of `lying`. The rows of the codes have the other
 * axes in the order of `rest`.
 */
export const make = (
  lying: Sizes, rest: ReadonlyArray<string>, over: ReadonlyArray<string>, bits: 4 | 8, block: number
): Encoder => {
  const rows = places(lying, rest)
  const columns = places(lying, over)
  const width = columns.length
  const codes = new Uint8Array(rows.length * width * bits / 8)
  const scales = new Float32Array(rows.length * width / block)
  const perRow = width / block
  const into: Into = { codes, scales, bits, block }
  if (columns.every((column, i) => column === i)) {
    const rowAt = new Int32Array(rows.length) // which row of the codes a row of the weights is
    rows.forEach((place, row) => rowAt[place / width] = row)
    const add: Encoder["add"] = (weights, start) => {
      const view = bitsOf(weights)
      for (let at = 0; at < weights.length; at += width) {
        if (!encodeBlocks(weights, view, at, rowAt[(start + at) / width]! * perRow, perRow, into)) return false
      }
      return true
    }
    return { codes, scales, together: width, add }
  }
  const isBeside = rows.every((place) => place < rows.length) &&
    columns.every((column, i) => column === i * rows.length)
  const add: Encoder["add"] = (weights, start) => {
    const [begin, stop] = [start / rows.length, (start + weights.length) / rows.length] // of all: 0 and the width
    const gathered = weights instanceof Float32Array ? new Float32Array(tileRows * block)
      : new Float64Array(tileRows * block)
    const view = bitsOf(gathered)
    for (let tile = 0; tile < rows.length; tile += tileRows) {
      const end = Math.min(rows.length, tile + tileRows)
      for (let first = begin; first < stop; first += block) {
        for (let i = 0; i < block; i++) {
          const column = columns[first + i]! - start
          for (let row = tile; row < end; row++) gathered[(row - tile) * block + i] = weights[rows[row]! + column]!
        }
        for (let row = tile; row < end; row++) {
          const next = row * perRow + first / block
          if (!encodeBlocks(gathered, view, (row - tile) * block, next, 1, into)) return false
        }
      }
    }
    return true
  }
  return { codes, scales, together: isBeside ? rows.length * block : rows.length * width, add }
}

const tileRows = 64 // whose elements of a column share cache lines

/** Where codes go, and what they are. */
interface Into {
  readonly codes: Uint8Array
  readonly scales: Float32Array
  readonly bits: 4 | 8
  readonly block: number
}

/** The bits of float32 numbers; none of others. */
export const bitsOf = (weights: Weights): Int32Array | undefined =>
  weights instanceof Float32Array ? new Int32Array(weights.buffer, weights.byteOffset, weights.length) : undefined

/** Codes `count` successive blocks, from place `at` on, as the blocks from `next` on. False if one is not finite. */
const encodeBlocks = (
  weights: Weights, view: Int32Array | undefined, at: number, next: number, count: number, into: Into
): boolean => {
  const { bits, block, codes, scales } = into
  const zero = bits === 8 ? 128 : 8
  const end = next + count
  for (; next < end; next++, at += block) {
    if (view === undefined || !(weights instanceof Float32Array)) {
      if (!encodeOdd(weights, at, next, into)) return false
      continue
    }
    const largest = largestOf(view, at, block)
    if (largest >= infinity) return false
    word[0] = largest
    const scale = scales[next] = number[0]! / (zero - 1)
    if (scale < leastNormal) { // it, or its inverse, is inexact
      encodeOdd(weights, at, next, into)
      continue
    }
    const twice = 2 / scales[next]!
    if (bits === 8) {
      const to = next * block
      for (let i = 0; i < block; i++) codes[to + i] = 128 + (Math.floor(weights[at + i]! * twice) + 1 >> 1)
    } else {
      const to = next * block / 2
      for (let i = 0; i < block; i += 2) {
        const low = 8 + (Math.floor(weights[at + i]! * twice) + 1 >> 1)
        const high = 8 + (Math.floor(weights[at + i + 1]! * twice) + 1 >> 1)
        codes[to + (i >> 1)] = low | high << 4
      }
    }
  }
  return true
}

/** The largest of some weights without its sign; NaN, or more than `greatest`, where one is not finite. */
export const magnitude = (weights: Weights, view: Int32Array | undefined, at: number, length: number): number => {
  if (view !== undefined) {
    word[0] = largestOf(view, at, length)
    return number[0]!
  }
  let largest = 0
  for (let i = at; i < at + length; i++) {
    const size = Math.abs(weights[i]!)
    if (!(size <= greatest)) return NaN
    if (size > largest) largest = size
  }
  return largest
}

const leastNormal = 2 ** -126
const infinity = 0x7f800000
const word = new Int32Array(1)
const number = new Float32Array(word.buffer)

/** The largest of some numbers' bits without the sign; infinity's, or larger ones, where one is not finite. */
const largestOf = (view: Int32Array, at: number, length: number): number => {
  let [a, b, c, d] = [0, 0, 0, 0] // four, so that no step waits for the one before it
  const end = at + length
  let i = at
  for (; i + 3 < end; i += 4) {
    const over = (view[i]! & 0x7fffffff) - a
    a = a + (over & ~(over >> 31)) | 0
    const more = (view[i + 1]! & 0x7fffffff) - b
    b = b + (more & ~(more >> 31)) | 0
    const beyond = (view[i + 2]! & 0x7fffffff) - c
    c = c + (beyond & ~(beyond >> 31)) | 0
    const still = (view[i + 3]! & 0x7fffffff) - d
    d = d + (still & ~(still >> 31)) | 0
  }
  for (; i < end; i++) a = Math.max(a, view[i]! & 0x7fffffff)
  return Math.max(a, b, c, d)
}

/** One block by the formula as it stands: of float64 numbers, or with a scale that float32 holds inexactly. */
const encodeOdd = (weights: Weights, at: number, next: number, { bits, block, codes, scales }: Into): boolean => {
  const zero = 2 ** (bits - 1)
  const largest = magnitude(weights, undefined, at, block)
  if (!(largest <= greatest)) return false
  scales[next] = largest / (zero - 1)
  const inverse = scales[next] === 0 ? 0 : 1 / scales[next]!
  for (let i = 0; i < block; i++) {
    const steps = largest === 0 ? 0 : Math.round(weights[at + i]! * inverse)
    const code = zero + (steps >= zero ? zero - 1 : steps <= -zero ? 1 - zero : steps) // a tiny scale is inexact
    const to = next * block + i
    if (bits === 8) codes[to] = code
    else if (to % 2 === 0) codes[to >> 1] = code
    else codes[to >> 1]! |= code << 4
  }
  return true
}
