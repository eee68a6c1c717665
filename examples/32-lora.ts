/**
 * LoRA: a parameter is an expression. The trained weights stay; a correction of low rank beside some is learned.
 */
import {
  AdamW, Backend, Clip, Config, CrossEntropy, Initialization, Key, Program, Specification, Tensor as T, TrainStep,
  Transformer, Visibility
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
    const report = yield* run({ step, learningRate: 0.003, microBatches: [counting(3, step)], describe: String })
    if (step === 60) console.log(`by three, all weights: loss ${report.loss.toFixed(2)}`)
  }

  // One program for the whole step: it reads the weights and replaces the factors and their moments.
  const [optimizer, number] = [AdamW.adamW({ weightDecay: 0 }), Specification.real({})]
  const adapt = yield* Program.make("adapt", {
    inputs: { ids: tokens, targets: tokens, learningRate: number, count: number },
    state: { base: model.specification, low: factors, memory: optimizer.memory(factors) }
  }, ({ ids, targets, ...step }, { base, low, memory }) => {
    const found = loss(corrected(base, low), ids, targets)
    const gradients = T.gradient(found, low)
    const gradientNorm = Clip.globalNorm(gradients)
    const after = optimizer.update({ gradients, memory, parameters: low, step: { ...step, gradientNorm } })
    return { outputs: { loss: found }, state: { low: after.parameters, memory: after.memory } }
  })
  const backend = yield* Backend.Backend
  const low = yield* backend.allocate(factors, { initial: Initialization.draws(Key.make(2), factors) })
  const memory = yield* backend.allocate(adapt.state.memory)
  const learn = yield* (yield* backend.compile(adapt)).bind({ base: parameters, low, memory })
  for (let count = 1; count <= 200; count++) {
    const { loss } = yield* learn.run({ ...counting(5, count), learningRate: 0.01, count })
    if (count % 199 === 1) console.log(`by five, corrections: loss ${loss.elements[0]?.toFixed(2)}`)
  }
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))

/* Prints:
by three, all weights: loss 0.0…
by five, corrections: loss 8.…
by five, corrections: loss 0.…
*/
