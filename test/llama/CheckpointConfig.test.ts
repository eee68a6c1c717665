import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import type * as Gguf from "../../src/format/Gguf.ts"
import type { Value } from "../../src/format/TensorFile.ts"
import * as GgufModel from "../../src/llama/checkpoint/GgufModel.ts"
import * as HuggingFaceModel from "../../src/llama/checkpoint/HuggingFaceModel.ts"
import * as Llama2cModel from "../../src/llama/checkpoint/Llama2cModel.ts"
import * as MetaModel from "../../src/llama/checkpoint/MetaModel.ts"
import * as Config from "../../src/llama/Config.ts"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"

const size = fc.integer({ min: 1, max: 9000 })

/** Any configuration; `isPlain` for formats that hold no size of a head. */
const configuration = (isPlain: boolean): fc.Arbitrary<Config.Config> =>
  fc.record({
    vocabSize: size, group: fc.integer({ min: 1, max: 8 }), kvHeadCount: fc.integer({ min: 1, max: 16 }),
    half: fc.integer({ min: 1, max: 64 }), embed: size, hiddenSize: size, layerCount: fc.integer({ min: 1, max: 99 }),
    epsilon: fc.constantFrom(1e-5, 1e-6, 3e-7), theta: fc.constantFrom(10_000, 500_000, 1e6, 123.5), contextLength: size
  }).map(({ embed, group, half, kvHeadCount, ...rest }) => {
    const headCount = group * kvHeadCount
    return Config.make({
      ...rest, headCount, kvHeadCount, headSize: 2 * half, embedSize: isPlain ? headCount * 2 * half : embed
    })
  })

const example = Config.make({
  vocabSize: 19, embedSize: 16, layerCount: 2, headCount: 4, kvHeadCount: 2, hiddenSize: 24, contextLength: 32
})

const faultsOf = (parsed: Result.Result<unknown, { readonly message: string }>): string => {
  assert.isTrue(Result.isFailure(parsed), "it was read")
  return Result.isFailure(parsed) ? parsed.failure.message : ""
}

const special = { bosId: 1, eosId: 2, padId: undefined }

describe("Hugging Face's config.json", () => {
  const read = (changes: Readonly<Record<string, unknown>>) => {
    const text = HuggingFaceModel.print({ config: example, isTied: false }, "F32", special)
    return HuggingFaceModel.parse("/model/config.json", JSON.stringify({ ...JSON.parse(text), ...changes }))
  }
  it("holds every configuration", () => {
    fc.assert(fc.property(configuration(false), fc.boolean(), (config, isTied) => {
      const text = HuggingFaceModel.print({ config, isTied }, "BF16", special)
      assert.deepStrictEqual(Result.getOrThrow(HuggingFaceModel.parse("a", text)), { config, isTied, endIds: [2] })
    }))
  })
  it("takes rope_theta from rope_parameters as transformers 5 writes them, and defaults of LlamaConfig", () => {
    const parameters = { rope_type: "default", rope_theta: 77 }
    const read5 = read({ rope_theta: undefined, rope_parameters: parameters })
    assert.strictEqual(Result.getOrThrow(read5).config.theta, 77)
    const { config } = Result.getOrThrow(read({
      rms_norm_eps: undefined, max_position_embeddings: undefined, num_key_value_heads: null, head_dim: undefined
    }))
    assert.deepStrictEqual(config, { ...example, epsilon: 1e-6, contextLength: 2048, kvHeadCount: 4 })
    assert.include(faultsOf(read({ rope_theta: 78, rope_parameters: parameters })),
      "rope_theta = 78: expected 77, as rope_parameters says")
  })
  it("names the ids that end a text: one, several or none", () => {
    const endIds = (value: unknown) => Result.getOrThrow(read({ eos_token_id: value })).endIds
    assert.deepStrictEqual([endIds(5), endIds([2, 5]), endIds(null)], [[5], [2, 5], []])
    for (const value of ["</s>", [2, "5"], -1, 1.5]) {
      assert.include(faultsOf(read({ eos_token_id: value })),
        `eos_token_id = ${JSON.stringify(value)}: expected an id, or a list of ids, or no such key`)
    }
  })
  it("passes over keys of other programs that change nothing", () => {
    const keys = [
      "max_length", "max_sequence_length", "is_llama_config", "attn_implementation", "_attn_implementation",
      "_attn_implementation_autoset", "output_attentions", "output_hidden_states", "return_dict", "tokenizer_class",
      "unsloth_fixed", "unsloth_version"
    ]
    const plain = Result.getOrThrow(read({}))
    fc.assert(fc.property(fc.constantFrom(...keys), fc.jsonValue(), (key, value) => {
      assert.deepStrictEqual(Result.getOrThrow(read({ [key]: value })), plain)
    }))
    assert.deepStrictEqual(Result.getOrThrow(read({ rope_interleaved: false })), plain)
    assert.include(faultsOf(read({ rope_interleaved: true })),
      "  rope_interleaved = true: expected false (the parts of a rotary plane lie in halves), or no such key")
  })
  it("refuses by name every key that it does not know, all at once", () => {
    fc.assert(fc.property(fc.string({ minLength: 1 }).filter((key) => key !== "__proto__"), fc.jsonValue(),
      (key, value) => {
        const name = `x_${key}`
        const message = faultsOf(read({ [name]: value, hidden_act: "gelu" }))
        assert.include(message, `  ${name} = `)
        assert.include(message, "  hidden_act = \"gelu\": expected \"silu\" (the gate of SwiGLU), or no such key")
      }))
  })
  it("refuses every value that another Llama would need", () => {
    const cases: Readonly<Record<string, unknown>> = {
      rope_scaling: { rope_type: "linear", factor: 2 }, sliding_window: 4096, attention_bias: true, mlp_bias: true,
      model_type: "mistral", architectures: ["LlamaForSequenceClassification"], attention_dropout: 0.1,
      quantization_config: { bits: 4 }, tie_word_embeddings: "yes", num_hidden_layers: 0, vocab_size: 1.5,
      rms_norm_eps: -1, rope_parameters: { rope_type: "yarn", rope_theta: 1 }, rope_theta: null, pretraining_tp: 0
    }
    for (const [key, value] of Object.entries(cases)) {
      if (key === "rope_theta") continue
      assert.include(faultsOf(read({ [key]: value })), `/model/config.json: this model is none that Cria computes\n  ${
        key} = ${JSON.stringify(value)}: expected `)
    }
    assert.strictEqual(faultsOf(read({ sliding_window: 4096 })),
      "/model/config.json: this model is none that Cria computes\n" +
        "  sliding_window = 4096: expected null (Llama 2 has none), or no such key\n" +
        "A key that is read past would change what the model says without a word. Take another model, or, where the " +
        "key changes nothing for yours, remove it from the file.")
  })
  it("tells sizes that do not go together by the names of the file", () => {
    assert.include(faultsOf(read({ num_key_value_heads: 3 })), "  num_key_value_heads = 3: expected headCount must be")
    assert.include(faultsOf(read({ head_dim: 3 })), "  head_dim = 3: expected headSize must be even, got 3")
  })
  it("is an object, or no text at all throws", () => {
    assert.include(faultsOf(HuggingFaceModel.parse("a", "[1]")), "the file = [1]: expected a JSON object")
    assert.include(faultsOf(HuggingFaceModel.parse("a", "{")), "the file = no JSON: expected JSON (")
    fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      assert.isTrue(Result.isFailure(HuggingFaceModel.parse("a", text)))
      assert.isTrue(Result.isFailure(MetaModel.parse("a", text, {})))
    }))
  })
  it("is read, after any change of one value, as a model that exists, or refused", () => {
    const given: Readonly<Record<string, unknown>> =
      JSON.parse(HuggingFaceModel.print({ config: example, isTied: false }, "F32", special))
    fc.assert(fc.property(fc.constantFrom(...Object.keys(given)), fc.jsonValue(), (key, value) => {
      const parsed = HuggingFaceModel.parse("a", JSON.stringify({ ...given, [key]: value }))
      if (Result.isFailure(parsed)) return
      const { config } = parsed.success
      assert.deepStrictEqual(Config.make(config), config) // the sizes go together
      const again = HuggingFaceModel.print(parsed.success, "F32", special)
      const expected = { ...parsed.success, endIds: [special.eosId] } // the ids are those that it is printed with
      assert.deepStrictEqual(Result.getOrThrow(HuggingFaceModel.parse("a", again)), expected)
    }))
  })
})

describe("Hugging Face's generation_config.json", () => {
  const read = (value: unknown) =>
    HuggingFaceModel.parseGeneration("/m/generation_config.json", JSON.stringify(value), [2])
  const said = (value: unknown) => Result.getOrThrow(read(value))
  it("says where text ends, before config.json, and how tokens are drawn where they are", () => {
    assert.deepStrictEqual(said({}), { endIds: [2], isDrawn: false, unused: [] })
    assert.deepStrictEqual(said({ eos_token_id: [7, 9] }).endIds, [7, 9])
    const llama2 = {
      _from_model_config: true, bos_token_id: 1, eos_token_id: 2, pad_token_id: 0, max_length: 4096, temperature: 0.6,
      top_p: 0.9, transformers_version: "4.31.0.dev0"
    }
    assert.deepStrictEqual(said(llama2), { endIds: [2], isDrawn: false, unused: [] })
    assert.deepStrictEqual(said({ ...llama2, do_sample: true, top_k: 40 }),
      { endIds: [2], isDrawn: true, temperature: 0.6, topK: 40, topP: 0.9, unused: [] })
    assert.deepStrictEqual(said({ do_sample: true, top_k: 0, top_p: null }), { endIds: [2], isDrawn: true, unused: [] })
  })
  it("judges how tokens are drawn only where they are", () => {
    for (const greedy of [{ do_sample: false }, {}]) {
      assert.deepStrictEqual(said({ ...greedy, temperature: 0, top_k: -1, top_p: 2 }),
        { endIds: [2], isDrawn: false, unused: [] })
    }
    assert.include(faultsOf(read({ do_sample: true, temperature: 0 })), "  temperature = 0: expected a number above 0")
  })
  it("neither judges nor gives what is decided otherwise", () => {
    const wrong = { do_sample: true, temperature: 0, top_k: 7, top_p: 2 }
    const judged = (decided: ReadonlyArray<HuggingFaceModel.DrawingKey>) =>
      HuggingFaceModel.parseGeneration("/m/generation_config.json", JSON.stringify(wrong), [2], decided)
    assert.deepStrictEqual(Result.getOrThrow(judged(["temperature", "top_p"])),
      { endIds: [2], isDrawn: true, topK: 7, unused: [] })
    assert.deepStrictEqual(Result.getOrThrow(judged(["temperature", "top_k", "top_p"])),
      { endIds: [2], isDrawn: true, unused: [] })
    const message = faultsOf(judged(["temperature"]))
    assert.include(message, "top_p = 2")
    assert.notInclude(message, "temperature")
  })
  it("is kept as a text that says the same beside a config.json with other ids, or without any", () => {
    const value = fc.oneof(fc.integer(), fc.boolean(), fc.constant(null), fc.constantFrom("yes", ""))
    const ids = fc.array(fc.nat(9), { maxLength: 2 })
    const record = fc.dictionary(fc.constantFrom("do_sample", "temperature", "top_k", "num_beams", "x"), value)
    const told = fc.tuple(record, fc.option(fc.oneof(ids, fc.nat(9)), { nil: undefined })).map(([other, ends]) =>
      JSON.stringify({ ...other, ...ends === undefined ? {} : { eos_token_id: ends } }))
    fc.assert(fc.property(fc.option(told, { nil: undefined }), ids, ids, (text, endIds, others) => {
      const said = (content: string | undefined, ends: ReadonlyArray<number>) =>
        HuggingFaceModel.parseGeneration("/m", content ?? "{}", ends)
      const kept = HuggingFaceModel.keptGeneration(text, endIds)
      if (endIds.length > 0) assert.deepStrictEqual(said(kept, others), said(text, endIds))
      else assert.strictEqual(kept, text)
    }))
    for (const strange of ["no JSON", "[]", "{\"eos_token_id\": \"</s>\"}"]) {
      assert.strictEqual(HuggingFaceModel.keptGeneration(strange, [2]), strange)
    }
  })
  it("names what nothing is made of, and refuses what it cannot mean", () => {
    assert.deepStrictEqual(said({ repetition_penalty: 1.1, num_beams: 4, suppress_tokens: null }).unused,
      ["repetition_penalty", "num_beams"])
    assert.deepStrictEqual(said({ repetition_penalty: 1.0, num_beams: 1, penalty_alpha: 1 }).unused, ["penalty_alpha"])
    assert.include(faultsOf(read({ do_sample: "yes" })), "do_sample = \"yes\": expected true or false")
    assert.include(faultsOf(read([])), "/m/generation_config.json: text cannot be generated as this file says\n")
    const message = faultsOf(read({ do_sample: true, temperature: 0, top_k: 1.5, top_p: 1.5, eos_token_id: "</s>" }))
    for (const line of [
      "/m/generation_config.json: text cannot be generated as this file says\n",
      "temperature = 0: expected a number above 0",
      "top_k = 1.5: expected a whole number from 0", "top_p = 1.5: expected a number above 0 and at most 1",
      "eos_token_id = \"</s>\": expected an id, or a list of ids"
    ]) assert.include(message, line)
  })
})

describe("Meta's params.json", () => {
  it("holds every configuration but its context, which the caller knows", () => {
    fc.assert(fc.property(configuration(true), (config) => {
      const text = Result.getOrThrow(MetaModel.print(config))
      const { contextLength } = config
      assert.deepStrictEqual(Result.getOrThrow(MetaModel.parse("a", text, { contextLength })), config)
    }))
  })
  it("reads those of the release, with the vocabulary of the tokenizer", () => {
    const text = JSON.stringify({
      dim: 8192, multiple_of: 4096, ffn_dim_multiplier: 1.3, n_heads: 64, n_kv_heads: 8, n_layers: 80,
      norm_eps: 1e-5, vocab_size: -1
    })
    assert.deepStrictEqual(Result.getOrThrow(MetaModel.parse("a", text, { vocabSize: 32_000 })), Config.presets["70B"])
    assert.include(faultsOf(MetaModel.parse("a", text, {})),
      "vocab_size = -1: expected a tokenizer.model beside it, whose pieces are counted")
  })
  it("refuses what it does not know and what it cannot say", () => {
    const text = JSON.stringify({ dim: 8, n_heads: 2, n_layers: 1, vocab_size: 9, use_scaled_rope: true, moe: 8 })
    const message = faultsOf(MetaModel.parse("a", text, {}))
    assert.include(message, "  use_scaled_rope = true: expected false (Llama 2 scales no positions), or no such key")
    assert.include(message, "  moe = 8: expected no such key: Cria does not know what it changes")
    assert.strictEqual(faultsOf(MetaModel.print({ ...example, headSize: 8 })),
      "this model cannot be written as Meta's folder\n" +
        "  headSize is 8, and params.json knows embedSize / headCount alone (4)\n" +
        "A reader would compute something else: write another format (Hugging Face's holds every model of Cria).")
  })
})

/** Metadata as they are read: f32 rounded. */
const plain = (typed: ReadonlyArray<readonly [string, Gguf.Value]>): Map<string, Value> =>
  new Map(typed.flatMap(([key, value]): ReadonlyArray<readonly [string, Value]> =>
    value.type === "numbers" || value.type === "strings" ? [[key, value.values]]
      : value.type === "arrays" || value.type === "bools" ? []
        : [[key, value.type === "f32" ? Math.fround(value.value) : value.value]]))

describe("GGUF's metadata", () => {
  const metadataOf = (config: Config.Config) =>
    plain(GgufModel.metadataOf(config, "F32"))
  it("hold every configuration", () => {
    fc.assert(fc.property(configuration(false), (config) => {
      assert.deepStrictEqual(Result.getOrThrow(GgufModel.configOf("a", metadataOf(config), 1)), config)
    }))
  })
  it("read past what is of no account, and know the order that older converters name", () => {
    const metadata = metadataOf(example).set("quantize.imatrix.file", "a").set("general.name", "any")
      .set("llama.tensor_data_layout", "Meta AI original pth")
    assert.deepStrictEqual(Result.getOrThrow(GgufModel.configOf("a", metadata, 1)), example)
    assert.include(faultsOf(GgufModel.configOf("a", metadata.set("llama.tensor_data_layout", "halves"), 1)),
      "llama.tensor_data_layout = \"halves\": expected \"Meta AI original pth\"")
  })
  it("refuse what they do not know", () => {
    const message = faultsOf(GgufModel.configOf("a.gguf", metadataOf(example)
      .set("llama.expert_count", 8n).set("llama.rope.scaling.type", "yarn").set("llama.rope.dimension_count", 2)
      .set("qwen.x", 1).set("general.name", "any"), 1))
    assert.deepStrictEqual(message.split("\n").slice(0, 5), [
      "a.gguf: this model is none that Cria computes",
      "  llama.rope.scaling.type = \"yarn\": expected \"none\" (Llama 2 scales no positions), or no such key",
      "  llama.expert_count = 8: expected 0 (Llama 2 has no experts), or no such key",
      "  qwen.x = 1: expected no such key: Cria does not know what it changes",
      "  llama.rope.dimension_count = 2: expected 4, the size of a head (all of it is rotated)"
    ])
  })
  it("hold the pieces of a vocabulary, and refuse another kind", () => {
    const { normalizer, pieces, trainer } = Tokenizer.bytesModel
    const bytes = Result.getOrThrow(SentencePiece.make(pieces, trainer, { ...normalizer, escapeWhitespaces: true }))
    const typed = Result.getOrThrow(GgufModel.vocabularyMetadata(bytes))
    const metadata = plain(typed)
    const model = Result.getOrThrow(GgufModel.vocabularyOf("a", metadata))
    assert.deepStrictEqual(model?.pieces, pieces)
    assert.deepStrictEqual(model?.normalizer, { ...bytes.normalizer, name: "identity" })
    assert.include(faultsOf(GgufModel.vocabularyMetadata(Tokenizer.bytesModel)),
      "  the tokenizer rewrites text by more than Llama's rule for spaces")
    assert.strictEqual(Result.getOrThrow(GgufModel.vocabularyOf("a", new Map())), undefined)
    assert.include(faultsOf(GgufModel.vocabularyOf("a", new Map([["tokenizer.ggml.model", "gpt2"]]))),
      "tokenizer.ggml.model = \"gpt2\": expected \"llama\"")
    assert.include(faultsOf(GgufModel.vocabularyOf("a", new Map(metadata).set("tokenizer.ggml.scores", [1]))),
      "tokenizer.ggml.scores = [1]: expected a list of 259 numbers")
    assert.include(faultsOf(GgufModel.vocabularyOf("a", new Map(metadata).set("tokenizer.ggml.token_type",
      Array.from({ length: 259 }, () => 9)))), "tokenizer.ggml.token_type = 9: expected 1 to 6 at 0")
  })
})

describe("llama2.c's header", () => {
  it("holds every configuration with Llama 2's epsilon and theta", () => {
    fc.assert(fc.property(configuration(true), fc.boolean(), (any, isTied) => {
      const config = { ...any, epsilon: 1e-5, theta: 10_000 }
      const header = Result.getOrThrow(Llama2cModel.headerOf(config, isTied, 1, 1))
      const read = Llama2cModel.configOf("a", new Map<string, Value>(Object.entries(header)))
      assert.deepStrictEqual(Result.getOrThrow(read), { config, isTied })
    }))
  })
  it("is refused to others", () => {
    const config = { ...example, epsilon: 1e-6, theta: 3, headSize: 8 }
    assert.deepStrictEqual(faultsOf(Llama2cModel.headerOf(config, true, 0, 1)).split("\n").slice(0, 4), [
      "this model cannot be written as llama2.c's .bin",
      "  epsilon is 0.000001, and llama2.c computes with 1e-5",
      "  theta is 3, and llama2.c rotates with 10000",
      "  headSize is 8, and llama2.c knows embedSize / headCount alone (4)"
    ])
  })
  it("has tables of rotation of every position and plane", () => {
    const { cos, sin } = Llama2cModel.rotation({ ...example, headSize: 4, contextLength: 3 })
    assert.deepStrictEqual([...cos], [1, 1, Math.cos(1), Math.cos(Math.fround(0.01)), Math.cos(2),
      Math.cos(2 * Math.fround(0.01))].map(Math.fround))
    assert.strictEqual(sin[2], Math.fround(Math.sin(1)))
  })
})
