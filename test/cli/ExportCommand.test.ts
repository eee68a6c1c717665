import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as TokenizerBin from "../../src/token/TokenizerBin.ts"
import * as Trainer from "../../src/token/Trainer.ts"
import { printed, told, withModel } from "./checkpoints.ts"
import { rows, tiny, withFiles } from "./Cria.ts"

describe("cria export", () => {
  it.live("writes every form, of what was written before, and comes back to the same bytes", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      yield* printed(disk, "export", "/hf", "--to", "meta", "--out", "/meta")
      yield* printed(disk, "export", "/meta", "--to", "gguf", "--out", "/a.gguf", "--context-length", "32")
      yield* printed(disk, "export", "/a.gguf", "--to", "llama2c", "--out", "/b.bin")
      assert.strictEqual(yield* printed(disk, "export", "/b.bin", "--to", "huggingface", "--out", "/again"),
        "/again: 4.53 k parameters, huggingface, f32, without a tokenizer (--tokenizer names one)\n")
      const read = (path: string) => disk.fileSystem.readFile(path)
      yield* printed(disk, "export", "/hf", "--to", "huggingface", "--out", "/direct")
      for (const name of ["config.json", "model.safetensors"]) {
        assert.deepStrictEqual(yield* read(`/again/${name}`), yield* read(`/direct/${name}`), name)
      }
    }))
  it.live("writes the forward pass for ONNX Runtime", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const short = ["--to", "onnx", "--length", "8", "--out", "/onnx"]
      assert.include(yield* printed(disk, "export", "/hf", ...short), "onnx, f32")
      assert.sameMembers(yield* disk.fileSystem.readDirectory("/onnx"), ["model.onnx", "model.onnx.data"])
      assert.include(yield* told(disk, "export", "/hf", "--to", "meta", "--length", "8", "--out", "/m"),
        "error: --length 8: only an ONNX model is written for a number of tokens: leave it out, or give --to onnx")
      for (const length of ["0", "33"]) {
        assert.include(yield* told(disk, "export", "/hf", "--to", "onnx", "--length", length, "--out", "/m"),
          `error: --length ${length}: the model reads 1 to 32 tokens`)
      }
    }))
  it.live("writes narrow numbers where the form holds them, and refuses others", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const half = ["--to", "gguf", "--type", "f16", "--out", "/a.gguf"]
      assert.include(yield* printed(disk, "export", "/hf", ...half), "gguf, f16")
      assert.match(yield* printed(disk, "inspect", "/a.gguf"), / F16 +\[16, 24\] +768 B +blk.0.ffn_down.weight/)
      assert.strictEqual(yield* told(disk, "export", "/hf", "--to", "meta", "--type", "q8", "--out", "/m"),
        "error: meta holds no q8: give one of f32, f16, bf16 with --type\n")
      assert.strictEqual(yield* told(disk, "export", "/hf", "--to", "onnx", "--type", "f16", "--out", "/m"),
        "error: onnx holds no f16: give f32 with --type, or leave it out\n")
      assert.include(yield* told(disk, "export", "/hf", "--to", "gguf", "--out", "/a.gguf"), "/a.gguf exists already")
    }))
  it.live("refuses a name by which the file would not be read again, and says which one would", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      assert.strictEqual(yield* told(disk, "export", "/hf", "--to", "gguf", "--out", "/out-gguf"),
        "error: /out-gguf does not end in .gguf, by which a gguf file is known\n  Give --out /out-gguf.gguf.\n")
      assert.strictEqual(yield* told(disk, "export", "/hf", "--to", "llama2c", "--out", "/a.gguf"),
        "error: /a.gguf does not end in .bin, by which a llama2c file is known\n  Give --out /a.gguf.bin.\n")
      for (const path of ["/out-gguf", "/a.gguf"]) assert.isFalse(yield* disk.fileSystem.exists(path))
    }))
  it.live("takes a longest sequence only for what does not say its own", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      assert.include(
        yield* told(disk, "export", "/hf", "--to", "gguf", "--out", "/b.gguf", "--context-length", "9"),
        " tokens\n  --context-length is for folders of Meta's, which do not say: leave it out."
      )
      assert.isFalse(yield* disk.fileSystem.exists("/b.gguf"))
    }))
  it.live("writes llama2.c's tokenizer by the name under which it is found again, before any other", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const other = Result.getOrThrow(Trainer.trainSync(["a cat is not the mat"], Trainer.llama(285))).model
      yield* withFiles(disk, {
        "/bare/tokenizer.bin": Result.getOrThrow(TokenizerBin.print(other)), "/texts/a.jsonl": rows
      })
      const sizes = { "--vocab-size": "320", "--steps": "1", "--warmup": "0" }
      yield* printed(disk, "pretrain", "--text", "/texts/a.jsonl", "--out", "/runs/a", ...tiny(sizes))
      assert.match(yield* printed(disk, "export", "/runs/a", "--to", "llama2c", "--out", "/bare/p.bin"),
        /^\/bare\/p\.tokenizer\.bin: 320 pieces\n/)
      assert.match(yield* printed(disk, "inspect", "/bare/p.bin"), /\n {2}tokenizer of 320 pieces\n$/)
      assert.notInclude(yield* printed(disk, "inspect", "/bare"), "tokenizer.bin: ")
      yield* disk.fileSystem.rename("/bare/p.bin", "/bare/q.bin") // now the other is the nearest
      assert.include(yield* printed(disk, "inspect", "/bare/q.bin"),
        "\n  tokenizer of 285 pieces, and the model knows 320 tokens: they belong to different models")
      yield* disk.fileSystem.rename("/bare/q.bin", "/bare/p.bin")
      assert.include(yield* printed(disk, "import", "/bare/p.bin", "--out", "/again"), "/again: ")
    }))
})
