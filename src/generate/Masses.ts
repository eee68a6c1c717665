/**
 * The masses of runs: what equally long runs of ids weigh together, computed beside the scores.
 *
 *     mᵣ = Σ exp(β (xᵢ − max x)) over the ids i of run r
 *
 * x a row of logits · β `inverse`, 1 / temperature
 *
 * Whoever draws a token finds its run by them, and weighs the ids of that run, not those of the whole vocabulary. It is
 * a program of its own over the logits, so that greedy choice, which needs no masses, waits for none.
 *
 * From     Cria's own: inversion of the cumulative distribution (Devroye 1986 §III.2), in two levels.
 * Checked  test/generate/Masses.test.ts, test/backend/onnx/Decoder.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Backend, type BackendError } from "../backend/Backend.ts"
import * as Program from "../tensor/Program.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import * as Specification from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import { inverseOf, type Logits, type Rule, type Scores } from "./Sampling.ts"

/** Hands scores on with what makes a draw by a rule quick; what it adds holds until `use` has ended. */
export type Weigh = <A, E, R>(
  scores: Scores, use: (scores: Scores) => Effect.Effect<A, E, R>
) => Effect.Effect<A, E | BackendError, R>

/** The greatest of each run of scores; none where the vocabulary is no multiple of a useful length. */
export const topsOf = (logits: Tensor<"batch" | "vocab">): ReadonlyArray<Tensor<"batch" | "run">> => {
  const runs = runsOf(T.size(logits, "vocab"))
  return runs === undefined ? [] : [T.max(T.split(logits, "vocab", runs), "id")]
}

const runsOf = (vocabSize: number): { readonly run: number; readonly id: number } | undefined => {
  for (let id = 128; id >= 16; id--) if (vocabSize % id === 0) return { run: vocabSize / id, id }
  return undefined
}

/** The greatest and the mass of each run of rows of logits. */
export const program = (
  batch: number, { id, run }: { readonly run: number; readonly id: number }
) => Program.make("masses", {
  inputs: { logits: Specification.real({ batch, run, id }), inverse: Specification.real({}) }, state: {}
}, ({ inverse, logits }) => {
  const tops = T.max(logits, "id")
  const weights = T.exp(T.multiply(T.subtract(logits, T.max(tops, "run")), inverse))
  return { outputs: { tops, masses: T.sum(weights, "id") }, state: {} }
})

const asTheyAre: Weigh = (scores, use) => use(scores)

/**
 * Compiles the program for some rows of logits, to be bound for a rule. Scores are handed on as they are where the
 * rule needs none, and by engines on which it is not quicker: interpreters, and devices, to which they would go back.
 */
export const make = Effect.fnUntraced(function*(
  rows: number, vocabSize: number
): Effect.fn.Return<
  (rule?: Rule) => Effect.Effect<Weigh, BackendError, Scope.Scope>, BackendError | ShapeError, Backend | Scope.Scope
> {
  const { capabilities: { device, kernels }, compile } = yield* Backend
  const runs = runsOf(vocabSize)
  if (runs === undefined || kernels.length === 0 || device !== undefined) return () => Effect.succeed(asTheyAre)
  const executable = yield* compile(yield* program(rows, runs))
  return Effect.fnUntraced(function*(rule) {
    const inverse = inverseOf(rule)
    if (inverse === 0) return asTheyAre
    const { runWith } = yield* executable.bind({})
    return ({ logits }, use) => runWith({ logits, inverse }, ({ masses, tops }) => use({
      logits, tops: tops.elements as Logits, masses: { inverse, runs: masses.elements as Logits } // real numbers
    }))
  })
})
