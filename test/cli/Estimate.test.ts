import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Stream } from "effect"
import { Backend } from "../../src/backend/Backend.ts"
import * as Estimate from "../../src/cli/Estimate.ts"
import * as Settings from "../../src/cli/Settings.ts"
import { Corpus } from "../../src/data/Corpus.ts"
import { slow } from "../backend/Slow.ts"

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
    assert.strictEqual(small.activationBytes, 1.4 * 4 * 8 * ((32 + 32 + 32 + 8) + 64 + 8))
  })
  it("knows the sizes of the paper without allocating them", () => {
    const big = estimate({ preset: "70B", steps: 500_000, batchSize: 1000 })
    assert.strictEqual(big.parameterCount, 68_976_648_192)
    assert.strictEqual(big.stateBytes, 16 * 68_976_648_192)
  })
  it.effect("refuses what the memory cannot hold, and says what would fit", () =>
    Effect.gen(function*() {
      const refused = (settings: Settings.Settings, bytes: number) => {
        const complete = Result.getOrThrow(Settings.complete("settings", settings))
        return Effect.map(Effect.flip(Estimate.requireMemory(complete, bytes)), ({ message }) => message)
      }
      assert.strictEqual(yield* refused({ preset: "7B", batchSize: 1 }, 16e9),
        "this run needs about 112 GB of memory, and there are 16.0 GB\n  108 GB of parameters, gradients and " +
          "moments, and about 4.00 GB inside a step\n  Take a smaller preset or smaller sizes, or a machine with " +
          "more memory.")
      assert.match(yield* refused({ batchSize: 1000 }, 16e9), /Cut the batch into more parts \(--micro-batches\), take/)
      const enough = Result.getOrThrow(Settings.complete("settings", { batchSize: 1000, microBatches: 10 }))
      yield* Estimate.requireMemory(enough, 16e9)
    }))
  it.effect("says how long a run takes at half of the matmul rate, and how often it sees the text", () =>
    Effect.gen(function*() {
      const { backend } = yield* slow
      const complete = Result.getOrThrow(Settings.complete("settings", {
        embedSize: 8, headCount: 2, layerCount: 1, hiddenSize: 8, vocabSize: 32, steps: 300, batchSize: 20,
        sequenceLength: 4, validationShare: 0.1, backend: "reference"
      }))
      const printed: Array<string> = []
      const print = (line: string) => Effect.sync(() => void printed.push(line))
      const screen = { isTerminal: false, columns: 80, print, status: () => Effect.void, write: () => Effect.void }
      yield* Estimate.show(screen, complete).pipe(
        Effect.provideService(Backend, backend),
        Effect.provideService(Corpus, { name: "a text", documents: Stream.empty, bytes: 8000 })
      )
      // 24 000 tokens of 4 608 operations, at half of 2 · 64³ in a quarter of a second; 3 bytes each of 7 200
      assert.deepStrictEqual(printed, [
        "text        a text, 8.00 kB",
        "parameters  984 (984)",
        "memory      31.5 kB of parameters, gradients and moments, and about 158 kB inside a step",
        "tokens      24.0 k in 300 steps, about 10.0 times the text at 3 bytes a token",
        "time        about 1 min 45 s: 111 MFLOP, assuming 50 % of the 2.10 MFLOP/s that reference 1 reached in " +
          "matrix products",
        "Nothing was run, and nothing was written."
      ])
      yield* Estimate.show(screen, complete, 12_000).pipe( // whose text was read
        Effect.provideService(Backend, backend),
        Effect.provideService(Corpus, { name: "a text", documents: Stream.empty, bytes: 8000 })
      )
      assert.include(printed, "tokens      24.0 k in 300 steps, about 2.0 times the text")
    }))
  it("needs a part of the memory inside a step where the batch is cut", () => {
    assert.strictEqual(estimate({ microBatches: 4 }).activationBytes, estimate({}).activationBytes / 4)
    assert.strictEqual(estimate({ microBatches: 4 }).flops, estimate({}).flops)
  })
})
