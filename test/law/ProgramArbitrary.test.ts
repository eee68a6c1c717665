/**
 * Random programs: everything is drawn, everything can be computed, and a fault shrinks to what matters.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { topological } from "../../src/tensor/Gradient.ts"
import { evaluate, leavesOf } from "../../src/testing/Computation.ts"
import { allOperations, differentiable, programs } from "../../src/testing/ProgramArbitrary.ts"

const sample = fc.sample(programs({ zero: true }), { numRuns: 500, seed: 7 })

describe("random programs", () => {
  it("draw every operation", () => {
    const drawn = new Set(sample.flatMap(({ operations }) => operations))
    assert.deepStrictEqual(allOperations.filter((name) => !drawn.has(name)), [])
  })
  it("are of several lengths and forms", () => {
    const lengths = new Set(sample.map(({ operations }) => operations.length))
    assert.isTrue([1, 2, 3, 4, 5, 6].every((length) => lengths.has(length)))
    assert.isTrue(sample.some(({ given }) => given.some(({ sizes }) => Object.values(sizes).includes(0))))
  })
  it("compute finite numbers", () =>
    sample.forEach((program) => assert.isTrue(evaluate(program).every((elements) => elements.every(Number.isFinite)))))
  it("are the same when they are built again", () =>
    sample.slice(0, 50).forEach((program) => assert.deepStrictEqual(evaluate(program), evaluate(program))))
  it("may be restricted", () => {
    const { operations } = fc.sample(programs({ operations: ["sin", "contract"] }), { numRuns: 50, seed: 1 })
      .reduce(
        (all, { operations }) => ({ operations: [...all.operations, ...operations] }), { operations: Array<string>() }
      )
    assert.sameMembers([...new Set(operations)], ["sin", "contract"])
    assert.notInclude(differentiable, "stopGradient")
  })
  it("shrink to the operation at fault, give or take one, on axes of size 1", () => {
    const hasFloor = ({ build, given }: ReturnType<typeof fc.sample<typeof sample[number]>>[number]): boolean =>
      topological(build(leavesOf(given))).some(
        ({ operation }) => operation._tag === "Unary" && operation.function === "floor"
      )
    const { counterexample } = fc.check(
      fc.property(programs(), (program) => !hasFloor(program)), { seed: 1, numRuns: 200 }
    )
    const [program] = counterexample!
    assert.include(program.operations, "floor")
    assert.isAtMost(program.operations.length, 2)
    assert.isTrue(program.given.flatMap(({ sizes }) => Object.values(sizes)).every((size) => size === 1))
  })
})
