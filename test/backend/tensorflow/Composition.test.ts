/**
 * What the layers say of their primitives is so of every case on which the laws try them.
 */
import { assert, describe, it } from "@effect/vitest"
import { primitives, type Way, wayOf, workOf } from "../../../src/backend/tensorflow/Composition.ts"
import { most as mostAxes } from "../../../src/backend/tensorflow/Piece.ts"
import { total } from "../../../src/backend/tensorflow/Shape.ts"
import type { Primitive } from "../../../src/tensor/Instruction.ts"
import { lower } from "../../../src/tensor/Lower.ts"
import { leavesOf } from "../../../src/testing/Computation.ts"
import { rows } from "../../../src/testing/PrimitiveCase.ts"

const nameOf = (primitive: Primitive): string =>
  [primitive._tag, ...["function", "relation", "mode"].flatMap((key) =>
    key in primitive ? [String(primitive[key as keyof Primitive])] : [])].join(" ")

const programs = rows.flatMap(({ computations }) => computations.map(({ build, given }) => {
  const leaves = leavesOf(given)
  return lower({
    inputs: Object.entries(leaves), cells: [], writes: [], watched: [],
    outputs: build(leaves).map((node, i) => ({ name: String(i), node, sizes: node.sizes }))
  })
}))

const order: ReadonlyArray<Way> = ["native", "composed", "fallback"]

/** The worst way of each primitive over all cases that have elements and at most as many axes as kernels take. */
const found = (engine: Parameters<typeof workOf>[0]): Map<string, Way> => {
  const worst = new Map<string, Way>()
  for (const { instructions, values } of programs) {
    for (const { inputs, outputs, primitive } of instructions) {
      const [operands, results] = [inputs, outputs].map((ids) => ids.map((id) => values[id]!))
      const all = [...operands!, ...results!]
      const isPlain = primitive._tag !== "constant" && all.every(({ shape }) =>
        total(shape) > 0 && shape.length <= mostAxes)
      if (!isPlain) continue
      const way = wayOf(workOf(engine, primitive, operands!, results!))
      const name = nameOf(primitive)
      worst.set(name, order[Math.max(order.indexOf(way), order.indexOf(worst.get(name) ?? "native"))]!)
    }
  }
  return worst
}

describe("the primitives of TensorFlow.js", () => {
  for (const engine of ["cpu", "wasm", "webgpu", "node", "node-gpu"] as const) {
    it(`are on ${engine} what its layer says`, () => {
      const expected = [...found(engine)].filter(([, way]) => way !== "native").toSorted()
      assert.deepStrictEqual(Object.entries(primitives(engine)).toSorted(), expected)
    })
  }
  it("are known by name, as docs/operations.md has them", () => {
    const names = new Set(rows.map(({ name }) => name))
    for (const name of Object.keys(primitives("webgpu"))) assert.isTrue(names.has(name), name)
    assert.strictEqual(primitives("wasm")["expand"], "fallback")
    assert.strictEqual(primitives("webgpu")["unary sin"], "composed")
    assert.isUndefined(primitives("node")["unary sin"])
  })
  it("have a name for whatever is done for them", () => {
    assert.strictEqual(wayOf({ kernels: 1, uploads: 0 }), "native")
    assert.strictEqual(wayOf({ kernels: 0, uploads: 0 }), "native")
    assert.strictEqual(wayOf({ kernels: 1, uploads: 1 }), "composed")
    assert.strictEqual(wayOf({ kernels: 0, uploads: 1 }), "fallback")
  })
})
