/**
 * Lowering: the axis order of leaves changes no result, equal work is done once, dead work not at all.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Instruction, Lowered, Primitive } from "../../src/tensor/Instruction.ts"
import { lower } from "../../src/tensor/Lower.ts"
import type { Any, Kind, Sizes, Untyped } from "../../src/tensor/Node.ts"
import { count } from "../../src/tensor/Node.ts"
import { rewrite } from "../../src/tensor/Rewrite.ts"
import * as T from "../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../src/testing/Arbitrary.ts"
import { type Leaves, leavesOf } from "../../src/testing/Computation.ts"
import { programs } from "../../src/testing/ProgramArbitrary.ts"
import { ignoresAxisOrder } from "../../src/testing/TensorLaw.ts"
import * as Tolerance from "../law/Tolerance.ts"

const lowered = (leaves: Leaves, outputs: ReadonlyArray<Any>): Lowered => {
  const rewritten = rewrite(outputs, () => false)
  return lower({
    inputs: Object.entries(leaves),
    cells: [],
    outputs: outputs.map(({ sizes }, i) => ({ name: String(i), node: rewritten[i]!, sizes })),
    writes: [],
    watched: []
  })
}

const leaves = (all: Readonly<Record<string, Sizes>>, kind: Kind = "real"): Leaves =>
  leavesOf(
    Object.entries(all).map(([name, sizes]) => ({ name, sizes, kind, elements: new Float64Array(count(sizes)) }))
  )

const instructions = (
  all: Readonly<Record<string, Sizes>>, build: (leaves: Leaves) => ReadonlyArray<Any>
): ReadonlyArray<Instruction> => {
  const tensors = leaves(all)
  return lowered(tensors, build(tensors)).instructions
}

const tags = (all: ReadonlyArray<Instruction>): ReadonlyArray<Primitive["_tag"]> => all.map(
  ({ primitive }) => primitive._tag
)

const functions = (all: ReadonlyArray<Instruction>, name: string): number =>
  all.filter(({ primitive }) => primitive._tag === "unary" && primitive.function === name).length

describe("the order of axes", () => {
  it("of leaves changes no result", () =>
    fc.assert(fc.property(
      programs({ zero: true }).chain((program) =>
        fc.tuple(fc.constant(program), ...program.given.map(({ sizes }) => Arbitrary.reordered(sizes)))),
      ([program, ...orders]) =>
        ignoresAxisOrder(
          program, ({ name }) => orders[program.given.findIndex((leaf) => leaf.name === name)]!, Tolerance.reordered
        )
    ), { numRuns: 200 }))
  it("of a result is that of its sizes, whatever rewriting made of it", () => {
    const { b, s, y } = leaves({ b: { row: 2, vocab: 5 }, s: { row: 2 }, y: { vocab: 5, embed: 1 } })
    const written = T.contract(T.multiply(b!, s!), y!, "vocab")
    const { outputs, values } = lowered({ b: b!, s: s!, y: y! }, [written])
    assert.deepStrictEqual(
      outputs.map(({ sizes, value }) => [sizes, values[value]!.shape]), [[written.sizes, Object.values(written.sizes)]]
    )
  })
})

describe("a lowered program", () => {
  it("computes every value once, before it is used, with as many axes as sizes", () =>
    fc.assert(fc.property(programs({ zero: true }), ({ build, given }) => {
      const tensors = leavesOf(given)
      const program = lowered(tensors, build(tensors))
      const known = new Set(program.inputs.map(({ value }) => value))
      for (const { inputs, outputs } of program.instructions) {
        assert.isTrue(inputs.every((input) => known.has(input)))
        assert.isFalse(outputs.some((output) => known.has(output)))
        outputs.forEach((output) => known.add(output))
      }
      assert.isTrue(program.outputs.every(({ sizes, value }) =>
        known.has(value) && Object.values(sizes).join() === program.values[value]!.shape.join()))
      assert.isTrue(program.values.every(({ axes, shape }) => axes.length === shape.length))
    }), { numRuns: 100 }))
})

describe("work", () => {
  const x = { x: { i: 2, j: 3 } }
  it("that is equal is done once", () => {
    const found = instructions(x, ({ x }) => [T.exp(T.add(x!, 1)), T.sin(T.exp(T.add(x!, T.constant(1))))])
    assert.deepStrictEqual(tags(found), ["constant", "binary", "unary", "unary"])
  })
  it("that nothing needs is not done", () => {
    const found = instructions(x, ({ x }) => {
      const { ids } = T.topK(T.square(x!), "j", "rank", 2)
      T.exp(x!)
      return [ids]
    })
    assert.deepStrictEqual(tags(found), ["unary", "topK"])
  })
  it("of one topK gives both of its results", () => {
    const found = instructions(x, ({ x }) => Object.values(T.topK(x!, "j", "rank", 2)))
    assert.deepStrictEqual(tags(found), ["topK"])
  })
  it("is not done to broadcast, rename, or add axes of size 1", () => {
    const found = instructions({ x: { i: 2, j: 3 }, y: { j: 3 } }, ({ x, y }) => [
      T.rename(T.add(x!, y!), "j", "k"), T.multiply(T.spread(x!, "one", 1), T.spread(y!, "other", 1))
    ])
    assert.isFalse(tags(found).some((tag) => tag === "expand" || tag === "transpose"))
  })
  it("is not done to split, merge and turn around the operands of a product", () => {
    const found = instructions({
      x: { batch: 2, position: 3, embed: 4 }, w: { embed: 4, head: 2, plane: 5 }, o: { head: 2, plane: 5, embed: 4 }
    }, ({ o, w, x }) => {
      const keys = T.contract(x!, w!, "embed")
      return [T.contract(keys, o!, ["head", "plane"])]
    })
    assert.isTrue(tags(found).every((tag) => tag === "reshape" || tag === "matmul"))
    assert.strictEqual(tags(found).filter((tag) => tag === "matmul").length, 2)
  })
  it("of scaling a product is the product's own", () => {
    const scale = (build: (product: Untyped) => ReadonlyArray<Any>) =>
      instructions({ x: { i: 2, k: 3 }, y: { k: 3, j: 2 } }, ({ x, y }) => build(T.contract(x!, y!, "k")))
    const once = scale((product) => [T.multiply(product, 0.5)])
    assert.deepStrictEqual(tags(once), ["matmul"])
    assert.deepStrictEqual(once.map(({ primitive }) => primitive._tag === "matmul" ? primitive.scale : 0), [0.5])
    const shown = scale((product) => [T.multiply(product, 0.5), product])
    assert.strictEqual(tags(shown).filter((tag) => tag === "matmul").length, 1)
  })
  it("on constants is shared by what they hold", () => {
    const many = Float64Array.from({ length: 100 }, (_, i) => i)
    const found = instructions({}, () => [
      T.sin(T.values({ i: 2 }, [1, 2])), T.sin(T.values({ i: 2 }, [1, 2])), T.sin(T.values({ i: 2 }, [1, 3])),
      T.cos(T.values({ i: 100 }, many)), T.sign(T.real(T.positions("i", 100))), T.abs(T.real(T.positions("i", 100)))
    ])
    assert.strictEqual(tags(found).filter((tag) => tag === "constant").length, 4)
  })
})

describe("recompute", () => {
  const exponentials = (region: (x: Untyped) => Untyped): number =>
    functions(instructions({ x: { i: 4 } }, ({ x }) => {
      const squares: T.Tensor<"i"> = T.square(region(x!))
      const loss = T.sum(squares, "i")
      return [loss, ...Object.values(T.gradient(loss, { x: x! }))]
    }), "exp")
  it("runs its region again, and does not merge the two", () => {
    const region = (x: Untyped): Untyped => T.sin(T.exp(x))
    assert.strictEqual(exponentials(region), 1)
    assert.strictEqual(exponentials((x) => T.recompute({ x }, ({ x }) => region(x))), 2)
  })
  it("runs a region inside a region once more", () => {
    const inner = (x: Untyped): Untyped => T.recompute({ x }, ({ x }): Untyped => T.sin(T.exp(x)))
    assert.strictEqual(exponentials((x) => T.recompute({ x }, ({ x }) => T.sin(inner(x)))), 3)
  })
})

describe("a deep model", () => {
  /** Blocks of a contraction, a norm and a gate, with residuals; the loss and its gradient. */
  const size = (blocks: number): number => {
    const all = Object.fromEntries(Array.from({ length: blocks }, (_, i) => [`w${i}`, { embed: 4, hidden: 6 }]))
    return instructions({ x: { position: 3, embed: 4 }, ...all }, ({ x, ...matrices }) => {
      const out = Object.values(matrices).reduce((h: Untyped, w): Untyped => {
        const inverse: Untyped = T.rsqrt(T.add(T.mean(T.square(h), "embed"), 1e-5))
        const hidden: Untyped = T.silu(T.contract(T.multiply(h, inverse), w, "embed"))
        return T.add(h, T.contract(hidden, w, "hidden"))
      }, x!)
      const weights: T.Tensor<"position" | "embed"> = T.softmax("embed")(out)
      const loss = T.mean(weights, ["position", "embed"])
      return [loss, ...Object.values(T.gradient(loss, matrices))]
    }).length
  }
  it("grows by as much with every block", () => {
    const [four, eight, twelve] = [size(4), size(8), size(12)]
    assert.strictEqual(twelve - eight, eight - four)
  })
})
