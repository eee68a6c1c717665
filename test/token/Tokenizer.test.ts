import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, FileSystem, Result } from "effect"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as TokenizerLaw from "../../src/testing/TokenizerLaw.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as Trainer from "../../src/token/Trainer.ts"
import { hasData, llama, readData, readText } from "./realModel.ts"
import { bytePieces, codecOf, modelOf, reserved } from "./vocabularies.ts"

const utf8 = (text: string) => new TextEncoder().encode(text)
const trained = codecOf(Result.getOrThrow(Trainer.trainSync(
  ["the cat sat on the mat", "then the other cat sat on that mat 2 times", "ein Satz über Käse", "猫はマットの上に座った"],
  { ...Trainer.llama(340), characterCoverage: 1 }
)).model)

describe.each([
  ["trained here", () => trained, TokenizerLaw.sentencePiece],
  ["bytes", () => codecOf(Tokenizer.bytesModel), TokenizerLaw.plain],
  ...hasData ? [["Llama 2", llama, TokenizerLaw.sentencePiece] as const] : []
] as const)("laws, %s", (_, codec, reading) => {
  for (const { check, name } of TokenizerLaw.laws(reading)) it(name, () => check(codec(), { numRuns: 300 }))
})

describe("Tokenizer", () => {
  it("of bytes: 259 ids, id = byte + 3", () => {
    const codec = codecOf(Tokenizer.bytesModel)
    assert.deepStrictEqual(
      [codec.vocabSize, codec.unkId, codec.bosId, codec.eosId, codec.padId],
      [259, 0, 1, 2, undefined]
    )
    assert.deepStrictEqual([...codec.encode("a é▁")], [...utf8("a é▁")].map((byte) => byte + 3))
    assert.strictEqual(codec.piece(13), "<0x0A>")
    assert.deepStrictEqual([0, 1, 2, 3].map(codec.byteLength), [5, 0, 0, 1])
  })

  it("knows a padding id where the model has one", () => {
    const model = modelOf([{ text: "<pad>", score: 0, type: "control" }], true)
    assert.strictEqual(codecOf(model).padId, 259)
  })

  it("throws, with the place, for ids that the vocabulary lacks", () => {
    const codec = codecOf(Tokenizer.bytesModel)
    const message = "decode: id 259 at position 1 is not in the vocabulary of 259 pieces (0 to 258)\n  " +
      "do the ids come from another tokenizer, or from a model whose vocabulary was padded to a rounder size?"
    assert.throws(() => codec.decode([3, 259]), message)
    const decoder = codec.streamDecoder()
    decoder.push(3)
    assert.throws(() => decoder.push(259), message)
    for (const id of [-1, 259, 1.5, NaN]) {
      assert.throws(() => codec.piece(id), `id ${id} at position 0`)
      assert.throws(() => codec.byteLength(id), `id ${id} at position 0`)
    }
  })

  it("refuses models that it would encode differently from SentencePiece, with every reason", () => {
    const refused = (model: SentencePiece.Model) => Result.getOrThrow(Result.flip(Tokenizer.fromModel(model)))
    const unigram = refused(
      modelOf([], false, { charsmap: Uint8Array.of(9, 0, 0, 0, 1, 2) }, { modelType: "unigram", bosPiece: "<start>" })
    )
    assert.instanceOf(unigram, Tokenizer.UnsupportedModelError)
    assert.strictEqual(
      unigram.message,
      "SentencePiece model: not usable as a Llama tokenizer\n" +
        "  its model_type is unigram, which cuts text by another rule than byte-pair encoding\n" +
        "  no control piece is named <start> (beginning of sequence)\n" +
        "  precompiled_charsmap of 6 bytes claims a trie of 9 bytes\n" +
        "  Cria encodes byte-pair models (model_type BPE) with <s> and </s> as control pieces"
    )
    const denormalizing = refused({ ...modelOf([], false), hasDenormalizer: true })
    assert.include(denormalizing.message, "it has a denormalizer, which would rewrite decoded text")
    const noEnd = refused(Result.getOrThrow(SentencePiece.make(
      reserved.slice(0, 2),
      { ...SentencePiece.defaultTrainer, modelType: "bpe" },
      SentencePiece.identityNormalizer
    )))
    assert.include(noEnd.message, "no control piece is named </s> (end of sequence)")
  })

  it("without bytes to fall back on, unknown characters in a row are one <unk>", () => {
    const codec = codecOf(
      modelOf([{ text: "a", score: -1, type: "normal" }, { text: "\u2581", score: -2, type: "normal" }], false)
    )
    assert.deepStrictEqual([...codec.encode("axyaz z")], [4, 3, 0, 3, 0, 4, 0])
    assert.strictEqual(codec.decode(codec.encode("axa")), "a \u2047 a")
  })
})

layer(NodeFileSystem.layer)("Tokenizer files", (it) => {
  it.effect("a saved model is the same tokenizer when loaded", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const path = `${yield* files.makeTempDirectoryScoped()}/tokenizer.model`
      const { model } = yield* Effect.fromResult(Trainer.trainSync(["hello hello world"], Trainer.llama(280)))
      yield* Tokenizer.saveModel(path, model)
      const before = yield* Tokenizer.Tokenizer.pipe(Effect.provide(Tokenizer.layerModel(model)))
      const after = yield* Tokenizer.Tokenizer.pipe(Effect.provide(Tokenizer.layerSentencePiece(path)))
      assert.deepStrictEqual(yield* files.readFile(path), new Uint8Array(model.bytes))
      assert.deepStrictEqual(after.encode("hello new world"), before.encode("hello new world"))
    }))

  it.effect("a file that is no model fails with its path", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const path = `${yield* files.makeTempDirectoryScoped()}/tokenizer.json`
      yield* files.writeFileString(path, "{ \"version\": \"1.0\" }")
      const error = yield* Effect.flip(Tokenizer.Tokenizer.pipe(Effect.provide(Tokenizer.layerSentencePiece(path))))
      assert.strictEqual(error._tag, "TokenizerFileError")
      assert.match(
        error.message,
        /^\/.*tokenizer\.json: SentencePiece model, 1 problem:\n {2}byte 0: field 15 has wire type 3/
      )
      yield* files.writeFile(path, modelOf(bytePieces.slice(0, 0), false, {}, { modelType: "char" }).bytes)
      const unsupported = yield* Effect.flip(
        Tokenizer.Tokenizer.pipe(Effect.provide(Tokenizer.layerSentencePiece(path)))
      )
      assert.include(unsupported.message, "its model_type is char")
    }))
})

describe.skipIf(!hasData)("Tokenizer, real Llama 2 (needs CRIA_TEST_DATA)", () => {
  const ids = (text: string) => [...llama().encode(text)].join(" ")

  it("llama.cpp's 47 cases", () => {
    const inputs = readText("llama-spm.inp").split("\n__ggml_vocab_test__\n")
    const outputs = readText("llama-spm.out").split("\n")
    assert.strictEqual(inputs.length, 47)
    inputs.forEach((input, i) => assert.strictEqual(ids(input), outputs[i]!.trim(), JSON.stringify(input)))
  })

  it("edge cases of encoding", () => {
    const cases: ReadonlyArray<readonly [string, string]> = [
      ["", ""], [" ", "259"], ["  ", "1678"], [" ".repeat(15), "462"], [" ".repeat(16), "462 29871"],
      [" ".repeat(17), "462 259"],
      [" ".repeat(31), "462 462"], [" ".repeat(32), "462 462 29871"], [" ".repeat(64), "462 462 462 462 29871"],
      [" Hello", "29871 15043"], ["    Hello", "268 15043"], [
        "Hi  Hello",
        "6324 29871 15043"
      ], ["Hi   Hello", "6324 259 15043"],
      ["trailing space ", "25053 2913 29871"], ["trailing  ", "25053 259"], [
        " ".repeat(11) + "grabbed",
        "9651 2646 1327 287"
      ],
      ["grabbed", "2646 1327 287"], [
        " grabbed",
        "29871 2646 1327 287"
      ], ["\n", "29871 13"], ["\t", "29871 12"], [" \n", "259 13"],
      ["\r\n", "6756 13"], ["a\r\nb", "263 30004 13 29890"], ["x     y", "921 268 343"],
      [
        "1234567890",
        "29871 29896 29906 29941 29946 29945 29953 29955 29947 29929 29900"
      ], ["3.14", "29871 29941 29889 29896 29946"],
      [
        "１２３",
        "29871 31936 242 191 149 242 191 150"
      ], ["٣", "29871 220 166"], ["ﬁ", "29871 31017"], ["\u212b", "29871 229 135 174"],
      ["\u3000", "29871 30358"], ["\u00a0", "20246"], ["\u00c5", "11260"], ["A\u030a", "319 207 141"],
      ["e\u0301", "321 30103"],
      ["你好", "29871 30919 31076"], ["🙂", "29871 243 162 156 133"], ["🦙Ꙋ", "29871 243 162 169 156 237 156 141"],
      ["\0", "29871 3"], ["1\x002\ufffd3", "29871 29896 3 29906 30140 29941"], ["\ufeffHi", "29871 30143 18567"],
      ["▁", "259"], ["▁Hello", "29871 15043"], [" ▁ ", "268"], ["<s>", "529 29879 29958"], ["<unk>", "529 2960 29958"],
      ["<0x0A>", "529 29900 29916 29900 29909 29958"], ["ax\n####\nboo", "4853 13 4136 13 833 29877"],
      ["生活的真谛是", "29871 30486 31704 30210 30848 235 179 158 30392"], ["This is a test", "910 338 263 1243"],
      ["But ird and ปี   ird   ด", "1205 29871 1823 322 29871 31010 30691 1678 1823 1678 30718"],
      ["Hey how are you doing", "18637 920 526 366 2599"], ["\ud800", "29871 30140"]
    ]
    for (const [input, expected] of cases) assert.strictEqual(ids(input), expected, JSON.stringify(input))
  })

  it("malformed bytes read as U+FFFD, one each", () => {
    const bytes = (...values: ReadonlyArray<number>) => [...llama().encodeBytes(Uint8Array.from(values))].join(" ")
    assert.strictEqual(bytes(0xff, 0xfe, 0x61, 0x62, 0x63), "29871 26308 10736")
    assert.strictEqual(bytes(0x61, 0x62, 0x63, 0xe4, 0xbd), "25638 26308")
    assert.strictEqual(bytes(), "")
  })

  it("edge cases of decoding", () => {
    const cases: ReadonlyArray<readonly [ReadonlyArray<number>, string]> = [
      [[1, 15043], "Hello"], [[29871], ""], [[259], " "], [[231, 192, 163], "你"], [[231, 192], "\ufffd\ufffd"],
      [[258], "\ufffd"],
      [[195, 131], "\ufffd\ufffd"], [
        [240, 163, 131],
        "\ufffd\ufffd\ufffd"
      ], [[15043, 2, 1, 15043], "Hello Hello"], [[0], " \u2047 "],
      [[243, 162, 15043], "\ufffd\ufffd Hello"], [[13, 15043], "\n Hello"], [[869], "."], [[30112, 869], "ا ."],
      [[29871, 15043], " Hello"], [[1, 29871, 1, 15043], " Hello"], [[231, 1, 192, 163], "\ufffd\ufffd\ufffd"]
    ]
    for (const [input, expected] of cases) {
      assert.strictEqual(llama().decode(input), expected, input.join(" "))
      const decoder = llama().streamDecoder()
      assert.strictEqual(input.map(decoder.push).join("") + decoder.end(), expected, input.join(" "))
    }
  })

  it("a stream holds back an unfinished character and nothing else", () => {
    const decoder = llama().streamDecoder()
    assert.deepStrictEqual(
      [1, 15043, 243, 162, 156, 133, 13, 29871].map(decoder.push),
      ["", "Hello", "", "", "", "🙂", "\n", " "]
    )
    assert.strictEqual(decoder.end(), "")
    assert.strictEqual(decoder.push(15043), "Hello")
  })

  it("chat as Meta writes it", () => {
    const { bos, eos } = Tokenizer
    assert.strictEqual(
      [...llama().encodeSegments([bos, "[INST] Hi [/INST] Hello! ", eos, bos, "[INST] Bye [/INST]"])].join(" "),
      "1 518 25580 29962 6324 518 29914 25580 29962 15043 29991 29871 2 " +
        "1 518 25580 29962 2648 29872 518 29914 25580 29962"
    )
  })

  it("two novels come back from their ids", () => {
    for (const name of ["botchan.txt", "tinyshakespeare.txt"]) {
      const text = readText(name)
      assert.strictEqual(llama().decode(llama().encode(text)), text)
    }
  })

  it("its own ids and sizes", () => {
    const { bosId, byteLength, eosId, padId, piece, unkId, vocabSize } = llama()
    assert.deepStrictEqual([vocabSize, unkId, bosId, eosId, padId], [32_000, 0, 1, 2, undefined])
    assert.deepStrictEqual([piece(15043), byteLength(15043), byteLength(13), byteLength(1)], ["\u2581Hello", 6, 1, 0])
    assert.strictEqual(readData("tokenizer.model").length, 499_723)
  })
})
