/**
 * The law of backends holds of the reference and sees a backend that is wrong.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Bound } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import { agreesWithReference, forAll, type Service } from "../../src/testing/BackendLaw.ts"
import { programs } from "../../src/testing/ProgramArbitrary.ts"
import { mapAs } from "../../src/tensor/Tree.ts"
import * as Tolerance from "./Tolerance.ts"

/** A backend whose results are a little too large. */
const wrong: Service = {
  ...Reference.make(),
  name: "wrong",
  compile: (program, options) => Effect.map(Reference.make().compile(program, options), (executable) => ({
    ...executable,
    bind: (cells) => Effect.map(executable.bind(cells), (
      { run, ...rest }
    ): Bound<typeof program.inputs, typeof program.outputs> => ({
      ...rest,
      run: (inputs) => Effect.map(run(inputs), (outputs) =>
        mapAs<typeof outputs>()(outputs, (value): value is { readonly elements: Float64Array } =>
          typeof value === "object" && value !== null && "elements" in value, (values) => ({
          ...values, elements: values.elements.map((x) => x + 1)
        })))
    }))
  }))
}

const options = { precision: "f64", tolerance: Tolerance.exact } as const

describe("agreesWithReference", () => {
  it.effect("holds of the reference", () =>
    forAll(
      programs({ zero: true }), (program) => agreesWithReference(Reference.make(), program, options), { numRuns: 50 }
    ))
  it.effect("sees what is wrong, and shows the smallest program", () => Effect.gen(function*() {
    const error = yield* Effect.flip(
      forAll(programs({ operations: ["sin"] }), (program) => agreesWithReference(wrong, program, options), { seed: 1 })
    )
    assert.strictEqual(error.law, "a law holds for every draw")
    assert.include(error.detail, "Property failed after 1 tests")
    assert.include(error.detail, "%1 = sin(x)  real []")
  }))
  it.effect("passes on why a backend cannot run it", () => Effect.gen(function*() {
    const error = yield* Effect.flip(
      agreesWithReference(Reference.make(), { given: [], build: () => [] }, { ...options, precision: "f32" })
    )
    assert.strictEqual(error._tag, "BackendError")
  }))
})
