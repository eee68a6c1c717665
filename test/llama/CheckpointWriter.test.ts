import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, FileSystem, Option, Path, Result } from "effect"
import * as Llama2c from "../../src/format/Llama2c.ts"
import * as Checkpoint from "../../src/llama/Checkpoint.ts"
import * as CheckpointWriter from "../../src/llama/CheckpointWriter.ts"
import * as Config from "../../src/llama/Config.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Key from "../../src/random/Key.ts"
import { count } from "../../src/tensor/Node.ts"
import { leaves } from "../../src/tensor/Specification.ts"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"

const { normalizer, pieces, trainer } = Tokenizer.bytesModel

/** A tokenizer that every form can hold: bytes, with Llama's rule for spaces. */
const tokenizer = Result.getOrThrow(SentencePiece.make(
  [...pieces, { text: "\u2581", score: -1, type: "normal" }, { text: "\u2581a", score: 0, type: "normal" },
    { text: "a", score: -2, type: "normal" }],
  { ...trainer, vocabSize: 262 }, { ...normalizer, name: "identity", addDummyPrefix: true, escapeWhitespaces: true }
))

const sizes: Config.Options = {
  vocabSize: 262, embedSize: 32, layerCount: 2, headCount: 4, kvHeadCount: 2, hiddenSize: 40, contextLength: 24
}

interface Drawn extends CheckpointWriter.Source {
  readonly values: ReadonlyMap<string, Float32Array<ArrayBuffer>>
}

/** A model of normal draws that f16 and bf16 hold to the bit; its head is the embedding, or not. */
const drawn = (options: Partial<Config.Options> = {}, isTied = false): Drawn => {
  const config = Config.make({ ...sizes, ...options })
  const values = new Map(leaves(Transformer.llama(config).specification).map(([path, { sizes }]) => {
    const normals = new Float64Array(count(sizes))
    Key.fillNormal(Key.make(path), normals, { mean: 0, deviation: 0.4 })
    return [path, Float32Array.from(normals, (x) => Math.round(x * 64) / 64)] as const
  }))
  if (isTied) {
    const { embedSize, vocabSize } = config
    values.set("head", values.get("embedding")!.map((_, i, embedding) =>
      embedding[i % vocabSize * embedSize + Math.floor(i / vocabSize)]!))
  }
  return { config, values, tokenizer, read: (path) => Effect.succeed(values.get(path)!.slice()) }
}

/** Fails unless a checkpoint holds the very bits of a model. */
const equals = (checkpoint: Checkpoint.Checkpoint, { config, values }: Drawn) =>
  Effect.gen(function*() {
    assert.deepStrictEqual(checkpoint.config, config)
    assert.sameMembers([...checkpoint.parameters.keys()], [...values.keys()])
    for (const [path, expected] of values) assert.deepStrictEqual(yield* checkpoint.read(path), expected, path)
  })

const scratch = Effect.gen(function*() {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fileSystem.makeTempDirectoryScoped()
  return { fileSystem, at: (name: string) => path.join(folder, name), list: fileSystem.readDirectory(folder) }
})

const live = <A, E>(
  name: string, body: () => Effect.Effect<A, E, FileSystem.FileSystem | Path.Path | import("effect").Scope.Scope>
) => it.effect(name, () => Effect.scoped(body()).pipe(Effect.provide(NodeServices.layer)))

/** Why an effect failed. */
const messageOf = <A, E extends { readonly message: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), ({ message }) => message)

describe("every form", () => {
  const forms = {
    huggingface: (target: string, source: Drawn) => CheckpointWriter.huggingFace(target, source),
    "huggingface in f16": (target: string, source: Drawn) =>
      CheckpointWriter.huggingFace(target, source, { dtype: "F16" }),
    "huggingface in bf16, sharded": (target: string, source: Drawn) =>
      CheckpointWriter.huggingFace(target, source, { dtype: "BF16", shardBytes: 9000 }),
    meta: (target: string, source: Drawn) => CheckpointWriter.meta(target, source, { dtype: "BF16" }),
    "llama2c.bin": (target: string, source: Drawn) => CheckpointWriter.llama2c(target, source),
    "llama2c v1.bin": (target: string, source: Drawn) => CheckpointWriter.llama2c(target, source, { version: 1 }),
    "a.gguf": (target: string, source: Drawn) => CheckpointWriter.gguf(target, source),
    "f16.gguf": (target: string, source: Drawn) => CheckpointWriter.gguf(target, source, { type: "F16" })
  }
  for (const [name, write] of Object.entries(forms)) {
    live(`holds the bits of models, tied or not: ${name}`, () =>
      Effect.gen(function*() {
        const { at, list } = yield* scratch
        for (const isTied of [false, true]) {
          const model = drawn(name === "meta" ? { contextLength: 4096 } : {}, isTied)
          const target = at(`${isTied} ${name}`)
          yield* write(target, model)
          const checkpoint = yield* Checkpoint.open(target)
          yield* equals(checkpoint, model)
          assert.strictEqual(checkpoint.isTied, isTied && name !== "meta")
        }
        assert.lengthOf(yield* list, 2)
      }))
  }
  live("names the file whose tokenizer Cria does not compute: GGUF", () =>
    Effect.gen(function*() {
      const path = (yield* scratch).at("a.gguf")
      const other = Result.getOrThrow(SentencePiece.make(
        tokenizer.pieces.map((piece) => piece.text === "<s>" ? { ...piece, type: "normal" } : piece), tokenizer.trainer,
        tokenizer.normalizer
      ))
      yield* CheckpointWriter.gguf(path, { ...drawn(), tokenizer: other })
      assert.include(yield* messageOf((yield* Checkpoint.open(path)).tokenizer),
        `${path}: SentencePiece model: not usable as a Llama tokenizer\n  no control piece is named <s>`)
    }))
  live("writes of what it reads: through all forms and back, to the bit, with the tokenizer", () =>
    Effect.gen(function*() {
      const { at } = yield* scratch
      const model = drawn({ contextLength: 4096 })
      yield* CheckpointWriter.huggingFace(at("a"), model)
      const a = yield* Checkpoint.open(at("a"))
      yield* CheckpointWriter.meta(at("b"), { ...a, tokenizer: Option.getOrThrow(yield* a.tokenizer).model })
      const b = yield* Checkpoint.open(at("b"))
      yield* CheckpointWriter.gguf(at("c.gguf"), { ...b, tokenizer: Option.getOrThrow(yield* b.tokenizer).model })
      const c = yield* Checkpoint.open(at("c.gguf"))
      const read = Option.getOrThrow(yield* c.tokenizer).model
      assert.deepStrictEqual(read.pieces, tokenizer.pieces)
      yield* CheckpointWriter.llama2c(at("d.bin"), { ...c, tokenizer: read })
      yield* CheckpointWriter.llama2cTokenizer(at("tokenizer.bin"), read)
      const d = yield* Checkpoint.open(at("d.bin"))
      yield* equals(d, model)
      assert.deepStrictEqual(Option.getOrThrow(yield* d.tokenizer).model.pieces, tokenizer.pieces)
    }))
})

describe("Hugging Face's folder", () => {
  live("has the files that transformers asks for, which name the special tokens alike", () =>
    Effect.gen(function*() {
      const { at, fileSystem } = yield* scratch
      yield* CheckpointWriter.huggingFace(at("a"), drawn(), { shardBytes: 9000, dtype: "F16" })
      const names = yield* fileSystem.readDirectory(at("a"))
      const shards = names.filter((name) => name.startsWith("model-")).sort()
      assert.sameMembers(names, [
        "config.json", "generation_config.json", "model.safetensors.index.json", "special_tokens_map.json",
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json", ...shards
      ])
      assert.match(shards[0] ?? "", /^model-00001-of-0000\d.safetensors$/)
      const json = (name: string) => Effect.map(fileSystem.readFileString(at(`a/${name}`)), (text): unknown =>
        JSON.parse(text))
      const tokens = { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>" }
      assert.deepStrictEqual(yield* json("special_tokens_map.json"), tokens)
      assert.deepInclude(yield* json("tokenizer_config.json"), {
        ...tokens, legacy: true, model_max_length: 24, tokenizer_class: "PreTrainedTokenizerFast"
      })
      assert.deepStrictEqual(yield* json("generation_config.json"), { bos_token_id: 1, eos_token_id: 2 })
      yield* CheckpointWriter.huggingFace(at("b"), drawn(), { drawing: { temperature: 0.8, topP: 0.95 } })
      assert.deepStrictEqual(JSON.parse(yield* fileSystem.readFileString(at("b/generation_config.json"))),
        { bos_token_id: 1, eos_token_id: 2, do_sample: true, temperature: 0.8, top_p: 0.95, top_k: 0 })
      assert.deepInclude(yield* json("config.json"), {
        architectures: ["LlamaForCausalLM"], bos_token_id: 1, eos_token_id: 2, torch_dtype: "float16"
      })
      const total = 2 * Config.parameterCount(drawn().config)
      assert.deepNestedInclude(yield* json("model.safetensors.index.json"), { "metadata.total_size": total })
    }))
})

describe("the tokenizer of a Hugging Face folder", () => {
  live("is the file that has as many pieces as the model has tokens, the first where none has", () =>
    Effect.gen(function*() {
      const { at, fileSystem } = yield* scratch
      yield* CheckpointWriter.huggingFace(at("a"), drawn())
      const count = Effect.flatMap(Checkpoint.open(at("a")), ({ tokenizer }) =>
        Effect.map(tokenizer, (found) => Option.getOrThrow(found).model.pieces.length))
      assert.strictEqual(yield* count, 262)
      yield* fileSystem.writeFile(at("a/tokenizer.model"), Tokenizer.bytesModel.bytes) // pieces were added since
      assert.strictEqual(yield* count, 262)
      yield* fileSystem.writeFileString(at("a/tokenizer.json"), "{") // damaged: the one that is left is counted
      assert.strictEqual(yield* count, 259)
      yield* fileSystem.remove(at("a/tokenizer.json"))
      assert.strictEqual(yield* count, 259)
    }))
})

describe("8 bit", () => {
  live("groups of llama2.c divide the rows of all matrices, or runq would pass over their ends", () =>
    Effect.gen(function*() {
      const { at } = yield* scratch
      const sizes = [[64, 172, 4], [64, 128, 64], [288, 768, 32], [48, 64, 16]] as const
      for (const [embedSize, hiddenSize, group] of sizes) {
        const path = at(`${embedSize}-${hiddenSize}.bin`)
        yield* CheckpointWriter.llama2c(path, drawn({ embedSize, hiddenSize }), { version: 2 })
        assert.strictEqual((yield* Llama2c.open(path)).metadata.get("group_size"), group)
      }
    }))

  const near = Effect.fnUntraced(function*(checkpoint: Checkpoint.Checkpoint, { values }: Drawn, group: number) {
    for (const [path, expected] of values) {
      const read = yield* checkpoint.read(path)
      const most = Math.max(...expected.map(Math.abs))
      // half a step of the group's scale, itself rounded to 11 bits where it is f16
      const bound = path.endsWith("gain") ? 0 : most / 127 / 2 * 1.01 + most * 2 ** -11
      read.forEach((value, i) => assert.isAtMost(Math.abs(value - expected[i]!), bound, `${path} ${i} ${group}`))
    }
  })
  live("is near: llama2.c's version 2 and GGUF's Q8_0", () =>
    Effect.gen(function*() {
      const { at } = yield* scratch
      const model = drawn()
      yield* CheckpointWriter.llama2c(at("a.bin"), model, { version: 2 })
      yield* near(yield* Checkpoint.open(at("a.bin")), model, 32)
      yield* CheckpointWriter.gguf(at("a.gguf"), model, { type: "Q8_0" })
      const checkpoint = yield* Checkpoint.open(at("a.gguf"))
      yield* near(checkpoint, model, 32)
      const typeOf = (path: string) => checkpoint.parameters.get(path)?.type
      assert.deepStrictEqual(
        ["block.0.attention.query", "norm.gain", "block.0.feedForward.down"].map(typeOf), ["Q8_0", "F32", "F16"]
      )
    }))
})

describe("two writers of one name", () => {
  live("do not mix: the first to end is there, whole, and the other is told", () =>
    Effect.gen(function*() {
      const { at, list } = yield* scratch
      for (const write of [
        (model: CheckpointWriter.Source) => Effect.exit(CheckpointWriter.gguf(at("a.gguf"), model)),
        (model: CheckpointWriter.Source) => Effect.exit(CheckpointWriter.huggingFace(at("a"), model))
      ]) {
        const [begun, go] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const model = drawn()
        const late = (path: string) => path !== "norm.gain" ? model.read(path)
          : Effect.andThen(Deferred.succeed(begun, undefined), Effect.andThen(Deferred.await(go), model.read(path)))
        const fiber = yield* Effect.forkChild(write({ ...model, read: late }))
        yield* Deferred.await(begun)
        assert.strictEqual((yield* write(drawn()))._tag, "Success")
        yield* Deferred.succeed(go, undefined)
        assert.include(String(yield* Fiber.join(fiber)), "CheckpointExistsError")
      }
      for (const path of [at("a.gguf"), at("a")]) yield* equals(yield* Checkpoint.open(path), drawn())
      assert.sameMembers(yield* list, ["a", "a.gguf"])
    }))
})

describe("what cannot be written", () => {
  live("is refused, and leaves nothing behind", () =>
    Effect.gen(function*() {
      const { at, fileSystem, list } = yield* scratch
      yield* fileSystem.writeFileString(at("there"), "mine")
      const model = drawn()
      assert.strictEqual(yield* messageOf(CheckpointWriter.meta(at("there"), model)),
        `${at("there")} exists already, and is left as it is\n  Name another place, or remove it first.`)
      const large = { ...model, read: (path: string) => Effect.map(model.read(path), (x) => x.fill(70_000, 1, 2)) }
      assert.strictEqual(
        yield* messageOf(CheckpointWriter.huggingFace(at("a"), large, { dtype: "F16" })),
        "this model cannot be written as Hugging Face's folder\n  head has 70000 at 32, and F16 ends at 65504: " +
          "write BF16 or F32\nA reader would compute something else: write another format (Hugging Face's holds " +
          "every model of Cria)."
      )
      const huge = { ...model, read: (path: string) =>
        Effect.map(model.read(path), (x) => path === "norm.gain" ? Float64Array.from(x).fill(-1e39, 1, 2) : x) }
      assert.include(yield* messageOf(CheckpointWriter.meta(at("a"), huge)),
        "norm.gain has -1e+39 at 1, and F32 ends at 3.4028234663852886e+38: look for where the weights diverged")
      const edge = { ...model, read: (path: string) => Effect.map(model.read(path), (x) => x.fill(3.4e38, 1, 2)) }
      assert.include(yield* messageOf(CheckpointWriter.meta(at("a"), edge, { dtype: "BF16" })),
        "at 1, and BF16 ends at 3.3895313892515355e+38: write F32")
      const wild = { ...model, read: (path: string) => Effect.map(model.read(path), (x) => x.fill(NaN, 1, 2)) }
      assert.include(yield* messageOf(CheckpointWriter.gguf(at("a.gguf"), wild, { type: "Q8_0" })), "is NaN")
      assert.include(yield* messageOf(CheckpointWriter.llama2c(at("a.bin"), drawn({ theta: 7 }))),
        "theta is 7, and llama2.c rotates with 10000")
      assert.include(yield* messageOf(CheckpointWriter.meta(at("a"), drawn({ headSize: 6 }))), "headSize is 6")
      const broken = { ...model, read: () => Effect.fail(new Error("the disk is gone")) }
      assert.strictEqual(yield* messageOf(CheckpointWriter.meta(at("a"), broken)), "the disk is gone")
      assert.deepStrictEqual(yield* list, ["there"])
      assert.strictEqual(yield* fileSystem.readFileString(at("there")), "mine")
    }))
})
