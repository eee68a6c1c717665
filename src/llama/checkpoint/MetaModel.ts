/**
 * Meta's own Llama: `params.json` ⇄ configuration, and the names of its tensors.
 *
 *     hidden = 2 (4 dim) / 3, times `ffn_dim_multiplier`, up to a multiple of `multiple_of`
 *
 * From     meta-llama/llama, `llama/model.py` (ModelArgs) and the folders that Meta released; `rope_theta` as in Code
 *          Llama's.
 * Checked  test/llama/CheckpointConfig.test.ts (there and back, every refusal); test/parity/Checkpoint.test.ts.
 * Departs  the file does not hold the longest sequence: 4 096, Llama 2's, is taken, unless the caller knows better.
 *          `norm_eps` is 10⁻⁵ where it is absent, as in Meta's code.
 *
 * @module
 */
import * as Result from "effect/Result"
import type { Config } from "../Config.ts"
import { feedForwardSize } from "../Config.ts"
import { type CheckpointConfigError, CheckpointUnfitError } from "./CheckpointError.ts"
import * as Keys from "./Keys.ts"
import type { Naming } from "./Layout.ts"

const rules: Keys.Rules = {
  dim: Keys.count,
  n_layers: Keys.count,
  n_heads: Keys.count,
  n_kv_heads: Keys.optional(Keys.count),
  multiple_of: Keys.optional(Keys.count),
  ffn_dim_multiplier: Keys.optional(Keys.positive),
  norm_eps: Keys.optional(Keys.positive),
  rope_theta: Keys.optional(Keys.positive),
  use_scaled_rope: Keys.optional(Keys.oneOf([false], "Llama 2 scales no positions")),
  vocab_size: {
    expected: "a whole number from 1, or -1 for that of the tokenizer",
    accepts: (value) => value === -1 || Keys.count.accepts(value)
  },
  max_seq_len: Keys.inert, // of the program that runs the model, not of the model
  max_batch_size: Keys.inert
}

const names = {
  vocabSize: "vocab_size", embedSize: "dim", layerCount: "n_layers", headCount: "n_heads", kvHeadCount: "n_kv_heads",
  multipleOf: "multiple_of", multiplier: "ffn_dim_multiplier", epsilon: "norm_eps", theta: "rope_theta"
} as const

/** What the file does not say. */
export interface Beside {
  /** Pieces of the tokenizer, for a `vocab_size` of −1. */
  readonly vocabSize?: number
  /** 4 096 by default. */
  readonly contextLength?: number
}

/** Reads a `params.json`. */
export const parse = (path: string, text: string, beside: Beside): Result.Result<Config, CheckpointConfigError> =>
  Result.flatMap(Keys.parse(path, text), (record) => {
    const number = (key: string, otherwise = NaN): number => Keys.number(record, key, otherwise)
    const isOpen = number("vocab_size") === -1
    const faults = isOpen && beside.vocabSize === undefined ? [{
      key: "vocab_size", value: "-1", expected: "a tokenizer.model beside it, whose pieces are counted"
    }] : []
    return Keys.checked(path, [...Keys.faultsOf(record, rules), ...faults], () =>
      Keys.configOf(path, {
        vocabSize: isOpen ? beside.vocabSize ?? NaN : number("vocab_size"), embedSize: number("dim"),
        layerCount: number("n_layers"), headCount: number("n_heads"),
        kvHeadCount: number("n_kv_heads", number("n_heads")), multipleOf: number("multiple_of", 256),
        multiplier: number("ffn_dim_multiplier", 1), epsilon: number("norm_eps", 1e-5),
        theta: number("rope_theta", 10_000), contextLength: beside.contextLength ?? 4096
      }, names))
  })

/** A rule that finds a feed-forward width: Meta's own multiples where they do, else one that gives it exactly. */
const widthRule = ({ embedSize, hiddenSize }: Config) => {
  const multipleOf = [4096, 1024, 256, 128, 64, 32, 16, 8, 4, 2, 1].find((multipleOf) =>
    feedForwardSize(embedSize, { multipleOf }) === hiddenSize)
  return multipleOf === undefined
    ? { multiple_of: 1, ffn_dim_multiplier: (hiddenSize + 0.5) / Math.floor(8 * embedSize / 3) }
    : { multiple_of: multipleOf }
}

/** Writes a `params.json`. Fails for what it cannot say. */
export const print = (config: Config): Result.Result<string, CheckpointUnfitError> => {
  const { embedSize, epsilon, headCount, headSize, kvHeadCount, layerCount, theta, vocabSize } = config
  if (headSize * headCount !== embedSize) return Result.fail(new CheckpointUnfitError({
    format: "Meta's folder",
    reasons: [`headSize is ${headSize}, and params.json knows embedSize / headCount alone (${embedSize / headCount})`]
  }))
  return Result.succeed(Keys.print({
    dim: embedSize, n_layers: layerCount, n_heads: headCount,
    ...kvHeadCount === headCount ? {} : { n_kv_heads: kvHeadCount },
    ...widthRule(config), norm_eps: epsilon, ...theta === 10_000 ? {} : { rope_theta: theta }, vocab_size: vocabSize
  }))
}

/** Names and layout: the two parts of a rotary plane lie side by side. */
export const naming: Naming = {
  rotary: "interleaved",
  names: {
    "embedding": "tok_embeddings.weight",
    "attentionNorm.gain": "layers.{}.attention_norm.weight",
    "attention.query": "layers.{}.attention.wq.weight",
    "attention.key": "layers.{}.attention.wk.weight",
    "attention.value": "layers.{}.attention.wv.weight",
    "attention.output": "layers.{}.attention.wo.weight",
    "feedForwardNorm.gain": "layers.{}.ffn_norm.weight",
    "feedForward.gate": "layers.{}.feed_forward.w1.weight",
    "feedForward.down": "layers.{}.feed_forward.w2.weight",
    "feedForward.up": "layers.{}.feed_forward.w3.weight",
    "norm.gain": "norm.weight",
    "head": "output.weight"
  },
  computed: /^rope\.freqs$/
}
