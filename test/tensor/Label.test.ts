import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"

const row = { i: 2 }
const inputs = { x: Specification.real(row), y: Specification.real(row) }

const shared = (x: T.Tensor<"i">): T.Tensor<"i"> => T.within("shared", () => T.square(T.label("inner")(T.exp(x))))

const watched = <I, O>(make: Effect.Effect<Program.Program<I, {}, O>, unknown>, given: unknown) =>
  Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* make
    const executable = yield* backend.compile(program, { watch: Program.labels(program) })
    const outcome = yield* (yield* executable.bind({})).watch(given as never)
    return Object.fromEntries(Object.entries(outcome.watched).map(([name, { elements }]) => [name, [...elements]]))
  }).pipe(Effect.scoped, Effect.provide(Reference.layer))

describe("labels of one name", () => {
  it.effect("for different values are numbered, and each can be watched", () => Effect.gen(function*() {
    const values = yield* watched(
      Program.make("twice", { inputs, state: {} }, ({ x, y }) => ({ outputs: { a: shared(x), b: shared(y) } })),
      { x: Float64Array.of(0, 0), y: 1 }
    )
    assert.deepStrictEqual(values, { "shared.inner": [1, 1], "shared.inner·2": [Math.E, Math.E] })
  }))

  it.effect("pass over a number that another label has for its name", () => Effect.gen(function*() {
    const program = yield* Program.make("taken", { inputs, state: {} }, ({ x, y }) => ({
      outputs: { a: shared(x), b: T.within("shared", () => T.label("inner·2")(T.sin(x))), c: shared(y) }
    }))
    assert.sameMembers([...Program.labels(program)], ["shared.inner", "shared.inner·2", "shared.inner·3"])
  }))

  it.effect("for one value are one: computed again behind a barrier, written twice, in a composite's pullback", () =>
    Effect.gen(function*() {
      const program = yield* Program.make("again", { inputs, state: {} }, ({ x }) => {
        const region = T.recompute({ x }, ({ x }) => T.recompute({ x }, ({ x }) => shared(x)))
        const loss = T.sum(T.add(T.multiply(region, shared(x)), T.square(shared(x))), "i")
        return { outputs: { slope: T.gradient(loss, { x }).x, loss } }
      })
      assert.deepStrictEqual([...Program.labels(program)], ["shared.inner"])
    }))

  it.effect("inside composites come out of the composite that a kernel would run", () => Effect.gen(function*() {
    const program = yield* Program.make("kernels", { inputs, state: {} }, ({ x, y }) => ({
      outputs: [x, y].map((z) => T.recompute({ z }, ({ z }) => shared(z)))
    }))
    const second = Program.lower(program, { hasKernel: () => true, watch: ["shared.inner·2"] })
    assert.deepStrictEqual(second.watched.map(({ name }) => name), ["shared.inner·2"])
  }))
})
