import { assert, describe, it } from "@effect/vitest"
import { Effect, Ref, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as Document from "../../src/data/Document.ts"
import * as Split from "../../src/data/Split.ts"
import * as TokenStore from "../../src/data/TokenStore.ts"
import { encoder, texts } from "./Texts.ts"

const documents = (list: ReadonlyArray<string>) =>
  list.map((text, i) => Document.make(text, { file: "list", line: i + 1 }))

const tokensOf = (store: TokenStore.TokenStore) =>
  Array.from({ length: TokenStore.documentCount(store) }, (_, i) => Array.from(TokenStore.documentTokens(store, i)))

describe("TokenStore", () => {
  it("is lossless: every document comes back as its BOS and its tokens", () => {
    fc.assert(fc.property(texts, (list) => {
      const store = TokenStore.fromTexts(list, encoder)
      assert.deepStrictEqual(tokensOf(store), list.map((text) => [30, ...Array.from(encoder.encode(text))]))
      assert.strictEqual(store.bytes, list.reduce((sum, text) => sum + new TextEncoder().encode(text).length, 0))
    }))
  })

  it("counts the bytes of every plane, of pairs and of lonely surrogates as the standard encoder does", () => {
    const anyUnits = fc.array(fc.nat(0xffff), { minLength: 1 }).map((units) => String.fromCharCode(...units))
    fc.assert(fc.property(anyUnits, (text) => {
      assert.strictEqual(TokenStore.fromTexts([text], encoder).bytes, new TextEncoder().encode(text).length)
    }), { examples: [["aé€𝄞"], ["\ud800a"], ["\udc00\ud800"]] })
  })

  it("grows past its chunks, in two bytes or in four", () => {
    for (const vocabSize of [65536, 65537]) {
      const long = { encode: () => new Int32Array(1_100_000).map((_, i) => i % 60000), bosId: 65535, vocabSize }
      const store = TokenStore.fromTexts(["first", "second"], long)
      assert.strictEqual(store.tokens.BYTES_PER_ELEMENT, vocabSize === 65536 ? 2 : 4)
      assert.strictEqual(store.tokens.length, 2_200_002)
      assert.deepStrictEqual([store.tokens[0], store.tokens[1_100_001], store.tokens[2_200_001]], [65535, 65535, 19999])
      assert.deepStrictEqual(Array.from(store.starts), [0, 1_100_001, 2_200_002])
    }
  })

  it("the fingerprint sees every token, the vocabulary and the borders of documents", () => {
    fc.assert(fc.property(texts, fc.nat(), (list, at) => {
      const store = TokenStore.fromTexts(list, encoder)
      const same = TokenStore.fromTexts(list, encoder)
      assert.strictEqual(TokenStore.fingerprint(store), TokenStore.fingerprint(same))
      assert.notStrictEqual(TokenStore.fingerprint({ ...store, vocabSize: 32 }), TokenStore.fingerprint(store))
      same.tokens[at % same.tokens.length]! ^= 1
      assert.notStrictEqual(TokenStore.fingerprint(store), TokenStore.fingerprint(same))
    }))
  })

  describe("tokenize", () => {
    it.effect("reads a stream once and parts it as Split says, in order", () => Effect.gen(function*() {
      const list = Array.from({ length: 300 }, (_, i) => `document number ${i}`)
      const all = documents(list)
      const reads = yield* Ref.make(0)
      const stores = yield* TokenStore.tokenize(
        Stream.fromIterable(all).pipe(Stream.tap(() => Ref.update(reads, (n) => n + 1))),
        { ...encoder, validationShare: 0.2 })
      assert.strictEqual(yield* Ref.get(reads), 300)
      for (const part of ["train", "validation"] as const) {
        const expected = list.filter((_, i) => Split.part(all[i]!, 0.2) === part)
        assert.deepStrictEqual(stores[part], TokenStore.fromTexts(expected, encoder))
      }
    }))

    it.effect("encodes elsewhere, answered in any order, to the same tokens", () => Effect.gen(function*() {
      const list = Array.from({ length: 3000 }, (_, i) => `document number ${i}`)
      let calls = 0
      const encodeMany = (texts: ReadonlyArray<string>) =>
        Effect.map(Effect.sleep(`${(calls++ * 7) % 5} millis`), () => texts.map(encoder.encode))
      const options = { ...encoder, validationShare: 0.2 }
      const here = yield* TokenStore.tokenize(Stream.fromIterable(documents(list)), options)
      const there = yield* TokenStore.tokenize(Stream.fromIterable(documents(list)), { ...options, encodeMany })
      assert.deepStrictEqual(there, here)
      const failing = { ...options, encodeMany: () => Effect.fail("no thread" as const) }
      assert.strictEqual(
        yield* Effect.flip(TokenStore.tokenize(Stream.fromIterable(documents(list)), failing)), "no thread")
    }).pipe(TestClock.withLive))

    it.effect("reports progress up to the end", () => Effect.gen(function*() {
      const list = Array.from({ length: 300 }, (_, i) => `é ${i}`)
      const steps = yield* Ref.make<ReadonlyArray<TokenStore.Progress>>([])
      const { train, validation } = yield* TokenStore.tokenize(Stream.fromIterable(documents(list)), {
        ...encoder, validationShare: 0.2, onProgress: (progress) => Ref.update(steps, (all) => [...all, progress])
      })
      const seen = yield* Ref.get(steps)
      assert.isAbove(seen.length, 3)
      for (let i = 1; i < seen.length; i++) assert.isAbove(seen[i]!.bytes, seen[i - 1]!.bytes)
      assert.deepStrictEqual(seen.at(-1), {
        documents: 300,
        bytes: train.bytes + validation.bytes,
        tokens: train.tokens.length + validation.tokens.length
      })
    }))

    it.effect("refuses a BOS outside the vocabulary", () => Effect.gen(function*() {
      for (const bosId of [31, 65536, -1, 0.5]) {
        const error = yield* Effect.flip(TokenStore.tokenize(Stream.fromIterable(documents(["a", "b"])),
          { ...encoder, bosId, validationShare: 0.5 }))
        assert.strictEqual(error.message,
          `the BOS before the document at list:1 has the id ${bosId}: ids must be whole numbers in [0, 31)\n` +
            "  likely encode, vocabulary size and BOS are of different models: take all three from one tokenizer")
      }
    }))

    it.effect("refuses ids outside the vocabulary and a BOS inside a document, by place", () => Effect.gen(function*() {
      for (const id of [31, -1, 0.5, Number.NaN, 30]) {
        const error = yield* TokenStore.tokenize(Stream.fromIterable(documents(["a", "b", "c"])), {
          ...encoder, encode: (text) => text === "b" ? [0, id] : [1], validationShare: 0.5
        }).pipe(Effect.flip)
        assert.strictEqual(error.message,
          `token 1 of the document at list:2 has the id ${id}: ids must be whole numbers in [0, 31), and the BOS 30 ` +
          "must not occur inside a document\n  likely encode, vocabulary size and BOS are of different models: take " +
          "all three from one tokenizer")
      }
    }))

    it.effect("refuses ids that a model does not have, by place", () => Effect.gen(function*() {
      const encode = (text: string) => text === "c" ? [3, 12, 29] : [1, 2]
      const store = TokenStore.fromTexts(["a", "b", "c"], { ...encoder, encode })
      assert.isUndefined(yield* TokenStore.requireVocabulary(store, 31))
      const { document, id, index, place } = yield* Effect.flip(TokenStore.requireVocabulary(store, 30))
      assert.deepStrictEqual([index, document, place, id], [0, 0, 0, 30]) // the BOS
      const none = { ...store, tokens: store.tokens.map((id) => id === 30 ? 0 : id) }
      assert.strictEqual((yield* Effect.flip(TokenStore.requireVocabulary(none, 12))).message,
        "corpus: token 8, the token 2 of document 2 (from 0, its BOS counted), has the id 12: a model of 12 tokens " +
          "has the ids 0 to 11\n  The texts were made tokens with a vocabulary of 31: take the tokenizer that " +
          "belongs to the model.")
      const wrong = { ...store, tokens: Int32Array.of(30, 1, -1), starts: Float64Array.of(0, 3) }
      assert.strictEqual((yield* Effect.flip(TokenStore.requireVocabulary(wrong, 31))).message,
        "corpus: token 2, the token 2 of document 0 (from 0, its BOS counted), has the id -1: a model of 31 tokens " +
          "has the ids 0 to 30\n  The encoder was said to have as many: is its vocabulary larger?")
    }))

    it.effect("refuses a part without anything to predict, saying how to get one", () => Effect.gen(function*() {
      const failure = (list: ReadonlyArray<string>, validationShare: number) =>
        TokenStore.tokenize(Stream.fromIterable(documents(list)), { ...encoder, validationShare }).pipe(
          Effect.flip, Effect.map((error) => error.message))
      assert.strictEqual(yield* failure([], 0.1),
        "the corpus has no documents, so there is nothing to train on: give it at least a few kilobytes of text")
      assert.strictEqual(yield* failure(["one"], 0),
        "the validation part has no tokens to predict: 1 documents were read, and each goes to validation when the " +
        "hash of its text falls under validationShare = 0\n  give more text, raise validationShare, or cut the text " +
        "into smaller documents")
      assert.include(yield* failure(["one", "two"], 1), "the train part has no tokens to predict: 2 documents")
      assert.include(yield* failure(["one", "two"], 1), "or lower validationShare")
    }))

    it.effect("needs one token in each part, and no more", () => Effect.gen(function*() {
      const stores = (validation: string) => TokenStore.tokenize(Stream.make(
        Document.make("\x01", { file: "list", line: 1 }, "train"),
        Document.make(validation, { file: "list", line: 2 }, "validation")
      ), { ...encoder, validationShare: 0.5 })
      assert.deepStrictEqual(Object.values(yield* stores("\x02")).map(({ tokens }) => [...tokens]), [[30, 1], [30, 2]])
      assert.strictEqual((yield* Effect.flip(stores("")))._tag, "EmptyPartError")
    }))
  })
})
