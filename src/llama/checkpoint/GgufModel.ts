/**
 * GGUF's Llama: metadata ⇄ configuration, metadata ⇄ vocabulary, and the names of its tensors.
 *
 * From     ggml-org/llama.cpp, `gguf-py/gguf/constants.py`, `convert_hf_to_gguf.py` (queries and keys are permuted to
 *          Meta's order) and `src/llama-vocab.cpp`; keys and defaults of the architecture "llama".
 * Checked  test/llama/CheckpointConfig.test.ts (there and back, every refusal); test/parity/Gguf.test.ts (files of the
 *          gguf package).
 * Departs  of vocabularies, SentencePiece's alone ("llama"); how it was trained is not in the file.
 *
 * @module
 */
import * as Result from "effect/Result"
import type * as Gguf from "../../format/Gguf.ts"
import type { Value } from "../../format/TensorFile.ts"
import * as SentencePiece from "../../token/SentencePiece.ts"
import type { Config } from "../Config.ts"
import { CheckpointConfigError, CheckpointUnfitError, type Fault } from "./CheckpointError.ts"
import * as Keys from "./Keys.ts"
import type { Naming } from "./Layout.ts"

/** What a GGUF file says beside its tensors. */
export type Metadata = ReadonlyMap<string, Value>

const only = (value: unknown, why: string): Keys.Rule => Keys.optional(Keys.oneOf([value], why))

/** Rules for the keys of the architecture; those of other rooms (general, tokenizer) have rules of their own. */
const rules: Keys.Rules = {
  "general.architecture": Keys.oneOf(["llama"], "others compute otherwise"),
  "llama.context_length": Keys.count,
  "llama.embedding_length": Keys.count,
  "llama.block_count": Keys.count,
  "llama.feed_forward_length": Keys.count,
  "llama.attention.head_count": Keys.count,
  "llama.attention.head_count_kv": Keys.optional(Keys.count),
  "llama.attention.layer_norm_rms_epsilon": Keys.positive,
  "llama.attention.key_length": Keys.optional(Keys.count),
  "llama.attention.value_length": Keys.optional(Keys.count),
  "llama.rope.dimension_count": Keys.optional(Keys.count),
  "llama.rope.freq_base": Keys.optional(Keys.positive),
  "llama.rope.scaling.type": only("none", "Llama 2 scales no positions"),
  "llama.rope.scaling.factor": only(1, "Llama 2 scales no positions"),
  "llama.rope.scale_linear": only(1, "Llama 2 scales no positions"),
  "llama.vocab_size": Keys.optional(Keys.count),
  "llama.expert_count": only(0, "Llama 2 has no experts"),
  "llama.expert_used_count": only(0, "Llama 2 has no experts"),
  "llama.tensor_data_layout": only("Meta AI original pth", "the order of a query's numbers in GGUF"),
  "llama.attention.causal": only(true, "a language model looks back alone")
}

const names = {
  vocabSize: "llama.vocab_size", embedSize: "llama.embedding_length", layerCount: "llama.block_count",
  headCount: "llama.attention.head_count", kvHeadCount: "llama.attention.head_count_kv",
  headSize: "llama.attention.key_length", hiddenSize: "llama.feed_forward_length",
  epsilon: "llama.attention.layer_norm_rms_epsilon", theta: "llama.rope.freq_base",
  contextLength: "llama.context_length"
} as const

/** Whole numbers of 64 bits as numbers, where these hold them. */
const plain = (value: Value): Value =>
  typeof value === "bigint" && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value

/** The configuration that the metadata describe; `vocabSize` is that of the embedding, where no key says it. */
export const configOf = (
  path: string, metadata: Metadata, vocabSize: number
): Result.Result<Config, CheckpointConfigError> => {
  const isOurs = (key: string): boolean =>
    key === "general.architecture" || !/^(general|tokenizer|quantize)\./.test(key)
  const record: Keys.Fields = Object.fromEntries([...metadata].flatMap(([key, value]) =>
    isOurs(key) ? [[key, plain(value)]] : []))
  const number = (key: string, otherwise: number): number => Keys.number(record, key, otherwise)
  const heads = number("llama.attention.head_count", NaN)
  const headSize = number("llama.attention.key_length", number("llama.embedding_length", NaN) / heads)
  const same = (key: string): ReadonlyArray<Fault> => {
    const value = number(key, headSize)
    return value === headSize || Number.isNaN(headSize) ? [] : [
      { key, value: String(value), expected: `${headSize}, the size of a head (all of it is rotated)` }
    ]
  }
  const faults = [
    ...Keys.faultsOf(record, rules), ...same("llama.rope.dimension_count"), ...same("llama.attention.value_length")
  ]
  return Keys.checked(path, faults, () => Keys.configOf(path, {
    vocabSize: number("llama.vocab_size", vocabSize), embedSize: number("llama.embedding_length", NaN),
    layerCount: number("llama.block_count", NaN), headCount: heads,
    kvHeadCount: number("llama.attention.head_count_kv", heads), headSize,
    hiddenSize: number("llama.feed_forward_length", NaN),
    epsilon: rounded(number("llama.attention.layer_norm_rms_epsilon", NaN)),
    theta: rounded(number("llama.rope.freq_base", 10_000)), contextLength: number("llama.context_length", NaN)
  }, names))
}

/** The shortest decimal that is the same f32: the file holds f32, and 10⁻⁵ in it means 10⁻⁵. */
const rounded = (single: number): number => {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(single.toPrecision(digits))
    if (Math.fround(short) === Math.fround(single)) return short
  }
  return single
}

const pieceTypes: ReadonlyArray<SentencePiece.PieceType> = [
  "normal", "unknown", "control", "user-defined", "unused", "byte"
]

/** The vocabulary of the metadata; undefined where there is none. */
export const vocabularyOf = (
  path: string, metadata: Metadata
): Result.Result<SentencePiece.Model | undefined, CheckpointConfigError | SentencePiece.SentencePieceError> => {
  const get = (key: string): unknown => {
    const value = metadata.get(`tokenizer.ggml.${key}`)
    return value === undefined ? undefined : plain(value)
  }
  const [kind, texts, scores, kinds] = ["model", "tokens", "scores", "token_type"].map(get)
  if (kind === undefined || kind === "no_vocab" || kind === "none") return Result.succeed(undefined)
  const fault = (key: string, value: unknown, expected: string) => Result.fail(new CheckpointConfigError({
    path, faults: [{ key: `tokenizer.ggml.${key}`, value: Keys.shown(value), expected }]
  }))
  if (kind !== "llama") return fault("model", kind, "\"llama\" (SentencePiece's byte pairs; others cut otherwise)")
  if (!Array.isArray(texts)) return fault("tokens", texts, "a list of texts")
  const isBeside = (list: unknown): list is ArrayLike<unknown> =>
    (Array.isArray(list) || list instanceof Float32Array || list instanceof Int32Array) && list.length === texts.length
  if (!isBeside(scores)) return fault("scores", scores, `a list of ${texts.length} numbers, one for each token`)
  if (!isBeside(kinds)) return fault("token_type", kinds, `a list of ${texts.length} numbers, one for each token`)
  const pieces: Array<SentencePiece.Piece> = []
  for (const [id, text] of texts.entries()) {
    const type = pieceTypes[Number(kinds[id]) - 1]
    if (typeof text !== "string") return fault("tokens", text, `a text at ${id}`)
    if (type === undefined) return fault("token_type", kinds[id], `1 to ${pieceTypes.length} at ${id}`)
    pieces.push({ text, type, score: Number(scores[id]) })
  }
  const special = (key: string): string | undefined => {
    const id = get(key)
    return typeof id === "number" ? pieces[id]?.text : undefined
  }
  const [bosPiece, eosPiece, padPiece] = ["bos_token_id", "eos_token_id", "padding_token_id"].map(special)
  const unkId = pieces.findIndex(({ type }) => type === "unknown")
  return SentencePiece.make(pieces, {
    ...SentencePiece.defaultTrainer, modelType: "bpe", vocabSize: pieces.length,
    byteFallback: pieces.some(({ type }) => type === "byte"),
    ...unkId < 0 ? {} : { unkId, unkPiece: pieces[unkId]?.text ?? "" },
    ...bosPiece === undefined ? {} : { bosPiece }, ...eosPiece === undefined ? {} : { eosPiece },
    ...padPiece === undefined ? {} : { padPiece }
  }, { ...SentencePiece.identityNormalizer, addDummyPrefix: get("add_space_prefix") !== false })
}

/** The numbers by which GGUF knows what most of a file's tensors are. */
export const fileTypes = { F32: 0, F16: 1, Q8_0: 7 } as const

/** The metadata of a configuration. */
export const metadataOf = (
  config: Config, fileType: keyof typeof fileTypes
): ReadonlyArray<readonly [string, Gguf.Value]> => {
  const u32 = (value: number): Gguf.Value => ({ type: "u32", value })
  return [
    ["general.architecture", { type: "string", value: "llama" }],
    ["general.file_type", u32(fileTypes[fileType])],
    ["general.quantization_version", u32(2)],
    ["llama.vocab_size", u32(config.vocabSize)],
    ["llama.context_length", u32(config.contextLength)],
    ["llama.embedding_length", u32(config.embedSize)],
    ["llama.block_count", u32(config.layerCount)],
    ["llama.feed_forward_length", u32(config.hiddenSize)],
    ["llama.attention.head_count", u32(config.headCount)],
    ["llama.attention.head_count_kv", u32(config.kvHeadCount)],
    ["llama.attention.key_length", u32(config.headSize)],
    ["llama.attention.value_length", u32(config.headSize)],
    ["llama.attention.layer_norm_rms_epsilon", { type: "f32", value: config.epsilon }],
    ["llama.rope.dimension_count", u32(config.headSize)],
    ["llama.rope.freq_base", { type: "f32", value: config.theta }]
  ]
}

const typeNumber = ({ type }: SentencePiece.Piece): number => pieceTypes.indexOf(type) + 1

/** The metadata of a vocabulary. Fails for one that llama.cpp would read otherwise. */
export const vocabularyMetadata = (
  { normalizer, pieces, trainer }: SentencePiece.Model
): Result.Result<ReadonlyArray<readonly [string, Gguf.Value]>, CheckpointUnfitError> => {
  const reasons = [
    ...trainer.modelType === "bpe" ? [] : [`the tokenizer is ${trainer.modelType}, which GGUF's "llama" is not`],
    ...normalizer.charsmap.length === 0 && !normalizer.removeExtraWhitespaces && normalizer.escapeWhitespaces &&
      !trainer.treatWhitespaceAsSuffix ? [] : ["the tokenizer rewrites text by more than Llama's rule for spaces"]
  ]
  if (reasons.length > 0) return Result.fail(new CheckpointUnfitError({ format: "GGUF", reasons }))
  const idOf = (text: string, type: SentencePiece.PieceType): ReadonlyArray<Gguf.Value> => {
    const id = pieces.findIndex((piece) => piece.text === text && piece.type === type)
    return id < 0 ? [] : [{ type: "u32", value: id }]
  }
  const ids = [
    ["bos_token_id", idOf(trainer.bosPiece, "control")], ["eos_token_id", idOf(trainer.eosPiece, "control")],
    ["unknown_token_id", idOf(trainer.unkPiece, "unknown")], ["padding_token_id", idOf(trainer.padPiece, "control")]
  ] as const
  return Result.succeed([
    ["tokenizer.ggml.model", { type: "string", value: "llama" }],
    ["tokenizer.ggml.pre", { type: "string", value: "default" }],
    ["tokenizer.ggml.tokens", { type: "strings", values: pieces.map(({ text }) => text) }],
    ["tokenizer.ggml.scores", { type: "numbers", values: Float32Array.from(pieces, ({ score }) => score) }],
    ["tokenizer.ggml.token_type", { type: "numbers", values: Int32Array.from(pieces, typeNumber) }],
    ...ids.flatMap(([key, [typed]]) => typed === undefined ? [] : [[`tokenizer.ggml.${key}`, typed] as const]),
    ["tokenizer.ggml.add_bos_token", { type: "bool", value: true }],
    ["tokenizer.ggml.add_eos_token", { type: "bool", value: false }],
    ["tokenizer.ggml.add_space_prefix", { type: "bool", value: normalizer.addDummyPrefix }]
  ])
}

/** The tensor that divides the frequencies of planes where positions are scaled, as for Llama 3.1: no key says so. */
export const divisors = "rope_freqs.weight"

/** Names and layout: the two parts of a rotary plane lie side by side, as Meta's. */
export const naming: Naming = {
  rotary: "interleaved",
  names: {
    "embedding": "token_embd.weight",
    "attentionNorm.gain": "blk.{}.attn_norm.weight",
    "attention.query": "blk.{}.attn_q.weight",
    "attention.key": "blk.{}.attn_k.weight",
    "attention.value": "blk.{}.attn_v.weight",
    "attention.output": "blk.{}.attn_output.weight",
    "feedForwardNorm.gain": "blk.{}.ffn_norm.weight",
    "feedForward.gate": "blk.{}.ffn_gate.weight",
    "feedForward.up": "blk.{}.ffn_up.weight",
    "feedForward.down": "blk.{}.ffn_down.weight",
    "norm.gain": "output_norm.weight",
    "head": "output.weight"
  },
  computed: /^(rope_freqs|blk\.\d+\.attn_rot_embd)\.weight$/
}
