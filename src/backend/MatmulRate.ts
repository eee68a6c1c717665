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

/** Runs a second of an effect, which is run once before it counts. */
const repetitions = <E, R>(run: Effect.Effect<unknown, E, R>, seconds: number): Effect.Effect<number, E, R> =>
  Effect.gen(function*() {
    yield* run
    const began = yield* Clock.monotonicTimeNanos
    let [count, elapsed] = [0, 0]
    while (count === 0 || elapsed < seconds) {
      yield* run
      count++
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
    return 2 * size ** 3 * (yield* repetitions(bound.run({}), seconds))
  }))

/** Bytes a second that an update in place reads and writes. */
export const bandwidth = ({ seconds, size }: Options): Effect.Effect<number, BackendError | ShapeError, Backend> =>
  Effect.scoped(Effect.gen(function*() {
    const backend = yield* Backend
    const row = Specification.real({ embed: size })
    const program = yield* Program.make("memory bandwidth", { inputs: {}, state: { row } }, (_, state) => ({
      outputs: {}, state: { row: T.multiply(state.row, 0.5) }
    }))
    const cells = yield* backend.allocate({ row })
    const executable = yield* backend.compile(program)
    const bound = yield* executable.bind(cells)
    const bytesPerElement = cells.row.precision === "f32" ? 4 : 8
    return 2 * bytesPerElement * size * (yield* repetitions(bound.run({}), seconds))
  }))
