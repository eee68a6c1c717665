/**
 * The settings of a pretraining run, as flags and configuration files give them: one schema for both, and what follows
 * from what is not given.
 *
 *     settings = defaults ← configuration file (or the run that is resumed) ← flags
 *
 * Keys of the file and names of the flags are the same words: `batchSize` and `--batch-size`.
 *
 * From     Llama 2 §2.2 for the proportions; sizes and rates were tried out: docs/decision/0015.
 * Checked  test/cli/Settings.test.ts (every fault named at once with key, value and what was expected).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { UnreadablePathError } from "../data/CorpusError.ts"
import * as Llama from "../llama/Config.ts"
import * as Pretrain from "../recipe/Pretrain.ts"
import * as Durable from "../store/Durable.ts"

const Count = Schema.Int.check(Schema.isGreaterThan(0))
const Names = Schema.Array(Schema.NonEmptyString)

/** The names of the models that settings can begin from. */
export const presetNames = [
  "1M", "24M", "stories260K", "stories42M", "stories110M", "7B", "13B", "34B", "70B"
] as const satisfies ReadonlyArray<keyof typeof Llama.presets>

/** How a run on the stories is asked to go on at its end. */
const storyBeginning = "Once there was a girl named Maya."

/** What fits two minutes on two cores: see docs/decision/0015. */
export const defaults = { steps: 300, batchSize: 16, learningRate: 6e-3 } as const

/** The backends that can compute; `BackendChoice` says what each is. */
export const backendNames = [
  "onnx", "onnx-node", "onnx-webgpu", "onnx-cuda", "tensorflow-node-gpu", "tensorflow-node", "tensorflow-webgpu",
  "tensorflow-wasm", "tensorflow-cpu", "reference"
] as const

/** Schema of settings as they are given: whatever is absent follows from the rest. */
export const Settings = Schema.Struct({
  /** Files, folders and patterns; none for the embedded stories. */
  text: Schema.optionalKey(Names),
  /** The checkpoint whose model is trained on; none for one that is drawn. */
  from: Schema.optionalKey(Schema.NonEmptyString),
  /** The folder of the run. */
  out: Schema.optionalKey(Schema.NonEmptyString),
  preset: Schema.optionalKey(Schema.Literals(presetNames)),
  embedSize: Schema.optionalKey(Count),
  layerCount: Schema.optionalKey(Count),
  headCount: Schema.optionalKey(Count),
  kvHeadCount: Schema.optionalKey(Count),
  headSize: Schema.optionalKey(Count),
  hiddenSize: Schema.optionalKey(Count),
  contextLength: Schema.optionalKey(Count),
  vocabSize: Schema.optionalKey(Count),
  steps: Schema.optionalKey(Count),
  batchSize: Schema.optionalKey(Count),
  sequenceLength: Schema.optionalKey(Count),
  microBatches: Schema.optionalKey(Count),
  learningRate: Schema.optionalKey(Schema.Finite.check(Schema.isGreaterThan(0))),
  warmup: Schema.optionalKey(Schema.Natural),
  weightDecay: Schema.optionalKey(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))),
  evaluateEvery: Schema.optionalKey(Count),
  snapshotEvery: Schema.optionalKey(Count),
  keep: Schema.optionalKey(Count),
  validationShare: Schema.optionalKey(
    Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1, exclusiveMaximum: true }))
  ),
  seed: Schema.optionalKey(Schema.Int),
  threads: Schema.optionalKey(Count),
  backend: Schema.optionalKey(Schema.Literals(backendNames)),
  /** What the trained model continues at the end. */
  prompt: Schema.optionalKey(Schema.String)
})

/** Settings as they are given. */
export interface Settings extends Schema.Schema.Type<typeof Settings> {}

/** A key of the settings. */
export type Key = keyof Settings

/** All keys, in the order in which they are written. */
export const keys: ReadonlyArray<string> = Object.keys(Settings.fields)

/** The flag of a key. */
export const flagOf = (key: string): string =>
  `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** Settings that cannot be used: every fault with its key, the value, and what was expected. */
export class SettingsError extends Schema.TaggedError<SettingsError>()("SettingsError", {
  /** Where they come from: `flags`, or the path of a file. */
  source: Schema.String,
  faults: Schema.Array(Schema.Struct({ key: Schema.String, value: Schema.String, expected: Schema.String }))
}) {
  override get message() {
    const lines = this.faults.map(({ expected, key, value }) => `  ${key} = ${value}: ${expected}`)
    return [`${this.source}: these settings cannot be used`, ...lines].join("\n")
  }
}

const decode = Schema.decodeUnknownResult(Settings, { errors: "all", onExcessProperty: "error" })
const format = SchemaIssue.makeFormatterStandardSchemaV1()

const shown = (value: unknown): string => JSON.stringify(value) ?? "nothing"

const segment = (part: unknown): string =>
  String(typeof part === "object" && part !== null && "key" in part ? part.key : part)

const at = (value: unknown, path: ReadonlyArray<string>): unknown =>
  path.reduce((inner, key) => Predicate.hasProperty(inner, key) ? inner[key] : undefined, value)

const expectation = (message: string): string =>
  message.startsWith("Expected no excess property") ? `no such key; there are ${keys.join(", ")}`
    : message.replace(/^Expected /, "expected ")

const faultsOf = ({ issue }: Schema.SchemaError, given: unknown): SettingsError["faults"] =>
  format(issue).issues.map(({ message, path = [] }) => {
    const segments = path.map(segment)
    const key = segments.length === 0 ? "the whole" : segments.join(".")
    return { key, value: shown(at(given, segments)), expected: expectation(message) }
  })

/** What a schema says of given values, with every fault told by key, value and what was expected. */
export const described = <A>(
  source: string, given: unknown, checked: Result.Result<A, Schema.SchemaError>
): Result.Result<A, SettingsError> =>
  Result.mapError(checked, (error) => new SettingsError({ source, faults: faultsOf(error, given) }))

/** Checks settings; fails with all faults at once, unknown keys among them. */
export const parse = (source: string, given: unknown): Result.Result<Settings, SettingsError> =>
  described(source, given, decode(given))

/** Reads settings from a JSON file. */
export const read = Effect.fnUntraced(function*(path: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const text = yield* fileSystem.readFileString(path).pipe(Effect.mapError((error) =>
    new UnreadablePathError({ path, problem: Durable.reason(error) })))
  const json: unknown = yield* Effect.try({
    try: () => JSON.parse(text),
    catch: (error) => new SettingsError({
      source: path, faults: [{ key: "the file", value: "no JSON", expected: String(error) }]
    })
  })
  return yield* Effect.fromResult(parse(path, json))
})

/** Settings with nothing left open, but where the run goes and how many threads compute. */
export interface Complete {
  readonly settings: Omit<Settings, "out" | Decided> & Required<Pick<Settings, Decided>>
  readonly config: Pretrain.Config
}

type Decided =
  | "text" | "preset" | "vocabSize" | "steps" | "batchSize" | "sequenceLength" | "microBatches" | "learningRate"
  | "warmup" | "weightDecay" | "evaluateEvery" | "snapshotEvery" | "keep" | "validationShare" | "seed" | "backend"
  | "prompt"

const sizeKeys: ReadonlyArray<string> = [
  "vocabSize", "embedSize", "layerCount", "headCount", "kvHeadCount", "headSize", "hiddenSize",
  "contextLength"
]

const decodeModel = Schema.decodeUnknownResult(Llama.Config, { errors: "all", onExcessProperty: "error" })

/** The sizes of a preset with the given ones in their place. What a size decides follows it, unless it is given too. */
const sizesOf = (given: Settings): Llama.Options => {
  const { headSize, hiddenSize, kvHeadCount, ...sizes } = Llama.presets[given.preset ?? "1M"]
  const { embedSize = sizes.embedSize, headCount = sizes.headCount } = given
  const isWide = embedSize !== sizes.embedSize
  const heads = isWide || headCount !== sizes.headCount ? {} : { headSize, kvHeadCount }
  const width = isWide ? Llama.feedForwardSize(embedSize, { multipleOf: 32 }) : hiddenSize
  const chosen = Object.fromEntries(Object.entries(given).filter(([key]) => sizeKeys.includes(key)))
  return { ...sizes, ...heads, hiddenSize: width, ...chosen }
}

/** Completes settings; fails with all sizes that do not go together. */
export const complete = (source: string, { out: _, ...given }: Settings): Result.Result<Complete, SettingsError> => {
  const steps = given.steps ?? defaults.steps
  const options = sizesOf(given)
  const model = described(source, options, decodeModel(options))
  if (Result.isFailure(model)) return Result.fail(model.failure)
  const sequenceLength = given.sequenceLength ?? Math.min(256, model.success.contextLength)
  const settings: Complete["settings"] = {
    ...given,
    text: given.text ?? [],
    preset: given.preset ?? "1M",
    vocabSize: model.success.vocabSize,
    steps,
    batchSize: given.batchSize ?? defaults.batchSize,
    sequenceLength,
    microBatches: given.microBatches ?? 1,
    learningRate: given.learningRate ?? defaults.learningRate,
    warmup: given.warmup ?? Math.min(steps - 1, Math.ceil(steps / 20)),
    weightDecay: given.weightDecay ?? Pretrain.defaults.weightDecay,
    evaluateEvery: given.evaluateEvery ?? Math.ceil(steps / 6),
    snapshotEvery: given.snapshotEvery ?? Math.ceil(steps / 6),
    keep: given.keep ?? 3,
    validationShare: given.validationShare ?? 0.1,
    seed: given.seed ?? 0,
    backend: given.backend ?? "onnx",
    prompt: given.prompt ?? (given.text === undefined || given.text.length === 0 ? storyBeginning : "")
  }
  const { batchSize, microBatches } = settings
  const faults = [
    ...sequenceLength <= model.success.contextLength ? [] : [{
      key: "sequenceLength", value: shown(sequenceLength),
      expected: `expected at most contextLength, which is ${model.success.contextLength}; shorten the one or raise ` +
        "the other"
    }],
    ...batchSize % microBatches === 0 ? [] : [{
      key: "microBatches", value: shown(microBatches),
      expected: `expected a divisor of batchSize, which is ${batchSize}: all parts of a batch have one size`
    }],
    ...settings.warmup < steps ? [] : [{
      key: "warmup", value: shown(settings.warmup),
      expected: `expected fewer than steps, which is ${steps}: a short run needs a short warm-up`
    }]
  ]
  if (faults.length > 0) return Result.fail(new SettingsError({ source, faults }))
  return Result.succeed({
    settings,
    config: {
      ...Pretrain.defaults,
      model: model.success,
      sequenceLength,
      batchSize,
      microBatchCount: microBatches,
      stepCount: steps,
      warmupSteps: settings.warmup,
      learningRate: settings.learningRate,
      weightDecay: settings.weightDecay,
      evaluateEvery: settings.evaluateEvery,
      snapshotEvery: settings.snapshotEvery,
      seed: settings.seed
    }
  })
}
