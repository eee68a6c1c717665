/**
 * The law of drafting: whatever guesses, answers are those that the model gives alone. Then how much a draft spares,
 * and which drafts are refused.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import * as fc from "fast-check"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import type { Event } from "../../src/generate/Answer.ts"
import * as Decoder from "../../src/generate/Decoder.ts"
import type { Draft } from "../../src/generate/Drafting.ts"
import { fill } from "../../src/generate/Filling.ts"
import { greedy, type Rule, sampling } from "../../src/generate/Sampling.ts"
import * as Slots from "../../src/generate/Slots.ts"
import * as Config from "../../src/llama/Config.ts"
import { draws } from "../../src/llama/Initialization.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Key from "../../src/random/Key.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import { codec, contextLength, divisible, divisibleParameters, model, parameters } from "./models.ts"

const services = Layer.mergeAll(Reference.layer, Transformer.layer, Layer.succeed(Tokenizer.Tokenizer, codec))

const key = Key.make("drafting")

/** What guesses: the model itself, a disturbed one, another, or one that computes nothing but NaN. */
const kinds = ["itself", "disturbed", "another", "broken"] as const

const draftOf = Effect.fnUntraced(function*(kind: typeof kinds[number], config = model.config) {
  const guessing = yield* Transformer.make(config)
  const draw = draws(Key.make(kind === "another" ? 2 : 1), guessing.specification)
  const noise = draws(Key.make(3), guessing.specification)
  const initial = (path: string) => draw(path)?.map((weight, i) =>
    kind === "broken" ? NaN : 20 * (weight + (kind === "disturbed" ? 0.05 * (noise(path)?.[i] ?? 0) : 0)))
  const cells = yield* (yield* Backend).allocate(guessing.specification, { initial })
  return { model: guessing, parameters: cells } as unknown as Draft // whose trees are hidden
})

/** The same events, however often the model was computed; a block of positions may round another way than one. */
const same = (some: ReadonlyArray<Event>, others: ReadonlyArray<Event>): void => {
  const exact = (event: Event) => ({ ...event, logProb: 0, passes: 0 })
  const logProbs = (events: ReadonlyArray<Event>) =>
    events.map((event) => event._tag === "Token" ? event.logProb : 0)
  assert.deepStrictEqual(some.map(exact), others.map(exact))
  const expected = logProbs(others)
  logProbs(some).forEach((logProb, i) => assert.closeTo(logProb, expected[i]!, 1e-9))
}

layer(services)("a draft", (it) => {
  it.effect("changes no event of any answer", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(1)
      const drafts = yield* Effect.forEach(kinds, (kind) => draftOf(kind))
      const alone = yield* Decoder.make({ model, parameters: cells })
      const rules = [greedy, sampling({ temperature: 1 }), sampling({ temperature: 0.7, topP: 0.9 })]
      const run = Effect.fnUntraced(function*(
        prompts: ReadonlyArray<ReadonlyArray<number>>, kind: number, length: number, which: number,
        maximumTokens: number, frozen: boolean
      ) {
        const [guessing, rule] = [drafts[kind]!, rules[which]!]
        const decoder = yield* Decoder.make({ model, parameters: cells, frozen, draft: { ...guessing, length } })
        const request = {
          prompts, rule, key, maximumTokens, candidates: 2, atContextEnd: "end" as const, stopTexts: ["ba"],
          stopIds: [60, 61, 62, 63, 64, 65, 66, 67]
        }
        same(yield* Stream.runCollect(decoder.generate(request)), yield* Stream.runCollect(alone.generate(request)))
      })
      const context = yield* Effect.context<Backend | Tokenizer.Tokenizer>()
      const prompt = fc.array(fc.integer({ min: 0, max: codec.vocabSize - 1 }), {
        minLength: 1, maxLength: contextLength - 1
      })
      yield* Effect.promise(() => fc.assert(fc.asyncProperty(
        fc.array(prompt, { minLength: 1, maxLength: 2 }), fc.nat(kinds.length - 1),
        fc.integer({ min: 1, max: contextLength + 1 }), fc.nat(rules.length - 1),
        fc.integer({ min: 1, max: contextLength }), fc.boolean(),
        (...parts) => Effect.runPromise(Effect.scoped(Effect.provide(run(...parts), context)))
      ), { numRuns: 12 }))
    }))

  it.effect("loses no token that was drawn before one that cannot be", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(1)
      const drawn = sampling({ temperature: 1 })
      const events = Effect.fnUntraced(function*(calls: number, options: Pick<Decoder.Options<never>, "draft">) {
        const decoder = yield* Decoder.make({ model, parameters: cells, ...options })
        const told: Array<Event> = []
        // fails from a place on, which it knows by what the model makes of it
        const seen = new Map<string, number>()
        const rule: Rule = (logits, tops) => {
          const name = logits.subarray(0, 8).map((logit) => Math.round(logit * 1e6)).join()
          const place = seen.get(name) ?? seen.size
          seen.set(name, place)
          return drawn(place < calls ? logits : logits.map(() => NaN), place < calls ? tops : undefined)
        }
        const error = yield* decoder.generate({ prompts: [[1]], rule, key, maximumTokens: 11, stopIds: [] }).pipe(
          Stream.runForEach((event) => Effect.sync(() => told.push(event))), Effect.flip)
        return [told.length, error._tag] as const
      })
      const draft = yield* draftOf("itself")
      for (const calls of [1, 2, 4, 7]) {
        assert.deepStrictEqual(yield* events(calls, { draft: { ...draft, length: 4 } }), [calls, "DrawError"])
        assert.deepStrictEqual(yield* events(calls, {}), [calls, "DrawError"])
      }
    }))

  it.effect("guesses no more than can be wanted", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(1)
      const drawn = sampling({ temperature: 1 })
      const decoder = yield* Decoder.make({ model, parameters: cells, draft: yield* draftOf("itself") })
      const calls = Effect.fnUntraced(function*(maximumTokens: number) {
        let count = 0
        const rule: Rule = (logits, tops) => {
          count++
          return drawn(logits, tops)
        }
        yield* Stream.runDrain(decoder.generate({ prompts: [[1]], rule, key, maximumTokens, stopIds: [] }))
        return count
      })
      assert.deepStrictEqual(yield* Effect.forEach([1, 2, 3, 5], calls), [1, 2, 4, 8])
    }))

  it.effect("that guesses right has one reading of the weights for all its tokens and one more", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(1)
      const counts = Effect.fnUntraced(function*(kind: typeof kinds[number], length: number) {
        const machine = yield* Slots.make({ model, parameters: cells, draft: { ...yield* draftOf(kind), length } })
        const own = yield* machine.allocate()
        const { ahead } = own
        if (ahead === undefined) return assert.fail("the draft is left out")
        let readings = 0
        const slots: Slots.Slots = {
          ...own,
          step: (...step) => Effect.andThen(Effect.sync(() => { readings++ }), own.step(...step)),
          ahead: {
            ...ahead, verify: (...block) => Effect.andThen(Effect.sync(() => { readings++ }), ahead.verify(...block))
          }
        }
        const settings = { rule: sampling({ temperature: 1 }), key, maximumTokens: 11, stopIds: [] }
        const events = yield* Stream.runCollect(
          fill(Stream.make({ item: 0, ids: [1] }), slots, { codec, contextLength, settings }))
        assert.lengthOf(events, 12) // with the end; the first is drawn after the prompt
        const end = events.at(-1)
        assert.strictEqual(end?._tag === "End" ? end.passes : undefined, readings)
        return readings
      })
      assert.strictEqual(yield* counts("itself", 1), 5)
      assert.strictEqual(yield* counts("itself", 4), 2)
      assert.strictEqual(yield* counts("itself", 9), 1)
      assert.strictEqual(yield* counts("itself", 100), 1) // as many as the context holds
      assert.strictEqual(yield* counts("broken", 4), 10)
    }))

  it.effect("is made of the model's own weights where a width is asked for", () =>
    Effect.gen(function*() {
      const [plain, cells] = [divisible, yield* divisibleParameters]
      const rule = sampling({ temperature: 1 })
      let calls = 0
      const counted: Rule = (logits, tops) => {
        calls++
        return rule(logits, tops)
      }
      const answer = (options: Pick<Decoder.Options<never>, "draft" | "weights">) =>
        Effect.flatMap(Decoder.make({ model: plain, parameters: cells, ...options }), (decoder) =>
          Stream.runCollect(decoder.generate({
            prompts: [[1, 70], [1]], maximumTokens: 8, rule: counted, key, stopIds: []
          })))
      same(yield* answer({ draft: "8-bit" }), yield* answer({}))
      assert.isAbove(calls, 2 * 2 * 8) // for guesses too
      same(yield* answer({ weights: "8-bit", draft: "4-bit" }), yield* answer({ weights: "8-bit" }))
    }))

  it.effect("is refused where it cannot guess, by name", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(1)
      const refused = (options: Pick<Decoder.Options<never>, "draft" | "slots">) =>
        Effect.map(Effect.flip(Decoder.make({ model, parameters: cells, ...options })), ({ message }) => message)
      const own = yield* draftOf("itself")
      assert.strictEqual(yield* refused({ draft: own, slots: 2 }), [
        "decoder, draft: it guesses for one slot", "  slots  2",
        "  Several sequences share each reading of the weights as it is: leave the draft out, or take one slot."
      ].join("\n"))
      assert.strictEqual(yield* refused({ draft: { ...own, length: 1.5 } }), [
        "decoder, draft: its length must be a whole number of at least 1", "  length  1.5", "  Leave it out for 7."
      ].join("\n"))
      const shorter = yield* draftOf("itself", Config.make({ ...model.config, contextLength: 5 }))
      assert.strictEqual(yield* refused({ draft: shorter }), [
        "decoder, draft: its context must hold that of the decoder", "  decoder  12", "  draft    5",
        "  Take the model's own weights in codes."
      ].join("\n"))
      const larger = yield* draftOf("itself", Config.make({ ...model.config, layerCount: 3 }))
      assert.strictEqual(yield* refused({ draft: larger }), [
        "decoder, draft: it must have the model's sizes, for both use one cache",
        "  model  {\"layerCount\":2,\"kvHeadCount\":2,\"headSize\":8,\"vocabSize\":265}",
        "  draft  {\"layerCount\":3,\"kvHeadCount\":2,\"headSize\":8,\"vocabSize\":265}",
        "  Take the model's own weights in codes."
      ].join("\n"))
      const backend = yield* Backend
      const bytes = 8 * Config.parameterCount(model.config)
      const within = (constantBytes: number) => Effect.provideService(Backend, {
        ...backend, capabilities: { ...backend.capabilities, constantBytes }
      })
      yield* Decoder.make({ model, parameters: cells, draft: own }).pipe(within(bytes + 1))
      assert.strictEqual(yield* refused({ draft: own }).pipe(within(bytes)), [
        "decoder, draft: its weights must have room among the constants of a program",
        `  draft  ${bytes} bytes`, `  room   ${bytes} bytes`,
        "  Others are unpacked anew for every guess, which takes longer than a token of the model. Leave the draft " +
        "out, take fewer bits, or the engine through its C library, whose programs have no such bound."
      ].join("\n"))
    }))
})
