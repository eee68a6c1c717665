/**
 * Parity with Hugging Face: how a tiny random Llama foretells texts, in windows that overlap and do not, and an answer
 * to a prompt. The fixture was made by make/perplexity.py.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer, Stream } from "effect"
import { fileURLToPath } from "node:url"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as TokenStore from "../../src/data/TokenStore.ts"
import * as Perplexity from "../../src/evaluate/Perplexity.ts"
import * as Scoring from "../../src/generate/Scoring.ts"
import * as Checkpoint from "../../src/llama/Checkpoint.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"

interface Expected {
  readonly texts: ReadonlyArray<string>
  readonly cases: ReadonlyArray<Perplexity.Cut & Perplexity.Score & { readonly documents: number }>
  readonly continuation: { readonly prompt: string; readonly answer: string; readonly logProbs: ReadonlyArray<number> }
}

const folder = fileURLToPath(new URL("perplexity", import.meta.url))

/** Hugging Face computes angles and losses in float32. */
const tolerance = 1e-6

const close = (found: number, expected: number): void =>
  assert.closeTo(found, expected, tolerance * Math.max(1, Math.abs(expected)))

const opened = Effect.gen(function*() {
  const checkpoint = yield* Checkpoint.open(folder)
  const model = Transformer.llama(checkpoint.config)
  const parameters = yield* Effect.flatMap(Backend, (backend) =>
    backend.allocate(Specification.zeros(model.specification)))
  yield* Checkpoint.load(checkpoint, parameters)
  const text = yield* Effect.flatMap(FileSystem.FileSystem, (files) => files.readFileString(`${folder}/expected.json`))
  return { model, parameters, expected: JSON.parse(text) as Expected, codec: yield* Tokenizer.Tokenizer }
})

layer(Layer.mergeAll(Reference.layer, Tokenizer.layerBytes, NodeServices.layer))("a model of transformers", (it) => {
  it.effect("foretells texts as it does there: loss, perplexity and bits per byte, in any windows", () =>
    Effect.gen(function*() {
      const { codec, expected, model, parameters } = yield* opened
      for (const { documents, stride, window, ...score } of expected.cases) {
        const store = TokenStore.fromTexts(expected.texts.slice(0, documents), codec)
        const { score: measured } = yield* Perplexity.make({ model, parameters, window, stride, batchSize: 4 })
        const found = yield* measured(store)
        assert.deepStrictEqual([found.tokenCount, found.byteCount], [score.tokenCount, score.byteCount])
        close(found.loss, score.loss)
        close(found.perplexity, score.perplexity)
        close(found.bitsPerByte, score.bitsPerByte)
      }
      const losses = new Set(expected.cases.map(({ loss }) => loss.toFixed(4)))
      assert.strictEqual(losses.size, expected.cases.length) // windows matter here far more than the tolerance
    }))

  it.effect("gives an answer the log-probabilities that it has there, token by token", () =>
    Effect.gen(function*() {
      const { codec, expected: { continuation }, model, parameters } = yield* opened
      const prompt = codec.encodeSegments([Tokenizer.bos, continuation.prompt])
      const all = codec.encodeSegments([Tokenizer.bos, continuation.prompt + continuation.answer])
      const scorer = yield* Scoring.make({ model, parameters, blockLength: 8 })
      const [score] = yield* Stream.runCollect(
        scorer.score(Stream.make({ item: 0, prompt, answer: all.slice(prompt.length) })))
      assert.strictEqual(score!.modelLogProbs.length, continuation.logProbs.length)
      continuation.logProbs.forEach((logProb, i) => close(score!.modelLogProbs[i]!, logProb))
    }))
})
