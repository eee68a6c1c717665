import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as LossCurve from "../../src/cli/LossCurve.ts"

const size = { columns: 40, rows: 6 }
const point = fc.record({
  step: fc.integer({ min: 1, max: 500 }), value: fc.double({ min: 0, max: 20, noNaN: true })
})

describe("LossCurve", () => {
  it("has the rows and columns that it is given, whatever the points", () => {
    fc.assert(fc.property(fc.array(point, { minLength: 1 }), fc.array(point), (training, validation) => {
      const lines = LossCurve.draw({ training, validation }, size).split("\n")
      assert.strictEqual(lines.length, size.rows + 3)
      for (const line of lines.slice(0, size.rows)) assert.isAtMost(line.length, size.columns)
      for (const line of lines.slice(size.rows, size.rows + 2)) assert.strictEqual(line.length, size.columns)
    }))
  })
  it("draws every validation point in its place", () => {
    fc.assert(fc.property(fc.array(point, { minLength: 1 }), (validation) => {
      const lines = LossCurve.draw({ training: [], validation }, size).split("\n").slice(0, size.rows)
      const drawn = lines.flatMap((line, row) =>
        [...line].flatMap((mark, i) => mark === "o" ? [`${row} ${i - 7}`] : []))
      const [steps, values] = [validation.map(({ step }) => step), validation.map(({ value }) => value)]
      const [last, top, bottom] = [Math.max(...steps), Math.max(...values), Math.min(...values)]
      const expected = validation.map(({ step, value }) =>
        `${top === bottom ? 0 : Math.round((top - value) / (top - bottom) * 5)} ${Math.round(step / last * 32)}`)
      assert.sameMembers(drawn, [...new Set(expected)])
    }))
  })
  it("draws a falling loss falling", () => {
    const training = Array.from({ length: 100 }, (_, i) => ({ step: i + 1, value: 1 + 4 / (1 + i / 10) }))
    assert.strictEqual(LossCurve.draw({ training, validation: [{ step: 100, value: 1.5 }] }, size), [
      " 5.00 │·",
      "      │ ·",
      "      │  ··",
      "      │    ··",
      "      │      ·········",
      " 1.37 │               ·················o",
      "      └─────────────────────────────────",
      "       0                        step 100",
      "       · loss   o validation loss   (nats a token)"
    ].join("\n"))
  })
  it("draws one value, and nothing where there is none", () => {
    assert.include(LossCurve.draw({ training: [{ step: 1, value: 2 }], validation: [] }, size), " 2.00 │")
    assert.strictEqual(LossCurve.draw({ training: [], validation: [] }, size), "")
  })
  it("takes the points of one metric out of a journal", () => {
    const entries = [{ step: 1, values: { "loss": 3 } }, { step: 2, values: { "loss": 2, "val/loss": 4 } }]
    assert.deepStrictEqual(LossCurve.pointsOf(entries, "val/loss"), [{ step: 2, value: 4 }])
  })
})
