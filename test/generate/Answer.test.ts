import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { answers, collect, type Event } from "../../src/generate/Answer.ts"

const token = (item: number, candidate: number, id: number, text: string): Event =>
  ({ _tag: "Token", item, candidate, id, text, logProb: -id })

const events: ReadonlyArray<Event> = [
  token(0, 0, 5, "one"), token(0, 1, 6, ""), token(0, 0, 7, " two"),
  { _tag: "End", item: 0, candidate: 0, reason: "maximum", text: "!", passes: 1 },
  token(0, 1, 8, "é"),
  { _tag: "End", item: 0, candidate: 1, reason: "id", text: "", passes: 2 }
]

describe("answers", () => {
  it.effect("are the tokens of each place, given as they end", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* collect(Stream.fromIterable(events)), [
        { item: 0, candidate: 0, ids: [5, 7], logProbs: [-5, -7], text: "one two!", reason: "maximum", passes: 1 },
        { item: 0, candidate: 1, ids: [6, 8], logProbs: [-6, -8], text: "é", reason: "id", passes: 2 }
      ])
    }))
  it.effect("come before what follows them is drawn", () =>
    Effect.gen(function*() {
      const first = answers(Stream.concat(Stream.fromIterable(events.slice(0, 4)), Stream.die("drawn too far")))
      assert.strictEqual((yield* Stream.runCollect(Stream.take(first, 1))).length, 1)
    }))
  it.effect("are forgotten when they end: what comes again at a place is another answer", () =>
    Effect.gen(function*() {
      const all = yield* collect(Stream.fromIterable([...events, ...events]))
      assert.deepStrictEqual(all.slice(2), all.slice(0, 2))
    }))
  it.effect("of streams that are run again begin again", () =>
    Effect.gen(function*() {
      const all = answers(Stream.fromIterable(events))
      assert.deepStrictEqual(yield* Stream.runCollect(all), yield* Stream.runCollect(all))
    }))
})
