/**
 * The product with weights in codes of rows: as fused operators, whose own error is bounded, with codes frozen or in
 * cells.
 *
 *     |y − ŷ| ≤ max |x| / 254 · Σ |ŵ|
 *
 * each vector of x is coded in 8 bits: each element is off by at most half of the largest over 127. Codes in cells that
 * are not frozen are multiplied as numbers, and so are all where sums of products of bytes are wrong.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as fc from "fast-check"
import { type AnyCell, Backend } from "../../../src/backend/Backend.ts"
import { emit } from "../../../src/backend/onnx/Emit.ts"
import { hasKernel } from "../../../src/backend/onnx/Kernel.ts"
import * as BlockCodes from "../../../src/tensor/BlockCodes.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { forAll } from "../../../src/testing/BackendLaw.ts"
import * as Arbitrary from "../../../src/testing/Arbitrary.ts"
import { backends, saturating } from "./layers.ts"

const scheme = { bits: 8, block: "row" } as const

const shapes = fc.record({
  batch: fc.integer({ min: 1, max: 5 }), embed: fc.integer({ min: 1, max: 70 }),
  kvHead: fc.integer({ min: 1, max: 3 }), plane: fc.integer({ min: 1, max: 6 }), hidden: fc.integer({ min: 1, max: 20 })
})

type Shape = typeof shapes extends fc.Arbitrary<infer S> ? S : never

/** Two products of x, which are joined where their weights are frozen. */
const productOf = ({ batch, embed, hidden, kvHead, plane }: Shape) =>
  Program.make("product", {
    inputs: { x: Specification.real({ batch, embed }) },
    state: {
      heads: BlockCodes.specification({ embed, kvHead, plane }, ["embed"], scheme),
      gate: BlockCodes.specification({ embed, hidden }, ["embed"], scheme)
    }
  }, ({ x }, { gate, heads }) => ({
    outputs: {
      heads: T.contract(x, BlockCodes.dequantize(heads, { embed }, "row"), "embed"),
      gate: T.contract(x, BlockCodes.dequantize(gate, { embed }, "row"), "embed")
    }
  }))

const encoded = (seed: number, embed: number, rows: number) =>
  Result.getOrThrow(BlockCodes.encode(Arbitrary.reals(seed, embed * rows), { embed, rows }, ["embed"], scheme))

/** Codes as they are written to cells, frozen or not, and the products with some x. */
const products = Effect.fnUntraced(function*(
  shape: Shape, isFrozen: boolean, coded: Readonly<Record<"heads" | "gate", BlockCodes.Encoded>>,
  x: Float32Array | Float64Array
) {
  const backend = yield* Backend
  const program = yield* Effect.orDie(productOf(shape))
  const cells = yield* backend.allocate(program.state)
  const all: Array<readonly [string, AnyCell]> = []
  for (const name of ["heads", "gate"] as const) {
    yield* backend.write(cells[name].codes, coded[name].codes)
    yield* backend.write(cells[name].scales, coded[name].scales)
    all.push([`${name}.codes`, cells[name].codes], [`${name}.scales`, cells[name].scales])
  }
  const constants = new Map(isFrozen ? all : [])
  const { heads, gate } = yield* Effect.flatMap(Effect.flatMap(
    backend.compile(program, { constants }), ({ bind }) => bind(cells)), ({ run }) => run({ x }))
  return { heads: heads.elements, gate: gate.elements }
})

describe("the product with codes of rows", () => {
  it.effect("codes each vector once, for all that multiply it, and reads frozen codes as they lie", () =>
    Effect.gen(function*() {
      const program = yield* productOf({ batch: 2, embed: 40, kvHead: 3, plane: 5, hidden: 7 })
      const lowered = Program.lower(program, { hasKernel, watch: [] })
      const operators = (constants: ReadonlyMap<string, Uint8Array>) => {
        const { graph } = emit(lowered, "f32", constants)
        const initializers = graph.initializers.filter(({ name }) => name.startsWith("cell:"))
        return [graph.nodes.map(({ op }) => op), initializers.map(({ sizes, type }) => [type, ...sizes])]
      }
      const vectors = ["Abs", "ReduceMax", "ReduceSum", "Min", "Div", "QuantizeLinear"]
      const frozen = new Map(["heads", "gate"].flatMap((name) =>
        [[`${name}.codes`, new Uint8Array()], [`${name}.scales`, new Uint8Array()]] as const))
      assert.deepStrictEqual(operators(frozen), [
        [...vectors, "MatMulIntegerToFloat", "Mul", "MatMulIntegerToFloat", "Mul"]
          .flatMap((op, i) => i === 7 ? [op, "Reshape"] : [op]),
        [["i8", 40, 15], ["f32", 15], ["i8", 40, 7], ["f32", 7]]
      ])
      const [open = []] = operators(new Map()) // codes that are no constants are made numbers
      const product = ["Cast", "Cast", "Mul", "MatMul"]
      assert.deepStrictEqual(open.filter((op) => op !== "Reshape"), [...product, ...product])
    }))
})

for (const [engine, backend] of [...backends, saturating]) {
  describe(`over ${engine}`, () => {
    layer(backend)((it) => {
      const drawn = fc.record({ shape: shapes, seed: fc.integer({ min: 1, max: 1e6 }), isFrozen: fc.boolean() })

      it.effect("is off by no more than coding each vector explains", () =>
        forAll(drawn, ({ isFrozen, seed, shape }) => Effect.gen(function*() {
          const { batch, embed, hidden, kvHead, plane } = shape
          const x = Arbitrary.reals(seed, batch * embed)
          const coded = { heads: encoded(seed + 1, embed, kvHead * plane), gate: encoded(seed + 2, embed, hidden) }
          const found = yield* products(shape, isFrozen, coded, x)
          const codesVectors = isFrozen && (yield* Backend).capabilities.kernels.includes("contractRows")
          const relative = codesVectors ? 1.001 / 254 : (embed + 4) * 2 ** -23 // of numbers: rounding alone
          for (const name of ["heads", "gate"] as const) {
            const { codes, scales } = coded[name]
            const rows = scales.length
            for (let example = 0; example < batch; example++) {
              const vector = x.subarray(example * embed, (example + 1) * embed)
              const largest = vector.reduce((most, element) => Math.max(most, Math.abs(element)), 0)
              for (let row = 0; row < rows; row++) {
                let [sum, total] = [0, 0]
                for (let k = 0; k < embed; k++) {
                  const weight = new Int8Array(codes.buffer)[k * rows + row]! * scales[row]!
                  sum += vector[k]! * weight
                  total += Math.abs(weight)
                }
                const room = 1e-6 + largest * relative * total
                assert.closeTo(found[name][example * rows + row]!, sum, room)
              }
            }
          }
        }).pipe(Effect.scoped), { numRuns: 30 }))

      const shape = { batch: 3, embed: 64, kvHead: 1, plane: 2, hidden: 24 }
      const ones = (rows: number) => Result.getOrThrow(BlockCodes.encode(
        new Float32Array(64 * rows).fill(127), { embed: 64, rows }, ["embed"], scheme))
      const extremes = { heads: ones(2), gate: ones(24) }

      it.effect.each([true, false])("sums the largest codes without loss, frozen: %s", (isFrozen) =>
        Effect.gen(function*() {
          const { gate } = yield* products(shape, isFrozen, extremes, new Float32Array(3 * 64).fill(1))
          gate.forEach((element) => assert.closeTo(element, 64 * 127, 64 * 127 * 1e-6))
          const { heads } = yield* products(shape, isFrozen, extremes, new Float32Array(3 * 64).fill(-3))
          heads.forEach((element) => assert.closeTo(element, -3 * 64 * 127, 3 * 64 * 127 * 1e-6))
        }).pipe(Effect.scoped))

      it.effect("is zero for a vector of zeros, and of very small numbers small", () => Effect.gen(function*() {
        const x = new Float32Array(3 * 64)
        x.fill(1e-40, 64, 128)
        x.fill(1, 128)
        const { gate } = yield* products(shape, true, extremes, x)
        assert.isTrue(gate.slice(0, 24).every((element) => element === 0))
        gate.slice(24, 48).forEach((element) => assert.closeTo(element, 64 * 127 * 1e-40, 1e-38))
        gate.slice(48).forEach((element) => assert.closeTo(element, 64 * 127, 0.01))
      }).pipe(Effect.scoped))

      if (backend === saturating[1]) return // what follows is of the fused operators

      /** Where products of bytes are not exact (see `Saturation`), the decomposition runs. */
      const needsKernel = (skip: (note: string) => void) => Effect.map(Backend, ({ capabilities }) => {
        const isExact = capabilities.kernels.includes("contractRows")
        if (!isExact) skip("skipped: products of bytes saturate on this processor")
      })

      it.effect("is the same in every bit for a vector alone and among others", ({ skip }) =>
        Effect.andThen(needsKernel(skip), forAll(drawn, ({ seed, shape }) => Effect.gen(function*() {
          const { batch, embed, hidden, kvHead, plane } = shape
          const x = Arbitrary.reals(seed, batch * embed).map((element, i) => // of very different sizes
            element * 10 ** (3 * Math.floor(i / embed) - 5))
          const coded = { heads: encoded(seed + 1, embed, kvHead * plane), gate: encoded(seed + 2, embed, hidden) }
          const together = yield* products(shape, true, coded, x)
          for (let example = 0; example < batch; example++) {
            const vector = x.slice(example * embed, (example + 1) * embed)
            const alone = yield* products({ ...shape, batch: 1 }, true, coded, vector)
            for (const name of ["heads", "gate"] as const) {
              const rows = alone[name].length
              assert.deepStrictEqual(together[name].slice(example * rows, (example + 1) * rows), alone[name])
            }
          }
        }).pipe(Effect.scoped), { numRuns: 8 })))

      it.effect("is finite for no vector that is not, and for all others", ({ skip }) => Effect.gen(function*() {
        yield* needsKernel(skip)
        for (const odd of [NaN, Infinity, -Infinity]) {
          for (const place of [0, 1, 17, 63]) {
            const x = new Float32Array(3 * 64).fill(0.5)
            x[64 + place] = odd
            const { gate } = yield* products(shape, true, extremes, x)
            gate.forEach((element, i) => assert.strictEqual(Number.isFinite(element), i < 24 || i >= 48, `${odd} ${i}`))
            if (Number.isNaN(odd)) assert.isTrue(gate.slice(24, 48).every(Number.isNaN))
          }
        }
      }).pipe(Effect.scoped))
    })
  })
}
