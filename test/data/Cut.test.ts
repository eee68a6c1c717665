import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Cut from "../../src/data/Cut.ts"

const cut = (pieces: ReadonlyArray<string>, limit: number) => {
  const cutter = Cut.cutter(limit)
  return [...pieces.flatMap(cutter.push), ...cutter.end()]
}

const piece = fc.array(fc.constantFrom("word", " ", "\n", "\n\n", "\r\n\r\n", "𝄞", ".", "a long stretch of words "))
  .map((parts) => parts.join(""))
const pieces = fc.array(piece)
const limit = fc.integer({ min: 2, max: 60 })

describe("Cut", () => {
  it("is lossless: the documents put together are the text, and none is empty", () => {
    fc.assert(fc.property(pieces, limit, (text, most) => {
      const documents = cut(text, most)
      assert.strictEqual(documents.join(""), text.join(""))
      assert.isTrue(documents.every((document) => document.length > 0 && document.length <= most))
    }))
  })

  it("does not depend on the pieces in which the text arrives", () => {
    fc.assert(fc.property(pieces, limit, (text, most) => {
      assert.deepStrictEqual(cut(text, most), cut([text.join("")], most))
    }))
  })

  it("looks for a border only in the document it cuts (was found with seed 234651417)", () => {
    assert.deepStrictEqual(cut(["word\n", "\r\n\r\n"], 2), cut(["word\n\r\n\r\n"], 2))
  })

  it("splits no character and keeps a text that fits whole", () => {
    fc.assert(fc.property(pieces, limit, (text, most) => {
      for (const document of cut(text, most)) assert.notMatch(document, /\p{Surrogate}/u)
      const whole = text.join("")
      assert.deepStrictEqual(cut(text, Math.max(2, whole.length)), whole === "" ? [] : [whole])
    }))
  })

  it("prefers blank lines, then lines, then spaces, in the second half", () => {
    assert.deepStrictEqual(cut(["aaaa\n\nbb\nbb cc"], 10), ["aaaa\n\n", "bb\nbb cc"])
    assert.deepStrictEqual(cut(["aaaa\r\n\r\nbb\nbb"], 10), ["aaaa\r\n\r\n", "bb\nbb"])
    assert.deepStrictEqual(cut(["a\n\naaaa\nbb cc"], 10), ["a\n\naaaa\n", "bb cc"])
    assert.deepStrictEqual(cut(["a\naaaaa bbbb"], 10), ["a\naaaaa ", "bbbb"])
    assert.deepStrictEqual(cut(["a aaaaaaabbbb"], 10), ["a aaaaaaab", "bbb"])
    assert.deepStrictEqual(cut(["aaaaaaaaa𝄞bbb"], 10), ["aaaaaaaaa", "𝄞bbb"])
  })

  it("refuses a limit that no character might fit, by message", () => {
    assert.throws(() => Cut.cutter(1),
      "Cut.cutter: the longest document must have a whole number of characters, 2 or more, got 1")
  })
})
