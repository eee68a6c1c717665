/**
 * How weights become the codes of rows, at the speed at which they can be read.
 *
 *     s = f32(max |w| / 127),   c = round(w / s) = ⌊(⌊2 w / s⌋ + 1) / 2⌋
 *
 * w the weights of a row · s its scale · c the codes, from −127 to 127 (see `BlockCodes`)
 *
 * The codes of a place in all rows lie one after another, as weights do in a model and not in a file. Where a row's
 * weights lie together, as in files, rows are coded as they come, and their codes turned in small squares; where rows
 * lie beside one another, no scale is known before all weights are.
 *
 * From     Cria's own; the second form is that of `BlockEncoder`.
 * Checked  test/tensor/BlockEncoder.test.ts (the codes of the formula written out, in any layout and any pieces).
 *
 * @module
 */
import { bitsOf, type Encoder, greatest, magnitude, places, type Weights } from "./BlockEncoder.ts"
import type { Sizes } from "./Node.ts"

const tile = 64 // so many codes of so many rows stay in the first cache

/** Codes rows along the axes `over` of weights that lie in the order of `lying`; rows in the order of `rest`. */
export const make = (lying: Sizes, rest: ReadonlyArray<string>, over: ReadonlyArray<string>): Encoder => {
  const rows = places(lying, rest)
  const columns = places(lying, over)
  const [count, width] = [rows.length, columns.length]
  const [codes, scales] = [new Uint8Array(count * width), new Float32Array(count)]
  if (columns.every((column, i) => column === i)) {
    const rowAt = new Int32Array(count) // which row of the codes a row of the weights is
    rows.forEach((place, row) => rowAt[place / width] = row)
    const square = new Uint8Array(tile * tile)
    const add: Encoder["add"] = (weights, start) => {
      const view = bitsOf(weights)
      const [begin, end] = [start / width, (start + weights.length) / width]
      for (let row = begin; row < end; row++) {
        const largest = magnitude(weights, view, row * width - start, width)
        if (!(largest <= greatest)) return false
        scales[rowAt[row]!] = largest / 127
      }
      for (let first = begin; first < end; first += tile) {
        const height = Math.min(tile, end - first)
        for (let column = 0; column < width; column += tile) {
          const length = Math.min(tile, width - column)
          for (let row = 0; row < height; row++) {
            const at = (first + row) * width - start + column
            encodeRun(weights, at, scales[rowAt[first + row]!]!, length, square, row)
          }
          for (let i = 0; i < length; i++) {
            put(square, i * tile, height, codes, (column + i) * count, rowAt, first)
          }
        }
      }
      return true
    }
    return { codes, scales, together: width, add }
  }
  const add: Encoder["add"] = (weights) => {
    const largest = new Float64Array(count)
    for (const column of columns) if (!enlarge(largest, weights, column, rows)) return false
    largest.forEach((size, row) => scales[row] = size / 127)
    columns.forEach((column, i) => encodeColumn(weights, column, rows, scales, codes, i * count))
    return true
  }
  return { codes, scales, together: count * width, add }
}

/** Codes successive weights of a row, a tile apart. */
const encodeRun = (
  weights: Weights, at: number, scale: number, length: number, square: Uint8Array, to: number
): void => {
  for (let i = 0; i < length; i++) square[to + i * tile] = codeOf(weights[at + i]!, scale)
}

/** Puts the codes of some rows, which lie one after another, where those rows are. */
const put = (
  square: Uint8Array, from: number, height: number, codes: Uint8Array, to: number, rowAt: Int32Array, first: number
): void => {
  for (let row = 0; row < height; row++) codes[to + rowAt[first + row]!] = square[from + row]!
}

/** Raises the largest of each row to its weight in a column. False if one is not finite. */
const enlarge = (largest: Float64Array, weights: Weights, column: number, rows: Int32Array): boolean => {
  for (let row = 0; row < rows.length; row++) {
    const size = Math.abs(weights[column + rows[row]!]!)
    if (!(size <= greatest)) return false
    if (size > largest[row]!) largest[row] = size
  }
  return true
}

/** Codes the weights of all rows in a column. */
const encodeColumn = (
  weights: Weights, column: number, rows: Int32Array, scales: Float32Array, codes: Uint8Array, to: number
): void => {
  for (let row = 0; row < rows.length; row++) codes[to + row] = codeOf(weights[column + rows[row]!]!, scales[row]!)
}

/** The code of a weight; 0 where the scale is 0, for neither NaN nor infinity has bits to shift. */
const codeOf = (weight: number, scale: number): number => {
  const steps = Math.floor(2 * weight / scale) + 1 >> 1
  return steps > 127 ? 127 : steps < -127 ? -127 : steps // a tiny scale is inexact
}
