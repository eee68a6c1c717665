import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as fc from "fast-check"
import * as Corpus from "../../src/data/Corpus.ts"
import * as Split from "../../src/data/Split.ts"
import * as Stories from "../../src/data/Stories.ts"
import * as Words from "../../src/data/StoryWords.ts"

const heldOutCount = Stories.heldOut.meetings.length + Stories.heldOut.sums.length
const holds = (text: string, word: string) => new RegExp(`\\b${word}\\b`).test(text)
const numbers = (text: string) => [...new Set((text.match(/\d+/g) ?? []).map(Number))].sort((a, b) => a - b)

/** The held-out facts that a text states, read from the text alone. */
const heldOutIn = (text: string): ReadonlyArray<string> => [
  ...Stories.heldOut.meetings
    .filter(({ animal, place }) => holds(text, animal.name) && holds(text, place.name))
    .map(({ animal, place }) => `${animal.name} ${place.name}`),
  ...Stories.heldOut.sums
    .filter(({ left, right }) => [left, right, left + right].every((number) => numbers(text).includes(number)))
    .map(({ left, right }) => `${left} + ${right}`)
]

const train = Array.from({ length: 4000 }, (_, i) => Stories.story(1, "train", i))
const validation = Array.from({ length: 10 * heldOutCount }, (_, i) => Stories.story(1, "validation", i))
const anyStory = fc.tuple(fc.integer(), fc.constantFrom("train" as const, "validation" as const), fc.nat())
  .map(([seed, part, index]) => Stories.story(seed, part, index))

describe("Stories", () => {
  it("no training story states a held-out fact, and every validation story states one", () => {
    for (const text of train) assert.deepStrictEqual(heldOutIn(text), [])
    for (const text of validation) assert.strictEqual(heldOutIn(text).length, 1, text)
  })

  it("every held-out fact is stated once per round of validation stories", () => {
    const first = validation.slice(0, heldOutCount).flatMap(heldOutIn)
    assert.strictEqual(new Set(first).size, heldOutCount)
    assert.isAtLeast(Stories.heldOut.meetings.length, 20)
    assert.isAtLeast(Stories.heldOut.sums.length, 8)
  })

  it("every animal and every place is met in training, so that only their meeting is new", () => {
    for (const { name } of [...Words.animals, ...Words.places]) {
      assert.isAbove(train.filter((text) => holds(text, name)).length, 50, name)
    }
    for (const { left, right } of Stories.heldOut.sums) {
      for (const number of [left, right, left + right]) {
        assert.isAbove(train.filter((text) => numbers(text).includes(number)).length, 10, String(number))
      }
    }
  })

  it("all numbers of a story are one sum that comes out right", () => {
    fc.assert(fc.property(anyStory, (text) => {
      const [least = 0, ...others] = numbers(text)
      if (others.length === 1) assert.strictEqual(others[0], 2 * least, text)
      else if (others.length > 0) assert.deepStrictEqual(others, [others[0]!, least + others[0]!], text)
      else assert.strictEqual(least, 0)
    }), { numRuns: 500 })
  })

  it("ends as it began: the evening is of the day's weather, the promise is kept, what is found was lost", () => {
    fc.assert(fc.property(anyStory, (text) => {
      const [beginning = ""] = text.split("\n")
      const days = Words.weathers.filter(({ day, sign }) => holds(beginning, day) || beginning.includes(sign))
      const evenings = Words.weathers.filter(({ evening }) => text.includes(evening))
      assert.strictEqual(days.length, 1)
      assert.deepStrictEqual(evenings, days)
      const isPromised = beginning.includes("before dark")
      assert.strictEqual(/promised|kept your promise/.test(text), isPromised && !text.includes("I am sorry"))
      const loss = /had (?:her|his) (\w+ \w+) with/.exec(text)
      if (loss !== null) assert.match(text, new RegExp(`(lost the|The) ${loss[1]!} (again|was safe)`))
    }), { numRuns: 500 })
  })

  it("is clean prose: plain characters, no gap, no missing word, the right article", () => {
    fc.assert(fc.property(anyStory, (text) => {
      assert.match(text, /^[\x20-\x7e\n]+$/)
      assert.notMatch(text, / {2}|undefined|null|NaN|\[|\bs?he (found|had) \1|\ba [aeiou]|\ban [^aeiou]| $/m)
      for (const paragraph of text.split("\n")) assert.match(paragraph, /^["A-Z0-9].*[.!?]"?$/)
      assert.strictEqual((text.match(/"/g) ?? []).length % 2, 0, "quotes come in pairs")
    }), { numRuns: 500 })
  })

  it("all eight plots occur, about equally often", () => {
    const marks = [
      /and gave (her|him|them)|more\. "(Now|How)/, /left\.|only \d+\./, /to make|us make/, /who finds more/,
      /looked for it|nowhere to be seen/, /"Do not/, /Why do you do that/, /afraid of/
    ]
    for (const mark of marks) {
      assert.isAbove(train.filter((text) => mark.test(text)).length, train.length / 16, String(mark))
    }
  })

  it("is a pure function of seed, part and number, and no story comes twice", () => {
    assert.strictEqual(Stories.story(1, "train", 7), train[7])
    assert.strictEqual(new Set([...train, ...validation]).size, train.length + validation.length)
    assert.notStrictEqual(Stories.story(2, "train", 7), train[7])
  })

  it("the names of animals and places occur in no other list of words", () => {
    const others = [
      ...Words.adults, ...Words.colours, ...Words.belongings, ...Words.fears.flat(), ...Words.works.flat(),
      ...Words.people.map(({ name }) => name), ...Words.weathers.flatMap((weather) => Object.values(weather)),
      ...Words.animals.flatMap(({ name: _, ...rest }) => Object.values(rest)),
      ...Words.places.flatMap(({ name: _, ...rest }) => Object.values(rest).flat())
    ].join(" | ").toLowerCase()
    for (const { name } of [...Words.animals, ...Words.places]) assert.isFalse(holds(others, name), name)
  })

  it("a story, as it reads", () => {
    assert.strictEqual(Stories.story(1, "train", 2),
      "Once there was a girl named Yuki. One frosty day, she was on the hill. She found 11 mushrooms. Adam " +
      "came and gave her 14 more. \"Now you have 25 mushrooms,\" said Adam.\n" +
      "Then a frog hopped up. \"Croak, croak!\" it said. It was hungry, so Yuki gave it some flies. \"You are " +
      "kind,\" said Adam.\n" +
      "\"25 mushrooms and one new friend,\" said Yuki. Yuki and Adam went home together. The fire was lit, " +
      "for the frost was back.")
  })

  it.effect("as a corpus, the parts are as many as asked and keep to themselves", () => Effect.gen(function*() {
    const options = { seed: 3, train: 200, validation: 50 }
    const { bytes, documents, name } = yield* Effect.provide(Corpus.Corpus, Corpus.layerStories(options))
    const all = yield* Stream.runCollect(documents)
    assert.strictEqual(name, "200 stories of seed 3")
    assert.strictEqual(all.length, 250)
    const kept = all.filter((document) => Split.part(document, 0.5) === "validation")
    assert.deepStrictEqual(kept, all.slice(200))
    assert.strictEqual(all[1]!.text, Stories.story(3, "train", 1))
    assert.deepStrictEqual(kept[1]!.source, { file: "validation stories of seed 3", line: 2 })
    const actual = all.reduce((sum, { text }) => sum + text.length, 0)
    assert.closeTo(bytes! / actual, 1, 0.1)
  }))
})
