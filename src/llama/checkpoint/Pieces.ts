/**
 * A parameter of a file piece by piece, of one file or of shards that each hold a part of it.
 *
 *     one is read to  ⇄  the other is used        two pieces of memory that take turns
 *
 * From     Cria's own.
 * Checked  test/llama/Checkpoint.test.ts (all of a parameter, in any pieces and of any shards; failure, interruption).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import * as TensorFile from "../../format/TensorFile.ts"
import type { Sizes } from "../../tensor/Node.ts"
import type { Place, Reals } from "./Layout.ts"

/** A parameter as it lies in a file, to be gone through piece by piece. */
export interface Pieces<E = TensorFile.Failure> {
  /** Our axes with their sizes, in the order of the file. */
  readonly lying: Sizes
  /**
   * Gives `use` the elements, some multiple of `together` at a time, and the place of the first of them. They are there
   * for that call alone: the next piece is being read meanwhile, and then takes their memory.
   */
  readonly each: <F>(
    together: number, use: (elements: Reals, start: number) => Result.Result<void, F>
  ) => Effect.Effect<void, E | F>
}

const pieceElements = 2 ** 20 // two of which stay in the caches

/** The pieces of a tensor that one file holds, or several that are cut over one of its axes; none of them in F64. */
export const make = (shards: ReadonlyArray<TensorFile.TensorFile>, place: Place): Pieces => {
  const [size = 1, ...rest] = place.sizes
  const width = TensorFile.elementCount(rest)
  return {
    lying: place.theirs,
    each: Effect.fnUntraced(function*(together, use) {
      const least = together / commonDivisor(together, width) // so many rows are a multiple
      const rows = Math.min(size, least * Math.max(1, Math.floor(pieceElements / (least * width))))
      const read = reading(shards, place, rows * width)
      let [free, taken] = [new Float32Array(rows < size ? rows * width : 0), new Float32Array(rows * width)]
      let piece = yield* read({ from: 0, to: rows }, taken)
      for (let from = 0; from < size; from += rows) {
        const used = Effect.suspend(() => Effect.fromResult(use(piece, from * width)))
        const next = { from: from + rows, to: Math.min(size, from + 2 * rows) }
        const ahead = next.from < size ? read(next, free) : Effect.succeed(piece)
        ;[piece] = yield* Effect.all([ahead, used], { concurrency: 2 })
        ;[free, taken] = [taken, free]
      }
    })
  }
}

const commonDivisor = (a: number, b: number): number => b === 0 ? a : commonDivisor(b, a % b)

/** Reads some rows of the whole tensor to the beginning of `into`. */
type Read = (
  rows: TensorFile.Rows, into: Float32Array<ArrayBuffer>
) => Effect.Effect<Float32Array<ArrayBuffer>, TensorFile.Failure>

/** Reads at most `most` elements at a time. */
const reading = (
  shards: ReadonlyArray<TensorFile.TensorFile>, { cut, name, sizes: [size = 1, ...rest] }: Place, most: number
): Read => {
  const width = TensorFile.elementCount(rest)
  const parts = cut === undefined ? shards.slice(0, 1) : shards
  if (cut === 1 && parts.length > 1) { // beside one another
    const columns = width / parts.length
    const part = new Float32Array(most / parts.length)
    return Effect.fnUntraced(function*({ from, to }, into) {
      for (const [i, file] of parts.entries()) {
        const found = yield* file.read(name, { from, to }, part)
        for (let row = 0; row < to - from; row++) {
          into.set(found.subarray(row * columns, (row + 1) * columns), row * width + i * columns)
        }
      }
      return into.subarray(0, (to - from) * width)
    })
  }
  const height = size / parts.length // below one another
  return Effect.fnUntraced(function*({ from, to }, into) {
    for (const [i, file] of parts.entries()) {
      const [first, last] = [Math.max(from, i * height), Math.min(to, (i + 1) * height)]
      if (first >= last) continue
      const rows = { from: first - i * height, to: last - i * height }
      yield* file.read(name, rows, into.subarray((first - from) * width))
    }
    return into.subarray(0, (to - from) * width)
  })
}
