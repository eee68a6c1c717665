/**
 * `cria tokenizer compare`: two tokenizers over one corpus, and where they first differ.
 *
 * Checked  test/cli/TokenizerCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Corpus from "../../data/Corpus.ts"
import type { Document } from "../../data/Document.ts"
import * as Utf8 from "../../token/Utf8.ts"
import * as Screen from "../Screen.ts"
import { corpusLayer } from "../Training.ts"
import { pathArgument, pathFlag } from "../Flags.ts"
import * as TokenizerFile from "./TokenizerFile.ts"

/** Two tokenizers cut a corpus differently; told, so that a script sees it. */
export class TokenizersDifferError extends Schema.TaggedError<TokenizersDifferError>()("TokenizersDifferError", {
  different: Schema.Int,
  documents: Schema.Int
}) {
  override get message() {
    return `the tokenizers cut ${this.different} of ${this.documents} documents differently`
  }
}

/** The pieces around a place where two cuts of a text part. */
const around = (pieces: ReadonlyArray<string>, at: number): string =>
  `${at > 3 ? "… " : ""}${pieces.slice(Math.max(0, at - 3), at + 5).map((piece) => JSON.stringify(piece)).join(" ")}` +
  (at + 5 < pieces.length ? " …" : "")

/** The command. */
export const command = Command.make("compare", {
  one: pathArgument("one").pipe(Argument.withDescription("A tokenizer file, or a folder with one")),
  other: pathArgument("other").pipe(Argument.withDescription("Another")),
  text: pathFlag("text").pipe(
    Flag.atLeast(0), Flag.withMetavar("PATH"),
    Flag.withDescription("The corpus: files, folders or patterns; small stories by default")
  ),
  show: Flag.Int("show").pipe(
    Flag.withMetavar("COUNT"), Flag.withDefault(10),
    Flag.withDescription("How many of the documents that differ are shown; 10 by default")
  )
}, Effect.fnUntraced(function*({ one, other, show, text }) {
  const sides = yield* Effect.forEach([one, other], TokenizerFile.open)
  const screen = yield* Screen.make
  const corpus = yield* Corpus.Corpus.pipe(Effect.provide(corpusLayer(text)))
  const tokens = [0, 0]
  let [bytes, documents, different, renumbered] = [0, 0, 0, 0]
  const compare = Effect.fnUntraced(function*({ source, text }: Document) {
    const ids = sides.map(({ codec }) => codec.encode(text))
    const [a, b] = ids.map((given, i) => Array.from(given, sides[i]!.codec.piece)) as [Array<string>, Array<string>]
    documents++
    bytes += Utf8.textByteCount(text)
    ids.forEach(({ length }, i) => { tokens[i]! += length })
    const at = a.findIndex((piece, i) => piece !== b[i])
    const first = at >= 0 ? at : a.length < b.length ? a.length : -1
    if (first < 0) {
      if (ids[0]!.some((id, i) => id !== ids[1]![i])) renumbered++
    } else if (++different <= show) {
      yield* screen.print(`${source.file} line ${source.line}, from token ${first} on:`)
      yield* screen.print(`  ${around(a, first)}\n  ${around(b, first)}`)
    }
    yield* screen.status(`comparing  ${documents} documents, ${Screen.quantity(bytes, "B")}, ${different} differ`)
  })
  yield* Stream.runForEach(corpus.documents, compare)
  if (different > show) yield* screen.print(`… and ${different - show} more (--show)`)
  const width = Math.max(...sides.map(({ path }) => path.length))
  for (const [i, { codec, path }] of sides.entries()) {
    yield* screen.print(
      `${path.padEnd(width)}  ${codec.vocabSize} pieces  ${tokens[i]} tokens  ` +
        `${(bytes / Math.max(1, tokens[i]!)).toFixed(3)} bytes a token`
    )
  }
  if (renumbered > 0) yield* screen.print(`${renumbered} documents have the same pieces under other ids`)
  if (different > 0) return yield* new TokenizersDifferError({ different, documents })
  yield* screen.print(`the same pieces for ${documents === 1 ? "the one document" : `all ${documents} documents`}`)
}, Effect.scoped)).pipe(
  Command.withShortDescription("Two tokenizers over one corpus"),
  Command.withDescription(
    "Encodes every document with both and shows where their pieces first part, and bytes a token of each. Files " +
      "are cut into documents of at most 2048 characters, as for training; rows of .jsonl files are documents. The " +
      "exit code is 1 if any document differs."
  ),
  Command.withExamples([
    { command: "cria tokenizer compare runs/a runs/b --text books/", description: "Two runs' tokenizers" },
    { command: "cria tokenizer compare llama/tokenizer.model llama/tokenizer.json --text \"texts/*.jsonl\" --show 3",
      description: "Two files that should be one tokenizer" }
  ])
)
