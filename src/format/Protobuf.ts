/**
 * Protocol-buffer wire format: bytes ⇄ numbered fields, knowing no schema.
 *
 *     message = { key, payload }*      key = varint(8 · field number + wire type)
 *     wire 0 varint · 1 eight bytes · 2 length, then that many bytes · 5 four bytes
 *
 * From     Protocol Buffers documentation, "Encoding" (proto2 and proto3 share it).
 * Checked  test/format/Protobuf.test.ts (round trips, lengths that lie, the documented examples);
 *          test/token/SentencePiece.test.ts (the real Llama 2 `.model` is rebuilt byte for byte).
 * Departs  groups (wire types 3 and 4, deprecated since 2008) are refused with their offset rather than skipped.
 *
 * @module
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

/** The four wire types in use: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes. */
export type WireType = 0 | 1 | 2 | 5

/**
 * One field of a message, as places in the bytes it was read from: `bytes[start, end)` is the whole field with its key
 * (copy it to keep a field you do not know), `bytes[from, end)` is the payload alone.
 */
export interface Field {
  readonly number: number
  readonly wire: WireType
  readonly start: number
  readonly from: number
  readonly end: number
}

/** Bytes that are not a protocol-buffer message; `offset` counts from the start of the file. */
export class ProtobufError extends Schema.TaggedError<ProtobufError>()("ProtobufError", {
  offset: Schema.Int,
  problem: Schema.String
}) {
  override get message() {
    return `protocol buffer, byte ${this.offset}: ${this.problem}\n  ` +
      "the bytes are truncated, corrupted, or not a protocol buffer: check where the file comes from and its checksum"
  }
}

/** What {@link visit} tells of each field: its number and wire type, and the places that {@link Field} explains. */
export type Visit = (number: number, wire: WireType, start: number, from: number, end: number) => void

/**
 * Walks the fields of the message in `bytes[from, to)` in file order; nothing is copied or allocated, so a length that
 * lies costs nothing. Returns the first thing that is not wire format, with its byte offset, or undefined.
 */
export const visit = (bytes: Uint8Array, from: number, to: number, each: Visit): ProtobufError | undefined => {
  const wrong = (offset: number, problem: string) => new ProtobufError({ offset, problem })
  let at = from
  while (at < to) {
    const start = at
    let end = varintEnd(bytes, at, to)
    if (end < 0) return wrong(at, `a field key does not end (${unended(end)})`)
    const key = varintNumber(bytes, at, end)
    const number = Math.floor(key / 8)
    const wire = key % 8
    if (number < 1 || number > 536_870_911) return wrong(at, `field number ${number} is not between 1 and 536870911`)
    let payload = end
    if (wire === 2) {
      payload = varintEnd(bytes, end, to)
      if (payload < 0) return wrong(end, `the length of field ${number} does not end (${unended(payload)})`)
      end = payload + varintNumber(bytes, end, payload)
    } else if (wire === 0) {
      end = varintEnd(bytes, payload, to)
      if (end < 0) return wrong(payload, `the varint of field ${number} does not end (${unended(end)})`)
    } else if (wire === 5 || wire === 1) end = payload + (wire === 5 ? 4 : 8)
    else {
      return wrong(start, `field ${number} has wire type ${wire}; only 0, 1, 2 and 5 are readable (3 and 4 are groups)`)
    }
    if (end > to) {
      return wrong(payload, `field ${number} claims ${end - payload} bytes, ${to - payload} are left in its message`)
    }
    each(number, wire, start, payload, end)
    at = end
  }
  return undefined
}

/** The fields of the message in `bytes[from, to)`: {@link visit} as a value. */
export const fields = (
  bytes: Uint8Array,
  from = 0,
  to = bytes.length
): Result.Result<ReadonlyArray<Field>, ProtobufError> => {
  const found: Array<Field> = []
  const error = visit(
    bytes,
    from,
    to,
    (number, wire, start, from, end) => found.push({ number, wire, start, from, end })
  )
  return error === undefined ? Result.succeed(found) : Result.fail(error)
}

/** Why a varint does not end, from what {@link varintEnd} said. */
export const unended = (end: number): string => end === -1 ? "end of message" : "more than 10 bytes"

/** Where the varint at `at` ends; −1 if the message ends first, −2 if it is longer than any varint can be. */
export const varintEnd = (bytes: Uint8Array, at: number, to: number): number => {
  for (let i = at; i < at + 10; i++) {
    if (i >= to) return -1
    if (bytes[i]! < 0x80) return i + 1
  }
  return -2
}

/**
 * The varint in `bytes[from, end)` as a number, exact below 2⁵³: larger ones are still large, which is all a length
 * needs.
 */
export const varintNumber = (bytes: Uint8Array, from: number, end: number): number => {
  if (end - from === 1) return bytes[from]!
  let value = 0
  for (let i = end - 1; i >= from; i--) value = value * 128 + (bytes[i]! & 0x7f)
  return value
}

/** An `int32`, `enum` or `bool` payload: the low 32 bits, signed, as protocol buffers define the narrowing. */
export const int32 = (bytes: Uint8Array, field: Pick<Field, "from" | "end">): number => {
  let value = 0
  for (let i = field.from, shift = 0; i < field.end && shift < 32; i++, shift += 7) value |= (bytes[i]! & 0x7f) << shift
  return value
}

/** An `int64` payload. */
export const int64 = (bytes: Uint8Array, field: Field): bigint => {
  let value = BigInt(0)
  for (let i = field.end - 1; i >= field.from; i--) value = (value << BigInt(7)) | BigInt(bytes[i]! & 0x7f)
  return BigInt.asIntN(64, value)
}

/** A `float` payload (wire type 5). */
export const float32 = (bytes: Uint8Array, field: Pick<Field, "from">): number => {
  for (let i = 0; i < 4; i++) floatBytes[i] = bytes[field.from + i]!
  return floatView.getFloat32(0, true)
}
const floatBytes = new Uint8Array(4)
const floatView = new DataView(floatBytes.buffer)

/** A `bytes`, `string` or message payload, as a view of the bytes read. */
export const payload = (bytes: Uint8Array, field: Field): Uint8Array => bytes.subarray(field.from, field.end)

/** One growing buffer that a message is written into; make it with {@link writer}, read it with {@link written}. */
export interface Writer {
  bytes: Uint8Array
  length: number
}

/** An empty {@link Writer}; `capacity` bytes are reserved and grow by doubling. */
export const writer = (capacity = 1024): Writer => ({ bytes: new Uint8Array(Math.max(16, capacity)), length: 0 })

/** A copy of what was written so far. */
export const written = (w: Writer): Uint8Array => w.bytes.slice(0, w.length)

const reserve = (w: Writer, count: number): void => {
  if (w.length + count <= w.bytes.length) return
  const grown = new Uint8Array(Math.max(w.bytes.length * 2, w.length + count))
  grown.set(w.bytes.subarray(0, w.length))
  w.bytes = grown
}

/** A safe integer as a varint without a key; negative ones take ten bytes, as two's complement of 64 bits. */
const writeVarint = (w: Writer, value: number): void => {
  reserve(w, 10)
  const { bytes } = w
  if (value >= 0) {
    while (value > 0x7fffffff) {
      bytes[w.length++] = (value % 128) | 0x80
      value = Math.floor(value / 128)
    }
    while (value > 0x7f) {
      bytes[w.length++] = (value & 0x7f) | 0x80
      value >>>= 7
    }
    bytes[w.length++] = value
  } else {
    // −v = ~(v − 1): the seven-bit groups of v − 1, inverted, then sign groups up to bit 64.
    let rest = -value - 1
    for (let i = 0; i < 9; i++) {
      bytes[w.length++] = (~(rest % 128) & 0x7f) | 0x80
      rest = Math.floor(rest / 128)
    }
    bytes[w.length++] = 1
  }
}

const writeKey = (w: Writer, number: number, wire: WireType): void => writeVarint(w, number * 8 + wire)

/**
 * Writes an `int32`, `int64`, `uint32`, `enum` or `bool` field. Throws `RangeError` unless `value` is a safe integer.
 */
export const writeInt = (w: Writer, number: number, value: number | boolean): void => {
  if (!Number.isSafeInteger(Number(value))) {
    throw new RangeError(
      `protocol buffer, field ${number}: ${value} is not a whole number below 2^53 in size, ` +
        "so no varint holds it exactly"
    )
  }
  writeKey(w, number, 0)
  writeVarint(w, Number(value))
}

/** Writes a `float` field. */
export const writeFloat = (w: Writer, number: number, value: number): void => {
  writeKey(w, number, 5)
  reserve(w, 4)
  floatView.setFloat32(0, value, true)
  for (let i = 0; i < 4; i++) w.bytes[w.length++] = floatBytes[i]!
}

/** Writes a `bytes` field. */
export const writeBytes = (w: Writer, number: number, value: Uint8Array): void => {
  writeKey(w, number, 2)
  writeVarint(w, value.length)
  writeRaw(w, value)
}

/** Writes a `string` field as UTF-8; a lone surrogate becomes U+FFFD, as everywhere on the web platform. */
export const writeText = (w: Writer, number: number, value: string): void => {
  writeKey(w, number, 2)
  if (value.length < 0x80 && writeShortAscii(w, value)) return
  const encoded = encoder.encode(value)
  writeVarint(w, encoded.length)
  writeRaw(w, encoded)
}
const encoder = new TextEncoder()

/**
 * Most strings of a model file are short ASCII names: length and text in one pass; false, with nothing written, for
 * others.
 */
const writeShortAscii = (w: Writer, value: string): boolean => {
  reserve(w, value.length + 1)
  for (let i = 0; i < value.length; i++) {
    const unit = value.charCodeAt(i)
    if (unit > 0x7f) return false
    w.bytes[w.length + 1 + i] = unit
  }
  w.bytes[w.length] = value.length
  w.length += value.length + 1
  return true
}

/** Writes bytes that are already wire format: a whole field kept from another message. */
export const writeRaw = (w: Writer, value: Uint8Array): void => {
  reserve(w, value.length)
  w.bytes.set(value, w.length)
  w.length += value.length
}

/**
 * Writes a nested message field; `body` writes its fields into the same writer. The length is filled in afterwards:
 * `lengthBytes` are left for it, and the body moves up when it needs more, so nesting costs one block move a level.
 * More than one byte, which spares big bodies the move, is filled with a varint padded to that width: every reader
 * accepts it, but it is not the shortest.
 */
export const writeMessage = (w: Writer, number: number, body: (w: Writer) => void, lengthBytes = 1): void => {
  writeKey(w, number, 2)
  reserve(w, lengthBytes)
  const from = w.length += lengthBytes
  body(w)
  const size = w.length - from
  let width = lengthBytes
  while (size >= 128 ** width) width++
  if (width > lengthBytes) {
    reserve(w, width - lengthBytes)
    w.bytes.copyWithin(from - lengthBytes + width, from, w.length)
  }
  let rest = size
  for (let i = 0; i < width; i++, rest = Math.floor(rest / 128)) {
    w.bytes[from - lengthBytes + i] = (rest % 128) | (i < width - 1 ? 0x80 : 0)
  }
  w.length = from - lengthBytes + width + size
}
