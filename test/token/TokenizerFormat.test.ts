import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Result } from "effect"
import * as TokenizerFormat from "../../src/token/TokenizerFormat.ts"
import * as TokenizerJson from "../../src/token/TokenizerJson.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { modelOf } from "./vocabularies.ts"

const model = modelOf(["a", "b", "\u2581", "ab"].map((text, i) => ({ text, score: -i, type: "normal" })), true)
const ids = (read: TokenizerFormat.Read): string => read.codec.encode(" ab").join(" ")

const provided = ({ fileSystem }: MemoryDisk.MemoryDisk) => Effect.provideService(FileSystem.FileSystem, fileSystem)

describe("TokenizerFormat", () => {
  it("each format reads what it writes, as Meta's function", () => {
    assert.deepStrictEqual(TokenizerFormat.all.map(({ ending }) => ending), [".model", ".json", ".bin"])
    for (const { ending, parse, print, read } of TokenizerFormat.all) {
      const file = Result.getOrThrow(print(model))
      const texts = Result.getOrThrow(parse(file)).pieces.map(({ text }) => text)
      assert.deepStrictEqual(texts, model.pieces.map(({ text }) => text), ending)
      const found = Result.getOrThrow(read(file))
      assert.isTrue(found.isLegacy)
      assert.strictEqual(ids(found), "261 261 262", ending)
      assert.isTrue(Result.isFailure(parse(file.subarray(0, 50))))
      assert.isTrue(Result.isFailure(read(file.subarray(0, 50))))
    }
  })

  it("a name tells its format by its ending", () => {
    assert.strictEqual(TokenizerFormat.ofName("a/tokenizer.json")?.ending, ".json")
    assert.strictEqual(TokenizerFormat.ofName("a.model/tokenizer.txt"), undefined)
  })

  it.effect("of two functions, the file's own is opened, and the other is not taken for it", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      disk.put("/tokenizer.json", new TextEncoder().encode(Result.getOrThrow(TokenizerJson.printNonLegacy(model))))
      disk.put("/llama", model.bytes)
      const found = yield* TokenizerFormat.open("/tokenizer.json").pipe(provided(disk))
      assert.isFalse(found.isLegacy)
      assert.strictEqual(ids(found), "261 262")
      const error = yield* Effect.flip(TokenizerFormat.load("/tokenizer.json").pipe(provided(disk)))
      assert.include(error.message, "/tokenizer.json: tokenizer.json, at $.pre_tokenizer: saved with legacy = false")
      assert.deepStrictEqual((yield* TokenizerFormat.load("/llama").pipe(provided(disk))).bytes, model.bytes)
    }))
})
