/**
 * Pretraining: a Llama learns to predict the next token of a corpus, from scratch.
 *
 *     minimize −Σ log p(tokenᵢ | tokens before i), by AdamW with clipping, warm-up and a cosine to a tenth
 *
 * The recipe in order: documents become tokens, tokens become windows, windows become shuffled batches; the model is
 * drawn, or read from a snapshot; then step by step: gradient, norm, update, journal; now and then validation and a
 * snapshot. It is a stream of events; whoever takes them decides what to show.
 *
 * A step is a function of configuration, data and the state before it, so a run that was killed and resumed ends with
 * the same bits as one that never stopped (on the same engine, processor and number of threads).
 *
 * From     Llama 2 §2.1, §2.2 and table 1: AdamW 0.9, 0.95, 10⁻⁵, decay 0.1, clip 1.0, warm-up, cosine to 10 %.
 * Checked  test/recipe/Pretrain.test.ts (a resumed run equals one that never stopped, an interrupted one leaves a
 *          snapshot, waits for no validation and makes it up when it goes on, other data is refused).
 * Departs  warm-up and batch are scaled to small runs. The paper is silent on attention across the documents of a
 *          window: they see one another, as in the release. Matrices decay, gains do not.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Backend, BackendError } from "../backend/Backend.ts"
import * as Batches from "../data/Batches.ts"
import type { Part } from "../data/Document.ts"
import type { Windows } from "../data/Packing.ts"
import * as TokenStore from "../data/TokenStore.ts"
import * as Perplexity from "../evaluate/Perplexity.ts"
import type { SafetensorsError } from "../format/Safetensors.ts"
import type { Failure as TensorFileFailure } from "../format/TensorFile.ts"
import type * as Checkpoint from "../llama/Checkpoint.ts"
import * as Llama from "../llama/Config.ts"
import * as Initialization from "../llama/Initialization.ts"
import * as Transformer from "../llama/Transformer.ts"
import { type AllMaskedError, countVisible, maskedMean } from "../loss/Mask.ts"
import { adamW } from "../optimize/AdamW.ts"
import { clipByGlobalNorm } from "../optimize/Clip.ts"
import { chain } from "../optimize/Optimizer.ts"
import { warmupCosine } from "../optimize/Schedule.ts"
import * as Key from "../random/Key.ts"
import { type EntryError, Journal, type JournalError, type Values } from "../store/Journal.ts"
import type { ManifestError } from "../store/Manifest.ts"
import * as Manifest from "../store/Manifest.ts"
import type { Loaded, SnapshotDamagedError, SnapshotMissingError } from "../store/Snapshot.ts"
import { type Saved, type SnapshotOrderError, SnapshotStore, type SnapshotWriteError } from "../store/SnapshotStore.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import * as Specification from "../tensor/Specification.ts"
import { fromTensors, type TensorMismatchError, toTensors } from "./CellSnapshot.ts"
import * as TrainStep from "./TrainStep.ts"

const Count = Schema.Int.check(Schema.isGreaterThan(0))
const Fraction = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const Positive = Schema.Finite.check(Schema.isGreaterThan(0))
const Beta = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0), Schema.isLessThan(1))

const Fields = Schema.Struct({
  model: Llama.Config,
  /** Tokens of a window. */
  sequenceLength: Count,
  /** Windows of a step. */
  batchSize: Count,
  /** Parts that a step's batch is cut into, one after the other through memory; no choice changes the step. */
  microBatchCount: Count,
  /** Updates of the parameters. */
  stepCount: Count,
  /** Steps over which the learning rate rises to its peak; 2 000 in the paper. */
  warmupSteps: Schema.Natural,
  /** The peak; 3 · 10⁻⁴ for the paper's 7B and 13B, 1.5 · 10⁻⁴ for the larger ones. Small models take more. */
  learningRate: Positive,
  /** What the cosine ends at, as a fraction of the peak. */
  finalFraction: Fraction,
  beta1: Beta,
  beta2: Beta,
  epsilon: Positive,
  weightDecay: Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0)),
  /** The greatest norm of a gradient that is not scaled down. */
  clipNorm: Positive,
  /** Steps from one validation to the next. */
  evaluateEvery: Count,
  /** Steps from one snapshot to the next. */
  snapshotEvery: Count,
  /** Everything random derives from it. */
  seed: Schema.Int
}).annotate({ identifier: "PretrainConfig" })

/** Everything that decides a run, besides its data. */
export interface Config extends Schema.Schema.Type<typeof Fields> {}
/** Schema of everything that decides a run, besides its data; its numbers are checked together. */
export const Config = Fields.check(Schema.makeFilter((config: Config) => faults(config)))

/** What of a configuration does not go together. */
const faults = ({ batchSize, microBatchCount, model, sequenceLength, stepCount, warmupSteps }: Config) => [
  ...batchSize % microBatchCount === 0 ? [] : [{
    path: ["microBatchCount"],
    issue: `microBatchCount must divide batchSize, for its parts have one size: ${batchSize} / ${microBatchCount}`
  }],
  ...warmupSteps < stepCount ? [] : [{
    path: ["warmupSteps"],
    issue: `warmupSteps must be less than stepCount, ${stepCount}, got ${warmupSteps}: a short run needs a short one`
  }],
  ...sequenceLength <= model.contextLength ? [] : [{
    path: ["sequenceLength"],
    issue: `sequenceLength must be at most the model's contextLength, ${model.contextLength}, got ${sequenceLength}`
  }]
]

/** The paper's numbers where it gives them and a small run can keep them. */
export const defaults = {
  microBatchCount: 1, finalFraction: 0.1, beta1: 0.9, beta2: 0.95, epsilon: 1e-5, weightDecay: 0.1, clipNorm: 1, seed: 0
} as const

/** What a run is given besides its configuration. */
export interface Origin {
  readonly data: Record<Part, TokenStore.TokenStore>
  readonly tokenizerHash: string
  readonly environment: Manifest.Environment
  /** Go on from the newest snapshot, from the newest intact one, or begin anew. A run without any begins anew. */
  readonly resume: "never" | "latest" | "latestIntact"
  /** Fills the parameters of a run that begins anew, to train a checkpoint on; without it they are drawn. */
  readonly initial?: (parameters: unknown) => Effect.Effect<void, InitialError, Backend>
  /** Matrix products of this machine, in floating-point operations a second, for `mfu`. */
  readonly matmulRate?: number
}

/** Why parameters cannot be had from a checkpoint. */
export type InitialError = Checkpoint.OpenError | TensorFileFailure | BackendError

/** What happens in a run. */
export type Event =
  | {
    readonly _tag: "Started"
    readonly parameterCount: number
    /** Steps that were done before, 0 in a new run. */
    readonly step: number
    /** What may change the last bits of a resumed run: it is not where it was saved. */
    readonly differences: ReadonlyArray<Manifest.Difference>
    /** Newer snapshots that were damaged; they are removed, and their steps are done again. */
    readonly passedOver: ReadonlyArray<SnapshotDamagedError>
  }
  | {
    readonly _tag: "Stepped"
    readonly step: number
    readonly loss: number
    readonly gradientNorm: number
    readonly learningRate: number
    readonly tokenCount: number
    readonly tokensPerSecond: number
  }
  | { readonly _tag: "Evaluated"; readonly step: number; readonly loss: number; readonly bitsPerByte: number }
  | { readonly _tag: "Saved"; readonly step: number; readonly path: string; readonly bytes: number }

/** Fails when a run is resumed with another configuration, with other data, or at another place in them. */
export class ResumeError extends Schema.TaggedError<ResumeError>()("ResumeError", {
  snapshot: Schema.String,
  differences: Schema.Array(Schema.Struct({ field: Schema.String, saved: Schema.String, here: Schema.String }))
}) {
  override get message() {
    const lines = this.differences.map(({ field, here, saved }) => `  ${field}: saved ${saved}, now ${here}`)
    return [
      `${this.snapshot} is of another run`, ...lines,
      "A resumed run must be the same run. Give it the same configuration and data, or begin anew in another folder."
    ].join("\n")
  }
}

/** Fails when a run would begin anew in the folder of another. */
export class RunExistsError extends Schema.TaggedError<RunExistsError>()("RunExistsError", {
  folder: Schema.String, newest: Schema.String
}) {
  override get message() {
    return `${this.folder} already holds a run, whose newest snapshot is ${this.newest}\n` +
      "  Resume it, or begin anew in another folder."
  }
}

type StoreError =
  | SnapshotWriteError | SnapshotOrderError | SnapshotDamagedError | SnapshotMissingError | ManifestError
  | SafetensorsError | PlatformError

/** Everything that can stop a run. */
export type PretrainError =
  | BackendError | ShapeError | TrainStep.NonFiniteError | AllMaskedError | JournalError | EntryError | StoreError
  | Perplexity.WindowError | Perplexity.ScoreError | TensorMismatchError | ResumeError | RunExistsError
  | InitialError | Schema.SchemaError

/** The services that a run asks for. */
export type Services = Backend | Journal | SnapshotStore | Effect.Services<ReturnType<typeof Transformer.make>>

/** What one micro-batch is, as inputs of a program. */
const inputsOf = (rows: number, length: number) => ({
  ids: Specification.ids({ batch: rows, position: length }),
  targets: Specification.ids({ batch: rows, position: length }),
  mask: Specification.real({ batch: rows, position: length }),
  /** The tokens that count in the whole step. */
  tokenCount: Specification.real({})
})

const given = ({ ids, mask, targets }: Windows, tokenCount: number) => ({ ids, targets, mask, tokenCount })

const encodeConfig = Schema.encodeEffect(Config, { errors: "all" })

/**
 * Runs the recipe. Nothing happens until the stream is run. A run that ends or is interrupted leaves a snapshot of its
 * last step; one that fails leaves the snapshots that it had.
 */
export const pretrain = (config: Config, origin: Origin): Stream.Stream<Event, PretrainError, Services> =>
  Stream.unwrap(Effect.gen(function*() {
    const run = yield* prepare(config, origin)
    const { differences, passedOver, step } = run
    const parameterCount = Llama.parameterCount(config.model)
    const started: Event = { _tag: "Started", parameterCount, step, differences, passedOver }
    const steps = Stream.paginate(step, (before) =>
      before >= config.stepCount
        ? Effect.succeed([[], Option.none()] as const)
        : Effect.map(run.advance(before + 1), (events) => [events, Option.some(before + 1)] as const))
    return Stream.make(started).pipe(Stream.concat(Stream.fromIterableEffect(run.finish)), Stream.concat(steps))
  }))

interface Run {
  /** Steps done when the run begins. */
  readonly step: number
  readonly differences: ReadonlyArray<Manifest.Difference>
  readonly passedOver: ReadonlyArray<SnapshotDamagedError>
  /** Makes up the validation of a step in which the run was interrupted; does nothing elsewhere. */
  readonly finish: Effect.Effect<ReadonlyArray<Event>, PretrainError>
  readonly advance: (step: number) => Effect.Effect<ReadonlyArray<Event>, PretrainError>
}

const prepare = Effect.fnUntraced(
  function*(config: Config, origin: Origin): Effect.fn.Return<Run, PretrainError, Services | Scope.Scope> {
    const journal = yield* Journal
    const store = yield* SnapshotStore
    const context = yield* Effect.context<Backend>()
    const key = Key.make(config.seed)
    const configuration = yield* encodeConfig(config)

    // 1. Data: shuffled windows, a function of the seed and the step
    for (const part of [origin.data.train, origin.data.validation]) {
      yield* TokenStore.requireVocabulary(part, config.model.vocabSize)
    }
    const batches = Batches.make(origin.data.train, {
      key: Key.derive(key, "batches"), batchSize: config.batchSize, length: config.sequenceLength
    })
    const placeAt = (step: number): Place => ({
      dataCursor: Batches.cursorAt(batches, step), randomKeys: { run: Key.toHex(key) }
    })
    const dataHash = `${TokenStore.fingerprint(origin.data.train)} ${TokenStore.fingerprint(origin.data.validation)}`

    // 2. Where the run stands, before anything is compiled
    const newest = yield* store.latest
    if (origin.resume === "never" && Option.isSome(newest)) {
      return yield* new RunExistsError({ folder: store.folder, newest: newest.value.path })
    }
    const { passedOver, snapshot } = origin.resume === "latestIntact" ? yield* intact(store)
      : { passedOver: [], snapshot: newest }
    const loaded = Option.isSome(snapshot) ? yield* store.load(snapshot.value.step) : undefined
    const differences = loaded === undefined ? []
      : yield* sameRun(loaded, configuration, placeAt(loaded.step), { ...origin, dataHash })

    // 3. The model and its loss: the mean cross-entropy over the tokens of the step
    const model = yield* Transformer.make(config.model)
    const rows = config.batchSize / config.microBatchCount
    const tokenLoss = Perplexity.nextTokenLoss(model)

    // 4. The optimizer: AdamW behind clipping
    const { beta1, beta2, epsilon, weightDecay } = config
    const optimizer = chain(clipByGlobalNorm(config.clipNorm), adamW({ beta1, beta2, epsilon, weightDecay }))
    const rate = warmupCosine({
      peak: config.learningRate, warmupSteps: config.warmupSteps, totalSteps: config.stepCount,
      finalFraction: config.finalFraction
    })
    const train = yield* TrainStep.make({
      name: "pretrain",
      inputs: inputsOf(rows, config.sequenceLength),
      parameters: model.specification,
      optimizer,
      loss: (parameters, { ids, mask, targets, tokenCount }) => ({
        loss: maskedMean(tokenLoss(parameters, ids, targets), mask, tokenCount), outputs: {}
      }),
      initial: Initialization.draws(Key.derive(key, "initialization"), model.specification)
    })

    // 5. Validation: the same loss, summed over the held-out part
    const { score } = yield* Perplexity.make({
      model, parameters: train.parameters, batchSize: rows, window: config.sequenceLength, stride: config.sequenceLength
    })

    // 6. From there on
    const progress: Progress = { step: 0, saved: -1, tokenCount: 0, metrics: {}, unfinished: undefined }
    if (loaded !== undefined) {
      yield* fromTensors(loaded.path, loaded.tensors["model"] ?? [], train.parameters)
      yield* fromTensors(loaded.path, loaded.tensors["optimizer"] ?? [], train.memory)
      yield* journal.truncate(loaded.manifest.journal)
      yield* store.discardAfter(loaded.step)
      Object.assign(progress, {
        step: loaded.step, saved: loaded.step, tokenCount: loaded.manifest.metrics["num_tokens"] ?? 0,
        metrics: { ...loaded.manifest.metrics }, unfinished: loaded.manifest.unfinished
      })
    } else {
      if (origin.initial !== undefined) yield* origin.initial(train.parameters)
      yield* journal.truncate({ journal: 0, timing: 0 })
    }

    /** What a snapshot of the step says of itself. */
    const description = Effect.map(journal.offsets, (offsets) => ({
      step: progress.step,
      configuration,
      ...placeAt(progress.step),
      journal: offsets,
      environment: origin.environment,
      dataHash,
      tokenizerHash: origin.tokenizerHash,
      metrics: { ...progress.metrics, num_tokens: progress.tokenCount },
      ...progress.unfinished === undefined ? {} : { unfinished: progress.unfinished }
    }))
    const save = Effect.gen(function*() {
      const saved: Saved = yield* store.save({
        ...yield* description,
        tensors: { model: yield* toTensors(train.parameters), optimizer: yield* toTensors(train.memory) }
      })
      progress.saved = progress.step
      return { _tag: "Saved", step: saved.step, path: saved.path, bytes: saved.bytes } satisfies Event
    }).pipe(Effect.provideContext(context))

    // an interrupted run (Ctrl-C) keeps its last whole step; a failed one keeps its last snapshot
    yield* Effect.addFinalizer((exit) =>
      progress.saved < progress.step && (Exit.isSuccess(exit) || Exit.hasInterrupts(exit)) ? Effect.orDie(save)
        : Effect.void)

    const finish = (interruptible: typeof Effect.interruptible): Effect.Effect<ReadonlyArray<Event>, PretrainError> =>
      Effect.gen(function*() {
        const { step, unfinished } = progress
        if (unfinished === undefined) return []
        const events: Array<Event> = []
        const isLast = step === config.stepCount
        if (isLast || step % config.evaluateEvery === 0) {
          const { bitsPerByte, loss } = yield* interruptible(score(origin.data.validation))
          progress.metrics = { "val/loss": loss, "val/bpb": bitsPerByte }
          events.push({ _tag: "Evaluated", step, loss, bitsPerByte })
        }
        yield* journal.append({ step, values: { ...unfinished, ...progress.metrics } })
        progress.unfinished = undefined
        const isDue = isLast || step % config.snapshotEvery === 0
        // the snapshot of a step that was interrupted learns what was measured after all
        if (progress.saved === step) yield* store.amend(yield* description)
        else if (isDue) events.push(yield* save)
        return events
      })

    // a step is whole or was never begun; its validation may be cut off, and is then made up when the run goes on
    const advance = (step: number): Effect.Effect<ReadonlyArray<Event>, PretrainError> => Effect.uninterruptibleMask(
      Effect.fnUntraced(function*(interruptible) {
        const began = yield* Clock.monotonicTimeNanos
        const batch = Batches.at(batches, step - 1)
        const parts = Batches.microBatches(batch, config.microBatchCount)
        const tokenCount = yield* countVisible(`step ${step}`, parts.map(({ mask }) => mask))
        const learningRate = rate(step)
        const { gradientNorm, loss } = yield* train.run({
          step, learningRate,
          microBatches: parts.map((part) => given(part, tokenCount)),
          describe: (part) =>
            `windows of step ${step} beginning ${[...(parts[part]?.ids ?? [])].slice(0, 8).join(" ")} …`
        })
        progress.step = step
        progress.tokenCount += tokenCount
        progress.metrics = {} // a snapshot says what was measured at its own step, and nothing older
        const seconds = Number((yield* Clock.monotonicTimeNanos) - began) / 1e9
        const tokensPerSecond = tokenCount / seconds
        const flops = Llama.flopsPerToken(config.model, config.sequenceLength) * tokensPerSecond
        progress.unfinished = {
          loss, grad_norm: gradientNorm, learning_rate: learningRate, num_tokens: progress.tokenCount,
          tokens_per_second: tokensPerSecond,
          ...origin.matmulRate === undefined ? {} : { mfu: flops / origin.matmulRate }
        } satisfies Values
        const stepped: Event = {
          _tag: "Stepped", step, loss, gradientNorm, learningRate, tokenCount: progress.tokenCount, tokensPerSecond
        }
        return [stepped, ...yield* finish(interruptible)]
      }))

    return { step: progress.step, differences, passedOver, finish: Effect.uninterruptibleMask(finish), advance }
  })

/** Where a run stands. */
interface Progress {
  step: number
  /** The step of the newest snapshot. */
  saved: number
  tokenCount: number
  metrics: { readonly [name: string]: number }
  /** The journal's line of the step, while its validation is still to be made. */
  unfinished: { readonly [name: string]: number } | undefined
}

/** The newest intact snapshot; fails where there are snapshots and none of them is intact. */
const intact = Effect.fnUntraced(function*(store: typeof SnapshotStore.Service) {
  const found = yield* store.latestIntact
  const [damaged] = found.passedOver
  return Option.isNone(found.snapshot) && damaged !== undefined ? yield* damaged : found
})

/** Where a run stands in its data and its random draws. */
type Place = Pick<Manifest.Manifest, "dataCursor" | "randomKeys">

/** The fields of a configuration with their values, those of the model as `model.embedSize`. */
const fieldsOf = (configuration: unknown, prefix = ""): ReadonlyArray<readonly [field: string, value: string]> =>
  typeof configuration !== "object" || configuration === null ? [] : Object.entries(configuration)
    .flatMap(([field, value]) => typeof value === "object" && value !== null
      ? fieldsOf(value, `${prefix}${field}.`) : [[`${prefix}${field}`, JSON.stringify(value)] as const])

/** Refuses to resume another run; names what may change the last bits of this one. */
const sameRun = Effect.fnUntraced(function*(
  { manifest, path }: Loaded, configuration: Schema.Codec.Encoded<typeof Config>, place: Place,
  here: Origin & { readonly dataHash: string }
) {
  const before = new Map(fieldsOf(manifest.configuration))
  const changed = fieldsOf(configuration).flatMap(([field, now]) => {
    const then = before.get(field)
    return then === now ? [] : [{ field, saved: then ?? "nothing", here: now }]
  })
  const others = Manifest.differences(manifest, here)
  const fatal = others.filter(({ field }) => field === "data" || field === "tokenizer")
  const places = [
    { field: "place in the data", saved: JSON.stringify(manifest.dataCursor), here: JSON.stringify(place.dataCursor) },
    { field: "random key", saved: JSON.stringify(manifest.randomKeys), here: JSON.stringify(place.randomKeys) }
  ].filter(({ here, saved }) => here !== saved)
  // places follow from configuration and data: where these differ, they are no news
  const differences = changed.length + fatal.length > 0 ? [...changed, ...fatal] : places
  return differences.length > 0 ? yield* new ResumeError({ snapshot: path, differences }) : others
})
