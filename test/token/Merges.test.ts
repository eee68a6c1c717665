import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Merges from "../../src/token/Merges.ts"

const rules: Merges.Rules = {
  maxPieceLength: 5,
  allowWhitespaceOnlyPieces: true,
  splitDigits: true,
  splitByUnicodeScript: true
}
const SPACE = "\u2581"

const isDigit = (character: string) => /[0-9０-９]/.test(character)
const isLatin = (character: string) => /[a-zé]/.test(character)

/** Whether a text may be a piece, said of the whole text. */
const isValid = (text: string, rules: Merges.Rules): boolean => {
  const characters = [...text]
  const spaces = characters.filter((character) => character === SPACE).length
  if (characters.length > rules.maxPieceLength) return false
  if (rules.splitDigits && characters.length > 1 && characters.some(isDigit)) return false
  if (spaces === characters.length) return characters.length === 1 || rules.allowWhitespaceOnlyPieces
  if (characters.lastIndexOf(SPACE) > 0) return false
  const letters = characters.filter((character) => character !== SPACE)
  return !rules.splitByUnicodeScript || letters.every((letter) => isLatin(letter) === isLatin(letters[0]!))
}

const byBytes = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b))

/**
 * SentencePiece's trainer in its plainest form, for corpora so small that every pair is active: count all pairs afresh
 * for each piece; a pair once seen stays a candidate, even when nothing is left of it.
 */
const reference = (
  words: ReadonlyArray<readonly [string, number]>,
  rules: Merges.Rules,
  limit: number
): Array<string> => {
  const texts = words.map(([word, count]) => ({ symbols: [...word].map((c) => c === "?" ? "" : c), count }))
  const seen = new Map<string, readonly [string, string]>()
  const done = new Set<string>()
  const pieces: Array<string> = []
  const key = (left: string, right: string) => `${left}|${right}`
  const note = (left: string | undefined, right: string | undefined) => {
    if (left && right && isValid(left + right, rules)) seen.set(key(left, right), [left, right])
  }
  for (const { symbols } of texts) symbols.forEach((symbol, i) => note(symbol, symbols[i + 1]))
  while (pieces.length < limit) {
    const counts = new Map<string, number>()
    for (const { count, symbols } of texts) {
      for (let i = 1; i < symbols.length; i++) {
        const pair = key(symbols[i - 1]!, symbols[i]!)
        counts.set(pair, (counts.get(pair) ?? 0) + count)
      }
    }
    const [best] = [...seen].filter(([pair]) => !done.has(pair)).sort(([a, [al, ar]], [b, [bl, br]]) =>
      (counts.get(b) ?? 0) - (counts.get(a) ?? 0) ||
      [...al + ar].length - [...bl + br].length ||
      byBytes(al + ar, bl + br)
    )
    if (best === undefined) break
    const [pair, [left, right]] = best
    done.add(pair)
    if (pieces.includes(left + right)) continue
    pieces.push(left + right)
    for (const text of texts) {
      for (let i = 0; i + 1 < text.symbols.length; i++) {
        if (text.symbols[i] !== left || text.symbols[i + 1] !== right) continue
        text.symbols.splice(i, 2, left + right)
        // The neighbours as they are at this moment, before later occurrences are merged too.
        note(text.symbols[i - 1], text.symbols[i])
        note(text.symbols[i], text.symbols[i + 1])
      }
    }
  }
  return pieces
}

const learned = (words: ReadonlyArray<readonly [string, number]>, rules: Merges.Rules, limit: number) =>
  Merges.learn({
    characters: words.map(([word]) => [...word].map((character) => character === "?" ? -1 : character.codePointAt(0)!)),
    counts: words.map(([, count]) => count)
  }, rules, limit)

describe("Merges", () => {
  it("learns what the plain algorithm learns, in the same order", () => {
    const word = fc.string(
      {
        unit: fc.constantFrom("a", "a", "b", "é", "ж", "1", "?", SPACE, "\u{1f999}", "\ufb01"),
        minLength: 1,
        maxLength: 9
      }
    )
    fc.assert(fc.property(
      fc.uniqueArray(fc.tuple(word, fc.integer({ min: 1, max: 4 })), { selector: ([word]) => word, maxLength: 12 }),
      fc.record({
        maxPieceLength: fc.integer({ min: 1, max: 6 }),
        allowWhitespaceOnlyPieces: fc.boolean(),
        splitDigits: fc.boolean(),
        splitByUnicodeScript: fc.constant(false)
      }),
      fc.nat(60),
      (words, rules, limit) => assert.deepStrictEqual([...learned(words, rules, limit)], reference(words, rules, limit))
    ), { numRuns: 500 })
  })

  it("keeps scripts apart as the plain algorithm does", () => {
    const word = fc.string({ unit: fc.constantFrom("a", "b", "é", "ж", "я", SPACE), minLength: 1, maxLength: 9 })
    fc.assert(fc.property(
      fc.uniqueArray(fc.tuple(word, fc.integer({ min: 1, max: 4 })), { selector: ([word]) => word, maxLength: 12 }),
      (words) => assert.deepStrictEqual([...learned(words, rules, 60)], reference(words, rules, 60))
    ))
  })

  it("runs of one letter count their overlaps, and merge from the left", () => {
    assert.deepStrictEqual(
      [...learned([["aaaaa", 1], ["ab", 3]], rules, 10)],
      reference([["aaaaa", 1], ["ab", 3]], rules, 10)
    )
    assert.strictEqual(learned([["aaaaa", 1], ["ab", 3]], rules, 1)[0], "aa")
  })

  it("a combining mark goes with whatever precedes it", () => {
    assert.includeMembers([...learned([["a\u0301b", 5], ["ж\u0301", 5]], rules, 9)], ["a\u0301", "ж\u0301", "a\u0301b"])
  })
})
