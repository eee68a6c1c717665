import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Stream } from "effect"
import * as fc from "fast-check"
import { createHash } from "node:crypto"
import * as Key from "../../src/random/Key.ts"
import * as Trainer from "../../src/token/Trainer.ts"
import { hasData, readText } from "./realModel.ts"
import { codecOf } from "./vocabularies.ts"

const trained = (
  documents: Iterable<string>,
  options: Trainer.Options
) => Result.getOrThrow(Trainer.trainSync(documents, options))
const failure = (documents: Iterable<string>, options: Trainer.Options) =>
  Result.getOrThrow(Result.flip(Trainer.trainSync(documents, options)))
const texts = ({ model }: Trainer.Trained) => model.pieces.map((piece) => piece.text)

/** The options of SentencePiece's own unit tests. */
const plain: Trainer.Options = {
  ...Trainer.llama(17),
  byteFallback: false,
  splitDigits: false,
  addDummyPrefix: false,
  allowWhitespaceOnlyPieces: false,
  characterCoverage: 1
}
const learned = (documents: ReadonlyArray<string>) => texts(trained(documents, plain)).slice(3).join(" ")

describe("Trainer", () => {
  it("SentencePiece's unit goldens", () => {
    assert.strictEqual(learned(["abracadabra"]), "ab ra abra ad cad abracad abracadabra ac br a b r c d")
    assert.strictEqual(learned(["pen", "pineapple", "apple"]), "ap le app apple en in ine pen p e a l n i")
    assert.strictEqual(learned(["hellohe"]), "he ll llo hello hellohe el lo oh hel ohe e h l o")
  })

  it("learns from the lines that a key draws, and says how many it left out", () => {
    const lines = Array.from({ length: 50 }, (_, i) => `${"abcdefgh"[i % 8]}${"ijklmnop"[i % 7]}`)
    const all = { ...plain, vocabSize: 25 }
    const sampled = (count: number) => trained(
      [lines.slice(0, 30).join("\n"), lines.slice(30).join("\n")],
      { ...all, sample: { lines: count, key: Key.make(1) } }
    )
    assert.deepStrictEqual(texts(sampled(50)), texts(trained(lines, all)))
    assert.deepStrictEqual([sampled(20).statistics.lines, sampled(20).statistics.linesNotDrawn], [20, 30])
    assert.deepStrictEqual(texts(sampled(20)), texts(sampled(20)))
    assert.include(
      failure(lines, { ...plain, sample: { lines: 0, key: Key.make(1) } }).message,
      "sample.lines 0 is not a positive whole number"
    )
  })

  it.skipIf(!hasData)("664 merges of a novel, by SentencePiece's checksum (needs CRIA_TEST_DATA)", () => {
    const result = trained([readText("botchan.txt")], Trainer.llama(1000))
    const sha256 = createHash("sha256").update(texts(result).join("\n")).digest("hex")
    assert.strictEqual(sha256, "98c56d059d110d9300ed40c740c41244ca1ff5a750c62a92e58a9c506442255a")
    assert.strictEqual(texts(result).slice(259, 269).join(" "), "▁t he ▁a in ▁s ▁w ▁the ▁o re ▁b")
    assert.deepStrictEqual(result.statistics, {
      ...result.statistics,
      lines: 4288,
      linesTooLong: 0,
      linesReserved: 0,
      merges: 664, characters: 77, rareCharacters: 8
    })
  })

  it("the order and the grouping of the lines do not matter, nor does a stream", () =>
    fc.assert(fc.asyncProperty(
      fc.array(
        fc.string({ unit: fc.constantFrom("a", "b", "c", " ", "1", "é", "猫"), maxLength: 12 }),
        { minLength: 1, maxLength: 12 }
      ),
      fc.integer({ min: 0, max: 8 }),
      async (lines, extra) => {
        const options = { ...Trainer.llama(259 + 7 + extra), requiredCharacters: "abc1é猫▁", characterCoverage: 1 }
        const one = Trainer.trainSync([lines.join("\n")], options)
        const other = Trainer.trainSync([...lines].reverse(), options)
        const streamed = await Effect.runPromise(Effect.result(Trainer.train(Stream.fromIterable(lines), options)))
        if (Result.isFailure(one)) {
          assert.deepStrictEqual(other, one)
          assert.deepStrictEqual(streamed, one)
        } else {
          assert.deepStrictEqual(texts(Result.getOrThrow(other)), texts(one.success))
          assert.deepStrictEqual(Result.getOrThrow(streamed).model.bytes, one.success.model.bytes)
        }
      }
    ), { numRuns: 60 }))

  it("digits are single, scripts do not mix, spaces lead", () => {
    const corpus = Array.from({ length: 30 }, (_, i) => `year ${1900 + i} abcабв ab1cd  x   y    猫neko, it's`)
    const pieces = texts(trained(corpus, { ...Trainer.llama(315), characterCoverage: 1 })).slice(259)
    for (const piece of pieces) {
      if (piece.length > 1) assert.notMatch(piece, /[0-9]/)
      assert.notMatch(piece, /[a-z][а-я]|[а-я][a-z]|猫[a-z]|[a-z]['1,]/)
      assert.match(piece, /^(\u2581+|\u2581?[^\u2581]+)$/)
      assert.isAtMost([...piece].length, 16)
    }
    assert.include(pieces, "▁▁")
  })

  it("what is reserved is never learned: tags in the text, tabs, U+2585", () => {
    const { model, statistics } = trained(["a<s>b<s>b", "ab\tab\tab", "ab\u2585ab", "<sep>ab<sep>"], {
      ...Trainer.llama(267),
      characterCoverage: 1,
      controlSymbols: ["<ctl>"],
      userDefinedSymbols: ["<sep>"]
    })
    const pieces = model.pieces.slice(261).map((piece) => piece.text)
    assert.deepStrictEqual(pieces.filter((piece) => /[<>\t\u2585]/.test(piece)), [])
    assert.deepStrictEqual([statistics.lines, statistics.linesReserved], [4, 1])
    assert.deepStrictEqual(
      model.pieces.slice(3, 5),
      [{ text: "<ctl>", score: 0, type: "control" }, { text: "<sep>", score: 0, type: "user-defined" }]
    )
    assert.deepStrictEqual(codecOf(model).encode("ab<sep>").at(-1), 4)
  })

  it("rare characters are left to the bytes, required ones are not", () => {
    const corpus = [
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab ½"
    ]
    const options = { ...Trainer.llama(265), characterCoverage: 0.98 }
    const { model, statistics } = trained(corpus, options)
    assert.deepStrictEqual([statistics.characters, statistics.rareCharacters], [2, 2])
    assert.deepStrictEqual(model.pieces.slice(-2).map((piece) => piece.text), ["a", "▁"])
    const withRequired = texts(trained(corpus, { ...options, requiredCharacters: "½Ω" }))
    assert.includeMembers(withRequired, ["½", "Ω"])
  })

  it("lines too long are passed over and counted, in bytes", () => {
    const { statistics } = trained(
      ["é".repeat(50), "é".repeat(51), "e".repeat(100)],
      { ...Trainer.llama(262), maxSentenceLength: 100 }
    )
    assert.deepStrictEqual([statistics.lines, statistics.linesTooLong], [3, 1])
  })

  it("says which vocabulary sizes can be met", () => {
    const small = failure(["hello"], Trainer.llama(260))
    assert.strictEqual(
      small.message,
      "tokenizer training: a vocabulary of 260 pieces cannot be met\n" +
        "  259 reserved pieces (unknown, beginning, end, symbols, bytes) + 5 characters = at least 264\n" +
        "  raise vocabSize, or lower characterCoverage so that fewer characters need a piece"
    )
    const large = failure(["hello"], Trainer.llama(1000))
    assert.strictEqual(
      large.message,
      "tokenizer training: a vocabulary of 1000 pieces cannot be met\n" +
        "  259 reserved pieces (unknown, beginning, end, symbols, bytes) + 5 characters = at least 264; " +
        "this text has pairs for at most 274\n" +
        "  set vocabSize between 264 and 274, or train on more text"
    )
    assert.strictEqual(trained(["hello"], Trainer.llama(274)).model.pieces.length, 274)
    assert.strictEqual(trained(["hello"], Trainer.llama(264)).model.pieces.length, 264)
    assert.strictEqual(failure(["hello"], Trainer.llama(275))._tag, "VocabSizeError")
  })

  it("refuses options that cannot be meant, all at once", () => {
    const error = failure([], {
      ...Trainer.llama(1.5),
      characterCoverage: 0,
      maxPieceLength: 513,
      maxSentenceLength: 0,
      controlSymbols: ["", "<s>"]
    })
    assert.strictEqual(
      error.message,
      "tokenizer training: options cannot be used\n" +
        "  vocabSize 1.5 is not a positive whole number\n" +
        "  characterCoverage 0 is not above 0 and at most 1\n" +
        "  maxPieceLength 513 is not a whole number from 1 to 512\n" +
        "  maxSentenceLength 0 is not positive\n" +
        "  a control or user-defined symbol is empty\n" +
        "  symbol \"<s>\" is given twice, or is the name of a reserved piece\n" +
        "  begin with Trainer.llama(vocabSize) and change one field at a time"
    )
  })
})
