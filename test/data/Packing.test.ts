import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Packing from "../../src/data/Packing.ts"
import * as TokenStore from "../../src/data/TokenStore.ts"
import { encoder, store } from "./Texts.ts"

const length = fc.integer({ min: 1, max: 20 })
const allNumbers = (tokens: TokenStore.TokenStore, size: number) =>
  Array.from({ length: Packing.windowCount(tokens, size) }, (_, i) => i)

describe("Packing", () => {
  it("is lossless: windows give the documents back, and every token but the first BOS is a target exactly once", () => {
    fc.assert(fc.property(store, length, (tokens, size) => {
      const all = Packing.windows(tokens, size, allNumbers(tokens, size))
      const targets = Array.from(all.targets).filter((_, i) => all.mask[i] === 1)
      assert.deepStrictEqual([all.ids[0]!, ...targets], Array.from(tokens.tokens))
      assert.strictEqual(all.targetCount, targets.length)
    }))
  })

  it("each target is the id that follows its input", () => {
    fc.assert(fc.property(store, length, (tokens, size) => {
      const all = Packing.windows(tokens, size, allNumbers(tokens, size))
      for (let i = 0; i < all.ids.length; i++) {
        if (all.mask[i] === 0) continue
        assert.strictEqual(all.ids[i], tokens.tokens[i])
        assert.strictEqual(all.targets[i], tokens.tokens[i + 1])
      }
    }))
  })

  it("only the tail of the last window is padding: BOS under a mask of 0, in a segment of its own", () => {
    fc.assert(fc.property(store, length, (tokens, size) => {
      const all = Packing.windows(tokens, size, allNumbers(tokens, size))
      const filled = tokens.tokens.length - 1
      assert.isBelow(all.ids.length - filled, size)
      for (let i = filled; i < all.ids.length; i++) {
        assert.deepStrictEqual([all.ids[i], all.targets[i], all.mask[i]], [30, 30, 0])
        if (i > filled) assert.strictEqual(all.segments[i], all.segments[filled])
        else if (i % size > 0) assert.strictEqual(all.segments[i], all.segments[i - 1]! + 1)
      }
      assert.isTrue(all.mask.subarray(0, filled).every((one) => one === 1))
    }))
  })

  it("segments part a row where documents part, and positions count from a document's first place in the row", () => {
    fc.assert(fc.property(store, length, (tokens, size) => {
      const documentOf = (at: number) => tokens.starts.findLastIndex((start) => start <= at)
      const all = Packing.windows(tokens, size, allNumbers(tokens, size))
      for (let i = 0; i < tokens.tokens.length - 1; i++) {
        const from = i - i % size
        assert.strictEqual(all.segments[i], documentOf(i) - documentOf(from))
        assert.strictEqual(all.positions[i], i - Math.max(from, tokens.starts[documentOf(i)]!))
      }
    }))
  })

  it("rows can be drawn in any order", () => {
    fc.assert(fc.property(store, length, fc.array(fc.nat(), { maxLength: 6 }), (tokens, size, draws) => {
      const numbers = draws.map((draw) => draw % Packing.windowCount(tokens, size))
      const some = Packing.windows(tokens, size, numbers)
      numbers.forEach((number, row) => {
        const [from, to] = [row * size, (row + 1) * size]
        const one = Packing.windows(tokens, size, [number])
        for (const field of ["ids", "targets", "mask", "segments", "positions"] as const) {
          assert.deepStrictEqual(some[field].subarray(from, to), one[field])
        }
      })
    }))
  })

  it("a worked example: two documents in windows of four", () => {
    const tokens = TokenStore.fromTexts(["\x01\x02", "\x03\x04\x05"], encoder) // 30 1 2 30 3 4 5
    const all = Packing.windows(tokens, 4, [0, 1])
    assert.deepStrictEqual(Array.from(all.ids), [30, 1, 2, 30, 3, 4, 30, 30])
    assert.deepStrictEqual(Array.from(all.targets), [1, 2, 30, 3, 4, 5, 30, 30])
    assert.deepStrictEqual(Array.from(all.mask), [1, 1, 1, 1, 1, 1, 0, 0])
    assert.deepStrictEqual(Array.from(all.segments), [0, 0, 0, 1, 0, 0, 1, 1])
    assert.deepStrictEqual(Array.from(all.positions), [0, 1, 2, 0, 0, 1, 0, 1])
  })

  it("refuses a window that does not exist, by message", () => {
    const tokens = TokenStore.fromTexts(["abcdefg"], encoder)
    assert.throws(() => Packing.windows(tokens, 4, [2]),
      "Packing.windows: window 2 must be a whole number in [0, 2): the store's 8 tokens fill 2 windows of 4")
  })
})
