import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Normal from "../../src/random/Normal.ts"

/** Φ(z) for z ≤ 0 by Simpson's rule over the density, independent of any rational approximation. */
const lowerTail = (z: number): number => {
  const density = (x: number) => Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI)
  const [from, steps] = [z - 8, 10000]
  const width = (z - from) / steps
  let sum = density(from) + density(z)
  for (let i = 1; i < steps; i++) sum += (i % 2 === 1 ? 4 : 2) * density(from + i * width)
  return sum * width / 3
}

describe("Normal", () => {
  it("the quantile inverts the distribution function, in the centre, the middle and the far tail", () => {
    fc.assert(fc.property(fc.double({ min: -38 * 0.6, max: Math.log(0.5), noNaN: true }), (logarithm) => {
      const p = Math.exp(logarithm)
      assert.closeTo(lowerTail(Normal.quantile(p)) / p, 1, 1e-10)
    }), { examples: [[Math.log(0.5)], [Math.log(0.0751)], [Math.log(0.0749)], [-30]] })
  })

  it("is odd about one half", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 2 ** 30 }), (numerator) => {
      const p = numerator / 2 ** 31 // exact, and so is 1 − p
      assert.strictEqual(Normal.quantile(1 - p), -Normal.quantile(p))
    }))
    assert.strictEqual(Normal.quantile(0.5), 0)
  })

  it("gives the values printed with AS 241", () => {
    assert.closeTo(Normal.quantile(0.25), -0.6744897501960817, 1e-15)
    assert.closeTo(Normal.quantile(0.001), -3.090232306167814, 1e-14)
    assert.closeTo(Normal.quantile(1e-20), -9.262340089798408, 1e-13)
  })

  it("the logarithm agrees with the engine's to the last bits", () => {
    fc.assert(fc.property(fc.double({ min: 1e-300, max: 1e300, noNaN: true }), (x) => {
      assert.closeTo(Normal.naturalLogarithm(x), Math.log(x), 4e-16 * Math.max(1, Math.abs(Math.log(x))))
    }), { examples: [[1], [2], [Math.SQRT2], [Math.SQRT1_2], [0.999999999]], numRuns: 1000 })
  })
})
