/**
 * The laws of scoring: what was reported while sampling is what scoring gives; the model's own is the cross-entropy of
 * the whole sequence; blocks, company and order change nothing. Then messages.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import * as fc from "fast-check"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import { collect } from "../../src/generate/Answer.ts"
import * as Decoder from "../../src/generate/Decoder.ts"
import { greedy, type Logits, logProbability, type Options, type Rule, sampling } from "../../src/generate/Sampling.ts"
import * as Scoring from "../../src/generate/Scoring.ts"
import * as Key from "../../src/random/Key.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import { shifted } from "../law/Tolerance.ts"
import { codec, contextLength, model, parameters, whole } from "./models.ts"

const services = Layer.merge(Reference.layer, Layer.succeed(Tokenizer.Tokenizer, codec))

const anyIds = (minLength: number, maxLength: number) =>
  fc.array(fc.integer({ min: 0, max: codec.vocabSize - 1 }), { minLength, maxLength })

const continuations = fc.array(
  fc.tuple(anyIds(1, contextLength - 5), anyIds(0, 5)), { minLength: 1, maxLength: 5 }
).map((all) => all.map(([prompt, answer], item): Scoring.Continuation => ({ item, prompt, answer })))

const close = (found: ReadonlyArray<number>, expected: ReadonlyArray<number>, tolerance: number) => {
  assert.strictEqual(found.length, expected.length)
  found.forEach((value, i) => {
    if (value !== expected[i]) assert.closeTo(value, expected[i]!, tolerance)
  })
}

layer(services)("scores", (it) => {
  it.effect("are the log-probabilities that sampling reported, under every rule", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(1)
      const run = Effect.fnUntraced(function*(
        prompts: ReadonlyArray<ReadonlyArray<number>>, options: Options, slots: number, blockLength: number
      ) {
        const rule = sampling(options)
        const decoder = yield* Decoder.make({ model, parameters: cells, slots, blockLengths: [3] })
        const request = { prompts, candidates: 2, maximumTokens: 4, rule, key: Key.make("scoring"), stopIds: [] }
        const answers = yield* collect(decoder.generate(request))
        const scorer = yield* Scoring.make({ model, parameters: cells, slots, blockLength, rule })
        const given = answers.map(({ ids, item }) => ({ item, prompt: prompts[item]!, answer: ids }))
        const scores = yield* Stream.runCollect(scorer.score(Stream.fromIterable(given)))
        assert.deepStrictEqual(scores.map(({ item }) => item), answers.map(({ item }) => item))
        scores.forEach(({ logProbs }, i) => close(logProbs, answers[i]!.logProbs, shifted))
      })
      const context = yield* Effect.context<Backend | Tokenizer.Tokenizer>()
      yield* Effect.promise(() => fc.assert(fc.asyncProperty(
        fc.array(anyIds(1, contextLength - 4), { minLength: 1, maxLength: 3 }),
        fc.record<Options>({
          temperature: fc.constantFrom(0.5, 1, 1.3), topK: fc.constantFrom(3, 40), topP: fc.constantFrom(0.5, 0.9)
        }, { requiredKeys: ["temperature"] }),
        fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: contextLength }),
        (...parts) => Effect.runPromise(Effect.scoped(Effect.provide(run(...parts), context)))
      ), { numRuns: 10 }))
    }))

  it.effect("are those of the whole sequence at once, in blocks of any length, company and order", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const cells = yield* parameters(2)
      const full = yield* (yield* backend.compile(yield* whole)).bind({ parameters: cells })
      const rule = sampling({ temperature: 0.7, topK: 20 })
      const own = sampling({ temperature: 1 })
      const run = Effect.fnUntraced(function*(
        all: ReadonlyArray<Scoring.Continuation>, slots: number, blockLength: number, hasRule: boolean
      ) {
        const scorer = yield* Scoring.make({
          model, parameters: cells, slots, blockLength, ...hasRule ? { rule } : {}
        })
        const scores = yield* Stream.runCollect(scorer.score(Stream.fromIterable(all)))
        assert.deepStrictEqual(scores.map(({ item }) => item), all.map(({ item }) => item))
        for (const [i, { answer, prompt }] of all.entries()) {
          const sequence = [...Array.from(prompt), ...Array.from(answer)]
          const ids = Int32Array.from({ length: contextLength }, (_, t) => sequence[t] ?? 0)
          const { logits } = yield* full.run({ ids })
          const row = (t: number) => logits.elements.slice((t - 1) * codec.vocabSize, t * codec.vocabSize) as Logits
          const expected = (of: typeof rule) =>
            Array.from(answer, (id, t) => logProbability(of(row(prompt.length + t)), id))
          close(scores[i]!.modelLogProbs, expected(own), shifted)
          close(scores[i]!.logProbs, expected(hasRule ? rule : own), shifted)
        }
      })
      const context = yield* Effect.context<Backend | Tokenizer.Tokenizer>()
      yield* Effect.promise(() => fc.assert(fc.asyncProperty(
        continuations, fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: contextLength }), fc.boolean(),
        (...parts) => Effect.runPromise(Effect.scoped(Effect.provide(run(...parts), context)))
      ), { numRuns: 12 }))
    }))

  it.effect("are −∞ for what the rule never draws", () =>
    Effect.gen(function*() {
      const scorer = yield* Scoring.make({ model, parameters: yield* parameters(1), rule: greedy })
      const [score] = yield* Stream.runCollect(scorer.score(Stream.make({ item: 9, prompt: [1], answer: [5, 6] })))
      assert.isTrue(score!.logProbs.every((logProb) => logProb === -Infinity || logProb === 0))
      assert.include(score!.logProbs, -Infinity)
      assert.isTrue(score!.modelLogProbs.every(Number.isFinite))
    }))
})

layer(services)("messages of scoring", (it) => {
  it.effect("name every answer that cannot be scored", () =>
    Effect.gen(function*() {
      const scorer = yield* Scoring.make({ model, parameters: yield* parameters(1), slots: 3 })
      const given = Stream.make<Array<Scoring.Continuation>>(
        { item: 4, prompt: [], answer: [1] }, { item: 5, prompt: [1, 2], answer: new Int32Array(11) },
        { item: 6, prompt: [1, -1], answer: [5, 265, 300] })
      const { message } = yield* Effect.flip(Stream.runCollect(scorer.score(given)))
      assert.strictEqual(message, `score: not every answer can be scored
  answer 4 has an empty prompt: nothing would predict its first token
  answer 5 has 11 tokens after 2, more than a context of 12 holds
  the prompt of answer 6 has the id -1 at 1; ids are 0 to 264: is it of another tokenizer?
  answer 6 has the id 265 at 1; ids are 0 to 264: is it of another tokenizer?`)
    }))

  it.effect("name the token whose probability is not a number, with a rule and without", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const cells = yield* parameters(1)
      yield* backend.write(cells.norm.gain, new Float64Array(8).fill(NaN))
      const failure = (options: { readonly rule?: typeof greedy }) =>
        Effect.gen(function*() {
          const scorer = yield* Scoring.make({ model, parameters: cells, ...options })
          const scored = Stream.runCollect(scorer.score(Stream.make({ item: 2, prompt: [1, 2], answer: [5, 6] })))
          return (yield* Effect.flip(scored)).message
        })
      assert.include(yield* failure({}), "answer 2, token 0: its log-probability is not a number: are the parameters?")
      assert.include(yield* failure({ rule: greedy }), "answer 2, token 0: sampling: logits must be finite")
    }))

  it.effect("name the token for which a rule made no distribution", () =>
    Effect.gen(function*() {
      const rule: Rule = () => ({ ids: Int32Array.of(5, 6), weights: Float64Array.of(1, 1), total: 0.5 })
      const scorer = yield* Scoring.make({ model, parameters: yield* parameters(1), rule })
      const scored = Stream.runCollect(scorer.score(Stream.make({ item: 2, prompt: [1, 2], answer: [5, 6] })))
      assert.strictEqual((yield* Effect.flip(scored)).message, `score: not every answer can be scored
  answer 2, token 0: sampling: the rule made no distribution
  total is 0.5, the sum of the weights 2; they must be equal and positive
  ids[i] is drawn with the probability weights[i] / total: one weight for each id, and total their sum.`)
    }))

  it.effect("name sizes that are none", () =>
    Effect.gen(function*() {
      const { message } = yield* Effect.flip(Scoring.make({ model, parameters: yield* parameters(1), slots: 0.5 }))
      assert.include(message, "slots, contextLength and blockLength must be whole numbers of at least 1")
      assert.include(message, "0.5")
    }))

  it.effect("name a context that the model does not have", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(1)
      const { message } = yield* Effect.flip(Scoring.make({ model, parameters: cells, contextLength: 13 }))
      assert.strictEqual(message, [
        "scorer: contextLength must be at most that of the model", "  scorer  13", "  model   12",
        "  Positions that were never trained give nonsense: ask for fewer, or leave contextLength out."
      ].join("\n"))
    }))
})
