import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as fc from "fast-check"
import * as Batches from "../../src/data/Batches.ts"
import * as Packing from "../../src/data/Packing.ts"
import type * as TokenStore from "../../src/data/TokenStore.ts"
import { fromTexts } from "../../src/data/TokenStore.ts"
import * as Key from "../../src/random/Key.ts"
import { encoder, store } from "./Texts.ts"

const size = fc.integer({ min: 1, max: 9 })
const batches = fc.record({ store, seed: fc.nat(), batchSize: size, length: size }).map(({ seed, store, ...sizes }) =>
  Batches.make(store, { key: Key.make(seed), ...sizes }))

/** The rows of batches as text, to be counted and compared. */
const rows = (all: ReadonlyArray<Packing.Windows>): ReadonlyArray<string> =>
  all.flatMap((batch) => Array.from({ length: batch.rows }, (_, row) => {
    const [from, to] = [row * batch.length, (row + 1) * batch.length]
    return `${batch.ids.subarray(from, to)} > ${batch.targets.subarray(from, to)} ${batch.mask.subarray(from, to)}`
  }))

const inStore = (tokens: TokenStore.TokenStore, length: number) =>
  rows([Packing.windows(tokens, length, Array.from({ length: Packing.windowCount(tokens, length) }, (_, i) => i))])

const firstBatches = (self: Batches.Batches, count: number) =>
  Array.from({ length: count }, (_, step) => Batches.at(self, step))

describe("Batches", () => {
  it("every epoch holds every window once: nothing dropped, nothing twice", () => {
    fc.assert(fc.property(batches, (self) => {
      const epochs = 3
      const steps = Math.ceil(epochs * self.windowCount / self.batchSize)
      const items = rows(firstBatches(self, steps))
      const windows = [...inStore(self.store, self.length)].sort()
      for (let epoch = 0; epoch < epochs; epoch++) {
        const own = items.slice(epoch * self.windowCount, (epoch + 1) * self.windowCount)
        assert.deepStrictEqual(own.sort(), windows)
      }
    }), { numRuns: 50 })
  })

  it("walking from cursor to cursor, with any stop in between, gives the batches by step", () => {
    fc.assert(fc.property(batches, fc.integer({ min: 1, max: 8 }), (self, steps) => {
      let cursor = Batches.start
      for (let step = 0; step < steps; step++) {
        assert.deepStrictEqual(cursor, Batches.cursorAt(self, step))
        const stored = Schema.decodeUnknownSync(Batches.Cursor)(JSON.parse(JSON.stringify(cursor)))
        const { batch, cursor: following } = Batches.next(self, stored)
        assert.deepStrictEqual(batch, Batches.at(self, step))
        cursor = following
      }
    }))
  })

  it("the order of items does not depend on the batch size", () => {
    fc.assert(fc.property(batches, size, (self, batchSize) => {
      const other = Batches.make(self.store, { ...self, batchSize })
      const count = 24
      const items = (b: Batches.Batches) => rows(firstBatches(b, Math.ceil(count / b.batchSize))).slice(0, count)
      assert.deepStrictEqual(items(self), items(other))
    }))
  })

  it("epochs and keys differ in their order", () => {
    const tokens = fromTexts(Array.from({ length: 100 }, (_, i) => String.fromCharCode(i % 29, i >> 3)), encoder)
    const order = (seed: number, epoch: number) => {
      const self = Batches.make(tokens, { key: Key.make(seed), batchSize: 100, length: 3 })
      return rows([Batches.next(self, { epoch, index: 0 }).batch]).join("\n")
    }
    assert.strictEqual(order(1, 0), order(1, 0))
    assert.notStrictEqual(order(1, 0), order(1, 1))
    assert.notStrictEqual(order(1, 0), order(2, 0))
  })

  it("micro-batches are the rows of the batch in order, whatever their number", () => {
    fc.assert(fc.property(store, size, size, size, (tokens, length, rowsEach, parts) => {
      const batch = Batches.at(Batches.make(tokens, { key: Key.make(1), batchSize: rowsEach * parts, length }), 0)
      const slices = Batches.microBatches(batch, parts)
      assert.strictEqual(slices.length, parts)
      assert.deepStrictEqual(rows(slices), rows([batch]))
      assert.strictEqual(slices.reduce((sum, slice) => sum + slice.targetCount, 0), batch.targetCount)
      for (const field of ["segments", "positions"] as const) {
        assert.deepStrictEqual(slices.flatMap((slice) => Array.from(slice[field])), Array.from(batch[field]))
      }
    }))
  })

  it("refuses impossible sizes and cursors of other data, by message", () => {
    const tokens = fromTexts(["abcdefg"], encoder)
    const options = { key: Key.make(0), batchSize: 2, length: 4 }
    assert.throws(() => Batches.make(tokens, { ...options, batchSize: 0 }),
      "Batches.make: batchSize must be a whole number of at least 1, got 0")
    assert.throws(() => Batches.make(fromTexts([""], encoder), options),
      "Batches.make: the store holds 1 tokens, and a target needs two")
    assert.throws(() => Batches.next(Batches.make(tokens, options), { epoch: 3, index: 2 }),
      "Batches.next: the cursor stands at index 2 of an epoch of 2 windows; it was saved with other data or another " +
      "window length, and must start again from epoch 4, index 0")
    assert.throws(() => Batches.microBatches(Batches.at(Batches.make(tokens, options), 0), 3),
      "Batches.microBatches: 2 rows cannot be cut into 3 equal parts; choose a divisor of the batch size, because a " +
      "compiled program has one size")
  })
})
