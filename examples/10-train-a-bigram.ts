/**
 * The smallest language model: a table of which character follows which, trained by gradients to what counting gives.
 */
import {
  AdamW, Backend, Batches, CrossEntropy, Key, Mask, Specification, Stories, Tensor as T, Tokenizer, TokenStore,
  TrainStep
} from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect, Result } from "effect"

const bytes = Result.getOrThrow(Tokenizer.fromModel(Tokenizer.bytesModel)) // one id a byte: nothing to train
const store = TokenStore.fromTexts(Array.from({ length: 300 }, (_, i) => Stories.story(1, "train", i)), bytes)
const { tokens, vocabSize } = store

/** How often each token follows each. */
const counts = new Float64Array(vocabSize * vocabSize)
for (let i = 1; i < tokens.length; i++) counts[tokens[i - 1]! * vocabSize + tokens[i]!]! += 1
const row = (table: Backend.Elements, id: number) => Array.from(table.subarray(id * vocabSize, (id + 1) * vocabSize))
const sum = (numbers: ReadonlyArray<number>) => numbers.reduce((total, x) => total + x, 0)

/** No table can do better on these tokens than the shares that were counted. */
const least = sum(Array.from({ length: vocabSize }, (_, id) => {
  const following = row(counts, id)
  return -sum(following.map((count) => count === 0 ? 0 : count * Math.log(count / sum(following))))
})) / (tokens.length - 1)

const size = { batchSize: 64, length: 64 }
const batches = Batches.make(store, { key: Key.make("bigram"), ...size })
const axes = { batch: size.batchSize, position: size.length }

const main = Effect.gen(function*() {
  const train = yield* TrainStep.make({
    name: "bigram",
    inputs: {
      ids: Specification.ids(axes), targets: Specification.ids(axes), mask: Specification.real(axes),
      count: Specification.real({})
    },
    // A token and the token after it are two axes of one size: two axes of one tensor never share a name.
    parameters: { table: Specification.real({ before: vocabSize, vocab: vocabSize }) },
    optimizer: AdamW.adamW({ weightDecay: 0 }),
    loss: ({ table }, { count, ids, mask, targets }) => {
      const logits = T.take(table, "before", ids)
      return { loss: Mask.maskedMean(CrossEntropy.tokenCrossEntropy(logits, targets), mask, count), outputs: {} }
    },
    initial: () => undefined // the table begins at zero: every token is as likely as any
  })
  for (let step = 1; step <= 120; step++) {
    const { ids, mask, targetCount: count, targets } = Batches.at(batches, step - 1)
    const microBatches = [{ ids, targets, mask, count }]
    const { loss } = yield* train.run({ step, learningRate: 0.3 * (1 - step / 121), microBatches })
    if (step === 1 || step % 40 === 0) console.log(`step ${String(step).padStart(3)}  loss ${loss.toFixed(2)}`)
  }
  console.log(`counting gives ${least.toFixed(2)}`)

  const backend = yield* Backend.Backend
  const { table } = yield* backend.read(train.parameters)
  for (const text of ["q", "T", "."]) {
    const id = bytes.encode(text)[0]!
    const scores = row(table.elements, id).map(Math.exp)
    const best = scores.indexOf(Math.max(...scores))
    const [learned, counted] = [scores[best]! / sum(scores), row(counts, id)[best]! / sum(row(counts, id))]
    console.log(`after ${JSON.stringify(text)} comes ${JSON.stringify(bytes.decode([best]))},`,
      `learned ${learned.toFixed(2)}, counted ${counted.toFixed(2)}`)
  }
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))

/* Prints:
step   1  loss 5.56
step  40  loss 2.34
step  80  loss 2.30
step 120  loss 2.29
counting gives 2.29
after "q" comes "u", learned 0.99, counted 1.00
after "T" comes "h", learned 0.85, counted 0.85
after "." comes " ", learned 0.66, counted 0.66
*/
