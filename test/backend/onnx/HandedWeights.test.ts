/**
 * Which weights a session is handed, and that programs compute the same with them, whatever reads them.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { readFileSync } from "node:fs"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { type AnyCell, Backend } from "../../../src/backend/Backend.ts"
import { isCell } from "../../../src/backend/HostState.ts"
import type { Buffer } from "../../../src/backend/onnx/Buffer.ts"
import { Engine } from "../../../src/backend/onnx/Engine.ts"
import { fewestBytes, handOver } from "../../../src/backend/onnx/HandedWeights.ts"
import { encodeModel, type Graph, type Node } from "../../../src/backend/onnx/ModelProto.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/OnnxRuntime.ts"
import * as BlockCodes from "../../../src/tensor/BlockCodes.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { entries } from "../../../src/tensor/Tree.ts"
import * as Arbitrary from "../../../src/testing/Arbitrary.ts"
import { backends, engines } from "./layers.ts"

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

const [inner, outer] = [128, 160] // 80 KiB

const graphOf = (nodes: ReadonlyArray<Node>, bytes = new Uint8Array(4 * inner * outer)): Graph => ({
  nodes,
  inputs: [{ name: "x", type: "f32", sizes: [1, inner] }],
  outputs: [{ name: "y", type: "f32", sizes: [1, outer] }],
  initializers: [{ name: "w", type: "f32", sizes: [inner, outer], bytes }]
})

const product: Node = { op: "MatMul", inputs: ["x", "w"], outputs: ["y"] }

describe("weights", () => {
  const isHanded = (graph: Graph) => {
    const split = handOver(graph, "here")
    const names = split.weights.map(({ name }) => name)
    assert.deepStrictEqual((split.graph.externals ?? []).map(({ location, name }) => [location, name]),
      names.map((name) => ["here", name]))
    return names.length > 0 && !split.graph.initializers.some(({ name }) => names.includes(name))
  }
  it("are handed over where only products and look-ups read them", () => {
    assert.isTrue(isHanded(graphOf([product])))
    assert.isTrue(isHanded(graphOf([product, { op: "Gather", inputs: ["w", "ids"], outputs: ["z"] }])))
  })
  it("stand in the graph where a rewrite could want their bytes", () => {
    const turned: Node = { op: "Transpose", inputs: ["w"], outputs: ["z"] }
    const body = { ...graphOf([product]), initializers: [] }
    assert.isFalse(isHanded(graphOf([product, turned])))
    assert.isFalse(isHanded(graphOf([{ op: "MatMul", inputs: ["w", "x"], outputs: ["y"] }])))
    assert.isFalse(isHanded(graphOf([
      product, { op: "If", inputs: ["is"], outputs: ["z"], attributes: { then_branch: { graph: body } } }
    ])))
  })
  it("stand in the graph where what reads them could be computed when it is loaded", () => {
    assert.isFalse(isHanded(graphOf([product, { op: "Gather", inputs: ["w", "w"], outputs: ["z"] }])))
    const [turned, folded]: ReadonlyArray<Node> = [
      { op: "Gather", inputs: ["s", "s"], outputs: ["t"] }, { op: "MatMul", inputs: ["t", "w"], outputs: ["y"] }
    ]
    const graph = graphOf([turned!, folded!])
    const small = { name: "s", type: "f32", sizes: [1], bytes: new Uint8Array(4) } as const
    assert.isFalse(isHanded({ ...graph, initializers: [...graph.initializers, small] }))
  })
  it("stand in the graph where they are small", () => {
    assert.isFalse(isHanded(graphOf([product], new Uint8Array(fewestBytes - 1))))
  })

  it.effect("are read where they lie", () => Effect.gen(function*() {
    const engine = yield* Engine
    const w = yield* engine.allocate("f32", [inner, outer])
    const [x, y] = [yield* engine.allocate("f32", [1, inner]), yield* engine.allocate("f32", [1, outer])]
    w.data.set(Float32Array.from(Arbitrary.reals("w", inner * outer)))
    x.data.set(Float32Array.from(Arbitrary.reals("x", inner)))
    const expected = Array.from({ length: outer }, (_, column) =>
      x.data.reduce((total, factor, row) => total + factor * (w.data[row * outer + column] ?? NaN), 0))
    const { graph } = handOver(graphOf([product]), engine.weightsFile ?? "")
    const session = yield* engine.createSession(encodeModel(graph), { weights: new Map([["w", w]]) })
    const { run } = yield* session.bind({ inputs: { x }, outputs: { y } })
    yield* run
    y.data.forEach((found, column) => assert.closeTo(found, expected[column]!, 1e-4))
  }).pipe(Effect.scoped, Effect.provide(engines.koffi)))

  it.effect("are as many as memory holds where they are handed over, else less than 2 GiB together", () =>
    Effect.gen(function*() {
      const limits = yield* Effect.forEach(backends, ([, backend]) =>
        Effect.provide(Effect.map(Backend, ({ capabilities }) => capabilities.constantBytes), backend))
      assert.deepStrictEqual(limits, [undefined, 2 ** 31 - 2 ** 24])
    }))

  it.effect("live as long as what is bound over them, be its Scope forgotten and never closed", () =>
    Effect.gen(function*() {
      const engine = yield* Engine
      const y = yield* engine.allocate("f32", [3, 2 ** 16])
      const bound = Effect.fnUntraced(function*(value: number) {
        const table = yield* engine.allocate("f32", [8, 2 ** 16]) // not large, or its pages would be gathered meanwhile
        table.data.fill(value)
        const ids = yield* engine.allocate("i32", [3])
        const { graph } = handOver({
          nodes: [{ op: "Gather", inputs: ["w", "ids"], outputs: ["y"] }],
          inputs: [{ name: "ids", type: "i32", sizes: [3] }], outputs: [{ name: "y", type: "f32", sizes: y.sizes }],
          initializers: [{ name: "w", type: "f32", sizes: table.sizes, bytes: table.bytes }]
        }, engine.weightsFile ?? "")
        const weights = new Map([["w", table]])
        const session = yield* Scope.provide(engine.createSession(encodeModel(graph), { weights }), yield* Scope.make())
        return yield* session.bind({ inputs: { ids }, outputs: { y } })
      })
      const all = yield* Effect.forEach([1, 2, 3], bound)
      for (let turn = 0; turn < 5; turn++) {
        collectGarbage()
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        for (let i = 0; i < 8; i++) new Float32Array(8 * 2 ** 16 + 64).fill(9) // would take the place of freed memory
      }
      for (const [i, { run }] of all.entries()) {
        yield* run
        assert.deepStrictEqual([...new Set(y.data)], [i + 1])
      }
    }).pipe(Effect.scoped, Effect.provide(engines.koffi)))

  it.effect("that are missing are a failure, not other numbers", () => Effect.gen(function*() {
    const engine = yield* Engine
    const { graph } = handOver(graphOf([product]), engine.weightsFile ?? "")
    const error = yield* Effect.flip(Effect.scoped(engine.createSession(encodeModel(graph))))
    assert.strictEqual(error.reason, "BadModel")
  }).pipe(Effect.provide(engines.koffi)))

  it.effect("of a program are those that its cells had when it was compiled, whatever reads them", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const place = { place: 400, inner: 64 }
      const program = yield* Program.make("readers", {
        inputs: { x: Specification.real({ row: 3, inner: 64 }), ids: Specification.ids({ row: 3 }) },
        state: { w: Specification.real(place), v: Specification.real({ inner: 64, column: 300 }) }
      }, ({ ids, x }, { v, w }) => {
        const scores = T.contract(x, w, "inner")
        return {
          outputs: {
            scores, all: T.multiply(w, 2), back: T.contract(scores, w, "place"), found: T.take(w, "place", ids),
            first: T.take(w, "place", T.positions("row", 3)), inner: T.contract(w, v, "inner"),
            sum: T.add(T.contract(x, v, "inner"), T.fill({ row: 3, column: 300 }, 0.5))
          }
        }
      })
      const cells = yield* backend.allocate(program.state, {
        initial: (path, sizes) => Arbitrary.reals(path, Object.values(sizes).reduce((all, size) => all * size, 1))
      })
      const inputs = { x: Arbitrary.reals("x", 3 * 64), ids: Int32Array.of(7, 399, 0) }
      const loose = yield* (yield* (yield* backend.compile(program)).bind(cells)).run(inputs)
      const constants = new Map([["w", cells.w], ["v", cells.v]] as ReadonlyArray<readonly [string, AnyCell]>)
      const bound = yield* (yield* backend.compile(program, { constants })).bind(cells)
      for (const cell of [cells.w, cells.v]) {
        yield* backend.write(cell, new Float32Array(Object.values(cell.sizes).reduce((all, size) => all * size, 1)))
      }
      const frozen = yield* bound.run(inputs)
      for (const [name, { elements }] of Object.entries(frozen)) {
        const expected = loose[name as keyof typeof loose].elements
        let apart = 0
        elements.forEach((found, i) => { apart = Math.max(apart, Math.abs(found - expected[i]!)) })
        assert.isAtMost(apart, 1e-3, name)
      }
    }).pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))

  it.effect("are told apart by their scales where their codes are the same", () => Effect.gen(function*() {
    const backend = yield* Backend
    const sizes = { inner: 256, outer: 512 }
    const over = { inner: 256 }
    for (const bits of [8, 4] as const) {
      const coded = BlockCodes.specification(sizes, ["inner"], { bits, block: 32 })
      const product = (row: number) => Program.make("twice", {
        inputs: { x: Specification.real({ row, inner: 256 }) }, state: { once: coded, twice: coded }
      }, ({ x }, { once, twice }) => ({
        outputs: {
          once: T.contract(x, BlockCodes.dequantize(once, over, bits), "inner"),
          twice: T.contract(x, BlockCodes.dequantize(twice, over, bits), "inner")
        }
      }))
      const weights = Float32Array.from(Arbitrary.reals("w", 256 * 512))
      const { codes, scales } =
        yield* Effect.fromResult(BlockCodes.encode(weights, sizes, ["inner"], { bits, block: 32 }))
      const cells = yield* backend.allocate({ once: coded, twice: coded })
      for (const [cell, factor] of [[cells.once, 1], [cells.twice, 2]] as const) {
        yield* backend.write(cell.codes, codes)
        yield* backend.write(cell.scales, scales.map((scale) => factor * scale))
      }
      yield* backend.seal(cells)
      const constants = new Map(entries(cells, isCell))
      for (const row of [1, 3]) {
        const bound = yield* (yield* backend.compile(yield* product(row), { constants })).bind(cells)
        const { once, twice } = yield* bound.run({ x: Arbitrary.reals("x", row * 256) })
        twice.elements.forEach((found, i) => assert.closeTo(found, 2 * once.elements[i]!, 1e-3))
        assert.isAbove(Math.max(...once.elements), 1)
      }
    }
  }).pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))
})

/** MiB of memory that this process holds, but for files and garbage. */
const resident = (): number => {
  collectGarbage()
  return Number(/RssAnon:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]) / 1024
}

describe("what is packed of weights", () => {
  const [rows, columns] = [2048, 4096] // 32 MiB
  const open = Effect.fnUntraced(function*(weights: Buffer, sharing?: object) {
    const engine = yield* Engine
    const whole: Graph = {
      nodes: [product], inputs: [{ name: "x", type: "f32", sizes: [1, rows] }],
      outputs: [{ name: "y", type: "f32", sizes: [1, columns] }],
      initializers: [{ name: "w", type: "f32", sizes: [rows, columns], bytes: weights.bytes }]
    }
    const { graph } = handOver(whole, engine.weightsFile ?? "")
    const options = { weights: new Map([["w", weights]]), ...sharing === undefined ? {} : { sharing } }
    const session = yield* engine.createSession(encodeModel(graph), options)
    const [x, y] = [yield* engine.allocate("f32", [1, rows]), yield* engine.allocate("f32", [1, columns])]
    x.data.fill(1)
    yield* (yield* session.bind({ inputs: { x }, outputs: { y } })).run
    return [...y.data.subarray(0, 8)]
  })
  const weights = Effect.gen(function*() {
    const buffer = yield* (yield* Engine).allocate("f32", [rows, columns])
    buffer.data.forEach((_, i) => { buffer.data[i] = i % 97 / 97 })
    return buffer
  })
  const isLinux = process.platform === "linux"
  it.effect.skipIf(!isLinux)("is kept once for all that share it, until the last closes (needs Linux's /proc)", () =>
    Effect.gen(function*() {
      const buffer = yield* weights
      const [one, other] = [{}, {}]
      const grown = (sharing: object | undefined) => Effect.gen(function*() {
        const first = yield* open(buffer, sharing)
        const before = resident()
        for (let i = 0; i < 8; i++) assert.deepStrictEqual(yield* open(buffer, sharing), first)
        return resident() - before
      })
      const apart = yield* Effect.scoped(grown(undefined))
      const shared = yield* Effect.scoped(grown(one))
      // 256 and 0, but for what else comes and goes meanwhile: up to 40 were seen
      assert.isAbove(apart, 160)
      assert.isBelow(shared, 96)
      yield* Effect.scoped(grown(other)) // what malloc keeps for itself
      const before = resident()
      for (let i = 0; i < 8; i++) yield* Effect.scoped(open(buffer, one))
      assert.isBelow(resident() - before, 96) // each would leave 32
      const scope = yield* Scope.make()
      const kept = yield* open(buffer, one)
      const again = yield* Scope.provide(open(buffer, one), scope)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* open(buffer, one), kept)
      assert.deepStrictEqual(again, kept)
    }).pipe(Effect.scoped, Effect.provide(engines.koffi)))
})
