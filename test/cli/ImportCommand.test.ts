import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import { printed, told, withModel } from "./checkpoints.ts"
import { cria, withFiles } from "./Cria.ts"

describe("cria import", () => {
  it.live("makes a folder of Cria's own, once, and keeps what it was made from", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      assert.strictEqual(yield* printed(disk, "import", "/hf"),
        "runs/hf: 4.53 k parameters from huggingface, " +
          "without a tokenizer (--tokenizer names one)\n")
      const file = "runs/hf/snapshot-00000000/manifest.json"
      const manifest: unknown = JSON.parse(yield* disk.fileSystem.readFileString(file))
      assert.deepNestedInclude(manifest, {
        "step": 0, "configuration.from": "huggingface", "configuration.model.embedSize": 16
      })
      assert.strictEqual(yield* told(disk, "import", "/hf"),
        "error: runs/hf exists already, and is left as it is\n  Name another place, or remove it first.\n")
    }))
  it.live("refuses a tokenizer of another size, one that is not there, and a path without a checkpoint", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      assert.strictEqual(yield* told(disk, "import", "/hf", "--tokenizer", "/bytes.model", "--out", "/x"),
        "error: /hf: the model knows 19 tokens, and the tokenizer in /bytes.model 259\n  The model has no scores for " +
          "the pieces beyond: it is another model's, or pieces were added to it. Give the tokenizer that the model " +
          "learned with.\n--tokenizer PATH names another.\n")
      yield* withFiles(disk, { "/hf/tokenizer.model": Tokenizer.bytesModel.bytes }) // nobody names it
      assert.match(yield* told(disk, "import", "/hf", "--out", "/x"), new RegExp("^error: /hf: the model knows 19 " +
        "tokens, and the tokenizer in /hf/tokenizer\\.model 259\n[^]*\n--tokenizer PATH names another\\.\n$"))
      assert.include((yield* cria(disk, ["inspect", "/hf"])).output, "\n  tokenizer of 259 pieces in " +
        "/hf/tokenizer.model, and the model knows 19 tokens: they belong to different models; name another to the " +
        "command that uses it: --tokenizer PATH\n")
      assert.match(yield* told(disk, "import", "/hf", "--tokenizer", "/none.model", "--out", "/x"),
        /^error: \/none\.model is no tokenizer: ENOENT.*\n {2}Name a \.model/)
      assert.include(yield* told(disk, "import", "/nowhere"), "error: /nowhere: no checkpoint that Cria reads")
      assert.isFalse(yield* disk.fileSystem.exists("/x"))
    }))
})
