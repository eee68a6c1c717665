import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Schedule from "../../src/optimize/Schedule.ts"

const options = fc.record({
  peak: fc.double({ min: 1e-6, max: 1, noNaN: true }), warmupSteps: fc.nat(50), extra: fc.integer({ min: 1, max: 200 }),
  finalFraction: fc.double({ min: 0, max: 1, noNaN: true })
}).map(({ extra, ...rest }) => ({ ...rest, totalSteps: rest.warmupSteps + extra }))

describe("Schedule", () => {
  it("has the values of a run of 500 000 steps at 3e-4", () => {
    const rate = Schedule.warmupCosine({ peak: 3e-4, warmupSteps: 2000, totalSteps: 500_000 })
    const at = (step: number, expected: number): void => assert.closeTo(rate(step), expected, 1e-18)
    at(1, 1.5e-7)
    at(1000, 1.5e-4)
    at(2000, 3e-4)
    at(251_000, 1.65e-4) // half way down: 0.1 + 0.9 / 2 = 0.55 of the peak
    at(500_000, 3e-5)
    at(600_000, 3e-5)
  })

  it("goes straight down where it is linear, and nowhere where it is constant", () => {
    const rate = Schedule.warmupLinear({ peak: 1, warmupSteps: 4, totalSteps: 14, finalFraction: 0 })
    assert.deepStrictEqual([1, 4, 9, 14, 20].map(rate), [0.25, 1, 0.5, 0, 0])
    assert.deepStrictEqual([1, 1000].map(Schedule.constant(2e-5)), [2e-5, 2e-5])
  })

  it("rises to its peak and falls to its end, without a jump", () => {
    fc.assert(fc.property(options, fc.constantFrom(Schedule.warmupCosine, Schedule.warmupLinear), (given, schedule) => {
      const { finalFraction, peak, totalSteps, warmupSteps } = given
      const rates = Array.from({ length: totalSteps }, (_, i) => schedule(given)(i + 1))
      rates.slice(1).forEach((rate, i) => {
        const step = i + 2
        if (step <= warmupSteps) assert.isAbove(rate, rates[i]!)
        else assert.isAtMost(rate, rates[i]! + 1e-15)
        const steepest = peak * Math.max(1 / Math.max(1, warmupSteps), Math.PI / 2 / (totalSteps - warmupSteps))
        assert.isAtMost(Math.abs(rate - rates[i]!), steepest * (1 + 1e-9))
      })
      assert.closeTo(rates.at(-1)!, peak * finalFraction, 1e-12)
      if (warmupSteps > 0) assert.closeTo(rates[warmupSteps - 1]!, peak, 1e-15)
    }))
  })

  it("refuses numbers that make no schedule", () => {
    assert.throws(
      () => Schedule.warmupCosine({ peak: 1, warmupSteps: 2000, totalSteps: 500 }),
      "warmupCosine: 0 ≤ warmupSteps < totalSteps, both whole, got warmupSteps 2000 and totalSteps 500; a short run " +
        "needs a short warm-up"
    )
    assert.throws(
      () => Schedule.warmupLinear({ peak: 1, warmupSteps: 0, totalSteps: 5, finalFraction: 10 }),
      "warmupLinear: finalFraction must be between 0 and 1, got 10"
    )
  })

  it("refuses a rate that is none: a negative one climbs, and a NaN reaches every parameter", () => {
    for (const rate of [NaN, Infinity, -1e-3]) {
      const rule = `must be a finite number of at least 0, got ${rate}; a negative rate climbs, and a NaN reaches every`
      assert.throws(() => Schedule.constant(rate), `constant: rate ${rule} parameter`)
      const given = { peak: rate, warmupSteps: 1, totalSteps: 5 }
      assert.throws(() => Schedule.warmupCosine(given), `warmupCosine: peak ${rule} parameter`)
      assert.throws(() => Schedule.warmupLinear(given), `warmupLinear: peak ${rule} parameter`)
    }
    assert.strictEqual(Schedule.constant(0)(1), 0)
  })
})
