// @ts-check
/**
 * What a decoder does to the program around it: the time to the first token, and the longest time for which the event
 * loop has no turn while prompts are computed and continued.
 */
import { Decoder, Key, Sampling, SentencePiece, Tokenizer } from "cria"
import { Effect, Result, Stream } from "effect"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { median } from "./workload.mjs"

/** As many pieces as a model has tokens: bytes, and pieces that no text has. */
const pieces = (/** @type {number} */ vocabSize) => {
  const { normalizer, pieces, trainer } = Tokenizer.bytesModel
  const unused = Array.from({ length: vocabSize - pieces.length }, (_, i) =>
    /** @type {const} */ ({ text: `<unused ${i}>`, score: 0, type: "unused" }))
  return Result.getOrThrow(SentencePiece.make([...pieces, ...unused], { ...trainer, vocabSize }, normalizer))
}

const tokenCount = 32

/** Prints both for so many prompts of a length, continued by 32 tokens: the median of some rounds, and the least. */
export const pauses = (
  /** @type {any} */ options, /** @type {number} */ slots, /** @type {number} */ length, /** @type {number} */ rounds
) => Effect.gen(function*() {
  const decoder = yield* Decoder.make({ ...options, slots, contextLength: length + tokenCount, frozen: true })
  const prompts = Array.from({ length: slots }, (_, i) =>
    Int32Array.from({ length }, (_, j) => j === 0 ? 1 : 1 + (7 * j + 13 * i) % 31_000))
  const delay = monitorEventLoopDelay({ resolution: 1 })
  const [firsts, longest] = [/** @type {Array<number>} */ ([]), /** @type {Array<number>} */ ([])]
  for (let round = 0; round < rounds; round++) {
    delay.enable()
    delay.reset()
    const began = performance.now()
    let first = NaN
    yield* Stream.runForEach(
      decoder.generate({
        prompts, maximumTokens: tokenCount, rule: Sampling.greedy, key: Key.make(round), stopIds: []
      }),
      () => Effect.sync(() => { if (Number.isNaN(first)) first = performance.now() - began })
    )
    delay.disable()
    firsts.push(first)
    longest.push(delay.max / 1e6)
  }
  const tell = (/** @type {ReadonlyArray<number>} */ times) =>
    `${median(times).toFixed(1)} ms (least ${Math.min(...times).toFixed(1)})`
  console.log(`${slots === 1 ? "one prompt" : `${slots} prompts`} of ${length}: first token after ${tell(firsts)}, ` +
    `longest pause of the event loop ${tell(longest)}`)
}).pipe(Effect.scoped, Effect.provide(Tokenizer.layerModel(pieces(options.model.config.vocabSize))))
