import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Keys, Queries } from "../../src/llama/Attention.ts"
import { attend, component, groupedQueryAttention } from "../../src/llama/Attention.ts"
import * as Config from "../../src/llama/Config.ts"
import { angles, rotate } from "../../src/llama/Rope.ts"
import { causal, explicit, lengths, segments, type Visibility } from "../../src/llama/Visibility.ts"
import * as T from "../../src/tensor/Tensor.ts"
import type { Tensor } from "../../src/tensor/Tensor.ts"
import {
  agree, constants, elements, evaluate, hasTheSlopeOfDifferences, normals, number, numbers,
  pullsBackAsItsDecomposition, someIds, weighed
} from "../law/Evaluation.ts"

interface Sizes {
  readonly seed: number
  readonly batch: number
  readonly position: number
  readonly kvHead: number
  readonly group: number
  readonly plane: number
}

const shape: fc.Arbitrary<Sizes> = fc.record({
  seed: fc.nat(), batch: fc.integer({ min: 1, max: 2 }), position: fc.integer({ min: 1, max: 4 }),
  kvHead: fc.integer({ min: 1, max: 2 }), group: fc.integer({ min: 1, max: 3 }), plane: fc.integer({ min: 1, max: 2 })
})

interface Heads {
  readonly query: Queries
  readonly key: Keys
  readonly value: Keys
}

const headsOf = ({ batch, group, kvHead, plane, position, seed }: Sizes): Heads => ({
  query: normals(`query ${seed}`, { batch, position, kvHead, group, part: 2, plane }),
  key: normals(`key ${seed}`, { batch, source: position, kvHead, part: 2, plane }),
  value: normals(`value ${seed}`, { batch, source: position, kvHead, part: 2, plane })
})

/** Some visibility of each sort. */
const visibilities = ({ batch, position, seed }: Sizes): ReadonlyArray<Visibility> => [
  causal,
  lengths(someIds(seed, { batch }, position + 1)),
  segments(someIds(seed, { batch, position }, 2)),
  explicit(T.equal(someIds(seed, { batch, position, source: position }, 2), 1))
]

describe("attend", () => {
  it("is the mean of visible values, weighted by e to the scaled product, by plain loops", () => {
    fc.assert(fc.property(shape, (sizes) => {
      const { batch, group, kvHead, plane, position } = sizes
      const { key, query, value } = headsOf(sizes)
      const size = 2 * plane
      for (const visibility of visibilities(sizes)) {
        const order = ["batch", "position", "kvHead", "group", "part", "plane"]
        const actual = numbers(attend(query, key, value, visibility), order)
        const sees = seer(visibility, position)
        const [q, k, v] = [numbers(query), numbers(key), numbers(value)]
        const expected: Array<number> = []
        for (let b = 0; b < batch; b++) for (let p = 0; p < position; p++) for (let h = 0; h < kvHead; h++) {
          for (let g = 0; g < group; g++) {
            const at = (s: number): number => ((b * position + s) * kvHead + h) * size
            const from = (((b * position + p) * kvHead + h) * group + g) * size
            const weights = Array.from({ length: position }, (_, s) => {
              let score = 0
              for (let d = 0; d < size; d++) score += q[from + d]! * k[at(s) + d]!
              return sees(b, p, s) ? Math.exp(score / Math.sqrt(size)) : 0
            })
            const total = weights.reduce((sum, weight) => sum + weight, 0) || 1
            for (let d = 0; d < size; d++) {
              expected.push(weights.reduce((sum, weight, s) => sum + weight * v[at(s) + d]!, 0) / total)
            }
          }
        }
        agree(actual, expected, 1e-9, visibility._tag)
      }
    }), { numRuns: 15 })
  })

  it("with groups is multi-head attention whose keys and values are repeated", () => {
    fc.assert(fc.property(shape, (sizes) => {
      const { group } = sizes
      const { key, query, value } = headsOf(sizes)
      const repeat = (x: Keys): Keys => T.merge(T.spread(x, "group", group), ["kvHead", "group"], "kvHead")
      const heads: Queries = T.spread(T.merge(query, ["kvHead", "group"], "kvHead"), "group", 1)
      const order = ["batch", "position", "kvHead", "part", "plane"]
      const multiHead = attend(heads, repeat(key), repeat(value), causal).pipe(T.sum("group"))
      const grouped = attend(query, key, value, causal)
      agree(numbers(T.merge(grouped, ["kvHead", "group"], "kvHead"), order), numbers(multiHead, order))
    }), { numRuns: 20 })
  })

  it("gives zeros, and no gradient, to a position that sees nothing", () => {
    const { key, query, value } = headsOf({ seed: 1, batch: 2, position: 3, kvHead: 1, group: 2, plane: 1 })
    const empty = lengths(T.ids({ batch: 2 }, [0, 2]))
    const { gradients, mixed } = evaluate(() => {
      const mixed = attend(query, key, value, empty)
      return { mixed, gradients: T.gradient(weighed(mixed), { query, key, value }) }
    })
    for (const values of [mixed, gradients.query, gradients.key, gradients.value]) {
      const all = elements(values, ["batch", ...Object.keys(values.sizes).filter((axis) => axis !== "batch")])
      assert.isTrue(all.slice(0, all.length / 2).every((value) => value === 0))
      assert.isTrue(all.slice(all.length / 2).some((value) => value !== 0))
      assert.isTrue(all.every(Number.isFinite))
    }
  })

  it("stays finite where scores are huge", () => {
    const { key, query, value } = headsOf({ seed: 2, batch: 1, position: 3, kvHead: 1, group: 1, plane: 1 })
    assert.isTrue(numbers(attend(T.multiply(query, 1e6), key, value, causal)).every(Number.isFinite))
  })

  it("pulls back as its decomposition does, and as differences say", () => {
    fc.assert(fc.property(shape, (sizes) => {
      for (const visibility of visibilities(sizes)) {
        const build = ({ key, query, value }: Heads) => attend(query, key, value, visibility)
        pullsBackAsItsDecomposition(headsOf(sizes), build)
        hasTheSlopeOfDifferences(headsOf(sizes), build)
      }
    }), { numRuns: 8 })
  })
})

/** Whether a position sees a source, by the description. */
const seer = (visibility: Visibility, size: number): (b: number, p: number, s: number) => boolean => {
  switch (visibility._tag) {
    case "Causal":
      return (_, p, s) => s <= p
    case "Lengths": {
      const given = numbers(T.real(visibility.lengths))
      return (b, p, s) => s <= p && s < given[b]!
    }
    case "Segments": {
      const given = numbers(T.real(visibility.segments))
      return (b, p, s) => s <= p && given[b * size + s] === given[b * size + p]
    }
    case "Explicit": {
      const given = numbers(T.real(visibility.visible))
      return (b, p, s) => given[(b * size + p) * size + s] === 1
    }
  }
}

describe("groupedQueryAttention", () => {
  const config = Config.make({ vocabSize: 2, embedSize: 8, layerCount: 1, headCount: 4, kvHeadCount: 2 })
  const parameters = constants("attention", component.specification(config))
  const run = (x: Tensor<"batch" | "position" | "embed">, visibility: Visibility, first = 0) => {
    const places = T.addIds(T.positions("position", T.size(x, "position")), first)
    return groupedQueryAttention(parameters, x, (heads) => rotate(heads, angles(places, config)), visibility)
  }
  const inOrder = ["batch", "position", "embed"]

  it("is causal: a token changes nothing before it, and something at it and after it", () => {
    fc.assert(fc.property(fc.nat(), fc.integer({ min: 1, max: 5 }), fc.nat(4), (seed, position, place) => {
      const at = place % position
      const x = normals(seed, { batch: 1, position, embed: 8 })
      const isAt = T.real(T.equal(T.positions("position", position), at))
      const changed = T.add(x, T.multiply(normals("change", { embed: 8 }), isAt))
      const difference = numbers(T.subtract(run(changed, causal), run(x, causal)), inOrder)
      difference.forEach((value, i) => assert.strictEqual(value !== 0, Math.floor(i / 8) >= at, `element ${i}`))
    }), { numRuns: 20 })
  })

  it("does not see where the sequence starts", () => {
    const x = normals("x", { batch: 2, position: 4, embed: 8 })
    agree(numbers(run(x, causal, 1000), inOrder), numbers(run(x, causal), inOrder), 1e-9)
  })

  it("gives the documents of a pack what they have alone", () => {
    const [first, second] = [3, 2].map((position, i) => normals(i, { batch: 1, position, embed: 8 })) as [
      Tensor<"batch" | "position" | "embed">, Tensor<"batch" | "position" | "embed">
    ]
    const apart = segments(T.ids({ batch: 1, position: 5 }, [0, 0, 0, 1, 1]))
    const packed = run(T.concat("position", [first, second]), apart)
    agree(numbers(packed, inOrder), [...numbers(run(first, causal), inOrder), ...numbers(run(second, causal), inOrder)])
  })

  it("gives an example of some length what it has without its padding", () => {
    const x = normals("x", { batch: 1, position: 5, embed: 8 })
    const padded = run(x, lengths(T.ids({ batch: 1 }, [3])))
    const order = ["position", "embed", "batch"]
    agree(numbers(padded, order).slice(0, 24), numbers(run(T.slice(x, "position", 0, 3), causal), order))
  })

  it("has the gradient that differences say", () => {
    const x = normals("x", { batch: 2, position: 3, embed: 8 })
    hasTheSlopeOfDifferences({ x, parameters }, (inputs) =>
      groupedQueryAttention(inputs.parameters, inputs.x, (heads) =>
        rotate(heads, angles(T.positions("position", 3), config)), causal))
    assert.isAbove(Math.abs(number(evaluate(() => ({ x: weighed(run(x, causal)) })).x)), 0)
  })
})
