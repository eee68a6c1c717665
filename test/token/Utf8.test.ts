import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Utf8 from "../../src/token/Utf8.ts"

const encoder = new TextEncoder()
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
const isValid = (bytes: Uint8Array): boolean => {
  try {
    strict.decode(bytes)
    return true
  } catch {
    return false
  }
}
const bytes = fc.uint8Array({ maxLength: 12 })
const nearlyText = fc.tuple(
  fc.string({ unit: "binary", maxLength: 4 }),
  fc.nat(12),
  fc.nat(255)
).map(([text, at, to]) => {
  const encoded = encoder.encode(text)
  if (at < encoded.length) encoded[at] = to
  return encoded
})

describe("Utf8", () => {
  it("finds a character where the platform's strict decoder does", () => {
    fc.assert(fc.property(fc.oneof(bytes, nearlyText), (input) => {
      for (let at = 0; at < input.length; at++) {
        const length = Utf8.characterLength(input, at, input.length)
        const expected = [1, 2, 3, 4].find((count) =>
          at + count <= input.length && isValid(input.subarray(at, at + count)) &&
          [...strict.decode(input.subarray(at, at + count))].length === 1
        )
        assert.strictEqual(length, expected ?? 0)
        if (length === 0) continue
        const [character] = strict.decode(input.subarray(at, at + length))
        assert.strictEqual(Utf8.codePointOf(input, at, length), character!.codePointAt(0))
      }
    }), { numRuns: 500 })
  })

  it("waits for exactly the bytes that more bytes can complete", () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 0x10ffff }).filter(
      (c) => c < 0xd800 || c > 0xdfff
    ), (codePoint) => {
      const whole = encoder.encode(String.fromCodePoint(codePoint))
      for (let end = 1; end <= whole.length; end++) assert.strictEqual(
        Utf8.isIncomplete(whole, 0, end),
        end < whole.length
      )
    }))
    for (const broken of [
      [0x80], [0xc0], [0xc1], [0xf5], [0xff], [0xe0, 0x80], [0xed, 0xa0], [0xf0, 0x80], [0xf4, 0x90], [0xe4, 0x41]
    ]) {
      assert.strictEqual(Utf8.isIncomplete(Uint8Array.from(broken), 0, broken.length), false)
    }
  })

  it("reads each stray byte as one U+FFFD, and valid text as it is", () => {
    const text = (...input: ReadonlyArray<number>) => Utf8.lenientText(Uint8Array.from(input))
    assert.strictEqual(text(0xe4, 0xbd), "\ufffd\ufffd")
    assert.strictEqual(text(0xc0, 0x80), "\ufffd\ufffd")
    assert.strictEqual(text(0xed, 0xa0, 0x80), "\ufffd\ufffd\ufffd")
    assert.strictEqual(text(0x61, 0xff, 0xc3, 0xa9, 0xf0, 0x9f), "a\ufffdé\ufffd\ufffd")
    fc.assert(fc.property(fc.string({ unit: "binary" }), (input) => {
      const encoded = encoder.encode(input)
      assert.strictEqual(Utf8.lenientText(encoded), strict.decode(encoded))
      assert.strictEqual(Utf8.textByteCount(input), encoded.length)
      const points = [...strict.decode(encoded)].map((character) => character.codePointAt(0)!)
      const written = points.flatMap(
        (point) => Array.from({ length: Utf8.byteCount(point) }, (_, i) => Utf8.byteOf(point, i))
      )
      assert.deepStrictEqual(written, [...encoded])
    }))
  })
})
