/**
 * The pieces of a vocabulary in flat arrays, and the way from a text to its piece.
 *
 *     text of piece i = units[offsets[i], offsets[i + 1])        hash("") = 0,  hash(x · u) = hash(x) · B + u + 1
 *
 * x a text · u a code unit after it · B the 32-bit prime of the hash FNV
 *
 * From     tens of thousands of strings and objects take longer to make than all else that loading a vocabulary needs,
 *          and most programs never ask for one; the hash is Karp & Rabin 1987, the table open addressing with linear
 *          probing, at most half full (Knuth, volume 3, §6.4).
 * Checked  test/token/PieceTable.test.ts (any texts, bytes that are no text, texts that stand twice),
 *          test/token/SentencePiece.test.ts, test/token/Vocabulary.test.ts.
 *
 * @module
 */
import * as Utf8 from "./Utf8.ts"

/**
 * What a piece is for. Text can produce `normal`, `user-defined` (matched first, never merged) and, through byte
 * fallback, `byte` pieces; `unused` ones are formed and taken apart again; `control` ids (`<s>`, `</s>`) never come
 * from text.
 */
export type PieceType = "normal" | "unknown" | "control" | "user-defined" | "unused" | "byte"

/**
 * One entry of the vocabulary; its id is its index. In `text`, U+2581 stands for a space. Higher scores merge first.
 */
export interface Piece {
  readonly text: string
  readonly score: number
  readonly type: PieceType
}

/** Piece types by their number in {@link PieceTable.types}; one less than in a `.model` file. */
export const pieceTypes: ReadonlyArray<PieceType> = [
  "normal", "unknown", "control", "user-defined", "unused", "byte"
]
/** The number of `normal` in {@link PieceTable.types}. */
export const normalType = 0
/** The number of `unused` in {@link PieceTable.types}. */
export const unusedType = 4

/** The pieces of a vocabulary, in the order of their ids. Nothing changes after {@link make}. */
export interface PieceTable {
  readonly size: number
  /** UTF-16 of all texts, one after another. */
  readonly units: Uint16Array
  /** Where each text begins in `units`; the last entry is where they end. */
  readonly offsets: Int32Array
  readonly scores: Float32Array
  /** See {@link pieceTypes}. */
  readonly types: Uint8Array
  /** {@link extended} over the units of each text. */
  readonly hashes: Int32Array
  /** Ids, found by hash from {@link firstSlot} on; −1 ends the search. */
  readonly slots: Int32Array
}

/**
 * The numbers of a record, which is how a reader tells of one piece: where its text, in UTF-8, begins and ends in the
 * bytes of the file, its score as the bits of a float32, and the number of its type.
 */
export const recordLength = 4

/** What {@link make} found. */
export interface Made {
  readonly table: PieceTable
  /** By id of each piece whose text is no UTF-8: the place of the first byte that belongs to no character. */
  readonly invalid: ReadonlyMap<number, number>
  /** By id of each piece whose text another had before: the id of that. */
  readonly repeated: ReadonlyMap<number, number>
}

/**
 * The pieces of all records, in order; takes memory in proportion to `bytes`. No two records may share bytes, as no two
 * fields of a file do: throws `RangeError` where their texts together are longer than `bytes`.
 */
export const make = (bytes: Uint8Array, records: Int32Array): Made => {
  const size = records.length / recordLength
  const scoreBits = new Int32Array(size)
  const types = new Uint8Array(size)
  const offsets = new Int32Array(size + 1)
  const hashes = new Int32Array(size)
  let slotCount = 16
  while (slotCount < size * 2) slotCount *= 2
  const slots = new Int32Array(slotCount).fill(-1)
  const invalid = new Map<number, number>()
  const repeated = new Map<number, number>()
  // No text has more code units than bytes, and none shares its bytes with another.
  const units = new Uint16Array(bytes.length)
  let count = 0
  for (let id = 0; id < size; id++) {
    const record = id * recordLength
    const end = records[record + 1]!
    let hash = 0
    for (let at = records[record]!; at < end;) {
      let unit = bytes[at]!
      if (unit < 0x80) at++
      else {
        const length = Utf8.characterLength(bytes, at, end)
        if (length === 0) {
          invalid.set(id, at)
          break
        }
        unit = Utf8.codePointOf(bytes, at, length)
        at += length
        if (unit > 0xffff) {
          const high = 0xd7c0 + (unit >> 10)
          units[count++] = high
          hash = extended(hash, high)
          unit = 0xdc00 | (unit & 0x3ff)
        }
      }
      units[count++] = unit
      hash = extended(hash, unit)
    }
    hashes[id] = hash
    offsets[id + 1] = count
    scoreBits[id] = records[record + 2]!
    types[id] = records[record + 3]!
    let slot = firstSlot(hash, slotCount)
    let other = slots[slot]!
    while (
      other >= 0 &&
      (hashes[other] !== hash || !isSame(units, offsets[other]!, offsets[other + 1]!, offsets[id]!, count))
    ) {
      slot = (slot + 1) & (slotCount - 1)
      other = slots[slot]!
    }
    if (other < 0) slots[slot] = id
    else repeated.set(id, other)
  }
  // What was written past the end of `units` is lost.
  if (count > units.length) {
    throw new RangeError(
      `piece table: the texts of ${size} records have ${count} code units, but only ${bytes.length} bytes were ` +
        "given; records share bytes: give each text bytes of its own"
    )
  }
  const scores = new Float32Array(scoreBits.buffer)
  return { table: { size, units: units.slice(0, count), offsets, scores, types, hashes, slots }, invalid, repeated }
}

/** The hash of a text with one more code unit; that of "" is 0. */
export const extended = (hash: number, unit: number): number => (Math.imul(hash, 0x01000193) + unit + 1) | 0

/** Where in `slots` the search for a hash begins; `slotCount` is a power of two. */
export const firstSlot = (hash: number, slotCount: number): number =>
  (Math.imul(hash ^ (hash >>> 16), 0x85ebca6b) >>> 7) & (slotCount - 1)

/** Whether two stretches of `units` are the same text. */
const isSame = (units: Uint16Array, a: number, aEnd: number, b: number, bEnd: number): boolean => {
  if (aEnd - a !== bEnd - b) return false
  for (let i = a, k = b; i < aEnd; i++, k++) if (units[i] !== units[k]) return false
  return true
}

/** The character that begins at `units[at]`; texts of pieces have no lone surrogates. */
export const characterAt = (units: Uint16Array, at: number): number => {
  const unit = units[at]!
  return (unit & 0xfc00) === 0xd800 ? ((unit & 0x3ff) << 10) + (units[at + 1]! & 0x3ff) + 0x10000 : unit
}

/** The text of one piece. */
export const text = ({ offsets, units }: PieceTable, id: number): string => {
  let found = ""
  for (let i = offsets[id]!; i < offsets[id + 1]!; i++) found += String.fromCharCode(units[i]!)
  return found
}

/** The id of the piece with this text, or −1. */
export const idOf = (table: PieceTable, text: string): number => {
  let hash = 0
  for (let i = 0; i < text.length; i++) hash = extended(hash, text.charCodeAt(i))
  const { hashes, offsets, slots, units } = table
  for (let slot = firstSlot(hash, slots.length); slots[slot]! >= 0; slot = (slot + 1) & (slots.length - 1)) {
    const id = slots[slot]!
    const from = offsets[id]!
    if (hashes[id] !== hash || offsets[id + 1]! - from !== text.length) continue
    let i = 0
    while (i < text.length && units[from + i] === text.charCodeAt(i)) i++
    if (i === text.length) return id
  }
  return -1
}

/** The id of the piece whose text is `units[from, end)`, or −1. */
export const idWithin = ({ hashes, offsets, slots, units }: PieceTable, from: number, end: number): number => {
  let hash = 0
  for (let i = from; i < end; i++) hash = extended(hash, units[i]!)
  for (let slot = firstSlot(hash, slots.length); slots[slot]! >= 0; slot = (slot + 1) & (slots.length - 1)) {
    const id = slots[slot]!
    if (hashes[id] === hash && isSame(units, offsets[id]!, offsets[id + 1]!, from, end)) return id
  }
  return -1
}

/** The type of one piece. */
export const typeOf = ({ types }: PieceTable, id: number): PieceType => pieceTypes[types[id]!]!

/** The ids of all pieces of a type, in order. */
export const idsOfType = ({ size, types }: PieceTable, type: PieceType): ReadonlyArray<number> => {
  const number = pieceTypes.indexOf(type)
  const found: Array<number> = []
  for (let id = types.indexOf(number); id >= 0 && id < size; id = types.indexOf(number, id + 1)) found.push(id)
  return found
}

/** All pieces, as objects. */
export const pieces = ({ offsets, scores, size, types, units }: PieceTable): ReadonlyArray<Piece> => {
  const all = decoder.decode(units)
  return Array.from({ length: size }, (_, id) => ({
    text: all.slice(offsets[id], offsets[id + 1]),
    score: scores[id]!,
    type: pieceTypes[types[id]!]!
  }))
}
const decoder = new TextDecoder("utf-16le", { ignoreBOM: true })
