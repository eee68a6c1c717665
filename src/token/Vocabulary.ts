/**
 * A vocabulary compiled for merging: which two symbols merge into which piece, and how early.
 *
 *     merge(l, r) = p  ⇔  l · r = p, a piece that may be merged
 *
 * A *symbol* is a number: below `size` it is the id of a piece; from `size` on it is a character that occurs inside
 * pieces without being one (it can be merged, but not written). −1 is a character that occurs in no piece.
 *
 * From     google/sentencepiece, `src/bpe_model.cc`: two symbols merge if their concatenation is a normal (or unused)
 *          piece, the best score first.
 * Checked  test/token/Vocabulary.test.ts (all splits of all pieces, by brute force); test/token/BytePair.test.ts.
 *
 * @module
 */
import * as PairTable from "./PairTable.ts"
import type * as SentencePiece from "./SentencePiece.ts"

/** See the module header. But for what {@link Vocabulary.merge} remembers, nothing changes after {@link make}. */
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
  /** The piece that two symbols merge into, or −1. */
  readonly merge: (left: number, right: number) => number
  /** Order of merging, by piece: 0 is the best score; equal scores have equal ranks. */
  readonly rank: Int32Array
  /** By character's symbol: 1 if it stands to the left of another inside some piece, plus 2 if to the right of one. */
  readonly sides: Uint8Array
  /** Whether two characters stand side by side inside some piece. Between any other two, nothing ever merges. */
  readonly areNeighbours: (left: number, right: number) => boolean
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
/** In the memory of merges, for two symbols that do not merge; −1 there means not yet asked. */
const NONE = -2
/** Pairs remembered at most, about 4 MB; then all are forgotten. */
const MOST_REMEMBERED = 1 << 17

/** Compiles the pieces of a checked model; `escapeWhitespaces` says that U+0020 in text means U+2581. */
export const make = (pieces: ReadonlyArray<SentencePiece.Piece>, escapeWhitespaces: boolean): Vocabulary => {
  const size = pieces.length
  const kinds = specialPieces(pieces)
  const characters = characterSymbols(pieces)
  const { astralSymbol, looseCharacters, symbolOf, unitSymbol } = characters
  const neighbours = neighbourTable(pieces, symbolOf)
  if (escapeWhitespaces) unitSymbol[0x20] = unitSymbol[SPACE]!

  // Most characters have no neighbours, and need no look into the table.
  const sides = new Uint8Array(size + looseCharacters.length)
  for (let slot = 0; slot < neighbours.slots.length; slot += 4) {
    if (neighbours.slots[slot]! < 0) continue
    sides[neighbours.slots[slot]!]! |= 1
    sides[neighbours.slots[slot + 1]!]! |= 2
  }
  const areNeighbours = (left: number, right: number): boolean =>
    left >= 0 && right >= 0 && (sides[left]! & 1) !== 0 && (sides[right]! & 2) !== 0 &&
    PairTable.get(neighbours.slots, left, right) >= 0

  const index = symbolIndex(pieces, looseCharacters)
  let remembered = PairTable.make(1 << 14)
  const merge = (left: number, right: number): number => {
    if (left < 0 || right < 0) return -1
    const known = PairTable.get(remembered.slots, left, right)
    if (known >= 0) return known
    if (known === NONE) return -1
    if (remembered.count >= MOST_REMEMBERED) remembered = PairTable.make(1 << 14)
    const found = index.find(left, right)
    PairTable.set(remembered, left, right, found < 0 ? NONE : found)
    return found
  }
  return {
    ...kinds,
    pieces,
    size,
    escapesSpaces: escapeWhitespaces,
    unitSymbol,
    astralSymbol,
    looseCharacters,
    merge,
    rank: ranks(pieces),
    sides,
    areNeighbours
  }
}

/** Whether text may become the piece by merging. */
const isMergeable = (piece: SentencePiece.Piece): boolean => piece.type === "normal" || piece.type === "unused"

const specialPieces = (pieces: ReadonlyArray<SentencePiece.Piece>) => {
  const byteIds = new Int32Array(256).fill(-1)
  const unused = new Uint8Array(pieces.length)
  const userDefined = new Map<number, Array<UserDefined>>()
  let unkId = 0
  let hasUnused = false
  for (let id = 0; id < pieces.length; id++) {
    const { text, type } = pieces[id]!
    if (type === "normal") continue
    if (type === "unknown") unkId = id
    else if (type === "byte") byteIds[Number(text.slice(1, 5))] = id
    else if (type === "unused") {
      unused[id] = 1
      hasUnused = true
    } else if (type === "user-defined") {
      const first = text.charCodeAt(0)
      userDefined.set(first, userDefined.get(first) ?? [])
      userDefined.get(first)!.push({ id, text })
    }
  }
  for (const entries of userDefined.values()) entries.sort((a, b) => b.text.length - a.text.length)
  return { unkId, userDefined, unused: hasUnused ? unused : undefined, byteIds: byteIds[0]! >= 0 ? byteIds : undefined }
}

/** Characters that are pieces, and a function that gives each other character of a piece a symbol of its own. */
const characterSymbols = (pieces: ReadonlyArray<SentencePiece.Piece>) => {
  const unitSymbol = new Int32Array(0x10000).fill(-1)
  const astralSymbol = new Map<number, number>()
  const looseCharacters: Array<number> = []
  const set = (codePoint: number, symbol: number): void => {
    if (codePoint > 0xffff) astralSymbol.set(codePoint, symbol)
    else unitSymbol[codePoint] = symbol
  }
  for (let id = 0; id < pieces.length; id++) {
    const { text } = pieces[id]!
    if (text.length > 2 || !isMergeable(pieces[id]!)) continue
    const codePoint = text.codePointAt(0)!
    if (text.length === (codePoint > 0xffff ? 2 : 1)) set(codePoint, id)
  }
  const symbolOf = (codePoint: number): number => {
    const known = codePoint > 0xffff ? astralSymbol.get(codePoint) ?? -1 : unitSymbol[codePoint]!
    if (known >= 0) return known
    const symbol = pieces.length + looseCharacters.length
    looseCharacters.push(codePoint)
    set(codePoint, symbol)
    return symbol
  }
  return { unitSymbol, astralSymbol, looseCharacters, symbolOf }
}

/** Every pair of characters that stand side by side in a piece that may be merged. */
const neighbourTable = (
  pieces: ReadonlyArray<SentencePiece.Piece>,
  symbolOf: (codePoint: number) => number
): PairTable.PairTable => {
  const neighbours = PairTable.make(4096)
  // Most pairs are of ASCII letters, and few are new: this spares them the table.
  const known = new Uint8Array(128 * 128)
  const addPiece = (text: string): void => {
    let previous = -1
    for (let i = 0; i < text.length; i++) {
      let codePoint = text.charCodeAt(i)
      if ((codePoint & 0xf800) === 0xd800) codePoint = text.codePointAt(i++)!
      const isAscii = previous >= 0 && (previous | codePoint) < 128
      if (isAscii && known[(previous << 7) | codePoint] === 1) {
        previous = codePoint
        continue
      }
      const symbol = symbolOf(codePoint)
      if (previous >= 0) PairTable.set(neighbours, symbolOf(previous), symbol, 1)
      if (isAscii) known[(previous << 7) | codePoint] = 1
      previous = codePoint
    }
  }
  for (let id = 0; id < pieces.length; id++) if (isMergeable(pieces[id]!)) addPiece(pieces[id]!.text)
  return neighbours
}

/**
 * Finds the piece that two symbols spell together. The hash of a text is a polynomial in its code units, so that of a
 * concatenation follows from the hashes of its parts.
 */
const symbolIndex = (pieces: ReadonlyArray<SentencePiece.Piece>, looseCharacters: ReadonlyArray<number>) => {
  const count = pieces.length + looseCharacters.length
  const offsets = new Int32Array(count + 1)
  let longest = 2
  for (let symbol = 0; symbol < count; symbol++) {
    const length = symbol < pieces.length
      ? pieces[symbol]!.text.length
      : looseCharacters[symbol - pieces.length]! > 0xffff ? 2 : 1
    if (length > longest) longest = length
    offsets[symbol + 1] = offsets[symbol]! + length
  }
  const units = new Uint16Array(offsets[count]!)
  const hashes = new Int32Array(count)
  const powers = new Int32Array(longest + 1).fill(1)
  for (let i = 1; i <= longest; i++) powers[i] = Math.imul(powers[i - 1]!, BASE)
  let slotCount = 16
  while (slotCount < pieces.length * 2) slotCount *= 2
  const ids = new Int32Array(slotCount).fill(-1)
  const slotOf = (hash: number): number => (Math.imul(hash ^ (hash >>> 16), 0x85ebca6b) >>> 7) & (slotCount - 1)
  const add = (symbol: number, text: string): void => {
    const from = offsets[symbol]!
    let hash = 0
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      units[from + i] = unit
      hash = (Math.imul(hash, BASE) + unit + 1) | 0
    }
    hashes[symbol] = hash
  }
  for (let id = 0; id < pieces.length; id++) {
    add(id, pieces[id]!.text)
    if (!isMergeable(pieces[id]!)) continue
    let slot = slotOf(hashes[id]!)
    while (ids[slot]! >= 0) slot = (slot + 1) & (slotCount - 1)
    ids[slot] = id
  }
  looseCharacters.forEach((codePoint, i) => add(pieces.length + i, String.fromCodePoint(codePoint)))

  const matches = (at: number, symbol: number): boolean => {
    const from = offsets[symbol]!
    for (let i = offsets[symbol + 1]! - 1 - from; i >= 0; i--) if (units[at + i] !== units[from + i]) return false
    return true
  }
  const find = (left: number, right: number): number => {
    const leftLength = offsets[left + 1]! - offsets[left]!
    const rightLength = offsets[right + 1]! - offsets[right]!
    const hash = (Math.imul(hashes[left]!, powers[rightLength]!) + hashes[right]!) | 0
    for (let slot = slotOf(hash); ids[slot]! >= 0; slot = (slot + 1) & (slotCount - 1)) {
      const id = ids[slot]!
      const from = offsets[id]!
      if (hashes[id] !== hash || offsets[id + 1]! - from !== leftLength + rightLength) continue
      if (matches(from, left) && matches(from + leftLength, right)) return id
    }
    return -1
  }
  return { find }
}
const BASE = 0x01000193

/**
 * The same by counting, which is twice as fast: of scores 0, −1, −2, … as trainers write them, and any number of
 * lower ones. Undefined of others.
 */
const countedRanks = (pieces: ReadonlyArray<SentencePiece.Piece>): Int32Array | undefined => {
  const rankOf = new Int32Array(2 * pieces.length)
  const lower = new Set<number>()
  for (let id = 0; id < pieces.length; id++) {
    const depth = 0 - pieces[id]!.score
    if (depth >= rankOf.length) lower.add(Math.fround(depth))
    else if (depth >= 0 && (depth | 0) === depth) rankOf[depth] = 1
    else return undefined
  }
  let rank = 0
  for (let depth = 0; depth < rankOf.length; depth++) if (rankOf[depth] === 1) rankOf[depth] = rank++
  const last = new Map([...lower].sort((a, b) => a - b).map((depth, i) => [depth, rank + i]))
  const found = new Int32Array(pieces.length)
  for (let id = 0; id < pieces.length; id++) {
    const depth = 0 - pieces[id]!.score
    found[id] = depth < rankOf.length ? rankOf[depth]! : last.get(Math.fround(depth))!
  }
  return found
}

/** Dense ranks of the scores, best first. */
const ranks = (pieces: ReadonlyArray<SentencePiece.Piece>): Int32Array => {
  const counted = countedRanks(pieces)
  if (counted !== undefined) return counted
  const sorted = new Float32Array(pieces.length)
  for (let id = 0; id < pieces.length; id++) sorted[id] = -pieces[id]!.score
  sorted.sort()
  let distinct = 0
  for (let i = 0; i < sorted.length; i++) {
    if (i === 0 || sorted[i] !== sorted[distinct - 1]) sorted[distinct++] = sorted[i]!
  }
  const found = new Int32Array(pieces.length)
  for (let id = 0; id < pieces.length; id++) {
    const target = -pieces[id]!.score
    // Scores usually fall by one place from piece to piece.
    let low = id > 0 ? found[id - 1]! + 1 : 0
    if (sorted[low] === target && low < distinct) {
      found[id] = low
      continue
    }
    low = 0
    for (let high = distinct - 1; low < high;) {
      const middle = (low + high) >> 1
      if (sorted[middle]! < target) low = middle + 1
      else high = middle
    }
    found[id] = low
  }
  return found
}
