/**
 * The law of filling: what runs beside a sequence, before it in its slot, and when it began change nothing, to the last
 * bit where as many slots run. Then, over slots that only count: none waits, none is pulled too early, none piles up.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Stream } from "effect"
import * as fc from "fast-check"
import type { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import { answers, type Answer, collect } from "../../src/generate/Answer.ts"
import * as Decoder from "../../src/generate/Decoder.ts"
import { fill } from "../../src/generate/Filling.ts"
import type { Prompt, Settings } from "../../src/generate/Request.ts"
import { type Rule, sampling } from "../../src/generate/Sampling.ts"
import type { Slots } from "../../src/generate/Slots.ts"
import * as Key from "../../src/random/Key.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import { codec, contextLength, model, parameters } from "./models.ts"

const services = Layer.merge(Reference.layer, Layer.succeed(Tokenizer.Tokenizer, codec))

const key = Key.make("filling")

const byPlace = (all: ReadonlyArray<Answer>) =>
  all.toSorted((a, b) => a.item - b.item || a.candidate - b.candidate)

layer(services)("filling", (it) => {
  it.effect("and forking change no sequence, to the last bit", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(1)
      const decoders = yield* Effect.forEach([1, 2, 3], (slots) =>
        Decoder.make({ model, parameters: cells, slots, blockLengths: [2, 5] }))
      const settings: Settings = {
        maximumTokens: 4, rule: sampling({ temperature: 1, topP: 0.9 }), key, stopIds: [60, 61, 62, 63, 64, 65, 66, 67]
      }
      const run = Effect.fnUntraced(function*(
        prompts: ReadonlyArray<ReadonlyArray<number>>, slots: number, candidates: number, shift: number
      ) {
        const decoder = decoders[slots - 1]!
        const all = prompts.map((ids, item): Prompt => ({ item, ids }))
        const turned = [...all.slice(shift % all.length), ...all.slice(0, shift % all.length)]
        const together = yield* collect(decoder.generateFrom(Stream.fromIterable(turned), { ...settings, candidates }))
        assert.strictEqual(together.length, prompts.length * candidates)
        for (const { ids, passes } of together) assert.strictEqual(passes, ids.length - 1) // the first is the prompt's
        const alone = yield* Effect.forEach(all, (prompt) =>
          Effect.map(collect(decoder.generateFrom(Stream.make(prompt), { ...settings, candidates })), byPlace))
        assert.deepStrictEqual(byPlace(together), alone.flat())
        const fewer = yield* collect(decoder.generate({ ...settings, prompts, candidates: 1 }))
        assert.deepStrictEqual(byPlace(fewer), alone.flat().filter(({ candidate }) => candidate === 0))
      })
      const context = yield* Effect.context<Backend | Tokenizer.Tokenizer>()
      const prompt = fc.array(fc.integer({ min: 0, max: codec.vocabSize - 1 }), {
        minLength: 1, maxLength: contextLength - 4
      })
      yield* Effect.promise(() => fc.assert(fc.asyncProperty(
        fc.array(prompt, { minLength: 1, maxLength: 5 }), fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 4 }), fc.nat(4),
        (...parts) => Effect.runPromise(Effect.provide(run(...parts), context))
      ), { numRuns: 12 }))
    }))
})

/** Slots that compute nothing and remember what was asked of them. */
const counting = (count: number) => {
  const seen = { prefills: 0, seats: 0, steps: 0, idle: 0 }
  const slots: Slots = {
    count,
    prefill: () => Effect.sync(() => { seen.prefills++; return { logits: new Float32Array(codec.vocabSize) } }),
    seat: () => Effect.sync(() => { seen.seats++ }),
    step: (_, places, use) => Effect.suspend(() => {
      seen.steps++
      seen.idle += places.filter((place) => place === 0).length
      return use({ logits: new Float32Array(count * codec.vocabSize) })
    })
  }
  return { seen, slots }
}

const certain = (id: number) => ({ ids: Int32Array.of(id), weights: Float64Array.of(1), total: 1 })

const never: Rule = () => certain(260)

const bounds = (settings: Partial<Settings>) =>
  ({ codec, contextLength: 100, settings: { maximumTokens: 5, rule: never, key, ...settings } })

/** Prompts without end, and how many were pulled. */
const endless = () => {
  const seen = { pulled: 0 }
  return { seen, prompts: Stream.map(Stream.fromEffectRepeat(Effect.sync(() => seen.pulled++)), (item): Prompt =>
    ({ item, ids: [1, item % 7 + 5] })) }
}

describe("slots", () => {
  it.effect("never idle while there are prompts, whatever the lengths of answers", () =>
    Effect.gen(function*() {
      let draws = 0
      const rule: Rule = () => certain(draws++ % 3 === 0 ? codec.eosId : 260)
      const { seen, slots } = counting(4)
      const prompts = Array.from({ length: 100 }, (_, item): Prompt => ({ item, ids: [1] }))
      const all = yield* collect(fill(Stream.fromIterable(prompts), slots, bounds({ rule, maximumTokens: 9 })))
      assert.deepStrictEqual(all.map(({ item }) => item).toSorted((a, b) => a - b), prompts.map(({ item }) => item))
      assert.isAtMost(seen.idle, 3 * 9, "only the last answers leave slots empty")
      assert.isAbove(seen.steps, 10)
    }))

  it.effect("share one computation of a prompt between its candidates", () =>
    Effect.gen(function*() {
      const { seen, slots } = counting(3)
      const prompts = [0, 1].map((item): Prompt => ({ item, ids: [1, 5, 6] }))
      const all = yield* collect(fill(Stream.fromIterable(prompts), slots, bounds({ candidates: 7 })))
      assert.strictEqual(all.length, 14)
      assert.deepStrictEqual([seen.prefills, seen.seats, seen.steps], [2, 14, 20]) // five rounds of four steps
    }))

  it.effect("take prompts only as there is room for them", () =>
    Effect.gen(function*() {
      const { slots } = counting(4)
      const { prompts, seen } = endless()
      const some = yield* Stream.runCollect(Stream.take(answers(fill(prompts, slots, bounds({}))), 20))
      assert.strictEqual(some.length, 20)
      assert.isAtMost(seen.pulled, 24)
      const other = endless()
      yield* Stream.runDrain(Stream.take(fill(other.prompts, slots, bounds({})), 1))
      assert.isAtMost(other.seen.pulled, 4)
    }))

  it.effect("are not needed by answers of one token, which do not pile up", () =>
    Effect.gen(function*() {
      const { seen, slots } = counting(2)
      const { prompts } = endless()
      const one = answers(fill(prompts, slots, bounds({ maximumTokens: 1 })))
      const some = yield* Stream.runCollect(Stream.take(one, 50))
      const expected = Array.from({ length: 50 }, (_, item) => [item, 260])
      assert.deepStrictEqual(some.map(({ ids, item }) => [item, ...ids]), expected)
      assert.deepStrictEqual([seen.seats, seen.steps], [0, 0])
      assert.isAtMost(seen.prefills, 54)
    }))

  it.effect("go on while a prompt is awaited", () =>
    Effect.gen(function*() {
      const { slots } = counting(2)
      const ended = yield* Deferred.make<void>()
      const prompts = Stream.concat(
        Stream.make<[Prompt]>({ item: 0, ids: [1] }),
        Stream.fromEffect(Effect.as(Deferred.await(ended), { item: 1, ids: [1] }))
      )
      const all = yield* answers(fill(prompts, slots, bounds({}))).pipe(
        Stream.tap(({ item }) => item === 0 ? Deferred.succeed(ended, undefined) : Effect.void), Stream.runCollect)
      assert.deepStrictEqual(all.map(({ item }) => item), [0, 1])
    }))
})

describe("an interruption", () => {
  it.effect("ends everything between two steps, and lets go of the prompts", () =>
    Effect.gen(function*() {
      const { seen, slots } = counting(2)
      const [begun, released] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const prompts = Stream.ensuring(endless().prompts, Deferred.succeed(released, undefined))
      const turns: Slots = { ...slots, step: (...given) => Effect.andThen(Effect.yieldNow, slots.step(...given)) }
      const running = yield* Effect.forkChild(Stream.runForEach(fill(prompts, turns, bounds({})), () =>
        seen.steps < 3 ? Effect.void : Deferred.succeed(begun, undefined)))
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(running)
      yield* Deferred.await(released)
      const { steps } = seen
      for (let i = 0; i < 20; i++) yield* Effect.yieldNow
      assert.strictEqual(seen.steps, steps)
    }))
})

describe("prompts that come", () => {
  const failure = <E>(prompts: Stream.Stream<Prompt, E>) =>
    Effect.flip(collect(fill(prompts, counting(2).slots, bounds({ atContextEnd: "refuse" }))))

  it.effect("fail with the first that cannot be answered, by its item", () =>
    Effect.gen(function*() {
      const empty = yield* failure(Stream.make({ item: 3, ids: [1] }, { item: 17, ids: [] }))
      assert.include(String(empty.message), "prompt 17 is empty; begin it with the beginning of sequence, id 1")
      const long = yield* failure(Stream.make({ item: 8, ids: new Int32Array(97) }))
      assert.include(String(long.message), "prompt 8 has 97 tokens, and its answer may have 5")
      const unnumbered = yield* failure(Stream.make({ item: 0.5, ids: [1] }))
      assert.include(String(unnumbered.message), "the number of a prompt must be a whole number, got 0.5")
    }))

  it.effect("fail once the answers before have ended", () =>
    Effect.gen(function*() {
      const begun = Stream.make<Array<Prompt>>({ item: 3, ids: [1] }, { item: 4, ids: [1, 7] })
      const later = { item: 9, ids: [1] }
      for (const rest of [Stream.make({ item: 17, ids: [] }, later), Stream.fail("no more" as const)]) {
        const ended: Array<number> = []
        const failed = yield* answers(fill(Stream.concat(begun, rest), counting(4).slots, bounds({}))).pipe(
          Stream.runForEach(({ item }) => Effect.sync(() => ended.push(item))), Effect.flip)
        assert.match(String(failed), /prompt 17 is empty|no more/)
        assert.deepStrictEqual(ended, [3, 4])
      }
    }))

  it.effect("fail with one that has the number of another that still runs", () =>
    Effect.gen(function*() {
      const failed = yield* failure(Stream.make({ item: 5, ids: [1] }, { item: 5, ids: [1, 7] }))
      assert.strictEqual(String(failed.message), `generate: the request cannot be fulfilled
  prompt 5 came while answers to another prompt 5 run: two that run together need numbers of their own, or their \
answers could not be told apart`)
      const later = Stream.make<Array<Prompt>>({ item: 5, ids: [1] }, { item: 5, ids: [1, 7] })
      const all = yield* collect(fill(later, counting(1).slots, bounds({ candidates: 2 })))
      assert.deepStrictEqual(all.map(({ candidate, item }) => [item, candidate]), [[5, 0], [5, 1], [5, 0], [5, 1]])
    }))

  it.effect("fail as their stream fails", () =>
    Effect.gen(function*() {
      const failed = yield* failure(Stream.concat(Stream.make({ item: 0, ids: [1] }), Stream.fail("no more" as const)))
      assert.strictEqual(failed, "no more")
    }))
})
