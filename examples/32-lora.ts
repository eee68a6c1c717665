/**
 * LoRA: a parameter is an expression. The trained weights stay; a correction of low rank beside some is learned.
 */
import {
  AdamW, Config, CrossEntropy, Initialization, Key, Specification, Tensor as T, TrainStep, Transformer, Visibility
} from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect } from "effect"

const model = Transformer.llama(Config.make({ vocabSize: 32, embedSize: 64, layerCount: 2, headCount: 4 }))
const tokens = Specification.ids({ batch: 16, position: 16 })

const loss = (parameters: Transformer.LlamaParameters, ids: Transformer.Input["ids"], targets: typeof ids) => {
  const logits = model.logits(parameters, model.hidden(parameters, { ids, visibility: Visibility.causal }))
  return T.mean(CrossEntropy.tokenCrossEntropy(logits, targets), ["batch", "position"])
}

/** Counting by some number, around a circle of 32, from anywhere. */
const counting = (by: number, step: number) => {
  const start = (row: number) => Key.below(Key.derive(Key.make("counting"), step), row, 32)
  const ids = Int32Array.from({ length: 256 }, (_, i) => (start(Math.floor(i / 16)) + by * (i % 16)) % 32)
  return { ids, targets: ids.map((id) => (id + by) % 32) }
}

/** For each block the two factors of a correction; it begins at zero, because `up` does. */
const factors = model.specification.block.map(({ feedForward: { down: { sizes } } }) => ({
  down: Specification.real({ hidden: sizes.hidden, rank: 4 }, { _tag: "Normal", deviation: 0.05 }),
  up: Specification.real({ rank: 4, embed: sizes.embed })
}))

/** The same tree of parameters, in which one leaf of each block is a sum. */
const corrected = (base: Transformer.LlamaParameters, low: Specification.Tensors<typeof factors>) => ({
  ...base,
  block: base.block.map(({ feedForward, ...rest }, i) => {
    const down = T.add(feedForward.down, T.contract(low[i]!.down, low[i]!.up, "rank"))
    return { ...rest, feedForward: { ...feedForward, down } }
  })
})

const main = Effect.gen(function*() {
  const { parameters, run } = yield* TrainStep.make({
    name: "base", inputs: { ids: tokens, targets: tokens }, parameters: model.specification, optimizer: AdamW.adamW(),
    loss: (base, { ids, targets }) => ({ loss: loss(base, ids, targets), outputs: {} }),
    initial: Initialization.draws(Key.make(1), model.specification)
  })
  for (let step = 1; step <= 60; step++) {
    const report = yield* run({ step, learningRate: 0.003, microBatches: [counting(3, step)] })
    if (step === 60) console.log(`by three, all weights: loss ${report.loss.toFixed(2)}`)
  }

  // The same step again: the weights are frozen cells now, and only the factors are trained.
  const low = yield* TrainStep.make({
    name: "adapt", inputs: { ids: tokens, targets: tokens }, parameters: factors,
    frozen: { specification: model.specification, cells: parameters }, optimizer: AdamW.adamW({ weightDecay: 0 }),
    loss: (low, { ids, targets }, base) => ({ loss: loss(corrected(base, low), ids, targets), outputs: {} }),
    initial: Initialization.draws(Key.make(2), factors)
  })
  for (let step = 1; step <= 200; step++) {
    const report = yield* low.run({ step, learningRate: 0.01, microBatches: [counting(5, step)] })
    if (step % 199 === 1) console.log(`by five, corrections: loss ${report.loss.toFixed(2)}`)
  }
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))

/* Prints:
by three, all weights: loss 0.0…
by five, corrections: loss 8.…
by five, corrections: loss 0.…
*/
