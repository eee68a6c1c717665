/**
 * The product with weights in few bits: as fused operator, whose own error is bounded, with codes frozen or in cells.
 *
 *     |y − ŷ| ≤ Σ over blocks: max |x| / 254 · Σ |ŵ|
 *
 * the operator codes x in 8 bits, block by block: each element is off by at most half of the largest over 127.
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
import { backends } from "./layers.ts"

const cases = fc.record({
  bits: fc.constantFrom<4 | 8>(4, 8), block: fc.constantFrom(16, 32, 64), blocks: fc.integer({ min: 1, max: 3 }),
  batch: fc.integer({ min: 1, max: 5 }), kvHead: fc.integer({ min: 1, max: 3 }), plane: fc.integer({ min: 1, max: 6 }),
  seed: fc.integer({ min: 1, max: 1e6 }), isFrozen: fc.boolean()
})

const productOf = ({ batch, bits, block, blocks, kvHead, plane }: Omit<
  typeof cases extends fc.Arbitrary<infer C> ? C : never, "seed" | "isFrozen"
>) => {
  const embed = block * blocks
  const coded = BlockCodes.specification({ embed, kvHead, plane }, ["embed"], { bits, block })
  return Program.make("product", {
    inputs: { x: Specification.real({ batch, embed }) }, state: { coded }
  }, ({ x }, { coded }) => ({
    outputs: { y: T.contract(x, BlockCodes.dequantize(coded, { embed }, bits), "embed") }
  }))
}

describe("the product with codes", () => {
  it.effect("is one operator, which reads cells where and as they lie", () => Effect.gen(function*() {
    const program = yield* productOf({ batch: 2, bits: 4, block: 32, blocks: 2, kvHead: 3, plane: 5 })
    const { graph } = emit(Program.lower(program, { hasKernel, watch: [] }), "f32", new Map())
    assert.deepStrictEqual(graph.nodes.map(({ op }) => op).filter((op) => op !== "Reshape"), ["MatMulNBits"])
    assert.deepStrictEqual(graph.inputs.map(({ name, sizes }) => [name, ...sizes]),
      [["input:x", 2, 64], ["cell:coded.codes", 15, 2, 16], ["cell:coded.scales", 30]])
  }))
})

for (const [engine, backend] of backends) {
  describe(`over ${engine}`, () => {
    layer(backend)((it) => {
      it.effect("is off by no more than coding the other operand explains", () =>
        forAll(cases, ({ isFrozen, seed, ...sizes }) => Effect.gen(function*() {
          const { batch, bits, block, blocks, kvHead, plane } = sizes
          const embed = block * blocks
          const rows = kvHead * plane
          const backend = yield* Backend
          const program = yield* Effect.orDie(productOf(sizes))
          const x = Arbitrary.reals(seed, batch * embed)
          const weights = Arbitrary.reals(seed + 1, embed * rows)
          const { codes, scales } = Result.getOrThrow(
            BlockCodes.encode(weights, { embed, kvHead, plane }, ["embed"], { bits, block }))
          const cells = yield* backend.allocate(program.state)
          yield* backend.write(cells.coded.codes, codes)
          yield* backend.write(cells.coded.scales, scales)
          const all: ReadonlyArray<readonly [string, AnyCell]> =
            [["coded.codes", cells.coded.codes], ["coded.scales", cells.coded.scales]]
          const constants = new Map(isFrozen ? all : [])
          const bound = yield* Effect.flatMap(backend.compile(program, { constants }), ({ bind }) => bind(cells))
          const { y } = yield* bound.run({ x })
          const weight = (row: number, k: number): number => {
            const at = row * embed + k
            const code = bits === 8 ? codes[at]! : codes[at >> 1]! >> (at & 1) * 4 & 15
            return (code - 2 ** (bits - 1)) * scales[Math.floor(at / block)]!
          }
          for (let example = 0; example < batch; example++) {
            for (let row = 0; row < rows; row++) {
              let [sum, room] = [0, 1e-6]
              for (let b = 0; b < blocks; b++) {
                let [largest, total] = [0, 0]
                for (let k = b * block; k < (b + 1) * block; k++) {
                  const element = x[example * embed + k]!
                  sum += element * weight(row, k)
                  largest = Math.max(largest, Math.abs(element))
                  total += Math.abs(weight(row, k))
                }
                room += largest / 254 * total * 1.001
              }
              assert.closeTo(y.elements[example * rows + row]!, sum, room)
            }
          }
        }).pipe(Effect.scoped), { numRuns: 30 }))

      it.effect("is refused where codes are frozen without their scales", () => Effect.gen(function*() {
        const backend = yield* Backend
        const program = yield* Effect.orDie(
          productOf({ batch: 1, bits: 8, block: 32, blocks: 1, kvHead: 1, plane: 2 }))
        const cells = yield* backend.allocate(program.state)
        const { message } = yield* Effect.flip(
          backend.compile(program, { constants: new Map([["coded.codes", cells.coded.codes]]) }))
        assert.include(message, "codes and their scales are frozen together or not at all; frozen is coded.codes, " +
          "and not coded.scales\n  Name both in constants.")
      }))
    })
  })
}
