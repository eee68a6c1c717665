/**
 * `cria generate`: continues prompts with any model: a run of Cria, or a checkpoint of others.
 *
 * One answer streams to standard output as it is written; of several, each is printed when it ends, as text or as a
 * line of JSON. Which model writes, and how fast, goes to standard error.
 *
 * Checked  test/cli/GenerateCommand.test.ts.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Terminal from "effect/Terminal"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { type Answer, answers, type Reason } from "../generate/Answer.ts"
import { check, type Prompt, requireCounts } from "../generate/Request.ts"
import { greedy, Options as SamplingOptions, type Rule, sampling } from "../generate/Sampling.ts"
import type * as HuggingFaceModel from "../llama/checkpoint/HuggingFaceModel.ts"
import * as Transformer from "../llama/Transformer.ts"
import * as Snapshot from "../store/Snapshot.ts"
import * as Tokenizer from "../token/Tokenizer.ts"
import * as BackendChoice from "./BackendChoice.ts"
import * as CheckpointSource from "./CheckpointSource.ts"
import { decoderOf, drawing, idsOf, settingsOf } from "./Continuation.ts"
import { backend, count, FlagConflictError, given, pathFlag, switched, textArgument, textFlag } from "./Flags.ts"
import * as Input from "./Input.ts"
import * as Prompts from "./Prompts.ts"
import * as RunFolder from "./RunFolder.ts"
import { visible } from "./Screen.ts"
import * as Settings from "./Settings.ts"
import * as Weights from "./Weights.ts"

const flags = {
  prompt: textArgument("prompt").pipe(
    Argument.withDescription("What to continue; without it, the file, or all of standard input (-) as " +
      "one prompt, whose last line break is no part of it; one that begins with a dash stands last, behind --"),
    Argument.optional
  ),
  promptFile: given(pathFlag("prompt-file"), "PATH", "Many prompts: one on each line, without its break, or in a " +
    ".jsonl file rows of {\"prompt\": …, \"id\": …}; - is standard input with lines, " +
    "--prompt-file=-.jsonl with rows"),
  model: given(pathFlag("model"), "PATH", "The model: the folder of a run, a snapshot, a folder of Hugging Face " +
    "or Meta, a .gguf, a .bin of llama2.c; by default the run that trained last"),
  tokenizer: given(pathFlag("tokenizer"), "PATH", "Another tokenizer (.model, .json, .bin, or a folder with one); " +
    "by default the one beside the model"),
  snapshot: given(Flag.Int("snapshot"), "STEP", "The step of the run's snapshot; by default the newest"),
  best: switched("best", "The run's snapshot with the lowest validation loss"),
  weights: Weights.flag,
  draft: Weights.draftFlag,
  temperature: given(Flag.Finite("temperature"), "NUMBER", "Below 1 safer, above 1 wilder; what the model's folder " +
    `says, or ${drawing.temperature}, by default`),
  topK: count("top-k", "Choose among so many likeliest tokens only; what the model's folder says, or all, by " +
    "default"),
  topP: given(Flag.Finite("top-p"), "SHARE", "Choose among the likeliest tokens that share this much; what the " +
    `model's folder says, or ${drawing.topP}, by default`),
  greedy: switched("greedy", "Always take the likeliest token"),
  maxTokens: Flag.Int("max-tokens").pipe(
    Flag.withMetavar("COUNT"), Flag.withDefault(200), Flag.withDescription("How many tokens at most; 200 by default")
  ),
  stop: textFlag("stop").pipe(
    Flag.withMetavar("TEXT"), Flag.withDescription("End an answer before this text; may be given more than once"),
    Flag.atLeast(0)
  ),
  candidates: Flag.Int("candidates").pipe(
    Flag.withMetavar("COUNT"), Flag.withDefault(1), Flag.withDescription("Answers to each prompt; 1 by default")
  ),
  slots: count("slots", "How many answers are written together, each with a cache of its own; for many 8 by default"),
  contextLength: count("context-length", "The longest prompt and answer together; what the model was made for by " +
    "default"),
  seed: Flag.Int("seed").pipe(
    Flag.withMetavar("NUMBER"), Flag.withDefault(0),
    Flag.withDescription("Another seed, another continuation; 0 by default")
  ),
  json: switched("json", "Print a line of JSON for each answer: id of the prompt, candidate, text (without the " +
    "prompt and --stop), tokens (ids of all that were drawn, with the one that ended it or those of --stop), and the " +
    "reason for its end (id: end of document, text: --stop, maximum: --max-tokens, context); with --draft also " +
    "passes, how often the model was computed for all tokens but the first, which the prompt gives"),
  logProbs: switched("log-probs", "With --json: also logProbs, of each token the natural logarithm of the " +
    "probability that it was drawn with"),
  threads: count("threads", "Threads that compute; the cores of this machine by default"),
  backend: backend("by default the one that trained, of a run; the fastest of them for other models")
}

/** A longer context than the model was made for. */
export class ContextLengthError extends Schema.TaggedError<ContextLengthError>()("ContextLengthError", {
  asked: Schema.Int,
  contextLength: Schema.Int
}) {
  override get message() {
    return `--context-length ${this.asked} is more than the model's ${this.contextLength} tokens\n` +
      "  Beyond them it was never trained, and writes nonsense: ask for fewer, or leave the flag out."
  }
}

/** The likeliest answer, more than once. */
export class GreedyCandidatesError extends Schema.TaggedError<GreedyCandidatesError>()("GreedyCandidatesError", {
  candidates: Schema.Int
}) {
  override get message() {
    return `--greedy gives one answer to a prompt, and --candidates ${this.candidates} would give the same so many ` +
      "times: leave one of them out"
  }
}

/** A draft where it makes nothing quicker. */
export class DraftConflictError extends Schema.TaggedError<DraftConflictError>()("DraftConflictError", {
  flags: Schema.Array(Schema.String)
}) {
  override get message() {
    return `--draft has no use beside ${this.flags.join(" and ")}: leave one of them out\n  Several answers share ` +
      "each reading of the weights already, and a draft is hardly quicker than weights in codes."
  }
}

/** Log-probabilities were asked for where they have no place. */
export class LogProbsError extends Schema.TaggedError<LogProbsError>()("LogProbsError", {}) {
  override get message() {
    return "--log-probs has no place in plain text: add --json"
  }
}

type Given = Command.Command.Config.Infer<typeof flags>

const checkSampling = Schema.decodeUnknownResult(SamplingOptions, { errors: "all" })

/** What of a folder's rule the flags decide. */
const decidedBy = ({ greedy, temperature, topK, topP }: Given): ReadonlyArray<HuggingFaceModel.DrawingKey> => [
  ...greedy || Option.isSome(temperature) ? ["temperature" as const] : [],
  ...greedy || Option.isSome(topK) ? ["top_k" as const] : [],
  ...greedy || Option.isSome(topP) ? ["top_p" as const] : []
]

/** How tokens are chosen: as flags say, else as the model's folder does, else as Cria does. */
const ruleOf = Effect.fnUntraced(function*(
  { greedy: isGreedy, temperature, topK, topP }: Given, generation: HuggingFaceModel.Generation | undefined
) {
  const given = Object.entries({ "--temperature": temperature, "--top-k": topK, "--top-p": topP })
    .flatMap(([flag, value]) => Option.isSome(value) ? [flag] : [])
  if (isGreedy && given.length > 0) return yield* new FlagConflictError({ flags: ["--greedy", ...given] })
  if (isGreedy) return greedy
  const top = Option.orElse(topK, () => Option.fromNullishOr(generation?.topK))
  const options = {
    temperature: Option.getOrElse(temperature, () => generation?.temperature ?? drawing.temperature),
    topP: Option.getOrElse(topP, () => generation?.topP ?? drawing.topP),
    ...Option.isSome(top) ? { topK: top.value } : {}
  }
  const checked = yield* Effect.fromResult(Settings.described("flags", options, checkSampling(options))).pipe(
    Effect.mapError(({ faults, source }) => new Settings.SettingsError({
      source, faults: faults.map((fault) => fault.key !== "temperature" ? fault : {
        ...fault, expected: "temperature must be greater than 0; for the likeliest token give --greedy"
      })
    }))
  )
  return sampling(checked) satisfies Rule
})

/** What the model's folder says of generation that counts, and what of it does not. */
const told = (
  generation: HuggingFaceModel.Generation | undefined, pieces: number, known: ReadonlyArray<number>
): ReadonlyArray<string> => {
  if (generation === undefined) return []
  const { endIds, temperature, topK, topP } = generation
  const rule = Object.entries({ "temperature": temperature, "top-k": topK, "top-p": topP })
    .flatMap(([name, value]) => value === undefined ? [] : [`${name} ${value}`])
  const ends = endIds.filter((id) => id < pieces && !known.includes(id)).map((id) => `end at id ${id}`)
  const counts = [...rule, ...ends]
  const beyond = endIds.filter((id) => id >= pieces)
  return [
    ...counts.length === 0 ? [] : [`the model's folder says: ${counts.join(", ")}`],
    ...beyond.length === 0 ? []
      : [`its end at id ${beyond.join(", ")} never comes, for the tokenizer has ${pieces} pieces: --tokenizer names ` +
        "the one that has it"],
    ...generation.unused.length === 0 ? []
      : [`of its generation_config.json nothing is made of ${generation.unused.join(", ")}`]
  ]
}

/** The snapshot that is meant. */
const snapshotOf = Effect.fnUntraced(function*(folder: string, { best, snapshot }: Given) {
  const path = yield* Path.Path
  if (best && Option.isSome(snapshot)) return yield* new FlagConflictError({ flags: ["--best", "--snapshot"] })
  if (Option.isSome(snapshot)) {
    const place = path.join(folder, Snapshot.nameOf(snapshot.value))
    yield* Snapshot.verify(place, []) // names those that are there, if it is not
    return place
  }
  const found: Option.Option<Snapshot.Listed> = best ? yield* Snapshot.best(folder) : yield* Snapshot.latest(folder)
  return Option.isSome(found) ? found.value.path : yield* new Snapshot.SnapshotMissingError({
    path: folder, wanted: best ? "snapshot with a validation loss" : "snapshot", available: []
  })
})

/** Where the model is: of a run, the snapshot that is meant. */
const placeOf = Effect.fnUntraced(function*(given: Given) {
  const place = Option.isSome(given.model) ? given.model.value : yield* RunFolder.latest
  const isAsked = Option.isNone(given.model) || given.best || Option.isSome(given.snapshot)
  if (isAsked) yield* RunFolder.require(place)
  return isAsked || (yield* Effect.isSuccess(RunFolder.require(place))) ? yield* snapshotOf(place, given) : place
})

/** How many tokens were written, and how quickly, in nanoseconds since the beginning. */
interface Pace {
  count: number
  first: bigint
  /** How many answers ended, and how often the model was computed for their tokens but the first of each. */
  ended: number
  passes: number
}

const paceOf = ({ count, ended, first, passes }: Pace, nanoseconds: bigint, hasDraft: boolean): string => {
  const seconds = Number(nanoseconds) / 1e9
  return `${count} tokens in ${seconds.toFixed(2)} s, ${(count / seconds).toFixed(0)} a second; the first after ` +
    `${(Number(first) / 1e6).toFixed(0)} ms` +
    (hasDraft && passes > 0 ? `; ${((count - ended) / passes).toFixed(1)} tokens a pass of the model` : "")
}

/** Why an answer ended, where it is not that the model ended it. */
const endOf = (reason: Reason | undefined, maximumTokens: number, contextLength: number): string =>
  reason === "maximum" ? `; ended by --max-tokens ${maximumTokens}`
    : reason === "context" ? `; ended by the context, which holds ${contextLength} tokens with the prompt's`
      : reason === "text" ? "; ended by --stop" : ""

/** The command. */
export const command = Command.make("generate", flags, Effect.fnUntraced(function*(given) {
  if (given.logProbs && !given.json) return yield* new LogProbsError()
  const { candidates } = given
  if (given.greedy && candidates > 1) return yield* new GreedyCandidatesError({ candidates })
  const asked = yield* Input.unlessFile(given.prompt, given.promptFile, "--prompt-file")
  const isSaid = Option.isSome(given.prompt) && given.prompt.value !== "-"
  const single = isSaid ? asked : asked?.replace(/\r?\n$/, "") // the shell's, not the prompt's
  const place = yield* placeOf(given)
  const source = yield* CheckpointSource.open({ ...given, path: place })
  const codec = yield* CheckpointSource.codecOf(source)
  const decided = decidedBy(given)
  const generation = source.generation === undefined ? undefined : yield* source.generation(decided)
  const rule = yield* ruleOf(given, generation)
  const hasDraft = Option.isSome(given.draft)
  const isLone = hasDraft || single !== undefined && given.candidates === 1
  const slots = Option.getOrElse(given.slots, () => isLone ? 1 : 8)
  if (hasDraft) {
    const others = [
      ...slots > 1 ? [`--slots ${slots}`] : [], ...given.weights === "f32" ? [] : [`--weights ${given.weights}`]
    ]
    if (others.length > 0) return yield* new DraftConflictError({ flags: others })
  }
  const contextLength = Option.getOrElse(given.contextLength, () => source.config.contextLength)
  const own = settingsOf(codec, { rule, maximumTokens: given.maxTokens, seed: given.seed })
  const settings = {
    ...own, candidates: given.candidates, stopTexts: given.stop,
    stopIds: [...new Set([...own.stopIds, ...generation?.endIds ?? []])].filter((id) => id < codec.vocabSize)
  }
  // what cannot be answered is refused before the weights are read
  yield* requireCounts("cria generate", { "--slots": slots, "--context-length": contextLength })
  if (contextLength > source.config.contextLength) return yield* new ContextLengthError({
    asked: contextLength, contextLength: source.config.contextLength
  })
  const file = Option.getOrElse(given.promptFile, () => "")
  const first: ReadonlyArray<Prompts.Named> = single === undefined ? yield* Prompts.firstOf(file)
    : [{ id: 1, prompt: single }]
  yield* check(first.map(({ prompt }) => ({ item: 0, ids: idsOf(codec, prompt) })), { codec, contextLength, settings })
  const name = yield* CheckpointSource.backendOf(source, given)
  yield* Console.error([place, ...given.weights === "f32" ? [] : [given.weights],
    ...Option.isSome(given.draft) ? [`draft in ${given.draft.value}`] : [], name].join(", "))
  for (const line of told(generation, codec.vocabSize, own.stopIds)) yield* Console.error(line)
  const isTold = source.format === "huggingface" || (yield* source.generationConfig ?? Effect.undefined) !== undefined
  if (isTold && generation?.isDrawn === false && decided.length === 0) {
    yield* Console.error("the model's folder does not set do_sample to true, so transformers takes the likeliest " +
      "tokens: --greedy does; this draws")
  }

  const terminal = yield* Terminal.Terminal
  const show = (yield* (yield* Stdio.Stdio).stdoutIsTerminal) ? visible : identity // a file gets what was written
  const isOne = single !== undefined && given.candidates === 1
  const waiting = new Map<number, { readonly id: string | number; readonly prompt: string; ended: number }>()
  const prompts = (single === undefined ? Prompts.fromFile(file) : Stream.fromIterable(first)).pipe(
    Stream.zipWithIndex,
    Stream.map(([{ id, prompt }, item]): Prompt => {
      waiting.set(item, { id, prompt, ended: 0 })
      return { item, ids: idsOf(codec, prompt) }
    })
  )
  /** An answer as it is printed; its prompt is forgotten after the last. */
  const printed = ({ candidate, ids, item, logProbs, passes, reason, text }: Answer): string => {
    const asked = waiting.get(item) ?? { id: item, prompt: "", ended: 0 }
    if (++asked.ended === given.candidates) waiting.delete(item)
    const { id, prompt } = asked
    return given.json
      ? JSON.stringify({
        id, candidate, text, tokens: ids, reason, ...given.logProbs ? { logProbs } : {}, ...hasDraft ? { passes } : {}
      })
      : show(`--- ${id}${given.candidates > 1 ? `, candidate ${candidate}` : ""} (${reason})\n${prompt}${text}`)
  }
  const generate = Effect.gen(function*() {
    const decoder = yield* decoderOf(source, {
      weights: given.weights, slots, contextLength, ...Option.isSome(given.draft) ? { draft: given.draft.value } : {},
      ...single === undefined ? {} : { promptLength: idsOf(codec, single).length }
    })
    if (isOne && !given.json) yield* terminal.display(show(single))
    const began = yield* Clock.currentTimeNanos
    const pace: Pace = { count: 0, first: 0n, ended: 0, passes: 0 }
    let reason: Reason | undefined
    const events = Stream.tap(decoder.generateFrom(prompts, settings), (event) => {
      if (event._tag === "Token") {
        return pace.count++ > 0 ? Effect.void : Effect.map(Clock.currentTimeNanos, (now) => {
          pace.first = now - began
        })
      }
      pace.ended++
      pace.passes += event.passes
      return Effect.void
    })
    yield* isOne && !given.json
      ? Stream.runForEach(events, (event) => {
        if (event._tag === "End") reason = event.reason
        return terminal.display(show(event.text))
      }).pipe(
        Effect.onError(() => Effect.ignore(terminal.display("\n")))) // what is told of it begins a line
      : Stream.runForEach(answers(events), (answer) => Console.log(printed(answer)))
    if (isOne && !given.json) yield* terminal.display("\n")
    const end = endOf(reason, given.maxTokens, contextLength)
    yield* Console.error(`${paceOf(pace, (yield* Clock.currentTimeNanos) - began, hasDraft)}${end}`)
  })
  yield* generate.pipe(Effect.scoped, Effect.provide([
    Transformer.layer, BackendChoice.layer(name, Option.getOrUndefined(given.threads)),
    Layer.succeed(Tokenizer.Tokenizer, codec)
  ]))
}, Effect.scoped)).pipe(
  Command.withShortDescription("Continue prompts with a trained model"),
  Command.withDescription(
    "Continues prompts with the model of a run, from its newest snapshot, or with a checkpoint of others. The prompt " +
      "is an argument or standard input; without any, the model begins a document of its own. Files hold many: they " +
      "are read as slots become free, and answers are printed as they end, not in the order of their prompts. The " +
      "same seed gives the same answers, however many are written together."
  ),
  Command.withExamples([
    { command: "cria generate \"One morning\"", description: "Continue with the model that trained last" },
    { command: "cria generate \"One morning\" --model runs/stories --best --temperature 0.5 --seed 3",
      description: "From the best snapshot of a run, with less chance, another time" },
    { command: "cria generate \"One morning\" --model llama-2-7b --weights 4-bit --context-length 512",
      description: "Seven thousand million weights in ten gigabytes" },
    { command: "cria generate --prompt-file prompts.jsonl --candidates 4 --json > answers.jsonl",
      description: "Four answers to each of many prompts, for a program" }
  ])
)
