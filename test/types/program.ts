/**
 * Programs, state and runs whose trees the compiler checks.
 */
import * as Effect from "effect/Effect"
import type { Backend, Bound, Cell, Cells, Given, Results, Values } from "../../src/backend/Backend.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import type { Tensor } from "../../src/tensor/Tensor.ts"

const specification = {
  inputs: { x: Specification.real({ batch: 2, embed: 3 }), ids: Specification.ids({ batch: 2 }) },
  state: { gain: Specification.real({ embed: 3 }), blocks: [{ weight: Specification.real({ embed: 3, hidden: 4 }) }] }
}

// Inputs and cells come as tensors of their own axes and kinds; what is left out keeps its value.
export const fits = Program.make("fits", specification, ({ ids, x }, { blocks, gain }) => {
  const scaled: Tensor<"batch" | "embed"> = T.multiply(x, gain)
  const chosen: Tensor<"batch" | "hidden"> = T.take(blocks[0]!.weight, "embed", ids)
  return {
    outputs: { scaled, losses: [T.mean(chosen, ["batch", "hidden"])] }, state: { gain: T.mean(scaled, "batch") }
  }
})
Program.make("kinds", specification, ({ ids, x }) => ({
  // @ts-expect-error "id"
  outputs: { y: T.add(x, ids) }
}))
Program.make("absent", specification, (inputs) => ({
  // @ts-expect-error Property 'y'
  outputs: { y: inputs.y }
}))
Program.make("axes", specification, ({ x }) => ({
  outputs: {},
  // @ts-expect-error "batch"
  state: { gain: x }
}))
Program.make("cell", specification, ({ x }) => ({
  outputs: {},
  // @ts-expect-error 'gian'
  state: { gian: T.mean(x, "batch") }
}))
Program.make("form", specification, (_, { gain }) => ({
  outputs: {},
  // @ts-expect-error 'weigth'
  state: { blocks: [{ weigth: gain }] }
}))
// @ts-expect-error not assignable to type 'never'
Program.make("outputs", specification, ({ x }) => ({ outputs: { x, rate: 0.1 } }))

// Runs take arrays by kind, and give values by name.
type Inputs = typeof specification.inputs
type State = typeof specification.state
declare const bound: Bound<Inputs, { readonly loss: T.Scalar; readonly rows: ReadonlyArray<Tensor<"batch", "id">> }>
export const run = Effect.map(bound.run({ x: new Float32Array(6), ids: new Int32Array(2) }), ({ loss, rows }) => {
  const scalar: Values<never> = loss
  const first: Values<"batch", "id"> | undefined = rows[0]
  return [scalar, first]
})
export const oneForAll: Given<Inputs> = { x: 0, ids: 0 }
// @ts-expect-error Float32Array
export const wrongArray: Given<Inputs> = { x: 0, ids: new Float32Array(2) }
// @ts-expect-error 'ids' is missing
export const missing: Given<Inputs> = { x: 0 }
// @ts-expect-error 'weight'
export const another: Given<Inputs> = { x: 0, ids: 0, weight: 0 }
declare const results: Results<{ readonly loss: T.Scalar }>
// @ts-expect-error "batch"
export const axes: Values<"batch"> = results.loss

// Cells are bound by the form of the state.
declare const backend: Backend["Service"]
declare const cells: Cells<State>
export const gain: Cell<"embed"> = cells.gain
export const read = Effect.map(
  backend.read(cells), ({ blocks }): Values<"embed" | "hidden"> | undefined => blocks[0]?.weight
)
export const bind = Effect.gen(function*() {
  const executable = yield* backend.compile(yield* fits)
  yield* executable.bind(cells)
  // @ts-expect-error 'blocks' is missing
  yield* executable.bind({ gain: cells.gain })
  // @ts-expect-error "hidden"
  yield* executable.bind({ gain: cells.gain, blocks: [{ weight: cells.gain }] })
})
