/**
 * A vocabulary compiled for merging: which two symbols merge into which piece, and how early.
 *
 *     merges = { (l, r) → p : l · r = p, p mergeable, l and r mergeable or single characters }
 *
 * A *symbol* is a number: below `size` it is the id of a piece; from `size` on it is a character that occurs inside pieces
 * without being one (it can be merged, but not written). −1 is a character that occurs in no piece.
 *
 * From     google/sentencepiece, `src/bpe_model.cc`: two symbols merge if their concatenation is a normal (or unused) piece, best score first.
 * Checked  token/Vocabulary (every split of every piece by brute force; the 61 249 merges of the Llama 2 vocabulary).
 */
import * as PairTable from "./PairTable.ts"
import type * as SentencePiece from "./SentencePiece.ts"

/** See the module header. Nothing changes after {@link make}. */
export interface Vocabulary {
  readonly pieces: ReadonlyArray<SentencePiece.Piece>
  readonly size: number
  /** Whether U+0020 in text means U+2581. */
  readonly escapesSpaces: boolean
  /** Symbol of each code unit of the basic plane, or −1. */
  readonly unitSymbol: Int32Array
  /** Symbol of each character beyond it that occurs in a piece. */
  readonly astralSymbol: ReadonlyMap<number, number>
  /** The character of symbol `size + i`. */
  readonly looseCharacters: ReadonlyArray<number>
  /** Order of merging, by piece: 0 is the best score; equal scores have equal ranks. */
  readonly rank: Int32Array
  /** (left, right) → the piece they merge into. */
  readonly merges: PairTable.PairTable
  /** The pairs of characters that stand side by side inside some piece. Between any other two, nothing ever merges. */
  readonly neighbours: PairTable.PairTable
  /** 1 for each piece of type `unused`; undefined when there is none. */
  readonly unused: Uint8Array | undefined
  /** Pieces of type `user-defined` by first code unit, longest first. */
  readonly userDefined: ReadonlyMap<number, ReadonlyArray<UserDefined>>
  readonly unkId: number
  /** Id of each byte's piece; undefined without byte fallback. */
  readonly byteIds: Int32Array | undefined
}

/** A piece that is matched in text before anything is merged. */
export interface UserDefined {
  readonly id: number
  readonly text: string
}

const SPACE = 0x2581

/** Compiles the pieces of a checked model; `escapeWhitespaces` says that U+0020 in text means U+2581. */
export const make = (pieces: ReadonlyArray<SentencePiece.Piece>, escapeWhitespaces: boolean): Vocabulary => {
  const size = pieces.length
  const unitSymbol = new Int32Array(0x10000).fill(-1)
  const astralSymbol = new Map<number, number>()
  const looseCharacters: Array<number> = []
  const byteIds = new Int32Array(256).fill(-1)
  const userDefined = new Map<number, Array<UserDefined>>()
  let unkId = 0
  let hasUnused = false
  for (let id = 0; id < size; id++) {
    const { text, type } = pieces[id]!
    if (type === "unknown") unkId = id
    else if (type === "byte") byteIds[Number(text.slice(1, 5))] = id
    else if (type === "user-defined") {
      const first = text.charCodeAt(0)
      userDefined.set(first, userDefined.get(first) ?? [])
      userDefined.get(first)!.push({ id, text })
    } else if (type === "unused") hasUnused = true
    if (isMergeable(pieces[id]!) && text.length <= 2) {
      const codePoint = text.codePointAt(0)!
      if (codePoint > 0xffff) astralSymbol.set(codePoint, id)
      else if (text.length === 1) unitSymbol[codePoint] = id
    }
  }
  for (const entries of userDefined.values()) entries.sort((a, b) => b.text.length - a.text.length)

  const symbolOf = (codePoint: number): number => {
    const known = codePoint > 0xffff ? astralSymbol.get(codePoint) ?? -1 : unitSymbol[codePoint]!
    if (known >= 0) return known
    const symbol = size + looseCharacters.length
    looseCharacters.push(codePoint)
    if (codePoint > 0xffff) astralSymbol.set(codePoint, symbol)
    else unitSymbol[codePoint] = symbol
    return symbol
  }

  const index = pieceIndex(pieces)
  const merges = PairTable.make(size * 2)
  const neighbours = PairTable.make(size)
  const characters = new Int32Array(index.longest)
  const prefix = new Int32Array(index.longest + 1)
  const starts = new Int32Array(index.longest + 1)
  for (let id = 0; id < size; id++) {
    if (!isMergeable(pieces[id]!)) continue
    const from = index.offsets[id]!
    const end = index.offsets[id + 1]!
    let count = 0
    for (let at = from; at < end; at++) {
      const start = at
      let character = index.units[at]!
      if (character >= 0xd800 && character < 0xdc00) character = 0x10000 + ((character - 0xd800) << 10) + (index.units[++at]! - 0xdc00)
      starts[count] = start
      prefix[count + 1] = index.hash(prefix[count]!, start, at + 1)
      characters[count++] = symbolOf(character)
    }
    starts[count] = end
    for (let i = 1; i < count; i++) {
      PairTable.set(neighbours, characters[i - 1]!, characters[i]!, 1)
      const middle = starts[i]!
      const left = i === 1 ? characters[0]! : index.find(from, middle, prefix[i]!)
      if (left < 0) continue
      const right = i === count - 1 ? characters[i]! : index.findSuffix(middle, end, prefix[i]!, prefix[count]!)
      if (right >= 0) PairTable.set(merges, left, right, id)
    }
  }
  if (escapeWhitespaces) unitSymbol[0x20] = unitSymbol[SPACE]!
  return {
    pieces,
    size,
    escapesSpaces: escapeWhitespaces,
    unitSymbol,
    astralSymbol,
    looseCharacters,
    rank: ranks(pieces),
    merges,
    neighbours,
    unused: hasUnused ? Uint8Array.from(pieces, ({ type }) => type === "unused" ? 1 : 0) : undefined,
    userDefined,
    unkId,
    byteIds: byteIds[0]! >= 0 ? byteIds : undefined
  }
}

const isMergeable = (piece: SentencePiece.Piece): boolean => piece.type === "normal" || piece.type === "unused"

/**
 * Finds mergeable pieces of two characters or more by the hash of a stretch of another piece's code units. The hash is a
 * polynomial, so the hash of any suffix follows from two prefix hashes: all splits of all pieces cost one pass.
 */
const pieceIndex = (pieces: ReadonlyArray<SentencePiece.Piece>) => {
  const offsets = new Int32Array(pieces.length + 1)
  let longest = 0
  for (let id = 0; id < pieces.length; id++) {
    const { length } = pieces[id]!.text
    if (length > longest) longest = length
    offsets[id + 1] = offsets[id]! + length
  }
  const units = new Uint16Array(offsets[pieces.length]!)
  const powers = new Int32Array(longest + 1).fill(1)
  for (let i = 1; i <= longest; i++) powers[i] = Math.imul(powers[i - 1]!, BASE)
  const hash = (start: number, from: number, end: number): number => {
    let h = start
    for (let i = from; i < end; i++) h = (Math.imul(h, BASE) + units[i]! + 1) | 0
    return h
  }
  let slots = 16
  while (slots < pieces.length * 2) slots *= 2
  const ids = new Int32Array(slots).fill(-1)
  const hashes = new Int32Array(slots)
  const slotOf = (h: number): number => (Math.imul(h ^ (h >>> 16), 0x85ebca6b) >>> 7) & (slots - 1)
  for (let id = 0; id < pieces.length; id++) {
    const { text } = pieces[id]!
    const from = offsets[id]!
    for (let i = 0; i < text.length; i++) units[from + i] = text.charCodeAt(i)
    if (!isMergeable(pieces[id]!)) continue
    const h = hash(0, from, offsets[id + 1]!)
    let slot = slotOf(h)
    while (ids[slot]! >= 0) slot = (slot + 1) & (slots - 1)
    ids[slot] = id
    hashes[slot] = h
  }
  const find = (from: number, end: number, h: number): number => {
    for (let slot = slotOf(h); ids[slot]! >= 0; slot = (slot + 1) & (slots - 1)) {
      if (hashes[slot]! !== h) continue
      const other = offsets[ids[slot]!]!
      if (offsets[ids[slot]! + 1]! - other !== end - from) continue
      let i = from
      while (i < end && units[i] === units[other + i - from]) i++
      if (i === end) return ids[slot]!
    }
    return -1
  }
  const findSuffix = (middle: number, end: number, head: number, whole: number): number =>
    find(middle, end, (whole - Math.imul(head, powers[end - middle]!)) | 0)
  return { units, offsets, longest, hash, find, findSuffix }
}
const BASE = 0x01000193

/** Dense ranks of the scores, best first. */
const ranks = (pieces: ReadonlyArray<SentencePiece.Piece>): Int32Array => {
  const scores = Float32Array.from(pieces, (piece) => -piece.score).sort()
  const rankOf = new Map<number, number>()
  for (const score of scores) if (!rankOf.has(-score)) rankOf.set(-score, rankOf.size)
  return Int32Array.from(pieces, (piece) => rankOf.get(piece.score)!)
}
