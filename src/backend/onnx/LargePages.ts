/**
 * Large pages for cells, and for the weights that a loaded model keeps.
 *
 * Decoding reads every weight for each token, and all that the caches hold. Linux gives out memory in pages of 4 KiB
 * unless it is asked for larger ones, and a good part of the time then goes to finding where each page lies. Memory of
 * ours is asked for in pages of 2 MiB before it is touched. The engine's memory is its own: all that can be done is to
 * ask, after a model has been loaded, that what it brought be gathered in such pages. A kernel that cannot (before
 * Linux 6.1, or where no large pieces are free) leaves all as it is.
 *
 * From     madvise(2), MADV_HUGEPAGE and MADV_COLLAPSE; proc(5), maps.
 * Checked  test/backend/onnx/LargePages.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { readFileSync } from "node:fs"

/** Addresses from the first up to the second. */
export type Range = readonly [start: number, end: number]

const pageSize = 2 ** 21

/** The anonymous memory that a process may write, from the text of its map. */
export const writable = (map: string): ReadonlyArray<Range> =>
  [...map.matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0 *(?:\[heap\])?$/gm)]
    .map(([, start = "", end = ""]) => [Number.parseInt(start, 16), Number.parseInt(end, 16)])

/** The whole large pages of some ranges that lie in no earlier one; both ascend. */
export const added = (earlier: ReadonlyArray<Range>, ranges: ReadonlyArray<Range>): ReadonlyArray<Range> =>
  ranges.flatMap(([start, end]) => {
    const within = earlier.filter((range) => range[0] < end && range[1] > start)
    const edges = [start, ...within.flat(), end]
    return Array.from({ length: within.length + 1 }, (_, i): Range =>
      [Math.ceil((edges[2 * i] ?? end) / pageSize) * pageSize,
        Math.floor((edges[2 * i + 1] ?? start) / pageSize) * pageSize])
  }).filter(([start, end]) => start < end)

/** What of koffi is used. */
interface Koffi {
  readonly load: (path: string) => {
    readonly func: (name: string, result: string, parameters: Array<string>) => {
      (...given: ReadonlyArray<unknown>): unknown
      readonly async: (...given: ReadonlyArray<unknown>) => void
    }
  }
}

/** What linux/mman.h calls MADV_HUGEPAGE and MADV_COLLAPSE. */
const advice = { hugePage: 14, collapse: 25 }

/** How large pages are asked for. */
export interface LargePages {
  /** For memory that nothing has touched yet, in so far as it fills such pages. */
  readonly prefer: (address: number, byteLength: number) => void
  /** For what is allocated while a model loads, once that has been in use for a second. */
  readonly gather: <A, E>(load: Effect.Effect<A, E, Scope.Scope>) => Effect.Effect<A, E, Scope.Scope>
}

/** Memory is gathered in pieces of so many bytes, so that whoever ends waits for no more than one. */
const pieceSize = 2 ** 24

const pieces = ([start, end]: Range): ReadonlyArray<Range> =>
  Array.from({ length: Math.ceil((end - start) / pieceSize) }, (_, i) =>
    [start + i * pieceSize, Math.min(end, start + (i + 1) * pieceSize)])

/** Finds out how to ask; where that cannot be, nothing is asked. */
export const make = (koffi: Koffi): LargePages => {
  const found = Result.try(() => koffi.load("libc.so.6").func("madvise", "int", ["uintptr_t", "size_t", "int"]))
  if (Result.isFailure(found)) return { prefer: () => {}, gather: (load) => load }
  const madvise = found.success
  const ranges = Effect.sync(() => Result.match(Result.try(() => readFileSync("/proc/self/maps", "latin1")), {
    onFailure: (): ReadonlyArray<Range> => [], onSuccess: writable
  }))
  const one = Semaphore.makeUnsafe(1) // of the threads that all of Node waits for
  const collapse = ([start, end]: Range): Effect.Effect<void> =>
    one.withPermit(Effect.callback<void>((resume) =>
      madvise.async(start, end - start, advice.collapse, () => resume(Effect.void))))
  return {
    prefer: (address, byteLength) => {
      for (const [start, end] of added([], [[address, address + byteLength]])) {
        madvise(start, end - start, advice.hugePage)
      }
    },
    gather: Effect.fnUntraced(function*(load) {
      const before = yield* ranges
      const loaded = yield* load
      const parts = added(before, yield* ranges).flatMap(pieces)
      yield* Effect.forkScoped(Effect.delay(Effect.forEach(parts, collapse, { discard: true }), "1 second"))
      return loaded
    })
  }
}
