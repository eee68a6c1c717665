/**
 * How often each word occurs: all that training needs of a corpus, in memory linear in the number of different words.
 *
 * A *word* here is a stretch of text in which pieces may form: it begins with its spaces (as U+2581), and ends wherever
 * no piece may reach across, be it a space, a digit or another script.
 *
 * From     google/sentencepiece, `src/trainer_interface.cc` (LoadSentences, SplitSentencesByWhitespace,
 *          IsValidSentencePiece).
 * Checked  test/token/WordCounts.test.ts (where words end; no character is lost); test/token/Trainer.test.ts.
 * Departs  cuts words at once where SentencePiece forbids pieces later; the counts of pairs are the same.
 *
 * @module
 */
import { grown } from "./GrowingArray.ts"
import { anyScript, isDigit, scriptOf } from "./Script.ts"
import * as Utf8 from "./Utf8.ts"

/** What decides where words end. */
export interface Cuts {
  readonly addDummyPrefix: boolean
  /** Whether runs of spaces stay together, with the word after them. */
  readonly allowWhitespaceOnlyPieces: boolean
  readonly splitDigits: boolean
  readonly splitByUnicodeScript: boolean
  /** Longer lines, in bytes, are not read, but counted. */
  readonly maxSentenceLength: number
  /** Texts that stand for no text, such as `<s>`: nothing is learned across them. */
  readonly boundaries: ReadonlyArray<string>
}

/** A growing count. Add documents with {@link add}. */
export interface WordCounts {
  readonly cuts: Cuts
  readonly statistics: Statistics
  /** Visits each different word with the number of times it occurred. */
  readonly forEach: (visit: (word: string, count: number) => void) => void
  readonly distinct: () => number
  /** Counts the lines of a document. */
  readonly add: (document: string) => void
}

/** What was read, and what was passed over. */
export interface Statistics {
  lines: number
  linesTooLong: number
  /** Lines with U+2585, which training reserves for rare characters. */
  linesReserved: number
  words: number
}

const space = 0x2581
/** Marks a rare character in SentencePiece's trainer, which therefore skips lines that contain it. */
const reserved = "\u2585"
/** Replaces a boundary; a tab of the text itself is one too, so no piece contains it. */
const boundaryCharacter = 0x09

const spaces = 1
const alone = 2
const scripts = 3

/** Begins a count. */
export const make = (cuts: Cuts): WordCounts => {
  const statistics: Statistics = { lines: 0, linesTooLong: 0, linesReserved: 0, words: 0 }
  const table = wordTable()
  const boundary = boundaryPattern(cuts.boundaries)
  const classes = new Uint8Array(0x10000)
  let word = new Uint16Array(1024)

  const classOf = (codePoint: number): number => {
    if (codePoint === space || codePoint === 0x20) return spaces
    if (codePoint === boundaryCharacter || codePoint === 0 || (cuts.splitDigits && isDigit(codePoint))) return alone
    return scripts + (cuts.splitByUnicodeScript ? scriptOf(codePoint) : anyScript)
  }
  const classAt = (text: string, at: number): number => {
    const unit = text.charCodeAt(at)
    if ((unit & 0xf800) === 0xd800) return classOf(text.codePointAt(at)!)
    return classes[unit] === 0 ? classes[unit] = classOf(unit) : classes[unit]!
  }

  const flush = (length: number): void => {
    table.count(word, length)
    statistics.words++
  }

  /** Cuts `text[from, end)` into words; `text` holds no lone surrogates. */
  const addLine = (text: string, from: number, end: number, withPrefix: boolean): void => {
    if (word.length < end - from + 1) word = new Uint16Array((end - from) * 2)
    let length = 0
    let previous = 0
    if (withPrefix) {
      word[length++] = space
      previous = spaces
    }
    for (let at = from; at < end; at++) {
      const unit = text.charCodeAt(at)
      let kind = classes[unit]!
      if (kind === 0) kind = classAt(text, at)
      const isCut = kind === spaces
        ? previous !== spaces || !cuts.allowWhitespaceOnlyPieces
        : kind === alone || previous === alone || (kind !== previous && kind > scripts && previous > scripts)
      if (isCut && length > 0) {
        flush(length)
        length = 0
      }
      word[length++] = kind === spaces ? space : unit
      if ((unit & 0xfc00) === 0xd800) word[length++] = text.charCodeAt(++at)
      previous = kind
    }
    if (length > 0) flush(length)
  }

  const add = (document: string): void => {
    // A lone surrogate is not a character: it is counted as U+FFFD, as it would be encoded.
    const text = /\p{Surrogate}/u.test(document) ? document.replace(/\p{Surrogate}/gu, "\ufffd") : document
    const mayReserve = text.includes(reserved)
    const mayHaveBoundary = boundary !== undefined && text.search(boundary) >= 0
    for (let from = 0; from < text.length;) {
      const newline = text.indexOf("\n", from)
      const end = newline < 0 ? text.length : newline
      if (end > from) {
        statistics.lines++
        const mayBeLong = (end - from) * 3 > cuts.maxSentenceLength
        if (mayBeLong && Utf8.textByteCount(text.slice(from, end)) > cuts.maxSentenceLength) statistics.linesTooLong++
        else if (mayReserve && text.slice(from, end).includes(reserved)) statistics.linesReserved++
        else if (mayHaveBoundary) {
          const line = (cuts.addDummyPrefix ? "\u2581" : "") + text.slice(from, end)
          const marked = line.replace(boundary, "\t")
          addLine(marked, 0, marked.length, false)
        } else addLine(text, from, end, cuts.addDummyPrefix)
      }
      from = end + 1
    }
  }
  return { cuts, statistics, add, forEach: table.forEach, distinct: table.distinct }
}

/** One pattern for all boundaries, longest first, with U+2581 for any space; undefined when there are none. */
const boundaryPattern = (boundaries: ReadonlyArray<string>): RegExp | undefined => {
  // U+0020 is not in normalized text, so a symbol that contains it is in none either.
  const longestFirst = boundaries.filter((text) => !text.includes(" ")).sort((a, b) => b.length - a.length)
  if (longestFirst.length === 0) return undefined
  const escaped = longestFirst.map(
    (text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&").replaceAll("\u2581", "[ \u2581]")
  )
  return new RegExp(escaped.join("|"), "g")
}

/** Words and counts in flat arrays that double: slots of (hash, place, length, index). */
const wordTable = () => {
  let slots = new Int32Array(4 * 4096).fill(-1)
  let pool = new Uint16Array(1 << 16)
  let counts = new Float64Array(4096)
  let used = 0
  let poolUsed = 0

  const count = (word: Uint16Array, length: number): void => {
    let hash = length
    for (let i = 0; i < length; i++) {
      hash = Math.imul(hash ^ word[i]!, 0x5bd1e995)
      hash ^= hash >>> 15
    }
    const mask = slots.length - 4
    let slot = (hash << 2) & mask
    for (; slots[slot + 3]! >= 0; slot = (slot + 4) & mask) {
      if (slots[slot] !== hash || slots[slot + 2] !== length) continue
      const from = slots[slot + 1]!
      let i = 0
      while (i < length && pool[from + i] === word[i]) i++
      if (i === length) {
        counts[slots[slot + 3]!]!++
        return
      }
    }
    if (poolUsed + length > pool.length) {
      pool = grown(new Uint16Array(Math.max(pool.length * 2, poolUsed + length)), pool)
    }
    if (used === counts.length) counts = grown(new Float64Array(used * 2), counts)
    pool.set(word.subarray(0, length), poolUsed)
    slots[slot] = hash
    slots[slot + 1] = poolUsed
    slots[slot + 2] = length
    slots[slot + 3] = used
    counts[used++] = 1
    poolUsed += length
    if (used * 8 > slots.length) rehash()
  }

  const rehash = (): void => {
    const old = slots
    slots = new Int32Array(old.length * 2).fill(-1)
    for (let i = 0; i < old.length; i += 4) {
      if (old[i + 3]! < 0) continue
      let slot = (old[i]! << 2) & (slots.length - 4)
      while (slots[slot + 3]! >= 0) slot = (slot + 4) & (slots.length - 4)
      for (let k = 0; k < 4; k++) slots[slot + k] = old[i + k]!
    }
  }

  const forEach = (visit: (word: string, count: number) => void): void => {
    for (let slot = 0; slot < slots.length; slot += 4) {
      const index = slots[slot + 3]!
      if (index < 0) continue
      const from = slots[slot + 1]!
      const end = from + slots[slot + 2]!
      let word = ""
      // In parts, because a call can only take so many arguments.
      for (let i = from; i < end; i += 4096) word += String.fromCharCode(...pool.subarray(i, Math.min(end, i + 4096)))
      visit(word, counts[index]!)
    }
  }
  return { count, forEach, distinct: () => used }
}
