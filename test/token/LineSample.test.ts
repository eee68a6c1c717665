import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Key from "../../src/random/Key.ts"
import * as LineSample from "../../src/token/LineSample.ts"

const sampled = (documents: ReadonlyArray<string>, lines: number, key: Key.Key) => {
  const sample = LineSample.make({ lines, key })
  documents.forEach(sample.add)
  return sample
}

describe("LineSample", () => {
  it("keeps as many lines as asked for, or all there are, each from a place of its own", () => {
    const document = fc.array(fc.constantFrom("a", "b", ""), { maxLength: 5 }).map((lines) => lines.join("\n"))
    fc.assert(fc.property(fc.array(document), fc.integer({ min: 1, max: 20 }), fc.nat(), (documents, lines, seed) => {
      const all = documents.flatMap((document) => document.split("\n").filter((line) => line !== ""))
      const sample = sampled(documents, lines, Key.make(seed))
      assert.strictEqual(sample.count(), all.length)
      assert.strictEqual(sample.kept().length, Math.min(lines, all.length))
      if (lines >= all.length) assert.deepStrictEqual(sample.kept(), all)
      for (const letter of ["a", "b"]) {
        const count = (lines: ReadonlyArray<string>) => lines.filter((line) => line === letter).length
        assert.isAtMost(count(sample.kept()), count(all))
      }
    }))
  })
  it("draws every line alike, another sample for another key, the same for the same", () => {
    const lines = Array.from({ length: 20 }, (_, i) => `line ${i}`)
    const counts = new Map<string, number>()
    for (let seed = 0; seed < 2000; seed++) {
      for (const line of sampled(lines, 5, Key.make(seed)).kept()) counts.set(line, (counts.get(line) ?? 0) + 1)
    }
    const expected = 2000 * 5 / 20
    const chiSquare = lines.reduce((sum, line) => sum + ((counts.get(line) ?? 0) - expected) ** 2 / expected, 0)
    assert.isBelow(chiSquare, 44) // 19 degrees of freedom: 43.8 in one of a thousand
    const of = (seed: number) => sampled(lines, 5, Key.make(seed)).kept()
    assert.deepStrictEqual(of(1), of(1))
    assert.notDeepEqual(of(1), of(2))
  })
})
