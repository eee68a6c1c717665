import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as PairTable from "../../src/token/PairTable.ts"

describe("PairTable", () => {
  it("agrees with a Map, however it grows", () => {
    const symbol = fc.nat(60)
    fc.assert(fc.property(fc.array(fc.tuple(symbol, symbol, fc.integer()), { maxLength: 500 }), (entries) => {
      const table = PairTable.make(1)
      const map = new Map<string, number>()
      for (const [left, right, value] of entries) {
        PairTable.set(table, left, right, value)
        map.set(`${left} ${right}`, value)
      }
      assert.strictEqual(table.count, map.size)
      for (let left = -1; left <= 60; left++) {
        for (let right = -1; right <= 60; right++) {
          const expected = map.get(`${left} ${right}`) ?? PairTable.absent
          assert.strictEqual(PairTable.get(table.slots, left, right), expected)
        }
      }
    }), { numRuns: 30 })
  })
})
