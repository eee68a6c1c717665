/**
 * Shapes with few axes stand for the same elements in the same order.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Shape from "../../../src/backend/tensorflow/Shape.ts"

const sizes = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 6 })

const strides = (shape: Shape.Shape): ReadonlyArray<number> =>
  shape.map((_, axis) => Shape.total(shape.slice(axis + 1)))

/** The places of the elements of a shape whose axes lie `steps` apart. */
const places = (shape: Shape.Shape, steps: ReadonlyArray<number>): ReadonlyArray<number> =>
  shape.reduce<ReadonlyArray<number>>((found, size, axis) =>
    found.flatMap((place) => Array.from({ length: size }, (_, k) => place + k * steps[axis]!)), [0])

/** What an operand that broadcasts to an output reads, in order. */
const read = (from: Shape.Shape, to: Shape.Shape): ReadonlyArray<number> => {
  const aligned = [...Array.from({ length: to.length - from.length }, () => 1), ...from]
  const own = strides(aligned)
  return places(to, to.map((_, axis) => aligned[axis] === 1 ? 0 : own[axis]!))
}

describe("few axes", () => {
  it("broadcast as many do", () => fc.assert(fc.property(
    sizes.chain((output) => fc.record({
      output: fc.constant(output),
      operands: fc.array(
        fc.tuple(fc.array(fc.boolean(), { minLength: output.length, maxLength: output.length }), fc.nat(3))
          .map(([kept, cut]) => output.map((size, i) => kept[i] === true ? size : 1).slice(
            kept.findIndex((keep) => keep) < cut ? 0 : cut
          )), { minLength: 1, maxLength: 2 })
    })),
    ({ operands, output }) => {
      const few = Shape.broadcasting(operands, output)
      assert.strictEqual(Shape.total(few.output), Shape.total(output))
      operands.forEach((shape, i) => assert.deepStrictEqual(read(few.operands[i]!, few.output), read(shape, output)))
      few.output.forEach((size, axis) => {
        assert.notStrictEqual(size, 1)
        const alike = (other: number) => few.operands.every((shape) => (shape[axis] === 1) === (shape[other] === 1))
        if (axis > 0) assert.isFalse(alike(axis - 1), "neighbours that are treated alike are one axis")
      })
    })))

  it("turn as many do", () => fc.assert(fc.property(
    sizes.chain((shape) => fc.record({
      shape: fc.constant(shape), order: fc.shuffledSubarray(shape.map((_, axis) => axis), { minLength: shape.length })
    })),
    ({ order, shape }) => {
      const turned = (shape: Shape.Shape, order: ReadonlyArray<number>) =>
        places(order.map((axis) => shape[axis]!), order.map((axis) => strides(shape)[axis]!))
      const few = Shape.permutation(shape, order)
      assert.deepStrictEqual(turned(few.shape, few.order), turned(shape, order))
      assert.isAtMost(few.shape.length, shape.length)
    })))

  it("are reduced as many are", () => fc.assert(fc.property(
    sizes.chain((shape) => fc.record({ shape: fc.constant(shape), axes: fc.subarray(shape.map((_, axis) => axis)) })),
    ({ axes, shape }) => {
      const target = (shape: Shape.Shape, axes: ReadonlyArray<number>) => {
        const kept = shape.map((size, axis) => axes.includes(axis) ? 1 : size)
        return read(kept, shape)
      }
      const few = Shape.reduction(shape, axes)
      assert.deepStrictEqual(target(few.shape, few.axes), target(shape, axes))
    })))

  it("of a whole transpose are two", () =>
    assert.deepStrictEqual(Shape.permutation([2, 3, 1, 4], [3, 2, 0, 1]), { shape: [6, 4], order: [1, 0] }))
})

describe("around", () => {
  it("gives what lies before, along and behind an axis", () =>
    assert.deepStrictEqual(Shape.around([2, 3, 4, 5], 2), [6, 4, 5]))
})
