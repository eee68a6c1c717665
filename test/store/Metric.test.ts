import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Metric from "../../src/store/Metric.ts"

const text = fc.string({ unit: fc.constantFrom("a", "|", " ", "\\", "µ") })
const metric = fc.record({
  name: text,
  unit: text,
  reduction: text,
  definition: text,
  healthy: text,
  file: fc.constantFrom("journal" as const, "timing" as const)
})

describe("Metric laws", () => {
  it("a table has a row for every metric and six cells in every row, whatever the texts", () =>
    fc.assert(fc.property(fc.array(metric, { maxLength: 4 }), (registry) => {
      const rows = Metric.toMarkdown(registry).split("\n")
      assert.strictEqual(rows.length, registry.length + 2)
      for (const row of rows) assert.strictEqual(row.match(/(?<!\\)\|/g)?.length, 7, row)
    })))
})

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

  it("a table reads like this", () => {
    const [definition, file] = ["−log p(y | x)", "journal" as const]
    const registry = [{ name: "loss", unit: "nats", reduction: "mean", definition, file }]
    assert.strictEqual(Metric.toMarkdown(registry), [
      "| metric | unit | reduction | definition | healthy | file |",
      "| --- | --- | --- | --- | --- | --- |",
      "| `loss` | nats | mean | −log p(y \\| x) |  | journal.jsonl |"
    ].join("\n"))
  })
})
