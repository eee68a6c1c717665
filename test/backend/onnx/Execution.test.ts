/**
 * The life of programs and their memory: what is shared and freed, what a run leaves behind when it fails or is
 * interrupted, and what the engine's refusals become.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Backend, type BackendError } from "../../../src/backend/Backend.ts"
import { Engine } from "../../../src/backend/onnx/Engine.ts"
import { EngineError, type Reason } from "../../../src/backend/onnx/EngineError.ts"
import * as Execution from "../../../src/backend/onnx/Execution.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/OnnxRuntime.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { backends, engines } from "./layers.ts"

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

const one = { _tag: "Constant", value: 1 } as const

const message = <A, R>(effect: Effect.Effect<A, BackendError, R>): Effect.Effect<string, A, R> =>
  Effect.map(Effect.flip(effect), ({ message }) => message)

/** A square product and a count of the runs: long enough to be interrupted if `size` is large. */
const count = (size: number) => Program.make("count", {
  inputs: { x: Specification.real({ i: size, j: size }) },
  state: { runs: Specification.ids({}), total: Specification.real({ i: size, k: size }) }
}, ({ x }, { runs, total }) => {
  const square = T.contract(x, T.rename(T.rename(x, "j", "k"), "i", "j"), "j")
  const state = { runs: T.addIds(runs, 1), total: T.add(total, square) }
  return { outputs: { sum: T.sum(square, ["i", "k"]) }, state }
})

const lookUp = Program.make("look", {
  inputs: { ids: Specification.ids({ k: 2 }) },
  state: { table: Specification.real({ i: 3 }, one), seen: Specification.real({ i: 3 }) }
}, ({ ids }, { seen, table }) => T.within("embedding", () => {
  const found = T.take(table, "i", ids)
  return { outputs: { found }, state: { seen: T.put(seen, "i", ids, found, "add") } }
}))

for (const [name, backend] of backends) {
  layer(backend)(`over ${name}`, (it) => {
    it.effect("a run that is interrupted ends if it began, and else does not begin", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* count(200)
      const cells = yield* backend.allocate(program.state)
      const { run } = yield* (yield* backend.compile(program)).bind(cells)
      const fibers = yield* Effect.forEach([1, 2, 3, 4], () =>
        Effect.forkChild(run({ x: 1 }), { startImmediately: true }))
      yield* Effect.yieldNow
      yield* Effect.forEach(fibers, Fiber.interrupt, { concurrency: "unbounded" })
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      const { runs, total } = yield* backend.read(cells)
      assert.isTrue(total.elements.every((element) => element === 200 * runs.elements[0]!))
      assert.isBelow(runs.elements[0]!, 4)
      assert.isTrue(exits.some(Exit.isFailure))
      yield* run({ x: 1 })
      assert.strictEqual((yield* backend.read(cells)).runs.elements[0], runs.elements[0]! + 1)
    }))

    it.effect("a run that fails says where and why, and the next one runs", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* lookUp
      const cells = yield* backend.allocate(program.state)
      const { run } = yield* (yield* backend.compile(program)).bind(cells)
      const text = yield* message(run({ ids: Int32Array.of(0, 3) }))
      assert.match(text, /^onnxruntime, run look: gather, in embedding: .*indices element out of data bounds, idx=3/s)
      assert.include(text, "\n  Usual cause: an id outside its axis (a token beyond the vocabulary,")
      assert.include(text, "Cells that are replaced in place may hold part of their new values.")
      yield* backend.write(cells.seen, new Float32Array(3))
      assert.deepStrictEqual([...(yield* run({ ids: Int32Array.of(0, 2) })).found.elements], [1, 1])
      assert.deepStrictEqual([...(yield* backend.read(cells)).seen.elements], [1, 0, 1])
    }))

    it.effect("runs of one program over two states do not mix", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* count(20)
      const executable = yield* backend.compile(program)
      const states = [yield* backend.allocate(program.state), yield* backend.allocate(program.state)]
      const bound = yield* Effect.forEach(states, (cells) => executable.bind(cells))
      const sums = yield* Effect.forEach(Array.from({ length: 20 }, (_, i) => i), (i) =>
        bound[i % 2]!.run({ x: i % 2 + 1 }), { concurrency: "unbounded" })
      sums.forEach(({ sum }, i) => assert.strictEqual(sum.elements[0], i % 2 === 0 ? 8000 : 32_000))
      const [first, second] = yield* Effect.forEach(states, (cells) => backend.read(cells))
      assert.deepStrictEqual([first!.total.elements[0], second!.total.elements[0]], [200, 800])
    }))

    it.effect("runs of one binding without cells do not mix", () => Effect.gen(function*() {
      const program = yield* Program.make("double", { inputs: { x: Specification.real({ i: 3 }) }, state: {} },
        ({ x }) => ({ outputs: { y: T.multiply(x, 2) } }))
      const { run } = yield* (yield* (yield* Backend).compile(program)).bind({})
      const numbers = Array.from({ length: 20 }, (_, i) => i)
      const found = yield* Effect.forEach(numbers, (x) => run({ x }), { concurrency: "unbounded" })
      assert.deepStrictEqual(found.map(({ y }) => [...y.elements]), found.map((_, i) => [2 * i, 2 * i, 2 * i]))
    }))

    it.effect("memory stays as it is over many runs", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* count(30)
      const cells = yield* backend.allocate(program.state)
      const { run } = yield* (yield* backend.compile(program)).bind(cells)
      const some = Effect.forEach(Array.from({ length: 1000 }), () => run({ x: 0.1 }), { discard: true })
      const resident = Effect.sync(() => {
        collectGarbage()
        return process.memoryUsage.rss()
      })
      yield* some
      const seen = [yield* resident]
      do { // what leaks does so every time; the engines' own memory moves now and then
        yield* some
        seen.push(yield* resident)
      } while (seen.at(-1)! - seen.at(-2)! > 3 * 2 ** 20 && seen.length < 6)
      assert.isBelow(seen.at(-1)! - seen.at(-2)!, 3 * 2 ** 20, seen.join(" "))
      assert.strictEqual((yield* backend.read(cells)).runs.elements[0], 1000 * seen.length)
    }))

    it.effect("views that start anywhere are read and replaced, and nothing beside them", () => Effect.gen(function*() {
      const backend = yield* Backend
      const { all } = yield* backend.allocate({ all: Specification.real({ slot: 4, i: 3 }, one) })
      const row = Specification.real({ i: 3 })
      const program = yield* Program.make("shift", { inputs: {}, state: { a: row, b: row, c: row } },
        (_, { a, b, c }) => ({ outputs: { c }, state: { a: T.add(T.cumulativeSum(a, "i"), c), b: T.multiply(b, 5) } }))
      const [a, b, c] = yield* Effect.forEach([1, 2, 3], (slot) => backend.view(all, slot))
      const { run } = yield* (yield* backend.compile(program)).bind({ a, b, c } as never)
      yield* run({})
      yield* backend.write(c!, Float32Array.of(7, 8, 9))
      assert.deepStrictEqual([...(yield* run({})).c.elements], [7, 8, 9])
      const { elements } = (yield* backend.read({ all })).all
      assert.deepStrictEqual([...elements], [1, 1, 1, 9, 13, 18, 25, 25, 25, 7, 8, 9])
    }))

    it.effect("a state whose Scope has ended cannot be bound", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* lookUp
      const scope = yield* Scope.make()
      const cells = yield* Scope.provide(backend.allocate(program.state), scope)
      const { bind } = yield* backend.compile(program)
      yield* Scope.close(scope, Exit.void)
      assert.include(yield* message(bind(cells)), "onnxruntime, bind look: cell table has been freed")
    }))

    it.effect("memory that is not there is a failure", () => Effect.gen(function*() {
      const backend = yield* Backend
      const text = yield* message(backend.allocate({ w: Specification.real({ i: 2 ** 36 }) }))
      assert.match(text, /^onnxruntime, allocate: f32 \[68719476736\]\n/)
      assert.match(text, /\n {2}Use smaller batches or fewer programs at once, and end the Scopes of cells/)
    }))
  })
}

describe("the event loop", () => {
  it.effect("turns while a program runs", () => Effect.gen(function*() {
    const program = yield* count(1600)
    const backend = yield* Backend
    const { run } = yield* (yield* backend.compile(program)).bind(yield* backend.allocate(program.state))
    let turns = 0
    const ticking = yield* Effect.forkChild(Effect.forever(Effect.promise(() => new Promise<void>((resume) => {
      turns++
      setImmediate(resume)
    }))))
    yield* run({ x: 1 })
    yield* Fiber.interrupt(ticking)
    assert.isAbove(turns, 5)
  }).pipe(Effect.provide(backends[0]![1])))
})

/** The backend over an engine that counts its open sessions. */
const counted = () => {
  const sessions = { made: 0, open: 0 }
  const engine = Layer.effect(Engine, Effect.map(Engine, (engine) => Engine.of({
    ...engine,
    createSession: (model, options) => Effect.gen(function*() {
      yield* Effect.acquireRelease(
        Effect.sync(() => { sessions.made++, sessions.open++ }), () => Effect.sync(() => { sessions.open-- })
      )
      return yield* engine.createSession(model, options)
    })
  })))
  const layer = OnnxRuntime.layerNoDeps.pipe(Layer.provide(engine), Layer.provide(engines.koffi),
    Layer.tap(() => Effect.sync(() => { sessions.made = 0 }))) // it asks the engine one thing when it is made
  return { sessions, layer }
}

describe("compiled programs", () => {
  const row = Specification.real({ i: 2 }, one)
  const plain = Program.make("plain", { inputs: { x: row }, state: { w: row } }, ({ x }, { w }) =>
    ({ outputs: { y: T.within("place", () => T.label("y")(T.multiply(x, w))) } }))

  it.effect("are shared as long as someone holds them, and freed with the last", () => {
    const { layer, sessions } = counted()
    return Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* plain
      const [first, second] = [yield* Scope.make(), yield* Scope.make()]
      yield* Scope.provide(backend.compile(program), first)
      yield* Scope.provide(backend.compile(program), second)
      assert.deepStrictEqual(sessions, { made: 1, open: 1 })
      yield* Scope.close(first, Exit.void)
      assert.strictEqual(sessions.open, 1)
      yield* Scope.provide(backend.compile(program), second)
      assert.strictEqual(sessions.made, 1)
      yield* Scope.close(second, Exit.void)
      assert.strictEqual(sessions.open, 0)
      yield* Effect.scoped(backend.compile(program))
      assert.deepStrictEqual(sessions, { made: 2, open: 0 })
    }).pipe(Effect.provide(layer))
  })

  it.effect("are loaded once by who compile at the same time", () => {
    const { layer, sessions } = counted()
    return Effect.scoped(Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* plain
      yield* Effect.forEach([1, 2, 3], () => backend.compile(program), { concurrency: "unbounded" })
      assert.deepStrictEqual(sessions, { made: 1, open: 1 })
    })).pipe(Effect.provide(layer))
  })

  it.effect("are others for another width, other labels and other constants", () => {
    const { layer, sessions } = counted()
    return Effect.scoped(Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* plain
      const cells = yield* backend.allocate(program.state)
      yield* backend.compile(program)
      yield* backend.compile(program, { precision: "f64" })
      yield* backend.compile(program, { watch: ["place.y"] })
      yield* backend.compile(program, { constants: new Map([["w", cells.w]]) })
      yield* backend.compile(program, { constants: new Map([["w", cells.w]]) }) // present values: never shared
      assert.strictEqual(sessions.made, 5)
    })).pipe(Effect.provide(layer))
  })

  const refusing = (reason: Reason) => OnnxRuntime.layerNoDeps.pipe(
    Layer.provide(Layer.effect(Engine, Effect.map(Engine, (engine) => Engine.of({
      ...engine,
      createSession: () =>
        Effect.fail(new EngineError({ reason, operation: "createSession", values: ["the engine's text"] }))
    })))),
    Layer.provide(engines.koffi)
  )
  it.effect("fail with a remedy where the engine refuses them", () => Effect.gen(function*() {
    const program = yield* plain
    const failed = (reason: Reason) =>
      message(Effect.scoped(Effect.flatMap(Backend, (backend) => backend.compile(program))))
        .pipe(Effect.provide(refusing(reason)))
    assert.strictEqual(
      yield* failed("BadModel"),
      "onnxruntime, compile plain: the engine's text\n" +
        "  This is a fault of Cria's: please report the program, as `Print` shows it, with this message."
    )
    assert.include(yield* failed("OutOfMemory"), "\n  Use smaller batches or fewer programs at once")
  }))
  it.effect("cannot hold constants of 2 GiB that something else than a product reads", () => Effect.gen(function*() {
    const engine = yield* Engine
    const lowered = Program.lower(yield* plain, { hasKernel: () => false, watch: [] })
    const constants = new Map([["w", new Uint8Array(2 ** 31)]]) // never touched, so it takes no memory
    const error = yield* Effect.flip(Effect.scoped(Execution.compile(engine, lowered, "f32", constants)))
    assert.strictEqual(
      error.message,
      "ONNX Runtime, in createSession: a graph takes less than 2 GiB of constants\n" +
        "  the constants have 2147483648 bytes together; a graph takes less than 2130706432\n" +
        "  Leave the largest of them out of the constants, and bind them."
    )
  }).pipe(Effect.provide(engines.koffi)))
  it.effect("cannot run once their Scope has ended", () => Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* plain
    const cells = yield* backend.allocate(program.state)
    const { bind } = yield* Effect.scoped(backend.compile(program))
    assert.strictEqual(
      yield* message(bind(cells)),
      "onnxruntime, bind plain: Closed\n  The Scope that compiled the program has ended: run inside that Scope."
    )
  }).pipe(Effect.provide(backends[0]![1])))
})
