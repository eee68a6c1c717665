/**
 * Drafting (speculative decoding): a quicker model guesses some tokens one by one, the model computes them all at once.
 *
 *     t  ──draft──▶  g₁ g₂ … gₙ          t g₁ … gₙ  ──model──▶  scores after each
 *     t₁ drawn after t;  while tᵢ = gᵢ:  tᵢ₊₁ drawn after gᵢ       one to n + 1 tokens for one reading of the weights
 *
 * t the last token · g guesses · n `length`
 *
 * Every token is drawn from the model's own scores with its own key, and a guess with the key of the token that it
 * stands for: so answers are those that the model gives alone, whatever the draft is, and a draft that nearly agrees
 * nearly always draws the same. Both write to one cache: what the draft wrote is overwritten by the model before
 * anything of it counts, and what lies behind the last token that stayed is not seen.
 *
 * From     Leviathan et al. 2023 and Chen et al. 2023 (a draft, and one pass over its tokens).
 * Checked  test/generate/Drafting.test.ts (with any draft = alone; how many passes; messages);
 *          test/backend/onnx/Decoder.test.ts.
 * Departs  they accept a guess with the ratio of two probabilities and draw again from what is left, which keeps the
 *          distribution; drawing with the token's own key keeps the very tokens too. The draft has no cache of its own.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type AnyCell, Backend, type BackendError, type Capabilities, type Cells } from "../backend/Backend.ts"
import type { Config } from "../llama/Config.ts"
import type { KeyValueCache } from "../llama/KeyValueCache.ts"
import type { Transformer } from "../llama/Transformer.ts"
import type { Hidden } from "../tensor/Hidden.ts"
import { count as countOf } from "../tensor/Node.ts"
import { ShapeError } from "../tensor/ShapeError.ts"
import { leaves, type Specifications } from "../tensor/Specification.ts"
import { frozenParameters, program, scoresOf } from "./CachedProgram.ts"
import * as Masses from "./Masses.ts"
import { rowOf, type Rule, type Scores } from "./Sampling.ts"

/**
 * What guesses: the model with its own weights in codes, as `Quantization.quantized` and `fromCells` give them. It
 * reads the keys and values of the other, so that a model trained apart from it would guess nothing. Its parameters are
 * constants of its program, with the values of now, and refused where the backend has no room for them there.
 */
export interface Draft {
  readonly model: Transformer<Hidden>
  readonly parameters: Cells<Specifications<Hidden>>
  /**
   * How many tokens it guesses at a time, of those that the context has room for behind a prompt and one token; 7 by
   * default.
   */
  readonly length?: number
}

/** How tokens of one slot are guessed and computed. Scores hold until `use` has ended. */
export interface Ahead {
  /** How many are guessed. */
  readonly count: number
  /** The draft's scores of the token after `id`, which stands at `place`. */
  readonly guess: <A, E, R>(
    id: number, place: number, use: (scores: Scores) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | BackendError, R>
  /** The model's scores of the tokens after each of `count` + 1 ids, row by row; the first stands at `place`. */
  readonly verify: <A, E, R>(
    ids: Int32Array, place: number, use: (scores: Scores) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | BackendError, R>
}

/**
 * Guesses tokens behind `last`, which stands at `place`, and draws as many as were guessed right and one more, `most`
 * at most. `foresee` gives the guess from the draft's scores, `draw` the token from the model's; `undefined` ends it.
 */
export const leap = Effect.fnUntraced(function*<E, R>(
  { count, guess, verify }: Ahead, last: number, place: number, most: number,
  foresee: (scores: Scores, index: number) => number, draw: (scores: Scores) => Effect.Effect<number | undefined, E, R>
) {
  const ids = new Int32Array(count + 1)
  ids[0] = last
  for (let i = 0; i < Math.min(count, most - 1); i++) {
    ids[i + 1] = yield* guess(ids[i]!, place + i, (scores) => Effect.sync(() => foresee(scores, i)))
  }
  yield* verify(ids, place, Effect.fnUntraced(function*(scores) {
    let drawn: number | undefined = last
    for (let i = 0; i <= count && i < most && drawn === ids[i]; i++) drawn = yield* draw(rowOf(scores, i, count + 1))
  }))
})

/** What the model is compiled with. */
export interface Surroundings<P> {
  readonly model: Transformer<P>
  readonly parameters: Cells<Specifications<P>>
  readonly slots: number
  readonly source: number
  readonly constants: ReadonlyMap<string, AnyCell>
  /** What weighs the scores of one sequence. */
  readonly weighing: (rule?: Rule) => Effect.Effect<Masses.Weigh, BackendError, Scope.Scope>
}

/** Compiles both programs, to be bound to caches of one sequence; a context of two tokens leaves nothing to guess. */
export const make = Effect.fnUntraced(function*<P>(
  { length = 7, model: draft, parameters: guessing }: Draft,
  { constants, model, parameters, slots, source, weighing }: Surroundings<P>
): Effect.fn.Return<
  (cache: Cells<Specifications<KeyValueCache>>, rule?: Rule) =>
  Effect.Effect<Ahead | undefined, BackendError, Scope.Scope>,
  BackendError | ShapeError, Backend | Scope.Scope
> {
  const backend = yield* Backend
  yield* requireFit(draft, model, { length, slots, source })
  yield* requireConstant(draft, backend.capabilities)
  const count = Math.min(length, source - 2) // of a prompt and the token after it
  if (count < 1) return () => Effect.undefined
  const guess = yield* backend.compile(yield* program("guess", draft, { batch: 1, position: 1, source }), {
    constants: frozenParameters(guessing)
  })
  const verify = yield* backend.compile(
    yield* program("verify", model, { batch: 1, position: count + 1, source }, "every"), { constants })
  const weighingAll = yield* Masses.make(count + 1, model.config.vocabSize)
  return Effect.fnUntraced(function*(cache, rule) {
    const [weighOne, weighAll] = [yield* weighing(rule), yield* weighingAll(rule)]
    const guesser = yield* guess.bind({ parameters: guessing, cache })
    const verifier = yield* verify.bind({ parameters, cache })
    return {
      count,
      guess: (id, place, use) =>
        guesser.runWith({ ids: id, starts: place, lengths: 1 }, (results) => weighOne(scoresOf(results), use)),
      verify: (ids, place, use) =>
        verifier.runWith({ ids, starts: place, lengths: count + 1 }, (results) => weighAll(scoresOf(results), use))
    }
  })
})

/** Fails where a draft cannot stand in for the model, or there is more than one sequence to guess for. */
const requireFit = <P>(
  draft: Transformer<Hidden>, model: Transformer<P>,
  { length, slots, source }: { readonly length: number; readonly slots: number; readonly source: number }
): Effect.Effect<void, ShapeError> => {
  const shape = ({ headSize, kvHeadCount, layerCount, vocabSize }: Config): string =>
    JSON.stringify({ layerCount, kvHeadCount, headSize, vocabSize })
  const [wanted, given] = [shape(model.config), shape(draft.config)]
  const refused = (invariant: string, values: ShapeError["values"], remedy: string) =>
    Effect.fail(new ShapeError({ operation: "decoder, draft", place: "", invariant, values, remedy }))
  if (!(Number.isSafeInteger(length) && length >= 1)) {
    return refused("its length must be a whole number of at least 1", [["length", String(length)]],
      "Leave it out for 7.")
  }
  if (slots > 1) {
    return refused("it guesses for one slot", [["slots", String(slots)]],
      "Several sequences share each reading of the weights as it is: leave the draft out, or take one slot.")
  }
  const { contextLength } = draft.config
  if (contextLength < source) {
    return refused("its context must hold that of the decoder", [
      ["decoder", String(source)], ["draft", String(contextLength)]
    ], "Take the model's own weights in codes.")
  }
  return given === wanted ? Effect.void : refused(
    "it must have the model's sizes, for both use one cache", [["model", wanted], ["draft", given]],
    "Take the model's own weights in codes.")
}

/** Fails where programs cannot hold a draft's weights, for codes that are no constants take longer than a model. */
const requireConstant = (
  { specification }: Transformer<Hidden>, { constantBytes = Infinity, precisions }: Capabilities
): Effect.Effect<void, ShapeError> => {
  const real = precisions.includes("f32") ? 4 : 8
  const bytes = leaves(specification).reduce((sum, [, { kind, sizes }]) =>
    sum + countOf(sizes) * (kind === "code" ? 1 : real), 0)
  return bytes < constantBytes ? Effect.void : Effect.fail(new ShapeError({
    operation: "decoder, draft", place: "", invariant: "its weights must have room among the constants of a program",
    values: [["draft", `${bytes} bytes`], ["room", `${constantBytes} bytes`]],
    remedy: "Others are unpacked anew for every guess, which takes longer than a token of the model. Leave the draft " +
      "out, take fewer bits, or the engine through its C library, whose programs have no such bound."
  }))
}
