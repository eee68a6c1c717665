/**
 * Perplexity: how many tokens a model hesitates between, on average, when it has to name the next one of a text.
 *
 *     loss = −(1/n) Σ log p(tᵢ | tokens before i in its window)
 *     perplexity = e^loss,   bits per byte = n loss / (b ln 2)
 *
 * t tokens · n the targets: every token but the first BOS, which nothing precedes · b UTF-8 bytes of the text
 *
 * A window moves over the text by its stride, and scores the targets that no window before it has scored: the first
 * window all of its targets, every later one its last `stride`, each with at least window − stride tokens before it. A
 * stride as long as the window cuts the text into chunks: fast, but with little context where a chunk begins.
 * Perplexity compares models of one tokenizer, bits per byte those of any.
 *
 * From     Jelinek et al. 1977 for perplexity, the unit of the training curves in Llama 2, figure 5; windows that
 *          overlap as in Baevski & Auli 2019.
 * Checked  test/evaluate/Perplexity.test.ts (each target once for any stride, a stride as long as the window is the
 *          loss of chunks, equal to float64 target by target, every refusal); test/parity/Perplexity.test.ts (Hugging
 *          Face's model, by the strided windows of its guide).
 * Departs  the paper does not say how it cuts texts. The BOS between two documents is a target too, as in training: it
 *          says that a document ends here.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type AnyCell, Backend, type BackendError, type Cells } from "../backend/Backend.ts"
import { type ForeignTokenError, requireVocabulary, type TokenStore } from "../data/TokenStore.ts"
import { frozenParameters } from "../generate/CachedProgram.ts"
import type { Transformer } from "../llama/Transformer.ts"
import * as Visibility from "../llama/Visibility.ts"
import { tokenCrossEntropy } from "../loss/CrossEntropy.ts"
import { maskedMean } from "../loss/Mask.ts"
import * as Program from "../tensor/Program.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import * as Specification from "../tensor/Specification.ts"
import type { Tensor } from "../tensor/Tensor.ts"

/** How well a model foretells a text. */
export interface Score {
  /** Targets that were scored. */
  readonly tokenCount: number
  /** UTF-8 bytes of the text. */
  readonly byteCount: number
  /** The mean of −log p, in nats a token. */
  readonly loss: number
  /** e^loss. */
  readonly perplexity: number
  /** The whole of −log₂ p over the bytes of the text: does not depend on the tokenizer. */
  readonly bitsPerByte: number
}

/** How far a score has come. */
export interface Progress {
  /** Targets scored so far, and their mean loss. */
  readonly tokenCount: number
  readonly loss: number
  /** All targets. */
  readonly total: number
}

/** How a text is cut. */
export interface Cut {
  /** Tokens that a target and all before it may span; at most the model's context. */
  readonly window: number
  /** How far a window is from the next: 1 … window. */
  readonly stride: number
}

/** What scores are made with. */
export interface Options<P> extends Cut {
  readonly model: Transformer<P>
  readonly parameters: Cells<Specification.Specifications<P>>
  /** Windows that run together; no choice changes the score beyond rounding. */
  readonly batchSize: number
  /** Has the program hold the parameters as constants, with the values of now: faster, and codes are slow without. */
  readonly frozen?: boolean
}

/** Windows that cannot be: all that is wrong with them. */
export class WindowError extends Schema.TaggedError<WindowError>()("WindowError", {
  faults: Schema.Array(Schema.String)
}) {
  override get message() {
    return ["perplexity: a text cannot be cut like this", ...this.faults.map((fault) => `  ${fault}`)].join("\n")
  }
}

/** A text without anything to foretell. */
export class NothingToScoreError extends Schema.TaggedError<NothingToScoreError>()("NothingToScoreError", {
  tokenCount: Schema.Int,
  byteCount: Schema.Int
}) {
  override get message() {
    return "perplexity: a text must have bytes, and a token after its first BOS; this one has " +
      `${this.byteCount} bytes and ${this.tokenCount} tokens with its BOS\n  Give a text that is not empty.`
  }
}

/** A loss that is not a finite number. */
export class NonFiniteScoreError extends Schema.TaggedError<NonFiniteScoreError>()("NonFiniteScoreError", {
  /** The windows that ran together: from the first token that they read to the last that they score. */
  from: Schema.Int,
  to: Schema.Int,
  value: Schema.String
}) {
  override get message() {
    return `perplexity: the loss of every token must be finite, and that of tokens ${this.from} to ${this.to} of the ` +
      `text is ${this.value}\n  Usual cause: a training run that diverged, or damaged weights.`
  }
}

/** What can keep a text from being scored. */
export type ScoreError = BackendError | ForeignTokenError | NothingToScoreError | NonFiniteScoreError

/** Scores texts. */
export interface Perplexity {
  /** Scores a text; `onProgress` runs after every batch of windows, between which the fiber yields. */
  readonly score: (
    store: TokenStore, onProgress?: (progress: Progress) => Effect.Effect<void>
  ) => Effect.Effect<Score, ScoreError>
}

/** A window: it reads the tokens from `start` on, and scores the predictions made at the places from … to − 1. */
export interface Span {
  readonly start: number
  readonly from: number
  readonly to: number
}

/** The windows over so many places, in order; the prediction made at each place is scored by exactly one. */
export function* spans(placeCount: number, { stride, window }: Cut): Generator<Span> {
  for (let start = 0, from = 0; from < placeCount; start += stride) {
    const to = Math.min(start + window, placeCount)
    yield { start, from, to }
    from = to
  }
}

/** How many windows there are over so many places: as many as `spans` gives. */
export const spanCount = (placeCount: number, { stride, window }: Cut): number =>
  placeCount < 1 ? 0 : 1 + Math.ceil(Math.max(0, placeCount - window) / stride)

/** −log p of each target: what pretraining minimizes and perplexity measures. */
export const nextTokenLoss = <P>(model: Transformer<P>) =>
  (parameters: P, ids: Tensor<"batch" | "position", "id">, targets: typeof ids): Tensor<"batch" | "position"> =>
    tokenCrossEntropy(model.logits(parameters, model.hidden(parameters, { ids, visibility: Visibility.causal })),
      targets)

/** Fails unless a text can be cut like this for a model of so long a context: all that is wrong. */
export const requireWindows = (
  { batchSize, stride, window }: Cut & Pick<Options<unknown>, "batchSize">, contextLength: number
): Effect.Effect<void, WindowError> => {
  const isCount = (value: number): boolean => Number.isInteger(value) && value >= 1
  const faults = [
    ...isCount(window) && window <= contextLength ? []
      : [`window must be a whole number between 1 and the model's context, ${contextLength}, got ${window}`],
    ...isCount(stride) && (stride <= window || !isCount(window)) ? []
      : [`stride must be a whole number between 1 and the window, ${window}, got ${stride}: a longer one skips tokens`],
    ...isCount(batchSize) ? [] : [`batchSize must be a whole number of at least 1, got ${batchSize}`]
  ]
  return faults.length > 0 ? Effect.fail(new WindowError({ faults })) : Effect.void
}

/**
 * Compiles what scores texts with a model, over the cells of its parameters as they are when a text is scored (frozen:
 * as they are when it is made).
 */
export const make = Effect.fnUntraced(function*<P>(
  { batchSize, frozen = false, model, parameters, stride, window }: Options<P>
): Effect.fn.Return<Perplexity, WindowError | BackendError | ShapeError, Backend | Scope.Scope> {
  yield* requireWindows({ batchSize, stride, window }, model.config.contextLength)
  const backend = yield* Backend
  const sizes = { batch: batchSize, position: window }
  const lossOf = nextTokenLoss(model)
  const program = yield* Program.makeGeneric("perplexity", {
    inputs: { ids: Specification.ids(sizes), targets: Specification.ids(sizes), mask: Specification.real(sizes),
      one: Specification.real({}) },
    state: { parameters: model.specification }
  }, ({ ids, mask, one, targets }, state) => {
    const parameters = state.parameters as P // the same tree, which the compiler cannot see for a P unknown
    return { outputs: { total: maskedMean(lossOf(parameters, ids, targets), mask, one) } }
  })
  const constants = frozen ? frozenParameters(parameters) : new Map<string, AnyCell>()
  const bound = yield* Effect.flatMap(
    backend.compile(program, { constants }), (executable) => executable.bind({ parameters }))

  const score: Perplexity["score"] = Effect.fnUntraced(function*(store, onProgress) {
    yield* requireVocabulary(store, model.config.vocabSize)
    const { bytes, tokens } = store
    const placeCount = tokens.length - 1
    if (placeCount < 1 || bytes === 0) {
      return yield* new NothingToScoreError({ tokenCount: tokens.length, byteCount: bytes })
    }
    let [nats, scored] = [0, 0]
    for (const batch of batches(spans(placeCount, { stride, window }), batchSize)) {
      const total = (yield* bound.run({ ...rows(tokens, batch, sizes), one: 1 })).total.elements[0] ?? NaN
      const [first, last] = [batch[0]?.start ?? 0, batch.at(-1)?.to ?? placeCount]
      if (!Number.isFinite(total)) {
        return yield* new NonFiniteScoreError({ from: first, to: last, value: String(total) })
      }
      nats += total
      scored = last
      if (onProgress !== undefined) yield* onProgress({ tokenCount: scored, loss: nats / scored, total: placeCount })
      yield* Effect.yieldNow // a run that computes at once lets an interruption in
    }
    const loss = nats / scored
    const bitsPerByte = nats / Math.LN2 / bytes
    return { tokenCount: scored, byteCount: bytes, loss, perplexity: Math.exp(loss), bitsPerByte }
  })
  return { score }
})

function* batches<A>(items: Iterable<A>, size: number): Generator<ReadonlyArray<A>> {
  let batch: Array<A> = []
  for (const item of items) {
    batch.push(item)
    if (batch.length === size) {
      yield batch
      batch = []
    }
  }
  if (batch.length > 0) yield batch
}

/** The inputs of some windows: tokens, their successors, and 1 where a successor is scored; the rest is padding. */
const rows = (
  tokens: TokenStore["tokens"], batch: ReadonlyArray<Span>, sizes: { readonly batch: number; readonly position: number }
) => {
  const size = sizes.batch * sizes.position
  const [ids, targets, mask] = [new Int32Array(size), new Int32Array(size), new Float32Array(size)]
  batch.forEach(({ from, start, to }, row) => {
    const offset = row * sizes.position
    ids.set(tokens.subarray(start, to), offset)
    targets.set(tokens.subarray(start + 1, to + 1), offset)
    mask.fill(1, offset + from - start, offset + to - start)
  })
  return { ids, targets, mask }
}
