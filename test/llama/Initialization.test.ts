import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as Config from "../../src/llama/Config.ts"
import { draws } from "../../src/llama/Initialization.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Key from "../../src/random/Key.ts"
import * as Specification from "../../src/tensor/Specification.ts"

const config = Config.make({ vocabSize: 100, embedSize: 64, layerCount: 8, headCount: 4, kvHeadCount: 2 })
const { specification } = Transformer.llama(config)

const moments = (drawn: Float32Array) => {
  const mean = drawn.reduce((sum, x) => sum + x, 0) / drawn.length
  return { mean, deviation: Math.sqrt(drawn.reduce((sum, x) => sum + (x - mean) ** 2, 0) / drawn.length) }
}

describe("draws", () => {
  const drawn = draws(Key.make(1), specification)

  it("has deviation 0.02, and 0.02 / √(2 · 8) = 0.005 where a block writes to the residual stream", () => {
    for (const [path, { sizes }] of Specification.leaves(specification)) {
      const own = drawn(path)
      if (path.endsWith("orm.gain")) {
        assert.isUndefined(own)
        continue
      }
      const { deviation, mean } = moments(own!)
      const expected = /attention\.output$|feedForward\.down$/.test(path) ? 0.005 : 0.02
      // each has at least 64 · 64 elements: five standard errors
      const elements = Object.values(sizes).reduce((n, size) => n * size, 1)
      assert.strictEqual(own!.length, elements)
      assert.isAtLeast(elements, 2048)
      assert.closeTo(mean, 0, 5 * expected / Math.sqrt(elements), path)
      assert.closeTo(deviation, expected, 5 * expected / Math.sqrt(2 * elements), path)
    }
  })

  it("draws every tensor from a key of its own path: no neighbour changes it", () => {
    const alone = draws(Key.make(1), { head: specification.head })
    assert.deepStrictEqual(alone("head"), drawn("head"))
    assert.notDeepEqual(drawn("block.0.attention.key"), drawn("block.1.attention.key"))
    assert.notDeepEqual(drawn("block.0.attention.key"), drawn("block.0.attention.value"))
    assert.notDeepEqual(draws(Key.make(2), specification)("head"), drawn("head"))
  })

  it.effect("is what a backend allocates with; gains begin at 1", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const cells = yield* backend.allocate(specification, { initial: drawn })
      const held = yield* backend.read(cells)
      assert.deepStrictEqual([...held.head.elements], [...drawn("head")!])
      assert.deepStrictEqual([...held.block[7]!.feedForward.down.elements], [...drawn("block.7.feedForward.down")!])
      assert.isTrue([...held.block[0]!.attentionNorm.gain.elements, ...held.norm.gain.elements].every((x) => x === 1))
    }).pipe(Effect.provide(Reference.layer)))
})
