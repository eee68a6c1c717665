/**
 * Cells on a device keep the laws, are exchanged and not copied, and leave nothing behind. The device here is memory of
 * the host that only its address is known of, so that this runs anywhere; test/backend/onnx/Provider has real ones.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import koffi from "koffi"
import { Backend } from "../../../src/backend/Backend.ts"
import type { Buffer } from "../../../src/backend/onnx/Buffer.ts"
import { Engine } from "../../../src/backend/onnx/Engine.ts"
import { EngineError, failure } from "../../../src/backend/onnx/EngineError.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/OnnxRuntime.ts"
import type { Device } from "../../../src/backend/onnx/Session.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { tolerances } from "../../../src/testing/BackendLaws.ts"
import { contract } from "../Contract.ts"
import { engines } from "./layers.ts"

/** A device that gives out memory of the host, filled with rubbish, up to a number of pieces. */
const pretended = (most = Infinity) => {
  const pieces = new Map<number, Buffer>()
  const made = { pieces: 0 }
  const layer = OnnxRuntime.layerNoDeps.pipe(
    Layer.provide(Layer.effect(Engine, Effect.map(Engine, (engine) => {
      const device: Device = {
        allocate: (bytes) => pieces.size >= most
          ? Effect.fail(failure("OutOfMemory", "allocate", `${bytes} bytes on the device`))
          : Effect.map(engine.allocate("u8", [bytes]), (buffer) => {
            const address = Number(koffi.address(buffer.bytes))
            pieces.set(address, buffer)
            buffer.bytes.fill(0xee)
            made.pieces++
            return address
          }),
        free: (address) => Effect.sync(() => assert.isTrue(pieces.delete(address), "freed what is not held"))
      }
      return Engine.of({
        ...engine,
        provider: "pretended",
        createSession: (model, options) =>
          Effect.map(engine.createSession(model, options), (session) => ({ ...session, device }))
      })
    }))),
    Layer.provide(engines.koffi)
  )
  return { layer, made, pieces }
}

const row = { i: 5, embed: 4 }

/** A step that writes over a cell, exchanges two and reads one. */
const step = Program.make("step", {
  inputs: { ids: Specification.ids({ batch: 2 }), scale: Specification.real({}) },
  state: {
    table: Specification.real(row, { _tag: "Constant", value: 0.5 }), other: Specification.real(row),
    gradient: Specification.real(row), seen: Specification.truths({ embed: 3 })
  }
}, ({ ids, scale }, { other, seen, table }) => {
  const loss = T.sum(T.square(T.subtract(T.multiply(T.take(table, "i", ids), scale), 1)), ["batch", "embed"])
  const gradient = T.gradient(loss, { table }).table
  return {
    outputs: { loss },
    state: {
      table: T.subtract(table, T.multiply(gradient, 0.1)), gradient, other: T.add(other, table), seen: T.not(seen)
    }
  }
})

const given = { ids: Int32Array.of(0, 4), scale: 1 }

/** What a backend of its own does, and how much it left behind. */
const alone = <A, E>(
  work: (backend: Backend["Service"], pieces: ReadonlyMap<number, Buffer>) => Effect.Effect<A, E, Scope.Scope>,
  most?: number
) =>
  Effect.gen(function*() {
    const { layer, pieces } = pretended(most)
    const exit = yield* Effect.exit(Effect.scoped(Effect.flatMap(Backend, (backend) => work(backend, pieces)))
      .pipe(Effect.provide(layer)))
    assert.strictEqual(pieces.size, 0)
    return yield* exit
  })

describe("cells on a device", () => {
  contract(pretended().layer, tolerances.f32, { programs: 6, perOperation: 1 })

  it.effect("are as many after every step, and gone with their scope", () => alone((backend, pieces) =>
    Effect.gen(function*() {
      const program = yield* step
      const cells = yield* backend.allocate(program.state)
      assert.strictEqual(pieces.size, 4)
      const executable = yield* backend.compile(program)
      assert.deepStrictEqual(executable.placement, { inPlace: ["gradient"], copied: ["table", "other", "seen"] })
      const { run } = yield* executable.bind(cells)
      assert.strictEqual(pieces.size, 7) // the gradient is not read: it needs no second piece
      const live = yield* backend.live!
      for (let i = 0; i < 30; i++) yield* run(given)
      const { gradient, other, seen, table } = yield* backend.read(cells)
      assert.isBelow(Math.abs(table.elements[0]! - 1), 1e-3)
      assert.strictEqual(table.elements[4], 0.5) // a row that was not taken
      assert.strictEqual(other.elements[4], 15)
      assert.strictEqual(gradient.elements[4], 0)
      assert.deepStrictEqual([...seen.elements], [0, 0, 0])
      assert.strictEqual(pieces.size, 7)
      assert.strictEqual(yield* backend.live!, live)
    })))

  it.effect("are shared by programs, one of which exchanges what the other reads", () => alone((backend) =>
    Effect.gen(function*() {
      const state = { x: Specification.real({ i: 3 }) }
      const add = yield* Program.make("add", { inputs: {}, state }, (_, { x }) => ({
        outputs: {}, state: { x: T.add(x, 1) }
      }))
      const show = yield* Program.make("show", { inputs: {}, state }, (_, { x }) => ({ outputs: { x } }))
      const cells = yield* backend.allocate(state)
      const [adding, showing] = [
        yield* Effect.flatMap(backend.compile(add), ({ bind }) => bind(cells)),
        yield* Effect.flatMap(backend.compile(show), ({ bind }) => bind(cells))
      ]
      for (let i = 1; i <= 5; i++) {
        yield* adding.run({})
        assert.deepStrictEqual([...(yield* showing.run({})).x.elements], [i, i, i])
      }
      yield* backend.write(cells.x, Float32Array.of(7, 8, 9))
      yield* adding.run({})
      assert.deepStrictEqual([...(yield* backend.read(cells)).x.elements], [8, 9, 10])
    })))

  it.effect.each(["f32", "f64"] as const)("are copied in part, of whole words or not, %s", (precision) => alone((
    backend, pieces
  ) => Effect.gen(function*() {
    const state = {
      real: Specification.real({ slot: 3, i: 5 }), truth: Specification.truths({ slot: 3, i: 5 }),
      code: Specification.codes({ slot: 3, i: 8 }), id: Specification.ids({ slot: 3, i: 2 })
    }
    const [from, to] = [yield* backend.allocate(state, { precision }), yield* backend.allocate(state, { precision })]
    for (const [cell, other] of [
      [from.real, to.real], [from.truth, to.truth], [from.code, to.code], [from.id, to.id]
    ] as const) {
      const length = Object.values(cell.sizes).reduce((total, size) => total * size, 1)
      const [Elements, most] = cell.kind === "real" ? [Float32Array, 99] as const
        : cell.kind === "id" ? [Int32Array, 99] as const : [Uint8Array, cell.kind === "truth" ? 2 : 99] as const
      const elements = Elements.from(Array.from({ length }, (_, i) => (i + 1) % most))
      yield* backend.write(cell, elements)
      const size = length / 3
      for (const [source, target] of [[0, 2], [1, 0], [2, 2]] as const) {
        const [left, right] = [yield* backend.view(cell, source), yield* backend.view(other, target)]
        yield* backend.copy({ x: left }, { x: right })
        const { x } = yield* backend.read({ x: right })
        assert.deepStrictEqual([...x.elements], [...elements.subarray(source * size, (source + 1) * size)])
      }
      const { x } = yield* backend.read({ x: other })
      assert.deepStrictEqual([...x.elements], [
        ...elements.subarray(size, 2 * size), ...elements.subarray(0, size).fill(0), ...elements.subarray(2 * size)
      ])
    }
    const held = pieces.size
    yield* backend.copy({ x: yield* backend.view(from.real, 0) }, { x: yield* backend.view(to.real, 1) })
    assert.strictEqual(pieces.size, held)
  })))

  it.effect("leave nothing on the device where it has no room, and say so", () => Effect.gen(function*() {
    for (const most of [3, 5]) { // for the cells; for their next values
      const exit = yield* Effect.exit(alone((backend) => Effect.gen(function*() {
        const program = yield* step
        const cells = yield* backend.allocate(program.state)
        yield* Effect.flatMap(backend.compile(program), ({ bind }) => bind(cells))
      }), most))
      const text = Exit.isFailure(exit) ? String(exit.cause) : ""
      assert.include(text, most === 3 ? "onnxruntime, write: " : "onnxruntime, bind step: ")
      assert.include(text, "bytes on the device")
      assert.include(text, "Use smaller batches or fewer programs at once")
    }
  }))

  it.effect("need an engine whose device has memory of its own", () => Effect.gen(function*() {
    const engine = Layer.effect(Engine, Effect.map(Engine, (engine) => Engine.of({ ...engine, provider: "pretended" })))
    const error = yield* Effect.flip(Effect.void.pipe(
      Effect.provide(OnnxRuntime.layerNoDeps.pipe(Layer.provide(engine), Layer.provide(engines.koffi)))
    ))
    assert.instanceOf(error, EngineError)
    assert.include(error.message, "ONNX Runtime, in memory: a provider must be built into the library")
    assert.include(error.message, "\n  koffi has only the host's\n")
  }))
})
