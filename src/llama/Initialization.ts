/**
 * How parameters begin: independent normal draws, smaller where a block writes to the residual stream.
 *
 *     weights N(0, 0.02²);  attention output and feed-forward down N(0, (0.02 / √(2 L))²);  gains 1
 *
 * L `layerCount`: 2 L sub-layers add to the stream, whose variance then stays about that of one.
 *
 * From     the paper is silent, and Meta's released code does not initialize. 0.02 is the value of GPT-2 and of Hugging
 *          Face's Llama; the scaling is GPT-2's (Radford et al. 2019 §2.3).
 * Checked  test/llama/Initialization.test.ts (deviations, independence of tensors, what a backend begins with).
 * Departs  llama2.c scales the up projection instead of the down projection; here what is scaled is what is added.
 *
 * @module
 */
import * as Key from "../random/Key.ts"
import type { Initial } from "../tensor/Specification.ts"
import { leaves } from "../tensor/Specification.ts"
import type { Config } from "./Config.ts"

const deviation = 0.02

/** How weights begin that read the residual stream, the embedding table and the head. */
export const weight: Initial = { _tag: "Normal", deviation }

/** How weights begin that write to the residual stream. */
export const residualWeight = (config: Config): Initial => ({
  _tag: "Normal", deviation: deviation / Math.sqrt(2 * config.layerCount)
})

/**
 * The normal draws of a tree of specifications, as `Backend.allocate` takes them: `undefined` for a tensor that begins
 * as a constant.
 *
 * Each tensor's draws come from a key of its own path in this tree: another tensor beside it changes none of them.
 */
export const draws = (
  key: Key.Key, specification: unknown
): (path: string) => Float32Array | undefined => {
  const byPath = new Map(leaves(specification))
  return (path) => {
    const leaf = byPath.get(path)
    if (leaf?.initial._tag !== "Normal") return undefined
    const elements = new Float32Array(Object.values(leaf.sizes).reduce((count, size) => count * size, 1))
    Key.fillNormal(Key.derive(key, path), elements, { mean: 0, deviation: leaf.initial.deviation })
    return elements
  }
}
