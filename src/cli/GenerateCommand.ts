/**
 * `cria generate`: continues a prompt with the model of a run.
 *
 * The prompt is an argument, a file, or standard input. Text goes to standard output as it is written; which model
 * writes it, to standard error.
 *
 * Checked  test/cli/GenerateCommand.test.ts.
 *
 * @module
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Terminal from "effect/Terminal"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { greedy, Options as SamplingOptions, type Rule, sampling } from "../generate/Sampling.ts"
import * as Transformer from "../llama/Transformer.ts"
import * as Snapshot from "../store/Snapshot.ts"
import * as Tokenizer from "../token/Tokenizer.ts"
import { continuation } from "./Continuation.ts"
import { FlagConflictError, given, switched } from "./Flags.ts"
import * as Host from "./Host.ts"
import * as RunFolder from "./RunFolder.ts"
import { visible } from "./Screen.ts"
import * as Settings from "./Settings.ts"

const flags = {
  prompt: Argument.String("prompt").pipe(
    Argument.withDescription("What to continue; without it, the file or standard input"), Argument.optional
  ),
  file: given(Flag.String("file"), "PATH", "Read the prompt from a file"),
  run: given(Flag.String("run"), "FOLDER", "The folder of the run; by default the one in runs/ that trained last"),
  snapshot: given(Flag.Int("snapshot"), "STEP", "The step of the snapshot; by default the newest"),
  best: switched("best", "The snapshot with the lowest validation loss"),
  temperature: given(Flag.Finite("temperature"), "NUMBER", "Below 1 safer, above 1 wilder; 0.8 by default"),
  topK: given(Flag.Int("top-k"), "COUNT", "Choose among so many likeliest tokens only"),
  topP: given(Flag.Finite("top-p"), "SHARE", "Choose among the likeliest tokens that share this much; 0.95 by default"),
  greedy: switched("greedy", "Always take the likeliest token"),
  maxTokens: Flag.Int("max-tokens").pipe(
    Flag.withMetavar("COUNT"), Flag.withDefault(200), Flag.withDescription("How many tokens at most; 200 by default")
  ),
  seed: Flag.Int("seed").pipe(
    Flag.withMetavar("NUMBER"), Flag.withDefault(0),
    Flag.withDescription("Another seed, another continuation; 0 by default")
  ),
  json: switched("json", "Print a JSON line for each token (id, text, log-probability) and one for the end"),
  threads: given(Flag.Int("threads"), "COUNT", "Threads that compute; the cores of this machine by default"),
  backend: given(Flag.Literals("backend", Settings.backendNames), "NAME", "Who computes; by default who trained")
}

type Given = Command.Command.Config.Infer<typeof flags>

const checkSampling = Schema.decodeUnknownResult(SamplingOptions, { errors: "all" })

/** How tokens are chosen. */
const ruleOf = Effect.fnUntraced(function*({ greedy: isGreedy, temperature, topK, topP }: Given) {
  const given = Object.entries({ "--temperature": temperature, "--top-k": topK, "--top-p": topP })
    .flatMap(([flag, value]) => Option.isSome(value) ? [flag] : [])
  if (isGreedy && given.length > 0) return yield* new FlagConflictError({ flags: ["--greedy", ...given] })
  if (isGreedy) return greedy
  const options = {
    temperature: Option.getOrElse(temperature, () => 0.8),
    topP: Option.getOrElse(topP, () => 0.95),
    ...Option.isSome(topK) ? { topK: topK.value } : {}
  }
  const checked = yield* Effect.fromResult(Settings.described("flags", options, checkSampling(options)))
  return sampling(checked) satisfies Rule
})

/** The prompt: the argument, or the file, or what standard input gives (nothing from a terminal). */
const promptOf = Effect.fnUntraced(function*({ file, prompt }: Given) {
  if (Option.isSome(prompt) && Option.isSome(file)) {
    return yield* new FlagConflictError({ flags: ["the argument", "--file"] })
  }
  if (Option.isSome(prompt)) return prompt.value
  if (Option.isSome(file)) return yield* (yield* FileSystem.FileSystem).readFileString(file.value)
  const stdio = yield* Stdio.Stdio
  if (yield* stdio.stdinIsTerminal) return ""
  return yield* Stream.mkString(Stream.decodeText(stdio.stdin))
})

/** The snapshot that is meant. */
const snapshotOf = Effect.fnUntraced(function*(folder: string, { best, snapshot }: Given) {
  const path = yield* Path.Path
  if (best && Option.isSome(snapshot)) return yield* new FlagConflictError({ flags: ["--best", "--snapshot"] })
  if (Option.isSome(snapshot)) return path.join(folder, Snapshot.nameOf(snapshot.value))
  const found: Option.Option<Snapshot.Listed> = best ? yield* Snapshot.best(folder) : yield* Snapshot.latest(folder)
  return Option.isSome(found) ? found.value.path : yield* new Snapshot.SnapshotMissingError({
    path: folder, wanted: best ? "snapshot with a validation loss" : "snapshot", available: []
  })
})

/** The command. */
export const command = Command.make("generate", flags, Effect.fnUntraced(function*(given) {
  const path = yield* Path.Path
  const folder = Option.isSome(given.run) ? given.run.value : yield* RunFolder.latest
  yield* RunFolder.require(folder)
  const rule = yield* ruleOf(given)
  const prompt = yield* promptOf(given)
  const snapshot = yield* snapshotOf(folder, given)
  const settings = yield* Settings.read(path.join(folder, RunFolder.configurationName))
  const name = Option.getOrElse(given.backend, () => settings.backend ?? "onnx")
  yield* Console.error(`${snapshot}, ${name}`)
  const terminal = yield* Terminal.Terminal
  const show = (yield* (yield* Stdio.Stdio).stdoutIsTerminal) ? visible : identity // a file gets what was written
  if (!given.json) yield* terminal.display(show(prompt))
  const events = continuation(snapshot, { prompt, rule, maximumTokens: given.maxTokens, seed: given.seed })
  yield* Stream.runForEach(events, (event) => {
    if (!given.json) return terminal.display(show(event.text))
    const { _tag, candidate: _, item: __, ...fields } = event
    return Console.log(JSON.stringify({ event: _tag.toLowerCase(), ...fields }))
  }).pipe(Effect.provide([
    Transformer.layer,
    Host.backendLayer(name, Option.getOrUndefined(given.threads)),
    Tokenizer.layerSentencePiece(path.join(folder, RunFolder.tokenizerName))
  ]))
  if (!given.json) yield* terminal.display("\n")
})).pipe(
  Command.withShortDescription("Continue a prompt with a trained model"),
  Command.withDescription(
    "Continues a prompt with the model of a run, from its newest snapshot. The prompt is an argument, a file or " +
      "standard input; without any, the model begins a document of its own."
  ),
  Command.withExamples([
    { command: "cria generate \"One morning\"", description: "Continue with the model that trained last" },
    { command: "cria generate \"One morning\" --run runs/stories --best --temperature 0.5 --seed 3",
      description: "From the best snapshot of a run, with less chance, another time" },
    { command: "echo \"One morning\" | cria generate --greedy --json", description: "Token by token, for a program" }
  ])
)
