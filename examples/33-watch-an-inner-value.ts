/**
 * Watch an inner value: give it a name, ask for it when a program is compiled, and find where a NaN begins.
 */
import { Backend, Program, Specification, Tensor as T } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect } from "effect"

/** The entropy of weights that are normalized along `choice`; wrong where a weight is zero. */
const entropy = (weights: T.Tensor<"row" | "choice">): T.Tensor<"row"> => T.within("entropy", () => {
  const share = T.divide(weights, T.sum(weights, "choice")).pipe(T.label("share"))
  const surprise = T.negate(T.log(share)).pipe(T.label("surprise"))
  return T.sum(T.multiply(share, surprise), "choice").pipe(T.label("result"))
})

const main = Effect.gen(function*() {
  const backend = yield* Backend.Backend
  const inputs = { weights: Specification.real({ row: 3, choice: 2 }) }
  const program = yield* Program.make("entropies", { inputs, state: {} }, ({ weights }) =>
    ({ outputs: { mean: T.mean(entropy(weights), "row") } }))
  const weights = Float32Array.of(1, 1, 3, 1, 1, 0)

  // Compiled as it is, a label costs nothing, and all one sees is that something went wrong.
  const plain = yield* Effect.flatMap(backend.compile(program), (executable) => executable.bind({}))
  const { mean } = yield* plain.run({ weights })
  console.log("mean", mean.elements[0])

  // Compiled to watch, the same program also returns what it passes through.
  const labels = Program.labels(program)
  const watching = yield* backend.compile(program, { watch: labels })
  const { watched } = yield* Effect.flatMap(watching.bind({}), (bound) => bound.watch({ weights }))
  for (const label of labels) {
    const { elements, sizes } = watched[label]!
    const place = elements.findIndex((value) => !Number.isFinite(value))
    console.log(label.padEnd(17), [...elements].map((value) => value.toFixed(2)).join(" "),
      place < 0 ? "" : ` <- element ${place} of ${JSON.stringify(sizes)}`)
  }

  // `TrainStep` does the same by itself: a step whose loss or gradient is not finite changes no parameter, and fails
  // with the name of the first labelled value that went wrong.

  // A label that is not there is an error that names those that are.
  const error = yield* Effect.flip(backend.compile(program, { watch: ["entropy.shares"] }))
  console.log(error.message)
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))

/* Prints:
mean NaN
entropy.share     0.50 0.50 0.75 0.25 1.00 0.00
entropy.surprise  0.69 0.69 0.29 1.39 0.00 Infinity  <- element 5 of {"row":3,"choice":2}
entropy.result    0.69 0.56 NaN  <- element 2 of {"row":3}
onnxruntime, compile entropies: there is no label "entropy.shares" to watch
  Its labels are "entropy.share", "entropy.surprise", "entropy.result".
*/
