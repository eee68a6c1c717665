/**
 * Eight-bit weights: groups of successive elements share a scale, the largest of a group becomes ±127.
 *
 *     s = max |x| / 127 over the group      code = round(x / s), and 0 where s = 0
 *
 * From     quantize_q80 of llama2.c's export.py (scales in f32, halves to even); quantize_row_q8_0_ref of ggml (scales
 *          in f16, a multiplication by 1 / s, halves away from zero).
 * Checked  test/format/Quantize.test.ts (the error is at most half a step; codes and scales equal those of llama2.c's
 *          export and of the gguf package).
 *
 * @module
 */
import * as Float16 from "./Float16.ts"
import type { Quantized } from "./TensorFile.ts"

/** max |x| of each group, divided by 127 in f32. */
const scalesOf = (values: Float32Array, group: number): Float32Array<ArrayBuffer> => {
  const scales = new Float32Array(values.length / group)
  for (let at = 0; at < values.length; at += group) {
    let most = 0
    for (let i = at; i < at + group; i++) {
      const size = Math.abs(values[i]!)
      if (size > most) most = size
    }
    scales[at / group] = most / 127
  }
  return scales
}

const check = (values: Float32Array, group: number): void => {
  if (!Number.isSafeInteger(group) || group < 1 || values.length % group !== 0) {
    throw new RangeError(`${values.length} values are not groups of ${group}: give a size that divides their number`)
  }
  for (let at = 0; at < values.length; at++) {
    if (Number.isFinite(values[at])) continue
    throw new RangeError(`value ${at} is ${values[at]}, which no 8 bits hold: look for where the weights diverged`)
  }
}

/** Added to a small number and taken away again, it rounds it as f64 does: to the nearest, halves to the even one. */
const toWhole = 1.5 * 2 ** 52

/**
 * Codes and f32 scales of groups of `group` successive values, as llama2.c makes them. Throws `RangeError` where the
 * groups do not divide the values, or a value is not finite.
 */
export const inGroups = (values: Float32Array, group: number): Quantized => {
  check(values, group)
  const scales = scalesOf(values, group)
  const codes = new Int8Array(values.length)
  for (let at = 0; at < values.length; at += group) {
    const scale = scales[at / group]!
    if (scale === 0) continue // all are zero, or too small for a scale
    for (let i = at; i < at + group; i++) {
      const code = Math.fround(values[i]! / scale) + toWhole - toWhole
      codes[i] = code > 127 ? 127 : code < -127 ? -127 : code // a tiny scale is inexact
    }
  }
  return { codes, scales, group }
}

/** The bytes of {@link inGroups} in a file of llama2.c: all codes, then all scales. */
export const groupBytes = ({ codes, scales }: Quantized): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(codes.length + scales.byteLength)
  bytes.set(new Uint8Array(codes.buffer, codes.byteOffset, codes.length))
  bytes.set(new Uint8Array(scales.buffer, scales.byteOffset, scales.byteLength), codes.length)
  return bytes
}

/**
 * Blocks of Q8_0, each an f16 scale and 32 codes, as ggml makes them. Throws `RangeError` where the values are not
 * blocks of 32, a value is not finite, or one needs a scale that f16 does not hold.
 */
export const blocksOfQ8 = (values: Float32Array): Uint8Array<ArrayBuffer> => {
  check(values, 32)
  const scales = scalesOf(values, 32)
  const halves = Float16.narrowF16(scales)
  const infinite = halves.indexOf(0x7c00)
  if (infinite >= 0) {
    const [from, to] = [infinite * 32, infinite * 32 + 32]
    const most = values.subarray(from, to).reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    throw new RangeError(
      `values ${from} to ${to - 1} reach ${most}, and the f16 scale of Q8_0 ends at 8321040: write F16 or F32`
    )
  }
  const bytes = new Uint8Array(halves.length * 34)
  const codes = new Int8Array(bytes.buffer)
  for (let block = 0; block < halves.length; block++) {
    const scale = scales[block]!
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale)
    const [from, to] = [block * 32, block * 34 + 2]
    bytes[block * 34] = halves[block]! & 255
    bytes[block * 34 + 1] = halves[block]! >> 8
    for (let i = 0; i < 32; i++) {
      const steps = Math.fround(values[from + i]! * inverse)
      const even = steps + toWhole - toWhole
      const isHalf = Math.abs(steps - even) === 0.5 // seldom: the processor guesses this branch, and not that of a sign
      codes[to + i] = isHalf ? steps + Math.sign(steps) * 0.5 : even
    }
  }
  return bytes
}
