/**
 * UTF-8 as SentencePiece reads it: every byte that does not begin a valid character is one U+FFFD of its own.
 *
 *     valid = shortest form, no surrogates, at most U+10FFFF
 *
 * From     google/sentencepiece, `src/util.cc` (DecodeUTF8).
 * Checked  test/token/Utf8.test.ts (the documented malformed sequences; agreement with the platform's decoder on
 *          valid text).
 * Departs  the web platform's `TextDecoder` gives one U+FFFD for a truncated character (its "maximal subpart"),
 *          SentencePiece one for each byte.
 *
 * @module
 */

/**
 * The length in bytes, 1 to 4, of the character that begins at `at`; 0 where none does, be it malformed or cut off by
 * `end`.
 */
export const characterLength = (bytes: Uint8Array, at: number, end: number): number => {
  const lead = bytes[at]!
  if (lead < 0x80) return 1
  const length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0
  return length !== 0 && at + length <= end && prefixLength(bytes, at, at + length) === length ? length : 0
}

/**
 * How many bytes from `at`, at most `end − at`, could begin one character; fewer than the character's length means that
 * it is cut off or broken there. 0 where the first byte begins none. `bytes[at] ≥ 0x80` is assumed.
 */
const prefixLength = (bytes: Uint8Array, at: number, end: number): number => {
  const lead = bytes[at]!
  if (lead < 0xc2 || lead > 0xf4) return 0
  const length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4
  if (at + 1 >= end) return 1
  // The second byte alone rules out overlong forms, surrogates and everything above U+10FFFF.
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf
  if (bytes[at + 1]! < low || bytes[at + 1]! > high) return 1
  let count = 2
  while (count < length && at + count < end && (bytes[at + count]! & 0xc0) === 0x80) count++
  return count
}

/** The character of `length` bytes at `at`, which {@link characterLength} found there. */
export const codePointOf = (bytes: Uint8Array, at: number, length: number): number => {
  const lead = bytes[at]!
  if (length === 1) return lead
  let codePoint = lead & (0x7f >> length)
  for (let i = 1; i < length; i++) codePoint = (codePoint << 6) | (bytes[at + i]! & 0x3f)
  return codePoint
}

/**
 * Whether `bytes[at, end)` could be completed to one character by more bytes: a streaming decoder must wait for them.
 */
export const isIncomplete = (bytes: Uint8Array, at: number, end: number): boolean => {
  const lead = bytes[at]!
  if (lead < 0xc2 || lead > 0xf4) return false
  const length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4
  return end - at < length && prefixLength(bytes, at, end) === end - at
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/** The text of valid UTF-8, byte-order marks kept. */
export const validText = (bytes: Uint8Array): string => decoder.decode(bytes)

/**
 * Writes bytes into `output` from `start` on, U+FFFD for each that belongs to no character. Returns where they end: up
 * to three times as many may be written.
 */
export const repair = (bytes: Uint8Array, output: Uint8Array, start: number): number => {
  let to = start
  for (let at = 0; at < bytes.length;) {
    const length = characterLength(bytes, at, bytes.length)
    if (length === 0) {
      output[to++] = 0xef
      output[to++] = 0xbf
      output[to++] = 0xbd
      at++
    } else {
      for (let i = 0; i < length; i++) output[to++] = bytes[at++]!
    }
  }
  return to
}

/** The text of any bytes: valid characters as they are, and one U+FFFD for each byte that belongs to none. */
export const lenientText = (bytes: Uint8Array): string => {
  let bad = 0
  for (let at = 0; at < bytes.length;) {
    const length = characterLength(bytes, at, bytes.length)
    if (length === 0) bad++
    at += length || 1
  }
  if (bad === 0) return validText(bytes)
  const repaired = new Uint8Array(bytes.length + 2 * bad)
  repair(bytes, repaired, 0)
  return validText(repaired)
}

/** The number of UTF-8 bytes of one code point. */
export const byteCount = (codePoint: number): number =>
  codePoint < 0x80 ? 1 : codePoint < 0x800 ? 2 : codePoint < 0x10000 ? 3 : 4

/** The number of UTF-8 bytes of a text; a lone surrogate counts three, as the U+FFFD it is written as. */
export const textByteCount = (text: string): number => {
  let count = 0
  for (let i = 0; i < text.length; i++) {
    const codePoint = text.codePointAt(i)!
    if (codePoint > 0xffff) i++
    count += byteCount(codePoint)
  }
  return count
}

/** The marks of a lead byte, by the number of bytes. */
const leads = [0, 0, 0xc0, 0xe0, 0xf0]

/** The byte `index` of the UTF-8 form of `codePoint`, whose length is {@link byteCount}. */
export const byteOf = (codePoint: number, index: number): number => {
  const count = byteCount(codePoint)
  if (count === 1) return codePoint
  const six = (codePoint >> (6 * (count - 1 - index))) & 0x3f
  return index > 0 ? 0x80 | six : leads[count]! | six
}
