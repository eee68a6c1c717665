/**
 * Which weights a session is handed, and that it computes the same with them, whatever reads them, and frees them.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Backend } from "../../../src/backend/Backend.ts"
import { Engine } from "../../../src/backend/onnx/Engine.ts"
import { fewestBytes, handOver } from "../../../src/backend/onnx/HandedWeights.ts"
import { encodeModel, type Graph, type Node } from "../../../src/backend/onnx/ModelProto.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/OnnxRuntime.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../../src/testing/Arbitrary.ts"
import { engines } from "./layers.ts"

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
  it("stand in the graph where they are small", () => {
    assert.isFalse(isHanded(graphOf([product], new Uint8Array(fewestBytes - 1))))
  })

  it.effect("are read where they lie, and as they are when the session is made", () => Effect.gen(function*() {
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

  it.effect("that are missing are a failure, not other numbers", () => Effect.gen(function*() {
    const engine = yield* Engine
    const { graph } = handOver(graphOf([product]), engine.weightsFile ?? "")
    const error = yield* Effect.flip(Effect.scoped(engine.createSession(encodeModel(graph))))
    assert.strictEqual(error.reason, "BadModel")
  }).pipe(Effect.provide(engines.koffi)))

  it.effect("of a program are those that its cells had when it was compiled", () => Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* Program.make("product", {
      inputs: { x: Specification.real({ row: 3, inner }) }, state: { w: Specification.real({ inner, outer }) }
    }, ({ x }, { w }) => ({ outputs: { y: T.contract(x, w, "inner") } }))
    const cells = yield* backend.allocate(program.state, { initial: () => Arbitrary.reals("w", inner * outer) })
    const x = Arbitrary.reals("x", 3 * inner)
    const loose = yield* (yield* (yield* backend.compile(program)).bind(cells)).run({ x })
    const bound = yield* (yield* backend.compile(program, { constants: new Map([["w", cells.w]]) })).bind(cells)
    yield* backend.write(cells.w, new Float32Array(inner * outer))
    const { y } = yield* bound.run({ x })
    y.elements.forEach((found, i) => assert.closeTo(found, loose.y.elements[i]!, 1e-4))
  }).pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))
})
