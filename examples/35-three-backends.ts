/**
 * One training script on three backends: only the line that provides the layer differs, and the losses agree.
 */
import {
  AdamW, Backend, Config, CrossEntropy, Initialization, Key, Program, Reference, Specification, Tensor as T,
  Transformer, Visibility
} from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import * as TensorFlow from "cria/backend/tensorflow"
import { Effect } from "effect"

const config = Config.make({ vocabSize: 13, embedSize: 16, layerCount: 1, headCount: 2, contextLength: 8 })
const tokens = { batch: 2, position: 8 }
const drawn = (name: string): Int32Array =>
  Int32Array.from({ length: 16 }, (_, i) => Key.below(Key.make(name), i, config.vocabSize))

/** Learns one batch by heart; asks for a backend, whichever it is. */
const train = Effect.gen(function*() {
  const backend = yield* Backend.Backend
  const model = Transformer.llama(config)
  const optimizer = AdamW.adamW()
  const state = { parameters: model.specification, memory: optimizer.memory(model.specification) }
  const inputs = { ids: Specification.ids(tokens), targets: Specification.ids(tokens), count: Specification.real({}) }
  const program = yield* Program.make("step", { inputs, state }, ({ count, ids, targets }, { memory, parameters }) => {
    const logits = model.logits(parameters, model.hidden(parameters, { ids, visibility: Visibility.causal }))
    const loss = T.mean(CrossEntropy.tokenCrossEntropy(logits, targets), ["batch", "position"])
    const gradients = T.gradient(loss, parameters)
    const step = { learningRate: T.constant(0.03), count, gradientNorm: T.constant(1) }
    return { outputs: { loss }, state: optimizer.update({ gradients, memory, parameters, step }) }
  })
  const cells = yield* backend.allocate(state, { initial: Initialization.draws(Key.make("three"), state) })
  const bound = yield* Effect.flatMap(backend.compile(program), (executable) => executable.bind(cells))
  const losses: Array<string> = []
  for (let count = 1; count <= 20; count++) {
    const { loss } = yield* bound.run({ ids: drawn("ids"), targets: drawn("targets"), count })
    if (count % 5 === 0) losses.push(loss.elements[0]?.toFixed(3) ?? "")
  }
  return `${backend.name.padEnd(15)} ${losses.join(" ")}`
}).pipe(Effect.scoped)

console.log(await Effect.runPromise(train.pipe(Effect.provide(Reference.layer))))
console.log(await Effect.runPromise(train.pipe(Effect.provide(OnnxRuntime.layer()))))
console.log(await Effect.runPromise(train.pipe(Effect.provide(TensorFlow.layerWasm()))))

/* Prints:
reference       1.255 0.386 0.088 0.013
onnxruntime     1.255 0.386 0.088 0.013
tensorflow-wasm 1.255 0.386 0.088 0.013
*/
