/**
 * The backend over ONNX Runtime keeps the laws, in both widths and over both ways into the engine; and short runs wait
 * for long ones.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { Backend } from "../../../src/backend/Backend.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/OnnxRuntime.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { tolerances } from "../../../src/testing/BackendLaws.ts"
import { contract } from "../Contract.ts"
import { backends } from "./layers.ts"

for (const [name, backend] of backends) {
  describe(`over ${name}, f32`, () => contract(backend, tolerances.f32))
  describe(`over ${name}, f64`, () => contract(backend, tolerances.f64))
}

layer(OnnxRuntime.layer({ threads: 2 }))("short runs over ONNX Runtime", (it) => {
  it.effect("wait for a long one over the same cells", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const size = 1000
      const state = { w: Specification.real({ i: size, j: size }) }
      const square = yield* Program.make("square", { inputs: {}, state }, (_, { w }) =>
        ({ outputs: {}, state: { w: T.contract(T.rename(w, "j", "k"), T.rename(w, "i", "k"), ["k"]) } }))
      const total = yield* Program.make("total", { inputs: {}, state }, (_, { w }) =>
        ({ outputs: { total: T.sum(w, ["i", "j"]) } }))
      const cells = yield* backend.allocate(state)
      const long = yield* (yield* backend.compile(square)).bind(cells)
      const short = yield* (yield* backend.compile(total)).bind(cells)
      for (let i = 0; i < 3; i++) yield* short.run({}) // known to be short from then on
      yield* backend.write(cells.w, Float32Array.from({ length: size * size }, (_, i) => i % (size + 1) === 0 ? 2 : 0))
      const running = yield* Effect.forkChild(long.run({}), { startImmediately: true })
      const found = yield* short.run({})
      yield* Fiber.join(running)
      assert.strictEqual(found.total.elements[0], 4 * size)
    }))

  it.effect("are refused to replace cells that have been sealed", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const state = { w: Specification.real({ i: 2 }, { _tag: "Constant", value: 1 }) }
      const program = yield* Program.make("put", { inputs: {}, state }, (_, { w }) =>
        ({ outputs: {}, state: { w: T.put(w, "i", T.ids({ p: 1 }, [0]), T.values({ p: 1 }, [2]), "add") } }))
      const cells = yield* backend.allocate(state)
      const { run } = yield* (yield* backend.compile(program)).bind(cells)
      for (let i = 0; i < 3; i++) yield* run({})
      yield* backend.seal(cells)
      assert.include((yield* Effect.flip(run({}))).message, "cell w has been sealed")
      assert.deepStrictEqual([...(yield* backend.read(cells)).w.elements], [7, 1])
    }))

  it.effect("are refused cells that have been freed", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const state = { w: Specification.real({ i: 2 }) }
      const program = yield* Program.make("total", { inputs: {}, state }, (_, { w }) =>
        ({ outputs: { total: T.sum(w, ["i"]) } }))
      const scope = yield* Scope.make()
      const cells = yield* Scope.provide(backend.allocate(state), scope)
      const { run } = yield* (yield* backend.compile(program)).bind(cells)
      for (let i = 0; i < 3; i++) yield* run({})
      yield* Scope.close(scope, Exit.void)
      assert.include((yield* Effect.flip(run({}))).message, "cell w has been freed")
    }))
})
