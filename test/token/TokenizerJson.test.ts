import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer, Path, type PlatformError, Result } from "effect"
import * as fc from "fast-check"
import type * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as TokenizerConfig from "../../src/token/TokenizerConfig.ts"
import * as TokenizerJson from "../../src/token/TokenizerJson.ts"
import * as Trainer from "../../src/token/Trainer.ts"
import { hasData, llama, llamaModel } from "./realModel.ts"
import * as TextArbitrary from "../../src/testing/TextArbitrary.ts"
import { codecOf, modelOf, pieces } from "./vocabularies.ts"

const printed = (model: SentencePiece.Model): string => Result.getOrThrow(TokenizerJson.print(model))
const parsed = (text: string): SentencePiece.Model => Result.getOrThrow(TokenizerJson.parse(text))
const problem = (text: string): string => Result.getOrThrow(Result.flip(TokenizerJson.parse(text))).message
const normal = (text: string, score: number): SentencePiece.Piece => ({ text, score, type: "normal" })

const small = modelOf([normal("ab", -1), normal("abc", -2), normal("a", -3), normal("b", -4), normal("c", -5)], true)
const trained = Result.getOrThrow(Trainer.trainSync(
  ["the cat sat on the mat", "then the  other cat   sat on that mat 2 times"],
  { ...Trainer.llama(310), userDefinedSymbols: ["[SEP]"], controlSymbols: ["<ctl>"] }
)).model
/** The document with one thing changed. */
const changed = (change: (document: ReturnType<typeof JSON.parse>) => void): string => {
  const document = JSON.parse(printed(small))
  change(document)
  return JSON.stringify(document)
}

const same = (model: SentencePiece.Model) => {
  const again = parsed(printed(model))
  assert.deepStrictEqual(
    again.pieces.map(({ text, type }) => [text, type]),
    model.pieces.map(({ text, type }) => [text, type])
  )
  assert.strictEqual(printed(again), printed(model))
  const [one, other] = [codecOf(model), codecOf(again)]
  fc.assert(fc.property(TextArbitrary.text, (text) => assert.deepStrictEqual(other.encode(text), one.encode(text))))
}

describe("TokenizerJson", () => {
  it("there and back, a trained vocabulary is the same function", () => same(trained))
  it(
    "there and back, without a space in front",
    () => same(modelOf([normal("a", -1), normal("aa", 0)], true, { addDummyPrefix: false }))
  )

  it("writes the merges of every split, best score first, longest left first", () => {
    const pieces = [
      normal("a", -9), normal("aa", -1), normal("aaa", -1), normal("b", -9), normal("aab", 0), normal("ab", -3)
    ]
    const { model } = JSON.parse(printed(modelOf(pieces, false)))
    assert.deepStrictEqual(model.merges, ["aa b", "a ab", "aa a", "a aa", "a a", "a b"])
  })

  it("equal scores stay equal: runs of spaces merge from the left", () => {
    const spaces = [2, 3, 4].map((count) => normal("\u2581".repeat(count), -5))
    const model = modelOf([...spaces, normal("\u2581", -9), normal("\u2581a", -1), normal("a", -9)], true)
    const again = parsed(printed(model))
    const scores = spaces.map(({ text }) => again.pieces.find((piece) => piece.text === text)!.score)
    // The list has the merges of three and four spaces interleaved; that of two comes after them, as it would with a
    // lower score.
    assert.strictEqual(scores[1], scores[2])
    assert.isBelow(scores[0]!, scores[1]!)
    same(model)
  })

  it("refuses other orders: by length within a piece, by id where scores and lengths are equal", () => {
    const refused = (pieces: ReadonlyArray<SentencePiece.Piece>, merges: ReadonlyArray<string>) => {
      const document = JSON.parse(printed(modelOf(pieces, false)))
      assert.isTrue(Result.isSuccess(TokenizerJson.parse(JSON.stringify(document))))
      assert.notDeepEqual(document.model.merges, merges)
      assert.deepStrictEqual(document.model.merges.toSorted(), merges.toSorted())
      return problem(JSON.stringify({ ...document, model: { ...document.model, merges } }))
    }
    const letters = ["a", "b", "c"].map((text) => normal(text, -9))
    assert.include(
      refused([...letters, normal("aab", 0), normal("aa", -1), normal("ab", -2)], ["a ab", "aa b", "a a", "a b"]),
      "at $.model.merges[0]: [\"a\",\"ab\"] where the pieces' scores would put [\"aa\",\"b\"]: "
    )
    const pieces = ["aaab", "aaac", "aaa", "aab", "aac"].map((text, i) => normal(text, Math.min(-1, -i)))
    assert.include(
      refused([...pieces, ...letters], ["aaa c", "aaa b", "a aac", "a aab"]),
      "at $.model.merges[0]: [\"aaa\",\"c\"] where the pieces' scores would put [\"aaa\",\"b\"]: "
    )
  })

  it("a list of merges is taken exactly if the model that it makes writes the same list", () => {
    const alphabet = ["a", "b", "\u2581", "🙂"].map((text) => normal(text, -9))
    const drawn = pieces(["normal", "normal", "normal", "user-defined"]).map((drawn) =>
      [...alphabet, ...drawn.filter(({ text }) => !alphabet.some((piece) => piece.text === text))])
    const kind = fc.constantFrom("none", "swap", "drop", "repeat")
    const change = fc.record({ kind, at: fc.nat(99), to: fc.nat(99) })
    const refused = new Set<string>()
    fc.assert(fc.property(drawn, change, (drawn, { at, kind, to }) => {
      const document = JSON.parse(printed(modelOf(drawn, false)))
      const merges: Array<string> = document.model.merges
      const [from, other] = [at % (merges.length || 1), to % (merges.length || 1)]
      if (kind === "swap" && merges.length > 0) {
        [merges[from], merges[other]] = [merges[other]!, merges[from]!]
      } else if (kind === "drop") merges.splice(from, 1)
      else if (kind === "repeat" && merges.length > 0) merges.splice(other, 0, merges[from]!)
      const result = TokenizerJson.parse(JSON.stringify(document))
      if (Result.isFailure(result)) {
        refused.add(kind)
        assert.match(result.failure.message, /at \$\.model\.merges\[\d+\]: .* where the pieces' scores would put/)
      } else assert.deepStrictEqual(JSON.parse(printed(result.success)).model.merges, merges)
    }), { numRuns: 200 })
    assert.isFalse(refused.has("none"))
    assert.isTrue(refused.has("drop") && refused.has("repeat"))
  })

  it("reads merges as pairs, as newer files have them", () => {
    const pairs = changed((document) => {
      document.model.merges = document.model.merges.map((merge: string) => merge.split(" "))
    })
    assert.deepStrictEqual(parsed(pairs), parsed(printed(small)))
  })

  it("says what it cannot read, and where", () => {
    assert.strictEqual(
      problem(changed((document) => { document.model.type = "Unigram" })),
      "tokenizer.json, at $.model.type: \"Unigram\" is not \"BPE\"\n  " +
        "Cria reads byte-pair tokenizers converted from SentencePiece, such as Llama's; " +
        "others need their tokenizer.model"
    )
    const unigram = { type: "Unigram", unk_id: 0, vocab: [["<unk>", 0]] } // as such files are
    assert.include(problem(JSON.stringify({ added_tokens: [], normalizer: null, model: unigram })), "at $.model.type: ")
    assert.include(problem("{"), "at $: not JSON: ")
    assert.include(problem("{}"), "at $.added_tokens: Missing key\n")
    assert.include(
      problem(changed((document) => { document.model.vocab["a b"] = 0.5 })),
      "at $.model.vocab[\"a b\"]: Expected an integer\n"
    )
    assert.include(
      problem(changed((document) => { document.model.merges[1] = 3 })),
      "at $.model.merges[1]: Expected string | array\n"
    )
    assert.include(
      problem(changed((document) => { document.normalizer = null })),
      "at $.normalizer: not the normalizer of a Llama tokenizer"
    )
    assert.include(
      problem(changed((document) => {
        document.pre_tokenizer = { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: false }
      })),
      "at $.pre_tokenizer: not the normalizer"
    )
    assert.include(
      problem(Result.getOrThrow(TokenizerJson.printNonLegacy(small))),
      "at $.pre_tokenizer: saved with legacy = false: it puts no space before text that begins with one"
    )
    assert.include(
      Result.getOrThrow(Result.flip(TokenizerJson.parseNonLegacy(printed(small)))).message,
      "at $.pre_tokenizer: not saved with legacy = false, which means a null normalizer and the pre-tokenizer " +
        "{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"first\",\"split\":false}"
    )
    assert.include(
      problem(changed((document) => { document.decoder.decoders.pop() })),
      "at $.decoder: not that of a Llama tokenizer"
    )
    assert.include(
      problem(changed((document) => { document.model.vocab.ab = 9999 })),
      "id 9999 of \"ab\" is not between 0 and 263"
    )
    assert.include(problem(changed((document) => { document.model.vocab.ab = 5 })), "id 5 is given to ")
    assert.include(
      problem(changed((document) => { document.model.merges[0] = "ab" })),
      "at $.model.merges[0]: \"ab\" is not two pieces"
    )
    assert.include(
      problem(changed((document) => { document.model.merges[0] = "a x" })),
      "\"a\" and \"x\" make no piece"
    )
    assert.include(
      problem(changed((document) => { document.model.merges = ["ab c", "a b", "b a"] })),
      "\"b\" and \"a\" make no piece"
    )
    assert.include(
      problem(changed((document) => { document.model.merges = ["a b"] })),
      "at $.model.merges[1]: null where the pieces' scores would put [\"ab\",\"c\"]: " +
        "the list is not that of a vocabulary ordered by scores; transformers 5 makes such a list of a "
    )
    assert.include(problem(changed((document) => { document.added_tokens[0].special = "yes" })), "special")
    assert.include(
      problem(changed((document) => { document.model.unk_token = null })),
      "exactly one piece must have type unknown"
    )
  })

  it("writes the frame that is asked for", () => {
    const template = (frame: TokenizerJson.Frame) =>
      JSON.parse(Result.getOrThrow(TokenizerJson.print(small, frame))).post_processor
    assert.isNull(template({ addBos: false, addEos: false }))
    const { pair, single, special_tokens } = template({ addBos: true, addEos: true })
    const names = (parts: ReadonlyArray<{ SpecialToken?: { id: string }; Sequence?: { id: string } }>) =>
      parts.map((part) => part.SpecialToken?.id ?? part.Sequence?.id).join(" ")
    assert.strictEqual(names(single), "<s> A </s>")
    assert.strictEqual(names(pair), "<s> A </s> <s> B </s>")
    assert.deepStrictEqual(special_tokens["</s>"], { id: "</s>", ids: [2], tokens: ["</s>"] })
  })

  it("mutated documents are read or refused", () => {
    const text = printed(small)
    fc.assert(fc.property(fc.nat(text.length - 1), fc.string({ maxLength: 2 }), fc.nat(3), (at, put, cut) => {
      Result.isFailure(TokenizerJson.parse(text.slice(0, at) + put + text.slice(at + cut)))
    }), { numRuns: 300 })
  })

  it("refuses to write what the format cannot say", () => {
    const refusal = (model: SentencePiece.Model) => Result.getOrThrow(Result.flip(TokenizerJson.print(model))).message
    assert.include(
      refusal(modelOf([], false, { removeExtraWhitespaces: true })),
      "at $.normalizer: the model rewrites text by more"
    )
    const plain = modelOf([], false, { addDummyPrefix: false })
    assert.include(
      Result.getOrThrow(Result.flip(TokenizerJson.printNonLegacy(plain))).message,
      "at $.pre_tokenizer: the model puts no space in front of text"
    )
    assert.include(
      Result.getOrThrow(Result.flip(Tokenizer.fromModelNonLegacy(plain))).message,
      "its normalizer is not Llama's, and legacy = false is defined for no other"
    )
    assert.include(
      refusal(modelOf([], false, {}, { bosPiece: "<bos>" })),
      "at $.post_processor: it is to add <bos>, but no control piece of the model has that name"
    )
    assert.include(refusal(modelOf([], false, {}, { modelType: "word" })), "the model is word, not byte-pair")
    assert.include(refusal(modelOf([{ text: "x", score: 0, type: "unused" }], false)), "piece 3 is of type unused")
  })

  it.skipIf(!hasData)("Llama 2: 61 249 merges, and the same ids (needs CRIA_TEST_DATA)", () => {
    const text = printed(llamaModel())
    const { added_tokens, model } = JSON.parse(text)
    assert.strictEqual(model.merges.length, 61_249)
    assert.deepStrictEqual(model.merges.slice(0, 3), ["▁ t", "e r", "i n"])
    assert.deepStrictEqual(added_tokens.map((token: { content: string }) => token.content), ["<unk>", "<s>", "</s>"])
    const again = codecOf(parsed(text))
    fc.assert(fc.property(TextArbitrary.text, (text) =>
      assert.deepStrictEqual(again.encode(text), llama().encode(text))))
  })
})

layer(Layer.merge(NodeFileSystem.layer, Path.layer))("TokenizerJson files", (it) => {
  it.effect("a folder there and back, of either kind", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const folder = yield* files.makeTempDirectoryScoped()
      for (const legacy of [true, false]) {
        const [parse, print] = legacy
          ? [TokenizerJson.parse, TokenizerJson.print] as const
          : [TokenizerJson.parseNonLegacy, TokenizerJson.printNonLegacy] as const
        const config = { ...TokenizerConfig.ofModel(trained, legacy), chatTemplate: "{{ bos_token }}" }
        yield* Tokenizer.saveHuggingFace(folder, { model: trained, config }, print)
        const again = yield* Tokenizer.loadHuggingFace(folder, parse)
        assert.deepStrictEqual(again.config, config)
        assert.deepStrictEqual(again.model.pieces.map(({ text }) => text), trained.pieces.map(({ text }) => text))
      }
      const read = (layer: Layer.Layer<Tokenizer.Tokenizer, Tokenizer.TokenizerFileError | PlatformError.PlatformError,
        FileSystem.FileSystem>) => Tokenizer.Tokenizer.pipe(Effect.provide(layer))
      const { encode } = yield* read(Tokenizer.layerTokenizerJsonNonLegacy(`${folder}/tokenizer.json`))
      assert.strictEqual(encode(" cat").length, encode("cat").length)
      const error = yield* Effect.flip(read(Tokenizer.layerTokenizerJson(`${folder}/tokenizer.json`)))
      assert.include(error.message, "tokenizer.json: tokenizer.json, at $.pre_tokenizer: saved with legacy = false")
      yield* files.writeFileString(`${folder}/tokenizer_config.json`, `{ "bos_token": "<bos>" }`)
      const unknown = yield* Effect.flip(Tokenizer.loadHuggingFace(folder, TokenizerJson.parseNonLegacy))
      assert.include(unknown.message, "tokenizer_config.json, at $.bos_token: \"<bos>\" is not in the vocabulary")
    }))

  it.effect("a layer reads one", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const path = `${yield* files.makeTempDirectoryScoped()}/tokenizer.json`
      yield* files.writeFileString(path, printed(trained))
      const codec = yield* Tokenizer.Tokenizer.pipe(Effect.provide(Tokenizer.layerTokenizerJson(path)))
      assert.deepStrictEqual(codec.encode("that cat"), codecOf(trained).encode("that cat"))
      yield* files.writeFileString(path, "[]")
      const error = yield* Effect.flip(Tokenizer.Tokenizer.pipe(Effect.provide(Tokenizer.layerTokenizerJson(path))))
      assert.include(error.message, "tokenizer.json: tokenizer.json, at $: ")
    }))
})
