/**
 * What a run would take, before it is run: parameters, memory, tokens, and time at the machine's own matmul rate.
 *
 *     seconds = steps · batch · length · FLOPs of a token / (matmul rate · share)
 *
 *     bytes inside a step = overhead · tokens of a micro-batch · values that their gradient needs · bytes of a number
 *
 * share the part of the matmul rate that training reaches, assumed 0.5 · overhead what the engine holds besides:
 * measured 1.2 (24M, vocabulary 8 000) to 1.5 (1M), taken as 1.4
 *
 * Checked  test/cli/Estimate.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Backend } from "../backend/Backend.ts"
import { matmulRate } from "../backend/MatmulRate.ts"
import * as Corpus from "../data/Corpus.ts"
import * as Llama from "../llama/Config.ts"
import type * as Pretrain from "../recipe/Pretrain.ts"
import { named } from "./Host.ts"
import * as Screen from "./Screen.ts"
import type { Complete } from "./Settings.ts"

/** The share of the matmul rate that a training step is assumed to reach. */
const assumedShare = 0.5

/** The bytes of text that a token is assumed to stand for. */
const assumedBytesPerToken = 3

const overhead = 1.4

/** A run that this machine's memory cannot hold. */
export class MemoryError extends Schema.TaggedError<MemoryError>()("MemoryError", {
  stateBytes: Schema.Number,
  activationBytes: Schema.Number,
  memoryBytes: Schema.Number
}) {
  override get message() {
    const size = (bytes: number): string => Screen.quantity(bytes, "B")
    const remedy = this.stateBytes > this.memoryBytes
      ? "Take a smaller preset or smaller sizes, or a machine with more memory."
      : "Cut the batch into more parts (--micro-batches), take fewer or shorter sequences, or a smaller model."
    return `this run needs about ${size(this.stateBytes + this.activationBytes)} of memory, and there are ` +
      `${size(this.memoryBytes)}\n  ${size(this.stateBytes)} of parameters, gradients and moments, and about ` +
      `${size(this.activationBytes)} inside a step\n  ${remedy}`
  }
}

/** What a run takes. */
export interface Estimate {
  readonly parameterCount: number
  /** Bytes of parameters, gradients and moments. */
  readonly stateBytes: number
  /** Bytes of the values inside a step that its gradient needs again. */
  readonly activationBytes: number
  readonly tokenCount: number
  readonly flops: number
}

/** The numbers of a run whose real numbers take so many bytes. */
export const estimate = (config: Pretrain.Config, bytesPerNumber: number): Estimate => {
  const { batchSize, microBatchCount, model, sequenceLength, stepCount } = config
  const { gradients, moments, parameters } = Llama.trainingBytes(model, bytesPerNumber)
  const { embedSize, headCount, headSize, hiddenSize, kvHeadCount, layerCount, vocabSize } = model
  // of each token: residuals, normalized copies, queries, keys, values, mixed values; gates; scores; logits twice
  const attention = headSize * 2 * (headCount + kvHeadCount) + headCount * sequenceLength
  const perToken = layerCount * (4 * embedSize + attention + 4 * hiddenSize) + 2 * vocabSize + embedSize
  const tokenCount = stepCount * batchSize * sequenceLength
  return {
    parameterCount: Llama.parameterCount(model),
    stateBytes: parameters + gradients + moments,
    activationBytes: overhead * bytesPerNumber * perToken * sequenceLength * batchSize / microBatchCount,
    tokenCount,
    flops: Llama.flopsPerToken(model, sequenceLength) * tokenCount
  }
}

const bytesPerNumber = (settings: Complete["settings"]): number => settings.backend === "reference" ? 8 : 4

/** Fails if a run cannot fit into the memory of this machine. */
export const requireMemory = (
  { config, settings }: Complete, memoryBytes: number
): Effect.Effect<void, MemoryError> => {
  const { activationBytes, stateBytes } = estimate(config, bytesPerNumber(settings))
  return stateBytes + activationBytes <= memoryBytes ? Effect.void
    : Effect.fail(new MemoryError({ stateBytes, activationBytes, memoryBytes }))
}

/** Prints the estimate of a run; `trainTokens` are those of its text, where that was read. Writes nothing. */
export const show = Effect.fnUntraced(function*(
  screen: Screen.Screen, { config, settings }: Complete, trainTokens?: number
) {
  const backend = yield* Backend
  const corpus = yield* Corpus.Corpus
  const isFast = settings.backend !== "reference"
  const rate = yield* matmulRate(isFast ? { size: 1024, seconds: 1 } : { size: 64, seconds: 0.1 })
  const { activationBytes, flops, parameterCount, stateBytes, tokenCount } = estimate(config, bytesPerNumber(settings))
  const epochs = trainTokens !== undefined ? `, about ${(tokenCount / trainTokens).toFixed(1)} times the text`
    : corpus.bytes === undefined ? "" : `, about ${
      (tokenCount * assumedBytesPerToken / (corpus.bytes * (1 - settings.validationShare))).toFixed(1)
    } times the text at ${assumedBytesPerToken} bytes a token`
  yield* Effect.forEach([
    `text        ${corpus.name}${corpus.bytes === undefined ? "" : `, ${Screen.quantity(corpus.bytes, "B")}`}`,
    `parameters  ${Screen.quantity(parameterCount)} (${parameterCount})`,
    `memory      ${Screen.quantity(stateBytes, "B")} of parameters, gradients and moments, and about ` +
      `${Screen.quantity(activationBytes, "B")} inside a step`,
    `tokens      ${Screen.quantity(tokenCount)} in ${config.stepCount} steps${epochs}`,
    `time        about ${Screen.duration(flops / (rate * assumedShare))}: ${Screen.quantity(flops, "FLOP")}, ` +
      `assuming ${assumedShare * 100} % of the ${Screen.quantity(rate, "FLOP/s")} that ${named(backend)} reached in ` +
      "matrix products",
    "Nothing was run, and nothing was written."
  ], screen.print, { discard: true })
})
