import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as GgufModel from "../../src/llama/checkpoint/GgufModel.ts"
import * as HuggingFaceModel from "../../src/llama/checkpoint/HuggingFaceModel.ts"
import { joined, places, reordered } from "../../src/llama/checkpoint/Layout.ts"
import * as MetaModel from "../../src/llama/checkpoint/MetaModel.ts"
import * as Config from "../../src/llama/Config.ts"
import type { Sizes } from "../../src/tensor/Node.ts"
import { count } from "../../src/tensor/Node.ts"

/** The elements in another order, one by one. */
const slowly = (elements: ArrayLike<number>, from: Sizes, to: Sizes): ReadonlyArray<number> => {
  const visit = (axes: ReadonlyArray<string>, at: Readonly<Record<string, number>>): ReadonlyArray<number> => {
    const [axis, ...rest] = axes
    if (axis === undefined) {
      return [elements[Object.keys(from).reduce((index, axis) => index * from[axis]! + at[axis]!, 0)]!]
    }
    return Array.from({ length: to[axis]! }, (_, i) => visit(rest, { ...at, [axis]: i })).flat()
  }
  return visit(Object.keys(to), {})
}

const iota = (length: number) => Float32Array.from({ length }, (_, i) => i)

describe("reordered", () => {
  it("is the order of the axes, whatever the sizes, and itself again when turned back", () => {
    const axes = ["a", "b", "c", "d"]
    const shuffled = fc.shuffledSubarray(axes, { minLength: 1 })
    fc.assert(fc.property(shuffled.chain((to) => fc.tuple(fc.constant(to), fc.shuffledSubarray(to, {
      minLength: to.length
    }), fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 4, maxLength: 4 }))), ([to, from, sizes]) => {
      const of = (order: ReadonlyArray<string>): Sizes =>
        Object.fromEntries(order.map((axis) => [axis, sizes[axes.indexOf(axis)]!]))
      const elements = iota(count(of(to)))
      const turned = reordered(elements, of(from), of(to))
      assert.deepStrictEqual([...turned], slowly(elements, of(from), of(to)))
      assert.deepStrictEqual([...reordered(turned, of(to), of(from))], [...elements])
    }))
  })
  it("crosses the borders of its tiles, in float64 too", () => {
    const [from, to] = [{ a: 130, b: 3, c: 67 }, { c: 67, b: 3, a: 130 }]
    const elements = Float64Array.from({ length: 130 * 3 * 67 }, (_, i) => i)
    const turned = reordered(elements, from, to)
    assert.instanceOf(turned, Float64Array)
    assert.deepStrictEqual([...turned], slowly(elements, from, to))
  })
  it("copies nothing where the order is the same", () => {
    const elements = iota(24)
    assert.strictEqual(reordered(elements, { a: 2, x: 1, b: 12 }, { a: 2, b: 12, x: 1 }), elements)
  })
})

describe("places", () => {
  const config = Config.make({
    vocabSize: 11, embedSize: 12, layerCount: 2, headCount: 4, kvHeadCount: 2, headSize: 6, hiddenSize: 7
  })
  it("name each parameter once, in every format, with its sizes", () => {
    for (const { naming } of [HuggingFaceModel, MetaModel, GgufModel]) {
      const all = places(config, naming)
      assert.strictEqual(new Set(all.map(({ name }) => name)).size, 3 + 2 * 9)
      for (const { name, ours, sizes, theirs } of all) {
        assert.strictEqual(count(theirs), count(ours), name)
        assert.strictEqual(sizes.reduce((product, size) => product * size, 1), count(ours), name)
        assert.sameMembers(Object.keys(theirs), Object.keys(ours), name)
        assert.isFalse(naming.computed.test(name), name)
      }
      assert.isTrue(["rope.freqs", "model.layers.3.self_attn.rotary_emb.inv_freq", "rope_freqs.weight"]
        .some((name) => naming.computed.test(name)))
    }
  })
  it("turn Meta's queries and keys into Hugging Face's by the permutation of their script, and no others", () => {
    const [meta, theirs] = [places(config, MetaModel.naming), places(config, HuggingFaceModel.naming)]
    meta.forEach((place, i) => {
      const elements = iota(count(place.ours))
      const here = reordered(elements, place.theirs, place.ours)
      const there = reordered(here, place.ours, theirs[i]!.theirs)
      const heads = place.path.endsWith("query") ? 4 : place.path.endsWith("key") ? 2 : undefined
      // w.view(heads, dim // heads // 2, 2, dim).transpose(1, 2).reshape(…)
      const expected = heads === undefined ? [...elements] : Array.from({ length: heads }, (_, head) =>
        [0, 1].flatMap((part) => [0, 1, 2].flatMap((plane) => {
          const row = head * 6 + plane * 2 + part
          return [...elements.subarray(row * 12, (row + 1) * 12)]
        }))).flat()
      assert.deepStrictEqual([...there], expected, place.path)
    })
  })
})

describe("joined", () => {
  it("is the tensor that was cut, over either axis", () => {
    const whole = iota(4 * 6)
    assert.deepStrictEqual(joined([whole.slice(0, 12), whole.slice(12)], [4, 6], 0), whole)
    const left = whole.filter((_, i) => i % 6 < 3)
    const right = whole.filter((_, i) => i % 6 >= 3)
    assert.deepStrictEqual(joined([left, right], [4, 6], 1), whole)
  })
})
