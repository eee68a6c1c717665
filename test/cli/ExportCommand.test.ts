import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { printed, told, withModel } from "./checkpoints.ts"

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
        "error: --to meta and --length ask for different things")
      assert.include(yield* told(disk, "export", "/hf", "--to", "onnx", "--length", "99", "--out", "/m"),
        "at most contextLength = 32 positions")
    }))
  it.live("writes narrow numbers where the form holds them, and refuses others", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const half = ["--to", "gguf", "--type", "f16", "--out", "/a.gguf"]
      assert.include(yield* printed(disk, "export", "/hf", ...half), "gguf, f16")
      assert.match(yield* printed(disk, "inspect", "/a.gguf"), / F16 +\[16, 24\] +768 B +blk.0.ffn_down.weight/)
      assert.strictEqual(yield* told(disk, "export", "/hf", "--to", "meta", "--type", "q8", "--out", "/m"),
        "error: meta holds no q8: give one of f32, f16, bf16 with --type\n")
      assert.include(yield* told(disk, "export", "/hf", "--to", "gguf", "--out", "/a.gguf"), "/a.gguf exists already")
    }))
})
