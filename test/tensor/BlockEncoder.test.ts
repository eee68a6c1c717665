import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as BlockCodes from "../../src/tensor/BlockCodes.ts"
import { count, type Sizes } from "../../src/tensor/Node.ts"
import { ShapeError } from "../../src/tensor/ShapeError.ts"

/** The codes of the formula as BlockCodes has it, weight by weight; `at` finds one by row and place in the row. */
const plain = (
  at: (row: number, i: number) => number, rows: number, width: number, { bits, block }: BlockCodes.Scheme
) => {
  if (block === "row") return plainRows(at, rows, width)
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

/** Codes that lie with what is summed first. */
const plainRows = (at: (row: number, i: number) => number, rows: number, width: number) => {
  const [codes, scales] = [new Int8Array(rows * width), new Float32Array(rows)]
  for (let row = 0; row < rows; row++) {
    const weights = Array.from({ length: width }, (_, i) => at(row, i))
    scales[row] = Math.max(...weights.map(Math.abs)) / 127
    weights.forEach((weight, i) => {
      const steps = scales[row] === 0 ? 0 : Math.round(weight / scales[row]!)
      codes[i * rows + row] = Math.min(127, Math.max(-127, steps))
    })
  }
  return { codes: new Uint8Array(codes.buffer), scales }
}

/** Where halves of a scale are as likely as anything else; and numbers so small that scales are inexact, or none. */
const weight = fc.oneof(
  fc.float({ noNaN: true, noDefaultInfinity: true }),
  fc.integer({ min: -254, max: 254 }).map((halves) => halves / 2),
  fc.integer({ min: -400, max: 400 }).map((steps) => steps * 2 ** -149),
  fc.tuple(fc.integer({ min: -14, max: 14 }), fc.integer({ min: 1, max: 2 ** 24 }))
    .map(([halves, scale]) => Math.fround(halves / 2 * scale))
)

const cases = fc.record({
  scheme: fc.constantFrom<BlockCodes.Scheme>(
    { bits: 4, block: 16 }, { bits: 4, block: 32 }, { bits: 8, block: 16 }, { bits: 8, block: 32 },
    { bits: 8, block: "row" }
  ),
  blocks: fc.integer({ min: 1, max: 3 }), odd: fc.integer({ min: 1, max: 150 }),
  out: fc.oneof(fc.integer({ min: 1, max: 3 }), fc.constant(30)), part: fc.integer({ min: 1, max: 3 }),
  Kind: fc.constantFrom<Float32ArrayConstructor | Float64ArrayConstructor>(Float32Array, Float64Array),
  weights: fc.array(fc.oneof(fc.array(weight, { minLength: 1, maxLength: 40 }), fc.constant([0])), {
    minLength: 1, maxLength: 12
  }),
  lying: fc.shuffledSubarray(["out", "part", "in"], { minLength: 3 }),
  cut: fc.integer({ min: 1, max: 4 })
}).map(({ Kind, blocks, lying, odd, out, part, scheme, weights, ...rest }) => {
  const width = scheme.block === "row" ? odd : scheme.block * blocks
  const sizes: Sizes = { out, in: width, part }
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
  const order = lying.filter((axis) => sizes[axis]! > 1)
  const rows = out * part
  const together = width === 1 || order.at(-1) === "in" ? width
    : order[0] === "in" && scheme.block !== "row" ? rows * scheme.block : rows * width
  return { ...rest, at, elements, rows, scheme, sizes, theirs, together, width }
})

const runs = Number(process.env["CRIA_ENCODER_RUNS"] ?? 300)

describe("the encoder of blocks and rows", () => {
  it("gives the codes of the formula, of weights in any order, and in any pieces that have codes of their own", () =>
    fc.assert(fc.property(cases, ({ at, cut, elements, rows, scheme, sizes, theirs, together, width }) => {
      const encoder = BlockCodes.encoder(sizes, ["in"], scheme, theirs)
      assert.strictEqual(encoder.together, together)
      const piece = cut * together
      const starts = Array.from({ length: Math.ceil(elements.length / piece) }, (_, i) => i * piece)
      for (const start of starts.toReversed()) {
        assert.isTrue(Result.isSuccess(encoder.add(elements.slice(start, start + piece), start)))
      }
      assert.deepStrictEqual(encoder.encoded, plain(at, rows, width, scheme))
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

  it("refuses what is no piece, of which codes would be left out or made of nothing", () => {
    const scheme = { bits: 8, block: 16 } as const
    const rows = BlockCodes.encoder({ out: 2, in: 32 }, ["in"], scheme)
    const beside = BlockCodes.encoder({ in: 32, out: 2 }, ["in"], scheme)
    const whole = BlockCodes.encoder({ in: 32, out: 2 }, ["in"], { bits: 8, block: "row" })
    for (const [encoder, length, start] of [
      [rows, 16, 0], [rows, 32, 16], [rows, 32, -32], [rows, 64, 32], [rows, 32, 0.5], [beside, 16, 0],
      [beside, 32, 16], [whole, 32, 0], [whole, 64, 64]
    ] as const) {
      assert.throws(() => encoder.add(new Float32Array(length), start), ShapeError, `${length} elements from ${start}`)
    }
    assert.throws(() => rows.add(new Float32Array(16), 32), ShapeError, "block codes: a piece must begin at a " +
      "multiple of 32, have a multiple of it, and end with the weights\n  piece    16 elements from 32\n  weights  " +
      "[out: 2, in: 32]\n  `together` says how many elements have codes of their own.")
    assert.isTrue(Result.isSuccess(beside.add(new Float32Array(32), 32)))
  })

  it("names what is not finite as it would lie in the model, whatever piece it is found in", () =>
    fc.assert(fc.property(
      fc.constantFrom(NaN, Infinity, -Infinity), fc.integer({ min: 0, max: 31 }), fc.integer({ min: 0, max: 1 }),
      fc.constantFrom<BlockCodes.Scheme>({ bits: 4, block: 16 }, { bits: 8, block: 16 }, { bits: 8, block: "row" }),
      fc.boolean(),
      (value, place, row, scheme, isTurned) => {
        const lying: Sizes = isTurned ? { out: 2, in: 32 } : { in: 32, out: 2 }
        const encoder = BlockCodes.encoder({ in: 32, out: 2 }, ["in"], scheme, lying)
        const weights = new Float32Array(64).fill(1)
        weights[isTurned ? row * 32 + place : place * 2 + row] = value
        const found = Array.from({ length: 64 / encoder.together }, (_, i) => i * encoder.together).map((start) =>
          encoder.add(weights.slice(start, start + encoder.together), start)).find(Result.isFailure)
        assert.deepStrictEqual(found?.failure, new BlockCodes.WeightError({
          element: place * 2 + row, value: String(value)
        }))
      }
    )))
})
