/**
 * Products of few rows with frozen weights, as operators of our own: what the definition says, within the rounding of
 * float32, for single, joined and transposed weights, beside look-ups of the same table.
 *
 *     |y − ŷ| ≤ (terms + 1) 2⁻²⁴ Σ |x| |w|
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as fc from "fast-check"
import { type AnyCell, Backend } from "../../../src/backend/Backend.ts"
import { emit, readsOf } from "../../../src/backend/onnx/Emit.ts"
import { layerKoffi } from "../../../src/backend/onnx/Engine.ts"
import { joinProducts } from "../../../src/backend/onnx/JoinedProducts.ts"
import { machineDomain } from "../../../src/backend/onnx/MachineOperator.ts"
import { packOnce } from "../../../src/backend/onnx/MachineProduct.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/OnnxRuntime.ts"
import * as Program from "../../../src/tensor/Program.ts"
import { lower } from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../../src/testing/Arbitrary.ts"
import { forAll } from "../../../src/testing/BackendLaw.ts"

const shapes = fc.record({
  batch: fc.integer({ min: 1, max: 40 }), embed: fc.integer({ min: 1, max: 40 }),
  hidden: fc.integer({ min: 1, max: 50 }), vocab: fc.integer({ min: 1, max: 40 }), seed: fc.integer({ min: 0 })
})

type Sizes = Readonly<Record<"batch" | "embed" | "hidden" | "vocab", number>>

/** Two products that may be joined, and one with a table that is looked up too. */
const programOf = ({ batch, embed, hidden, vocab }: Sizes) =>
  Program.make("products", {
    inputs: { ids: Specification.ids({ batch }) },
    state: {
      table: Specification.real({ vocab, embed }),
      gate: Specification.real({ embed, hidden }), up: Specification.real({ embed, hidden })
    }
  }, ({ ids }, { gate, table, up }) => {
    const x = T.take(table, "vocab", ids)
    return { outputs: { gate: T.contract(x, gate, "embed"), up: T.contract(x, up, "embed"),
      logits: T.contract(x, table, "embed") } }
  })

const backend = Layer.provide(OnnxRuntime.layerNoDeps, Layer.orDie(layerKoffi({ threads: 2 })))
const without = Layer.provide(OnnxRuntime.layerNoDeps, Layer.orDie(layerKoffi({ threads: 2, machineCode: false })))

describe("a product with frozen weights", () => {
  for (const [name, each] of [["with code of our own", backend], ["without", without]] as const) {
    layer(each)(name, (it) => {
      it.effect("is what the definition says", () => forAll(shapes, (sizes) => Effect.gen(function*() {
        const { batch, embed, hidden, seed, vocab } = sizes
        const { allocate, compile } = yield* Backend
        const program = yield* Effect.orDie(programOf(sizes))
        const values = {
          table: Arbitrary.reals(seed, vocab * embed), gate: Arbitrary.reals(seed + 1, embed * hidden),
          up: Arbitrary.reals(seed + 2, embed * hidden)
        }
        const cells = yield* allocate(program.state, { initial: (path) => Float32Array.from(values[path as "gate"]) })
        const constants = new Map<string, AnyCell>(Object.entries(cells))
        const bound = yield* (yield* compile(program, { constants })).bind(cells)
        const ids = Int32Array.from({ length: batch }, (_, row) => (row * 7 + seed) % vocab)
        const outputs = yield* bound.run({ ids })
        const weightOf = (weights: ArrayLike<number>, k: number, column: number) =>
          Math.fround(weights === values.table ? weights[column * embed + k] ?? 0 : weights[k * hidden + column] ?? 0)
        const results: Readonly<Record<string, ArrayLike<number>>> = {
          gate: outputs.gate.elements, up: outputs.up.elements, logits: outputs.logits.elements
        }
        for (const result of ["gate", "up", "logits"] as const) {
          const columns = result === "logits" ? vocab : hidden
          const weights = result === "logits" ? values.table : values[result]
          for (let row = 0; row < batch; row++) for (let column = 0; column < columns; column++) {
            let [sum, most] = [0, 0]
            for (let k = 0; k < embed; k++) {
              const term = Math.fround(values.table[(ids[row] ?? 0) * embed + k] ?? 0) * weightOf(weights, k, column)
              sum += term
              most += Math.abs(term)
            }
            const got = results[result]?.[row * columns + column] ?? NaN
            assert.isTrue(Math.abs(got - sum) <= (embed + 1) * 2 ** -24 * most, `${result}: ${got}, ${sum}`)
          }
        }
      }).pipe(Effect.scoped)))
    })
  }

  const nodesOf = Effect.fnUntraced(function*(batch: number, frozen: ReadonlyArray<string>) {
    const program = yield* programOf({ batch, embed: 8, hidden: 16, vocab: 32 })
    const sizes = { table: 256, gate: 128, up: 128 }
    const constants = new Map(frozen.map((path) => [path, new Uint8Array(4 * sizes[path as "gate"])] as const))
    const joined = joinProducts(lower(program, { hasKernel: () => false, watch: [] }), constants)
    const pack = packOnce((length) => new Float32Array(length))
    const { graph, operators } = emit(joined.lowered, "f32", joined.constants, "cpu", { threads: 2, pack })
    const read = new Set(graph.nodes.flatMap(readsOf))
    for (const { name } of graph.initializers) assert.isTrue(read.has(name), `${name} is read`)
    const named = graph.nodes.flatMap(({ domain, op }) => domain === machineDomain ? [op] : [])
    assert.deepStrictEqual([...new Set(named)], operators.map(({ name }) => name))
    return named
  })
  it.effect("of at most 32 rows is one of ours, the joined ones together", () => Effect.gen(function*() {
    const all = ["table", "gate", "up"]
    assert.deepStrictEqual(yield* nodesOf(3, all), ["PanelProduct_3_8_32", "PanelProduct_3_8_32"])
    assert.deepStrictEqual(yield* nodesOf(33, all), [])
    assert.deepStrictEqual(yield* nodesOf(32, ["gate"]), ["PanelProduct_32_8_16"])
    assert.deepStrictEqual(yield* nodesOf(32, []), [])
  }))

  it.effect("reads a constant along either axis", () => Effect.gen(function*() {
    const { compile, allocate } = yield* Backend
    const program = yield* Program.makeGeneric("shapes", {
      inputs: { x: Specification.real({ batch: 1, embed: 17 }), z: Specification.real({ batch: 1, hidden: 16 }) },
      state: { weight: Specification.real({ embed: 17, hidden: 16 }) }
    }, ({ x, z }, { weight }) => ({
      outputs: { forth: T.contract(x, weight, "embed"), back: T.contract(z, weight, "hidden") }
    }))
    const weights = Arbitrary.reals(3, 17 * 16)
    const cells = yield* allocate(program.state, { initial: () => Float32Array.from(weights) })
    const bound = yield* (yield* compile(program, { constants: new Map(Object.entries(cells)) })).bind(cells)
    const { back, forth } = yield* bound.run({ x: new Float32Array(17).fill(1), z: new Float32Array(16).fill(1) })
    for (let hidden = 0; hidden < 16; hidden++) {
      const sum = Array.from({ length: 17 }, (_, k) => weights[16 * k + hidden] ?? 0).reduce((a, b) => a + b, 0)
      assert.approximately(forth.elements[hidden] ?? NaN, sum, 1e-5)
    }
    for (let embed = 0; embed < 17; embed++) {
      const sum = weights.slice(16 * embed, 16 * embed + 16).reduce((a, b) => a + b, 0)
      assert.approximately(back.elements[embed] ?? NaN, sum, 1e-5)
    }
  }).pipe(Effect.scoped, Effect.provide(backend)))

  it("packs a constant once as long as it lives, one way or the other", () => {
    let allocated = 0
    const pack = packOnce((length) => {
      allocated++
      return new Float32Array(length)
    })
    const memory = Float32Array.from({ length: 12 }, (_, i) => i)
    const bytes = () => new Uint8Array(memory.buffer)
    const panels = pack(bytes(), { summed: 3, columns: 4 }, false)
    assert.strictEqual(pack(bytes(), { summed: 3, columns: 4 }, false), panels)
    assert.notStrictEqual(pack(bytes(), { summed: 3, columns: 4 }, true), panels)
    assert.notStrictEqual(pack(bytes(), { summed: 4, columns: 3 }, false), panels)
    assert.strictEqual(allocated, 3)
    const firstRow = new Float32Array(panels.buffer, panels.byteOffset).subarray(0, 16)
    assert.deepStrictEqual([...firstRow], [0, 1, 2, 3, ...Array.from({ length: 12 }, () => 0)])
  })
})
