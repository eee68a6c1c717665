import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as fc from "fast-check"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as Packing from "../../src/data/Packing.ts"
import * as TokenStore from "../../src/data/TokenStore.ts"
import * as Perplexity from "../../src/evaluate/Perplexity.ts"
import * as Config from "../../src/llama/Config.ts"
import * as Initialization from "../../src/llama/Initialization.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Visibility from "../../src/llama/Visibility.ts"
import * as Key from "../../src/random/Key.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"

const [vocabSize, contextLength] = [11, 6]
const model = Transformer.llama(Config.make({
  vocabSize, embedSize: 8, layerCount: 1, headCount: 2, multipleOf: 8, contextLength
}))

/** Letters as tokens, each of as many bytes as UTF-8 takes for it. */
const encoder = {
  encode: (text: string) => Array.from(text, (letter) => 1 + letter.codePointAt(0)! % 10), bosId: 0, vocabSize
}

/** A model with large random weights, so that its losses differ much from token to token. */
const parameters = Effect.gen(function*() {
  const backend = yield* Backend
  const draws = Initialization.draws(Key.make(3), model.specification)
  return yield* backend.allocate(model.specification, {
    initial: (path) => draws(path)?.map((value) => 40 * value)
  })
})

const make = (options: Partial<Perplexity.Options<Transformer.LlamaParameters>> = {}) =>
  Effect.flatMap(parameters, (parameters) =>
    Perplexity.make({ model, parameters, window: 4, stride: 2, batchSize: 2, ...options }))

/** −log p of the token after each place, given the tokens from a start: a run of the model a place, then plain sums. */
const direct = Effect.fnUntraced(function*(tokens: ReadonlyArray<number>, startOf: (place: number) => number) {
  const backend = yield* Backend
  const ids = Specification.ids({ batch: 1, position: contextLength })
  const program = yield* Program.make("logits", { inputs: { ids }, state: { parameters: model.specification } },
    ({ ids }, { parameters }) => ({
      outputs: { logits: model.logits(parameters, model.hidden(parameters, { ids, visibility: Visibility.causal })) }
    }))
  const cells = { parameters: yield* parameters }
  const { run } = yield* Effect.flatMap(backend.compile(program), (executable) => executable.bind(cells))
  const losses: Array<number> = []
  for (let place = 0; place < tokens.length - 1; place++) {
    const [start, ids] = [startOf(place), new Int32Array(contextLength)]
    ids.set(tokens.slice(start, place + 1))
    const { logits } = yield* run({ ids })
    const at = (place - start) * vocabSize
    const row = Array.from(logits.elements.subarray(at, at + vocabSize))
    losses.push(Math.log(row.reduce((sum, z) => sum + Math.exp(z), 0)) - row[tokens[place + 1]!]!)
  }
  return losses
})

const sum = (values: ReadonlyArray<number>): number => values.reduce((total, value) => total + value, 0)

const cuts = fc.integer({ min: 1, max: contextLength }).chain((window) =>
  fc.record({ window: fc.constant(window), stride: fc.integer({ min: 1, max: window }) }))

const close = (found: number, expected: number): void =>
  assert.closeTo(found, expected, 1e-9 * Math.max(1, Math.abs(expected)))

describe("Perplexity.spans", () => {
  it("scores every place once, in order, with the context that window and stride promise", () => {
    fc.assert(fc.property(fc.nat(60), cuts, (count, cut) => {
      const all = [...Perplexity.spans(count, cut)]
      assert.strictEqual(Perplexity.spanCount(count, cut), all.length)
      const places = all.flatMap(({ from, start, to }) => Array.from({ length: to - from }, (_, i) => {
        assert.isAtMost(to - start, cut.window)
        assert.isAtLeast(from + i - start, Math.min(from + i, cut.window - cut.stride))
        return from + i
      }))
      assert.deepStrictEqual(places, Array.from({ length: count }, (_, place) => place))
    }))
  })
  it("is chunks where the stride is the window", () => {
    assert.deepStrictEqual([...Perplexity.spans(5, { window: 2, stride: 2 })], [
      { start: 0, from: 0, to: 2 }, { start: 2, from: 2, to: 4 }, { start: 4, from: 4, to: 5 }
    ])
    assert.deepStrictEqual([...Perplexity.spans(4, { window: 3, stride: 1 })], [
      { start: 0, from: 0, to: 3 }, { start: 1, from: 3, to: 4 }
    ])
  })
})

layer(Reference.layer)("Perplexity", (it) => {
  it.effect("is the mean of −log p, target by target in float64, for any window, stride and batch", () =>
    Effect.promise(() => fc.assert(fc.asyncProperty(
      fc.array(fc.stringMatching(/^[a-zé€🙂 ]{0,9}$/u), { minLength: 1, maxLength: 3 }), cuts,
      fc.integer({ min: 1, max: 3 }),
      (texts, { stride, window }, batchSize) => Effect.runPromise(Effect.scoped(Effect.gen(function*() {
        const store = TokenStore.fromTexts(["ab", ...texts], encoder)
        const { score } = yield* make({ window, stride, batchSize })
        const seen: Array<Perplexity.Progress> = []
        const found = yield* score(store, (progress) => Effect.sync(() => { seen.push(progress) }))
        const startOf = (place: number) => Math.max(0, Math.ceil((place - window + 1) / stride)) * stride
        const losses = yield* direct([...store.tokens], startOf)
        const bytes = sum(["ab", ...texts].map((text) => Buffer.byteLength(text)))
        assert.deepStrictEqual([found.tokenCount, found.byteCount], [losses.length, bytes])
        close(found.loss, sum(losses) / losses.length)
        close(found.perplexity, Math.exp(sum(losses) / losses.length))
        close(found.bitsPerByte, sum(losses) / Math.log(2) / bytes)
        const ends = seen.map(({ tokenCount }) => tokenCount)
        assert.deepStrictEqual(ends, [...new Set(ends)].sort((left, right) => left - right))
        assert.deepStrictEqual(seen.at(-1), { tokenCount: losses.length, loss: found.loss, total: losses.length })
        seen.forEach(({ loss, tokenCount }) => close(loss, sum(losses.slice(0, tokenCount)) / tokenCount))
      })).pipe(Effect.provide(Reference.layer)))
    ), { numRuns: 20 })))

  it.effect("is the loss of the windows of training where the stride is the window", () =>
    Effect.gen(function*() {
      const store = TokenStore.fromTexts(["the quick brown fox", "jumps"], encoder)
      const { score } = yield* make({ window: 4, stride: 4, batchSize: 3 })
      const losses = yield* direct([...store.tokens], (place) => 4 * Math.floor(place / 4))
      const numbers = Array.from({ length: Packing.windowCount(store, 4) }, (_, number) => number)
      assert.strictEqual(Packing.windows(store, 4, numbers).targetCount, losses.length)
      close((yield* score(store)).loss, sum(losses) / losses.length)
    }))

  it.effect("is the size of the vocabulary for a model that knows nothing", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const { score } = yield* make({ parameters: yield* backend.allocate(model.specification, {
        initial: (_, sizes) => new Float64Array(Object.values(sizes).reduce((count, size) => count * size, 1))
      }) })
      close((yield* score(TokenStore.fromTexts(["any text"], encoder))).perplexity, vocabSize)
    }))

  it.effect("reads the parameters as they are when it scores", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const cells = yield* parameters
      const { score } = yield* make({ parameters: cells })
      const store = TokenStore.fromTexts(["any text"], encoder)
      const before = yield* score(store)
      yield* backend.write(cells.head, new Float64Array(8 * vocabSize))
      close((yield* score(store)).perplexity, vocabSize)
      assert.notStrictEqual(before.perplexity, vocabSize)
    }))

  it.effect("reads frozen parameters as they are when it is made", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const cells = yield* parameters
      const [frozen, live] = [yield* make({ parameters: cells, frozen: true }), yield* make({ parameters: cells })]
      const store = TokenStore.fromTexts(["any text"], encoder)
      const before = yield* live.score(store)
      assert.deepStrictEqual(yield* frozen.score(store), before)
      yield* backend.write(cells.head, new Float64Array(8 * vocabSize))
      assert.deepStrictEqual(yield* frozen.score(store), before)
      assert.notStrictEqual((yield* live.score(store)).loss, before.loss)
    }))

  it.effect("refuses windows that cannot be, all faults at once", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(make({ window: 7, stride: 8, batchSize: 0 }))
      assert.strictEqual(error.message, [
        "perplexity: a text cannot be cut like this",
        "  window must be a whole number between 1 and the model's context, 6, got 7",
        "  stride must be a whole number between 1 and the window, 7, got 8: a longer one skips tokens",
        "  batchSize must be a whole number of at least 1, got 0"
      ].join("\n"))
      const none = yield* Effect.flip(make({ window: -1, stride: 1 })) // beside which no stride is right
      assert.match(none.message, /^perplexity: .*\n {2}window must .* got -1$/)
      for (const wrong of [{ window: 0 }, { stride: 0 }, { stride: 1.5 }, { window: NaN }]) {
        assert.strictEqual((yield* Effect.flip(make(wrong)))._tag, "WindowError")
      }
    }))

  it.effect("refuses tokens that the model does not have before it computes anything", () =>
    Effect.gen(function*() {
      const { score } = yield* make()
      const store = (last: number) =>
        TokenStore.fromTexts(["abcdef", "g"], { encode: (text) => text === "g" ? [last] : [1, 2, 3, 4, 5, 6],
          bosId: 0, vocabSize: 100 })
      const error = yield* Effect.flip(score(store(vocabSize), () => Effect.die("it computed")))
      if (error._tag !== "ForeignTokenError") return assert.fail(error.message)
      assert.deepStrictEqual([error.index, error.id, error.vocabSize], [8, vocabSize, vocabSize])
      assert.strictEqual((yield* score(store(vocabSize - 1))).tokenCount, 8)
    }))

  it.effect("refuses a text with nothing to foretell", () =>
    Effect.gen(function*() {
      const { score } = yield* make()
      const error = yield* Effect.flip(score(TokenStore.fromTexts([""], encoder)))
      assert.strictEqual(error.message, "perplexity: a text must have bytes, and a token after its first BOS; this " +
        "one has 0 bytes and 1 tokens with its BOS\n  Give a text that is not empty.")
      assert.strictEqual((yield* Effect.flip(score(TokenStore.fromTexts(["", ""], encoder))))._tag,
        "NothingToScoreError")
    }))

  it.effect("names the tokens whose loss is not finite", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const cells = yield* parameters
      const { embedding } = yield* backend.read(cells)
      // the letter j is token 7, and occurs once
      yield* backend.write(cells.embedding, Float64Array.from(embedding.elements, (value, i) =>
        Math.floor(i / 8) === 7 ? NaN : value))
      const { score } = yield* make({ parameters: cells, window: 4, stride: 4, batchSize: 1 })
      const error = yield* Effect.flip(score(TokenStore.fromTexts(["eeeeejee"], encoder)))
      assert.strictEqual(error.message, "perplexity: the loss of every token must be finite, and that of tokens 4 to " +
        "8 of the text is NaN\n  Usual cause: a training run that diverged, or damaged weights.")
      assert.isTrue(Result.isSuccess(yield* Effect.result(score(TokenStore.fromTexts(["eeee"], encoder)))))
    }))
})
