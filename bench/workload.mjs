// @ts-check
/** What is measured and soaked: the training step of a Llama, its decoding, and how times are summed up. */
import {
  AdamW, Clip, Config, CrossEntropy, Decoder, Initialization, Key, Mask, Optimizer, Sampling, Specification, TrainStep,
  Transformer, Visibility
} from "cria"
import { Effect, Stream } from "effect"

/** @param {ReadonlyArray<number>} values */
export const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN

/**
 * A small Llama over bytes.
 *
 * @param {{ readonly embedSize: number, readonly layerCount: number }} sizes
 */
export const configOf = (sizes) =>
  Config.make({ vocabSize: 259, headCount: 4, multipleOf: 32, contextLength: 128, ...sizes })

/**
 * A training step on `rows` sequences of `length` random tokens, as an effect that takes one.
 *
 * @param {Config.Config} config
 * @param {number} rows
 * @param {number} length
 */
export const trainingStep = Effect.fnUntraced(function*(config, rows, length) {
  const model = Transformer.llama(config)
  const tokens = { batch: rows, position: length }
  const train = yield* TrainStep.make({
    name: "step",
    inputs: {
      ids: Specification.ids(tokens), targets: Specification.ids(tokens), mask: Specification.real(tokens),
      tokenCount: Specification.real({})
    },
    parameters: model.specification,
    optimizer: Optimizer.chain(Clip.clipByGlobalNorm(1), AdamW.adamW()),
    loss: (parameters, { ids, mask, targets, tokenCount }) => {
      const logits = model.logits(parameters, model.hidden(parameters, { ids, visibility: Visibility.causal }))
      return { loss: Mask.maskedMean(CrossEntropy.tokenCrossEntropy(logits, targets), mask, tokenCount), outputs: {} }
    },
    initial: Initialization.draws(Key.make(0), model.specification)
  })
  const draw = (/** @type {string} */ name) =>
    Int32Array.from({ length: rows * length }, (_, i) => Key.below(Key.derive(Key.make(0), name), i, config.vocabSize))
  const microBatches = [{
    ids: draw("ids"), targets: draw("targets"), mask: new Float32Array(rows * length).fill(1), tokenCount: rows * length
  }]
  let step = 0
  const take = Effect.suspend(() =>
    train.run({ step: ++step, learningRate: 1e-3, microBatches, describe: () => "random tokens" }))
  return { model, take, parameters: train.parameters }
})

/**
 * So many tokens written greedily after one; gives how many came.
 *
 * @param {Transformer.Transformer<any>} model
 * @param {any} parameters
 * @param {number} count
 */
export const decoding = Effect.fnUntraced(function*(model, parameters, count) {
  const decoder = yield* Decoder.make({ model, parameters, frozen: true, blockLengths: [1] })
  return Effect.map(
    Stream.runCollect(decoder.generate({
      prompts: [Int32Array.of(1)], maximumTokens: count, rule: Sampling.greedy, key: Key.make(0)
    })),
    (events) => events.filter(({ _tag }) => _tag === "Token").length
  )
})
