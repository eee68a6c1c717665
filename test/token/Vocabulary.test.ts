import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Vocabulary from "../../src/token/Vocabulary.ts"
import { modelOf, pieces, reserved } from "./vocabularies.ts"

describe("Vocabulary", () => {
  it("merges two symbols exactly when their texts make a piece that may be merged", () => {
    fc.assert(fc.property(pieces(["normal", "normal", "unused", "user-defined"]), (drawn) => {
      const { pieces, table } = modelOf(drawn, false)
      const { areNeighbours, looseCharacters, merge, unitSymbol } = Vocabulary.make(table, true)
      const loose = looseCharacters.map((codePoint) => String.fromCodePoint(codePoint))
      const texts = [...pieces.map((piece) => piece.text), ...loose]
      const mergeable = new Map(
        pieces.flatMap(({ text, type }, id) => type === "normal" || type === "unused" ? [[text, id] as const] : [])
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

  it("answers the same of ASCII characters in text beforehand, and knows who stands alone", () => {
    const unit = fc.constantFrom("a", "b", " ", "\u2581", "\u0000", "é", "\uffff", "🙂", "🦙")
    const text = fc.string({ unit, minLength: 1, maxLength: 4 })
    const type = fc.constantFrom("normal", "normal", "unused", "user-defined")
    const drawn = fc.uniqueArray(fc.record({ text, score: fc.constant(0), type }), { selector: ({ text }) => text })
    fc.assert(fc.property(drawn, fc.boolean(), (drawn, escapesSpaces) => {
      const { pieces, table } = modelOf(drawn, false)
      const vocabulary = Vocabulary.make(table, escapesSpaces)
      const { areNeighbours, asciiNeighbours, asciiPair, loners, merge, unitSymbol } = vocabulary
      for (const left of [0, 0x20, 0x61, 0x62, 0x63]) {
        for (const right of [0, 0x20, 0x61, 0x62, 0x63]) {
          const [l, r] = [unitSymbol[left]!, unitSymbol[right]!]
          assert.strictEqual(asciiNeighbours[(left << 7) | right] === 1, areNeighbours(l, r))
          assert.strictEqual(asciiPair[(left << 7) | right], merge(l, r))
        }
      }
      const mergeable = pieces.filter((piece) => piece.type === "normal" || piece.type === "unused")
      for (const unit of [0, 0x61, 0x62, 0x63, 0xe9, 0x2581, 0xffff]) {
        const character = String.fromCharCode(unit)
        const meets = mergeable.some(({ text }) => text !== character && text.includes(character))
        assert.strictEqual(loners[unit], meets ? Vocabulary.merging : unitSymbol[unit])
      }
      for (const unit of [0x20, 0xd83d, 0xde42]) assert.strictEqual(loners[unit], Vocabulary.merging)
    }), { numRuns: 300 })
  })

  it("ranks by score, best first, equal scores equally, whether they are ranks already or must be sorted", () => {
    const counted = fc.constantFrom(0, -0, -1, -2, -3, -7, -40, -1e9, -2e9)
    for (const score of [counted, fc.oneof(counted, fc.constantFrom(-0.5, 3, -1e9 - 64))]) {
      const scored = pieces(["normal", "unused"]).chain((drawn) =>
        fc.tuple(...drawn.map((piece) => score.map((score) => ({ ...piece, score })))))
      fc.assert(fc.property(scored, (scored) => {
        const { pieces, table } = modelOf(scored, false)
        const { rank, rankCount } = Vocabulary.make(table, true)
        pieces.forEach((a, i) => {
          assert.isTrue(rank[i]! >= 0 && rank[i]! < rankCount)
          pieces.forEach((b, k) => assert.strictEqual(Math.sign(rank[i]! - rank[k]!), Math.sign(b.score - a.score)))
        })
      }))
    }
  })

  it("forgets merges when too many are remembered, and finds them again", () => {
    const pieces = Array.from(
      { length: 500 },
      (_, i) => ({ text: String.fromCodePoint(0x4e00 + i), score: 0, type: "normal" as const })
    )
    const { table } = modelOf([...pieces, { text: "一丁", score: 0, type: "normal" }], false)
    const { merge } = Vocabulary.make(table, true)
    const first = reserved.length
    const merged: Array<readonly [left: number, right: number, piece: number]> = []
    for (let left = first; left < first + 500; left++) {
      for (let right = first; right < first + 500; right++) {
        const piece = merge(left, right)
        if (piece !== -1) merged.push([left, right, piece])
      }
    }
    assert.deepStrictEqual(merged, [[first, first + 1, first + 500]])
    assert.strictEqual(merge(first, first + 1), first + 500)
  })
})
