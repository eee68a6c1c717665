/**
 * The laws of `cria/testing` on a function of one's own: they hold for the right one, and shrink the wrong one.
 */
import { Backend, Tensor as T } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Arbitrary, BackendLaw, type Computation, LawError, TensorLaw } from "cria/testing"
import { Effect } from "effect"
import * as fc from "fast-check"

type Rows = T.Tensor<string>

/** log Σ eˣ along `embed`, weighted, without overflow. */
const right = (x: Rows, weight: Rows): Rows => {
  const top = T.stopGradient(T.max(x, "embed"))
  return T.add(T.log(T.contract(T.exp(T.subtract(x, top)), T.square(weight), "embed")), top)
}

/** The same, but that the gradient does not flow through the weights. */
const wrong = (x: Rows, weight: Rows): Rows => right(x, T.stopGradient(weight))

/** The function on drawn numbers: the axes of `x` in any order, with any sizes. */
const drawn = (f: typeof right): fc.Arbitrary<Computation.Computation> =>
  Arbitrary.sizes(["batch", "position", "embed"]).chain((sizes) =>
    fc.tuple(Arbitrary.real("x", sizes), Arbitrary.real("weight", { embed: sizes.embed })).map((given) => ({
      given,
      build: ({ weight, x }) => x === undefined || weight === undefined ? [] : [f(x, weight)]
    }))
  )

const laws: Readonly<Record<string, (computation: Computation.Computation) => void>> = {
  "its gradient is that of finite differences": (it) => TensorLaw.hasFiniteDifferenceGradient(it, 1e-6),
  "each row is computed by itself": (it) => TensorLaw.liftsOver("batch", it, 1e-12),
  "no order of axes means anything": (it) => TensorLaw.ignoresAxisOrder(it, ({ sizes }) =>
    Object.fromEntries(Object.entries(sizes).reverse()), 1e-12)
}

for (const [law, holds] of Object.entries(laws)) {
  fc.assert(fc.property(drawn(right), holds), { seed: 1, numRuns: 50 })
  console.log(`right: ${law}`)
}

for (const [law, holds] of Object.entries(laws)) {
  const { counterexample, errorInstance } = fc.check(fc.property(drawn(wrong), holds), { seed: 1, numRuns: 50 })
  if (counterexample === null) continue
  console.log(`wrong: not ${law}; the smallest counterexample has`)
  for (const { name, sizes } of counterexample[0].given) console.log(`  ${name} ${JSON.stringify(sizes)}`)
  console.log(errorInstance instanceof LawError.LawError ? `  ${errorInstance.detail}` : errorInstance)
}

// Backends have a law too: what they compute is what the float64 reference does.
const main = Effect.gen(function*() {
  const backend = yield* Backend.Backend
  const agrees = (computation: Computation.Computation) =>
    BackendLaw.agreesWithReference(backend, computation, { precision: "f32", tolerance: 1e-5 })
  yield* BackendLaw.forAll(drawn(right), agrees, { seed: 1, numRuns: 30 })
  console.log(`${backend.name} agrees with the reference`)
})

await Effect.runPromise(main.pipe(Effect.provide(OnnxRuntime.layer())))

/* Prints:
right: its gradient is that of finite differences
right: each row is computed by itself
right: no order of axes means anything
wrong: not its gradient is that of finite differences; the smallest counterexample has
  x {"…":1,"…":1,"…":1}
  weight {"embed":1}
  moving elements 0 of weight, the gradient gives a slope of 0, differences give …
onnxruntime agrees with the reference
*/
