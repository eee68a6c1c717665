/**
 * `cria tokenizer encode` and `cria tokenizer decode`: text to ids and back, for pipes.
 *
 * Checked  test/cli/TokenizerCommand.test.ts.
 *
 * @module
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Terminal from "effect/Terminal"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import { IdRangeError } from "../../token/Detokenizer.ts"
import { given, pathFlag, switched, textArgument } from "../Flags.ts"
import * as Input from "../Input.ts"
import { visible } from "../Screen.ts"
import * as TokenizerFile from "./TokenizerFile.ts"

/** Words that are no ids. */
export class IdSyntaxError extends Schema.TaggedError<IdSyntaxError>()("IdSyntaxError", {
  word: Schema.String,
  /** Which word of the input, from 0. */
  position: Schema.Int
}) {
  override get message() {
    return `${JSON.stringify(this.word)}, number ${this.position} of the ids, is no id: ids are whole numbers from 0 ` +
      "with spaces, commas or brackets between them\n  cria tokenizer encode prints such ids."
  }
}

/** The ids of a text that lists them. */
const idsOf = (text: string): Effect.Effect<ReadonlyArray<number>, IdSyntaxError> =>
  Effect.forEach(text.split(/[\s,[\]]+/).filter((word) => word !== ""), (word, position) =>
    /^\d+$/.test(word) ? Effect.succeed(Number(word)) : Effect.fail(new IdSyntaxError({ word, position })))

/** Texts that a command works on: all of the input, or its lines. */
const partsOf = (text: string, isByLine: boolean): ReadonlyArray<string> => isByLine ? Input.lines(text) : [text]

/** Text to ids. */
export const encode = Command.make("encode", {
  text: textArgument("text").pipe(
    Argument.withDescription("What to encode; without it, the file or standard input"), Argument.optional
  ),
  file: given(pathFlag("file"), "PATH", "Read the text from a file"),
  tokenizer: TokenizerFile.flag,
  lines: switched("lines", "Each line is a text of its own: a line of ids for each"),
  bos: switched("bos", "Begin with the id of the beginning of a sequence"),
  eos: switched("eos", "End with the id of the end of a sequence"),
  pieces: switched("pieces", "Print pieces instead of ids, as JSON")
}, Effect.fnUntraced(function*({ bos, eos, file, lines, pieces, text, tokenizer }) {
  const { codec } = yield* TokenizerFile.chosen(tokenizer)
  const input = yield* Input.read(text, file)
  for (const part of partsOf(input, lines)) {
    const ids = [...bos ? [codec.bosId] : [], ...codec.encode(part), ...eos ? [codec.eosId] : []]
    yield* Console.log(pieces ? JSON.stringify(ids.map(codec.piece)) : ids.join(" "))
  }
})).pipe(
  Command.withShortDescription("Text to ids"),
  Command.withDescription(
    "Prints the ids of a text, all of it: without --lines, the line break that ends a file or standard input counts. " +
      "Text never becomes a special id: those come from --bos and --eos."
  ),
  Command.withExamples([
    { command: "cria tokenizer encode \"Once upon a time\"", description: "With the tokenizer of the last run" },
    { command: "cria tokenizer encode --file notes.txt --lines --tokenizer llama/tokenizer.model > notes.ids",
      description: "A file, line by line" }
  ])
)

/** Ids to text. */
export const decode = Command.make("decode", {
  ids: Argument.String("ids").pipe(
    Argument.withDescription("Ids; without them, the file or standard input"), Argument.variadic()
  ),
  file: given(pathFlag("file"), "PATH", "Read the ids from a file"),
  tokenizer: TokenizerFile.flag,
  lines: switched("lines", "Each line is a sequence of its own")
}, Effect.fnUntraced(function*({ file, ids, lines, tokenizer }) {
  const { codec } = yield* TokenizerFile.chosen(tokenizer)
  const { vocabSize } = codec
  const input = yield* Input.read(ids.length === 0 ? Option.none() : Option.some(ids.join(" ")), file)
  const stdio = yield* Stdio.Stdio
  const terminal = yield* Terminal.Terminal
  const isTerminal = yield* stdio.stdoutIsTerminal
  const shown = isTerminal ? visible : identity // a file gets what was decoded, and nothing else
  const end = isTerminal || lines ? "\n" : ""
  for (const part of partsOf(input, lines)) {
    const numbers = yield* idsOf(part)
    const position = numbers.findIndex((id) => id >= vocabSize)
    if (position >= 0) return yield* new IdRangeError({ id: numbers[position]!, position, vocabSize })
    const text = codec.decode(numbers)
    yield* terminal.display(`${shown(text)}${end}`)
  }
})).pipe(
  Command.withShortDescription("Ids to text"),
  Command.withDescription(
    "Prints the text of ids, to the byte: a line break follows on a terminal and, with --lines, after each. Special " +
      "ids are silent."
  ),
  Command.withExamples([
    { command: "cria tokenizer decode 1 15043 3186", description: "Ids as arguments" },
    { command: "cria tokenizer encode --file a.txt | cria tokenizer decode", description: "There and back" }
  ])
)
