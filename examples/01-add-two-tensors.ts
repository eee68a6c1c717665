/**
 * Add two tensors: write the sum down, look at it, run it.
 */
import { Backend, Print, Program, Specification, Tensor as T } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect } from "effect"

const main = Effect.gen(function*() {
  // A program is a tree of inputs to a tree of outputs. Axes have names, and `y` is spread over the rows by name.
  const inputs = { x: Specification.real({ row: 2, column: 3 }), y: Specification.real({ column: 3 }) }
  const addition = yield* Program.make("addition", { inputs, state: {} }, ({ x, y }) => {
    const sum = T.add(x, y)
    return { outputs: { sum, total: T.sum(sum, ["row", "column"]) } }
  })

  // Nothing has been computed so far: a program is a value, which can be read.
  console.log(Print.program(addition))

  // A backend compiles it once, binds it once to the state that it has (here none), and runs it often.
  const backend = yield* Backend.Backend
  const executable = yield* backend.compile(addition)
  const add = yield* executable.bind({})
  const { sum, total } = yield* add.run({ x: Float32Array.of(1, 2, 3, 4, 5, 6), y: Float32Array.of(10, 20, 30) })
  console.log(sum.sizes, [...sum.elements])
  console.log(total.sizes, [...total.elements])

  // Where a run takes elements, it also takes one number for all of them.
  const again = yield* add.run({ x: 0, y: Float32Array.of(1, 2, 3) })
  console.log([...again.sum.elements])
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))

/* Prints:
program addition
  input x                         real [row: 2, column: 3]
  input y                         real [column: 3]
  %1 = add(x, y)                  real [row: 2, column: 3]
  %2 = sum(%1; over row, column)  real []
  output sum = %1
  output total = %2
{ row: 2, column: 3 } [ 11, 22, 33, 14, 25, 36 ]
{} [ 141 ]
[ 1, 2, 3, 1, 2, 3 ]
*/
