// @ts-check
/**
 * Building programs: write down, differentiate and lower the training step of a 32-layer Llama; a hit in the compile
 * cache.
 */
import { Backend, Config, CrossEntropy, Program, Specification, Tensor as T, Transformer, Visibility } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect } from "effect"

const program = (/** @type {Config.Config} */ config) => {
  const model = Transformer.llama(config)
  const tokens = { batch: 1, position: 64 }
  return Program.make(
    "gradient",
    { inputs: { ids: Specification.ids(tokens), targets: Specification.ids(tokens) },
      state: { parameters: model.specification, gradients: Specification.zeros(model.specification) } },
    ({ ids, targets }, { parameters }) => {
      const logits = model.logits(parameters, model.hidden(parameters, { ids, visibility: Visibility.causal }))
      const loss = T.mean(CrossEntropy.tokenCrossEntropy(logits, targets), ["batch", "position"])
      return { outputs: { loss }, state: { gradients: T.gradient(loss, parameters) } }
    }
  )
}

const main = Effect.gen(function*() {
  for (let round = 0; round < 3; round++) {
    const began = performance.now()
    const large = yield* program(Config.presets["7B"])
    const built = performance.now()
    const lowered = Program.lower(large, { hasKernel: (composite) => composite.layout !== undefined, watch: [] })
    const done = performance.now()
    console.log(`32 layers: written and differentiated in ${(built - began).toFixed(0)} ms, lowered in ${(
      done - built).toFixed(0)} ms, ${lowered.instructions.length} instructions`)
  }
  const backend = yield* Backend.Backend
  const small = yield* program(Config.presets["1M"])
  const began = performance.now()
  yield* backend.compile(small)
  const compiled = performance.now()
  yield* backend.compile(small)
  console.log(`1 M parameters: compiled in ${(compiled - began).toFixed(0)} ms, found again in ${(
    performance.now() - compiled).toFixed(3)} ms`)
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))
