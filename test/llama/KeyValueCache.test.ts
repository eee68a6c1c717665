/**
 * The law of the cache: a sequence in blocks of any lengths is the sequence at once, whatever else lies in the cache.
 */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as Config from "../../src/llama/Config.ts"
import { draws } from "../../src/llama/Initialization.ts"
import * as KeyValueCache from "../../src/llama/KeyValueCache.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { causal } from "../../src/llama/Visibility.ts"
import * as Key from "../../src/random/Key.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"

/** Tiny models: one head, several, groups of heads. */
const models = fc.record({
  layerCount: fc.integer({ min: 1, max: 2 }),
  kvHeadCount: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 2 }),
  headSize: fc.constantFrom(2, 4),
  vocabSize: fc.integer({ min: 2, max: 11 })
}).map(({ group, headSize, kvHeadCount, layerCount, vocabSize }) =>
  Transformer.llama(Config.make({
    vocabSize, embedSize: 6, layerCount, headCount: group * kvHeadCount, kvHeadCount, headSize, hiddenSize: 5,
    contextLength: 64
  })))

/** Lengths of blocks, in order. */
const blocks = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 })

const total = (lengths: ReadonlyArray<number>): number => lengths.reduce((sum, length) => sum + length, 0)

type Llama = Transformer.Transformer<Transformer.LlamaParameters>

/** Large weights, so that attention is far from uniform and a wrong source shows. */
const parametersOf = (model: Llama, seed: number) => {
  const draw = draws(Key.make(seed), model.specification)
  return (path: string) => draw(path)?.map((weight) => weight * 25)
}

/** Logits of all positions at once. */
const whole = (model: Llama, batch: number, position: number) =>
  Program.make("whole", {
    inputs: { ids: Specification.ids({ batch, position }) }, state: { parameters: model.specification }
  }, ({ ids }, { parameters }) => {
    const hidden = model.hidden(parameters, { ids, visibility: causal })
    return { outputs: { logits: model.logits(parameters, hidden) } }
  })

/** Logits of a block that follows what the cache holds. */
const block = (model: Llama, batch: number, position: number, source: number) =>
  Program.make("block", {
    inputs: { ids: Specification.ids({ batch, position }), starts: Specification.ids({ batch }) },
    state: { parameters: model.specification, cache: KeyValueCache.specification(model.config, { batch, source }) }
  }, (inputs, { cache, parameters }) => {
    const extended = KeyValueCache.extend(model, parameters, cache, inputs)
    return { outputs: { logits: model.logits(parameters, extended.hidden) }, state: { cache: extended.cache } }
  })

const rows = (elements: ArrayLike<number>, width: number): ReadonlyArray<ReadonlyArray<number>> =>
  Array.from({ length: elements.length / width }, (_, i) => Array.from(elements).slice(i * width, (i + 1) * width))

const close = (found: ReadonlyArray<number>, expected: ReadonlyArray<number>): void => {
  assert.strictEqual(found.length, expected.length)
  found.forEach((value, i) => assert.closeTo(value, expected[i]!, 1e-9))
}

layer(Reference.layer)("a cache", (it) => {
  it.effect("makes blocks of any lengths the sequence at once, and garbage behind them invisible", () =>
    Effect.flatMap(Backend, (backend) => Effect.promise(() =>
      fc.assert(fc.asyncProperty(models, fc.integer({ min: 1, max: 2 }), blocks, fc.nat(), async (
        model, batch, lengths, seed
      ) => {
        const { vocabSize } = model.config
        const position = total(lengths)
        const ids = Int32Array.from({ length: batch * position }, (_, i) => Key.below(Key.make(seed), i, vocabSize))
        await Effect.runPromise(Effect.scoped(Effect.gen(function*() {
          const parameters = yield* backend.allocate(model.specification, { initial: parametersOf(model, seed) })
          const kept = KeyValueCache.specification(model.config, { batch, source: position + 1 })
          const cache = yield* backend.allocate(kept, {
            initial: (_, sizes) => new Float32Array(Object.values(sizes).reduce((a, b) => a * b, 1)).fill(1e3)
          })
          const full = yield* backend.compile(yield* whole(model, batch, position))
          const { logits } = yield* (yield* full.bind({ parameters })).run({ ids })
          const expected = rows(logits.elements, vocabSize)
          let start = 0
          for (const length of lengths) {
            const part = yield* backend.compile(yield* block(model, batch, length, position + 1))
            const place = (i: number): number => Math.floor(i / length) * position + start + i % length
            const found = yield* (yield* part.bind({ parameters, cache })).run({
              ids: Int32Array.from({ length: batch * length }, (_, i) => ids[place(i)]!),
              starts: new Int32Array(batch).fill(start)
            })
            rows(found.logits.elements, vocabSize).forEach((row, i) => close(row, expected[place(i)]!))
            start += length
          }
        })))
      }), { numRuns: 20 }))))
})
