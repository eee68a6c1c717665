/**
 * The pretraining recipe on stories, thirty steps of it: a stream of events, and a folder with journal and snapshots.
 */
import { Backend, Config, Corpus, Journal, Pretrain, SnapshotStore, Tokenizer, TokenStore, Transformer } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, FileSystem, Layer, Stream } from "effect"

const model = Config.make({ vocabSize: 259, embedSize: 32, layerCount: 2, headCount: 4, contextLength: 64 })
const config: Pretrain.Config = {
  ...Pretrain.defaults,
  model, sequenceLength: 64, batchSize: 16, stepCount: 30, warmupSteps: 5, learningRate: 0.01,
  evaluateEvery: 15, snapshotEvery: 15
}

const main = Effect.gen(function*() {
  // Documents become tokens, in a part to train on and a part that only measures.
  const { documents } = yield* Corpus.Corpus
  const tokenizer = yield* Tokenizer.Tokenizer
  const data = yield* TokenStore.tokenize(documents, { ...tokenizer, validationShare: 0.1 })
  console.log(`${data.train.tokens.length} tokens to train on, ${data.validation.tokens.length} to measure with`)

  // What a snapshot records, so that a run which resumes elsewhere is told that its last bits may differ.
  const { capabilities, name, version } = yield* Backend.Backend
  const environment = {
    engine: { name, version }, cpu: { model: "this one", features: [] }, threadCount: capabilities.threads
  }

  const events = Pretrain.pretrain(config, { data, tokenizerHash: "bytes", environment, resume: "latest" })
  yield* Stream.runForEach(events, (event) => Effect.sync(() => {
    switch (event._tag) {
      case "Started":
        return console.log(`${event.parameterCount} parameters, from step ${event.step}`)
      case "Stepped": {
        const { gradientNorm, learningRate, loss, step } = event
        if (step % 5 > 0) return
        return console.log(`step ${step}: loss ${loss.toFixed(2)}, norm ${gradientNorm.toFixed(2)},`,
          `rate ${learningRate.toFixed(4)}`)
      }
      case "Evaluated":
        return console.log(`validation: loss ${event.loss.toFixed(2)}, ${event.bitsPerByte.toFixed(2)} bits a byte`)
      case "Saved":
        return console.log(`saved step ${event.step}, ${(event.bytes / 1e6).toFixed(1)} MB`)
    }
  }))

  // The same call resumes: the run is over, so there is nothing left to do.
  const resumed = yield* Stream.runCollect(
    Pretrain.pretrain(config, { data, tokenizerHash: "bytes", environment, resume: "latest" }))
  console.log("resumed:", [...resumed].map(({ _tag }) => _tag).join(", "))
})

/** Everything a run asks for; the folder is removed at the end, which a real run would not do. */
const layer = Layer.unwrap(Effect.map(
  Effect.flatMap(FileSystem.FileSystem, (files) => files.makeTempDirectoryScoped()),
  (folder) => Layer.mergeAll(
    Corpus.layerStories({ seed: 1, train: 400, validation: 40 }), Tokenizer.layerBytes, Transformer.layer,
    OnnxRuntime.layer(), Journal.layer().pipe(Layer.provideMerge(SnapshotStore.layer({ folder, keepLast: 2 })))
  )
))

await Effect.runPromise(main.pipe(Effect.provide(layer), Effect.scoped, Effect.provide(NodeServices.layer)))

/* Prints:
213788 tokens to train on, 20128 to measure with
74080 parameters, from step 0
step 5: loss 4.79, norm 1.35, rate 0.0100
step 10: loss 3.47, norm 0.88, rate 0.0091
step 15: loss 3.06, norm 0.59, rate 0.0069
validation: loss 3.09, 4.46 bits a byte
saved step 15, 0.9 MB
step 20: loss 2.98, norm 0.47, rate 0.0041
step 25: loss 2.80, norm 0.42, rate 0.0019
step 30: loss 2.81, norm 0.41, rate 0.0010
validation: loss 2.80, 4.05 bits a byte
saved step 30, 0.9 MB
resumed: Started
*/
