/**
 * How fast a backend multiplies matrices and moves memory: what every other speed is a share of.
 *
 *     matmul rate = 2 n³ · runs / seconds        bandwidth = 2 · bytes of a cell · runs / seconds
 *
 * n the side of square matrices; a run of the second reads a cell and writes it back
 *
 * From     Cria's own.
 * Checked  test/backend/MatmulRate.test.ts (runs until the time is over, counts what was done).
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Program from "../tensor/Program.ts"
import * as Specification from "../tensor/Specification.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import * as T from "../tensor/Tensor.ts"
import { Backend, type BackendError } from "./Backend.ts"

/** How much to compute. */
export interface Options {
  /** The side of the matrices, or the elements of the cell. */
  readonly size: number
  /** Runs go on until so much time has passed, and at least once after a first that is not counted. */
  readonly seconds: number
}

/**
 * Runs a second of an effect, which is run once before it counts.
 *
 * A device may only have begun when a run returns: `settled` ends when all has ended. It comes after so many runs as
 * were done before, so that what it takes itself soon does not matter.
 */
const repetitions = <E, R>(
  run: Effect.Effect<unknown, E, R>, settled: Effect.Effect<unknown, E, R>, seconds: number
): Effect.Effect<number, E, R> =>
  Effect.gen(function*() {
    yield* Effect.andThen(run, settled)
    const began = yield* Clock.monotonicTimeNanos
    let [count, elapsed] = [0, 0]
    while (count === 0 || elapsed < seconds) {
      const more = Math.max(1, count)
      for (let i = 0; i < more; i++) yield* run
      yield* settled
      count += more
      elapsed = Number((yield* Clock.monotonicTimeNanos) - began) / 1e9
    }
    return count / elapsed
  })

/** Floating-point operations a second in products of square matrices. */
export const matmulRate = (
  { seconds, size }: Options
): Effect.Effect<number, BackendError | ShapeError, Backend> =>
  Effect.scoped(Effect.gen(function*() {
    const backend = yield* Backend
    const left = Specification.real({ position: size, embed: size })
    const right = Specification.real({ embed: size, hidden: size })
    const program = yield* Program.make("matmul rate", { inputs: {}, state: { left, right } }, (_, state) => ({
      outputs: { corner: T.at(T.at(T.contract(state.left, state.right, "embed"), "position", 0), "hidden", 0) }
    }))
    const cells = yield* backend.allocate({ left, right })
    const executable = yield* backend.compile(program)
    const bound = yield* executable.bind(cells)
    return 2 * size ** 3 * (yield* repetitions(bound.run({}), Effect.void, seconds)) // a run gives a number of its own
  }))

/** Bytes a second that an update in place reads and writes. */
export const bandwidth = ({ seconds, size }: Options): Effect.Effect<number, BackendError | ShapeError, Backend> =>
  Effect.scoped(Effect.gen(function*() {
    const backend = yield* Backend
    const row = Specification.real({ embed: size })
    const program = yield* Program.make("memory bandwidth", { inputs: {}, state: { row } }, (_, state) => ({
      outputs: {}, state: { row: T.multiply(state.row, 0.5) }
    }))
    const look = yield* Program.make("memory settled", { inputs: {}, state: { row } }, (_, state) => ({
      outputs: { first: T.at(state.row, "embed", 0) }
    }))
    const cells = yield* backend.allocate({ row })
    const update = yield* Effect.flatMap(backend.compile(program), ({ bind }) => bind(cells))
    const settle = yield* Effect.flatMap(backend.compile(look), ({ bind }) => bind(cells))
    const bytesPerElement = cells.row.precision === "f32" ? 4 : 8
    return 2 * bytesPerElement * size * (yield* repetitions(update.run({}), settle.run({}), seconds))
  }))
