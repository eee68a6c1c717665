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
import * as PieceTable from "./PieceTable.ts"

/** See the module header. But for what {@link Vocabulary.merge} remembers, nothing changes after {@link make}. */
export interface Vocabulary {
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
  /** Order of merging, by piece: the better the score, the lower the rank; equal scores have equal ranks. */
  readonly rank: Int32Array
  /** Ranks are from 0 to this, exclusive. */
  readonly rankCount: number
  /** Whether two characters stand side by side inside some piece. Between any other two, nothing ever merges. */
  readonly areNeighbours: (left: number, right: number) => boolean
  /** The same of ASCII characters, at `128 · left + right`: 1 or 0. A space is what it means in text. */
  readonly asciiNeighbours: Uint8Array
  /** What two ASCII characters merge into, at the same places, or −1. */
  readonly asciiPair: Int32Array
  /**
   * By code unit, for characters that stand beside no other in any piece: the id, or −1 for one that is no piece
   * itself; {@link merging} for all others, for halves of characters and for spaces.
   */
  readonly loners: Int32Array
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

/** In {@link Vocabulary.loners}: a character that merges, or half of one. */
export const merging = -2

const space = 0x2581
/** In the memory of merges, for two symbols that do not merge; −1 there means not yet asked. */
const noPiece = -2
/** Pairs remembered at most, about 4 MB; then all are forgotten. */
const mostRemembered = 1 << 17
const firstRoom = 1 << 12

/** Compiles the pieces of a checked model; `escapeWhitespaces` says that U+0020 in text means U+2581. */
export const make = (table: PieceTable.PieceTable, escapeWhitespaces: boolean): Vocabulary => {
  const { size } = table
  const { asciiPair, astralSymbol, looseCharacters, symbolOf, unitSymbol } = characterSymbols(table, escapeWhitespaces)
  const { asciiNeighbours, loners, neighbours } = neighbourTables(table, escapeWhitespaces, unitSymbol, symbolOf)
  if (escapeWhitespaces) unitSymbol[0x20] = unitSymbol[space]!

  const find = pairFinder(table, looseCharacters)
  let remembered = PairTable.make(firstRoom)
  const merge = (left: number, right: number): number => {
    if (left < 0 || right < 0) return -1
    const known = PairTable.get(remembered.slots, left, right)
    if (known >= 0) return known
    if (known === noPiece) return -1
    if (remembered.count >= mostRemembered) remembered = PairTable.make(firstRoom)
    const found = find(left, right)
    PairTable.set(remembered, left, right, found < 0 ? noPiece : found)
    return found
  }
  return {
    ...specialPieces(table),
    ...ranks(table.scores),
    size,
    escapesSpaces: escapeWhitespaces,
    unitSymbol,
    astralSymbol,
    looseCharacters,
    merge,
    areNeighbours: (left, right) => PairTable.get(neighbours.slots, left, right) >= 0,
    asciiNeighbours,
    asciiPair,
    loners
  }
}

/** Whether text may become a piece of this type by merging. */
const isMergeable = (type: number): boolean => type === PieceTable.normalType || type === PieceTable.unusedType

const specialPieces = (table: PieceTable.PieceTable) => {
  const bytes = PieceTable.idsOfType(table, "byte")
  const byteIds = new Int32Array(256)
  for (const id of bytes) byteIds[Number(PieceTable.text(table, id).slice(1, 5))] = id
  const unusedIds = PieceTable.idsOfType(table, "unused")
  const unused = new Uint8Array(unusedIds.length === 0 ? 0 : table.size)
  for (const id of unusedIds) unused[id] = 1
  const userDefined = new Map<number, Array<UserDefined>>()
  for (const id of PieceTable.idsOfType(table, "user-defined")) {
    const text = PieceTable.text(table, id)
    const first = text.charCodeAt(0)
    userDefined.set(first, userDefined.get(first) ?? [])
    userDefined.get(first)!.push({ id, text })
  }
  for (const entries of userDefined.values()) entries.sort((a, b) => b.text.length - a.text.length)
  return {
    unkId: PieceTable.idsOfType(table, "unknown")[0]!,
    userDefined,
    unused: unusedIds.length === 0 ? undefined : unused,
    byteIds: bytes.length === 0 ? undefined : byteIds
  }
}

/** Is this code unit the first half of a character beyond the basic plane? */
export const isHigh = (unit: number): boolean => (unit & 0xfc00) === 0xd800
/** Is this code unit the second half of one? */
export const isLow = (unit: number): boolean => (unit & 0xfc00) === 0xdc00

/** The ASCII character that a unit of a piece is in text, where a space may stand for U+2581; −1 if it is none. */
const asciiOf = (unit: number, escapesSpaces: boolean): number =>
  unit > 0x7f ? escapesSpaces && unit === space ? 0x20 : -1 : escapesSpaces && unit === 0x20 ? -1 : unit

/** Characters that are pieces, and a function that gives each other character of a piece a symbol of its own. */
const characterSymbols = ({ offsets, size, types, units }: PieceTable.PieceTable, escapesSpaces: boolean) => {
  const unitSymbol = new Int32Array(0x10000).fill(-1)
  const astralSymbol = new Map<number, number>()
  const looseCharacters: Array<number> = []
  const asciiPair = new Int32Array(128 * 128).fill(-1)
  for (let id = 0; id < size; id++) {
    const from = offsets[id]!
    const length = offsets[id + 1]! - from
    if (length > 2 || !isMergeable(types[id]!)) continue
    if (length === 1) {
      unitSymbol[units[from]!] = id
      continue
    }
    const codePoint = PieceTable.characterAt(units, from)
    if (codePoint > 0xffff) astralSymbol.set(codePoint, id)
    const left = asciiOf(units[from]!, escapesSpaces)
    const right = asciiOf(units[from + 1]!, escapesSpaces)
    if (left >= 0 && right >= 0) asciiPair[(left << 7) | right] = id
  }
  const symbolOf = (codePoint: number): number => {
    const known = codePoint > 0xffff ? astralSymbol.get(codePoint) ?? -1 : unitSymbol[codePoint]!
    if (known >= 0) return known
    const symbol = size + looseCharacters.length
    looseCharacters.push(codePoint)
    if (codePoint > 0xffff) astralSymbol.set(codePoint, symbol)
    else unitSymbol[codePoint] = symbol
    return symbol
  }
  return { unitSymbol, astralSymbol, looseCharacters, asciiPair, symbolOf }
}

/** Pairs of code units seen lately are known by a table of this many, so that few ask the table of all pairs. */
const latelyCount = 1 << 12
/** Two code units that never stand side by side, as a pair. */
const noPair = 0xd800d800 | 0

/** Every pair of characters that stand side by side in a piece that may be merged; see {@link Vocabulary}. */
const neighbourTables = (
  { offsets, size, types, units }: PieceTable.PieceTable,
  escapesSpaces: boolean,
  unitSymbol: Int32Array,
  symbolOf: (codePoint: number) => number
) => {
  const loners = unitSymbol.slice().fill(merging, 0xd800, 0xe000)
  loners[0x20] = merging
  const asciiNeighbours = new Uint8Array(128 * 128)
  const neighbours = PairTable.make(4096)
  const add = (left: number, right: number): void => {
    PairTable.set(neighbours, symbolOf(left), symbolOf(right), 1)
    if (left < 0x10000) loners[left] = merging
    if (right < 0x10000) loners[right] = merging
    const before = asciiOf(left, escapesSpaces)
    const after = asciiOf(right, escapesSpaces)
    if (before >= 0 && after >= 0) asciiNeighbours[(before << 7) | after] = 1
  }
  const lately = new Int32Array(latelyCount).fill(noPair)
  for (let id = 0; id < size; id++) {
    if (!isMergeable(types[id]!)) continue
    const end = offsets[id + 1]!
    let right = units[offsets[id]!]!
    for (let at = offsets[id]! + 1; at < end; at++) {
      const left = right
      right = units[at]!
      const pair = (left << 16) | right
      const slot = ((left << 6) ^ right) & (latelyCount - 1)
      if (lately[slot] === pair || isLow(right)) continue
      if (isLow(left)) add(PieceTable.characterAt(units, at - 2), PieceTable.characterAt(units, at))
      else if (isHigh(right)) add(left, PieceTable.characterAt(units, at))
      else {
        lately[slot] = pair
        add(left, right)
      }
    }
  }
  return { neighbours, loners, asciiNeighbours }
}

/** Finds the piece that two symbols spell together. */
const pairFinder = (table: PieceTable.PieceTable, looseCharacters: ReadonlyArray<number>) => {
  const { size, slots, types } = table
  const count = size + looseCharacters.length
  // The texts of all symbols: pieces first, then the characters that are none.
  const offsets = new Int32Array(count + 1)
  offsets.set(table.offsets)
  const units = new Uint16Array(offsets[size]! + 2 * looseCharacters.length)
  units.set(table.units)
  const hashes = new Int32Array(count)
  hashes.set(table.hashes)
  /** The hash of a text and the text of a symbol after it. */
  const hashOf = (hash: number, symbol: number): number => {
    const end = offsets[symbol + 1]!
    let all = hash
    for (let i = offsets[symbol]!; i < end; i++) all = PieceTable.extended(all, units[i]!)
    return all
  }
  looseCharacters.forEach((codePoint, i) => {
    let end = offsets[size + i]!
    if (codePoint > 0xffff) units[end++] = 0xd7c0 + (codePoint >> 10)
    units[end++] = codePoint > 0xffff ? 0xdc00 | (codePoint & 0x3ff) : codePoint
    offsets[size + i + 1] = end
    hashes[size + i] = hashOf(0, size + i)
  })
  const matches = (at: number, symbol: number): boolean => {
    const from = offsets[symbol]!
    for (let i = offsets[symbol + 1]! - 1 - from; i >= 0; i--) if (units[at + i] !== units[from + i]) return false
    return true
  }
  const mask = slots.length - 1
  return (left: number, right: number): number => {
    const leftLength = offsets[left + 1]! - offsets[left]!
    const length = leftLength + offsets[right + 1]! - offsets[right]!
    const hash = hashOf(hashes[left]!, right)
    for (let slot = PieceTable.firstSlot(hash, slots.length); slots[slot]! >= 0; slot = (slot + 1) & mask) {
      const id = slots[slot]!
      const from = offsets[id]!
      if (table.hashes[id] !== hash || offsets[id + 1]! - from !== length) continue
      if (matches(from, left) && matches(from + leftLength, right)) return isMergeable(types[id]!) ? id : -1
    }
    return -1
  }
}

type Ranks = Pick<Vocabulary, "rank" | "rankCount">

/** Scores 0, −1, −2, … as trainers write them, and any number of lower ones, are ranks already. Undefined of others. */
const writtenRanks = (scores: Float32Array): Ranks | undefined => {
  const size = scores.length
  const rank = new Int32Array(size)
  const lower: Array<number> = []
  for (let id = 0; id < size; id++) {
    const depth = 0 - scores[id]!
    if (depth >= size) lower.push(id)
    else if (depth >= 0 && (depth | 0) === depth) rank[id] = depth
    else return undefined
  }
  const depths = [...new Set(lower.map((id) => 0 - scores[id]!))].sort((a, b) => a - b)
  const rankOf = new Map(depths.map((depth, i) => [depth, size + i]))
  for (const id of lower) rank[id] = rankOf.get(0 - scores[id]!)!
  return { rank, rankCount: size + depths.length }
}

/** Ranks of the scores, best first. */
const ranks = (scores: Float32Array): Ranks => {
  const written = writtenRanks(scores)
  if (written !== undefined) return written
  const sorted = scores.map((score) => 0 - score).sort()
  const rank = scores.length === 0 ? new Int32Array(0) : Int32Array.from(scores, (score) => placeOf(sorted, 0 - score))
  return { rank, rankCount: scores.length }
}

/** The first place of a number in a sorted array that has it. */
const placeOf = (sorted: Float32Array, wanted: number): number => {
  let low = 0
  for (let high = sorted.length - 1; low < high;) {
    const middle = (low + high) >> 1
    if (sorted[middle]! < wanted) low = middle + 1
    else high = middle
  }
  return low
}
