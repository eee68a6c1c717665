import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, FileSystem, Result } from "effect"
import * as fc from "fast-check"
import type * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as TokenizerBin from "../../src/token/TokenizerBin.ts"
import * as Trainer from "../../src/token/Trainer.ts"
import { hasData, llama, llamaModel, readData } from "./realModel.ts"
import * as TextArbitrary from "../../src/testing/TextArbitrary.ts"
import { codecOf, modelOf } from "./vocabularies.ts"

const printed = (model: SentencePiece.Model): Uint8Array => Result.getOrThrow(TokenizerBin.print(model))
const parsed = (bytes: Uint8Array): SentencePiece.Model => Result.getOrThrow(TokenizerBin.parse(bytes))
const problem = (bytes: Uint8Array): string => Result.getOrThrow(Result.flip(TokenizerBin.parse(bytes))).message
const trained = Result.getOrThrow(Trainer.trainSync(["the cat sat on the mat, then slept"], Trainer.llama(290))).model

describe("TokenizerBin", () => {
  it("there and back, a vocabulary is the same", () => {
    assert.deepStrictEqual(parsed(printed(trained)).pieces, trained.pieces)
    assert.deepStrictEqual(printed(parsed(printed(trained))), printed(trained))
  })

  it("begins as llama2.c writes it", () => {
    const bytes = printed(modelOf([{ text: "\u2581a", score: -1.5, type: "normal" }], true))
    const text = (from: number, length: number) => new TextDecoder().decode(bytes.subarray(from, from + length))
    assert.deepStrictEqual([...bytes.subarray(0, 12)], [6, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0])
    assert.deepStrictEqual(
      [text(12, 5), text(25, 5), text(38, 6), text(52, 6)],
      ["<unk>", "\n<s>\n", "\n</s>\n", "<0x00>"]
    )
    assert.deepStrictEqual([...bytes.subarray(-10)], [0, 0, 0xc0, 0xbf, 2, 0, 0, 0, 0x20, 0x61])
  })

  it("truncated or mutated files are read or refused inside their bytes", () => {
    const bytes = printed(trained)
    let refused = 0
    fc.assert(fc.property(
      fc.nat(bytes.length), fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { maxLength: 3 }), fc.boolean(),
      (end, changes, truncate) => {
        const copy = bytes.slice(0, truncate ? end : undefined)
        for (const [at, to] of changes) if (at < copy.length) copy[at] = to
        const result = TokenizerBin.parse(copy)
        if (Result.isFailure(result)) {
          refused++
          if (result.failure._tag === "TokenizerBinError") assert.isAtMost(result.failure.offset, copy.length)
        }
      }
    ), { numRuns: 1000 })
    assert.isAbove(refused, 300)
  })

  it("says what is wrong, and where", () => {
    const bytes = printed(trained)
    const changed = (at: number, to: number) => {
      const copy = bytes.slice()
      copy[at] = to
      return copy
    }
    const hint = "\n  is it a tokenizer.bin of llama2.c, whole and unchanged? " +
      "compare its size and checksum with the source"
    assert.strictEqual(
      problem(new Uint8Array(3)),
      `tokenizer.bin, byte 0: 3 bytes are too few for the length of the longest piece${hint}`
    )
    assert.include(problem(bytes.slice(0, 10)), "byte 4: piece 0 has 6 of the 8 bytes of its score and length")
    assert.include(problem(changed(11, 0x7f)), "byte 8: piece 0 claims 2130706437 bytes; the longest has ")
    assert.include(problem(changed(8, 0)), "byte 8: piece 0 claims 0 bytes")
    assert.include(problem(changed(12, 0xff)), "byte 12: piece 0 is not valid UTF-8")
    assert.include(problem(changed(26, 0x53)), "byte 25: piece 1 is \"\\nSs>\\n\", not \"\\n<s>\\n\"")
    assert.include(problem(changed(0, bytes[0]! + 1)), "byte 0: the longest piece has ")
  })

  it("refuses to write what the format cannot hold", () => {
    const refusal = (model: SentencePiece.Model) => Result.getOrThrow(Result.flip(TokenizerBin.print(model))).message
    assert.strictEqual(
      refusal(modelOf([], false)),
      "tokenizer.bin cannot hold this model: ids 0 to 258 must be unknown, <s>, </s> and the 256 bytes, " +
        "all others normal; it has 3 pieces\n" +
        "  save it as tokenizer.model instead, which holds everything"
    )
    assert.include(
      refusal(modelOf([{ text: "[SEP]", score: 0, type: "user-defined" }], true)),
      "piece 259 is user-defined \"[SEP]\""
    )
    assert.include(refusal(modelOf([], true, { addDummyPrefix: false })), "llama2.c always puts a space in front")
  })

  it.skipIf(!hasData)("the real files, byte for byte (needs CRIA_TEST_DATA)", () => {
    const bytes = readData("tok512.bin")
    const model = parsed(bytes)
    assert.strictEqual(model.pieces.length, 512)
    assert.deepStrictEqual(printed(model), bytes)
    const codec = codecOf(model)
    fc.assert(fc.property(TextArbitrary.text, (text) => {
      const plain = text.replaceAll("\u2581", " ")
      assert.strictEqual(codec.decode(codec.encode(plain)), plain.replace(/\p{Surrogate}/gu, "\ufffd"))
    }))
    const again = codecOf(parsed(printed(llamaModel())))
    fc.assert(fc.property(TextArbitrary.text, (text) =>
      assert.deepStrictEqual(again.encode(text), llama().encode(text))))
  })
})

layer(NodeFileSystem.layer)("TokenizerBin files", (it) => {
  it.effect("a layer reads one", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const path = `${yield* files.makeTempDirectoryScoped()}/tokenizer.bin`
      yield* files.writeFile(path, printed(trained))
      const codec = yield* Tokenizer.Tokenizer.pipe(Effect.provide(Tokenizer.layerLlama2c(path)))
      assert.deepStrictEqual(codec.encode("the mat"), codecOf(trained).encode("the mat"))
    }))
})
