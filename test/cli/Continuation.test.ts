import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Fs from "node:fs"
import * as Continuation from "../../src/cli/Continuation.ts"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"

const file = new URL("../parity/tokenizer/llama.model", import.meta.url)
const model = Result.getOrThrow(SentencePiece.parse(new Uint8Array(Fs.readFileSync(file))))

describe("the ids of a prompt", () => {
  // what `encode` of the library tokenizers gives for test/parity/tokenizer/{legacy,non-legacy}/tokenizer.json
  it.each<[string, (model: SentencePiece.Model) => Result.Result<Tokenizer.Codec, Error>, object]>([
    ["legacy", Tokenizer.fromModel, {
      "": [1], "the llama": [1, 268, 350], " the llama": [1, 609, 268, 350], "One": [1, 609, 82, 488]
    }],
    ["legacy = false", Tokenizer.fromModelNonLegacy, {
      "": [1], "the llama": [1, 268, 350], " the llama": [1, 268, 350], "One": [1, 609, 82, 488]
    }]
  ])("begin a document, whose first text the prompt is: %s", (_, codec, ids) => {
    for (const [prompt, expected] of Object.entries(ids)) {
      assert.deepStrictEqual([...Continuation.idsOf(Result.getOrThrow(codec(model)), prompt)], expected, prompt)
    }
  })
  it("are as many as a long prompt has", () => {
    const codec = Result.getOrThrow(Tokenizer.fromModel(model))
    assert.isAbove(Continuation.idsOf(codec, "the llama. ".repeat(70_000)).length, 200_000)
  })
})
