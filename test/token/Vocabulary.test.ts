import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Vocabulary from "../../src/token/Vocabulary.ts"
import { pieces } from "./vocabularies.ts"

describe("Vocabulary", () => {
  it("merges two symbols exactly when their texts make a piece that may be merged", () => {
    fc.assert(fc.property(pieces(["normal", "normal", "unused", "user-defined"]), (pieces) => {
      const { areNeighbours, looseCharacters, merge, unitSymbol } = Vocabulary.make(pieces, true)
      const loose = looseCharacters.map((codePoint) => String.fromCodePoint(codePoint))
      const texts = [...pieces.map((piece) => piece.text), ...loose]
      const mergeable = new Map(
        pieces.flatMap(({ text, type }, id) => type === "user-defined" ? [] : [[text, id] as const])
      )
      texts.forEach((left, l) =>
        texts.forEach((right, r) => {
          const expected = mergeable.get(left + right) ?? -1
          assert.strictEqual(merge(l, r), expected, `${left} ${right}`)
          assert.strictEqual(merge(l, r), expected, "remembered")
          const inside = [...mergeable.keys()].some((text) => text.includes(left + right))
          if ([...left].length === 1 && [...right].length === 1 && mergeable.has(left) && mergeable.has(right)) {
            assert.strictEqual(areNeighbours(l, r), inside)
          }
        })
      )
      for (const character of loose) assert.isFalse(mergeable.has(character))
      assert.strictEqual(unitSymbol[0x20], unitSymbol[0x2581])
      assert.strictEqual(merge(-1, 0), -1)
    }), { numRuns: 100 })
  })

  it("ranks by score, best first, equal scores equally, whether they can be counted or must be sorted", () => {
    const counted = fc.constantFrom(0, -0, -1, -2, -3, -7, -40, -1e9, -2e9)
    for (const score of [counted, fc.oneof(counted, fc.constantFrom(-0.5, 3, -1e9 - 64))]) {
      const scored = pieces(["normal", "byte"]).chain((drawn) =>
        fc.tuple(...drawn.map((piece) => score.map((score) => ({ ...piece, score })))))
      fc.assert(fc.property(scored, (scored) => {
        const { rank } = Vocabulary.make(scored, true)
        const scores = [...new Set(scored.map(({ score }) => score + 0))].sort((a, b) => b - a)
        scored.forEach(({ score }, id) => assert.strictEqual(rank[id], scores.indexOf(score + 0)))
      }))
    }
  })

  it("forgets merges when too many are remembered, and finds them again", () => {
    const pieces = Array.from(
      { length: 500 },
      (_, i) => ({ text: String.fromCodePoint(0x4e00 + i), score: 0, type: "normal" as const })
    )
    const { merge } = Vocabulary.make([...pieces, { text: "一丁", score: 0, type: "normal" }], true)
    for (let left = 0; left < 500; left++) {
      for (let right = 0; right < 500; right++) assert.strictEqual(
        merge(left, right),
        left === 0 && right === 1 ? 500 : -1
      )
    }
    assert.strictEqual(merge(0, 1), 500)
  })
})
