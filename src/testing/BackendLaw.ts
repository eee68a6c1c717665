/**
 * The law of backends: what a backend computes is what the float64 reference computes.
 *
 * From     Cria's own; differential testing, with the reference as the judge.
 * Checked  test/law/BackendLaw.test.ts (fails for a backend that is wrong); test/backend/Backend.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import type { Backend, BackendError, Elements, Precision } from "../backend/Backend.ts"
import * as Program from "../tensor/Program.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import * as Specification from "../tensor/Specification.ts"
import type { Kind, Sizes, Untyped } from "../tensor/Node.ts"
import { type Computation, distance, evaluate, print } from "./Computation.ts"
import { LawError } from "./LawError.ts"
import { isDecidedByRounding } from "./Rounding.ts"
import { requireEqual } from "./TensorLaw.ts"

/** A backend as a value. */
export type Service = Backend["Service"]

const specify: Record<Kind, (sizes: Sizes) => Specification.AnySpecification> = {
  real: Specification.real, id: Specification.ids, truth: Specification.truths, code: Specification.codes
}

/** What a backend computes for a computation, compiled as a program. */
export const evaluateOn = (
  backend: Service, { build, given }: Computation, precision: Precision
): Effect.Effect<ReadonlyArray<Elements>, BackendError | ShapeError> =>
  Effect.scoped(Effect.gen(function*() {
    const inputs = Object.fromEntries(given.map(({ kind, name, sizes }) => [name, specify[kind](sizes)]))
    const program = yield* Program.makeGeneric("computation", { inputs, state: {} }, (
      leaves: Readonly<Record<string, Untyped>>
    ) => ({
      outputs: [...build(leaves)]
    }))
    const executable = yield* backend.compile(program, { precision })
    const bound = yield* executable.bind({})
    const outputs = yield* bound.run(Object.fromEntries(given.map(({ elements, name }) => [name, elements])))
    return Object.values(outputs).map(({ elements }) => elements)
  }))

/**
 * How far the backend is from the reference (see `Computation.distance`); fails where that is more than `tolerance`.
 */
export const distanceFromReference = (
  backend: Service, computation: Computation, options: { readonly precision: Precision; readonly tolerance: number }
): Effect.Effect<number, BackendError | ShapeError | LawError> =>
  Effect.flatMap(evaluateOn(backend, computation, options.precision), (found) =>
    Effect.try({
      try: () => {
        const expected = evaluate(computation)
        requireEqual(`${backend.name} computes what the reference does`, expected, found, options.tolerance)
        return Math.max(0, ...expected.map((elements, i) => distance(elements, found[i] ?? [])))
      },
      catch: (error) => error instanceof LawError ? error : new LawError({ law: backend.name, detail: String(error) })
    }))

/** The same of a random draw: 0 where rounding decides what it gives, for then it says nothing about a backend. */
export const distanceOfDraw = (
  ...[backend, computation, options]: Parameters<typeof distanceFromReference>
): Effect.Effect<number, BackendError | ShapeError | LawError> =>
  Effect.catchTag(distanceFromReference(backend, computation, options), "LawError", (error) =>
    isDecidedByRounding(computation, options) ? Effect.succeed(0) : Effect.fail(error))

/** The backend computes what the reference does, up to `tolerance` (see `Computation.distance`). */
export const agreesWithReference = (
  ...args: Parameters<typeof distanceFromReference>
): Effect.Effect<void, BackendError | ShapeError | LawError> => Effect.asVoid(distanceFromReference(...args))

/** Tries a law on many draws; fails with the smallest counterexample. */
export const forAll = <A, E, R>(
  arbitrary: fc.Arbitrary<A>, law: (drawn: A) => Effect.Effect<void, E, R>, parameters: fc.Parameters<[A]> = {}
): Effect.Effect<void, LawError, R> =>
  Effect.flatMap(Effect.context<R>(), (context) =>
    Effect.tryPromise({
      try: () => fc.assert(
        fc.asyncProperty(arbitrary, (drawn) => Effect.runPromiseWith(context)(law(drawn))), parameters
      ),
      catch: (error) => new LawError({ law: "a law holds for every draw", detail: detailOf(error) })
    }))

/** The counterexample, and what is wrong with it. */
const detailOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const report = error.message.replace(/\n\nHint: .*$/s, "")
  return error.cause instanceof Error ? `${report}\n${error.cause.message}` : report
}

/** A computation as fast-check shows it. */
export const show = print
