import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Hash from "../../src/random/Hash.ts"

describe("Hash", () => {
  it("names texts by content: equal texts agree, different texts differ", () => {
    fc.assert(fc.property(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" }), (a, b) => {
      assert.strictEqual(Hash.toHex(Hash.ofText(a)) === Hash.toHex(Hash.ofText(b)), a === b)
    }))
  })

  it("hears the smallest differences: zeros at the end, lengths around a block, one bit anywhere", () => {
    const seen = new Set<string>()
    let inputs = 0
    const add = (bytes: Uint8Array) => { seen.add(Hash.toHex(Hash.ofBytes(bytes))), inputs++ }
    for (let length = 0; length < 40; length++) {
      add(new Uint8Array(length))
      for (let bit = 0; bit < 8 * length; bit++) {
        const bytes = new Uint8Array(length)
        bytes[bit >> 3] = 1 << (bit & 7)
        add(bytes)
      }
    }
    assert.strictEqual(seen.size, inputs)
  })

  it("every bit of the hash is balanced over similar texts", () => {
    const ones = new Uint32Array(128)
    const count = 4000
    for (let i = 0; i < count; i++) {
      const words = Hash.ofText(`document ${i}`)
      for (let bit = 0; bit < 128; bit++) ones[bit]! += (words[bit >> 5]! >>> (bit & 31)) & 1
    }
    for (const one of ones) assert.closeTo(one, count / 2, 6 * Math.sqrt(count / 4))
  })

  it("stays what it was: snapshots and splits of the past depend on it", () => {
    assert.strictEqual(Hash.toHex(Hash.ofText("")), "fb38ccd5d802b1a486be55aedeeb5287")
    assert.strictEqual(Hash.toHex(Hash.ofText("Once upon a time")), "33a3b212fb8144da2a44e8e62ab7bc76")
    assert.strictEqual(Hash.toHex(Hash.ofBytes(Uint8Array.of(1, 2, 3))), "e7f95d74d2d7558fe5d2a49709267388")
  })
})
