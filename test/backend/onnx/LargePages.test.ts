/**
 * Which memory is asked to lie in large pages: what a model brought, in whole pages, and nothing that was there before.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { added, make, type Range, writable } from "../../../src/backend/onnx/LargePages.ts"

const page = 2 ** 21

/** Ranges that ascend and do not touch, of whole quarters of a page. */
const ranges = fc.uniqueArray(fc.integer({ min: 0, max: 60 }), { maxLength: 12 }).map((edges) => {
  const ascending = edges.toSorted((a, b) => a - b).map((edge) => edge * page / 4)
  return Array.from({ length: ascending.length >> 1 }, (_, i): Range => [ascending[2 * i]!, ascending[2 * i + 1]!])
})

const covers = (all: ReadonlyArray<Range>, place: number): boolean =>
  all.some(([start, end]) => start <= place && place < end)

describe("large pages", () => {
  it("are those that lie in the new ranges and in none of the old", () => {
    fc.assert(fc.property(ranges, ranges, (earlier, later) => {
      const found = added(earlier, later)
      for (let start = 0; start < 16 * page; start += page) {
        const quarters = [0, 1, 2, 3].map((i) => start + i * page / 4)
        const isNew = quarters.every((place) => covers(later, place) && !covers(earlier, place))
        assert.strictEqual(covers(found, start), isNew, `page ${start / page}`)
      }
      for (const [start, end] of found) assert.deepStrictEqual([start % page, end % page], [0, 0])
    }))
  })

  it("are of memory that is written and of no file", () => {
    const map = [
      "55d0c0000000-55d0c0400000 rw-p 00000000 00:00 0                          [heap]",
      "7f0000000000-7f0000400000 rw-p 00000000 00:00 0 ",
      "7f0010000000-7f0010400000 r--p 00000000 08:01 131                        /usr/lib/libc.so.6",
      "7f0020000000-7f0020400000 rw-p 00000000 08:01 131                        /usr/lib/libc.so.6",
      "7f0030000000-7f0030400000 r-xp 00000000 00:00 0 ",
      "7ffc00000000-7ffc00400000 rw-p 00000000 00:00 0                          [stack]"
    ].join("\n")
    assert.deepStrictEqual(writable(map), [[0x55d0c0000000, 0x55d0c0400000], [0x7f0000000000, 0x7f0000400000]])
  })

  it.effect("are not asked for where the library has no such call", () =>
    Effect.gen(function*() {
      const pages = make({ load: () => { throw new Error("no libc.so.6") } })
      pages.prefer(0, 2 * page)
      assert.strictEqual(yield* pages.gather(Effect.succeed(7)), 7)
    }))

  it("are asked for whole, within memory that is not touched yet", () => {
    const asked: Array<ReadonlyArray<unknown>> = []
    const madvise = Object.assign((...given: ReadonlyArray<unknown>) => void asked.push(given), { async: () => {} })
    const { prefer } = make({ load: () => ({ func: () => madvise }) })
    prefer(5 * page + 64, 3 * page)
    prefer(5 * page + 64, page)
    assert.deepStrictEqual(asked, [[6 * page, 2 * page, 14]])
  })
})
