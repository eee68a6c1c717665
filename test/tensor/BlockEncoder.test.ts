import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as BlockCodes from "../../src/tensor/BlockCodes.ts"
import { count, type Sizes } from "../../src/tensor/Node.ts"

/** The codes of the formula as BlockCodes has it, weight by weight; `at` finds one by row and place in the row. */
const plain = (at: (row: number, i: number) => number, rows: number, width: number, bits: 4 | 8, block: number) => {
  const zero = 2 ** (bits - 1)
  const codes = new Uint8Array(rows * width * bits / 8)
  const scales = new Float32Array(rows * width / block)
  for (let next = 0; next < scales.length; next++) {
    const [row, first] = [Math.floor(next * block / width), next * block % width]
    const weights = Array.from({ length: block }, (_, i) => at(row, first + i))
    scales[next] = Math.max(...weights.map(Math.abs)) / (zero - 1)
    const inverse = scales[next] === 0 ? 0 : 1 / scales[next]!
    weights.forEach((weight, i) => {
      const steps = Math.round(weight * inverse)
      const code = zero + Math.min(zero - 1, Math.max(1 - zero, steps))
      const place = next * block + i
      if (bits === 8) codes[place] = code
      else codes[place >> 1]! += code * 16 ** (place % 2)
    })
  }
  return { codes, scales }
}

/** Where halves of a scale are as likely as anything else; and numbers so small that scales are inexact, or none. */
const weight = fc.oneof(
  fc.float({ noNaN: true, noDefaultInfinity: true }),
  fc.integer({ min: -254, max: 254 }).map((halves) => halves / 2),
  fc.integer({ min: -40, max: 40 }).map((steps) => steps * 2 ** -149),
  fc.tuple(fc.integer({ min: -14, max: 14 }), fc.integer({ min: 1, max: 2 ** 24 }))
    .map(([halves, scale]) => Math.fround(halves / 2 * scale))
)

const cases = fc.record({
  bits: fc.constantFrom<4 | 8>(4, 8), block: fc.constantFrom(16, 32), blocks: fc.integer({ min: 1, max: 3 }),
  out: fc.integer({ min: 1, max: 3 }), part: fc.integer({ min: 1, max: 3 }),
  Kind: fc.constantFrom<Float32ArrayConstructor | Float64ArrayConstructor>(Float32Array, Float64Array),
  weights: fc.array(fc.oneof(fc.array(weight, { minLength: 1, maxLength: 40 }), fc.constant([0])), {
    minLength: 1, maxLength: 12
  }),
  lying: fc.shuffledSubarray(["out", "part", "in"], { minLength: 3 }),
  cut: fc.integer({ min: 1, max: 4 })
}).map(({ Kind, block, blocks, lying, out, part, weights, ...rest }) => {
  const sizes: Sizes = { out, in: block * blocks, part }
  const theirs: Sizes = Object.fromEntries(lying.map((axis) => [axis, sizes[axis]!]))
  // each of a block's weights from one list, so that the weights of a block are of one magnitude
  const elements = new Kind(count(sizes))
  for (let i = 0; i < elements.length; i++) {
    const list = weights[Math.floor(i / 16) % weights.length]!
    elements[i] = list[i % list.length]!
  }
  const stride = (axis: string) =>
    lying.slice(lying.indexOf(axis) + 1).reduce((product, name) => product * sizes[name]!, 1)
  const at = (row: number, i: number) =>
    elements[Math.floor(row / part) * stride("out") + row % part * stride("part") + i * stride("in")]!
  return { ...rest, at, block, elements, sizes, theirs, width: block * blocks }
})

const runs = Number(process.env["CRIA_ENCODER_RUNS"] ?? 300)

describe("the encoder of blocks", () => {
  it("gives the codes of the formula, of weights in any order, and in any pieces where rows are whole", () =>
    fc.assert(fc.property(cases, ({ at, bits, block, cut, elements, sizes, theirs, width }) => {
      const encoder = BlockCodes.encoder(sizes, ["in"], { bits, block }, theirs)
      assert.strictEqual(encoder.isByRows, Object.keys(theirs).filter((axis) => theirs[axis]! > 1).at(-1) === "in")
      const piece = encoder.isByRows ? cut * width : elements.length
      const starts = Array.from({ length: Math.ceil(elements.length / piece) }, (_, i) => i * piece)
      for (const start of starts.toReversed()) {
        assert.isTrue(Result.isSuccess(encoder.add(elements.slice(start, start + piece), start)))
      }
      assert.deepStrictEqual(encoder.encoded, plain(at, elements.length / width, width, bits, block))
    }), { numRuns: runs }))

  it("rounds halves up, and what is a hair less than a half down", () => {
    // The inverse of the scale is a hair less than it should be: half of the scale then is 0.49999999999999994 of it.
    const scale = [...Array(1000).keys()].map((i) => Math.fround(1 + i * 2 ** -12)).find((s) => s / 2 * (1 / s) < 0.5)!
    const weights = new Float32Array(16).fill(scale / 2)
    weights.set([127 * scale, -scale / 2, 1.5 * scale, -1.5 * scale])
    const { codes, scales } = Result.getOrThrow(BlockCodes.encode(weights, { in: 16 }, ["in"], { bits: 8, block: 16 }))
    assert.strictEqual(scales[0], scale)
    const expected = [...weights].map((weight) => 128 + Math.round(weight * (1 / scale)))
    assert.strictEqual(expected[4], 128)
    assert.deepStrictEqual([...codes], expected)
  })

  it("names what is not finite as it would lie in the model, whatever piece it is found in", () =>
    fc.assert(fc.property(
      fc.constantFrom(NaN, Infinity, -Infinity), fc.integer({ min: 0, max: 63 }), fc.constantFrom<4 | 8>(4, 8),
      (value, place, bits) => {
        const encoder = BlockCodes.encoder({ in: 32, out: 2 }, ["in"], { bits, block: 16 }, { out: 2, in: 32 })
        const found = [0, 1].map((row) => {
          const weights = new Float32Array(32).fill(row)
          if (place >= row * 32 && place < row * 32 + 32) weights[place % 32] = value
          return encoder.add(weights, row * 32)
        }).find(Result.isFailure)
        assert.deepStrictEqual(found?.failure, new BlockCodes.WeightError({
          element: place % 32 * 2 + Math.floor(place / 32), value: String(value)
        }))
      }
    )))
})
