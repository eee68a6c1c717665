/**
 * Numbers of 16 bits: IEEE half precision (f16) and bfloat16 (bf16) to and from f32.
 *
 *     f16   1 sign · 5 exponent (bias 15) · 10 fraction       bf16   1 sign · 8 exponent (bias 127) · 7 fraction
 *
 * Widening is exact. Narrowing rounds to the nearest, halves to the even neighbour; what is too large becomes an
 * infinity. Every bit pattern, NaNs with their payloads too, is itself again after widening and narrowing.
 *
 * From     IEEE 754-2019 §3.6 (binary16), §4.3.1 (rounding); bfloat16 as in PyTorch and ONNX.
 * Checked  test/format/Float16.test.ts (all 65 536 patterns of each, rounding against exact arithmetic).
 * Departs  a NaN keeps the high bits of its payload where PyTorch writes one canonical bf16 NaN.
 *
 * @module
 */

const floats = new Float32Array(1)
const bits = new Uint32Array(floats.buffer)

/** The bits of the f32 that an f16 is. */
const widened = (half: number): number => {
  const sign = (half & 0x8000) << 16
  const rest = half & 0x7fff
  if (rest >= 0x7c00) return sign | 0x7f800000 | ((rest & 0x3ff) << 13)
  if (rest >= 0x400) return sign | ((rest << 13) + ((127 - 15) << 23))
  floats[0] = rest * 2 ** -24 // subnormal, or zero
  return sign | bits[0]!
}

/** The f32 bits as f16, to the nearest, halves to even. */
const narrowed = (single: number): number => {
  const sign = (single >>> 16) & 0x8000
  const size = single & 0x7fffffff
  if (size >= 0x47800000) { // from 2¹⁶: infinity, or NaN; a payload that would vanish becomes the quiet bit
    return size <= 0x7f800000 ? sign | 0x7c00 : sign | 0x7c00 | ((size >>> 13) & 0x3ff || 0x200)
  }
  if (size >= 0x38800000) { // from 2⁻¹⁴, normal: the carry of the rounding may reach the exponent, and infinity
    return sign | ((size - ((127 - 15) << 23) + 0xfff + ((size >>> 13) & 1)) >>> 13)
  }
  if (size <= 0x33000000) return sign // up to 2⁻²⁵, half of the smallest subnormal: zero, which is even
  const shift = 126 - (size >>> 23) // the fraction with its leading one, in units of 2⁻²⁴
  const fraction = (size & 0x7fffff) | 0x800000
  const kept = fraction >>> shift
  const lost = fraction & ((1 << shift) - 1)
  const half = 1 << (shift - 1)
  return sign | (kept + (lost > half || (lost === half && (kept & 1) === 1) ? 1 : 0))
}

/** The bits of an array of f32, as numbers; no element passes through a register that could change a NaN. */
const bitsOf = (array: Float32Array): Uint32Array => new Uint32Array(array.buffer, array.byteOffset, array.length)

const length = (from: ArrayLike<number>, into: ArrayLike<number>): number => {
  if (from.length !== into.length) {
    throw new RangeError(`${from.length} numbers do not go into ${into.length} places: give an array of equal length`)
  }
  return from.length
}

/**
 * Widens f16 (as bits) into `into`, exactly. Throws `RangeError` unless both have one length. The halves may be the
 * second half of `into`'s own bytes.
 */
export const widenF16 = (halves: Uint16Array, into: Float32Array = new Float32Array(halves.length)): Float32Array => {
  const out = bitsOf(into)
  for (let i = 0, end = length(halves, into); i < end; i++) out[i] = widened(halves[i]!)
  return into
}

/** Narrows to f16 (as bits), to the nearest, halves to even. Throws `RangeError` unless both have one length. */
export const narrowF16 = (singles: Float32Array, into: Uint16Array = new Uint16Array(singles.length)): Uint16Array => {
  const from = bitsOf(singles)
  for (let i = 0, end = length(singles, into); i < end; i++) into[i] = narrowed(from[i]!)
  return into
}

/**
 * Widens bf16 (as bits) into `into`, exactly. Throws `RangeError` unless both have one length. The halves may be the
 * second half of `into`'s own bytes.
 */
export const widenBF16 = (brains: Uint16Array, into: Float32Array = new Float32Array(brains.length)): Float32Array => {
  const out = bitsOf(into)
  for (let i = 0, end = length(brains, into); i < end; i++) out[i] = brains[i]! << 16
  return into
}

/** Narrows to bf16 (as bits), to the nearest, halves to even. Throws `RangeError` unless both have one length. */
export const narrowBF16 = (singles: Float32Array, into: Uint16Array = new Uint16Array(singles.length)): Uint16Array => {
  const from = bitsOf(singles)
  for (let i = 0, end = length(singles, into); i < end; i++) {
    const single = from[i]!
    const isNaN = (single & 0x7fffffff) > 0x7f800000
    into[i] = isNaN
      ? (single >>> 16) | ((single & 0x7f0000) === 0 ? 0x40 : 0) // a payload that would vanish becomes the quiet bit
      : (single + 0x7fff + ((single >>> 16) & 1)) >>> 16
  }
  return into
}
