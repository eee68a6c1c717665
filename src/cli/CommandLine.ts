/**
 * The command line: `cria` and its commands, and how a failure is told.
 *
 * A failure is a sentence on standard error and the exit code 1, without a stack; `--log-level debug` adds it. Ctrl-C
 * is the exit code 130, `kill` 143, and 141 that of an output whose reader went away (`cria … | head`). A line that
 * cannot be read is told in a sentence too; help is for who asks for it.
 *
 * Checked  test/cli/CommandLine.test.ts.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as DoctorCommand from "./DoctorCommand.ts"
import * as EvaluateCommand from "./EvaluateCommand.ts"
import * as ExportCommand from "./ExportCommand.ts"
import * as FailureMessage from "./FailureMessage.ts"
import * as GenerateCommand from "./GenerateCommand.ts"
import * as ImportCommand from "./ImportCommand.ts"
import * as InspectCommand from "./InspectCommand.ts"
import * as PretrainCommand from "./PretrainCommand.ts"
import { visible } from "./Screen.ts"
import * as TokenizerCommand from "./TokenizerCommand.ts"

const commands = [
  PretrainCommand.command, GenerateCommand.command, EvaluateCommand.command, ImportCommand.command,
  ExportCommand.command, InspectCommand.command, TokenizerCommand.command, DoctorCommand.command
] as const

const names: ReadonlySet<string> = new Set(commands.map(({ name }) => name))

/** `cria` with all its commands. */
export const command = Command.make("cria").pipe(
  Command.withDescription(
    "Llama 2 from scratch: train a small model on text of yours, and let it write. `cria COMMAND --help` teaches a " +
      "command."
  ),
  Command.withSubcommands(commands)
)

/** What a command can do about a failure that a part of the library knows no command for. */
const remedies: Readonly<Record<string, string>> = {
  PieceCountError: "--tokenizer PATH names another.",
  NonFiniteError: "cria pretrain --from FOLDER --learning-rate RATE trains on from the last snapshot of this run."
}

/** What each command can do about a damaged snapshot. */
const afterDamage: ReadonlyMap<string, string> = new Map([
  ["pretrain", "--resume-intact goes on from the newest undamaged snapshot."],
  ["generate", "--snapshot STEP generates from another of its run."],
  ...["evaluate", "import", "export", "inspect"].map((name): [string, string] =>
    [name, "Give the folder of another snapshot in place of the run."])
])

const said = (error: unknown, args: ReadonlyArray<string>): string => {
  const tag = Predicate.hasProperty(error, "_tag") ? String(error._tag) : ""
  const name = args.find((arg) => names.has(arg))
  const remedy = tag === "SnapshotDamagedError" ? afterDamage.get(name ?? "") : remedies[tag]
  return `error: ${FailureMessage.of(error, name)}${remedy === undefined ? "" : `\n${remedy}`}`
}

/** What is said of a cause: the messages of all failures; a defect is called one. */
const sentences = (cause: Cause.Cause<unknown>, args: ReadonlyArray<string>): ReadonlyArray<string> =>
  cause.reasons.flatMap((reason) => {
    if (Cause.isInterruptReason(reason)) return []
    if (FailureMessage.isOfOutput(Cause.isFailReason(reason) ? reason.error : reason.defect)) return []
    if (Cause.isFailReason(reason)) {
      return CliError.isCliError(reason.error) ? [] : [said(reason.error, args)] // the parser has said it
    }
    const message = FailureMessage.of(reason.defect)
    return [`error: ${message}\n  Cria did not expect this; --log-level debug shows where it happened.`]
  })

/** A whole number that no number in JavaScript is, which the parser calls none. */
const withBounds = (message: string): string =>
  message.replace(/("-?\d{16,}"\. Expected an integer)$/, `$1 of at most ${Number.MAX_SAFE_INTEGER}`)

/** What the parser says is wrong; of an argument whose letters it took for flags, the argument. */
const whole = (error: CliError.NonShowHelpErrors, args: ReadonlyArray<string>): CliError.NonShowHelpErrors => {
  const letter = error._tag !== "UnrecognizedOption" || args.includes(error.option) ? undefined
    : /^-([^-])$/u.exec(error.option)?.[1]
  const option = letter === undefined ? undefined : args.find((arg) => /^-[^-]/.test(arg) && arg.includes(letter))
  return error._tag !== "UnrecognizedOption" || option === undefined ? error
    : new CliError.UnrecognizedOption({ option, suggestions: [], ...error.command && { command: error.command } })
}

/** Values that the parser took for flags, for they begin with a dash, as their flags would be given them. */
const joined = (
  errors: ReadonlyArray<CliError.NonShowHelpErrors>, args: ReadonlyArray<string>
): ReadonlyArray<{ readonly flag: string; readonly value: string }> => {
  const flags = errors.flatMap((error) =>
    error._tag === "InvalidValue" && error.value === "" ? [`--${error.option}`] : [])
  const unknown = errors.flatMap((error) => error._tag === "UnrecognizedOption" ? [error.option] : [])
  return args.flatMap((flag, i) => {
    const value = args[i + 1] ?? ""
    return flags.includes(flag) && unknown.includes(value) ? [{ flag, value }] : []
  })
}

/** Tells what cannot be read of a line, and where its help is. */
const presenter = (args: ReadonlyArray<string>): CliOutput.Presenter => ({
  present: (event) => {
    if (event._tag !== "InvalidInvocation") return CliOutput.defaultPresenter.present(event)
    const name = event.commandPath.join(" ")
    const all = event.errors.map((error) => whole(error, args))
    const values = joined(all, args)
    const errors = all.filter((error) =>
      error._tag !== "UnrecognizedOption" || !values.some(({ value }) => value === error.option))
    const mayBeText = (event.helpDoc.args ?? []).length > 0 &&
      errors.some((error) => error._tag === "UnrecognizedOption" && error.suggestions.length === 0)
    return Console.error([
      ...new Set(errors.map(({ message }) => `error: ${visible(withBounds(message))}`)),
      ...values.map(({ flag, value }) =>
        `  A value that begins with a dash is joined to its flag: ${visible(`${flag}=${JSON.stringify(value)}`)}`),
      ...!mayBeText ? [] : name === "cria generate"
        ? [`  If it is a prompt: ${name} -- "-…", with all flags before --; or a line of --prompt-file -.`]
        : [`  If it is no flag: ${name} -- "-…", with all flags before --.`],
      `  ${name} --help explains what it takes.`
    ].join("\n"))
  }
})

/** Arguments whose letters the parser refuses one by one, as `whole` tells, without those that it takes for flags. */
const withoutHelp = (args: ReadonlyArray<string>): ReadonlyArray<string> => {
  const end = args.indexOf("--")
  return args.map((arg, i) => (end < 0 || i < end) && /^-[^-]*[^-hv]/.test(arg) ? arg.replaceAll(/[hv]/g, "") : arg)
}

/** Runs the command line on its arguments; a failure is told, and stays one. */
export const run = (version: string, args: ReadonlyArray<string>) =>
  Command.runWith(command, { version })(withoutHelp(args)).pipe(
    Effect.provideService(CliOutput.Presenter, presenter(args)),
    Effect.tapCause((cause) => Effect.gen(function*() {
      yield* Effect.logDebug(Cause.pretty(cause))
      yield* Effect.forEach(sentences(cause, args), (sentence) => Console.error(sentence), { discard: true })
    }))
  )
