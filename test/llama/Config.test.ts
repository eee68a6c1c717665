import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as fc from "fast-check"
import * as Config from "../../src/llama/Config.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { count } from "../../src/tensor/Node.ts"
import * as Specification from "../../src/tensor/Specification.ts"

const natural = fc.integer({ min: 1, max: 12 })
const options = fc.record({
  vocabSize: natural, headSize: natural.map((n) => 2 * n), embedSize: natural, layerCount: natural,
  kvHeadCount: natural, group: natural, multipleOf: natural
}).map(({ group, ...rest }): Config.Options => ({ ...rest, headCount: group * rest.kvHeadCount }))

const refusal = (given: object): string => {
  try {
    Config.make(given as Config.Options)
    return "accepted"
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

const valid = { vocabSize: 100, embedSize: 64, layerCount: 2, headCount: 4 }

describe("Config", () => {
  it("counts the parameters of the released models", () => {
    const counts = (["7B", "13B", "34B", "70B"] as const).map((name) => Config.parameterCount(Config.presets[name]))
    assert.deepStrictEqual(counts, [6_738_415_616, 13_015_864_320, 33_743_970_304, 68_976_648_192])
  })

  it("counts the parameters that the model declares", () => {
    fc.assert(fc.property(options, (given) => {
      const config = Config.make(given)
      const declared = Specification.leaves(Transformer.llama(config).specification)
      const total = declared.reduce((sum, [, { sizes }]) => sum + count(sizes), 0)
      assert.strictEqual(total, Config.parameterCount(config))
    }))
    assert.strictEqual(Config.parameterCount(Config.presets["1M"]), 1_066_112)
    assert.strictEqual(Config.parameterCount(Config.presets["24M"]), 24_407_712)
    // llama2.c's model has 260,032, for its head is its embedding table of 512 · 64
    assert.strictEqual(Config.parameterCount(Config.presets.stories260K), 260_032 + 512 * 64)
  })

  it("finds the feed-forward widths of the known models", () => {
    const widths = Object.entries(Config.presets).map(([name, { hiddenSize }]) => `${name} ${hiddenSize}`)
    assert.deepStrictEqual(widths, [
      "1M 352", "24M 768", "stories260K 172", "stories42M 1376", "stories110M 2048", "7B 11008", "13B 13824",
      "34B 22016", "70B 28672"
    ])
    assert.strictEqual(Config.feedForwardSize(6656, { multipleOf: 256 }), 17_920) // Llama 1's 33B
    // Meta's code cuts before it widens and after: 8 / 3 → 2, 2 · 1.5 = 3, where 1.5 · 8 / 3 = 4
    assert.strictEqual(Config.feedForwardSize(1, { multipleOf: 1, multiplier: 1.5 }), 3)
  })

  it("rounds the width up to the next multiple, and no further", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 9999 }), natural, (embedSize, multipleOf) => {
      const width = Config.feedForwardSize(embedSize, { multipleOf })
      assert.strictEqual(width % multipleOf, 0)
      assert.isAtLeast(width, Math.floor(8 * embedSize / 3))
      assert.isBelow(width - multipleOf, Math.floor(8 * embedSize / 3))
    }))
  })

  it("completes what is absent, and stays as it is when it is read again", () => {
    assert.deepStrictEqual(Config.make(valid), {
      ...valid, kvHeadCount: 4, headSize: 16, hiddenSize: 256, epsilon: 1e-5, theta: 10_000, contextLength: 4096
    })
    fc.assert(fc.property(options, (given) => {
      const config = Config.make(given)
      const written = JSON.parse(JSON.stringify(Schema.encodeSync(Config.Config)(config)))
      assert.deepStrictEqual(Schema.decodeUnknownSync(Config.Config)(written), config)
    }))
  })

  it("counts the operations of the benchmark's training step", () => {
    // 1024 tokens: head 6 · 32000 · 288, linear 6 · 6 · (4 · 288² + 3 · 288 · 768), attention 12 · 6 · 288 · 256 each
    const step = 1024 * Config.flopsPerToken(Config.presets["24M"], 256)
    assert.closeTo(step / 1e9, 56.6 + 36.7 + 5.4, 0.1)
  })

  it("estimates the state of training", () => {
    assert.deepStrictEqual(Config.trainingBytes(Config.presets["7B"], 4), {
      parameters: 26_953_662_464, gradients: 26_953_662_464, moments: 53_907_324_928
    })
  })

  it("names every number that is none", () => {
    assert.strictEqual(
      refusal({
        vocabSize: 0, embedSize: 10.5, layerCount: 1, headCount: -4, epsilon: 0, theta: -1, hiddenSize: 8, multipleOf: 4
      }),
      `vocabSize must be a whole number of at least 1, got 0
  at ["vocabSize"]
embedSize must be a whole number of at least 1, got 10.5
  at ["embedSize"]
headCount must be a whole number of at least 1, got -4
  at ["headCount"]
epsilon must be greater than 0, got 0
  at ["epsilon"]
theta must be greater than 0, got -1
  at ["theta"]
multipleOf (4) belongs to the rule that finds hiddenSize, and hiddenSize is given (8): leave one of them out
  at ["multipleOf"]`
    )
  })

  it("says which sizes do not divide, together", () => {
    assert.strictEqual(
      refusal({ ...valid, embedSize: 66, kvHeadCount: 3 }),
      `headCount must be a multiple of kvHeadCount: 4 query heads cannot share 3 key and value heads equally
  at ["kvHeadCount"]
embedSize must be a multiple of headCount: 66 / 4 is not whole; choose another headCount, or give headSize
  at ["headCount"]`
    )
    assert.strictEqual(
      refusal({ ...valid, embedSize: 36 }),
      `headSize must be even, got 9 (embedSize 36 / headCount 4): rotary position encoding turns coordinates in pairs
  at ["headSize"]`
    )
    assert.strictEqual(
      refusal({ ...valid, headSize: 7 }),
      `headSize must be even, got 7: rotary position encoding turns coordinates in pairs
  at ["headSize"]`
    )
  })

  it("refuses unknown keys and missing ones", () => {
    assert.strictEqual(refusal({ ...valid, headcount: 3 }), `Expected no excess property\n  at ["headcount"]`)
    assert.strictEqual(refusal({ vocabSize: 3, embedSize: 4, headCount: 2 }), `Missing key\n  at ["layerCount"]`)
  })

  it.effect("is a schema: a typed failure for what comes from a file", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Schema.decodeUnknownEffect(Config.Config)({ ...valid, kvHeadCount: 3 }))
      assert.strictEqual(error._tag, "SchemaError")
      assert.include(error.message, "headCount must be a multiple of kvHeadCount")
    }))
})
