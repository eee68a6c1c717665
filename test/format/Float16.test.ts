import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Float16 from "../../src/format/Float16.ts"

const every = Uint16Array.from({ length: 0x10000 }, (_, index) => index)
const formats = [
  { name: "f16", widen: Float16.widenF16, narrow: Float16.narrowF16, infinity: 0x7c00, bias: 15, fraction: 10 },
  { name: "bf16", widen: Float16.widenBF16, narrow: Float16.narrowBF16, infinity: 0x7f80, bias: 127, fraction: 7 }
] as const

/** The value of a positive finite pattern, by the definition. */
const meaning = (pattern: number, { bias, fraction }: (typeof formats)[number]): number => {
  const [exponent, digits] = [pattern >> fraction, pattern & ((1 << fraction) - 1)]
  return exponent === 0
    ? digits * 2 ** (1 - bias - fraction)
    : (1 + digits / 2 ** fraction) * 2 ** (exponent - bias)
}

for (const format of formats) {
  const { infinity, name, narrow, widen } = format
  describe(name, () => {
    it("every pattern is itself after widening and narrowing, NaN payloads too", () => {
      assert.deepStrictEqual(narrow(widen(every)), every)
    })

    it("every pattern widens to what it means", () => {
      const wide = widen(every)
      const positive = Float32Array.from({ length: 0x8000 }, (_, pattern) =>
        pattern < infinity ? meaning(pattern, format) : pattern === infinity ? Infinity : NaN)
      assert.deepStrictEqual(wide.slice(0, 0x8000), positive)
      assert.deepStrictEqual(wide.slice(0x8000), positive.map((x) => -x))
    })

    it("every pattern, and few, widen where they lie: in the second half of their own bytes", () => {
      for (const patterns of [every, every.slice(0, 9)]) {
        const into = new Float32Array(patterns.length)
        const halves = new Uint16Array(into.buffer, patterns.length * 2)
        halves.set(patterns)
        widen(halves, into)
        assert.deepStrictEqual(narrow(into), patterns)
      }
    })

    it("between neighbours the nearest is taken, and the even one from the middle", () => {
      // the infinity stands where the next number would: it is the neighbour of the largest
      const value = (pattern: number) => meaning(pattern, format)
      const between: Array<number> = []
      const expected: Array<number> = []
      const single = (x: number) => Math.fround(x) === x
      for (let low = 0; low < infinity; low++) {
        const [from, to] = [value(low), value(low + 1)]
        const middle = (from + to) / 2
        for (const [x, pattern] of [
          [from + (to - from) / 8, low], [middle, low % 2 === 0 ? low : low + 1], [to - (to - from) / 8, low + 1]
        ] as const) {
          if (!single(x)) continue // below the smallest f32
          between.push(x, -x)
          expected.push(pattern, pattern | 0x8000)
        }
      }
      assert.isAbove(between.length, 6 * (infinity - 128))
      assert.deepStrictEqual(narrow(Float32Array.from(between)), Uint16Array.from(expected))
    })

    it("any f32, whatever its bits, becomes a nearest number, or stays no number", () =>
      fc.assert(fc.property(fc.integer({ min: 0, max: 0xffffffff }), (bits) => {
        const single = new Float32Array(Uint32Array.of(bits).buffer)
        const x = single[0]!
        const pattern = narrow(single)[0]!
        if (Number.isNaN(x)) return assert.isNaN(widen(Uint16Array.of(pattern))[0])
        assert.strictEqual(pattern >> 15, bits >>> 31)
        const size = pattern & 0x7fff
        const far = (pattern: number) => Math.abs(Math.abs(x) - meaning(pattern, format))
        if (size > 0) assert.isAtMost(far(size), far(size - 1))
        if (size < infinity) assert.isAtMost(far(size), far(size + 1))
      }), { numRuns: 3000 }))

    it("a NaN whose payload lies in the bits that are cut off is still no number, of the same sign", () => {
      const singles = new Float32Array(Uint32Array.of(0x7f800001, 0xff800001, 0x7fc00000).buffer)
      const patterns = narrow(singles)
      for (const single of widen(patterns)) assert.isNaN(single)
      assert.deepStrictEqual([...patterns].map((pattern) => pattern >> 15), [0, 1, 0])
    })

    it("arrays may begin anywhere in their buffers; those of unequal length are refused", () => {
      const halves = new Uint16Array(8).subarray(3)
      narrow(Float32Array.of(9, 1, -2, 0, 0.5, Infinity).subarray(1), halves)
      assert.deepStrictEqual([...widen(halves, new Float32Array(6).subarray(1))], [1, -2, 0, 0.5, Infinity])
      const message = /^2 numbers do not go into 3 places: give an array of equal length$/
      assert.throws(() => narrow(new Float32Array(2), new Uint16Array(3)), RangeError, message)
      assert.throws(() => widen(new Uint16Array(2), new Float32Array(3)), RangeError, message)
    })
  })
}
