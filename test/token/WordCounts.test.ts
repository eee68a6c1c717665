import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as WordCounts from "../../src/token/WordCounts.ts"

const llama: WordCounts.Cuts = {
  addDummyPrefix: true,
  allowWhitespaceOnlyPieces: true,
  splitDigits: true,
  splitByUnicodeScript: true,
  maxSentenceLength: 4192,
  boundaries: ["<s>", "▁sep"]
}
const counted = (documents: ReadonlyArray<string>, changes: Partial<WordCounts.Cuts> = {}): Record<string, number> => {
  const counts = WordCounts.make({ ...llama, ...changes })
  documents.forEach(counts.add)
  const found: Record<string, number> = {}
  counts.forEach((word, count) => {
    found[word.replaceAll("\u2581", "_")] = count
  })
  assert.strictEqual(counts.distinct(), Object.keys(found).length)
  return found
}

describe("WordCounts", () => {
  it("words begin with their spaces and end where no piece may reach across", () => {
    assert.deepStrictEqual(
      counted(["the cat's 10  cats", "the"]),
      { "_the": 2, "_cat": 1, "'": 1, "s": 1, "_": 1, "1": 1, "0": 1, "__cats": 1 }
    )
    assert.deepStrictEqual(counted(["a  b"], { allowWhitespaceOnlyPieces: false }), { "_a": 1, "_": 1, "_b": 1 })
    assert.deepStrictEqual(
      counted(["a1жb"], { splitDigits: false, splitByUnicodeScript: false, addDummyPrefix: false }),
      { "a1жb": 1 }
    )
    assert.deepStrictEqual(
      counted(["a1жb🦙🦙漢ひ"], { addDummyPrefix: false }),
      { "a": 1, "1": 1, "ж": 1, "b": 1, "🦙🦙": 1, "漢ひ": 1 }
    )
    assert.deepStrictEqual(counted(["e\u0301\ttab\0x"]), { "_e\u0301": 1, "\t": 1, "tab": 1, "\0": 1, "x": 1 })
  })

  it("each line counts by itself; empty ones do not", () => {
    assert.deepStrictEqual(counted(["a\n\na\nb\n"]), { "_a": 2, "_b": 1 })
  })

  it("boundaries are cut out, across the space in front too", () => {
    assert.deepStrictEqual(counted(["ab<s>ab", "sep x sepx"]), { "_ab": 1, "\t": 3, "ab": 1, "_x": 1, "x": 1 })
  })

  it("counts what it passes over", () => {
    const counts = WordCounts.make({ ...llama, maxSentenceLength: 5 })
    counts.add("12345\n123456\nžžž\n\u2585\nžž")
    assert.deepStrictEqual({ ...counts.statistics }, { lines: 5, linesTooLong: 2, linesReserved: 1, words: 7 })
  })

  it("lone surrogates count as U+FFFD", () => assert.deepStrictEqual(counted(["a\ud800"]), { "_a": 1, "\ufffd": 1 }))

  it("no character is lost, however many words there are", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "b", "c", " ", "1", "ж", "\n", "🦙"), maxLength: 400 })
    fc.assert(fc.property(fc.array(text, { maxLength: 30 }), (documents) => {
      const counts = WordCounts.make(llama)
      documents.forEach(counts.add)
      let characters = 0
      counts.forEach((word, count) => {
        characters += word.length * count
      })
      const lines = documents.flatMap((document) => document.split("\n")).filter((line) => line !== "")
      assert.strictEqual(characters, lines.reduce((sum, line) => sum + line.length + 1, 0))
      assert.strictEqual(counts.statistics.lines, lines.length)
    }))
    const many = counted(
      Array.from({ length: 20_000 }, (_, i) => i.toString(5).replace(/[0-4]/g, (digit) => "abcde"[Number(digit)]!))
    )
    assert.strictEqual(Object.keys(many).length, 20_000)
  })
})
