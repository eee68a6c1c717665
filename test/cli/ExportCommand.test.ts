import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as TokenizerBin from "../../src/token/TokenizerBin.ts"
import * as Trainer from "../../src/token/Trainer.ts"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as TokenizerJson from "../../src/token/TokenizerJson.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { modelOf } from "../token/vocabularies.ts"
import { printed, told, withModel } from "./checkpoints.ts"
import { cria, rows, tiny, withFiles } from "./Cria.ts"

describe("cria export", () => {
  it.live("writes every form, of what was written before, and comes back to the same bytes", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      yield* printed(disk, "export", "/hf", "--to", "meta", "--out", "/meta")
      yield* printed(disk, "export", "/meta", "--to", "gguf", "--out", "/a.gguf", "--context-length", "32")
      yield* printed(disk, "export", "/a.gguf", "--to", "llama2c", "--out", "/b.bin")
      assert.strictEqual(yield* printed(disk, "export", "/b.bin", "--to", "huggingface", "--out", "/again"),
        "/again: 4.22 k parameters (the head is the embedding), huggingface, f32, " +
          "without a tokenizer (--tokenizer names one)\n")
      const read = (path: string) => disk.fileSystem.readFile(path)
      yield* printed(disk, "export", "/hf", "--to", "huggingface", "--out", "/direct")
      for (const name of ["config.json", "model.safetensors"]) {
        assert.deepStrictEqual(yield* read(`/again/${name}`), yield* read(`/direct/${name}`), name)
      }
    }))
  it.live("writes the version of llama2.c's files that is asked for, where it holds the numbers", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const out = (version: string, ...more: ReadonlyArray<string>) =>
        ["export", "/hf", "--to", "llama2c", "--llama2c-version", version, "--out", `/v${version}.bin`, ...more]
      for (const [version, type] of [["0", "f32"], ["1", "f32"], ["2", "q8"]] as const) {
        yield* printed(disk, ...out(version, "--type", type))
        assert.include(yield* printed(disk, "inspect", `/v${version}.bin`), `/v${version}.bin: llama2.c v${version}, `)
      }
      yield* printed(disk, "export", "/hf", "--to", "llama2c", "--out", "/plain.bin")
      assert.deepStrictEqual(yield* disk.fileSystem.readFile("/plain.bin"), yield* disk.fileSystem.readFile("/v0.bin"))
      const unheld = (version: string, type: string, right: string) => `error: --llama2c-version ${version}: it does ` +
        `not hold ${type}, for 0 and 1 hold f32, and 2 holds q8: give --type ${right}, or leave the version out\n`
      assert.strictEqual(yield* told(disk, ...out("2")), unheld("2", "f32", "q8"))
      assert.strictEqual(yield* told(disk, ...out("1", "--type", "q8")), unheld("1", "q8", "f32"))
      assert.strictEqual(
        yield* told(disk, "export", "/hf", "--to", "gguf", "--llama2c-version", "1", "--out", "/a.gguf"),
        "error: --llama2c-version 1: only a file for llama2.c has these versions: leave it out, or give --to llama2c\n"
      )
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
      assert.strictEqual(yield* told(disk, "export", "/hf", "--to", "gguf", "--out", "/a.gguf/"),
        "error: /a.gguf/ does not end in .gguf, by which a gguf file is known\n  Give --out /a.gguf.\n")
      for (const path of ["/out-gguf", "/a.gguf"]) assert.isFalse(yield* disk.fileSystem.exists(path))
    }))
  it.live("writes no model where its tokenizer has no place", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const letters = [..."▁abcdefghijklmno"].map((text): SentencePiece.Piece => ({ text, score: -1, type: "normal" }))
      yield* withFiles(disk, { "/hf/tokenizer.model": modelOf(letters, false).bytes, "/a.tokenizer.bin": "mine" })
      assert.strictEqual(yield* told(disk, "export", "/hf", "--to", "llama2c", "--out", "/a.bin"),
        "error: /a.tokenizer.bin exists already, and is left as it is\n  Name another place, or remove it first.\n")
      assert.isFalse(yield* disk.fileSystem.exists("/a.bin"))
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
  it.live("keeps what a folder says of generation where the form has a place for it, and says where it has none", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const generation = JSON.stringify({ eos_token_id: [2, 7], do_sample: true, temperature: 0.6, num_beams: 4 })
      yield* withFiles(disk, { "/hf/generation_config.json": generation })
      yield* printed(disk, "import", "/hf", "--out", "/own")
      yield* printed(disk, "export", "/own", "--to", "huggingface", "--out", "/again")
      for (const folder of ["/own", "/again"]) {
        assert.strictEqual(yield* disk.fileSystem.readFileString(`${folder}/generation_config.json`), generation)
      }
      assert.match(yield* printed(disk, "export", "/own", "--to", "meta", "--out", "/meta"),
        new RegExp("^meta has no place for what the model's folder says of generation: that is not kept\nmeta has no " +
          "place for the longest sequence: where it is read, --context-length \\d+ says it\n/meta: "))
      yield* disk.fileSystem.remove("/hf/generation_config.json")
      yield* printed(disk, "export", "/hf", "--to", "huggingface", "--out", "/silent")
      assert.deepStrictEqual(JSON.parse(yield* disk.fileSystem.readFileString("/silent/generation_config.json")),
        { eos_token_id: [2] }) // of its config.json
      const config = yield* disk.fileSystem.readFileString("/hf/config.json")
      yield* withFiles(disk, { "/hf/config.json": config.replace(/"eos_token_id": \d+/, "\"eos_token_id\": [5, 6]") })
      yield* printed(disk, "export", "/hf", "--to", "huggingface", "--out", "/ends")
      assert.deepStrictEqual(JSON.parse(yield* disk.fileSystem.readFileString("/ends/generation_config.json")),
        { eos_token_id: [5, 6] })
    }))
  it.live("says that nothing is kept only where there is something besides the tokenizer's own end", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const letters = [..."▁abcdefghijklmno"].map((text): SentencePiece.Piece => ({ text, score: -1, type: "normal" }))
      yield* withFiles(disk, { "/hf/tokenizer.model": modelOf(letters, false).bytes })
      const file = "/hf/generation_config.json"
      let count = 0
      const isSaid = Effect.fnUntraced(function*(generation?: string) {
        if (generation !== undefined) yield* withFiles(disk, { [file]: generation })
        const output = yield* printed(disk, "export", "/hf", "--to", "gguf", "--out", `/${count++}.gguf`)
        return output.startsWith("gguf has no place for what the model's folder says of generation: that is not kept\n")
      })
      assert.isFalse(yield* isSaid())
      const plain = { bos_token_id: 1, eos_token_id: 2, transformers_version: "5.18.0" }
      assert.isFalse(yield* isSaid(JSON.stringify(plain)))
      assert.isFalse(yield* isSaid(JSON.stringify({ ...plain, eos_token_id: [2], do_sample: false, num_beams: 1 })))
      const others = [{ eos_token_id: [2, 7] }, { do_sample: true }, { do_sample: true, top_k: 3 }, { num_beams: 4 }]
      for (const other of others) {
        assert.isTrue(yield* isSaid(JSON.stringify({ ...plain, ...other })), JSON.stringify(other))
      }
      assert.isTrue(yield* isSaid("{")) // whatever it says
    }))
  it.live("says in a folder of Hugging Face how cria generate draws, of which nothing is lost in other forms", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      yield* printed(disk, "export", "/hf", "--to", "gguf", "--out", "/a.gguf")
      yield* printed(disk, "export", "/a.gguf", "--to", "huggingface", "--out", "/drawn")
      assert.deepStrictEqual(JSON.parse(yield* disk.fileSystem.readFileString("/drawn/generation_config.json")),
        { do_sample: true, temperature: 0.8, top_p: 0.95, top_k: 0 })
      assert.match(yield* printed(disk, "export", "/drawn", "--to", "meta", "--out", "/meta"),
        /^meta has no place for the longest sequence: .*\n\/meta: /)
    }))
  it.live("refuses a tokenizer.json that puts spaces elsewhere, which generate takes", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, { "/texts/a.jsonl": rows })
      yield* printed(disk, "pretrain", "--text", "/texts/a.jsonl", "--out", "/runs/a", ...tiny())
      yield* printed(disk, "export", "/runs/a", "--to", "huggingface", "--out", "/hf")
      const model = Result.getOrThrow(SentencePiece.parse(yield* disk.fileSystem.readFile("/hf/tokenizer.model")))
      yield* withFiles(disk, { "/hf/tokenizer.json": Result.getOrThrow(TokenizerJson.printNonLegacy(model)) })
      yield* disk.fileSystem.remove("/hf/tokenizer.model")
      const why = "error: /hf: its tokenizer.json was saved with legacy = false, and puts spaces elsewhere than the " +
        "other forms of the same tokenizer, which is what would be written\n  cria generate and cria evaluate take " +
        "it as it is. To write the model, name the tokenizer.model that it was made from: --tokenizer PATH.\n"
      assert.strictEqual(yield* told(disk, "export", "/hf", "--to", "gguf", "--out", "/a.gguf"), why)
      assert.strictEqual(yield* told(disk, "import", "/hf", "--out", "/own"), why)
      yield* printed(disk, "import", "/hf", "--out", "/own", "--tokenizer", "/runs/a/tokenizer.model")
      assert.include(yield* told(disk, "pretrain", "--from", "/hf", "--text", "/texts/a.jsonl", "--out", "/runs/b",
        "--backend", "reference"), "it: its tokenizer.json was saved with legacy = false, which a run cannot keep\n")
      const generate = ["generate", " One", "--model", "/hf", "--backend", "reference", "--max-tokens", "4", "--json"]
      const { output } = yield* cria(disk, generate)
      assert.strictEqual(JSON.parse(output).tokens.length, 4)
      assert.strictEqual((yield* cria(disk, generate.with(1, "One"))).output, output) // the space is put there
      const other = yield* cria(disk, [...generate, "--tokenizer", "/runs/a"]) // one space more before the prompt
      assert.notStrictEqual(other.output, output)
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
        "\n  tokenizer of 285 pieces in /bare/tokenizer.bin, and the model knows 320 tokens: those beyond are left out")
      yield* disk.fileSystem.rename("/bare/q.bin", "/bare/p.bin")
      assert.include(yield* printed(disk, "import", "/bare/p.bin", "--out", "/again"), "/again: ")
    }))
})
