/**
 * What a command says of a failure: its message in the words of the command line, and what to do.
 *
 * Parts of the library name their options, a command its flags: `maximumTokens` is told as `--max-tokens`. A failure of
 * the file system is told with the path, the cause and a remedy.
 *
 * From     Cria's own.
 * Checked  test/cli/FailureMessage.test.ts (every message, as text; no name of an option is left in any).
 *
 * @module
 */
import * as PlatformError from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import * as Durable from "../store/Durable.ts"
import { flagOf, keys, SettingsError } from "./Settings.ts"

/** Names of options that are no plain English words, and their flags; those of the settings have the same words. */
const flags: ReadonlyMap<string, string> = new Map([
  ...keys.filter((key) => /[A-Z]/.test(key)).map((key) => [key, flagOf(key)] as const),
  ["stepCount", "--steps"], ["warmupSteps", "--warmup"], ["microBatchCount", "--micro-batches"],
  ["maximumTokens", "--max-tokens"], ["temperature", "--temperature"], ["topK", "--top-k"], ["topP", "--top-p"],
  ["characterCoverage", "--character-coverage"], ["maxPieceLength", "--max-piece-length"],
  ["maxSentenceLength", "--max-line-bytes"], ["requiredCharacters", "--required-characters"],
  ["sample.lines", "--sample-lines"], ["splitDigits", "--split-digits"], ["byteFallback", "--byte-fallback"],
  ["controlSymbols", "--control"], ["userDefinedSymbols", "--symbol"]
])

const word = new RegExp(`(?<![\\w"./-])(${[...flags.keys()].join("|").replaceAll(".", "\\.")})(?![\\w"])`, "g")

const inFlags = (text: string): string => text.replace(word, (name) => flags.get(name) ?? name)

/** What failures say that know options, in the words of the command line. */
const translations: Readonly<Record<string, (message: string, command: string | undefined) => string>> = {
  RequestError: (message) => inFlags(message).replace(/^( {2})candidates must/m, "$1--candidates must")
    .replace(/^( {2})an empty stop text/m, "$1an empty --stop"),
  // prompts are told by their lines
  ContextFullError: (message) => inFlags(message)
    .replace(/^( {2}prompt )(\d+)(?= has )/gm, (_, said: string, item) => `${said}${Number(item) + 1}`)
    .replace(/, or let answers end with the context \(.*\)/, ""),
  ResumeError: (message) => message.replace(/^( {2})((?:model\.)?)(\w+)(?=: saved )/gm, (field, indent, _, name) =>
    flagOfKey(name) === name ? field : `${indent}${flagOfKey(name)}`),
  TrainerOptionsError: (message) => inFlags(message).replace(/\n {2}begin with .*$/,
    "\n  cria tokenizer train --help says what each flag takes"),
  EmptyPartError: inFlags,
  RowError: (message) => message.replace(/if the text stands in another field, name that field$/,
    "rename the field that holds the text"),
  // pretrain covers characters as it does
  VocabSizeError: (message, command) => inFlags(command !== "pretrain" ? message
    : message.replace(/lower characterCoverage .*$/, "learn from text with fewer kinds of characters")),
  WindowError: (message) => inFlags(message).replace(/^( {2})(window|stride) must/gm, "$1--$2 must")
}

/** What can be done about a failure of the file system, by what the system calls it. */
const causes: ReadonlyMap<string, string> = new Map([
  ["ENOENT", "There is no such file or folder: check the spelling; a relative path starts at the folder the command " +
    "runs in."],
  ["ENOTDIR", "A part of this path is a file where a folder should be: name another."],
  ["EISDIR", "This is a folder where a file should be: name a file."],
  ["EACCES", "It is not permitted: ask for the permission, or name another place."],
  ["EPERM", "It is not permitted: ask for the permission, or name another place."],
  ["EROFS", "Nothing can be written there: name another place."],
  ["ENOSPC", "The disk is full: free some space, or name another place."],
  ["EDQUOT", "Your share of the disk is full: free some space, or name another place."],
  ["ELOOP", "Links lead in a circle: name the file itself."],
  ["ENAMETOOLONG", "The name is too long: give a shorter one."]
])

const ofFiles = (error: PlatformError.PlatformError): string => {
  const { cause, reason } = error
  const said = Durable.reason(error)
  const place = "pathOrDescriptor" in reason ? String(reason.pathOrDescriptor) : ""
  const code = Predicate.hasProperty(cause, "code") ? String(cause.code) : ""
  const remedy = causes.get(code) ?? "See whether the file is there, whole, and yours to use."
  return `${said.includes(place) ? "" : `${place}: `}${said}\n  ${remedy}`
}

/** Whether it is that of standard output, which the process tells. */
export const isOfOutput = (error: unknown): boolean =>
  PlatformError.isPlatformError(error) && error.reason.module === "Terminal" && error.reason.method === "display"

/** Whether an error of standard output means that whoever read it went away. */
export const isReaderGone = (error: Error): boolean => Predicate.hasProperty(error, "code") && error.code === "EPIPE"

/** The message where standard output cannot be written. */
export const ofOutput = (cause: Error): string =>
  ofFiles(PlatformError.systemError({
    _tag: "Unknown", module: "Stdio", method: "stdout", pathOrDescriptor: "standard output", cause
  }))

/** A key as its flag: `text.1` is a second `--text`. */
const flagOfKey = (key: string): string => {
  const [name = "", ...rest] = key.split(".")
  return keys.includes(name) || flags.has(name) ? [flags.get(name) ?? flagOf(name), ...rest].join(" ") : key
}

const ofSettings = ({ faults }: SettingsError): string => [
  "flags: these settings cannot be used",
  ...faults.map(({ expected, key, value }) => {
    const flag = flagOfKey(key)
    const told = inFlags(expected) // which may name the flag and the value again
    const rest = told.startsWith(`${flag} must `) ? told.slice(flag.length + 1).replace(`, got ${value}`, "") : told
    return `  ${flag} ${value}: ${rest}`
  })
].join("\n")

/** The message of a failure, or of a defect; of one that a command met, with no flag that the command does not have. */
export const of = (error: unknown, command?: string): string => {
  if (!(error instanceof Error)) return String(error)
  if (PlatformError.isPlatformError(error)) return ofFiles(error)
  if (error instanceof SettingsError && error.source === "flags") return ofSettings(error)
  const translate = Predicate.hasProperty(error, "_tag") ? translations[String(error._tag)] : undefined
  return translate === undefined ? error.message : translate(error.message, command)
}
