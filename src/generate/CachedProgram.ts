/**
 * Programs over a cache: a block of tokens of every sequence, computed behind what the cache holds.
 *
 *     ids, starts, cache  ──▶  scores of the tokens that follow,  cache
 *
 * From     Cria's own.
 * Checked  test/generate/Decoder.test.ts, test/generate/Drafting.test.ts, test/generate/Scoring.test.ts.
 *
 * @module
 */
import type { AnyCell, Results } from "../backend/Backend.ts"
import { isCell } from "../backend/HostState.ts"
import * as KeyValueCache from "../llama/KeyValueCache.ts"
import type { Transformer } from "../llama/Transformer.ts"
import * as Program from "../tensor/Program.ts"
import * as Specification from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import { entries } from "../tensor/Tree.ts"
import { topsOf } from "./Masses.ts"
import type { Logits, Scores } from "./Sampling.ts"

/** Sizes of a program over a cache: sequences, positions of each that run together, places that a cache has. */
export interface Sizes {
  readonly batch: number
  readonly position: number
  readonly source: number
}

/** The cells of a program over a cache. */
export const cellsOf = <P>(model: Transformer<P>, sizes: Sizes) =>
  ({ parameters: model.specification, cache: KeyValueCache.specification(model.config, sizes) })

/** What a program over a cache makes of a block: its hidden states, the cache with it, and the typed parameters. */
export const extended = <P>(
  model: Transformer<P>, { cache, parameters: cells }: Specification.Tensors<ReturnType<typeof cellsOf<P>>>,
  block: KeyValueCache.Input
) => {
  const parameters = cells as P // the same tree, which the compiler cannot see for a P unknown
  return { parameters, ...KeyValueCache.extend(model, parameters, cache, block) }
}

/** A block of each sequence: its tokens, the place of the first, and how many of them are real. */
export interface Inputs {
  readonly ids: Specification.Specification<"batch" | "position", "id">
  readonly starts: Specification.Specification<"batch", "id">
  readonly lengths: Specification.Specification<"batch", "id">
}

/** Scores row by row, and the greatest of each run of them where those are worth having. */
export interface Outputs {
  readonly logits: Tensor<"batch" | "vocab">
  readonly tops: ReadonlyArray<Tensor<"batch" | "run">>
}

/** One block of every sequence: the scores of the token after the last real one, or after every one. */
export const program = <P>(name: string, model: Transformer<P>, sizes: Sizes, after: "last" | "every" = "last") => {
  const { batch, position } = sizes
  const inputs: Inputs = {
    ids: Specification.ids({ batch, position }), starts: Specification.ids({ batch }),
    lengths: Specification.ids({ batch })
  }
  const specification = { inputs, state: cellsOf(model, sizes) }
  return Program.makeGeneric(name, specification, ({ ids, lengths, starts }, state) => {
    const { cache, hidden, parameters } = extended(model, state, { ids, starts })
    const ends = position === 1 || after === "every" ? hidden : KeyValueCache.at(hidden, T.subtractIds(lengths, 1))
    const logits = T.merge(model.logits(parameters, ends), ["batch", "position"], "batch")
    // a single sequence's scores are gone through as soon
    const outputs: Outputs = { logits, tops: T.size(logits, "batch") === 1 ? [] : topsOf(logits) }
    return { outputs, state: { cache } }
  })
}

/** The results as they lie. */
export const scoresOf = ({ logits, tops: [tops] }: Results<Outputs>): Scores => ({
  logits: logits.elements as Logits, // they are real numbers
  ...tops === undefined ? {} : { tops: tops.elements as Logits }
})

/** The cells of parameters as constants of a program whose state holds them as `parameters`. */
export const frozenParameters = (parameters: unknown): ReadonlyMap<string, AnyCell> =>
  new Map(entries(parameters, isCell).map(([path, cell]) => [`parameters.${path}`, cell]))
