/**
 * The settings of a pretraining run, as flags and configuration files give them: one schema for both, and what follows
 * from what is not given.
 *
 *     settings = defaults ← configuration file (or the run that is resumed) ← flags
 *
 * Keys of the file and names of the flags are the same words: `batchSize` and `--batch-size`.
 *
 * From     Llama 2 §2.2 for the proportions; sizes and rates were tried out on two cores (docs/decision).
 * Checked  test/cli/Settings.test.ts (every fault named at once with key, value and what was expected).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Llama from "../llama/Config.ts"
import * as Pretrain from "../recipe/Pretrain.ts"

const Count = Schema.Int.check(Schema.isGreaterThan(0))
const Names = Schema.Array(Schema.NonEmptyString)

/** The names of the models that settings can begin from. */
export const presetNames = [
  "1M", "24M", "stories260K", "stories42M", "stories110M", "7B", "13B", "34B", "70B"
] as const satisfies ReadonlyArray<keyof typeof Llama.presets>

/** The engines that can compute. */
export const backendNames = ["onnx", "reference"] as const

/** Schema of settings as they are given: whatever is absent follows from the rest. */
export const Settings = Schema.Struct({
  /** Files, folders and patterns; none for the embedded stories. */
  text: Schema.optionalKey(Names),
  /** The folder of the run. */
  out: Schema.optionalKey(Schema.NonEmptyString),
  preset: Schema.optionalKey(Schema.Literals(presetNames)),
  embedSize: Schema.optionalKey(Count),
  layerCount: Schema.optionalKey(Count),
  headCount: Schema.optionalKey(Count),
  kvHeadCount: Schema.optionalKey(Count),
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
  validationShare: Schema.optionalKey(Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))),
  seed: Schema.optionalKey(Schema.Int),
  threads: Schema.optionalKey(Count),
  backend: Schema.optionalKey(Schema.Literals(backendNames)),
  /** What the trained model continues at the end. */
  prompt: Schema.optionalKey(Schema.String)
}).annotate({ identifier: "PretrainSettings" })

/** Settings as they are given. */
export interface Settings extends Schema.Schema.Type<typeof Settings> {}

/** A key of the settings. */
export type Key = keyof Settings

const keys = Object.keys(Settings.fields)

/** The flag of a key: `--batch-size` for `batchSize`. */
export const flagOf = (key: string): string => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

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

const shown = (value: unknown): string => typeof value === "string" ? JSON.stringify(value) : JSON.stringify(value) ?? "nothing"

const segment = (part: unknown): string =>
  String(typeof part === "object" && part !== null && "key" in part ? part.key : part)

const at = (value: unknown, path: ReadonlyArray<string>): unknown =>
  path.reduce<unknown>((inner, key) =>
    typeof inner === "object" && inner !== null ? Object.entries(inner).find(([name]) => name === key)?.[1] : undefined, value)

const expectation = (message: string): string =>
  /^Expected no excess property/.test(message) ? `no such key; there are ${keys.join(", ")}`
    : message.replace(/^Expected /, "expected ")

const faultsOf = ({ issue }: Schema.SchemaError, given: unknown): SettingsError["faults"] =>
  format(issue).issues.map(({ message, path = [] }) => {
    const segments = path.map(segment)
    return { key: segments.join("."), value: shown(at(given, segments)), expected: expectation(message) }
  })

/** Checks settings; fails with all faults at once, unknown keys among them. */
export const parse = (source: string, given: unknown): Result.Result<Settings, SettingsError> =>
  Result.mapError(decode(given), (error) => new SettingsError({ source, faults: faultsOf(error, given) }))

/** Reads settings from a JSON file. */
export const read = Effect.fnUntraced(function*(path: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const text = yield* fileSystem.readFileString(path).pipe(Effect.mapError(({ message }) =>
    new SettingsError({ source: path, faults: [{ key: "the file", value: "unreadable", expected: message }] })))
  const json: unknown = yield* Effect.try({
    try: () => JSON.parse(text),
    catch: (error) => new SettingsError({
      source: path, faults: [{ key: "the file", value: "no JSON", expected: error instanceof Error ? error.message : String(error) }]
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
  "vocabSize", "embedSize", "layerCount", "headCount", "kvHeadCount", "hiddenSize", "contextLength"
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
  const steps = given.steps ?? 400
  const options = sizesOf(given)
  const model = decodeModel(options)
  if (Result.isFailure(model)) return Result.fail(new SettingsError({ source, faults: faultsOf(model.failure, options) }))
  const sequenceLength = given.sequenceLength ?? Math.min(256, model.success.contextLength)
  const settings: Complete["settings"] = {
    ...given,
    text: given.text ?? [],
    preset: given.preset ?? "1M",
    vocabSize: model.success.vocabSize,
    steps,
    batchSize: given.batchSize ?? 16,
    sequenceLength,
    microBatches: given.microBatches ?? 1,
    learningRate: given.learningRate ?? 3e-3,
    warmup: given.warmup ?? Math.ceil(steps / 20),
    weightDecay: given.weightDecay ?? Pretrain.defaults.weightDecay,
    evaluateEvery: given.evaluateEvery ?? Math.ceil(steps / 8),
    snapshotEvery: given.snapshotEvery ?? Math.ceil(steps / 8),
    keep: given.keep ?? 3,
    validationShare: given.validationShare ?? 0.1,
    seed: given.seed ?? 0,
    backend: given.backend ?? "onnx",
    prompt: given.prompt ?? (given.text === undefined || given.text.length === 0 ? "One morning" : "")
  }
  const { batchSize, microBatches } = settings
  const faults = [
    ...sequenceLength <= model.success.contextLength ? [] : [{
      key: "sequenceLength", value: shown(sequenceLength),
      expected: `expected at most contextLength, which is ${model.success.contextLength}; shorten the one or raise the other`
    }],
    ...batchSize % microBatches === 0 ? [] : [{
      key: "microBatches", value: shown(microBatches),
      expected: `expected a divisor of batchSize, which is ${batchSize}: all parts of a batch have one size`
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
