import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as StrictUtf8 from "../../src/data/StrictUtf8.ts"

/** Decodes bytes that arrive in the given pieces: the text, or the first offence. */
const decode = (bytes: Uint8Array, cuts: ReadonlyArray<number>): string | StrictUtf8.Invalid => {
  const decoder = StrictUtf8.decoder()
  let text = ""
  let from = 0
  for (const to of [...cuts].map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b).concat(bytes.length)) {
    const piece = decoder.push(bytes.subarray(from, to))
    if (typeof piece !== "string") return piece
    text += piece
    from = to
  }
  return decoder.end() ?? text
}

const encode = (text: string) => new TextEncoder().encode(text)
const cuts = fc.array(fc.nat(), { maxLength: 6 })
const readable = fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\0") && !text.startsWith("\ufeff"))

describe("StrictUtf8", () => {
  it("gives any text back, whatever pieces its bytes come in", () => {
    fc.assert(fc.property(readable, cuts, (text, at) => {
      assert.strictEqual(decode(encode(text), at), text)
    }), { examples: [["é€𝄞", [1, 2, 3, 4, 5, 6, 7, 8]], ["a\ufeffb", []]] })
  })

  it("accepts what the platform's fatal decoder accepts, zero bytes apart, at the same place for any cut", () => {
    const bytes = fc.oneof( // random bytes are seldom valid for long: also take valid text and spoil one byte
      fc.uint8Array({ min: 1, maxLength: 8 }),
      fc.tuple(readable, fc.nat(), fc.integer({ min: 1, max: 255 })).map(([text, at, byte]) => {
        const spoilt = encode(text)
        if (spoilt.length > 0) spoilt[at % spoilt.length] = byte
        return spoilt
      }))
    fc.assert(fc.property(bytes, cuts, (input, at) => {
      const strict = new TextDecoder("utf-8", { fatal: true })
      const accepts = (part: Uint8Array) => {
        try { return strict.decode(part) !== undefined } catch { return false }
      }
      const ours = decode(input, at)
      assert.strictEqual(typeof ours === "string", accepts(input))
      assert.deepStrictEqual(ours, decode(input, []))
      if (typeof ours !== "string") {
        assert.isTrue(accepts(input.subarray(0, ours.offset)), "everything before the offence is text")
        for (let end = ours.offset + 1; end <= input.length; end++) {
          assert.isFalse(accepts(input.subarray(ours.offset, end)), "no character begins at the offence")
        }
        assert.strictEqual(ours.byte, "byte" in ours ? input[ours.offset] : undefined)
      }
    }), { numRuns: 2000 })
  })

  it("leaves out a byte-order mark at the beginning only, even in three pieces", () => {
    assert.strictEqual(decode(encode("\ufeffa"), []), "a")
    assert.strictEqual(decode(encode("\ufeffa"), [1, 2]), "a")
    assert.strictEqual(decode(encode("a\ufeff"), []), "a\ufeff")
    assert.strictEqual(decode(encode("a\ufeffb"), [1]), "a\ufeffb")
  })

  it("tells a zero byte, a wrong byte and a cut-off end apart", () => {
    assert.deepStrictEqual(decode(Uint8Array.of(97, 0, 98), []), { offset: 1, byte: 0 })
    assert.deepStrictEqual(decode(Uint8Array.of(97, 0xc3, 0xa9, 0xff), [2]), { offset: 3, byte: 0xff })
    assert.deepStrictEqual(decode(Uint8Array.of(0xed, 0xa0, 0x80), [1]), { offset: 0, byte: 0xed }) // a surrogate
    assert.deepStrictEqual(decode(Uint8Array.of(97, 0xe2, 0x82), [2]), { offset: 1 })
  })
})
