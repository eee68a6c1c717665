/**
 * Many answers to many prompts: slots that are filled as they become free, four candidates of each prompt from one
 * computation of it, the best by a reward, and the log-probabilities of all of them once more.
 */
import {
  Answer, Backend, Config, Decoder, Initialization, Key, type Request, Sampling, Scoring, Tokenizer, Transformer
} from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect, Layer, Stream } from "effect"

const model = Transformer.llama(Config.make({
  vocabSize: 259, embedSize: 32, layerCount: 2, headCount: 4, contextLength: 64
}))

/** What answers are judged by here: how many of their characters are letters. */
const reward = (text: string): number => [...text].filter((character) => /[a-z]/i.test(character)).length

const main = Effect.gen(function*() {
  const backend = yield* Backend.Backend
  const tokenizer = yield* Tokenizer.Tokenizer
  const initial = Initialization.draws(Key.make(7), model.specification)
  const parameters = yield* backend.allocate(model.specification, { initial })

  // A stream of prompts may be of any length: each is pulled when there is a slot for it.
  const promptOf = (item: number) => tokenizer.encodeSegments([Tokenizer.bos, `Question ${item}: `])
  const prompts = Stream.map(Stream.range(0, 24), (item): Request.Prompt => ({ item, ids: promptOf(item) }))

  const rule = Sampling.sampling({ temperature: 1.2, topP: 0.95 })
  const settings = { candidates: 4, maximumTokens: 30, rule, key: Key.derive(Key.make(7), "example"), stopTexts: ["e"] }
  const decoder = yield* Decoder.make({ model, parameters, slots: 8 })
  const answers = yield* Stream.runCollect(Answer.answers(decoder.generateFrom(prompts, settings)))
  const reasons = new Map<string, number>()
  for (const { reason } of answers) reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
  console.log(`${answers.length} answers, ended by`, Object.fromEntries([...reasons].sort()))

  // Answers come as they end, with the place that they belong to. The best of each prompt's four:
  for (const item of [0, 1, 2]) {
    const own = answers.filter((answer) => answer.item === item).toSorted((a, b) => reward(b.text) - reward(a.text))
    const [best] = own
    const rewards = own.map(({ text }) => reward(text)).join(" ")
    console.log(`prompt ${item}: rewards ${rewards}, best candidate ${best?.candidate}`)
  }

  // An answer drawn alone, in the only slot of another decoder, is the same: draws belong to item and candidate.
  const one = yield* Decoder.make({ model, parameters })
  const alone = yield* Answer.collect(one.generateFrom(Stream.make({ item: 17, ids: promptOf(17) }), settings))
  const same = alone.every(({ candidate, text }) =>
    answers.some((answer) => answer.item === 17 && answer.candidate === candidate && answer.text === text))
  console.log("prompt 17, drawn alone, gives the same four:", same)

  // Scoring computes all tokens of an answer at once: under the rule that drew them, and under the model itself.
  const scorer = yield* Scoring.make({ model, parameters, slots: 8, rule })
  const given = Stream.map(Stream.fromIterable(answers), ({ ids, item }): Scoring.Continuation =>
    ({ item, prompt: promptOf(item), answer: ids }))
  const scores = yield* Stream.runCollect(scorer.score(given))
  const gaps = scores.flatMap(({ logProbs }, i) =>
    logProbs.map((logProb, t) => Math.abs(logProb - answers[i]!.logProbs[t]!)))
  console.log("largest gap between drawn and scored log-probabilities below 1e-4:", Math.max(...gaps) < 1e-4)
})

const layer = Layer.merge(OnnxRuntime.layer(), Tokenizer.layerBytes)
await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(layer)))

/* Prints:
100 answers, ended by { id: 10, maximum: 83, text: 7 }
prompt 0: rewards 7 6 5 4, best candidate 1
prompt 1: rewards 8 6 4 3, best candidate 2
prompt 2: rewards 9 5 3 3, best candidate 3
prompt 17, drawn alone, gives the same four: true
largest gap between drawn and scored log-probabilities below 1e-4: true
*/
