import { assert, describe, it } from "@effect/vitest"
import * as Metric from "../../src/store/Metric.ts"

describe("Metric cases", () => {
  it("names are unique, and paths of words that every dashboard takes", () => {
    const names = Metric.registry.map(({ name }) => name)
    assert.strictEqual(new Set(names).size, names.length)
    for (const name of names) assert.match(name, /^[a-z_]+(\/[a-z_]+)*$/)
  })

  it("only times and rates are left out of the journal", () => {
    const timing = Metric.registry.filter(({ file }) => file === "timing")
    assert.deepStrictEqual(timing.map(({ name }) => name), ["tokens_per_second", "mfu"])
  })
})
