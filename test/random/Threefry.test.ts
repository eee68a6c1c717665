import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Threefry from "../../src/random/Threefry.ts"

const word = fc.integer({ min: 0, max: 0xffffffff })
const words = fc.tuple(word, word, word, word)

describe("Threefry", () => {
  it("gives the three known answers published with Random123 (kat_vectors, threefry4x32 20)", () => {
    const all: Threefry.Words = [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff]
    assert.deepStrictEqual(
      Threefry.block([0, 0, 0, 0], [0, 0, 0, 0]), [0x9c6ca96a, 0xe17eae66, 0xfc10ecd4, 0x5256a7d8])
    assert.deepStrictEqual(Threefry.block(all, all), [0x2a881696, 0x57012287, 0xf6c7446e, 0xa16a6732])
    assert.deepStrictEqual(
      Threefry.block( // the key and the counter are digits of pi
        [0xa4093822, 0x299f31d0, 0x082efa98, 0xec4e6c89], [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]),
      [0x59cd1dbb, 0xb8879579, 0x86b5d00c, 0xac8b6d84])
  })

  it("changing one bit of the counter or of the key changes about half of the bits", () => {
    fc.assert(fc.property(words, words, fc.nat(127), fc.boolean(), (key, counter, bit, inKey) => {
      const flip = (value: Threefry.Words): Threefry.Words => {
        const copy: [number, number, number, number] = [...value]
        copy[bit >> 5] = (copy[bit >> 5]! ^ (1 << (bit & 31))) >>> 0
        return copy
      }
      const before = Threefry.block(key, counter)
      const after = inKey ? Threefry.block(flip(key), counter) : Threefry.block(key, flip(counter))
      const changed = before.reduce((sum, x, lane) =>
        sum + ((x ^ after[lane]!) >>> 0).toString(2).replaceAll("0", "").length, 0)
      assert.isAbove(changed, 20) // 64 expected, deviation 5.7
    }))
  })

  it("many blocks at once are the blocks one by one", () => {
    fc.assert(fc.property(words, fc.nat(9), fc.nat(1000), (key, count, low) => {
      const out = new Int32Array(4 * count)
      Threefry.fillBlocks(key, low, 7, 8, 9, count, out)
      const each = Array.from({ length: count }, (_, b) => Threefry.block(key, [low + b, 7, 8, 9])).flat()
      assert.deepStrictEqual(Array.from(out, (x) => x >>> 0), each)
    }))
  })
})
