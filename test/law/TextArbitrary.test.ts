import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as TextArbitrary from "../../src/testing/TextArbitrary.ts"

const sample = fc.sample(TextArbitrary.text, { seed: 1, numRuns: 2000 })

describe("TextArbitrary", () => {
  it("draws text of every kind", () => {
    const kinds: Readonly<Record<string, RegExp>> = {
      "a surrogate alone": /\p{Surrogate}/u, "a mark that combines": /\p{Mn}/u, "another space": /\p{Zs}[^ ]/u,
      "U+2581": /\u2581/, "an ASCII digit": /[0-9]/, "another digit": /(?![0-9])\p{Nd}/u, "a control piece": /<\/s>/,
      "an emoji": /\p{Extended_Pictographic}/u, "private use": /\p{Co}/u, "no character yet": /\p{Cn}/u,
      "a long run": /(.)\1{9}/u, "nothing": /^$/, "a byte-order mark": /\ufeff/
    }
    for (const [kind, pattern] of Object.entries(kinds)) assert.isTrue(sample.some((text) => pattern.test(text)), kind)
    for (let plane = 0; plane <= 16; plane++) {
      const seen = sample.some((text) => [...text].some((one) => one.codePointAt(0)! >> 16 === plane))
      assert.isTrue(seen, `plane ${plane}`)
    }
  })
  it("draws bytes that are text and bytes that are not", () => {
    const valid = fc.sample(TextArbitrary.bytes, { seed: 1, numRuns: 500 }).map((bytes) => {
      const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes)
      return Buffer.from(text).equals(bytes)
    })
    assert.includeMembers(valid, [true, false])
  })
  it("reads half a pair as U+FFFD", () =>
    assert.strictEqual(TextArbitrary.wellFormed("a\ud83dz\u{1f642}"), "a\ufffdz\u{1f642}"))
})
