/**
 * Laws of the compiler, on whole random programs: gradients, second derivatives, axis orders, meanings.
 */
import { describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Arbitrary from "../../src/testing/Arbitrary.ts"
import { evaluate } from "../../src/testing/Computation.ts"
import { differentiable, programs } from "../../src/testing/ProgramArbitrary.ts"
import { gradients, hasFiniteDifferenceGradient, ignoresAxisOrder, requireEqual } from "../../src/testing/TensorLaw.ts"
import { elementsOf } from "./Meaning.ts"
import * as Tolerance from "./Tolerance.ts"

const smooth = programs({ operations: differentiable, zero: true })

describe("of a whole program", () => {
  it("the gradient is that of finite differences", () =>
    fc.assert(fc.property(smooth, (program) => hasFiniteDifferenceGradient(program, Tolerance.differences)), {
      numRuns: 200
    }))
  it("the gradient of the gradient is too", () =>
    fc.assert(fc.property(smooth, (program) =>
      hasFiniteDifferenceGradient(gradients(program), Tolerance.differences)), { numRuns: 100 }))
  it("the gradient means what loops over named indices say", () =>
    fc.assert(fc.property(programs({ zero: true }), (program) => {
      const slopes = gradients(program)
      requireEqual("a gradient", elementsOf(slopes), evaluate(slopes), Tolerance.reordered)
    }), { numRuns: 100 }))
  it("the order in which leaves declare their axes changes no gradient", () =>
    fc.assert(fc.property(
      smooth.chain((program) =>
        fc.tuple(fc.constant(program), ...program.given.map(({ sizes }) => Arbitrary.reordered(sizes)))),
      ([program, ...orders]) =>
        ignoresAxisOrder(
          gradients(program), ({ name }) => orders[program.given.findIndex((leaf) => leaf.name === name)]!,
          Tolerance.reordered
        )
    ), { numRuns: 100 }))
})
