import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Float16 from "../../src/format/Float16.ts"
import * as Quantize from "../../src/format/Quantize.ts"
import * as Fixture from "./Fixture.ts"

const weight = fc.oneof(
  fc.float({ min: -4, max: 4, noNaN: true }), fc.constant(0), fc.float({ min: -1e4, max: 1e4, noNaN: true })
)
const weights = (length: number) =>
  fc.array(weight, { minLength: length, maxLength: length }).map((values) => Float32Array.from(values))

describe("Quantize laws", () => {
  it("a code times its scale is within half a step, and the largest of a group is ±127", () =>
    fc.assert(fc.property(fc.constantFrom(1, 2, 4, 12), (group) =>
      fc.assert(fc.property(weights(24), (values) => {
        const { codes, scales } = Quantize.inGroups(values, group)
        for (let i = 0; i < 24; i++) {
          const scale = scales[Math.floor(i / group)]!
          assert.isAtMost(Math.abs(codes[i]! * scale - values[i]!), scale * 0.5001 + 1e-38)
        }
        for (let at = 0; at < 24; at += group) {
          const most = Math.max(...codes.slice(at, at + group).map(Math.abs))
          const scale = scales[at / group]!
          if (scale === 0) assert.strictEqual(most, 0)
          else if (scale >= 2 ** -126) assert.strictEqual(most, 127) // below, a scale is inexact
        }
      }), { numRuns: 40, examples: [[new Float32Array(24).fill(64 * 2 ** -149)]] })), { numRuns: 8 }))

  it("a block of Q8_0 is within half a step and the rounding of its f16 scale", () =>
    fc.assert(fc.property(weights(64), (values) => {
      const bytes = Quantize.blocksOfQ8(values)
      assert.strictEqual(bytes.length, 68)
      for (let i = 0; i < 64; i++) {
        const block = i >> 5
        const [scale] = Float16.widenF16(Uint16Array.of(bytes[block * 34]! | bytes[block * 34 + 1]! << 8))
        const code = bytes[block * 34 + 2 + i % 32]! << 24 >> 24
        assert.isAtMost(Math.abs(code * scale! - values[i]!), scale! * (0.5 + 127 * 2 ** -11) + 2 ** -24 * 128)
      }
    })))

  it("what was quantized once is itself when it is quantized again", () =>
    fc.assert(fc.property(weights(24), (values) => {
      const once = Quantize.inGroups(values, 4)
      const back = Float32Array.from(once.codes, (code, i) => code * once.scales[i >> 2]!)
      fc.pre(once.scales.every((scale) => scale === 0 || scale > 1e-30))
      assert.deepStrictEqual(Quantize.inGroups(back, 4).codes, once.codes)
    })))
})

describe("Quantize cases", () => {
  it("codes and scales are those of llama2.c's export", async () => {
    const hard = (await Fixture.expected("hard")).slice(0, 32)
    const { codes, scales } = Quantize.inGroups(hard, 4)
    assert.deepStrictEqual(codes, new Int8Array((await Fixture.expectedBytes("hard.codes")).buffer))
    assert.deepStrictEqual(scales, await Fixture.expected("hard.scales"))
  })

  it("blocks are those of the gguf package", async () => {
    assert.deepStrictEqual(
      Quantize.blocksOfQ8(await Fixture.expected("hard")), await Fixture.expectedBytes("hard.q8")
    )
  })

  it("ggml rounds the inverse of the scale to f32 before it multiplies", () => {
    const values = new Float32Array(32)
    values.set([5.679805278778076, 0.6932045817375183]) // 15.5 steps, which the rounding puts below the half
    assert.strictEqual(new Int8Array(Quantize.blocksOfQ8(values).buffer)[3], 15) // as gguf 0.19 for Python
  })

  it("halves: to the even code in llama2.c, away from zero in ggml", () => {
    const values = new Float32Array(32)
    values.set([127, 0.5, 1.5, -0.5, -1.5, 2.5])
    assert.deepStrictEqual(Quantize.inGroups(values, 32).codes.slice(0, 6), Int8Array.of(127, 0, 2, 0, -2, 2))
    const codes = new Int8Array(Quantize.blocksOfQ8(values).buffer).slice(2, 8)
    assert.deepStrictEqual([...codes], [127, 1, 2, -1, -2, 3])
  })

  it("codes before scales, in a file of llama2.c", () => {
    assert.deepStrictEqual(
      [...Quantize.groupBytes(Quantize.inGroups(Float32Array.of(127, -1, 254, 0), 2))],
      [127, 255, 127, 0, 0, 0, 128, 63, 0, 0, 0, 64]
    )
  })

  it("refuses what no groups or no codes can hold", () => {
    assert.throws(() => Quantize.inGroups(new Float32Array(6), 4), RangeError,
      "6 values are not groups of 4: give a size that divides their number")
    assert.throws(() => Quantize.blocksOfQ8(new Float32Array(33)), RangeError)
    assert.throws(() => Quantize.inGroups(new Float32Array(6), 0), RangeError)
    assert.throws(() => Quantize.inGroups(Float32Array.of(1, NaN), 2), RangeError,
      "value 1 is NaN, which no 8 bits hold: look for where the weights diverged")
    assert.throws(() => Quantize.inGroups(Float32Array.of(Infinity, 0), 2), RangeError)
    assert.doesNotThrow(() => Quantize.blocksOfQ8(new Float32Array(64).fill(8e6)))
    assert.throws(() => Quantize.blocksOfQ8(new Float32Array(64).fill(8.4e6, 40)), RangeError,
      "values 32 to 63 reach 8400000, and the f16 scale of Q8_0 ends at 8321040: write F16 or F32")
  })
})
