/**
 * Each law holds where it should and fails where it should.
 */
import { assert, describe, it } from "@effect/vitest"
import { composite } from "../../src/tensor/Composite.ts"
import type { Any, Untyped } from "../../src/tensor/Node.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { type Computation, evaluate, type Leaves } from "../../src/testing/Computation.ts"
import * as TensorLaw from "../../src/testing/TensorLaw.ts"
import * as Tolerance from "./Tolerance.ts"

const given: Computation["given"] = [
  { name: "x", kind: "real", sizes: { i: 2, j: 3 }, elements: Float64Array.of(0.5, -1, 2, 0.25, 1, -0.75) },
  { name: "y", kind: "real", sizes: { j: 3 }, elements: Float64Array.of(1, 2, -1) }
]
const of = (build: (leaves: Leaves) => Any): Computation => ({ given, build: (leaves) => [build(leaves)] })

/** x³, whose pullback forgets the factor 3 where `isWrong`. */
const cube = (x: Untyped, isWrong: boolean): Untyped =>
  composite({
    name: "cube",
    attributes: {},
    residuals: 0,
    decompose: ([x]) => [T.multiply(x as Untyped, T.square(x as Untyped))],
    pullback: ([x], _, [bar]) => [T.multiply(bar!, T.multiply(T.square(x!), isWrong ? 1 : 3))]
  }, [x])[0]!

const fails = (law: () => void, message: string): void => assert.throws(law, message)

describe("hasFiniteDifferenceGradient", () => {
  const holds = (computation: Computation): void => TensorLaw.hasFiniteDifferenceGradient(
    computation, Tolerance.differences
  )
  it("sees a wrong pullback", () => {
    holds(of(({ x }) => cube(x!, false)))
    fails(
      () => holds(of(({ x }) => cube(x!, true))),
      "the gradient is that of finite differences: moving elements 0, 4 of x"
    )
  })
  it("sees a gradient that is stopped", () =>
    fails(() => holds(of(({ x }) => T.multiply(x!, T.stopGradient(x!)))), "the gradient is that of finite differences"))
  it("sees a wrong second derivative", () => {
    const wrong = of(({ x }) => composite({
      name: "wrong",
      attributes: {},
      residuals: 0,
      decompose: ([x]) => [T.sin(x as Untyped)],
      pullback: ([x], _, [bar]) => [T.multiply(bar!, T.stopGradient(T.cos(x!)))]
    }, [x!])[0]!)
    holds(wrong)
    fails(() => holds(TensorLaw.gradients(wrong)), "the gradient is that of finite differences")
  })
  it("fails where nothing can be said", () =>
    fails(() => holds(of(({ x }) => T.log(T.subtract(x!, 100)))), "no difference quotient settles"))
})

describe("ignoresAxisOrder", () => {
  const reversed = ({ sizes }: Computation["given"][number]) => Object.fromEntries(Object.entries(sizes).reverse())
  it("sees a function that looks at the order of declaration", () => {
    TensorLaw.ignoresAxisOrder(of(({ x }) => T.cumulativeSum(x!, "j")), reversed, Tolerance.exact)
    fails(() => TensorLaw.ignoresAxisOrder(
      of(({ x }) => T.cumulativeSum(x!, Object.keys(x!.sizes)[0]!)), reversed, Tolerance.exact
    ),
    "the axis order of leaves changes no result: output 1 differs by")
  })
})

describe("liftsOver", () => {
  it("holds of what does not name the axis", () =>
    TensorLaw.liftsOver(
      "i", of(({ x, y }) => T.contract(T.softmax("j")(x!), T.multiply(x!, y!), "j")), Tolerance.reordered
    ))
  it("sees a function that mixes along it", () =>
    fails(() => TensorLaw.liftsOver(
      "i", of(({ x }) => "i" in x!.sizes ? T.cumulativeSum(x!, "i") : x!), Tolerance.exact
    ),
    `a function lifts over "i"`))
})

describe("pullsBackAsItsDecomposition", () => {
  it("sees a wrong pullback", () => {
    TensorLaw.pullsBackAsItsDecomposition(of(({ x }) => cube(x!, false)), Tolerance.reordered)
    fails(() => TensorLaw.pullsBackAsItsDecomposition(of(({ x }) => cube(x!, true)), Tolerance.reordered),
      "the pullback of cube is that of its decomposition (input 1)")
  })
})

describe("arrange", () => {
  it("there and back is nothing", () => {
    const [from, to] = [{ i: 2, j: 3 }, { j: 3, i: 2 }]
    const elements = Float64Array.of(1, 2, 3, 4, 5, 6)
    assert.deepStrictEqual([...TensorLaw.arrange(elements, from, to)], [1, 4, 2, 5, 3, 6])
    assert.deepStrictEqual(TensorLaw.arrange(TensorLaw.arrange(elements, from, to), to, from), elements)
  })
})

describe("weighted", () => {
  it("depends on every element of every real output", () => {
    const [slope] = evaluate(
      { given, build: ({ x }) => [T.gradient(TensorLaw.weighted([x!, T.less(x!, 0), T.negate(x!)]), { x: x! }).x] }
    )
    assert.isTrue(slope!.every((weight) => weight !== 0) && new Set(slope).size === slope!.length)
  })
})
