/**
 * State is a value of its own: two programs share the cells of a running mean, and a copy of them goes another way.
 */
import { Backend, Program, Specification, Tensor as T } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect } from "effect"

/** What Welford's method remembers of a stream of numbers: how many, their mean, the sum of squares around it. */
const state = { count: Specification.real({}), mean: Specification.real({}), around: Specification.real({}) }

const main = Effect.gen(function*() {
  const backend = yield* Backend.Backend

  // Reads all three cells and replaces them: what it returns under `state` is what they hold after the run.
  const observe = yield* Program.make("observe", { inputs: { x: Specification.real({}) }, state }, ({ x }, before) => {
    const count = T.add(before.count, 1)
    const mean = T.add(before.mean, T.divide(T.subtract(x, before.mean), count))
    const product = T.multiply(T.subtract(x, before.mean), T.subtract(x, mean))
    return { outputs: {}, state: { count, mean, around: T.add(before.around, product) } }
  })

  // Reads them and replaces none.
  const describe = yield* Program.make("describe", { inputs: {}, state }, (_, { around, count, mean }) =>
    ({ outputs: { mean, deviation: T.sqrt(T.divide(around, count)) } }))

  const writer = yield* backend.compile(observe)
  const reader = yield* backend.compile(describe)
  console.log("replaced where they lie:", writer.placement.inPlace.join(", ") || "none")
  console.log("copied, for their old value is still read:", writer.placement.copied.join(", ") || "none")

  // Any number of programs bind the same cells; one program binds any number of cells.
  const cells = yield* backend.allocate(state)
  const show = Effect.fnUntraced(function*(name: string, of: typeof cells) {
    const { deviation, mean } = yield* Effect.flatMap(reader.bind(of), (bound) => bound.run({}))
    console.log(name.padEnd(6), "mean", mean.elements[0]?.toFixed(3), "deviation", deviation.elements[0]?.toFixed(3))
  })

  const take = yield* writer.bind(cells)
  for (const x of [2, 4, 4, 4, 5, 5, 7, 9]) yield* take.run({ x })
  yield* show("cells", cells)

  const copy = yield* backend.allocate(state)
  yield* backend.copy(cells, copy)
  const takeCopy = yield* writer.bind(copy)
  for (const x of [100, 100]) yield* takeCopy.run({ x })
  yield* show("copy", copy)
  yield* show("cells", cells)

  // Cells are read and written from outside as well: a tree of them, or one.
  yield* backend.write(copy.count, Float32Array.of(0))
  const { count } = yield* backend.read(copy)
  console.log("the copy has seen", count.elements[0], "numbers, it now believes")
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))

/* Prints:
replaced where they lie: count, around
copied, for their old value is still read: mean
cells  mean 5.000 deviation 2.000
copy   mean 24.000 deviation 38.042
cells  mean 5.000 deviation 2.000
the copy has seen 0 numbers, it now believes
*/
