/**
 * Byte-pair encoding as SentencePiece does it: of all adjacent pairs that make a piece, merge the best-scored first.
 *
 *     repeat  (l, r) ← the adjacent pair with the highest score(l · r), leftmost on ties;  replace l r by l · r
 *
 * From     google/sentencepiece, `src/bpe_model.cc`; Sennrich et al. 2016, algorithm 1; Llama 2 §2.2; for dropout,
 *          Provilkov, Emelianenko & Voita 2020.
 * Checked  test/token/BytePair.test.ts (a quadratic reference on random vocabularies and texts; SentencePiece's own
 *          unit tests), test/parity/Tokenizer.test.ts (the library's ids), test/token/Tokenizer.test.ts (the 47
 *          cases of llama.cpp).
 * Departs  in method, never in result. Two characters that stand side by side in no piece cannot be merged across, so
 *          text is cut there and the parts, which recur, are encoded once and remembered. The vocabulary decides where
 *          it may be cut, and unused or user-defined pieces, which look further, switch the memory off. Linear where
 *          words recur, else n log n.
 *
 * @module
 */
import * as Agenda from "./Agenda.ts"
import { grown } from "./GrowingArray.ts"
import { isHigh, isLow, merging } from "./Vocabulary.ts"
import type { UserDefined, Vocabulary } from "./Vocabulary.ts"
import * as WordMemory from "./WordMemory.ts"

/**
 * The ids of a normalized text, in which U+0020 and U+2581 both mean a space (if the vocabulary escapes spaces).
 * The encoder keeps a bounded memory of words; its results depend on nothing but the arguments.
 */
export interface Encoder {
  readonly encode: (text: string) => Int32Array
  /**
   * Byte-pair encoding with dropout: each candidate, a pair that is about to be merged, is asked about once, and passed
   * over for good if `isDropped`. Should one of its halves grow, the two make a new candidate.
   */
  readonly encodeWithDropout: (text: string, isDropped: () => boolean) => Int32Array
}

/**
 * Text is cut into words wherever two characters meet that stand side by side in no piece. Longer words are not
 * remembered.
 */
const longestRemembered = 48
/** Up to this many symbols, looking at every pair for each merge is faster than an agenda. */
const longestScanned = 40

/** A symbol that is already a whole user-defined piece: it merges with nothing. Encoded as −2 − id. */
const frozen = (id: number): number => -2 - id

/** An encoder for one vocabulary. */
export const make = (vocabulary: Vocabulary): Encoder => {
  const { areNeighbours, asciiNeighbours, asciiPair, byteIds, loners, looseCharacters, merge, rank } = vocabulary
  const { size, unitSymbol, unkId, unused } = vocabulary
  const hasUserDefined = vocabulary.userDefined.size > 0
  const wordByWord = !hasUserDefined && unused === undefined

  // Scratch: the symbols of the stretch being encoded, where each begins in the text, and the ids found so far.
  let symbols = new Int32Array(1024)
  let places = new Int32Array(1024)
  let ids = new Int32Array(4096)
  let idCount = 0
  let source = ""
  // For long stretches: neighbours that are left, and what the pair that begins at each place merges into.
  const agenda = Agenda.make(vocabulary.rankCount)
  let next = new Int32Array(0)
  let previous = new Int32Array(0)
  let pairAt = new Int32Array(0)
  // For `unused` pieces: the two symbols that the piece was last seen to be made of.
  const parts = unused === undefined ? undefined : new Int32Array(size * 2).fill(-1)
  const remembered = WordMemory.make()
  const astralLeads = new Uint8Array(0x400)
  for (const character of vocabulary.astralSymbol.keys()) astralLeads[(character - 0x10000) >> 10] = 1
  /** With user-defined pieces, which may hold U+2581, spaces are written as pieces write them. */
  const written = (text: string): string =>
    hasUserDefined && vocabulary.escapesSpaces ? text.replaceAll(" ", "\u2581") : text

  const encode = (text: string): Int32Array => {
    source = written(text)
    idCount = 0
    if (wordByWord) encodeWords()
    else encodeStretch(0, text.length)
    source = ""
    return ids.slice(0, idCount)
  }

  const encodeWithDropout = (text: string, isDropped: () => boolean): Int32Array => {
    source = written(text)
    idCount = 0
    makeRoom(text.length)
    if (text !== "") mergeByAgenda(0, readSymbols(0, text.length), isDropped)
    source = ""
    return ids.slice(0, idCount)
  }

  const encodeWords = (): void => {
    const text = source
    const { length } = text
    for (let at = 0; at < length;) {
      const start = at
      let unit = text.charCodeAt(at)
      // Characters that merge with nothing need no word, no memory and no merging.
      const loner = loners[unit]!
      if (loner !== merging) {
        makeRoomForIds(3)
        if (loner >= 0) ids[idCount++] = loner
        else writeUnknown(unit)
        at++
        continue
      }
      if (isHigh(unit) && astralLeads[unit - 0xd800] === 0 && isLow(text.charCodeAt(at + 1))) {
        makeRoomForIds(4)
        writeUnknown(((unit & 0x3ff) << 10) + (text.charCodeAt(at + 1) & 0x3ff) + 0x10000)
        at += 2
        continue
      }
      let hash = Math.imul(unit, 0x5bd1e995)
      while (++at < length) {
        const next = text.charCodeAt(at)
        if ((unit | next) < 0x80 ? asciiNeighbours[(unit << 7) | next] === 0 : !meet(at)) break
        hash = Math.imul(hash ^ next, 0x5bd1e995)
        hash ^= hash >>> 15
        unit = next
      }
      const size = at - start
      makeRoomForIds(3 * size)
      if (size === 1 || (size === 2 && isLow(unit) && isHigh(text.charCodeAt(start)))) {
        write(symbolAt(start), start)
        continue
      }
      if (size > longestRemembered) {
        encodeStretch(start, at)
        continue
      }
      const slot = remembered.find(text, start, at, hash)
      let count = remembered.slots[slot + 2]! >> 8
      if (count > 0) {
        const { pool } = remembered
        let from = remembered.slots[slot + 3]!
        // Without bytes to fall back on, unknowns in a row are one id, across words too.
        if (byteIds === undefined && idCount > 0 && ids[idCount - 1] === unkId && pool[from] === unkId) {
          from++
          count--
        }
        for (let i = 0; i < count; i++) ids[idCount++] = pool[from + i]!
        continue
      }
      const before = idCount
      const afterUnknown = byteIds === undefined && before > 0 && ids[before - 1] === unkId
      encodeStretch(start, at)
      if (!afterUnknown) remembered.keep(text, start, at, hash, ids, before, idCount)
    }
  }

  /**
   * Whether the characters before and at `source[at]` stand side by side in some piece, or are halves of one character.
   */
  const meet = (at: number): boolean => {
    const unit = source.charCodeAt(at)
    const before = source.charCodeAt(at - 1)
    if (!isSurrogate(unit) && !isSurrogate(before)) return areNeighbours(unitSymbol[before]!, unitSymbol[unit]!)
    if (isHigh(before) && isLow(unit)) return true
    const isPair = isLow(before) && at > 1 && isHigh(source.charCodeAt(at - 2))
    return areNeighbours(symbolAt(isPair ? at - 2 : at - 1), symbolAt(at))
  }

  const symbolAt = (at: number): number => {
    const unit = source.charCodeAt(at)
    if (!isSurrogate(unit)) return unitSymbol[unit]!
    const character = source.codePointAt(at)!
    // A surrogate without its other half is not a character: it reads as U+FFFD.
    return character <= 0xffff ? unitSymbol[0xfffd]! : vocabulary.astralSymbol.get(character) ?? -1
  }

  /** Encodes `source[start, end)`, in parts where the vocabulary lets it be cut. */
  const encodeStretch = (start: number, end: number): void => {
    makeRoom(end - start)
    const count = readSymbols(start, end)
    if (count <= longestScanned || unused !== undefined) return mergeAndWrite(0, count)
    let from = 0
    for (let i = 1; i <= count; i++) {
      if (i < count && areNeighbours(symbols[i - 1]!, symbols[i]!)) continue
      mergeAndWrite(from, i)
      from = i
    }
  }

  /** Room for the symbols and the ids of so many code units; none becomes more than three ids. */
  const makeRoom = (length: number): void => {
    if (symbols.length < length) {
      symbols = new Int32Array(length * 2)
      places = new Int32Array(length * 2)
    }
    makeRoomForIds(3 * length)
  }

  const makeRoomForIds = (count: number): void => {
    const needed = idCount + count
    if (ids.length < needed) ids = grown(new Int32Array(Math.max(2 * ids.length, needed)), ids)
  }

  const readSymbols = (start: number, end: number): number => {
    const text = source
    let count = 0
    for (let at = start; at < end; at++) {
      if (hasUserDefined) {
        const match = userDefinedAt(vocabulary.userDefined, text, at, end)
        if (match !== undefined) {
          places[count] = at
          symbols[count++] = frozen(match.id)
          at += match.text.length - 1
          continue
        }
      }
      places[count] = at
      symbols[count++] = symbolAt(at)
      if (text.codePointAt(at)! > 0xffff) at++
    }
    return count
  }

  const mergeAndWrite = (from: number, end: number): void => {
    if (end - from === 1) return write(symbols[from]!, places[from]!)
    if (end - from <= longestScanned && unused === undefined) mergeByScanning(from, end)
    else mergeByAgenda(from, end)
  }

  // The pair at each place of a short stretch: what it merges into, and when.
  const pairs = new Int32Array(longestScanned + 1)
  const order = new Int32Array(longestScanned + 1)

  const mergeByScanning = (from: number, end: number): void => {
    let last = end - from - 1
    for (let i = 0; i < last; i++) {
      const left = source.charCodeAt(places[from + i]!)
      const right = source.charCodeAt(places[from + i + 1]!)
      const pair = !hasUserDefined && (left | right) < 0x80
        ? asciiPair[(left << 7) | right]!
        : merge(symbols[from + i]!, symbols[from + i + 1]!)
      pairs[i] = pair
      order[i] = pair < 0 ? never : rank[pair]!
    }
    for (;;) {
      let best = 0
      let bestOrder = never
      for (let i = 0; i < last; i++) {
        if (order[i]! < bestOrder) {
          bestOrder = order[i]!
          best = i
        }
      }
      if (bestOrder === never) break
      symbols[from + best] = pairs[best]!
      for (let i = best + 1; i < last; i++) {
        symbols[from + i] = symbols[from + i + 1]!
        places[from + i] = places[from + i + 1]!
        pairs[i] = pairs[i + 1]!
        order[i] = order[i + 1]!
      }
      last--
      for (let i = best > 0 ? best - 1 : best; i <= best && i < last; i++) {
        const pair = merge(symbols[from + i]!, symbols[from + i + 1]!)
        pairs[i] = pair
        order[i] = pair < 0 ? never : rank[pair]!
      }
    }
    for (let i = 0; i <= last; i++) write(symbols[from + i]!, places[from + i]!)
  }

  /**
   * The same with an agenda of (rank, place). An entry is stale when the pair now at its place has another rank; a
   * stale entry that looks current stands exactly where the current one does in the order, so taking it changes
   * nothing.
   */
  const mergeByAgenda = (from: number, end: number, isDropped?: () => boolean): void => {
    const count = end - from
    if (next.length < count) {
      next = new Int32Array(count)
      previous = new Int32Array(count)
      pairAt = new Int32Array(count)
    }
    for (let i = 0; i < count; i++) {
      next[i] = i + 1
      previous[i] = i - 1
      if (i + 1 < count) addPair(i, symbols[from + i]!, symbols[from + i + 1]!)
    }
    pairAt[count - 1] = -1
    while (agenda.pop()) {
      const left = agenda.place
      const pair = pairAt[left]!
      if (pair < 0 || rank[pair] !== agenda.rank) continue
      if (isDropped !== undefined && isDropped()) {
        pairAt[left] = -1
        continue
      }
      const right = next[left]!
      const before = previous[left]!
      const after = next[right]!
      symbols[from + left] = pair
      pairAt[right] = -1
      pairAt[left] = -1
      next[left] = after
      if (before >= 0) addPair(before, symbols[from + before]!, pair)
      if (after < count) {
        previous[after] = left
        addPair(left, pair, symbols[from + after]!)
      }
    }
    for (let i = 0; i < count; i = next[i]!) write(symbols[from + i]!, places[from + i]!)
  }

  const addPair = (place: number, left: number, right: number): void => {
    const pair = merge(left, right)
    pairAt[place] = pair
    if (pair < 0) return
    agenda.push(rank[pair]!, place)
    if (parts !== undefined && unused![pair] === 1) {
      parts[pair * 2] = left
      parts[pair * 2 + 1] = right
    }
  }

  const write = (symbol: number, place: number): void => {
    if (symbol >= 0 && symbol < size) {
      // An unused piece was merged only as a step to something better: what it was made of is written instead.
      if (parts !== undefined && unused![symbol] === 1 && parts[symbol * 2]! >= 0) {
        write(parts[symbol * 2]!, 0)
        write(parts[symbol * 2 + 1]!, 0)
      } else ids[idCount++] = symbol
    } else if (symbol <= -2) ids[idCount++] = -2 - symbol
    else writeUnknown(symbol >= size ? looseCharacters[symbol - size]! : characterAt(place))
  }

  const characterAt = (place: number): number => {
    const character = source.codePointAt(place)!
    if (character === 0x20 && vocabulary.escapesSpaces) return 0x2581
    return (character & 0xfffff800) === 0xd800 ? 0xfffd : character
  }

  const writeUnknown = (character: number): void => {
    if (byteIds === undefined) {
      if (idCount === 0 || ids[idCount - 1] !== unkId) ids[idCount++] = unkId
      return
    }
    if (character < 0x80) ids[idCount++] = byteIds[character]!
    else if (character < 0x800) {
      ids[idCount++] = byteIds[0xc0 | (character >> 6)]!
      ids[idCount++] = byteIds[0x80 | (character & 0x3f)]!
    } else if (character < 0x10000) {
      ids[idCount++] = byteIds[0xe0 | (character >> 12)]!
      ids[idCount++] = byteIds[0x80 | ((character >> 6) & 0x3f)]!
      ids[idCount++] = byteIds[0x80 | (character & 0x3f)]!
    } else {
      ids[idCount++] = byteIds[0xf0 | (character >> 18)]!
      ids[idCount++] = byteIds[0x80 | ((character >> 12) & 0x3f)]!
      ids[idCount++] = byteIds[0x80 | ((character >> 6) & 0x3f)]!
      ids[idCount++] = byteIds[0x80 | (character & 0x3f)]!
    }
  }

  return { encode, encodeWithDropout }
}

const never = 0x7fffffff

const isSurrogate = (unit: number): boolean => (unit & 0xf800) === 0xd800

const userDefinedAt = (
  userDefined: Vocabulary["userDefined"],
  text: string,
  at: number,
  end: number
): UserDefined | undefined => {
  return userDefined.get(text.charCodeAt(at))?.find(
    (candidate) => at + candidate.text.length <= end && text.startsWith(candidate.text, at)
  )
}
