import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { readFileSync } from "node:fs"
import { modelOf } from "../token/vocabularies.ts"
import { printed, told, withModel } from "./checkpoints.ts"
import { cria, withFiles } from "./Cria.ts"

describe("cria inspect", () => {
  it.live("shows tensors and the model of a folder", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const lines = (yield* printed(disk, "inspect", "/hf")).split("\n")
      assert.strictEqual(lines[0], "/hf/model.safetensors: safetensors, 20 tensors, 4.22 k numbers in 16.9 kB")
      assert.include(lines, "  F32  [19, 16]  1.22 kB  model.embed_tokens.weight")
      assert.include(lines, "model: huggingface, 4.22 k parameters (the head is the embedding)")
      assert.include(lines, "  tokenizer none")
      yield* printed(disk, "import", "/hf", "--out", "/run")
      const own = yield* printed(disk, "inspect", "/run")
      assert.match(own, /^\/run\/snapshot-00000000\/model.safetensors: safetensors, 21 tensors/)
      assert.include(own, "block.0.attention.query")
    }))
  it.live("shows an ONNX model: its inputs, outputs, operators and tensors, and where those stand", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      yield* printed(disk, "export", "/hf", "--to", "onnx", "--length", "8", "--out", "/onnx")
      const lines = (yield* printed(disk, "inspect", "/onnx")).split("\n")
      assert.match(lines[0]!, /^\/onnx\/model\.onnx: ONNX IR v10, \d+ tensors, /)
      assert.deepStrictEqual(lines.slice(1, 5), [
        "  producer cria", "  opsets ai.onnx 23, com.microsoft 1", "  input  I32 [1, 8] ids",
        "  output F32 [1, 8, 19] logits"
      ])
      assert.match(lines[5]!, /^ {2}\d+ operators: .*\b\d+ MatMul, /)
      assert.lengthOf(lines.filter((line) => line.endsWith(", in model.onnx.data")), 21)
      assert.match(lines.at(-2)!, /An ONNX model is written for others and not read: name what it was exported from/)
      const json: unknown = JSON.parse(yield* printed(disk, "inspect", "/onnx/model.onnx", "--json"))
      assert.nestedPropertyVal(json, "files[0].graph.inputs[0].name", "ids")
      yield* disk.fileSystem.remove("/onnx/model.onnx.data")
      assert.match(yield* told(disk, "inspect", "/onnx"),
        /^error: \/onnx\/model\.onnx: cannot read this as ONNX\n {2}missing data: .*the file model\.onnx\.data beside/)
    }))
  it.live("says last what is damaged, with the exit code 1, after all that can be shown", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const weights = yield* disk.fileSystem.readFile("/hf/model.safetensors")
      const inspect = (...args: ReadonlyArray<string>) =>
        Effect.map(cria(disk, ["inspect", ...args]), ({ errors, exit, output }) => {
          assert.isTrue(Exit.isFailure(exit))
          return { errors, output }
        })
      yield* withFiles(disk, { "/hf/model.safetensors": weights.slice(0, 40) })
      const cut = yield* inspect("/hf")
      assert.match(cut.errors, /^error: \/hf\/model\.safetensors.*\n[^]+/)
      assert.strictEqual(cut.errors.match(/^error: /gm)?.length, 1) // once, though files and model both stumble
      assert.strictEqual(cut.output, "")
      const config = yield* disk.fileSystem.readFileString("/hf/config.json")
      yield* withFiles(disk, {
        "/hf/model.safetensors": weights, "/hf/config.json": config.replace(/layers": \d+/, "layers\": 3")
      })
      const other = yield* inspect("/hf")
      assert.include(other.output, "  F32  [19, 16]  1.22 kB  model.embed_tokens.weight\n")
      assert.match(other.errors, /^error: \/hf: its tensors must be those that its description asks for\n {2}missing/)
      yield* withFiles(disk, { "/hf/config.json": "{" })
      assert.match((yield* inspect("/hf")).errors, /^error: \/hf\/config\.json: .*\n {2}the file = no JSON/)
      yield* withFiles(disk, { "/hf/config.json": config, "/hf/tokenizer.model": "torn" })
      const torn = yield* inspect("/hf", "--json")
      const json: unknown = JSON.parse(torn.output)
      assert.nestedPropertyVal(json, "model.format", "huggingface")
      assert.nestedProperty(json, "damages[0]")
      assert.include((yield* inspect("/hf")).output, "\n  tokenizer that cannot be read\n")
      assert.match(torn.errors, /^error: \/hf\/tokenizer\.model/)
    }))
  it.live("says of a sound tokenizer of another kind that Cria does not compute it, which is no damage", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      yield* withFiles(disk, { "/hf/tokenizer.model": modelOf([], true, {}, { modelType: "unigram" }).bytes })
      const unigram = "its model_type is unigram, which cuts text by another rule than byte-pair encoding"
      assert.include(yield* printed(disk, "inspect", "/hf"),
        `\n  tokenizer of a kind that Cria does not compute: /hf/tokenizer.model: SentencePiece model: not usable as ` +
          `a Llama tokenizer\n  ${unigram}\n`)
      const json: unknown = JSON.parse(yield* printed(disk, "inspect", "/hf", "--json"))
      assert.nestedPropertyVal(json, "model.tokenizer", null)
      assert.notProperty(json, "damages")
      assert.include(Reflect.get(Object(json), "noTokenizer"), unigram)
      yield* disk.fileSystem.remove("/hf/tokenizer.model")
      const model = { type: "Unigram", unk_id: 0, vocab: [["u", 0]] }
      yield* withFiles(disk, { "/hf/tokenizer.json": JSON.stringify({ added_tokens: [], normalizer: null, model }) })
      assert.include(yield* printed(disk, "inspect", "/hf"), "of a kind that Cria does not compute: /hf/tokenizer.json")
      const merges = readFileSync(new URL("../parity/gguf/merges.gguf", import.meta.url))
      yield* withFiles(disk, { "/merges.gguf": new Uint8Array(merges) })
      assert.include(yield* printed(disk, "inspect", "/merges.gguf"), "\n  tokenizer of a kind that Cria does not " +
        "compute: /merges.gguf: its tokenizer is none that Cria reads\n  tokenizer.ggml.model = \"gpt2\": ")
    }))
  it.live("tells damage alike in text and in JSON", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      yield* disk.fileSystem.remove("/hf/model.safetensors")
      yield* disk.fileSystem.makeDirectory("/hf/model.safetensors")
      const { errors, output } = yield* cria(disk, ["inspect", "/hf", "--json"])
      assert.deepStrictEqual(errors, JSON.parse(output).damages.map((damage: string) => `error: ${damage}\n`).join(""))
    }))
  it.live("shows a file that is no model of Cria, and why", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const config = yield* disk.fileSystem.readFileString("/hf/config.json")
      yield* withFiles(disk, { "/hf/config.json": config.replace("\"silu\"", "\"gelu\"") })
      const output = yield* printed(disk, "inspect", "/hf")
      assert.include(output, "model.norm.weight\n")
      assert.include(output,
        "no model: /hf/config.json: this model is none that Cria computes\n  hidden_act = \"gelu\"")
      const json: unknown = JSON.parse(yield* printed(disk, "inspect", "/hf/model.safetensors", "--json"))
      assert.nestedPropertyVal(json, "files[0].tensors[0].type", "F32")
      assert.nestedProperty(json, "noModel")
      assert.include(yield* told(disk, "inspect", "/bytes.model"), "error: /bytes.model: no checkpoint that Cria reads")
    }))
})
