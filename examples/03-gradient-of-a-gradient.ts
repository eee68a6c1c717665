/**
 * A gradient is a tensor expression like any other: it can be printed, run and differentiated again.
 */
import { Backend, Print, Program, Specification, Tensor as T } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect } from "effect"

type Points = T.Tensor<"point">

/** f(x) = eˣ − 3x, which is least at x = log 3. */
const f = (x: Points): Points => T.subtract(T.exp(x), T.multiply(x, 3))

/** The derivative at every point at once: the points do not touch one another, so the gradient of the sum is f′. */
const derivative = (g: (x: Points) => Points) => (x: Points): Points => T.gradient(T.sum(g(x), "point"), { x }).x

const first = derivative(f)
const second = derivative(first)

console.log(Print.expressions([second(T.values({ point: 3 }, [0, 1, 2]))]), "\n")

const main = Effect.gen(function*() {
  const backend = yield* Backend.Backend
  const state = { x: Specification.real({ point: 3 }) }

  // Newton's method goes from x to x − f′(x) / f″(x).
  const newton = yield* Program.make("newton", { inputs: {}, state }, (_, { x }) => ({
    outputs: { x, slope: first(x) },
    state: { x: T.subtract(x, T.divide(first(x), second(x))) }
  }))
  const cells = yield* backend.allocate(state)
  yield* backend.write(cells.x, Float32Array.of(0.5, 1, 2))
  const step = yield* Effect.flatMap(backend.compile(newton), (executable) => executable.bind(cells))
  for (let i = 0; i < 5; i++) {
    const { slope, x } = yield* step.run({})
    const row = (elements: Iterable<number>) => [...elements].map((value) => value.toFixed(4).padStart(8)).join("")
    console.log(`x ${row(x.elements)}   f′ ${row(slope.elements)}`)
  }
  console.log(`log 3 is ${Math.log(3).toFixed(4)}`)
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))

/* Prints:
  %1 = spread(1; along point)  real [point: 3]
  %2 = spread(1; along point)  real [point: 3]
  %3 = multiply(%1, %2)        real [point: 3]
  %4 = constant(3 elements)    real [point: 3]
  %5 = exp(%4)                 real [point: 3]
  %6 = multiply(%3, %5)        real [point: 3]

x   0.5000  1.0000  2.0000   f′  -1.3513 -0.2817  4.3891
x   1.3196  1.1036  1.4060   f′   0.7419  0.0151  1.0796
x   1.1213  1.0986  1.1414   f′   0.0689  0.0000  0.1310
x   1.0989  1.0986  1.0995   f′   0.0008 …  0.0027
x   1.0986  1.0986  1.0986   f′ …
log 3 is 1.0986
*/
