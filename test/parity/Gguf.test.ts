/**
 * Parity with the gguf package: Llamas that it wrote have the scores that transformers gives their weights, and the
 * vocabulary among their metadata is SentencePiece's. The fixtures were made by make/gguf_llama.py.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Option, Result, Schema } from "effect"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as Gguf from "../../src/format/Gguf.ts"
import * as Safetensors from "../../src/format/Safetensors.ts"
import * as Checkpoint from "../../src/llama/Checkpoint.ts"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import { agree } from "../law/Evaluation.ts"
import { scoresOf } from "../llama/checkpoints.ts"

const place = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** transformers computes in float32, the reference in float64. */
const tolerance = 1e-5

const Encoded = Schema.fromJsonString(Schema.Array(Schema.Tuple([Schema.String, Schema.Array(Schema.Int)])))

describe("Llamas of the gguf package", () => {
  const files = [["spm", "F32", true], ["merges", "F16", false]] as const
  it.effect.each(files)("%s has its scores", ([name, type, isTied]) =>
    Effect.gen(function*() {
      const { tensors } = yield* Safetensors.read(place(`gguf/${name}.safetensors`))
      const bytesOf = (key: string) => new Uint8Array(tensors.find(({ name }) => name === key)!.bytes).buffer
      const checkpoint = yield* Checkpoint.open(place(`gguf/${name}.gguf`))
      assert.deepStrictEqual([checkpoint.format, checkpoint.isTied], ["gguf", isTied])
      assert.strictEqual(checkpoint.parameters.get("block.1.attention.query")?.type, type)
      const scores = yield* scoresOf(checkpoint, [...new Int32Array(bytesOf("ids"))], { batch: 1, position: 5 })
      agree(scores, [...new Float32Array(bytesOf("logits"))], tolerance, name)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect("has SentencePiece's vocabulary, piece by piece, and its function", () =>
    Effect.gen(function*() {
      const { metadata } = yield* Safetensors.read(place("gguf/spm.safetensors"))
      const { tokenizer } = yield* Checkpoint.open(place("gguf/spm.gguf"))
      const { codec, model } = Option.getOrThrow(yield* tokenizer)
      const original = Result.getOrThrow(SentencePiece.parse(readFileSync(place("tokenizer/llama.model"))))
      assert.deepStrictEqual(model.pieces, original.pieces)
      assert.deepStrictEqual([codec.bosId, codec.eosId], [1, 2])
      const cases = Schema.decodeUnknownSync(Encoded)(metadata["encoded"])
      assert.isAbove(cases.length, 5)
      for (const [text, ids] of cases) assert.deepStrictEqual([...codec.encode(text)], ids, JSON.stringify(text))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect("are refused where positions are scaled, which a tensor alone says", () =>
    Effect.gen(function*() {
      const folder = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped()
      const file = yield* Gguf.open(place("gguf/merges.gguf"))
      const { config } = yield* Checkpoint.open(place("gguf/merges.gguf"))
      const planes = config.headSize / 2
      const path = `${folder}/scaled.gguf`
      const opened = Effect.fnUntraced(function*(divisors: ReadonlyArray<number>) {
        yield* Gguf.write(path, file.typed, [
          ...[...file.entries.values()].map((entry) => ({ ...entry, bytes: file.readBytes(entry.name) })),
          {
            name: "rope_freqs.weight", type: "F32", sizes: [divisors.length],
            bytes: Effect.succeed(new Uint8Array(Float32Array.from(divisors).buffer))
          }
        ])
        return yield* Checkpoint.open(path)
      })
      const ones = Array.from({ length: planes }, () => 1)
      assert.deepStrictEqual((yield* opened(ones)).config, config)
      for (const [at] of ones.entries()) {
        const { message } = yield* Effect.flip(opened(ones.with(at, 8)))
        assert.strictEqual(message.split("\n")[1], `  rope_freqs.weight = 8 at ${at}: expected 1 for each of ` +
          `${planes} planes (Llama 2 scales no positions), or no such tensor`)
      }
      const { message } = yield* Effect.flip(opened([...ones, 1]))
      assert.include(message, `rope_freqs.weight = a tensor of [${planes + 1}]: expected 1 for each of`)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect("is read without its vocabulary, which is refused, where that is of merges", () =>
    Effect.gen(function*() {
      const { config, tokenizer } = yield* Checkpoint.open(place("gguf/merges.gguf"))
      assert.strictEqual(config.vocabSize, 7)
      const { message } = yield* Effect.flip(tokenizer)
      assert.strictEqual(message, `${place("gguf/merges.gguf")}: its tokenizer is none that Cria reads
  tokenizer.ggml.model = "gpt2": expected "llama" (SentencePiece's byte pairs; others cut otherwise)
The model itself can be read. Name its tokenizer in another form, if there is one: a .model, tokenizer.json or ` +
        "tokenizer.bin (of commands the flag --tokenizer).")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
