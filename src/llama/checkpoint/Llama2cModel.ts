/**
 * llama2.c's Llama: header ⇄ configuration, and the tables of rotation that its first version keeps.
 *
 *     cos φ, sin φ,   φ = p θ^(−2i/D)        p the position · i the plane · D the size of a head · θ 10 000
 *
 * From     karpathy/llama2.c, `export.py`, `model.py` (precompute_freqs_cis) and `run.c`, where ε is 10⁻⁵.
 * Checked  test/llama/CheckpointConfig.test.ts; test/parity/Stories.test.ts (a file of llama2.c there and back).
 * Departs  frequencies and angles are rounded to float32 one after another, as PyTorch does; the power and the cosines
 *          come from JavaScript's float64 functions, so that the last bits of a table may differ. llama2.c reads past
 *          them.
 *
 * @module
 */
import * as Result from "effect/Result"
import type { Header } from "../../format/Llama2c.ts"
import type { Value } from "../../format/TensorFile.ts"
import type { Config } from "../Config.ts"
import { type CheckpointConfigError, CheckpointUnfitError } from "./CheckpointError.ts"
import * as Keys from "./Keys.ts"
import type { Naming } from "./Layout.ts"
import * as MetaModel from "./MetaModel.ts"

const names = {
  vocabSize: "vocab_size", embedSize: "dim", layerCount: "n_layers", headCount: "n_heads", kvHeadCount: "n_kv_heads",
  hiddenSize: "hidden_dim", contextLength: "max_seq_len"
} as const

/** The configuration of a header. */
export const configOf = (
  path: string, header: ReadonlyMap<string, Value>
): Result.Result<{ readonly config: Config; readonly isTied: boolean }, CheckpointConfigError> => {
  const record: Keys.Fields = Object.fromEntries(header)
  const number = (key: string): number => Keys.number(record, key, NaN)
  return Result.map(
    Keys.configOf(path, {
      vocabSize: number("vocab_size"), embedSize: number("dim"), layerCount: number("n_layers"),
      headCount: number("n_heads"), kvHeadCount: number("n_kv_heads"), hiddenSize: number("hidden_dim"),
      epsilon: 1e-5, theta: 10_000, contextLength: number("max_seq_len")
    }, names),
    (config) => ({ config, isTied: record["shared_classifier"] === true })
  )
}

/** The header of a configuration. Fails for what llama2.c cannot be told. */
export const headerOf = (
  config: Config, isTied: boolean, version: Header["version"], groupSize: number
): Result.Result<Header, CheckpointUnfitError> => {
  const { embedSize, epsilon, headCount, headSize, theta } = config
  const reasons = [
    ...epsilon === 1e-5 ? [] : [`epsilon is ${epsilon}, and llama2.c computes with 1e-5`],
    ...theta === 10_000 ? [] : [`theta is ${theta}, and llama2.c rotates with 10000`],
    ...headSize * headCount === embedSize ? []
      : [`headSize is ${headSize}, and llama2.c knows embedSize / headCount alone (${embedSize / headCount})`]
  ]
  return reasons.length > 0 ? Result.fail(new CheckpointUnfitError({ format: "llama2.c's .bin", reasons }))
    : Result.succeed({
      version, dim: embedSize, hidden_dim: config.hiddenSize, n_layers: config.layerCount, n_heads: headCount,
      n_kv_heads: config.kvHeadCount, vocab_size: config.vocabSize, max_seq_len: config.contextLength,
      shared_classifier: isTied, group_size: groupSize
    })
}

/** The tables of rotation, positions by planes. */
export const rotation = (
  { contextLength, headSize, theta }: Config
): { readonly cos: Float32Array<ArrayBuffer>; readonly sin: Float32Array<ArrayBuffer> } => {
  const planes = headSize / 2
  const [cos, sin] = [new Float32Array(contextLength * planes), new Float32Array(contextLength * planes)]
  for (let plane = 0; plane < planes; plane++) {
    const frequency = Math.fround(1 / Math.fround(theta ** Math.fround(2 * plane / headSize)))
    for (let position = 0; position < contextLength; position++) {
      const angle = Math.fround(position * frequency)
      cos[position * planes + plane] = Math.cos(angle)
      sin[position * planes + plane] = Math.sin(angle)
    }
  }
  return { cos, sin }
}

/** Names and layout: Meta's, which llama2.c keeps. */
export const naming: Naming = { ...MetaModel.naming, computed: /^freqs_(cos|sin)$/ }
