/**
 * Each law holds for tokenizers that keep it and fails for one that breaks just that.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import * as TokenizerLaw from "../../src/testing/TokenizerLaw.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as Trainer from "../../src/token/Trainer.ts"
import { hasData, llama } from "../token/realModel.ts"
import { bytePieces, codecOf, modelOf } from "../token/vocabularies.ts"

const bytes = codecOf(Tokenizer.bytesModel)
const sentences = [
  "the cat sat on the mat", "then the other cat sat on that mat 2 times", "ein Satz über Käse", "猫はマットの上に座った"
]
const trained = codecOf(Result.getOrThrow(
  Trainer.trainSync(sentences, { ...Trainer.llama(340), characterCoverage: 1 })
).model)

/** Which laws a tokenizer breaks. */
const broken = (codec: Tokenizer.Codec, reading = TokenizerLaw.plain): ReadonlyArray<string> =>
  TokenizerLaw.laws(reading).flatMap(({ check, name }) => {
    try {
      check(codec, { seed: 1, numRuns: 100 })
      return []
    } catch (error) {
      return [`${name}: ${error instanceof Error ? error.message : ""}`]
    }
  })

const breaks = (codec: Tokenizer.Codec, law: string, reading = TokenizerLaw.plain): void =>
  assert.isTrue(broken(codec, reading).some((found) => found.startsWith(law)), law)

describe("TokenizerLaw", () => {
  it("every law holds for bytes, for a trained model and for Llama 2's (where CRIA_TEST_DATA has it)", () => {
    assert.deepStrictEqual(broken(bytes), [])
    assert.deepStrictEqual(broken(trained, TokenizerLaw.sentencePiece), [])
    if (hasData) assert.deepStrictEqual(broken(llama(), TokenizerLaw.sentencePiece), [])
  })

  it("each law sees a tokenizer that breaks it", () => {
    breaks({ ...bytes, decode: (ids) => bytes.decode(ids).trimEnd() }, "decoding undoes encoding")
    breaks({ ...bytes, decode: (ids) => bytes.decode(ids).normalize("NFC") }, "decoding undoes encoding")
    breaks({ ...bytes, encode: (text) => bytes.encode(`${text}!`) }, "encoding what was decoded gives the same ids")
    breaks({ ...bytes, vocabSize: 100 }, "ids are whole numbers below the size of the vocabulary")
    breaks({ ...bytes, byteLength: () => 2 }, "the bytes of the ids are the bytes of the text")
    breaks({ ...bytes, encode: (text) => text.includes("<s>") ? Int32Array.of(1) : bytes.encode(text) },
      "no text becomes a special id")
    const joined = codecOf(modelOf(
      [{ text: "\u2581", score: -1, type: "normal" }, { text: "12", score: -2, type: "normal" },
        ...[..."0123456789"].map((text, i) => ({ text, score: -3 - i, type: "normal" as const }))], true
    ))
    breaks(joined, "ASCII digits are single", TokenizerLaw.sentencePiece)
    breaks({ ...bytes, encodeBytes: () => Int32Array.of(5) }, "the bytes of a text encode as the text")
    breaks({ ...bytes, encodeBytes: (input) => Int32Array.from(input, (byte) => byte + 3) },
      "bytes that are no text read as some text")
    const stream = () => ({ push: (id: number) => bytes.decode([id]), end: () => "" })
    breaks({ ...bytes, streamDecoder: stream }, "decoding id by id gives the same text")
    breaks({ ...bytes, streamDecoder: stream }, "what a stream gave is never taken back")
    breaks({ ...bytes, streamDecoder: () => ({ push: () => "\ud800", end: () => "" }) }, "what a stream gave is never")
    breaks({ ...bytes, decode: (ids) => bytes.decode(ids).slice(0, 20) }, "texts put together by their ids")
    breaks({ ...bytes, encodeSegments: () => Int32Array.of(1, 2) }, "segments are encoded each by itself")
    breaks({ ...bytes, encodeSegments: (parts) => bytes.encode(parts.map((part) =>
      typeof part === "string" ? part : "</s>").join("")) }, "special ids are silent")
    breaks(codecOf(modelOf(bytePieces.slice(0, 0), false)), "no text becomes a special id", TokenizerLaw.sentencePiece)
  })

  it("names the law, the smallest text and the seed", () => {
    const [first] = broken({ ...bytes, decode: (ids) => bytes.decode(ids).trimEnd() })
    assert.match(
      first!, /^decoding undoes encoding: decoding undoes encoding: for "[^"]+", expected "[^"]+", found "" \(seed 1\)$/
    )
  })

  it.effect("is tried on whichever layer is provided", () => Effect.gen(function*() {
    const all = TokenizerLaw.holds(TokenizerLaw.plain, { numRuns: 20, seed: 1 })
    yield* all.pipe(Effect.provide(Tokenizer.layerBytes))
    const forging = Layer.succeed(Tokenizer.Tokenizer, { ...bytes, byteLength: () => 0 })
    const error = yield* Effect.flip(all.pipe(Effect.provide(forging)))
    assert.strictEqual(error.law, "the bytes of the ids are the bytes of the text")
  }))

  it("training is determined by its texts, and the law sees where it is not", () => {
    TokenizerLaw.trainingIsDetermined(sentences)
    const first = (texts: ReadonlyArray<string>) =>
      Result.map(Trainer.trainSync(texts.slice(0, 1), Trainer.llama(280)), ({ model }) => model)
    assert.throws(() => TokenizerLaw.trainingIsDetermined(sentences, first), "the same texts in reverse order")
    let calls = 0
    const counting = (texts: ReadonlyArray<string>) =>
      Result.map(Trainer.trainSync(texts, Trainer.llama(290 + calls++)), ({ model }) => model)
    assert.throws(() => TokenizerLaw.trainingIsDetermined(sentences, counting), "the same texts again train otherwise")
  })
})
