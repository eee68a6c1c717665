/**
 * Nothing is left on a device: not by a step, not by a scope, whether it ended well, failed or was interrupted.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { Backend } from "../../../src/backend/Backend.ts"
import * as Engine from "../../../src/backend/tensorflow/Engine.ts"
import { make } from "../../../src/backend/tensorflow/TensorFlow.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { engines, load } from "./layers.ts"

const embed = 4

/** A step with everything in it that keeps tensors: cells, constants, unused results, views of one value, checks. */
const train = Program.make("train", {
  inputs: { ids: Specification.ids({ batch: 3 }), scale: Specification.real({}) },
  state: {
    table: Specification.real({ row: 5, embed }, { _tag: "Constant", value: 0.5 }),
    other: Specification.real({ row: 5, embed }), seen: Specification.ids({ batch: 3 }),
    none: Specification.real({ e: 0 })
  }
}, ({ ids, scale }, { none, seen, table }) => {
  const x = T.take(table, "row", T.addIds(ids, T.subtractIds(seen, seen)))
  const loss = T.sum(T.square(T.subtract(T.multiply(x, scale), 1)), ["batch", "embed"])
  const gradient = T.gradient(loss, { table })
  const best = T.topK(x, "embed", "rank", 2)
  const next = T.subtract(table, T.multiply(gradient.table, 0.01))
  return {
    outputs: { loss, best: best.ids, same: [next, next] },
    state: { table: next, other: table, seen: ids, none: T.add(none, 1) }
  }
})

const draws = { ids: Int32Array.of(0, 4, 4), scale: 0.5 }

const runs = Number(process.env["CRIA_TEST_STEPS"] ?? 50)

for (const name of engines) {
  describe(`on ${name}`, () => {
    /** The number of tensors before and after some work with a backend of its own. */
    const counted = <A, E>(
      work: (backend: Backend["Service"], memory: () => Engine.Memory) => Effect.Effect<A, E, Scope.Scope>
    ) =>
      Effect.gen(function*() {
        const engine = yield* Engine.start(name, { load })
        const before = counts(engine.memory())
        const exit = yield* Effect.exit(Effect.scoped(work(make(engine), engine.memory)))
        assert.deepStrictEqual(counts(engine.memory()), before)
        return exit
      })

    it.live(`a step leaves as many tensors as it found, ${runs} times`, () => Effect.gen(function*() {
      const exit = yield* counted((backend, memory) => Effect.gen(function*() {
        const program = yield* train
        const cells = yield* backend.allocate(program.state)
        const { run } = yield* Effect.flatMap(backend.compile(program), ({ bind }) => bind(cells))
        yield* run(draws)
        const after = counts(memory())
        for (let i = 1; i < runs; i++) {
          yield* run(draws)
          assert.deepStrictEqual(counts(memory()), after)
        }
        yield* backend.read(cells)
        yield* backend.copy({ x: cells.other }, { x: cells.table })
        const row = yield* backend.view(cells.table, 1)
        yield* backend.write(row, Float32Array.of(1, 2, 3, 4))
        yield* backend.read({ row })
        assert.deepStrictEqual(counts(memory()), after)
      }))
      assert.isTrue(Exit.isSuccess(exit), String(exit))
    }))

    it.live("a step that fails leaves its cells and the device as they were", () => Effect.gen(function*() {
      const exit = yield* counted((backend, memory) => Effect.gen(function*() {
        const program = yield* train
        const cells = yield* backend.allocate(program.state)
        const { run } = yield* Effect.flatMap(backend.compile(program), ({ bind }) => bind(cells))
        yield* run(draws)
        const [before, values] = [counts(memory()), yield* backend.read(cells)]
        const { message } = yield* Effect.flip(run({ ...draws, ids: Int32Array.of(0, 5, 1) }))
        assert.include(message, engineIsLate(name)
          ? "an id is outside axis \"row\" of size 5\n"
          : "run train: gather: id 5 (element 1) is outside axis \"row\" of size 5\n")
        assert.include(message, "a vocabulary larger than the model's")
        assert.deepStrictEqual(counts(memory()), before)
        assert.deepStrictEqual(yield* backend.read(cells), values)
        return yield* run({ ...draws, ids: Int32Array.of(0, 7, 1) }) // and the scope ends with a failure
      }))
      assert.isTrue(Exit.isFailure(exit) && !Cause.hasDies(exit.cause), String(exit))
    }))

    it.live("ids that are an input are refused before a run begins", () => Effect.gen(function*() {
      yield* counted((backend) => Effect.gen(function*() {
        const program = yield* Program.make("look", {
          inputs: { ids: Specification.ids({ k: 2 }) }, state: { table: Specification.real({ vocab: 3 }) }
        }, ({ ids }, { table }) => ({ outputs: { y: T.within("embedding", () => T.take(table, "vocab", ids)) } }))
        const cells = yield* backend.allocate(program.state)
        const { run } = yield* Effect.flatMap(backend.compile(program), ({ bind }) => bind(cells))
        const { message } = yield* Effect.flip(run({ ids: Int32Array.of(2, 3) }))
        assert.include(
          message, "run look: gather, in embedding: id 3 (element 1) is outside axis \"vocab\" of size 3\n"
        )
        yield* run({ ids: Int32Array.of(2, 0) })
      })).pipe(Effect.flatMap((exit) => exit))
    }))

    it.live("an interruption waits for the run that began, and nothing is left", () => Effect.gen(function*() {
      let done = 0
      const exit = yield* counted((backend) => Effect.gen(function*() {
        const program = yield* train
        const cells = yield* backend.allocate(program.state)
        const { run } = yield* Effect.flatMap(backend.compile(program), ({ bind }) => bind(cells))
        const fiber = yield* Effect.forkChild(
          Effect.forever(Effect.andThen(run(draws), Effect.sync(() => done++))), { startImmediately: true }
        )
        yield* Effect.repeat(Effect.sleep("1 millis"), { until: () => done >= 3 })
        yield* Fiber.interrupt(fiber)
        const { other, table } = yield* backend.read(cells)
        assert.notDeepEqual(other, table) // whole steps: one cell is always a step behind the other
        return yield* Effect.interrupt
      }))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause), String(exit))
      assert.isAbove(done, 0)
    }))

    it.live("a program that outlives its scope is refused", () => Effect.gen(function*() {
      yield* counted((backend) => Effect.gen(function*() {
        const program = yield* train
        const cells = yield* backend.allocate(program.state)
        const scope = yield* Scope.make()
        const { run } = yield* Effect.flatMap(Scope.provide(backend.compile(program), scope), ({ bind }) => bind(cells))
        yield* Scope.close(scope, Exit.void)
        const { message } = yield* Effect.flip(run(draws))
        assert.include(message, "run train: the program has been freed\n")
        assert.include(message, "The Scope that compiled the program has ended")
      })).pipe(Effect.flatMap((exit) => exit))
    }))

    it.live("a long run lets others run between its steps", () => Effect.gen(function*() {
      const exit = yield* counted((backend) => Effect.gen(function*() {
        const inputs = { x: Specification.real({ i: 300, j: 300 }) }
        const program = yield* Program.make("long", { inputs, state: {} }, ({ x }) => ({
          outputs: { y: T.sum(Array.from({ length: 150 }).reduce<typeof x>((y) => T.sin(T.add(y, 1)), x), ["i", "j"]) }
        }))
        const { run } = yield* Effect.flatMap(backend.compile(program), ({ bind }) => bind({}))
        let ticks = 0
        const clock = yield* Effect.forkChild(
          Effect.forever(Effect.andThen(Effect.yieldNow, Effect.sync(() => ticks++)))
        )
        yield* run({ x: 1 })
        yield* Fiber.interrupt(clock)
        assert.isAbove(ticks, 0)
      }))
      assert.isTrue(Exit.isSuccess(exit), String(exit))
    }))
  })
}

const counts = ({ numDataBuffers, numTensors }: Engine.Memory) => ({ numDataBuffers, numTensors })

/** A GPU says what was wrong when the run has ended, and not which id. */
const engineIsLate = (name: Engine.Name): boolean => name === "webgpu"
