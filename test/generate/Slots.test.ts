import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { blocks, lengthsFor } from "../../src/generate/Slots.ts"

const plans = fc.tuple(
  fc.integer({ min: 1, max: 600 }), fc.uniqueArray(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 4 })
).chain(([contextLength, sizes]) => fc.record({
  contextLength: fc.constant(contextLength),
  sizes: fc.constant([...new Set(sizes.map((size) => Math.min(size, contextLength)))].sort((a, b) => a - b)),
  length: fc.integer({ min: 1, max: contextLength })
}))

describe("the blocks of a prompt", () => {
  it("cover it without a gap, lie within the context, and end with its last token", () => {
    fc.assert(fc.property(plans, ({ contextLength, length, sizes }) => {
      let reached = 0
      for (const { size, start } of blocks(length, sizes, contextLength)) {
        assert.include(sizes, size)
        assert.isTrue(start >= 0 && start <= reached && start + size <= contextLength)
        assert.isBelow(reached, length)
        reached = start + size
      }
      assert.isAtLeast(reached, length)
    }), { numRuns: 1000 })
  })

  it("compute less than twice the tokens, where no block is longer than twice the next shorter or the prompt", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 600 }), (length) => {
      const all = blocks(length, [1, 2, 4, 8, 16, 32, 64], 1000)
      assert.isBelow(all.reduce((total, { size }) => total + size, 0), 2 * length + 1)
    }))
  })

  it("are long ones, then short ones; more than half of a longer one takes that", () => {
    const sizes = (length: number) => blocks(length, [16, 64], 1000).map(({ size }) => size)
    assert.deepStrictEqual(sizes(1), [16])
    assert.deepStrictEqual(sizes(30), [16, 16])
    assert.deepStrictEqual(sizes(33), [64])
    assert.deepStrictEqual(sizes(70), [64, 16])
    assert.deepStrictEqual(sizes(200), [64, 64, 64, 16])
    assert.deepStrictEqual(blocks(70, [64], 100), [{ start: 0, size: 64 }, { start: 36, size: 64 }])
  })

  it("are the same where only the lengths that they have are there", () => {
    fc.assert(fc.property(plans, ({ contextLength, length, sizes }) => {
      const all = blocks(length, sizes, contextLength)
      const needed = sizes.filter((size) => all.some((block) => block.size === size))
      assert.deepStrictEqual(blocks(length, needed, contextLength), all)
    }), { numRuns: 1000 })
    assert.deepStrictEqual([5, 64, 65, 140, 300].map((length) => lengthsFor(length, 4096)),
      [[16], [16], [128], [128, 16], [128, 16]])
    assert.deepStrictEqual([lengthsFor(5, 12), lengthsFor(60, 100), lengthsFor(40, 100)], [[12], [100], [16]])
  })
})
