/**
 * `cria pretrain`: trains a tokenizer and a model on text, or goes on with a run that was stopped.
 *
 * Checked  test/cli/PretrainCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Result from "effect/Result"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Corpus from "../data/Corpus.ts"
import * as BackendChoice from "./BackendChoice.ts"
import * as Estimate from "./Estimate.ts"
import { backend, count, FlagConflictError, given, pathFlag, switched, textFlag } from "./Flags.ts"
import * as Host from "./Host.ts"
import * as Pretrained from "./Pretrained.ts"
import * as RunFolder from "./RunFolder.ts"
import * as Screen from "./Screen.ts"
import * as Settings from "./Settings.ts"
import * as Training from "./Training.ts"
import * as Verification from "./Verification.ts"

/** The flags that are settings too, by their key. */
const settingFlags = {
  text: pathFlag("text").pipe(
    Flag.withMetavar("PATH"),
    Flag.withDescription(
      "What to learn from: a text file, a .jsonl file, a folder of them, or a pattern; may be given more than once. " +
        "Without it: small stories that Cria makes up."
    ),
    Flag.atLeast(0)
  ),
  out: given(pathFlag("out"), "FOLDER", "The folder of the run; by default the first free of runs/stories, " +
    "runs/stories-2, … (with --text: runs/NAME)"),
  from: given(pathFlag("from"), "PATH", "Train the model of a checkpoint on, with its sizes and its tokenizer: a " +
    "run, or what cria import made of another"),
  preset: given(Flag.Literals("preset", Settings.presetNames), "NAME", "The model to begin from, which the sizes " +
    "below change; 1M by default"),
  embedSize: count("embed-size", "Width of the model"),
  layerCount: count("layer-count", "Number of blocks"),
  headCount: count("head-count", "Query heads of a block"),
  kvHeadCount: count("kv-head-count", "Key and value heads of a block, a divisor of the query heads"),
  headSize: count("head-size", "Width of a head; the width of the model / query heads by default"),
  hiddenSize: count("hidden-size", "Width of the feed-forward layer; follows from the width of the model"),
  contextLength: count("context-length", "The longest sequence the model will take"),
  vocabSize: count("vocab-size", "Pieces of the tokenizer; the preset's by default (1M: 1024)"),
  steps: count("steps", `Updates of the parameters; ${Settings.defaults.steps} by default`),
  batchSize: count("batch-size", `Sequences of a step; ${Settings.defaults.batchSize} by default`),
  sequenceLength: count("sequence-length", "Tokens of a sequence; 256 by default, or the context if that is shorter"),
  microBatches: count("micro-batches", "Parts that a batch is computed in, for less memory; no choice changes the " +
    "result beyond rounding; 1 by default"),
  learningRate: given(Flag.Finite("learning-rate"), "RATE", "The peak of the schedule; " +
    `${Settings.defaults.learningRate} by default`),
  warmup: count("warmup", "Steps of rising learning rate before the cosine; steps / 20 by default"),
  weightDecay: given(Flag.Finite("weight-decay"), "SHARE", "Decay of the matrices; 0.1 by default"),
  evaluateEvery: count("evaluate-every", "Steps between validations; steps / 6 by default"),
  snapshotEvery: count("snapshot-every", "Steps between snapshots; steps / 6 by default"),
  keep: count("keep", "How many of the last snapshots are kept, besides the best; 3 by default"),
  validationShare: given(Flag.Finite("validation-share"), "SHARE", "The share of the text that only measures; 0.1 by " +
    "default"),
  seed: given(Flag.Int("seed"), "NUMBER", "Everything random follows from it; 0 by default"),
  threads: count("threads", "Threads that compute; the cores of this machine by default"),
  backend: backend("by default the fastest of them"),
  prompt: given(textFlag("prompt"), "TEXT", "What the trained model continues at the end")
} as const satisfies Record<Settings.Key, Flag.Flag<unknown>>

const flags = {
  settings: settingFlags,
  config: given(pathFlag("config"), "FILE", "A JSON file with settings, named as the flags are: " +
    "{ \"batchSize\": 16 }; flags win over it. A run's configuration.json is one"),
  resume: switched("resume", "Go on with the run in the folder from its newest snapshot, as if it had never stopped"),
  resumeIntact: switched("resume-intact", "The same from the newest snapshot that is undamaged"),
  verifyResume: switched("verify-resume", "Train nothing new: replay the run from its last snapshot but one to its " +
    "last, and compare every bit"),
  dryRun: switched("dry-run", "Say what the run would be (parameters, memory, tokens, time) and whether its folder, " +
    "text and vocabulary allow it, and do nothing")
}

/** Settings of a run that goes on: those in its folder, changed by flags; the recipe refuses changes that matter. */
const settingsOf = Effect.fnUntraced(function*(
  folder: string | undefined, config: Option.Option<string>, fromFlags: Settings.Settings
) {
  const path = yield* Path.Path
  const kept = folder === undefined ? {} : yield* Settings.read(path.join(folder, RunFolder.configurationName))
  const fromFile = Option.isNone(config) ? {} : yield* Settings.read(config.value)
  return { ...kept, ...fromFile, ...fromFlags }
})

/** The most text that is read before a run is run. */
const rehearsedBytes = 64e6

/** Says what a run would be, and then what would stop it: its text and vocabulary are tried, if it is surely short. */
const rehearse = Effect.fnUntraced(function*(screen: Screen.Screen, options: Training.Options) {
  const { bytes } = yield* Corpus.Corpus
  const isRead = bytes !== undefined && bytes <= rehearsedBytes
  const data = yield* Effect.result(isRead ? Training.dataOf(screen, options) : Effect.undefined)
  yield* Estimate.show(screen, options, Result.getOrUndefined(data)?.train.tokens.length)
  if (!isRead) {
    yield* screen.print(`The text was not read, for ${bytes === undefined
      ? "some of it is compressed, and its length unknown"
      : `it has more than ${Screen.quantity(rehearsedBytes, "B")}`}.`)
  }
  yield* Effect.fromResult(data)
  yield* Estimate.requireMemory(options, Host.memory())
})

/** The command. */
export const command = Command.make("pretrain", flags, Effect.fnUntraced(function*(
  { config, dryRun, resume, resumeIntact, settings, verifyResume }
) {
  const switches = { "--resume": resume, "--resume-intact": resumeIntact, "--verify-resume": verifyResume }
  const wanted = Object.entries(switches).flatMap(([flag, isGiven]) => isGiven ? [flag] : [])
  if (wanted.length > 1) return yield* new FlagConflictError({ flags: wanted })
  const isOld = wanted.length === 1
  const { text, ...single } = settings
  const chosen = Object.entries<Option.Option<unknown>>(single)
    .flatMap(([key, value]) => Option.isSome(value) ? [[key, value.value]] : [])
  const fromFlags = yield* Effect.fromResult(
    Settings.parse("flags", { ...text.length === 0 ? {} : { text }, ...Object.fromEntries(chosen) })
  )
  const merged = yield* settingsOf(undefined, config, fromFlags)
  const found = yield* RunFolder.find(yield* RunFolder.nameOf(merged.text ?? []))
  const folder = merged.out ?? (isOld ? found.last ?? found.free : found.free)
  yield* isOld ? RunFolder.require(folder) : RunFolder.requireFree(folder)
  const all = isOld ? yield* settingsOf(folder, config, fromFlags) : yield* Pretrained.withSizes(merged)
  yield* BackendChoice.requireThreads(all.threads)
  const unasked = all.backend === undefined ? yield* BackendChoice.fastest(all.threads) : undefined
  const files = [...isOld ? [RunFolder.configurationName] : [], ...Option.toArray(config)]
  const complete = yield* Effect.fromResult(Settings.complete(
    [...files, ...files.length === 0 ? ["flags"] : ["the flags"]].join(" and "),
    unasked === undefined ? all : { ...all, backend: unasked }
  ))
  const screen = yield* Screen.make
  if (unasked !== undefined) {
    yield* screen.print(`backend    ${unasked}, the fastest that starts here: cria doctor compares them`)
  }
  const corpus = Training.corpusLayer(complete.settings.text)
  const backend = BackendChoice.layer(complete.settings.backend, complete.settings.threads)
  const from = isOld ? resumeIntact ? "latestIntact" : "latest" : "never"
  const options = { ...complete, folder, resume: from } as const
  if (dryRun) return yield* rehearse(screen, options).pipe(Effect.provide([corpus, backend]))
  yield* Estimate.requireMemory(complete, Host.memory())
  if (verifyResume) return yield* Verification.show(screen, options).pipe(Effect.provide([corpus, backend]))
  if (!isOld && merged.out === undefined && found.last !== undefined) {
    yield* screen.print(`${found.last} holds a run already (--resume goes on with it); this one goes to ${folder}`)
  }
  yield* Training.run(screen, options).pipe(Effect.provide([corpus, backend]))
}, Effect.scoped)).pipe(
  Command.withShortDescription("Train a model on text, from scratch"),
  Command.withDescription(
    "Trains a tokenizer and a Llama on text, from scratch: by default a model of a million parameters on small " +
      "stories, in about two minutes on two cores. Everything goes to one folder; a run that was stopped (Ctrl-C, a " +
      "crash, a power cut) goes on with --resume and ends with the same bits."
  ),
  Command.withExamples([
    { command: "cria pretrain", description: "Learn the embedded stories, and continue one" },
    { command: "cria pretrain --text shakespeare.txt --steps 1000", description: "Learn a text of yours" },
    { command: "cria pretrain --text \"books/**/*.txt\" --preset 24M --micro-batches 4 --out runs/books",
      description: "A larger model on many files, computed in parts to save memory" },
    { command: "cria pretrain --from runs/books --text letters.txt",
      description: "Go on with its model on another text" },
    { command: "cria pretrain --resume --out runs/books", description: "Go on with it" },
    { command: "cria pretrain --text \"books/**/*.txt\" --preset 24M --dry-run",
      description: "See what a run would take and what would stop it, without running it" }
  ])
)
