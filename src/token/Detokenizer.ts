/**
 * Ids back to text, all at once or as they come.
 *
 *     text = surface(id₁) · surface(id₂) · …  with U+2581 as a space, less the one space that encoding put in front
 *
 * From     google/sentencepiece, `src/sentencepiece_processor.cc` (Decode).
 * Checked  test/token/Tokenizer.test.ts (streaming = all at once on random ids; every row of the decoding table),
 *          test/parity/Tokenizer.test.ts.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import { grown } from "./GrowingArray.ts"
import * as PieceTable from "./PieceTable.ts"
import type * as SentencePiece from "./SentencePiece.ts"
import * as Utf8 from "./Utf8.ts"

/** An id that the vocabulary does not have: a mistake of the caller, thrown by `decode` and its like. */
export class IdRangeError extends Schema.TaggedError<IdRangeError>()("IdRangeError", {
  id: Schema.Number,
  position: Schema.Int,
  vocabSize: Schema.Int
}) {
  override get message() {
    return `decode: id ${this.id} at position ${this.position} is not in the vocabulary of ${this.vocabSize} pieces ` +
      `(0 to ${this.vocabSize - 1})\n  ` +
      "do the ids come from another tokenizer, or from a model whose vocabulary was padded to a rounder size?"
  }
}

/** Where the first id stands that a vocabulary of so many pieces does not have; −1 where there is none. */
export const foreignAt = (ids: ArrayLike<number>, vocabSize: number): number => {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!
    if (!(id >= 0 && id < vocabSize && Number.isInteger(id))) return i
  }
  return -1
}

/** Decodes one sequence id by id; the pieces of text that it returns, in order, are the text of all ids together. */
export interface StreamDecoder {
  /**
   * The text that is certain after this id; "" while a character of several bytes is incomplete. Throws {@link
   * IdRangeError}.
   */
  readonly push: (id: number) => string
  /** What was held back: U+FFFD for each byte of an unfinished character. The decoder then begins a new sequence. */
  readonly end: () => string
}

/** See {@link make}. */
export interface Detokenizer {
  /** The text of a sequence. Throws {@link IdRangeError}. */
  readonly decode: (ids: ArrayLike<number>) => string
  readonly streamDecoder: () => StreamDecoder
  /** Bytes of UTF-8 that an id stands for: U+2581 counts 1, the space that it is; a byte piece 1; a control piece 0. */
  readonly byteLengths: Int32Array
}

const textKind = 0
const controlKind = 1
const unknownKind = 2
const byteKind = 3
const kindOf: Readonly<Record<PieceTable.PieceType, number>> = {
  normal: textKind, unused: textKind, "user-defined": textKind, control: controlKind, unknown: unknownKind,
  byte: byteKind
}

/** The decoding functions of a model. */
export const make = (model: SentencePiece.Model): Detokenizer => {
  const { offsets: starts, size, types, units } = model.table
  const { addDummyPrefix, removeExtraWhitespaces } = model.normalizer
  const stripsSpace = addDummyPrefix || removeExtraWhitespaces
  const kinds = Uint8Array.from(types, (type) => kindOf[PieceTable.pieceTypes[type]!])
  const byteValues = new Uint8Array(size)
  for (const id of PieceTable.idsOfType(model.table, "byte")) {
    byteValues[id] = Number(PieceTable.text(model.table, id).slice(1, 5))
  }
  const startsWithSpace = new Uint8Array(size)
  const offsets = new Int32Array(size + 1)
  const byteLengths = new Int32Array(size)
  const surface = surfaceBytes(model, kinds, offsets)
  for (let id = 0; id < size; id++) {
    if (kinds[id] === textKind && units[starts[id]!] === 0x2581) startsWithSpace[id] = 1
    byteLengths[id] = kinds[id] === byteKind ? 1 : offsets[id + 1]! - offsets[id]!
  }
  const textOf = (id: number, skipped: number): string =>
    Utf8.validText(surface.subarray(offsets[id]! + skipped, offsets[id + 1]!))

  const decode = (ids: ArrayLike<number>): string => {
    let output = new Uint8Array(ids.length * 6 + 64)
    let length = 0
    let runStart = 0
    let runExtra = 0
    let atBeginning = true
    let consumedSpace = false
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!
      const kind = kinds[id]
      if (kind === undefined) throw new IdRangeError({ id, position: i, vocabSize: size })
      const from = offsets[id]!
      const end = offsets[id + 1]!
      // Room for this piece, and for every byte of the open run to become a U+FFFD of three bytes.
      if (length + end - from + 3 + 2 * runExtra > output.length) {
        output = grown(new Uint8Array((length + end - from + 3 + 2 * runExtra) * 2), output)
      }
      if (kind === byteKind) {
        output[length++] = byteValues[id]!
        runExtra++
        continue
      }
      if (runExtra > 0) {
        length = repairRun(output, runStart, length)
        runExtra = 0
      }
      if (atBeginning) {
        if (consumedSpace || length > 0) atBeginning = false
        consumedSpace = atBeginning && stripsSpace && startsWithSpace[id] === 1
      }
      for (let k = atBeginning && consumedSpace ? from + 1 : from; k < end; k++) output[length++] = surface[k]!
      if (removeExtraWhitespaces) consumedSpace = false
      runStart = length
    }
    if (runExtra > 0) length = repairRun(output, runStart, length)
    return Utf8.validText(output.subarray(0, length))
  }

  const streamDecoder = (): StreamDecoder => {
    const held = new Uint8Array(4)
    let heldCount = 0
    let position = 0
    let atBeginning = true
    let consumedSpace = false
    let hasText = false
    const release = (isOver: boolean): string => {
      let text = ""
      while (heldCount > 0) {
        const count = Utf8.characterLength(held, 0, heldCount)
        if (count === 0 && !isOver && Utf8.isIncomplete(held, 0, heldCount)) break
        text += count === 0 ? "\ufffd" : Utf8.validText(held.subarray(0, count))
        held.copyWithin(0, count || 1, heldCount)
        heldCount -= count || 1
      }
      hasText ||= text !== ""
      return text
    }
    const push = (id: number): string => {
      const kind = kinds[id]
      if (kind === undefined) throw new IdRangeError({ id, position, vocabSize: size })
      position++
      if (kind === byteKind) {
        held[heldCount++] = byteValues[id]!
        return release(false)
      }
      const before = release(true)
      if (atBeginning) {
        if (consumedSpace || hasText) atBeginning = false
        consumedSpace = atBeginning && stripsSpace && startsWithSpace[id] === 1
      }
      const text = textOf(id, atBeginning && consumedSpace ? 1 : 0)
      if (removeExtraWhitespaces) consumedSpace = false
      hasText ||= text !== ""
      return before + text
    }
    const end = (): string => {
      const text = release(true)
      position = 0
      atBeginning = true
      consumedSpace = hasText = false
      return text
    }
    return { push, end }
  }

  return { decode, streamDecoder, byteLengths }
}

/**
 * The UTF-8 that each piece stands for, laid end to end; fills `offsets`. Bytes and control pieces stand for none by
 * themselves.
 */
const surfaceBytes = ({ table, trainer }: SentencePiece.Model, kinds: Uint8Array, offsets: Int32Array): Uint8Array => {
  const { size, units } = table
  const unkSurface = new TextEncoder().encode(trainer.unkSurface)
  const surface = new Uint8Array(units.length * 3 + unkSurface.length)
  let length = 0
  for (let id = 0; id < size; id++) {
    if (kinds[id] === unknownKind) {
      surface.set(unkSurface, length)
      length += unkSurface.length
    } else if (kinds[id] === textKind) {
      const end = table.offsets[id + 1]!
      for (let at = table.offsets[id]!; at < end; at++) {
        const codePoint = PieceTable.characterAt(units, at)
        if (codePoint > 0xffff) at++
        if (codePoint < 0x80) surface[length++] = codePoint
        else if (codePoint === 0x2581) surface[length++] = 0x20
        else for (let k = 0; k < Utf8.byteCount(codePoint); k++) surface[length++] = Utf8.byteOf(codePoint, k)
      }
    }
    offsets[id + 1] = length
  }
  return surface.slice(0, length)
}

/**
 * Rewrites the bytes of a run of byte pieces: each that belongs to no character becomes U+FFFD. Returns the new end.
 */
const repairRun = (output: Uint8Array, start: number, end: number): number => {
  let at = start
  while (at < end) {
    const count = Utf8.characterLength(output, at, end)
    if (count === 0) break
    at += count
  }
  return at === end ? end : Utf8.repair(output.slice(at, end), output, at)
}
