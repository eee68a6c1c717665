import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, References, Scope } from "effect"
import * as fc from "fast-check"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Engine from "../../../src/backend/onnx/Engine.ts"
import { type ElementType, elementTypes, encodeModel, type Graph } from "../../../src/backend/onnx/ModelProto.ts"

const binary = (op: string, sizes: ReadonlyArray<number>, type: ElementType = "f32"): Uint8Array =>
  encodeModel({
    nodes: [{ op, inputs: ["x", "y"], outputs: ["z"] }],
    inputs: [{ name: "x", type, sizes }, { name: "y", type, sizes }],
    outputs: [{ name: "z", type, sizes }],
    initializers: []
  })

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

const engines = [["koffi", Engine.layerKoffi({ threads: 2 })], ["node", Engine.layerNode({ threads: 2 })]] as const
for (const [name, engineLayer] of engines) {
  layer(engineLayer)(`Engine over ${name}`, (it) => {
    /** A session for `x op y = z` with its three buffers. */
    const prepared = Effect.fnUntraced(function*(op: string, sizes: ReadonlyArray<number>) {
      const engine = yield* Engine.Engine
      const session = yield* engine.createSession(binary(op, sizes))
      const x = yield* engine.allocate("f32", sizes)
      const y = yield* engine.allocate("f32", sizes)
      const z = yield* engine.allocate("f32", sizes)
      return { engine, session, x, y, z, inputs: { x, y }, outputs: { z } }
    })

    it.effect("says what it is", () =>
      Effect.gen(function*() {
        const engine = yield* Engine.Engine
        assert.deepStrictEqual([engine.name, engine.version, engine.threads], [name, "1.30.0", 2])
        assert.include(engine.providers, "cpu")
      }))

    it.effect("runs on bound buffers, at once and in the background", () =>
      Effect.gen(function*() {
        const { inputs, outputs, session, x, y, z } = yield* prepared("Add", [2, 3])
        assert.deepStrictEqual([session.inputs, session.outputs], [["x", "y"], ["z"]])
        x.data.set([1, 2, 3, 4, 5, 6])
        y.data.set([10, 20, 30, 40, 50, 60])
        const bound = yield* session.bind({ inputs, outputs })
        bound.runSync()
        assert.deepStrictEqual([...z.data], [11, 22, 33, 44, 55, 66])
        x.data.fill(0)
        yield* bound.run
        assert.deepStrictEqual([...z.data], [10, 20, 30, 40, 50, 60])
      }))

    it.effect("runs at once after a short run, and not before it is known to be short", () =>
      Effect.gen(function*() {
        const { inputs, outputs, session, x, z } = yield* prepared("Add", [4])
        const bound = yield* session.bind({ inputs, outputs })
        x.data.fill(1)
        assert.isUndefined(bound.attempt())
        assert.deepStrictEqual([...z.data], [0, 0, 0, 0])
        let left: ReturnType<typeof bound.attempt>
        do { // on a machine that stands still, no run is short
          yield* bound.run
          x.data[0]!++
          left = bound.attempt()
        } while (left === undefined)
        assert.deepStrictEqual([...z.data], [...x.data])
        yield* left
        yield* session.close
        const closed = bound.attempt()
        assert.strictEqual(closed && (yield* Effect.flip(closed)).reason, "Closed")
      }))

    it.effect("leaves denormal numbers alone, its own and JavaScript's", () =>
      Effect.gen(function*() {
        const { inputs, outputs, session, x, z } = yield* prepared("Add", [4])
        x.data[0] = 1e-40
        const bound = yield* session.bind({ inputs, outputs })
        yield* bound.run
        bound.runSync()
        assert.strictEqual(z.data[0], Math.fround(1e-40))
        assert.isAbove(x.data[0]! * 1e-280, 0)
      }))

    it.effect("updates a buffer in place where it is input and output", () =>
      Effect.gen(function*() {
        const { inputs, session, x, y } = yield* prepared("Sub", [1000])
        x.data.fill(5)
        y.data.fill(1)
        const bound = yield* session.bind({ inputs, outputs: { z: x } })
        yield* bound.run
        bound.runSync()
        assert.isTrue(x.data.every((value) => value === 3))
      }))

    it.effect("updates parts of a large buffer through views", () =>
      Effect.gen(function*() {
        const { engine, session } = yield* prepared("Add", [16])
        const whole = yield* engine.allocate("f32", [4, 16])
        const one = yield* engine.allocate("f32", [16])
        one.data.fill(1)
        const slot = yield* Engine.view(whole, 32, [16])
        const bound = yield* session.bind({ inputs: { x: slot, y: one }, outputs: { z: slot } })
        bound.runSync()
        bound.runSync()
        assert.deepStrictEqual([...whole.data], Array.from({ length: 64 }, (_, i) => i >> 4 === 2 ? 2 : 0))
      }))

    it.effect("passes every element type and size unchanged", () =>
      Effect.gen(function*() {
        const engine = yield* Engine.Engine
        const types = elementTypes.filter((type) => name === "koffi" || type !== "bf16")
        const sizes = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 })
        const passes = fc.asyncProperty(fc.constantFrom(...types), sizes, fc.nat(), (type, sizes, seed) =>
          Effect.runPromise(Effect.scoped(Effect.gen(function*() {
            const session = yield* engine.createSession(encodeModel({
              nodes: [{ op: "Identity", inputs: ["x"], outputs: ["y"] }],
              inputs: [{ name: "x", type, sizes }],
              outputs: [{ name: "y", type, sizes }],
              initializers: []
            }))
            const x = yield* engine.allocate(type, sizes)
            const y = yield* engine.allocate(type, sizes)
            x.bytes.forEach((_, i) => x.bytes[i] = type === "bool" ? (seed + i) % 2 : seed * (i + 1) % 251)
            const bound = yield* session.bind({ inputs: { x }, outputs: { y } })
            yield* bound.run
            assert.deepStrictEqual(y.bytes, x.bytes)
          }))))
        yield* Effect.promise(() => fc.assert(passes, { numRuns: 60 }))
      }))

    it.effect("runs subgraphs, which see their parent's values", () =>
      Effect.gen(function*() {
        const engine = yield* Engine.Engine
        const value = { type: "f32", sizes: [2] } as const
        const branch = (op: string): Graph => ({
          nodes: [{ op, inputs: ["x", "w"], outputs: ["result"] }],
          inputs: [],
          outputs: [{ name: "result", ...value }],
          initializers: [{ name: "w", ...value, bytes: new Uint8Array(Float32Array.of(3, 4).buffer) }]
        })
        const branches = { then_branch: { graph: branch("Add") }, else_branch: { graph: branch("Mul") } }
        const session = yield* engine.createSession(encodeModel({
          nodes: [{ op: "If", inputs: ["condition"], outputs: ["y"], attributes: branches }],
          inputs: [{ name: "condition", type: "bool", sizes: [] }, { name: "x", ...value }],
          outputs: [{ name: "y", ...value }],
          initializers: []
        }))
        const condition = yield* engine.allocate("bool", [])
        const x = yield* engine.allocate("f32", [2])
        const y = yield* engine.allocate("f32", [2])
        x.data.set([5, 6])
        const bound = yield* session.bind({ inputs: { condition, x }, outputs: { y } })
        yield* bound.run
        assert.deepStrictEqual([...y.data], [15, 24])
        condition.data[0] = 1
        yield* bound.run
        assert.deepStrictEqual([...y.data], [8, 10])
      }))

    it.effect("loads at every level of optimization", () =>
      Effect.gen(function*() {
        const engine = yield* Engine.Engine
        for (const optimization of ["off", "basic", "extended", "all"] as const) {
          const session = yield* engine.createSession(binary("Mul", [2]), { optimization })
          assert.deepStrictEqual(session.outputs, ["z"])
        }
      }))

    it.effect("overlaps runs of different sessions and keeps their results apart", () =>
      Effect.gen(function*() {
        const all = yield* Effect.all(Array.from({ length: 8 }, () => prepared("Add", [300, 300])))
        yield* Effect.forEach(all, ({ inputs, outputs, session, x, y, z }, index) =>
          Effect.gen(function*() {
            const bound = yield* session.bind({ inputs, outputs })
            for (let step = 0; step < 5; step++) {
              x.data.fill(index)
              y.data.fill(step)
              yield* bound.run
              assert.isTrue(z.data.every((value) => value === index + step))
            }
          }), { concurrency: "unbounded", discard: true })
      }))

    it.effect("does not let two runs of one binding overlap", () =>
      Effect.gen(function*() {
        const { inputs, outputs, session } = yield* prepared("Add", [300, 300])
        const bound = yield* session.bind({ inputs, outputs })
        const exits = yield* Effect.all([Effect.exit(bound.run), Effect.exit(bound.run)], { concurrency: 2 })
        // The JavaScript API holds the event loop, so there the second only begins when the first is done.
        const failed = exits.filter(Exit.isFailure)
        assert.strictEqual(failed.length, name === "koffi" ? 1 : 0)
        for (const exit of failed) assert.include(String(exit.cause), "wait for one run before the next")
        yield* bound.run
      }))

    it.effect("finishes a run that was begun, though its fiber is interrupted", () =>
      Effect.gen(function*() {
        const { inputs, outputs, session, x, z } = yield* prepared("Add", [500, 500])
        x.data.fill(7)
        const bound = yield* session.bind({ inputs, outputs })
        const fiber = yield* Effect.forkChild(bound.run, { startImmediately: true })
        yield* Fiber.interrupt(fiber)
        assert.isTrue(z.data.every((value) => value === 7))
      }))

    it.effect("waits for a run in flight before it frees a session, and refuses runs after", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const { inputs, outputs, session, x, z } = yield* prepared("Add", [500, 500]).pipe(Scope.provide(scope))
        x.data.fill(7)
        const bound = yield* session.bind({ inputs, outputs })
        const fiber = yield* Effect.forkChild(bound.run, { startImmediately: true })
        yield* Scope.close(scope, Exit.void)
        assert.isTrue(z.data.every((value) => value === 7))
        yield* Fiber.join(fiber)
        yield* session.close
        const error = yield* Effect.flip(bound.run)
        assert.strictEqual(
          error.message,
          `ONNX Runtime, in run: a session must be open while it runs
  Its Scope has ended: keep the run inside the Scope that created the session.`
        )
        assert.throws(() => bound.runSync(), "a session must be open")
        assert.strictEqual((yield* Effect.flip(session.bind({ inputs, outputs }))).reason, "Closed")
      }))

    it.effect("frees a session once when its Scope ends in the very step its run does", () =>
      Effect.forEach(Array.from({ length: 20 }), () =>
        Effect.scoped(Effect.gen(function*() {
          const { inputs, outputs, session } = yield* prepared("Add", [4])
          yield* (yield* session.bind({ inputs, outputs })).run
        })), { discard: true }))

    it.effect("keeps bound buffers that nobody else refers to", () =>
      Effect.gen(function*() {
        const engine = yield* Engine.Engine
        const session = yield* engine.createSession(binary("Add", [100_000]))
        const bind = Effect.fnUntraced(function*(z: Engine.Buffer) {
          const inputs = { x: yield* engine.allocate("f32", [100_000]), y: yield* engine.allocate("f32", [100_000]) }
          inputs.x.data.fill(1)
          inputs.y.data.fill(2)
          const bound = yield* session.bind({ inputs, outputs: { z } })
          Object.assign(inputs, { x: undefined, y: undefined }) // the caller's record is not what holds them
          return bound
        })
        const z = yield* engine.allocate("f32", [100_000])
        const bounds = yield* Effect.all(Array.from({ length: 5 }, () => bind(z)))
        for (const bound of bounds) {
          collectGarbage()
          const fiber = yield* Effect.forkChild(bound.run, { startImmediately: true })
          collectGarbage()
          for (let i = 0; i < 20; i++) new Float32Array(100_000).fill(9) // would take the place of freed memory
          yield* Fiber.join(fiber)
          assert.isTrue(z.data.every((value) => value === 3))
        }
      }))

    it.effect("frees bindings that were forgotten, and the others with the session, each once", () =>
      Effect.gen(function*() {
        const { inputs, outputs, session, x, z } = yield* prepared("Add", [4])
        x.data.fill(2)
        const kept = yield* session.bind({ inputs, outputs })
        for (let i = 0; i < 500; i++) yield* session.bind({ inputs, outputs })
        collectGarbage()
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5))) // finalizers run between turns
        const reused = yield* Effect.all(Array.from({ length: 500 }, () => session.bind({ inputs, outputs })))
        for (const bound of [...reused, kept]) {
          z.data.fill(0)
          bound.runSync()
          assert.deepStrictEqual([...z.data], [2, 2, 2, 2])
        }
        yield* session.close
        collectGarbage()
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5)))
      }))

    it.effect("refuses buffers that do not fit, and names every one", () =>
      Effect.gen(function*() {
        const { engine, session, x } = yield* prepared("Add", [2, 3])
        const wide = yield* engine.allocate("f64", [2, 3])
        const turned = yield* engine.allocate("f32", [3, 2])
        const error = yield* Effect.flip(session.bind({ inputs: { x: wide, w: x }, outputs: { z: turned } }))
        assert.strictEqual(
          error.message,
          `ONNX Runtime, in bind: every buffer must be what the model declares
  input x: the model has f32 [2, 3], the buffer f64 [2, 3]
  input y: the model has f32 [2, 3], no buffer was given
  input w: the model has no such input
  output z: the model has f32 [2, 3], the buffer f32 [3, 2]
  Make buffers with \`allocate\` or \`view\`, from the same sizes the model was written for.`
        )
        const short = { ...x, bytes: x.bytes.subarray(4) }
        const other = yield* Effect.flip(session.bind({ inputs: { x: short, y: x }, outputs: { z: x } }))
        assert.include(other.message, "input x: the model has f32 [2, 3], the buffer has 20 bytes")
      }))

    it.effect("refuses memory it cannot pass", () =>
      Effect.gen(function*() {
        const { engine, session, x, y, z } = yield* prepared("Add", [2, 3])
        if (name === "koffi") {
          const memory = new ArrayBuffer(512)
          const at = (start: number, memory: ArrayBuffer) => ({
            ...x,
            bytes: new Uint8Array(memory, start, 24),
            data: new Float32Array(memory, start, 6)
          })
          // Of two starts four bytes apart, one at least is not a multiple of 64.
          const errors = yield* Effect.all([0, 4].map((start) =>
            Effect.exit(session.bind({ inputs: { x: at(start, memory), y }, outputs: { z } }))
          ))
          assert.isTrue(errors.some((exit) => String(exit).includes("the buffer starts at no multiple of 64 bytes")))
          const small = at(0, new ArrayBuffer(24))
          assert.isTrue(Exit.isFailure(yield* Effect.exit(session.bind({ inputs: { x: small, y }, outputs: { z } }))))
        } else {
          const model = encodeModel({
            nodes: [{ op: "Identity", inputs: ["x"], outputs: ["y"] }],
            inputs: [{ name: "x", type: "bf16", sizes: [2] }],
            outputs: [{ name: "y", type: "bf16", sizes: [2] }],
            initializers: []
          })
          const half = yield* engine.allocate("bf16", [2])
          const session = yield* engine.createSession(model)
          const error = yield* Effect.flip(session.bind({ inputs: { x: half }, outputs: { y: half } }))
          assert.include(error.message, "x: the model has bf16 [2], the buffer cannot pass: only layerKoffi passes")
        }
      }))

    it.effect("refuses models that do not load, with the library's words", () =>
      Effect.gen(function*() {
        const { createSession } = yield* Engine.Engine
        const damaged = binary("Add", [2, 3]).map((byte, i) => i > 20 ? byte ^ 0x55 : byte)
        for (const bytes of [damaged, Uint8Array.of(1, 2, 3), new Uint8Array(0)]) {
          const error = yield* Effect.flip(Effect.scoped(createSession(bytes)))
          assert.strictEqual(error.reason, "BadModel")
          assert.include(error.message, `the model has ${bytes.length} bytes`)
        }
        const error = yield* Effect.flip(Effect.scoped(createSession(binary("Frobnicate", [2]))))
        assert.match(
          error.message,
          /^ONNX Runtime, in createSession: the model must load\n.*Frobnicate[^]*\n {2}The first line names what/
        )
      }))

    it.effect("fails a run in which an operator fails, and goes on", () =>
      Effect.gen(function*() {
        const engine = yield* Engine.Engine
        const session = yield* engine.createSession(encodeModel({
          nodes: [{ op: "Gather", inputs: ["table", "id"], outputs: ["row"] }],
          inputs: [{ name: "table", type: "f32", sizes: [3, 2] }, { name: "id", type: "i64", sizes: [] }],
          outputs: [{ name: "row", type: "f32", sizes: [2] }],
          initializers: []
        }))
        const table = yield* engine.allocate("f32", [3, 2])
        const id = yield* engine.allocate("i64", [])
        const row = yield* engine.allocate("f32", [2])
        table.data.set([1, 2, 3, 4, 5, 6])
        id.data[0] = 9n
        const bound = yield* session.bind({ inputs: { table, id }, outputs: { row } })
        const error = yield* Effect.flip(bound.run)
        assert.strictEqual(error.reason, "RunFailed")
        assert.match(error.message, /^ONNX Runtime, in run: an operator failed[^]*'row'[^]*indices[^]*Usual cause/)
        assert.throws(() => bound.runSync(), "an operator failed")
        id.data[0] = 2n
        yield* bound.run
        assert.deepStrictEqual([...row.data], [5, 6])
      }))
  })
}

layer(Engine.layerKoffi({ threads: 2 }))("Engine over koffi", (it) => {
  it.effect("runs nothing at once while all threads for runs are taken", () =>
    Effect.gen(function*() {
      const engine = yield* Engine.Engine
      const bound = Effect.fnUntraced(function*(op: string, size: number) {
        const session = yield* engine.createSession(binary(op, [size, size]))
        const [x, y, z] = yield* Effect.all([1, 2, 3].map(() => engine.allocate("f32", [size, size])))
        return yield* session.bind({ inputs: { x: x!, y: y! }, outputs: { z: z! } })
      })
      const short = yield* bound("Add", 2)
      while (short.attempt() === undefined) yield* short.run // on a machine that stands still, no run is short
      const long = yield* Effect.all([1, 2, 3].map(() => bound("MatMul", 1000)))
      const running = yield* Effect.forEach(long, ({ run }) => Effect.forkChild(run, { startImmediately: true }))
      assert.isUndefined(short.attempt())
      yield* Effect.forEach(running, Fiber.join)
      yield* short.run
    }))

  it.effect("keeps the event loop alive during a run, and runs two at once", () =>
    Effect.gen(function*() {
      const engine = yield* Engine.Engine
      const session = yield* engine.createSession(binary("MatMul", [1400, 1400]))
      const bind = Effect.gen(function*() {
        const [x, y, z] = yield* Effect.all([1, 2, 3].map(() => engine.allocate("f32", [1400, 1400])))
        return yield* session.bind({ inputs: { x: x!, y: y! }, outputs: { z: z! } })
      })
      let turns = 0
      const turn = () => {
        turns++
        timer = setImmediate(turn)
      }
      let timer = setImmediate(turn)
      yield* Effect.all([(yield* bind).run, (yield* bind).run], { concurrency: 2 })
      clearImmediate(timer)
      assert.isAbove(turns, 5)
    }))

  it.effect("runs at once what is short, and lets the event loop turn every few milliseconds all the same", () =>
    Effect.gen(function*() {
      const engine = yield* Engine.Engine
      /** In how many runs the event loop turned: counted so, it matters little if the system stops one for a while. */
      const turnedIn = Effect.fnUntraced(function*(op: string, size: number, count: number, enough: number) {
        const session = yield* engine.createSession(binary(op, [size, size]))
        const [x, y, z] = yield* Effect.all([1, 2, 3].map(() => engine.allocate("f32", [size, size])))
        const { run } = yield* session.bind({ inputs: { x: x!, y: y! }, outputs: { z: z! } })
        yield* run // the first tells how long it takes
        let turned = 0
        for (let i = 0; i < count && turned < enough; i++) {
          let hasTurned = false
          const timer = setImmediate(() => { hasTurned = true })
          yield* run
          clearImmediate(timer)
          if (hasTurned) turned++
        }
        return turned
      })
      assert.isBelow(yield* turnedIn("Add", 4, 200, 200), 100)
      // the quicker the machine, the more runs it takes
      assert.strictEqual(yield* turnedIn("MatMul", 300, 20_000, 8), 8)
    }).pipe(Effect.provideService(References.MaxOpsBeforeYield, Infinity))) // so that Effect itself never yields

  it.effect("aligns buffers to 64 bytes of real memory", () =>
    Effect.gen(function*() {
      const engine = yield* Engine.Engine
      const session = yield* engine.createSession(binary("Add", [3]))
      for (let i = 0; i < 50; i++) {
        const x = yield* engine.allocate("f32", [3])
        yield* session.bind({ inputs: { x, y: x }, outputs: { z: x } }) // refuses what is not aligned
      }
    }))
})
