/**
 * A model learns one batch by heart: model, loss, gradient, clipping, AdamW and schedule work together.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as Config from "../../src/llama/Config.ts"
import * as Initialization from "../../src/llama/Initialization.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { causal } from "../../src/llama/Visibility.ts"
import { tokenCrossEntropy } from "../../src/loss/CrossEntropy.ts"
import { adamW } from "../../src/optimize/AdamW.ts"
import { clipByGlobalNorm, globalNorm } from "../../src/optimize/Clip.ts"
import { chain } from "../../src/optimize/Optimizer.ts"
import * as Schedule from "../../src/optimize/Schedule.ts"
import * as Key from "../../src/random/Key.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"

const config = Config.make({
  vocabSize: 13, embedSize: 16, layerCount: 2, headCount: 4, kvHeadCount: 2, hiddenSize: 24, contextLength: 8
})
const tokens = { batch: 2, position: 8 }
const totalSteps = 60

const drawn = (name: string): Int32Array =>
  Int32Array.from({ length: 16 }, (_, i) => Key.below(Key.make(name), i, config.vocabSize))

describe("overfitting one batch", () => {
  it.effect("goes from log V to almost nothing", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const model = Transformer.llama(config)
      const optimizer = chain(clipByGlobalNorm(1), adamW())
      const specification = { parameters: model.specification, memory: optimizer.memory(model.specification) }
      const inputs = {
        ids: Specification.ids(tokens), targets: Specification.ids(tokens),
        learningRate: Specification.real({}), count: Specification.real({})
      }
      const program = yield* Program.make("step", { inputs, state: specification }, (given, { memory, parameters }) => {
        const logits = model.logits(parameters, model.hidden(parameters, { ids: given.ids, visibility: causal }))
        const loss = T.mean(tokenCrossEntropy(logits, given.targets), ["batch", "position"])
        const gradients = T.gradient(loss, parameters)
        const step = { learningRate: given.learningRate, count: given.count, gradientNorm: globalNorm(gradients) }
        return { outputs: { loss }, state: optimizer.update({ gradients, memory, parameters, step }) }
      })
      const cells = yield* backend.allocate(specification, {
        initial: Initialization.draws(Key.make("overfit"), specification)
      })
      const bound = yield* (yield* backend.compile(program)).bind(cells)
      const schedule = Schedule.warmupCosine({ peak: 0.03, warmupSteps: 5, totalSteps })
      const losses: Array<number> = []
      for (let count = 1; count <= totalSteps; count++) {
        const { loss } = yield* bound.run({
          ids: drawn("ids"), targets: drawn("targets"), learningRate: schedule(count), count
        })
        losses.push(loss.elements[0]!)
      }
      assert.closeTo(losses[0]!, Math.log(13), 0.02)
      assert.isBelow(losses.at(-1)!, 0.02)
    }).pipe(Effect.provide(Reference.layer)))
})
