/**
 * The key and value cache: what attention needs of the tokens before, kept from run to run, each computed once.
 *
 *     K[p] ← key of the token at p,   V[p] ← its value,   then attention over the sources s ≤ p
 *
 * p the place of a token in its sequence · K, V of each block, keys after rotation
 *
 * One function for all: a prompt is a block of positions, decoding a block of one. A block may end in padding: what it
 * leaves in the cache lies behind the sequence, where no real token looks, and is overwritten before one can. The keys
 * are written first and read after, so that a backend can keep the cache where it lies.
 *
 * From     Shazeer 2019 §2.2; Meta's code caches keys after rotation and before groups are repeated, as here.
 * Checked  test/llama/KeyValueCache.test.ts (in blocks of any length = at once; padding; what lies behind is not seen).
 *
 * @module
 */
import { type Composite, composite } from "../tensor/Composite.ts"
import { fail } from "../tensor/Node.ts"
import type { Specifications } from "../tensor/Specification.ts"
import * as Specification from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import { type AtHand, attend, type Fresh, type Queries, type Recall, recalling } from "./Attention.ts"
import type { Config } from "./Config.ts"
import type { Transformer } from "./Transformer.ts"
import { explicit, type Visibility } from "./Visibility.ts"

/** Keys or values of each place of each sequence; `batch` leads, so that a backend can view one sequence. */
export type Kept = Tensor<"batch" | "kvHead" | "source" | "part" | "plane">

/** Keys and values of one block of the model. */
export interface Pair {
  readonly key: Kept
  readonly value: Kept
}

/** The places of a block's tokens in their sequences. */
type Places = Tensor<"batch" | "position", "id">

/** The cache of a model. */
export interface KeyValueCache {
  readonly block: ReadonlyArray<Pair>
}

/** The cells of a cache for `batch` sequences of at most `source` tokens. */
export const specification = (
  { headSize, kvHeadCount: kvHead, layerCount }: Config,
  { batch, source }: { readonly batch: number; readonly source: number }
): Specifications<KeyValueCache> => {
  const kept = Specification.real({ batch, kvHead, source, part: 2, plane: headSize / 2 })
  return { block: Array.from({ length: layerCount }, () => ({ key: kept, value: kept })) }
}

/** A block of tokens that follow those in the cache. */
export interface Input {
  readonly ids: Tensor<"batch" | "position", "id">
  /** How many tokens of each sequence the cache holds: the place of the block's first token. */
  readonly starts: Tensor<"batch", "id">
}

/**
 * The model's residual stream for a block of tokens, and the cache with their keys and values.
 *
 * Every place of the block, padding included, must lie within the cache: starts + positions ≤ source.
 */
export const extend = <P>(
  model: Transformer<P>, parameters: P, cache: KeyValueCache, { ids, starts }: Input
): { readonly hidden: Tensor<"batch" | "position" | "embed">; readonly cache: KeyValueCache } => {
  const { contextLength } = model.config
  const places = T.addIds(starts, T.positions("position", T.size(ids, "position")))
  const [first] = cache.block
  const sourceCount = first === undefined ? 0 : T.size(first.key, "source")
  if (sourceCount > contextLength) {
    fail("key and value cache", `at most contextLength = ${contextLength} sources`, [["sources", String(sourceCount)]],
      "Keep fewer, or configure a longer context: positions that were never trained give nonsense.")
  }
  const visibility = upTo(places, sourceCount)
  const block = [...cache.block]
  const recall = (index: number): Recall => {
    const kept = cache.block[index]
    if (kept === undefined) throw new TypeError(`a cache of ${cache.block.length} blocks for a model with more`)
    const plain = recalling((fresh) => block[index] = put(kept, fresh, places))
    return {
      sources: plain.sources,
      attend: (query, fresh, seen) => {
        if (seen !== visibility) return plain.attend(query, fresh, seen)
        const attended = attendKept(query, fresh, kept, starts)
        block[index] = attended.kept
        return attended.mixed
      }
    }
  }
  const hidden = model.hidden(parameters, { ids, positions: places, visibility, recall })
  return { hidden, cache: { block } }
}

/** The cache with what is at hand written to its places. */
const put = (kept: Pair, { key, value }: AtHand, places: Places): Pair => ({
  key: T.put(kept.key, "source", places, key, "set"), value: T.put(kept.value, "source", places, value, "set")
})

/** Each position sees the sources up to its own place, itself at least. */
const upTo = (places: Places, sourceCount: number): Visibility =>
  explicit(T.lessEqual(T.positions("source", sourceCount), places), { everyRowSees: true })

/**
 * What the queries mix of a cache into which the keys and values at hand are written first, and that cache: sources up
 * to the place of each query, `starts` that of the first. One step, for which a backend may have an operator.
 */
export const attendKept = (
  query: Queries, { key, value }: AtHand, kept: Pair, starts: Input["starts"]
): { readonly mixed: Queries; readonly kept: Pair } => {
  const [mixed, newKey, newValue] = composite(attention, [query, key, value, kept.key, kept.value, starts])
  return { mixed: mixed!, kept: { key: newKey!, value: newValue! } }
}

const attention: Composite = {
  name: "attendKept",
  attributes: {},
  residuals: 0,
  decompose: (inputs) => {
    const [query, freshKey, freshValue, keptKey, keptValue, starts] = inputs as readonly [
      Queries, Fresh, Fresh, Kept, Kept, Input["starts"]
    ]
    const places = T.addIds(starts, T.positions("position", T.size(query, "position")))
    const { key, value } = put({ key: keptKey, value: keptValue }, { key: freshKey, value: freshValue }, places)
    return [attend(query, key, value, upTo(places, T.size(keptKey, "source"))), key, value]
  },
  layout: () => {
    const [heads, kept] = [["batch", "position", "kvHead"], ["batch", "kvHead", "source", "part", "plane"]]
    const [query, fresh] = [[...heads, "group", "part", "plane"], [...heads, "part", "plane"]]
    return { inputs: [query, fresh, fresh, kept, kept, ["batch"]], outputs: [query, kept, kept] }
  }
}

/** The residual stream at one position of each sequence. */
export const at = (
  hidden: Tensor<"batch" | "position" | "embed">, position: Tensor<"batch", "id">
): Tensor<"batch" | "position" | "embed"> =>
  T.take(T.rename(hidden, "position", "source"), "source", T.spread(position, "position", 1))
