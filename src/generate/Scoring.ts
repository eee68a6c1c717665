/**
 * Scoring: the log-probability of every token of given answers, all tokens at once (teacher forcing).
 *
 *     ℓₜ = log P(aₜ | prompt, a₁ … aₜ₋₁)      under the model, and under a rule of sampling
 *
 * a the answer · P softmax of the logits, or what a rule makes of them (temperature, top-k, top-p; −∞ if dropped)
 *
 * Answers run side by side in blocks over caches, whatever their lengths; nothing of one is seen by another.
 *
 * From     Llama 2 §3.2.3 needs both kinds: what an answer was drawn from, and what policy and reference think of it.
 * Checked  test/generate/Scoring.test.ts (sampled = scored; the model's = cross-entropy of the whole sequence; blocks,
 *          company and order change nothing; messages); test/parity/Perplexity.test.ts (Hugging Face's).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Backend, type BackendError, type Bound } from "../backend/Backend.ts"
import * as KeyValueCache from "../llama/KeyValueCache.ts"
import type { Transformer } from "../llama/Transformer.ts"
import { tokenCrossEntropy } from "../loss/CrossEntropy.ts"
import * as Program from "../tensor/Program.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import * as Specification from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import { cellsOf, extended, frozenParameters, type Sizes } from "./CachedProgram.ts"
import { idFaults, requireContext, requireCounts } from "./Request.ts"
import { attempt, distribution, isRuleError, type Logits, logProbability, type Rule } from "./Sampling.ts"
import type { Options as SlotsOptions } from "./Slots.ts"

/** What a scorer is made of; `slots` answers are scored together. */
export interface Options<P> extends Omit<SlotsOptions<P>, "blockLengths" | "draft"> {
  /** How many positions of an answer run together; 32 by default, or the context where that is shorter. */
  readonly blockLength?: number
  /** How the answers were sampled; by default the model's own distribution, which costs less. */
  readonly rule?: Rule
}

/** An answer that is given. */
export interface Continuation {
  /** Its number, by which its score is told. */
  readonly item: number
  /** Ids of the prompt, beginning of sequence included. */
  readonly prompt: ArrayLike<number>
  /** Ids of the answer. */
  readonly answer: ArrayLike<number>
}

/** What an answer scores, token by token. */
export interface Score {
  readonly item: number
  /** Log-probabilities under the rule; without a rule, those of the model. */
  readonly logProbs: ReadonlyArray<number>
  /** Log-probabilities under the model: temperature 1, every token possible. */
  readonly modelLogProbs: ReadonlyArray<number>
}

/** Fails when answers cannot be scored; names all their faults. */
export class ScoreError extends Schema.TaggedError<ScoreError>()("ScoreError", {
  faults: Schema.Array(Schema.String)
}) {
  override get message() {
    return `score: not every answer can be scored\n  ${this.faults.join("\n  ")}`
  }
}

/** A scorer. Streams have caches of their own. */
export interface Scorer {
  readonly contextLength: number
  /** Scores of answers in their order, however many there are: `slots` of them are held at a time. */
  readonly score: <E, R>(
    continuations: Stream.Stream<Continuation, E, R>
  ) => Stream.Stream<Score, Pull.ExcludeDone<E> | E | ScoreError | BackendError, R>
}

/** Makes a scorer: compiles its program. */
export const make = Effect.fnUntraced(function*<P>(
  { blockLength, contextLength, frozen = false, model, parameters, rule, slots = 1 }: Options<P>
): Effect.fn.Return<Scorer, BackendError | ShapeError, Backend | Scope.Scope> {
  const backend = yield* Backend
  const source = contextLength ?? model.config.contextLength
  const length = Math.min(blockLength ?? 32, source)
  yield* requireCounts("scorer", { slots, contextLength: source, blockLength: length })
  yield* requireContext("scorer", source, model.config.contextLength)
  const sizes = { batch: slots, position: length, source }
  const closed = yield* program(model, sizes, rule !== undefined)
  const executable = yield* backend.compile(closed, { constants: frozen ? frozenParameters(parameters) : new Map() })
  const { vocabSize } = model.config
  const begin = Effect.gen(function*() {
    const cache = yield* backend.allocate(KeyValueCache.specification(model.config, sizes))
    return { bound: yield* executable.bind({ parameters, cache }), slots, length, source, vocabSize, rule }
  })
  const score: Scorer["score"] = (continuations) =>
    Stream.unwrap(Effect.map(begin, (engine) =>
      continuations.pipe(Stream.grouped(slots), Stream.mapEffect((group) => scores(engine, group)),
        Stream.flattenIterable)))
  return { contextLength: source, score }
})

interface Inputs {
  readonly ids: Specification.Specification<"batch" | "position", "id">
  readonly targets: Specification.Specification<"batch" | "position", "id">
  readonly starts: Specification.Specification<"batch", "id">
}

interface Outputs {
  readonly logProbs: Tensor<"batch" | "position">
  /** Only where a rule shall be applied to them. */
  readonly logits: ReadonlyArray<Tensor<"batch" | "position" | "vocab">>
}

const program = <P>(model: Transformer<P>, sizes: Sizes, hasRule: boolean) => {
  const { batch, position } = sizes
  const ids = Specification.ids({ batch, position })
  const inputs: Inputs = { ids, targets: ids, starts: Specification.ids({ batch }) }
  const specification = { inputs, state: cellsOf(model, sizes) }
  return Program.makeGeneric("score", specification, ({ ids, starts, targets }, state) => {
    const { cache, hidden, parameters } = extended(model, state, { ids, starts })
    const logits = model.logits(parameters, hidden)
    const logProbs = T.negate(tokenCrossEntropy(logits, targets))
    const outputs: Outputs = { logProbs, logits: hasRule ? [logits] : [] }
    return { outputs, state: { cache } }
  })
}

interface Engine {
  readonly bound: Bound<Inputs, Outputs>
  readonly slots: number
  readonly length: number
  readonly source: number
  readonly vocabSize: number
  readonly rule: Rule | undefined
}

/** The scores of answers that run together. */
const scores = Effect.fnUntraced(function*(
  engine: Engine, group: ReadonlyArray<Continuation>
): Effect.fn.Return<ReadonlyArray<Score>, ScoreError | BackendError> {
  const { bound, length, rule, slots, source, vocabSize } = engine
  const faults = group.flatMap((continuation) => faultsOf(continuation, engine))
  if (faults.length > 0) return yield* new ScoreError({ faults })
  const sequences = group.map(({ answer, prompt }) => [...Array.from(prompt), ...Array.from(answer)])
  const found = group.map(({ item }) => ({ item, logProbs: Array.of<number>(), modelLogProbs: Array.of<number>() }))
  const longest = Math.max(...sequences.map((sequence) => sequence.length - 1))
  for (let begun = 0; begun < longest; begun += length) {
    const start = Math.min(begun, source - length) // tokens that are computed again have the same values
    const ids = new Int32Array(slots * length)
    const targets = new Int32Array(slots * length)
    sequences.forEach((sequence, slot) => {
      for (let i = 0; i < length && start + i + 1 < sequence.length; i++) {
        ids[slot * length + i] = sequence[start + i]!
        targets[slot * length + i] = sequence[start + i + 1]!
      }
    })
    const { logits, logProbs } = yield* bound.run({ ids, targets, starts: start })
    const rows = logits[0]?.elements as Logits | undefined // real numbers, where a rule is to see them
    for (const [slot, { answer, prompt }] of group.entries()) {
      const score = found[slot]
      for (let t = prompt.length + (score?.logProbs.length ?? 0); t < prompt.length + answer.length; t++) {
        const at = slot * length + t - 1 - start
        if (score === undefined || t - 1 - start >= length) break
        const own = logProbs.elements[at]!
        const row = rows?.subarray(at * vocabSize, (at + 1) * vocabSize)
        const id = answer[t - prompt.length]!
        const ruled = row === undefined || rule === undefined ? own
          : attempt(() => logProbability(distribution(rule, { logits: row }), id))
        if (isRuleError(ruled) || own !== own) {
          const fault = isRuleError(ruled) ? ruled.message
            : "its log-probability is not a number: are the parameters?"
          return yield* new ScoreError({ faults: [`answer ${score.item}, token ${t - prompt.length}: ${fault}`] })
        }
        score.modelLogProbs.push(own)
        score.logProbs.push(ruled)
      }
      if (rows !== undefined) yield* Effect.yieldNow // a rule takes time for many rows: the event loop has its turn
    }
  }
  return found
})

const faultsOf = ({ answer, item, prompt }: Continuation, { source, vocabSize }: Engine): ReadonlyArray<string> => {
  const count = prompt.length + answer.length
  return [
    ...prompt.length > 0 ? [] : [`answer ${item} has an empty prompt: nothing would predict its first token`],
    ...count <= source ? [] : [
      `answer ${item} has ${answer.length} tokens after ${prompt.length}, more than a context of ${source} holds`
    ],
    ...idFaults(`the prompt of answer ${item}`, prompt, vocabSize), ...idFaults(`answer ${item}`, answer, vocabSize)
  ]
}
