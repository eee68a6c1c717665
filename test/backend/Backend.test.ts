/**
 * The reference backend keeps the contract, and names what is wrong with the data.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import * as Tolerance from "../law/Tolerance.ts"
import { contract } from "./Contract.ts"
import { turnsWithEachRun } from "./Turns.ts"

describe("Reference", () => {
  contract(Reference.layer, { precision: "f64", primitive: Tolerance.exact, composed: Tolerance.exact })

  it.effect("lets the event loop turn with each run", () => Effect.provide(turnsWithEachRun, Reference.layer))

  const run = Effect.fnUntraced(function*(ids: ReadonlyArray<number>, f: (
    x: T.Tensor<"i">, ids: T.Tensor<"k", "id">
  ) => T.Tensor<"k">) {
    const program = yield* Program.make("look",
      { inputs: { x: Specification.real({ i: 3 }), ids: Specification.ids({ k: ids.length }) }, state: {} },
      ({ ids, x }) => ({ outputs: { y: T.within("block.3", () => f(x, ids)) } }))
    const { bind } = yield* (yield* Backend).compile(program)
    const { run } = yield* bind({})
    const { y } = yield* run({ x: 0.5, ids: Int32Array.from(ids) })
    return [...y.elements]
  })
  const remedy = "  Ids must be whole numbers from 0 up to, not including, the size of their axis: check the data " +
    "that made them (a vocabulary larger than the model's, a padding id of −1, positions past the end of a table)."
  const message = (effect: ReturnType<typeof run>) =>
    Effect.map(Effect.flip(effect), (error) => error.message).pipe(Effect.provide(Reference.layer))

  it.effect("names the id that is outside its axis, and where", () => Effect.gen(function*() {
    assert.strictEqual(
      yield* message(run([0, 3], (x, ids) => T.take(x, "i", ids))),
      `reference, run look: gather, in block.3: id 3 (element 1) is outside axis "i" of size 3\n${remedy}`
    )
    assert.strictEqual(
      yield* message(
        run([2, 0], (x, given) => {
          const ids = T.subtractIds(given, 1)
          return T.take(T.put(x, "i", ids, T.real(ids), "add"), "i", T.ids({ k: 2 }, [0, 1]))
        })
      ),
      `reference, run look: scatter, in block.3: id -1 (element 1) is outside axis "i" of size 3\n${remedy}`
    )
  }))
  it.effect("refuses ids that 32 bits do not hold", () => Effect.gen(function*() {
    assert.strictEqual(
      yield* message(run([2 ** 31 - 1], (_, ids) => T.real(T.addIds(ids, 1)))),
      `reference, run look: binary, in block.3: element 0 is 2147483648, not a whole number of 32 bits\n${remedy}`
    )
    assert.strictEqual(
      yield* message(run([0], (_, ids) => T.real(T.toIds(T.log(T.real(ids)))))),
      `reference, run look: convert, in block.3: element 0 is -Infinity, not a whole number of 32 bits\n${remedy}`
    )
  }))
  it.effect("computes in float64 only", () => Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* Program.make("none", { inputs: {}, state: {} }, () => ({ outputs: {} }))
    const own = "\n  Leave `precision` out for the backend's own."
    assert.strictEqual(
      (yield* Effect.flip(backend.compile(program, { precision: "f32" }))).message,
      `reference, compile none: precision f32 is not one of f64${own}`
    )
    assert.strictEqual(
      (yield* Effect.flip(backend.allocate({}, { precision: "f32" }))).message,
      `reference, allocate: precision f32 is not one of f64${own}`
    )
  }).pipe(Effect.provide(Reference.layer)))
  it.effect("does not know the cells of another backend", () => Effect.gen(function*() {
    const [here, there] = [Reference.make(), Reference.make()]
    const { w } = yield* there.allocate({ w: Specification.real({ i: 2 }) })
    const expected = (operation: string) =>
      `reference, ${operation}: cell w [i: 2] was made by another backend\n` +
      "  Read it there and write it here: state lives on the backend that allocated it."
    assert.strictEqual((yield* Effect.flip(here.read({ w }))).message, expected("read"))
    assert.strictEqual((yield* Effect.flip(here.write(w, new Float64Array(2)))).message, expected("write"))
    assert.strictEqual((yield* Effect.flip(here.copy({ w }, { w }))).message, expected("copy"))
    assert.strictEqual((yield* Effect.flip(here.view(w, 0))).message, expected("view"))
    const program = yield* Program.make(
      "read", { inputs: {}, state: { w: Specification.real({ i: 2 }) } }, (_, { w }) => ({ outputs: { w } })
    )
    const { bind } = yield* here.compile(program)
    assert.strictEqual((yield* Effect.flip(bind({ w }))).message, expected("bind read"))
    assert.strictEqual(
      (yield* Effect.flip(here.compile(program, { constants: new Map([["w", w]]) }))).message, expected("compile read")
    )
  }))
})
