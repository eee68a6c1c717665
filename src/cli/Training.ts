/**
 * A pretraining run as a person watches it: corpus, tokenizer, tokens, training, curve, continuation.
 *
 * Checked  test/cli/PretrainCommand.test.ts, test/story/Resume.test.ts.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Stream from "effect/Stream"
import { Backend } from "../backend/Backend.ts"
import { matmulRate } from "../backend/MatmulRate.ts"
import * as Corpus from "../data/Corpus.ts"
import * as Split from "../data/Split.ts"
import * as TokenStore from "../data/TokenStore.ts"
import { sampling } from "../generate/Sampling.ts"
import * as Transformer from "../llama/Transformer.ts"
import * as Hash from "../random/Hash.ts"
import * as Pretrain from "../recipe/Pretrain.ts"
import * as Journal from "../store/Journal.ts"
import * as Snapshot from "../store/Snapshot.ts"
import * as SnapshotStore from "../store/SnapshotStore.ts"
import * as EncodingWorkers from "../token/EncodingWorkers.ts"
import type { Model } from "../token/SentencePiece.ts"
import type { Codec } from "../token/Tokenizer.ts"
import * as Tokenizer from "../token/Tokenizer.ts"
import * as Trainer from "../token/Trainer.ts"
import { continuation } from "./Continuation.ts"
import * as Host from "./Host.ts"
import * as LossCurve from "./LossCurve.ts"
import * as Pretrained from "./Pretrained.ts"
import * as RunFolder from "./RunFolder.ts"
import * as Screen from "./Screen.ts"
import type { Complete } from "./Settings.ts"

/** The embedded stories that a run without text learns from. */
export const stories = { seed: 1, train: 12_000, validation: 200 }

/** The corpus of a list of paths; the stories of an empty one. */
export const corpusLayer = (text: ReadonlyArray<string>) =>
  text.length === 0 ? Corpus.layerStories(stories) : Corpus.layerFiles(text)

/** What a run is, besides its settings. */
export interface Options extends Complete {
  readonly folder: string
  readonly resume: Pretrain.Origin["resume"]
}

/** What manifests know a tokenizer by. */
export const hashOf = ({ bytes }: Model): string => Hash.toHex(Hash.ofBytes(bytes))

const withCodec = (model: Model) =>
  Effect.map(Effect.fromResult(Tokenizer.fromModel(model)), (codec) => ({ codec, model }))

/** Trains the tokenizer of a new run on the training part, or loads that of the run that goes on. */
export const tokenizerOf = Effect.fnUntraced(function*(
  screen: Screen.Screen, { folder, resume, settings: { from, validationShare, vocabSize } }: Options
) {
  const path = yield* Path.Path
  const { documents } = yield* Corpus.Corpus
  const file = path.join(folder, RunFolder.tokenizerName)
  if (resume !== "never") {
    yield* screen.print(`tokenizer  ${file}`)
    return yield* Effect.flatMap(Tokenizer.loadModel(file), withCodec)
  }
  if (from !== undefined) {
    yield* screen.print(`tokenizer  that of ${from}`)
    return yield* Effect.flatMap(Effect.scoped(Pretrained.tokenizerOf(from)), withCodec)
  }
  yield* screen.status(`tokenizer  learning ${vocabSize} pieces …`)
  const began = yield* Clock.monotonicTimeNanos
  const texts = documents.pipe(
    Stream.filter((document) => Split.part(document, validationShare) === "train"),
    Stream.map(({ text }) => text)
  )
  const trainer = Trainer.llama(vocabSize)
  const { model, statistics } = yield* Trainer.train(texts, trainer)
  const seconds = Number((yield* Clock.monotonicTimeNanos) - began) / 1e9
  yield* screen.print(
    `tokenizer  ${vocabSize} pieces from ${Screen.quantity(statistics.words)} words in ${seconds.toFixed(1)} s`
  )
  const { linesReserved, linesTooLong } = statistics
  if (linesTooLong > 0) {
    const limit = trainer.maxSentenceLength
    yield* screen.print(`           not from ${linesTooLong} lines longer than ${limit} bytes; the ` +
      "model learns from them all the same, and the tokenizer too once they are broken")
  }
  if (linesReserved > 0) {
    yield* screen.print(`           not from ${linesReserved} lines with ▅ (U+2585), which training keeps for what ` +
      "is rare; the model learns from them all the same")
  }
  return yield* withCodec(model)
})

/** The tokens of the corpus; of a large one on all cores, to the same ids. */
export const tokensOf = Effect.fnUntraced(function*(
  screen: Screen.Screen, { codec, model }: { readonly codec: Codec; readonly model: Model }, validationShare: number
) {
  const corpus = yield* Corpus.Corpus
  const workerCount = Host.cores()
  const isLarge = corpus.bytes !== undefined && corpus.bytes >= EncodingWorkers.leastCharacters
  const data = yield* TokenStore.tokenize(corpus.documents, {
    ...codec,
    ...isLarge && workerCount > 1 ? { encodeMany: yield* EncodingWorkers.make(model, { workerCount }) } : {},
    validationShare,
    onProgress: ({ bytes, tokens }) => screen.status(
      `tokens     ${corpus.bytes === undefined ? "" : `${Screen.bar(bytes / corpus.bytes, 20)} `}` +
        `${Screen.quantity(tokens)} tokens of ${Screen.quantity(bytes, "B")}`)
  })
  const { train, validation } = data
  const bytesPerToken = (train.bytes + validation.bytes) / (train.tokens.length + validation.tokens.length)
  yield* screen.print(
    `tokens     ${Screen.quantity(train.tokens.length)} to learn from, ` +
      `${Screen.quantity(validation.tokens.length)} to measure on (${bytesPerToken.toFixed(2)} bytes a token)`
  )
  return data
}, Effect.scoped)

/** The tokens of a run, by its tokenizer. */
export const dataOf = Effect.fnUntraced(function*(screen: Screen.Screen, options: Options) {
  return yield* tokensOf(screen, yield* tokenizerOf(screen, options), options.settings.validationShare)
})

/** Shows the events of a run. */
const shower = (screen: Screen.Screen, { config }: Options) => {
  const state = { first: 0, began: 0n, validation: "" }
  const every = Math.max(1, Math.round(config.stepCount / 20))
  return Effect.fnUntraced(function*(event: Pretrain.Event) {
    switch (event._tag) {
      case "Started": {
        state.first = event.step
        state.began = yield* Clock.monotonicTimeNanos
        const from = event.step === 0 ? "" : `, from step ${event.step}`
        yield* screen.print(
          `training   ${Screen.quantity(event.parameterCount)} parameters, ${config.stepCount} steps of ` +
            `${config.batchSize} × ${config.sequenceLength} tokens${from}`
        )
        for (const { damages, path } of event.passedOver) {
          const files = damages.map(({ file }) => file).join(", ")
          yield* screen.print(`           ${path} was damaged (${files}) and is removed: its steps are trained again`)
        }
        for (const { field, here, saved } of event.differences) {
          yield* screen.print(`           the last bits may differ: ${field} was ${saved}, is ${here}`)
        }
        return
      }
      case "Stepped": {
        const { loss, step, tokensPerSecond } = event
        const elapsed = Number((yield* Clock.monotonicTimeNanos) - state.began) / 1e9
        const left = elapsed / (step - state.first) * (config.stepCount - step)
        const line = (validation: string) =>
          `step ${String(step).padStart(String(config.stepCount).length)}/${config.stepCount}  loss ` +
          `${loss.toFixed(3)}${validation}  ${Screen.quantity(tokensPerSecond)} tokens/s  ${Screen.duration(left)} left`
        yield* screen.status(`${Screen.bar(step / config.stepCount, 20)} ${line(state.validation)}`)
        if (!screen.isTerminal && (step % every === 0 || step === 1)) yield* screen.print(line(""))
        return
      }
      case "Evaluated": {
        state.validation = `  val ${event.loss.toFixed(3)} (${event.bitsPerByte.toFixed(3)} bits/byte)`
        return yield* screen.print(`step ${event.step}: validation loss ${event.loss.toFixed(4)}, ` +
          `${event.bitsPerByte.toFixed(4)} bits per byte`)
      }
      case "Saved":
        return yield* screen.print(`step ${event.step}: saved ${event.path} (${Screen.quantity(event.bytes, "B")})`)
    }
  })
}

/** Draws the losses of a run. */
const drawCurve = Effect.fnUntraced(function*(screen: Screen.Screen, folder: string) {
  const path = yield* Path.Path
  const { entries } = yield* Journal.read(path.join(folder, "journal.jsonl"))
  const curves = {
    training: LossCurve.pointsOf(entries, "loss"), validation: LossCurve.pointsOf(entries, "val/loss")
  }
  yield* screen.print(`\n${LossCurve.draw(curves, { columns: Math.min(screen.columns, 80) - 1, rows: 12 })}`)
})

/** Continues a prompt with the newest snapshot of a run. */
const showContinuation = Effect.fnUntraced(function*(screen: Screen.Screen, folder: string, prompt: string) {
  const newest = yield* Snapshot.latest(folder)
  if (Option.isNone(newest)) return
  yield* screen.print("\ncontinued (what follows the bar is the model's):\n")
  yield* screen.write(`${prompt}│`)
  const options = { prompt, maximumTokens: 200, rule: sampling({ temperature: 0.7, topP: 0.95 }), seed: 0 }
  yield* Stream.runForEach(continuation(newest.value.path, options), ({ text }) => screen.write(text))
  yield* screen.print("")
})

/** Trains: everything between the settings and the curve. */
const learn = Effect.fnUntraced(function*(screen: Screen.Screen, options: Options) {
  const { config, folder, resume, settings } = options
  const corpus = yield* Corpus.Corpus
  yield* screen.print(`text       ${corpus.name}`)
  const learnLocked = Effect.gen(function*() {
    if (resume === "never") yield* RunFolder.requireFree(folder) // once more, now that the folder is locked
    const { codec, model } = yield* tokenizerOf(screen, options)
    const data = yield* tokensOf(screen, { codec, model }, settings.validationShare)
    yield* screen.status("engine     measuring …")
    const isFast = settings.backend !== "reference"
    const rate = yield* matmulRate(isFast ? { size: 1024, seconds: 1 } : { size: 64, seconds: 0.1 })
    const environment = yield* Host.environment
    const { engine, threadCount } = environment
    yield* screen.print(
      `engine     ${Host.named(engine)}, ${threadCount} thread${threadCount === 1 ? "" : "s"}, ` +
        Screen.quantity(rate, "FLOP/s")
    )
    if (resume === "never") yield* RunFolder.write(folder, settings, model)
    yield* screen.print(`folder     ${folder}`)
    const begin = yield* Pretrained.initialOf(settings)
    const origin = { data, tokenizerHash: hashOf(model), environment, resume, matmulRate: rate, ...begin }
    yield* Stream.runForEach(Pretrain.pretrain(config, origin), shower(screen, options)).pipe(
      Effect.provide(Journal.layer())
    )
    return model
  })
  // opening the store locks the folder, before anything is computed
  return yield* Effect.provide(learnLocked, SnapshotStore.layer({ folder, keepLast: settings.keep }))
})

/** Says what an interrupted run has saved, what it could not save, and how to go on. */
const tellStopped = Effect.fnUntraced(function*(screen: Screen.Screen, folder: string, cause: Cause.Cause<unknown>) {
  const newest = yield* Effect.orElseSucceed(Snapshot.latest(folder), Option.none)
  yield* screen.print(Option.isNone(newest)
    ? "\nstopped; nothing is saved yet"
    : `\nstopped; step ${newest.value.step} is saved. Go on with: cria pretrain --resume --out ${folder}`)
  for (const reason of cause.reasons) {
    const error = Cause.isDieReason(reason) ? reason.defect : Cause.isFailReason(reason) ? reason.error : undefined
    if (error instanceof Error) yield* Console.error(`error: ${error.message}`)
  }
})

/** Runs it all. Interrupted, it says how to go on; the recipe has saved the last step by then. */
export const run = Effect.fnUntraced(function*(screen: Screen.Screen, options: Options) {
  const { folder, settings } = options
  const backend = yield* Backend
  const model = yield* Effect.scoped(learn(screen, options)).pipe(
    RunFolder.leavingNothingEmpty(folder),
    Effect.onExit((exit) =>
      Exit.isFailure(exit) && Exit.hasInterrupts(exit) ? tellStopped(screen, folder, exit.cause) : Effect.void)
  )
  yield* drawCurve(screen, folder)
  yield* showContinuation(screen, folder, settings.prompt).pipe(
    Effect.provide(Tokenizer.layerModel(model)), Effect.provideService(Backend, backend)
  )
}, Effect.provide(Transformer.layer))
