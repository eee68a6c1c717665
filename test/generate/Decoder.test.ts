/**
 * The law of decoding: each token is the draw, with its own key, from what the whole sequence before it gives at once,
 * whatever runs beside it and in blocks of whatever length. Then how answers end, their text, and messages.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import * as fc from "fast-check"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import { collect } from "../../src/generate/Answer.ts"
import * as Decoder from "../../src/generate/Decoder.ts"
import type { Request } from "../../src/generate/Request.ts"
import { type Distribution, draw, greedy, type Logits, type Rule, sampling } from "../../src/generate/Sampling.ts"
import * as Quantization from "../../src/llama/Quantization.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Key from "../../src/random/Key.ts"
import { count, type Sizes } from "../../src/tensor/Node.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import { codec, contextLength, divisible, divisibleParameters, model, parameters, whole } from "./models.ts"

const services = Layer.merge(Reference.layer, Layer.succeed(Tokenizer.Tokenizer, codec))

const anyId = fc.integer({ min: 0, max: codec.vocabSize - 1 })

const prompt = fc.array(anyId, { minLength: 1, maxLength: contextLength - 3 })

const blockLengths = fc.array(fc.integer({ min: 1, max: contextLength }), { minLength: 1, maxLength: 2 })

const certain = (id: number): Distribution => ({ ids: Int32Array.of(id), weights: Float64Array.of(1), total: 1 })

/** A rule that ignores the scores and gives these ids, one after the other. */
const scripted = (ids: ArrayLike<number>): Rule => {
  let count = 0
  return () => certain(ids[count++] ?? codec.eosId)
}

const key = Key.make("decoder")

layer(services)("a decoder", (it) => {
  it.effect("draws each token from what the whole sequence before it gives at once", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const cells = yield* parameters(1)
      const full = yield* (yield* backend.compile(yield* whole)).bind({ parameters: cells })
      const run = Effect.fnUntraced(function*(
        prompts: ReadonlyArray<ReadonlyArray<number>>, slots: number, blockLengths: ReadonlyArray<number>,
        candidates: number, frozen: boolean
      ) {
        const decoder = yield* Decoder.make({ model, parameters: cells, slots, blockLengths, frozen })
        const drawn = sampling({ temperature: 1, topP: 0.9 })
        let haveTops = slots === 1
        const rule: Rule = (logits, tops) => {
          if (slots > 1) haveTops ||= tops !== undefined
          const length = logits.length / (tops?.length ?? 1)
          tops?.forEach((top, i) =>
            assert.strictEqual(top, Math.max(...logits.subarray(i * length, (i + 1) * length))))
          return drawn(logits, tops)
        }
        const request = { prompts, candidates, maximumTokens: 3, rule, key, stopIds: [] }
        const answers = yield* collect(decoder.generate(request))
        assert.isTrue(haveTops)
        assert.deepStrictEqual(
          answers.map(({ candidate, item }) => item * candidates + candidate).toSorted((a, b) => a - b),
          Array.from({ length: prompts.length * candidates }, (_, i) => i)
        )
        for (const { candidate, ids, item, logProbs, reason } of answers) {
          const before = prompts[item]!
          const all = Int32Array.from({ length: contextLength }, (_, i) => [...before, ...ids][i] ?? 0)
          const { logits } = yield* full.run({ ids: all })
          ids.forEach((id, i) => {
            const place = before.length + i
            const row = logits.elements.subarray((place - 1) * codec.vocabSize, place * codec.vocabSize) as Logits
            const expected = draw(drawn(row), Key.derive(key, item, candidate, place))
            assert.strictEqual(id, expected.id)
            assert.closeTo(logProbs[i]!, expected.logProb, 1e-9)
          })
          assert.strictEqual(ids.length, 3)
          assert.strictEqual(reason, "maximum")
        }
      })
      const context = yield* Effect.context<Backend | Tokenizer.Tokenizer>()
      yield* Effect.promise(() => fc.assert(fc.asyncProperty(
        fc.array(prompt, { minLength: 1, maxLength: 4 }), fc.integer({ min: 1, max: 3 }),
        blockLengths, fc.integer({ min: 1, max: 2 }), fc.boolean(),
        (...parts) => Effect.runPromise(Effect.scoped(Effect.provide(run(...parts), context)))
      ), {
        numRuns: 25,
        examples: [[[[1, 7, 8, 9, 10, 11, 12, 13, 14], [1]], 2, [8], 1, false]] // a last block that would pass the end
      }))
    }))

  it.effect("sees later parameters, or those it was made with where they are frozen", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const [cells, others] = [yield* parameters(1), yield* parameters(2)]
      const live = yield* Decoder.make({ model, parameters: cells })
      const frozen = yield* Decoder.make({ model, parameters: cells, frozen: true })
      const request = { prompts: [[1]], maximumTokens: 6, rule: greedy, key }
      const ids = (decoder: Decoder.Decoder) =>
        Effect.map(collect(decoder.generate(request)), ([answer]) => answer!.ids)
      const before = yield* ids(live)
      assert.deepStrictEqual(yield* ids(frozen), before)
      yield* backend.copy(others, cells)
      assert.deepStrictEqual(yield* ids(frozen), before)
      assert.notDeepEqual(yield* ids(live), before)
    }))

  it.effect("keeps weights in codes where that is asked for, as a model that was coded before", () =>
    Effect.gen(function*() {
      const [plain, cells] = [divisible, yield* divisibleParameters]
      const rule = sampling({ temperature: 1 })
      const answer = (decoder: Decoder.Decoder) =>
        collect(decoder.generate({ prompts: [[1, 70], [1]], maximumTokens: 3, rule, key, stopIds: [] }))
      const options = { model: plain, parameters: cells, blockLengths: [2] }
      const asked = yield* answer(yield* Decoder.make({ ...options, weights: "4-bit" }))
      const coded = yield* Quantization.quantized(plain, Quantization.schemes["4-bit"])
      const parameters = yield* Quantization.fromCells(coded, cells)
      assert.deepStrictEqual(yield* answer(yield* Decoder.make({ ...options, model: coded, parameters })), asked)
      const frozen = yield* Decoder.make({ ...options, weights: "4-bit", frozen: true })
      assert.deepStrictEqual(yield* answer(frozen), asked)
      const whole = yield* answer(yield* Decoder.make(options))
      assert.notDeepEqual(whole.map(({ logProbs }) => logProbs), asked.map(({ logProbs }) => logProbs))
    }))

  it.effect("gives streams that run at once caches of their own", () =>
    Effect.gen(function*() {
      const decoder = yield* Decoder.make({ model, parameters: yield* parameters(1), blockLengths: [2] })
      const rule = sampling({ temperature: 1 })
      const answer = (ids: ReadonlyArray<number>) =>
        collect(decoder.generate({ prompts: [ids], maximumTokens: 5, rule, key, stopIds: [] }))
      const prompts = [[1, 70, 71, 72], [1, 90], [1, 100, 5]]
      const alone = yield* Effect.forEach(prompts, answer)
      assert.deepStrictEqual(yield* Effect.forEach(prompts, answer, { concurrency: "unbounded" }), alone)
    }))
})

layer(services)("an answer", (it) => {
  const answer = Effect.fnUntraced(function*(request: Partial<Request>) {
    const decoder = yield* Decoder.make({ model, parameters: yield* parameters(1) })
    return yield* collect(decoder.generate({ prompts: [[1]], maximumTokens: 8, rule: greedy, key, ...request }))
  })

  it.effect("is text that follows the text of its prompt", () =>
    Effect.gen(function*() {
      const small = Transformer.llama({ ...model.config, layerCount: 1 }) // a script says what is drawn
      const initial = (_: string, sizes: Sizes) => new Float64Array(count(sizes))
      const cells = yield* (yield* Backend).allocate(small.specification, { initial })
      const decoder = yield* Decoder.make({ model: small, parameters: cells, blockLengths: [4] })
      const run = (ids: ReadonlyArray<number>, before: string) => {
        const start = codec.encodeSegments([Tokenizer.bos, before])
        const request = { prompts: [start], maximumTokens: 3, rule: scripted(ids), key, stopTexts: ["b\n"] }
        return Effect.map(collect(decoder.generate(request)), ([found]) => {
          const whole = codec.decode([...start, ...found!.ids])
          const expected = found!.reason === "text" ? whole.slice(0, whole.indexOf("b\n")) : whole
          assert.strictEqual(codec.decode(start) + found!.text, expected)
        })
      }
      const frequent = fc.constantFrom(codec.eosId, 3 + 0xc3, 3 + 0xa9, 13, 259, 260, 261, 262, 263, 264)
      const context = yield* Effect.context<never>()
      yield* Effect.promise(() => fc.assert(fc.asyncProperty(
        fc.array(fc.oneof(frequent, anyId), { minLength: 3, maxLength: 3 }),
        fc.constantFrom("", "a", "ab a", "é"),
        (ids, before) => Effect.runPromise(Effect.provide(run(ids, before), context))
      ), { numRuns: 100 }))
    }))

  it.effect("ends with an id that ends it, which has no text but a probability", () =>
    Effect.gen(function*() {
      const [found] = yield* answer({ rule: scripted([260, codec.eosId, 261]) })
      const ids = [260, codec.eosId]
      const expected = { item: 0, candidate: 0, ids, logProbs: [0, 0], text: "a", reason: "id" as const, passes: 1 }
      assert.deepStrictEqual(found, expected)
      const [other] = yield* answer({ rule: scripted([260, codec.eosId, 261]), stopIds: [261] })
      assert.deepStrictEqual(other?.ids, [260, codec.eosId, 261])
    }))

  it.effect("ends before a text that ends it, and goes on where that only began", () =>
    Effect.gen(function*() {
      const [found] = yield* answer({ rule: scripted([260, 263, 261, 13, 260]), stopTexts: ["bb\n"] })
      assert.deepStrictEqual([found?.text, found?.reason, found?.ids], ["aa", "text", [260, 263, 261, 13]])
      const [other] = yield* answer({ rule: scripted([260, 261]), stopTexts: ["bb"] })
      assert.deepStrictEqual([other?.text, other?.reason], ["ab", "id"])
    }))

  it.effect("ends after the most tokens it may have", () =>
    Effect.gen(function*() {
      const [found] = yield* answer({ rule: scripted([260, 261, 260]), maximumTokens: 2 })
      assert.deepStrictEqual([found?.text, found?.reason], ["ab", "maximum"])
    }))

  it.effect("fills the context to its end where that is asked for", () =>
    Effect.gen(function*() {
      const [found] = yield* answer({ rule: () => certain(260), maximumTokens: 1000, atContextEnd: "end" })
      assert.deepStrictEqual([found?.ids.length, found?.reason], [contextLength - 1, "context"])
    }))

  it.effect("holds back a character until it is whole, and what is not one to the end", () =>
    Effect.gen(function*() {
      const decoder = yield* Decoder.make({ model, parameters: yield* parameters(1) })
      const texts = (ids: ReadonlyArray<number>) =>
        decoder.generate({ prompts: [[1]], maximumTokens: ids.length, rule: scripted(ids), key }).pipe(
          Stream.map(({ text }) => text), Stream.runCollect)
      assert.deepStrictEqual(yield* texts([3 + 0xc3, 3 + 0xa9, 260]), ["", "é", "a", ""])
      assert.deepStrictEqual(yield* texts([260, 3 + 0xc3]), ["a", "", "\ufffd"])
    }))

  it.effect("is drawn from ids in any order", () =>
    Effect.gen(function*() {
      const [found] = yield* answer({ rule: () => ({
        ids: Int32Array.of(262, 260, 261), weights: Float64Array.of(1, 2, 1), total: 4
      }) })
      found?.ids.forEach((id, i) =>
        assert.strictEqual(found.logProbs[i], id === 260 ? Math.log(2) - Math.log(4) : -Math.log(4)))
      assert.strictEqual(found?.reason, "maximum")
    }))

  it.effect("is drawn only as far as it is wanted", () =>
    Effect.gen(function*() {
      let count = 0
      const rule: Rule = () => certain(++count + 259)
      const decoder = yield* Decoder.make({ model, parameters: yield* parameters(1) })
      yield* Stream.runDrain(Stream.take(decoder.generate({ prompts: [[1]], maximumTokens: 8, rule, key }), 2))
      assert.isAtMost(count, 3)
    }))
})

layer(services)("messages", (it) => {
  it.effect("name a context that the model does not have, and a width that is none", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(1)
      const refused = (options: Pick<Decoder.Options<never>, "contextLength" | "weights">) =>
        Effect.map(Effect.flip(Decoder.make({ model, parameters: cells, ...options })), ({ message }) => message)
      assert.strictEqual(yield* refused({ contextLength: 13 }), [
        "decoder: contextLength must be at most that of the model", "  decoder  13", "  model    12",
        "  Positions that were never trained give nonsense: ask for fewer, or leave contextLength out."
      ].join("\n"))
      assert.strictEqual(yield* refused({ weights: "16-bit" as "8-bit" }), [
        "quantization: a width is one of 8-bit, 8-bit-rows, 4-bit", "  width  16-bit", "  Name one of them."
      ].join("\n"))
    }))

  const failure = Effect.fnUntraced(function*(request: Partial<Request>) {
    const decoder = yield* Decoder.make({ model, parameters: yield* parameters(1) })
    const events = decoder.generate({ prompts: [[1]], maximumTokens: 8, rule: greedy, key, ...request })
    return (yield* Effect.flip(collect(events))).message
  })

  it.effect("name every fault of a request", () =>
    Effect.gen(function*() {
      const prompts = [[1], [], [1, 265], [0.5]]
      const stopIds = [2, 265, -1, 1.5]
      assert.strictEqual(yield* failure({ prompts, maximumTokens: 0, candidates: 1.5, stopIds, stopTexts: [""] }),
        `generate: the request cannot be fulfilled
  maximumTokens must be a whole number of at least 1, got 0
  candidates must be a whole number of at least 1, got 1.5
  stopIds has 265 at 1; ids are 0 to 264
  stopIds has -1 at 2; ids are 0 to 264
  stopIds has 1.5 at 3; ids are 0 to 264
  an empty stop text would end every answer before it began
  prompt 1 is empty; begin it with the beginning of sequence, id 1
  prompt 2 has the id 265 at 1; ids are 0 to 264: is it of another tokenizer?
  prompt 3 has the id 0.5 at 0; ids are 0 to 264: is it of another tokenizer?`)
    }))

  it.effect("say what does not fit into the context, and what to do", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* failure({ prompts: [[1], [1, 5, 6], [1, 5, 6, 7, 8]], maximumTokens: 10 }),
        `generate: prompt and answer must fit into a context of 12 tokens
  prompt 1 has 3 tokens, and its answer may have 10
  prompt 2 has 5 tokens, and its answer may have 10
  Ask for at most 7 tokens, or let answers end with the context (atContextEnd: "end").`)
      assert.strictEqual(yield* failure({ prompts: [new Int32Array(12)], maximumTokens: 10, atContextEnd: "end" }),
        `generate: prompt and answer must fit into a context of 12 tokens
  prompt 0 has 12 tokens, and its answer may have 10
  Cut the prompt: an answer needs room for one token at least.`)
    }))

  it.effect("name the token that could not be drawn", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* failure({ rule: (logits) => greedy(logits.map(() => NaN)) }),
        `generate: item 0, candidate 0, token 1 of its sequence
  sampling: logits must be finite or −∞, one of them finite; id 0 of 265 has NaN
  Usual causes: parameters that a diverged training step made NaN, or a mask that excludes every token.`)
    }))

  it.effect("name the token for which a rule made no distribution, and all that is wrong with it", () =>
    Effect.gen(function*() {
      const made = (ids: ReadonlyArray<number>, weights: ReadonlyArray<number>, total: number): Rule => () =>
        ({ ids: Int32Array.from(ids), weights: Float64Array.from(weights), total })
      assert.strictEqual(yield* failure({ rule: made([3, 265], [1, -1, NaN], 0.5) }),
        `generate: item 0, candidate 0, token 1 of its sequence
  sampling: the rule made no distribution
  it has 2 ids and 3 weights
  ids[1] is 265; ids are 0 to 264
  weights[1] is -1; weights are finite and not negative
  total is 0.5, the sum of the weights NaN; they must be equal and positive
  ids[i] is drawn with the probability weights[i] / total: one weight for each id, and total their sum.`)
      assert.strictEqual(yield* failure({ rule: made([9, 4, 3, 4, 9], [1, 1, 1, 1, 1], 5) }),
        `generate: item 0, candidate 0, token 1 of its sequence
  sampling: the rule made no distribution
  ids[3] is 4 again, as ids[1] is
  ids[i] is drawn with the probability weights[i] / total: one weight for each id, and total their sum.`)
      assert.include(yield* failure({ rule: made([3, 3], [1, 1], 2) }), "ids[1] is 3 again, as ids[0] is\n")
      assert.include(yield* failure({ rule: made([300, 300, -1, -1], [1, 1, 1, 1], 4) }), "ids[0] is 300; ")
      assert.include(yield* failure({ rule: made([3, 4], [1, 1], 0.5) }), "total is 0.5, the sum of the weights 2; ")
      assert.include(yield* failure({ rule: made([3, 4], [0, 0], 0) }), "total is 0, the sum of the weights 0; ")
      assert.include(yield* failure({ rule: made([3], [NaN], 1) }), "weights[0] is NaN; ")
      assert.include(yield* failure({ rule: made([3], [1], NaN) }), "total is NaN, the sum of the weights 1; ")
      assert.include(yield* failure({ rule: made([], [], 1) }), "it has no ids")
    }))

  it.effect("refuse a tokenizer of another size, and sizes that are none", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(1)
      const other = yield* Effect.flip(Effect.provide(Decoder.make({ model, parameters: cells }), Tokenizer.layerBytes))
      assert.strictEqual(other.message, `decoder: the model has 265 tokens, the tokenizer 259
  They must be equal, or ids would be read as other text than they were trained on. Does it belong to another model?
  Where the model's vocabulary was filled up beyond its tokenizer, Checkpoint.withVocabulary leaves the rest out.`)
      const sizes = yield* Effect.flip(Decoder.make({ model, parameters: cells, slots: 0 }))
      assert.include(sizes.message, "slots, contextLength and blockLengths must be whole numbers of at least 1")
    }))
})
