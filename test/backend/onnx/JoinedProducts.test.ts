/**
 * Joined products compute what each computes alone, up to rounding, and are joined where they can be.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { type AnyCell, Backend } from "../../../src/backend/Backend.ts"
import { emit } from "../../../src/backend/onnx/Emit.ts"
import { joinOnce, joinProducts } from "../../../src/backend/onnx/JoinedProducts.ts"
import { hasKernel } from "../../../src/backend/onnx/Kernel.ts"
import * as BlockCodes from "../../../src/tensor/BlockCodes.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../../src/testing/Arbitrary.ts"
import { forAll } from "../../../src/testing/BackendLaw.ts"
import { backends, saturating } from "./layers.ts"

const embed = 32
const over = { embed }

/** Of sums of 32 products below 2 · 128 · 2, in another order: how rows are summed depends on their number. */
const rounding = 32 * 512 * 2 ** -20

const cases = fc.record({
  scheme: fc.constantFrom<BlockCodes.Scheme>(
    { bits: 4, block: embed }, { bits: 8, block: embed }, { bits: 8, block: "row" }),
  batch: fc.integer({ min: 1, max: 3 }),
  rows: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }),
  other: fc.integer({ min: 1, max: 3 }),
  seed: fc.integer({ min: 1, max: 1e6 })
})

type Case = typeof cases extends fc.Arbitrary<infer C> ? C : never

/** Products of x with several weights, and of its square with one more. */
const program = ({ batch, other, rows, scheme }: Omit<Case, "seed">) => {
  const coded = (plane: number) => BlockCodes.specification({ embed, plane }, ["embed"], scheme)
  const weights = rows.map(coded)
  return Program.make("products", {
    inputs: { x: Specification.real({ batch, embed }) }, state: { weights, other: coded(other) }
  }, ({ x }, state) => {
    const product = (y: typeof x, codes: typeof state.other) =>
      T.contract(y, BlockCodes.dequantize(codes, over, BlockCodes.codingOf(scheme)), "embed")
    return {
      outputs: { all: state.weights.map((codes) => product(x, codes)), other: product(T.square(x), state.other) }
    }
  })
}

const pathsOf = (rows: ReadonlyArray<number>): ReadonlyArray<string> =>
  ["other", ...rows.map((_, i) => `weights.${i}`)].flatMap((path) => [`${path}.codes`, `${path}.scales`])

describe("products with codes", () => {
  const operators = Effect.fnUntraced(function*(
    frozen: (path: string) => boolean, scheme: BlockCodes.Scheme = { bits: 8, block: embed }
  ) {
    const rows = [3, 1, 2]
    const lowered = Program.lower(yield* program({ batch: 2, scheme, rows, other: 3 }), { hasKernel, watch: [] })
    const bytes = (path: string) => new Uint8Array(lowered.cells.filter(({ name }) => name === path)
      .flatMap(({ sizes }) => Object.values(sizes)).reduce((all, size) => all * size, path.endsWith("codes") ? 1 : 4))
    const constants = new Map(pathsOf(rows).filter(frozen).map((path) => [path, bytes(path)] as const))
    const joined = joinProducts(lowered, constants)
    return emit(joined.lowered, "f32", joined.constants).graph.nodes.map(({ op }) => op)
      .filter((op) => op.startsWith("MatMul") || op === "Split")
  })
  it.effect("of one operand are one where the weights are frozen", () => Effect.gen(function*() {
    assert.deepStrictEqual(yield* operators(() => true), ["MatMulNBits", "Split", "MatMulNBits"])
    const rows = yield* operators(() => true, { bits: 8, block: "row" })
    assert.deepStrictEqual(rows, ["MatMulIntegerToFloat", "Split", "MatMulIntegerToFloat"])
  }))
  it.effect("stay apart where they are not, or one of them is not", () => Effect.gen(function*() {
    assert.deepStrictEqual(yield* operators(() => false), Array.from({ length: 4 }, () => "MatMulNBits"))
    assert.deepStrictEqual(
      yield* operators((path) => !path.startsWith("weights.1")), ["MatMulNBits", "Split", "MatMulNBits", "MatMulNBits"]
    )
  }))
})

describe("what is joined of sealed constants", () => {
  const bytes = (...all: ReadonlyArray<number>) => Uint8Array.from(all)
  it("is joined once for each choice of them, and what is not sealed every time", () => {
    const join = joinOnce()
    const cells = new Map(["a", "b", "c"].map((path) => [path, { path }]))
    const [a, b, c] = [["a", bytes(1, 2)], ["b", bytes(3)], ["c", bytes(4)]] as const
    const sealed = join((path) => cells.get(path))
    const one = sealed([a, b])
    assert.deepStrictEqual([...one], [1, 2, 3])
    assert.strictEqual(join((path) => cells.get(path))([a, b]), one)
    assert.deepStrictEqual([...sealed([a, c])], [1, 2, 4])
    assert.deepStrictEqual([...sealed([a, b, c])], [1, 2, 3, 4])
    const partly = join((path) => path === "b" ? undefined : cells.get(path))
    assert.notStrictEqual(partly([a, b]), one)
    assert.deepStrictEqual([...partly([a, b])], [1, 2, 3])
    const others = new Map(["a", "b"].map((path) => [path, { path }])) // other cells under the same paths
    assert.deepStrictEqual([...join((path) => others.get(path))([["a", bytes(7)], ["b", bytes(8)]])], [7, 8])
  })
  it.effect("are none of more than 4 MiB together", () => Effect.gen(function*() {
    const products = Effect.fnUntraced(function*(rows: number) {
      const made = yield* program({ batch: 1, scheme: { bits: 8, block: embed }, rows: [rows, rows], other: 1 })
      const lowered = Program.lower(made, { hasKernel, watch: [] })
      const constants = new Map(pathsOf([rows, rows]).map((path) =>
        [path, new Uint8Array(path.endsWith("codes") ? rows * embed : 0)] as const))
      return joinProducts(lowered, constants).lowered.instructions.length - lowered.instructions.length
    })
    assert.strictEqual(yield* products(2 ** 16), -1)
    assert.strictEqual(yield* products(2 ** 16 + 1), 0)
  }))
})

for (const [engine, backend] of [...backends, saturating]) {
  describe(`over ${engine}`, () => {
    layer(backend)((it) => {
      it.effect("are those of each alone", () =>
        forAll(cases, ({ seed, ...drawn }) => Effect.gen(function*() {
          const backend = yield* Backend
          const products = yield* Effect.orDie(program(drawn))
          const cells = yield* backend.allocate(products.state)
          const all = [cells.other, ...cells.weights].flatMap(({ codes, scales }): ReadonlyArray<AnyCell> =>
            [codes, scales])
          for (const [i, cell] of all.entries()) {
            const count = Object.values(cell.sizes).reduce((total, size) => total * size, 1)
            const drawn = Arbitrary.reals(seed + i, count)
            yield* backend.write(cell, cell.kind === "code"
              ? Uint8Array.from(drawn, (real) => Math.abs(real) * 1e4 & 255) : Float32Array.from(drawn))
          }
          const input = { x: Arbitrary.reals(seed, drawn.batch * embed) }
          const frozen = Effect.fnUntraced(function*(rows: ReadonlyArray<number>, weights: typeof cells.weights) {
            const products = yield* Effect.orDie(program({ ...drawn, rows: [...rows] }))
            const own = [cells.other, ...weights].flatMap(({ codes, scales }): Array<AnyCell> => [codes, scales])
            const paths = pathsOf(rows)
            const constants = new Map(own.map((cell, i) => [paths[i] ?? "", cell] as const))
            const { bind } = yield* backend.compile(products, { constants })
            return yield* (yield* bind({ ...cells, weights })).run(input)
          })
          const joined = yield* frozen(drawn.rows, cells.weights)
          for (const [i, { elements, sizes }] of joined.all.entries()) {
            const { all: [alone] } = yield* frozen([drawn.rows[i]!], [cells.weights[i]!])
            assert.deepStrictEqual(sizes, alone?.sizes)
            elements.forEach((element, k) => assert.closeTo(element, alone?.elements[k] ?? NaN, rounding))
          }
        }), { numRuns: 10 }))
    })
  })
}
