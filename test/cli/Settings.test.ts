import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as fc from "fast-check"
import * as Settings from "../../src/cli/Settings.ts"
import * as Llama from "../../src/llama/Config.ts"
import * as Pretrain from "../../src/recipe/Pretrain.ts"

const complete = (given: Settings.Settings) => Result.getOrThrow(Settings.complete("settings", given))
const faults = (given: unknown): string => {
  const result = Result.flatMap(Settings.parse("settings", given), (parsed) => Settings.complete("settings", parsed))
  return Result.isFailure(result) ? result.failure.message : ""
}

const count = fc.integer({ min: 1, max: 64 })
const given = fc.record({
  preset: fc.constantFrom(...Settings.presetNames), steps: fc.integer({ min: 65, max: 500 }), // more than any warm-up
  batchSize: count, learningRate: fc.constant(0.01),
  warmup: count, evaluateEvery: count, seed: fc.integer(), text: fc.array(fc.constantFrom("a.txt", "b")),
  layerCount: count, vocabSize: count, hiddenSize: count
}, { requiredKeys: [] })

describe("Settings", () => {
  it("complete themselves to what the recipe accepts, and are complete after that", () => {
    fc.assert(fc.property(given, (given) => {
      const { config, settings } = complete(given)
      assert.isTrue(Schema.is(Schema.toType(Pretrain.Config))(config))
      assert.deepStrictEqual(complete(settings), { config, settings })
      for (const [key, value] of Object.entries(given)) assert.deepStrictEqual(Reflect.get(settings, key), value)
    }))
  })
  it("are a preset where no size is given", () => {
    for (const preset of Settings.presetNames) {
      assert.deepStrictEqual(complete({ preset }).config.model, Llama.presets[preset])
    }
    assert.deepStrictEqual([...Settings.presetNames].sort(), Object.keys(Llama.presets).sort())
  })
  it("let widths follow the sizes that are given", () => {
    const { model } = complete({ embedSize: 256 }).config
    assert.deepInclude(model, { embedSize: 256, headCount: 4, headSize: 64, kvHeadCount: 4, hiddenSize: 704 })
    const few = complete({ preset: "stories260K", headCount: 4 }).config.model
    assert.deepInclude(few, { headSize: 16, kvHeadCount: 4, hiddenSize: 172 })
    assert.deepInclude(complete({ embedSize: 256, hiddenSize: 99 }).config.model, { hiddenSize: 99 })
  })
  it("let the lengths of a run follow the number of steps and the context", () => {
    assert.deepInclude(complete({ steps: 31 }).settings, { warmup: 2, evaluateEvery: 6, snapshotEvery: 6 })
    assert.deepInclude(complete({ steps: 1 }).settings, { warmup: 0, evaluateEvery: 1, snapshotEvery: 1 })
    const lengths = [{ contextLength: 64 }, { preset: "7B" as const }].map((given) => complete(given).settings)
    assert.deepStrictEqual(lengths.map(({ sequenceLength }) => sequenceLength), [64, 256])
  })
  it("name every fault at once: key, value, and what was expected", () => {
    assert.strictEqual(faults({ steps: 0, batchSize: 1.5, preset: "2M", text: ["a", ""], learningrate: 1 }),
      `settings: these settings cannot be used
  learningrate = 1: no such key; there are ${Settings.keys.join(", ")}
  text.1 = "": expected a value with a length of at least 1
  preset = "2M": expected ${Settings.presetNames.map((name) => `"${name}"`).join(" | ")}
  steps = 0: expected a value greater than 0
  batchSize = 1.5: expected an integer`)
    assert.strictEqual(faults([]), `settings: these settings cannot be used\n  the whole = []: expected object`)
  })
  it("must go together", () => {
    assert.match(faults({ headCount: 3 }), /headCount = 3: embedSize must be a multiple of headCount: 128 \/ 3 is not/)
    assert.match(faults({ batchSize: 6, microBatches: 4, sequenceLength: 300 }),
      /sequenceLength = 300: .*256[^]*microBatches = 4: expected a divisor of batchSize, which is 6/)
    assert.match(faults({ steps: 5, warmup: 5 }), /warmup = 5: expected fewer than steps, which is 5/)
    assert.isTrue(Result.isSuccess(Settings.complete("flags", { steps: 1 })))
  })
})
