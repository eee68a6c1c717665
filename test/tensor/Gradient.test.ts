/**
 * Gradients against differences in float64: every operation, composites, replays. Whole programs are in test/law.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { composite } from "../../src/tensor/Composite.ts"
import { topological } from "../../src/tensor/Gradient.ts"
import { type Any, type Untyped, withOperands } from "../../src/tensor/Node.ts"
import * as T from "../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../src/testing/Arbitrary.ts"
import { evaluate, type Leaves, leavesOf, prepare } from "../../src/testing/Computation.ts"
import { differentiable, programs } from "../../src/testing/ProgramArbitrary.ts"
import {
  gradients, hasFiniteDifferenceGradient, pullsBackAsItsDecomposition, requireEqual, weighted
} from "../../src/testing/TensorLaw.ts"
import * as Tolerance from "../law/Tolerance.ts"

/** The gradient with respect to a row of numbers. */
const slopes = (elements: ReadonlyArray<number>, f: (x: T.Tensor<"i">) => T.Scalar): ReadonlyArray<number> => {
  const x = T.values({ i: elements.length }, elements)
  return [...evaluate({ given: [], build: () => [T.gradient(f(x), { x }).x] })[0]!]
}

describe("the gradient is that of finite differences", () => {
  it.each(differentiable)("%s", (operation) =>
    fc.assert(fc.property(programs({ operations: [operation], zero: true }), (program) =>
      hasFiniteDifferenceGradient(program, Tolerance.differences)), { numRuns: 8 }))
})

describe("where there is no derivative", () => {
  type Row = (x: T.Tensor<"i">) => T.Tensor<"i">
  const cases: ReadonlyArray<readonly [string, ReadonlyArray<number>, Row, ReadonlyArray<number>]> = [
    ["abs at 0", [0, -2], T.abs, [0, -1]],
    ["sign and floor are flat", [0.5, 1], (x) => T.add(T.sign(x), T.floor(x)), [0, 0]],
    ["at a tie the maximum goes to x", [1, 3], (x) => T.maximum(x, T.stopGradient(x)), [1, 1]],
    ["at a tie the minimum goes to x", [1, 3], (x) => T.minimum(T.stopGradient(x), x), [0, 0]],
    ["x⁰ at 0", [0, 2], (x) => T.power(x, 0), [0, 0]],
    ["x¹ at 0", [0, 2], (x) => T.power(x, 1), [1, 1]],
    ["nothing flows through stopGradient", [1, 2], (x) => T.multiply(x, T.stopGradient(x)), [1, 2]],
    ["nothing flows through a comparison", [1, 2], (x) => T.real(T.less(x, 1.5)), [0, 0]],
    ["select passes to the chosen branch only", [0, 4], (x) => T.select(T.less(x, 1), 0, T.sqrt(x)), [NaN, 0.25]],
    ["a guarded input keeps the other branch finite", [0, 4],
      (x) => T.select(T.less(x, 1), 0, T.sqrt(T.select(T.less(x, 1), 1, x))), [0, 0.25]]
  ]
  it.each(cases)("%s", (_, at, f, expected) => assert.deepStrictEqual(slopes(at, (x) => T.sum(f(x), "i")), expected))
  it("the largest share their gradient", () => {
    assert.deepStrictEqual(slopes([3, 1, 3, 3], (x) => T.max(x, "i")), [1 / 3, 0, 1 / 3, 1 / 3])
  })
  it("of equal ones topK passes to the first", () => {
    assert.deepStrictEqual(slopes([3, 1, 3], (x) => T.sum(T.topK(x, "i", "rank", 1).values, "rank")), [1, 0, 0])
  })
})

describe("gradient", () => {
  it("is zero where the loss does not depend on a parameter", () => {
    const [x, y] = [T.values({ i: 2 }, [1, 2]), T.values({ i: 2 }, [3, 4])]
    const found = T.gradient(T.sum(x, "i"), { x, blocks: [{ y }] })
    assert.deepStrictEqual(
      evaluate({ given: [], build: () => [found.x, found.blocks[0]!.y] }).map((g) => [...g]), [[1, 1], [0, 0]]
    )
  })
  it("lies as the parameter does", () => {
    const weight = T.values({ k: 3, n: 2 }, [1, 2, 3, 4, 5, 6])
    const product = T.contract(T.values({ a: 1, k: 3 }, [1, 10, 100]), weight, "k")
    const { weight: slope } = T.gradient(T.sum(product, ["a", "n"]), { weight })
    assert.deepStrictEqual(Object.keys(slope.sizes), ["k", "n"])
    assert.deepStrictEqual([...evaluate({ given: [], build: () => [slope] })[0]!], [1, 1, 10, 10, 100, 100])
  })
  it("may be taken with respect to an inner value, which then stands for itself", () => {
    const x = T.values({ i: 2 }, [1, 2])
    const y = T.square(x)
    const found = T.gradient(T.sum(T.multiply(x, y), "i"), { x, y })
    assert.deepStrictEqual(
      evaluate({ given: [], build: () => [found.x, found.y] }).map((g) => [...g]), [[1, 4], [1, 2]]
    )
  })
})

describe("composites", () => {
  const sizes = Arbitrary.sizes(["batch", "position"])
  const composites: ReadonlyArray<readonly [string, (x: Untyped, seen: Untyped) => Any]> = [
    ["softmax", (x) => T.softmax("position")(x)],
    ["softmaxWhere", (x, seen) => T.softmaxWhere(x, seen, "position")],
    ["silu", (x) => T.silu(x)],
    ["recompute", (x) => T.recompute({ x }, ({ x }) => T.tanh(T.multiply(x, x)))]
  ]
  it.each(composites)("%s pulls back as its decomposition does", (_, f) =>
    fc.assert(fc.property(sizes.chain(
      (all) => fc.tuple(Arbitrary.real("x", all), Arbitrary.truth("seen", all))
    ), (given) =>
      pullsBackAsItsDecomposition(
        { given, build: ({ seen, x }) => [f(x!, seen!)] }, Tolerance.reordered
      )), { numRuns: 40 }))
})

describe("a residual", () => {
  /** x / √(1 + x²), and what it divides by: of use to the pullback, which knows nothing of its own cotangent. */
  const bounded = (x: Untyped): ReadonlyArray<Untyped> =>
    composite({
      name: "bounded",
      attributes: {},
      residuals: 1,
      decompose: ([input]) => {
        const root: Untyped = T.sqrt(T.add(T.square(input as Untyped), 1))
        return [T.divide(input as Untyped, root), root]
      },
      pullback: (_, [, root], [bar]) => [T.divide(bar!, T.power(root!, 3))]
    }, [x])
  const holds = (build: (x: Untyped) => Any): void =>
    fc.assert(fc.property(Arbitrary.sizes(["i"]).chain((sizes) => Arbitrary.real("x", sizes)), (x) => {
      const computation = { given: [x], build: ({ x }: Leaves) => [build(x!)] }
      hasFiniteDifferenceGradient(computation, Tolerance.differences)
      hasFiniteDifferenceGradient(gradients(computation), Tolerance.differences)
    }), { numRuns: 10 })
  it("serves the pullback", () => holds((x) => bounded(x)[0]!))
  it("that is differentiated falls back to the decomposition", () => {
    holds((x) => bounded(x)[1]!)
    holds((x) => {
      const [y, root] = bounded(x)
      return T.multiply(T.sin(y!), root!)
    })
  })
})

/** The graph with every recomputed region run in line. */
const inLine = (outputs: ReadonlyArray<Any>): ReadonlyArray<Any> => {
  const images = new Map<Any, Any>()
  for (const node of topological(outputs)) {
    const [composite] = node.operands
    const isReplayed = node.operation._tag === "Output" && composite?.operation._tag === "Composite" &&
      composite.operation.composite.name === "recompute"
    const next = isReplayed && composite.operation._tag === "Composite"
      ? composite.operation.composite.decompose(composite.operands.map((operand) => images.get(operand)!))[0]!
      : withOperands(node, node.operands.map((operand) => images.get(operand)!))
    images.set(node, next)
  }
  return outputs.map((output) => images.get(output)!)
}

describe("recompute", () => {
  it("gives the gradients of the region run once", () =>
    fc.assert(fc.property(programs(
      { operations: [...differentiable, "recompute", "recompute", "recompute"] }
    ), (program) => {
      const leaves = leavesOf(program.given)
      const outputs = program.build(leaves)
      const { w, x, y } = leaves
      const parameters = { w: w!, x: x!, y: y! }
      const [replayed, once] = [outputs, inLine(outputs)].map((ends) =>
        prepare(leaves, Object.values(T.gradient(weighted(ends), parameters)))(program.given))
      requireEqual("recompute", once!, replayed!, Tolerance.reordered)
    }), { numRuns: 60 }))
  it("teaches what must come in", () => {
    const gain = leavesOf([{ name: "gain", sizes: { i: 2 }, kind: "real", elements: new Float64Array(2) }])["gain"]!
    const build = () => T.recompute({ x: T.fill({ i: 2 }, 1) }, ({ x }) => T.multiply(x, T.exp(gain)))
    assert.throws(build, "recompute: every tensor that a gradient could flow to must be one of its inputs")
    assert.doesNotThrow(() => T.recompute({ x: T.fill({ i: 2 }, 1) }, ({ x }) => T.multiply(x, T.stopGradient(gain))))
  })
  it("sees what is closed over where it is made of an input, or is one", () => {
    const [x] = Object.values(leavesOf([{ name: "x", sizes: { i: 2 }, kind: "real", elements: new Float64Array(2) }]))
    const inner = T.square(x!)
    const beside = T.sin(inner) // its gradient would be lost without a word
    for (const outside of [beside, inner, x!]) {
      assert.throws(() => T.recompute({ x: x!, inner }, (given) => T.multiply(given.inner, outside)),
        "recompute: every tensor that a gradient could flow to must be one of its inputs")
    }
  })
})

describe("real", () => {
  it("leaves a real, and its gradient, as they are", () => {
    const x: T.Tensor<"i"> = T.values({ i: 2 }, [0.3, 0.4])
    assert.strictEqual<unknown>(T.real(x), x)
  })
})

describe("deep graphs", () => {
  it("are built, differentiated twice and run without a deep stack", () => {
    const x = T.values({ i: 2 }, [0.3, 0.4])
    const chain = (start: T.Tensor<"i">): T.Tensor<"i"> =>
      Array.from({ length: 2000 }).reduce(
        (y: T.Tensor<"i">, _, k) => T.within(`step.${k}`, () => T.sin(T.add(y, 0.001))), start
      )
    const first = T.gradient(T.sum(chain(x), "i"), { x })
    const second = T.gradient(T.sum(first.x, "i"), { x })
    assert.isTrue(
      evaluate({ given: [], build: () => [first.x, second.x] }).flatMap((g) => [...g]).every(Number.isFinite)
    )
  })
  it("of scaled products and spreads too", () => {
    const x = T.values({ i: 2, j: 2 }, [1, 2, 3, 4])
    const scales = T.values({ j: 2 }, [1, 0.999])
    const scaled = Array.from({ length: 2000 }).reduce((y: T.Tensor<"i" | "j">) => T.multiply(y, scales), x)
    const [product] = evaluate({ given: [], build: () => [T.contract(scaled, T.fill({ i: 2 }, 1), "i")] })
    requireEqual("a chain of scalings", [[4, 6 * 0.999 ** 2000]], [product!], Tolerance.reordered)
  })
})
