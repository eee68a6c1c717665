import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Key from "../../src/random/Key.ts"
import type * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as TextArbitrary from "../../src/testing/TextArbitrary.ts"
import { codecOf, modelOf, pieces, text } from "./vocabularies.ts"

/**
 * The algorithm as SentencePiece states it, on strings and without any of ours: user-defined pieces are cut out, all
 * pairs queue up by (score, place), stale ones are told by their length, unused pieces fall apart into the parts they
 * were last queued with. `isDropped` is asked about each merge that is due; one that is dropped is gone for good.
 */
const reference = (
  model: SentencePiece.Model, input: string, isDropped: () => boolean = () => false
): Array<number> => {
  if (input === "") return []
  const normalized = ("\u2581" + TextArbitrary.wellFormed(input)).replaceAll(" ", "\u2581")
  const idOf = new Map(model.pieces.flatMap((piece, id) =>
    ["normal", "unused", "user-defined"].includes(piece.type) ? [[piece.text, id] as const] : []
  ))
  const userDefined = model.pieces.filter((piece) => piece.type === "user-defined").map((piece) => piece.text)
    .sort((a, b) => b.length - a.length)
  const symbols: Array<{ text: string; frozen: boolean; previous: number; next: number }> = []
  for (let at = 0; at < normalized.length;) {
    const match = userDefined.find((candidate) => normalized.startsWith(candidate, at))
    const here = match ?? String.fromCodePoint(normalized.codePointAt(at)!)
    symbols.push({ text: here, frozen: match !== undefined, previous: symbols.length - 1, next: symbols.length + 1 })
    at += here.length
  }
  symbols.at(-1)!.next = -1
  const queue: Array<{ left: number; right: number; score: number; length: number }> = []
  const parts = new Map<string, readonly [string, string]>()
  const add = (left: number, right: number) => {
    if (left < 0 || right < 0 || symbols[left]!.frozen || symbols[right]!.frozen) return
    const joined = symbols[left]!.text + symbols[right]!.text
    const id = idOf.get(joined)
    if (id === undefined) return
    queue.push({ left, right, score: model.pieces[id]!.score, length: joined.length })
    if (model.pieces[id]!.type === "unused") parts.set(joined, [symbols[left]!.text, symbols[right]!.text])
  }
  for (let i = 1; i < symbols.length; i++) add(i - 1, i)
  while (queue.length > 0) {
    queue.sort((a, b) => b.score - a.score || a.left - b.left)
    const { left, length, right } = queue.shift()!
    if (symbols[left]!.text === "" || symbols[right]!.text === "") continue
    if (symbols[left]!.text.length + symbols[right]!.text.length !== length) continue
    if (isDropped()) continue
    symbols[left]!.text += symbols[right]!.text
    symbols[left]!.next = symbols[right]!.next
    if (symbols[right]!.next >= 0) symbols[symbols[right]!.next]!.previous = left
    symbols[right]!.text = ""
    add(symbols[left]!.previous, left)
    add(left, symbols[left]!.next)
  }
  const ids: Array<number> = []
  let lastWasUnknown = false
  const write = (symbol: string): void => {
    const id = idOf.get(symbol)
    const split = id !== undefined && model.pieces[id]!.type === "unused" ? parts.get(symbol) : undefined
    if (split !== undefined) return split.forEach(write)
    if (id !== undefined) ids.push(id)
    else if (model.trainer.byteFallback) for (const byte of new TextEncoder().encode(symbol)) ids.push(3 + byte)
    else if (!lastWasUnknown) ids.push(0)
    lastWasUnknown = id === undefined
  }
  for (let i = 0; i >= 0; i = symbols[i]!.next) write(symbols[i]!.text)
  return ids
}

const agrees = (types: ReadonlyArray<SentencePiece.PieceType>) =>
  fc.assert(fc.property(pieces(types), fc.boolean(), fc.array(
    text,
    { minLength: 1, maxLength: 4 }
  ), (pieces, byteFallback, texts) => {
    const model = modelOf(pieces, byteFallback)
    const { encode } = codecOf(model)
    // Each text twice: the second time the words are remembered.
    for (const input of [...texts, ...texts]) assert.deepStrictEqual([...encode(input)], reference(model, input))
  }), { numRuns: 300 })

const normal = (text: string, score: number): SentencePiece.Piece => ({ text, score, type: "normal" })

/** SentencePiece's own unit tests for encoding, whose vocabulary lacks some of the characters it merges. */
const unit = [
  normal("ab", 0), normal("cd", -0.1), normal("abc", -0.2), normal("a", -0.3), normal("b", -0.4), normal("c", -0.5)
]
const views = (pieces: ReadonlyArray<SentencePiece.Piece>, input: string) => {
  const model = modelOf(pieces, false, { addDummyPrefix: false })
  return [...codecOf(model).encode(input)].map((id) => model.pieces[id]!.text).join(" ")
}

describe("BytePair", () => {
  it("agrees with the plain algorithm on normal pieces", () => agrees(["normal"]))
  it(
    "agrees with the plain algorithm where pieces are user-defined",
    () => agrees(["normal", "normal", "user-defined"])
  )
  it("agrees with the plain algorithm where pieces are unused", () => agrees(["normal", "unused"]))
  it("agrees with the plain algorithm on all kinds together", () => agrees(["normal", "unused", "user-defined"]))

  it("a user-defined piece never merges, though its text would", () => {
    const pieces: ReadonlyArray<SentencePiece.Piece> = [
      { text: "aa", score: 0, type: "normal" },
      { text: "a", score: 0, type: "user-defined" }
    ]
    assert.deepStrictEqual([...codecOf(modelOf(pieces, false)).encode("aa")], [0, 4, 4])
  })

  it("agrees with itself on stretches longer than a heap, whatever the memory of words", () => {
    const model = modelOf(
      [
        normal("aa", -1), normal("aaa", -1), normal("aaaa", -2), normal("ab", -1), normal("ba", 0), normal("a", -9),
        normal("b", -9)
      ],
      true
    )
    const { encode } = codecOf(model)
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom("a", "b"), minLength: 41, maxLength: 300 }), (input) => {
      assert.deepStrictEqual([...encode(input)], reference(model, input))
    }), { numRuns: 50 })
  })

  it("merges SentencePiece's unit examples", () => {
    assert.strictEqual(views(unit, "abcd"), "ab cd")
    assert.strictEqual(views(unit, "abc"), "abc")
    assert.strictEqual(views(unit, "ab"), "ab")
    assert.strictEqual(views(unit, "abcc"), "abc c")
    assert.strictEqual(views(unit, "xabcabaabcdd"), "<unk> abc ab a ab cd <unk>")
  })

  it("forgets words when its memory is full, and nothing else", () => {
    const texts = ["a", "b", "ab", "ba", "aa", "bb", "\u2581", "\u2581b"] // all letters of a word may merge
    const model = modelOf(texts.map((text, rank) => normal(text, -rank)), true)
    const { encode } = codecOf(model)
    const words = Array.from({ length: 80_000 }, (_, i) => i.toString(2).replaceAll("0", "a").replaceAll("1", "b"))
    const first = words.slice(0, 100).join(" ")
    const expected = [...codecOf(model).encode(first)]
    const all = encode(words.join(" ")) // a memory holds some 65 000 of them
    assert.deepStrictEqual([...encode(first)], expected)
    const again = encode(words.join(" "))
    assert.strictEqual(again.length, all.length)
    assert.isTrue(again.every((id, i) => id === all[i]))
    assert.strictEqual(codecOf(model).decode(all), words.join(" "))
  })

  it("stays near linear on a million characters without a place to cut", () => {
    const { encode } = codecOf(
      modelOf(
        [normal("aa", -1), normal("aaa", -2), normal("a", -3), normal("\u2581\u2581", -1), normal("\u2581", -2)],
        true
      )
    )
    assert.strictEqual(encode("a".repeat(1_000_000)).length, 500_001)
    assert.strictEqual(encode(" ".repeat(999_999)).length, 500_000)
    assert.strictEqual(encode("🙂".repeat(250_000)).length, 1_000_001)
  })
})

const key = Key.make("dropout")
const dropping = (rate: number, key: Key.Key) => {
  let draws = 0
  return () => Key.uniform(key, draws++) < rate
}

/** Every way to encode a text with dropout, with its probability: both answers to each question, asked in turn. */
const distribution = (model: SentencePiece.Model, input: string, rate: number): ReadonlyMap<string, number> => {
  const found = new Map<string, number>()
  const explore = (answers: ReadonlyArray<boolean>, probability: number): void => {
    let asked = 0
    const ids = reference(model, input, () => answers[asked++] ?? false)
    if (asked > answers.length) {
      explore([...answers, true], probability * rate)
      explore([...answers, false], probability * (1 - rate))
    } else found.set(ids.join(" "), (found.get(ids.join(" ")) ?? 0) + probability)
  }
  explore([], 1)
  return found
}

describe("BytePair with dropout", () => {
  const rate = fc.constantFrom(0, 0.1, 0.5, 0.9, 1)
  const seed = fc.integer()
  const kinds: ReadonlyArray<SentencePiece.PieceType> = ["normal", "normal", "unused", "user-defined"]

  it("agrees with the plain algorithm, draw by draw, on all kinds of pieces", () => {
    fc.assert(fc.property(pieces(kinds), fc.boolean(), text, rate, seed, (pieces, byteFallback, input, rate, seed) => {
      const model = modelOf(pieces, byteFallback)
      const key = Key.make(seed)
      assert.deepStrictEqual(
        [...codecOf(model).encodeWithDropout(input, { rate, key })],
        reference(model, input, dropping(rate, key))
      )
    }), { numRuns: 300 })
  })

  it("rate 0 is encode, rate 1 gives characters and bytes, and every rate the same text", () => {
    fc.assert(fc.property(pieces(["normal", "unused"]), TextArbitrary.text, rate, seed, (pieces, input, rate, seed) => {
      // Without the piece U+2581 a space would come back as that character, from its bytes.
      const hasSpace = pieces.some((piece) => piece.text === "\u2581")
      const model = modelOf(hasSpace ? pieces : [...pieces, normal("\u2581", -9)], true)
      const codec = codecOf(model)
      const key = Key.make(seed)
      const ids = codec.encodeWithDropout(input, { rate, key })
      assert.deepStrictEqual(codec.encodeWithDropout(input, { rate, key }), ids)
      if (rate === 0) assert.deepStrictEqual(ids, codec.encode(input))
      if (rate === 1) for (const id of ids) assert.isTrue(id < 259 || [...model.pieces[id]!.text].length === 1)
      assert.strictEqual(codec.decode(ids), codec.decode(codec.encode(input)))
    }), { numRuns: 200 })
  })

  it("each way to write a word is as likely as the algorithm makes it", () => {
    // Where bc is made first, ab and abc stand at one place with one score, and must still be asked about only once.
    const model = modelOf([
      normal("bc", 0), normal("ab", -1), normal("abc", -1), normal("ca", -2), normal("aa", -3), normal("a", -9),
      normal("b", -9), normal("c", -9)
    ], true)
    const codec = codecOf(model)
    const count = 4000
    for (const input of ["abc", "abca", "aabbcca"]) {
      const expected = distribution(model, input, 0.3)
      const found = new Map<string, number>()
      for (let i = 0; i < count; i++) {
        const ids = codec.encodeWithDropout(input, { rate: 0.3, key: Key.derive(key, input, i) }).join(" ")
        found.set(ids, (found.get(ids) ?? 0) + 1)
      }
      assert.deepStrictEqual([...found.keys()].filter((ids) => !expected.has(ids)), [])
      let chiSquare = 0
      for (const [ids, probability] of expected) {
        chiSquare += ((found.get(ids) ?? 0) - count * probability) ** 2 / (count * probability)
      }
      // Mean k, deviation √(2k): five deviations above. The key is fixed, so the outcome is too.
      const freedom = expected.size - 1
      assert.isBelow(chiSquare, freedom + 5 * Math.sqrt(2 * freedom), `${input}: ${expected.size} ways`)
    }
  })

  it("refuses a rate that is no probability", () => {
    const { encodeWithDropout } = codecOf(modelOf(unit, true))
    for (const rate of [-0.1, 1.1, NaN]) {
      assert.throws(() => encodeWithDropout("a", { rate, key }), `the rate ${rate} is not between 0 and 1`)
    }
  })
})
