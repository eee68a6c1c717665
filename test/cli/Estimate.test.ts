import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Estimate from "../../src/cli/Estimate.ts"
import * as Settings from "../../src/cli/Settings.ts"

const estimate = (settings: Settings.Settings) =>
  Estimate.estimate(Result.getOrThrow(Settings.complete("settings", settings)).config, 4)

describe("Estimate", () => {
  it("counts by hand", () => {
    // 2 · 32 · 8 embedding and head, one block of 4 · 64 + 3 · 8 · 8 + 16, a last gain of 8
    const small = estimate({
      embedSize: 8, headCount: 2, layerCount: 1, hiddenSize: 8, vocabSize: 32, steps: 3, batchSize: 2, sequenceLength: 4
    })
    assert.strictEqual(small.parameterCount, 512 + 256 + 192 + 16 + 8)
    assert.strictEqual(small.stateBytes, 4 * 4 * small.parameterCount)
    assert.strictEqual(small.tokenCount, 24)
    assert.strictEqual(small.flops, 24 * (6 * (256 + 192 + 256) + 12 * 8 * 4))
    assert.strictEqual(small.activationBytes, 4 * 8 * ((32 + 32 + 32 + 8) + 64 + 8))
  })
  it("knows the sizes of the paper without allocating them", () => {
    const big = estimate({ preset: "70B", steps: 500_000, batchSize: 1000 })
    assert.strictEqual(big.parameterCount, 68_976_648_192)
    assert.strictEqual(big.stateBytes, 16 * 68_976_648_192)
  })
  it("needs a part of the memory inside a step where the batch is cut", () => {
    assert.strictEqual(estimate({ microBatches: 4 }).activationBytes, estimate({}).activationBytes / 4)
    assert.strictEqual(estimate({ microBatches: 4 }).flops, estimate({}).flops)
  })
})
