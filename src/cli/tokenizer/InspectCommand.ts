/**
 * `cria tokenizer inspect`: what a vocabulary holds, and how it cuts a text.
 *
 * Checked  test/cli/TokenizerCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import { isDigit } from "../../token/Script.ts"
import type { PieceType } from "../../token/SentencePiece.ts"
import * as Utf8 from "../../token/Utf8.ts"
import { given, pathFlag, switched, textArgument } from "../Flags.ts"
import * as Input from "../Input.ts"
import * as Screen from "../Screen.ts"
import * as TokenizerFile from "./TokenizerFile.ts"

const digitCount = (text: string): number =>
  Array.from(text).filter((character) => isDigit(character.codePointAt(0)!)).length

const hasDigit = (text: string): boolean => digitCount(text) > 0

const digitsAlone = (text: string): boolean => Array.from(text).length === 1 || !hasDigit(text)

/** What a vocabulary holds, in lines. */
export const describe = (
  { codec, isLegacy, model: { normalizer, pieces, trainer }, path }: TokenizerFile.Opened
) => {
  const count = (wanted: PieceType): number => pieces.filter(({ type }) => type === wanted).length
  const types = (["normal", "byte", "control", "unknown", "user-defined", "unused"] as const)
    .flatMap((type) => count(type) === 0 ? [] : [`${count(type)} ${type}`])
  const words = pieces.filter(({ type }) => type === "normal")
  const joined = words.filter(({ text }) => !digitsAlone(text))
  const length = ({ text }: { readonly text: string }): number => Array.from(text).length
  const longest = words.toSorted((a, b) => length(b) - length(a)).slice(0, 3).map(({ text }) => JSON.stringify(text))
  const { bosId, eosId, padId, unkId } = codec
  return [
    `${path}: ${pieces.length} pieces`,
    `  pieces     ${types.join(", ")}${longest.length === 0 ? "" : `; longest ${longest.join(", ")}`}`,
    `  specials   <unk> ${unkId}, ${trainer.bosPiece} ${bosId}, ${trainer.eosPiece} ${eosId}` +
      `, padding ${padId ?? "none"}`,
    `  spaces     ${!normalizer.addDummyPrefix
      ? "none is added"
      : isLegacy ? "one is put before every text" : "one is put before a first text that begins with none"}; ` +
      (normalizer.removeExtraWhitespaces ? "runs are made one" : "all are kept"),
    `  digits     ${joined.length === 0
      ? "single: no piece joins one to anything"
      : `${joined.length} pieces join them: ${joined.slice(0, 5).map(({ text }) => JSON.stringify(text)).join(", ")}`}`,
    `  unknown    characters become ${count("byte") === 256 ? "their bytes" : "<unk>: text is lost"}`
  ]
}

/** How many tokens a text takes, and why, in lines. */
export const measure = ({ codec, model }: TokenizerFile.Opened, text: string, ids: Int32Array) => {
  const bytes = Utf8.textByteCount(text)
  const characters = Array.from(text)
  const digits = digitCount(text)
  let [fallback, withDigits, held] = [0, 0, 0]
  for (const id of ids) {
    if (model.pieces[id]!.type === "byte") fallback++
    else if (hasDigit(codec.piece(id))) {
      withDigits++
      held += digitCount(codec.piece(id))
    }
  }
  const rest = model.pieces.some(({ type }) => type === "byte") ? "fell back to bytes" : "became <unk>"
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`
  return [
    `  tokens     ${ids.length} for ${bytes} bytes, ${characters.length} characters: ` +
      `${(bytes / Math.max(1, ids.length)).toFixed(2)} bytes a token`,
    `  fallback   ${fallback} tokens are single bytes (${percent(fallback / Math.max(1, ids.length))})`,
    ...digits === 0 ? [] : [`  digits     ${digits} digits` + (withDigits === 0
      ? `, none in a piece of this vocabulary: they ${rest}`
      : ` in ${withDigits} tokens that hold any${held < digits ? `; ${digits - held} ${rest}` : ""}`)]
  ]
}

/** Backgrounds that neighbours differ by, readable under dark and light text alike. */
const colours = [153, 223, 194, 225, 229] as const

/** Pieces of a text, coloured in turn on a terminal, with bars between them elsewhere. */
const cut = ({ codec, model }: TokenizerFile.Opened, ids: Int32Array, isColoured: boolean): string => {
  const shown = Array.from(ids, (id) => {
    const piece = codec.piece(id)
    const text = model.pieces[id]!.type === "byte" ? piece : Screen.visible(piece.replaceAll("\u2581", " "))
    return isColoured ? text : text.replaceAll("|", "\\|")
  })
  return isColoured
    ? shown.map((text, i) =>
      `\u001B[30;48;5;${colours[i % colours.length]}m${text.replaceAll("\n", "\u23CE\u001B[0m\n")}\u001B[0m`).join("")
    : shown.join("|")
}

/** The command. */
export const command = Command.make("inspect", {
  text: textArgument("text").pipe(
    Argument.withDescription("A text to cut; without it, the file or standard input, or only the vocabulary"),
    Argument.optional
  ),
  file: given(pathFlag("file"), "PATH", "Read the text from a file"),
  tokenizer: TokenizerFile.flag,
  all: switched("all", "Show all pieces of a long text, not only the first 400")
}, Effect.fnUntraced(function*({ all, file, text, tokenizer }) {
  const opened = yield* TokenizerFile.chosen(tokenizer)
  const screen = yield* Screen.make
  for (const line of describe(opened)) yield* screen.print(line)
  const input = yield* Input.read(text, file)
  if (input === "") return
  const ids = opened.codec.encode(input)
  const first = all ? ids : ids.slice(0, 400)
  yield* screen.print(`\n${cut(opened, first, screen.isTerminal)}\n`)
  if (first.length < ids.length) {
    yield* screen.print(`  (${ids.length - first.length} more tokens are counted, not shown: --all)`)
  }
  for (const line of measure(opened, input, ids)) yield* screen.print(line)
}, Effect.scoped)).pipe(
  Command.withShortDescription("What a vocabulary holds, and how it cuts a text"),
  Command.withDescription(
    "Shows the kinds of pieces, special ids, and how spaces, digits and unknown characters are treated; of a text, " +
      "its pieces in colours, bytes a token, and how much falls back to bytes."
  ),
  Command.withExamples([
    { command: "cria tokenizer inspect", description: "The vocabulary of the last run" },
    { command: "cria tokenizer inspect \"In 1984, 3.14\" --tokenizer llama/tokenizer.model", description: "A text" }
  ])
)
