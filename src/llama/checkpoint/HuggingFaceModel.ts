/**
 * Hugging Face's Llama: `config.json` ⇄ configuration, what `generation_config.json` says, and the names of tensors.
 *
 * Keys that are absent have the defaults of `LlamaConfig`, not those of Llama 2: 10⁻⁶ for `rms_norm_eps`, 2 048 for
 * `max_position_embeddings`. The base of the rotation is `rope_theta`, or that of `rope_parameters` (transformers 5).
 * Text ends at the ids that `generation_config.json` names, or else at those of `config.json`; how tokens are drawn
 * counts, and is judged, where it says `do_sample`, for without that transformers takes the likeliest whatever else
 * stands there.
 *
 * From     huggingface/transformers 5.18, `configuration_llama.py`, `modeling_llama.py`.
 * Checked  test/llama/CheckpointConfig.test.ts (there and back, every refusal); test/parity/Checkpoint.test.ts.
 * Departs  keys of `config.json` that are unknown are refused, where transformers keeps them and goes on. Those of
 *          `generation_config.json` that are not used are named, not refused: the model is the same without them.
 *
 * @module
 */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import type { Config } from "../Config.ts"
import { type CheckpointConfigError, type Fault, GenerationConfigError } from "./CheckpointError.ts"
import * as Keys from "./Keys.ts"
import type { Naming } from "./Layout.ts"

/** The two ways in which weights and description can be stored. */
export type Dtype = "F32" | "F16" | "BF16"

const isId = (value: unknown): value is number => typeof value === "number" && Number.isSafeInteger(value) && value >= 0

const endIds: Keys.Rule = {
  expected: "an id, or a list of ids",
  accepts: (value) => isId(value) || Array.isArray(value) && value.every(isId)
}

const idsOf = (value: unknown): ReadonlyArray<number> =>
  Array.isArray(value) ? value.filter(isId) : isId(value) ? [value] : []

const none: Keys.Rule = Keys.optional(Keys.oneOf([null], "Llama 2 has none"))
const off = Keys.optional(Keys.oneOf([false], "Llama 2 has no biases"))

const rules: Keys.Rules = {
  model_type: Keys.oneOf(["llama"], "other models compute otherwise"),
  architectures: {
    expected: "[\"LlamaForCausalLM\"], or no such key",
    accepts: (value) => value === undefined || Array.isArray(value) && value.join() === "LlamaForCausalLM"
  },
  vocab_size: Keys.count,
  hidden_size: Keys.count,
  intermediate_size: Keys.count,
  num_hidden_layers: Keys.count,
  num_attention_heads: Keys.count,
  num_key_value_heads: Keys.optional(Keys.count),
  head_dim: Keys.optional(Keys.count),
  max_position_embeddings: Keys.optional(Keys.count),
  rms_norm_eps: Keys.optional(Keys.positive),
  rope_theta: Keys.optional(Keys.positive),
  rope_parameters: Keys.optional({
    expected: "{ \"rope_type\": \"default\", \"rope_theta\": a number above 0 } (Llama 2 scales no positions)",
    accepts: (value) => isRope(value, ["rope_type", "type", "rope_theta"])
  }),
  rope_scaling: Keys.optional({
    expected: "null (Llama 2 scales no positions)", accepts: (value) => isRope(value, ["rope_type", "type"])
  }),
  hidden_act: Keys.optional(Keys.oneOf(["silu"], "the gate of SwiGLU")),
  tie_word_embeddings: Keys.optional(Keys.truth),
  attention_bias: off,
  mlp_bias: off,
  attention_dropout: Keys.optional(Keys.oneOf([0], "Llama 2 drops nothing")),
  sliding_window: none,
  layer_types: none,
  quantization_config: none,
  pretraining_tp: Keys.optional(Keys.count), // how products are cut, not what they are
  torch_dtype: Keys.inert, // the tensors say it themselves
  dtype: Keys.inert,
  initializer_range: Keys.inert,
  use_cache: Keys.inert,
  bos_token_id: Keys.inert, // the tokenizer's
  eos_token_id: Keys.optional(endIds),
  pad_token_id: Keys.inert,
  max_length: Keys.inert, // of a request, or of texts that it learned from
  max_sequence_length: Keys.inert,
  rope_interleaved: Keys.optional(Keys.oneOf([false], "the parts of a rotary plane lie in halves")),
  is_llama_config: Keys.inert,
  attn_implementation: Keys.inert, // which of transformers' kernels, which compute the same
  _attn_implementation: Keys.inert,
  _attn_implementation_autoset: Keys.inert,
  output_attentions: Keys.inert, // what its function returns besides
  output_hidden_states: Keys.inert,
  return_dict: Keys.inert,
  tokenizer_class: Keys.inert,
  transformers_version: Keys.inert,
  unsloth_fixed: Keys.inert,
  unsloth_version: Keys.inert,
  _name_or_path: Keys.inert
}

const isRope = (value: unknown, keys: ReadonlyArray<string>): boolean =>
  Predicate.isObject(value) && Object.entries(value).every(([key, inner]) =>
    keys.includes(key) && (key === "rope_theta" ? Keys.positive.accepts(inner) : inner === "default"))

/** The base of the rotation, and the fault of a file that gives two. */
const thetaOf = (record: Keys.Fields): { readonly theta: number; readonly faults: ReadonlyArray<Fault> } => {
  const { rope_parameters: parameters, rope_theta: plain } = record
  const inner = Predicate.hasProperty(parameters, "rope_theta") ? parameters.rope_theta : undefined
  const theta = typeof inner === "number" ? inner : Keys.number(record, "rope_theta", 10_000)
  const differs = typeof inner === "number" && typeof plain === "number" && inner !== plain
  const fault = { key: "rope_theta", value: Keys.shown(plain), expected: `${inner}, as rope_parameters says` }
  return { theta, faults: differs ? [fault] : [] }
}

/** A model as a `config.json` describes it. */
export interface Description {
  readonly config: Config
  /** The head is the embedding, and no tensor of its own. */
  readonly isTied: boolean
}

/** What a folder says of how text is generated. */
export interface Generation {
  /** The ids that end a text. */
  readonly endIds: ReadonlyArray<number>
  /** How tokens are drawn, where it says so. */
  readonly temperature?: number
  readonly topK?: number
  readonly topP?: number
  /** Whether it says that tokens are drawn: without that, transformers takes the likeliest. */
  readonly isDrawn: boolean
  /** Keys that would change what transformers writes, and that Cria has no counterpart of. */
  readonly unused: ReadonlyArray<string>
}

const probability: Keys.Rule = {
  expected: "a number above 0 and at most 1", accepts: (value) => typeof value === "number" && value > 0 && value <= 1
}

const generationRules: Keys.Rules = { eos_token_id: Keys.optional(endIds), do_sample: Keys.optional(Keys.truth) }

/** A key that says how tokens are drawn. */
export type DrawingKey = "temperature" | "top_k" | "top_p"

/** Keys that say how tokens are drawn, judged where they are. */
const drawingRules: { readonly [K in DrawingKey]: Keys.Rule } = {
  temperature: Keys.optional(Keys.positive),
  top_k: Keys.optional({ expected: "a whole number from 0", accepts: isId }),
  top_p: Keys.optional(probability)
}

/** Keys that change nothing: of other keys, of the length (the request says it), of padding. */
const inert = new Set([
  "_from_model_config", "transformers_version", "bos_token_id", "pad_token_id", "use_cache", "max_length",
  "max_new_tokens", ...Object.keys(generationRules), ...Object.keys(drawingRules)
])

/** Values with which keys that Cria has no counterpart of change nothing, besides null and false. */
const neutral: ReadonlyMap<string, unknown> = new Map([["repetition_penalty", 1], ["num_beams", 1]])

/**
 * Reads a `generation_config.json`; `endIds` are those of the model's `config.json`. Keys that are decided otherwise
 * are neither judged nor given.
 */
export const parseGeneration = (
  path: string, text: string, endIds: ReadonlyArray<number>, decided: ReadonlyArray<DrawingKey> = []
): Result.Result<Generation, GenerationConfigError> =>
  Result.mapError(Keys.parse(path, text), ({ faults }) => new GenerationConfigError({ path, faults })).pipe(
    Result.flatMap((record) => generationOf(path, record, endIds, decided)))

const generationOf = (
  path: string, record: Keys.Fields, endIds: ReadonlyArray<number>, decided: ReadonlyArray<string>
): Result.Result<Generation, GenerationConfigError> => {
  const isDrawn = record["do_sample"] === true
  const drawing = Object.fromEntries(Object.entries(drawingRules).filter(([key]) => isDrawn && !decided.includes(key)))
  const rules: Keys.Rules = { ...generationRules, ...drawing }
  const known = Object.fromEntries(Object.entries(record).filter(([key]) => Object.hasOwn(rules, key)))
  const faults = Keys.faultsOf(known, rules)
  if (faults.length > 0) return Result.fail(new GenerationConfigError({ path, faults }))
  const drawn = (key: string, name: string) => {
    const value = Keys.number(known, key, 0)
    return isDrawn && value > 0 ? { [name]: value } : {}
  }
  const own = idsOf(known["eos_token_id"])
  const changesNothing = (key: string): boolean =>
    inert.has(key) || record[key] === null || record[key] === false || neutral.get(key) === record[key]
  return Result.succeed({
    endIds: own.length > 0 ? own : endIds,
    isDrawn,
    ...drawn("temperature", "temperature"), ...drawn("top_k", "topK"), ...drawn("top_p", "topP"),
    unused: Object.keys(record).filter((key) => !changesNothing(key))
  })
}

/**
 * The `generation_config.json` that beside a copy of the model says what these two files say: the text as it is, with
 * the ids of `config.json`, which is written anew, where it names none itself.
 */
export const keptGeneration = (text: string | undefined, endIds: ReadonlyArray<number>): string | undefined => {
  if (endIds.length === 0) return text
  const record = text === undefined ? {} : Result.getOrUndefined(Keys.parse("", text)) // what is no JSON stays so
  const own = record?.["eos_token_id"] ?? []
  return record === undefined || !Array.isArray(own) || own.length > 0 ? text
    : Keys.print({ ...record, eos_token_id: endIds })
}

/** Reads a `config.json`. */
export const parse = (
  path: string, text: string
): Result.Result<Description & Pick<Generation, "endIds">, CheckpointConfigError> =>
  Result.gen(function*() {
    const record = yield* Keys.parse(path, text)
    const { faults, theta } = thetaOf(record)
    const number = (key: string, otherwise = NaN): number => Keys.number(record, key, otherwise)
    const config = yield* Keys.checked(path, [...Keys.faultsOf(record, rules), ...faults], () => {
      const heads = number("num_attention_heads")
      const headSize = number("head_dim")
      return Keys.configOf(path, {
        vocabSize: number("vocab_size"), embedSize: number("hidden_size"), layerCount: number("num_hidden_layers"),
        headCount: heads, kvHeadCount: number("num_key_value_heads", heads),
        ...Number.isNaN(headSize) ? {} : { headSize },
        hiddenSize: number("intermediate_size"), epsilon: number("rms_norm_eps", 1e-6), theta,
        contextLength: number("max_position_embeddings", 2048)
      }, names)
    })
    return { config, isTied: record["tie_word_embeddings"] === true, endIds: idsOf(record["eos_token_id"]) }
  })

const names = {
  vocabSize: "vocab_size", embedSize: "hidden_size", layerCount: "num_hidden_layers",
  headCount: "num_attention_heads", kvHeadCount: "num_key_value_heads", headSize: "head_dim",
  hiddenSize: "intermediate_size", epsilon: "rms_norm_eps", theta: "rope_theta",
  contextLength: "max_position_embeddings"
} as const

/** The ids that `config.json` and `generation_config.json` repeat of a tokenizer. */
export interface SpecialIds {
  readonly bosId: number
  readonly eosId: number
  readonly padId: number | undefined
}

const ids = ({ bosId, eosId, padId }: SpecialIds) => ({
  bos_token_id: bosId, eos_token_id: eosId, ...padId === undefined ? {} : { pad_token_id: padId }
})

const dtypes = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const

/** Writes a `config.json`, which transformers 4 and 5 read alike. */
export const print = (
  { config, isTied }: Description, dtype: Dtype, special: SpecialIds | undefined
): string =>
  Keys.print({
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: config.vocabSize,
    hidden_size: config.embedSize,
    intermediate_size: config.hiddenSize,
    num_hidden_layers: config.layerCount,
    num_attention_heads: config.headCount,
    num_key_value_heads: config.kvHeadCount,
    head_dim: config.headSize,
    max_position_embeddings: config.contextLength,
    rms_norm_eps: config.epsilon,
    rope_theta: config.theta,
    rope_scaling: null,
    hidden_act: "silu",
    attention_bias: false,
    mlp_bias: false,
    attention_dropout: 0,
    pretraining_tp: 1,
    tie_word_embeddings: isTied,
    ...special === undefined ? {} : ids(special),
    torch_dtype: dtypes[dtype],
    use_cache: true
  })

/** How tokens are drawn of a model, from all of which the likeliest share `topP`. */
export interface Drawing {
  readonly temperature: number
  readonly topP: number
}

/** Writes a `generation_config.json`: where generation begins and ends, and how tokens are drawn. */
export const printGeneration = (special: SpecialIds | undefined, drawing: Drawing | undefined): string =>
  Keys.print({
    ...special === undefined ? {} : ids(special),
    ...drawing === undefined ? {} : {
      do_sample: true, temperature: drawing.temperature, top_p: drawing.topP,
      top_k: 0 // all of them: 50 are kept where it is absent
    }
  })

/** Names and layout: the two parts of a rotary plane lie in halves, as in Cria. */
export const naming: Naming = {
  rotary: "halves",
  names: {
    "embedding": "model.embed_tokens.weight",
    "attentionNorm.gain": "model.layers.{}.input_layernorm.weight",
    "attention.query": "model.layers.{}.self_attn.q_proj.weight",
    "attention.key": "model.layers.{}.self_attn.k_proj.weight",
    "attention.value": "model.layers.{}.self_attn.v_proj.weight",
    "attention.output": "model.layers.{}.self_attn.o_proj.weight",
    "feedForwardNorm.gain": "model.layers.{}.post_attention_layernorm.weight",
    "feedForward.gate": "model.layers.{}.mlp.gate_proj.weight",
    "feedForward.up": "model.layers.{}.mlp.up_proj.weight",
    "feedForward.down": "model.layers.{}.mlp.down_proj.weight",
    "norm.gain": "model.norm.weight",
    "head": "lm_head.weight"
  },
  computed: /\.rotary_emb\.inv_freq$/
}
