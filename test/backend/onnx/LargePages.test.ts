/**
 * Which memory is asked to lie in large pages: what a model brought, in whole pages, and nothing that was there before.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
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

  const onLinux = it.effect.runIf(process.platform === "linux")
  onLinux("are asked for what a load brought, after a second, until its scope ends", () =>
    Effect.gen(function*() {
      const asked: Array<Range> = []
      const madvise = Object.assign(() => 0, {
        async: (...[start, length, advice, done]: ReadonlyArray<unknown>) => {
          assert.strictEqual(advice, 25)
          asked.push([Number(start), Number(start) + Number(length)])
          if (typeof done === "function") done()
        }
      })
      const { gather } = make({ load: () => ({ func: () => madvise }) })
      const scope = yield* Scope.make()
      const bytes = 40 * page
      const load = Effect.sync(() => new Uint8Array(bytes).fill(1))
      const loaded = yield* Scope.provide(gather(load), scope)
      yield* TestClock.adjust("900 millis")
      assert.deepStrictEqual(asked, [])
      yield* TestClock.adjust("100 millis")
      const total = asked.reduce((sum, [start, end]) => sum + end - start, 0)
      assert.isAtLeast(total, bytes - 2 * page)
      assert.isTrue(asked.every(([start, end]) => end - start <= 2 ** 24 && (end - start) % page === 0))
      const known = asked.length
      yield* Scope.provide(gather(load), scope)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(asked.length, known)
      assert.strictEqual(loaded.length, bytes)
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
