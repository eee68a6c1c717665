/**
 * The laws of backends, all of them: whether a backend is right is what they say.
 *
 * A law is a named effect; any test runner can run it. What a backend computes is compared with the float64 reference:
 * every primitive on every kind and edge shape, the composites of the model, whole random programs (which shrink; one
 * that rounding decides is passed over), the gradients of both. Beside that stand the contract (state, views,
 * constants, watched values, refusals, release) and determinism: the same run gives the same bits, or nearly where
 * the backend says that it adds in any order.
 *
 * From     Cria's own; differential testing, with the reference as the judge.
 * Checked  test/law/BackendLaws.test.ts (holds of the reference; each kind of fault is seen),
 *          test/backend/Backend.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as fc from "fast-check"
import { Backend, type BackendError, type Precision } from "../backend/Backend.ts"
import * as Program from "../tensor/Program.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import * as Specification from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import { distanceFromReference, distanceOfDraw, evaluateOn, forAll } from "./BackendLaw.ts"
import { composites } from "./CompositeCase.ts"
import { type Computation, distance, print } from "./Computation.ts"
import * as ContractLaw from "./ContractLaw.ts"
import { indexed } from "./IndexedArbitrary.ts"
import { LawError } from "./LawError.ts"
import { type Row, rows } from "./PrimitiveCase.ts"
import { allOperations, programs } from "./ProgramArbitrary.ts"
import { gradients } from "./TensorLaw.ts"

/** How close to the reference is close enough (see `Computation.distance`). */
export interface Tolerance {
  readonly precision: Precision
  /** One primitive. */
  readonly primitive: number
  /** A program of several. */
  readonly composed: number
}

/** What is usual: float32 sums in any order, or float64 ones. */
export const tolerances: Readonly<Record<Precision, Tolerance>> = {
  f32: { precision: "f32", primitive: 1e-5, composed: 1e-4 },
  f64: { precision: "f64", primitive: 1e-12, composed: 1e-12 }
}

/** How much is tried. */
export interface Options {
  /** Random programs of all operations; gradients are tried on half as many; 40 by default. */
  readonly programs?: number
  /** Random programs of each single operation; 4 by default. */
  readonly perOperation?: number
  /** The seed of all draws; by default another every time. */
  readonly seed?: number
  /** Whether NaN, infinities and the ends of float32 are tried; a graphics card need not define them. Yes if absent. */
  readonly extremes?: boolean
}

/** A law about a backend. */
export interface Law<R = Backend, E = never> {
  readonly group: "primitive" | "composite" | "operation" | "program" | "contract" | "determinism"
  /** The law, as a sentence; the name of a primitive, a composite or an operation for laws about one. */
  readonly name: string
  /** Fails where the law does not hold; else how far from the reference the backend was at most. */
  readonly holds: Effect.Effect<number, LawError | BackendError | ShapeError | E, R>
}

/** A failure with the program and its numbers, where that is not too long. */
const withProgram = ({ detail, law }: LawError, computation: Computation): LawError => {
  const lines = print(computation).trim().split("\n")
  const rest = lines.length > most ? [`… (${lines.length} lines)`] : []
  return new LawError({ law, detail: [detail, "of", ...lines.slice(0, most), ...rest].join("\n  ") })
}

const most = 20

/** The worst distance over some computations. */
const worst = (
  computations: ReadonlyArray<Computation>, precision: Precision, tolerance: number
): Law["holds"] =>
  Effect.flatMap(Backend, (backend) =>
    Effect.map(
      Effect.forEach(computations, (computation) =>
        Effect.catchTag(distanceFromReference(backend, computation, { precision, tolerance }), "LawError", (error) =>
          Effect.fail(withProgram(error, computation)))),
      (distances) => Math.max(0, ...distances)
    ))

/** The worst distance over some draws. */
const worstOf = <A extends Computation>(
  arbitrary: fc.Arbitrary<A>, precision: Precision, tolerance: number, parameters: fc.Parameters<[A]>,
  derive: (drawn: A) => Computation = (drawn) => drawn
): Law["holds"] =>
  Effect.gen(function*() {
    const backend = yield* Backend
    const seen = { worst: 0 }
    yield* forAll(arbitrary, (drawn) =>
      Effect.map(distanceOfDraw(backend, derive(drawn), { precision, tolerance }), (distance) => {
        seen.worst = Math.max(seen.worst, distance)
      }), parameters)
    return seen.worst
  })

/** The law about one primitive. */
export const primitiveLaw = (row: Row, { precision, primitive }: Tolerance, { extremes = true }: Options): Law => ({
  group: "primitive",
  name: row.name,
  holds: worst(extremes ? [...row.computations, ...row.extremes] : row.computations, precision, primitive)
})

const bits = (arrays: ReadonlyArray<ArrayLike<number>>): string =>
  JSON.stringify(arrays.map((array) => Array.from(array, (x) => Object.is(x, -0) ? "-0" : String(x))))

const equalBits = (what: string, first: string, second: string): Effect.Effect<void, LawError> =>
  first === second ? Effect.void : Effect.fail(new LawError({
    law: what, detail: `the bits differ\n  once  ${first.slice(0, 400)}\n  again ${second.slice(0, 400)}`
  }))

/** A program that is compiled twice gives the same bits; nearly, if the backend says that it adds in any order. */
const repeats = ({ precision, primitive }: Tolerance, names: ReadonlyArray<string>): Law["holds"] =>
  Effect.gen(function*() {
    const backend = yield* Backend
    const { unordered = [] } = backend.capabilities
    const seen = { worst: 0 }
    for (const { computations, name } of rows.filter(({ name }) => names.includes(name))) {
      for (const computation of computations) {
        const evaluated = evaluateOn(backend, computation, precision)
        const [once, again] = [yield* evaluated, yield* evaluated]
        const apart = Math.max(0, ...once.map((elements, i) => distance(elements, again[i] ?? [])))
        if (!unordered.includes(name) || !(apart <= primitive)) {
          yield* equalBits("compiled twice, a program gives the same bits", bits(once), bits(again))
        }
        seen.worst = Math.max(seen.worst, apart)
      }
    }
    return seen.worst
  })

/** Cells that are trained twice from the same beginning hold the same bits. */
const retrains = (precision: Precision): Law["holds"] =>
  Effect.scoped(Effect.gen(function*() {
    const backend = yield* Backend
    const state = { w: Specification.real({ i: 37, k: 129 }) }
    const program = yield* Program.make("descend", { inputs: { x: Specification.real({ b: 65, i: 37 }) }, state },
      ({ x }, { w }) => {
        const loss = T.mean(T.logSumExp(T.contract(x, w, "i"), "k"), "b")
        return { outputs: { loss }, state: { w: T.subtract(w, T.multiply(T.gradient(loss, { w }).w, 0.5)) } }
      })
    const x = Float64Array.from({ length: 65 * 37 }, (_, i) => Math.sin(i))
    const train = Effect.gen(function*() {
      const cells = yield* backend.allocate(state, { precision })
      yield* backend.write(cells.w, Float64Array.from({ length: 37 * 129 }, (_, i) => Math.cos(i)))
      const { run } = yield* (yield* backend.compile(program, { precision })).bind(cells)
      const losses: Array<ArrayLike<number>> = []
      for (let step = 0; step < 5; step++) losses.push((yield* run({ x })).loss.elements)
      return bits([...losses, (yield* backend.read(cells)).w.elements])
    })
    yield* equalBits("trained twice, cells hold the same bits", yield* train, yield* train)
    return 0
  }))

/** All laws, for whoever provides the backend once: `laws(tolerances.f32)`. */
export const laws = (tolerance: Tolerance, options: Options = {}): ReadonlyArray<Law> => {
  const { composed, precision, primitive } = tolerance
  const { perOperation = 4, programs: count = 40, seed } = options
  const parameters = (numRuns: number) => ({ numRuns, ...seed === undefined ? {} : { seed } })
  return [
    ...rows.map((row) => primitiveLaw(row, tolerance, options)),
    {
      group: "primitive", name: "gather and scatter, however their axes lie",
      holds: worstOf(indexed, precision, primitive, parameters(count))
    },
    ...Object.entries(composites).map(([name, computation]): Law => ({
      group: "composite", name, holds: worst([computation, gradients(computation)], precision, composed)
    })),
    ...allOperations.map((operation): Law => ({
      group: "operation", name: operation,
      holds: worstOf(programs({ operations: [operation], zero: true }), precision, composed, parameters(perOperation))
    })),
    {
      group: "program", name: "a random program computes what the reference does",
      holds: worstOf(programs({ zero: true }), precision, composed, parameters(count))
    },
    {
      group: "program", name: "the gradient of a random program is that of the reference",
      holds: worstOf(programs({ zero: true }), precision, composed, parameters(count >> 1), gradients)
    },
    ...ContractLaw.laws({ precision, tolerance: composed }).map(({ holds, name }): Law =>
      ({ group: "contract", name, holds: Effect.as(holds, 0) })),
    {
      group: "determinism", name: "sums, products and choices give the same bits again",
      holds: repeats(tolerance, ["reduce sum", "matmul", "topK", "cumulativeSum"])
    },
    {
      group: "determinism", name: "rows added where they collide give the same bits again, if they are added in order",
      holds: repeats(tolerance, ["scatter add"])
    },
    { group: "determinism", name: "training twice gives the same bits", holds: retrains(precision) }
  ]
}

/**
 * All laws about the backend of a layer, each with a backend of its own: `backendLaws(Mine.layer, tolerances.f32)`.
 *
 * Where a layer is dear to build, take `laws` and provide it once for all of them.
 */
export const backendLaws = <E>(
  layer: Layer.Layer<Backend, E>, tolerance: Tolerance, options: Options = {}
): ReadonlyArray<Law<never, E>> =>
  laws(tolerance, options).map(({ group, holds, name }) => ({ group, name, holds: Effect.provide(holds, layer) }))
