/**
 * `cria tokenizer train`: learns a vocabulary from text.
 *
 * Checked  test/cli/TokenizerCommand.test.ts.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Corpus from "../../data/Corpus.ts"
import * as Key from "../../random/Key.ts"
import * as Trainer from "../../token/Trainer.ts"
import * as Utf8 from "../../token/Utf8.ts"
import { given, pathFlag, textFlag } from "../Flags.ts"
import * as Screen from "../Screen.ts"
import { corpusLayer } from "../Training.ts"
import * as TokenizerFile from "./TokenizerFile.ts"

const defaults = Trainer.llama(32_000)

const switchOf = (name: string, isOn: boolean, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDefault(isOn), Flag.withDescription(description))

const symbols = (name: string, description: string) =>
  textFlag(name).pipe(Flag.atLeast(0), Flag.withMetavar("PIECE"), Flag.withDescription(description))

const flags = {
  text: pathFlag("text").pipe(
    Flag.atLeast(0), Flag.withMetavar("PATH"),
    Flag.withDescription("What to learn from: a text file, a .jsonl file, a folder of them, or a pattern; may be " +
      "given more than once. Without it: small stories that Cria makes up.")
  ),
  out: pathFlag("out").pipe(
    Flag.withMetavar("FILE"), Flag.withDefault("tokenizer.model"),
    Flag.withDescription("Where the tokenizer goes; the ending says how it is written: .model (SentencePiece), .json " +
      "(Hugging Face), .bin (llama2.c); tokenizer.model by default")
  ),
  vocabSize: Flag.Int("vocab-size").pipe(
    Flag.withMetavar("COUNT"), Flag.withDefault(defaults.vocabSize),
    Flag.withDescription("Pieces in all, met exactly; 32000 by default, as Llama 2 has")
  ),
  characterCoverage: given(Flag.Finite("character-coverage"), "SHARE", "The share of the text, by character, whose " +
    `characters become pieces; rarer ones are left to the bytes; ${defaults.characterCoverage} by default`),
  requiredCharacters: given(textFlag("required-characters"), "TEXT", "Characters that become pieces however rare"),
  maxPieceLength: given(Flag.Int("max-piece-length"), "COUNT", "Most characters of a piece; " +
    `${defaults.maxPieceLength} by default`),
  maxLineBytes: given(Flag.Int("max-line-bytes"), "COUNT", "Longer lines are passed over, and counted; " +
    `${defaults.maxSentenceLength} by default`),
  sampleLines: given(Flag.Int("sample-lines"), "COUNT", "Learn from so many lines, drawn at random, instead of all"),
  seed: Flag.Int("seed").pipe(
    Flag.withMetavar("NUMBER"), Flag.withDefault(0), Flag.withDescription("Another seed, another sample; 0 by default")
  ),
  splitDigits: switchOf("split-digits", defaults.splitDigits, "Every digit is a piece by itself; on by default"),
  splitByScript: switchOf("split-by-script", defaults.splitByUnicodeScript, "No piece joins two scripts; " +
    "on by default"),
  whitespacePieces: switchOf("whitespace-pieces", defaults.allowWhitespaceOnlyPieces, "Runs of spaces may become " +
    "pieces; on by default"),
  byteFallback: switchOf("byte-fallback", defaults.byteFallback, "Unknown characters become bytes, so that no text " +
    "is lost; on by default"),
  dummyPrefix: switchOf("dummy-prefix", defaults.addDummyPrefix, "A space is put before every text; on by default"),
  control: symbols("control", "A further control piece, which text never becomes; may be given more than once"),
  symbol: symbols("symbol", "A piece that is matched before anything else; may be given more than once")
}

/** The command. */
export const command = Command.make("train", flags, Effect.fnUntraced(function*(given) {
  yield* TokenizerFile.requireWritable(given.out)
  const screen = yield* Screen.make
  const began = yield* Clock.monotonicTimeNanos
  const corpus = yield* Corpus.Corpus.pipe(Effect.provide(corpusLayer(given.text)))
  let bytes = 0
  const texts = corpus.documents.pipe(Stream.map(({ text }) => text), Stream.tap((text) => {
    bytes += Utf8.textByteCount(text)
    const share = corpus.bytes === undefined ? "" : `${Screen.bar(bytes / corpus.bytes, 20)} `
    return screen.status(`reading    ${share}${Screen.quantity(bytes, "B")}`)
  }))
  const { model, statistics } = yield* Trainer.train(texts, {
    vocabSize: given.vocabSize,
    characterCoverage: Option.getOrElse(given.characterCoverage, () => defaults.characterCoverage),
    requiredCharacters: Option.getOrElse(given.requiredCharacters, () => defaults.requiredCharacters),
    maxPieceLength: Option.getOrElse(given.maxPieceLength, () => defaults.maxPieceLength),
    maxSentenceLength: Option.getOrElse(given.maxLineBytes, () => defaults.maxSentenceLength),
    splitDigits: given.splitDigits,
    splitByUnicodeScript: given.splitByScript,
    allowWhitespaceOnlyPieces: given.whitespacePieces,
    byteFallback: given.byteFallback,
    addDummyPrefix: given.dummyPrefix,
    controlSymbols: given.control,
    userDefinedSymbols: given.symbol,
    ...Option.isNone(given.sampleLines) ? {} : {
      sample: { lines: given.sampleLines.value, key: Key.derive(Key.make(given.seed), "tokenizer sample") }
    }
  })
  yield* TokenizerFile.save(given.out, model)
  const seconds = Number((yield* Clock.monotonicTimeNanos) - began) / 1e9
  const {
    characters, distinctWords, lines, linesNotDrawn, linesReserved, linesTooLong, merges, rareCharacters, words
  } = statistics
  yield* screen.print(`${given.out}: ${model.pieces.length} pieces in ${seconds.toFixed(1)} s`)
  yield* screen.print(
    `  read       ${lines} lines, ${Screen.quantity(words)} words, ${Screen.quantity(distinctWords)} different` +
      `${linesNotDrawn === 0 ? "" : `; ${linesNotDrawn} lines were not drawn`}`
  )
  yield* screen.print(
    `  learned    ${characters} characters and ${merges} merges; ${rareCharacters} rare characters are left to ` +
      (given.byteFallback ? "the bytes" : "<unk>")
  )
  if (linesTooLong > 0) {
    yield* screen.print(`  passed     ${linesTooLong} lines of more than the longest allowed: --max-line-bytes`)
  }
  if (linesReserved > 0) {
    yield* screen.print(`  passed     ${linesReserved} lines with U+2585, which SentencePiece keeps for itself`)
  }
}, Effect.scoped)).pipe(
  Command.withShortDescription("Learn a vocabulary from text"),
  Command.withDescription(
    "Trains a byte-pair tokenizer as SentencePiece does, with Llama 2's options: the same text gives the same pieces " +
      "in the same order. Memory grows with the number of different words, not with the text."
  ),
  Command.withExamples([
    { command: "cria tokenizer train --text books/ --vocab-size 8000 --out books.model", description: "From a folder" },
    { command: "cria tokenizer train --text code.jsonl --vocab-size 16000 --no-split-digits --symbol \"<think>\"",
      description: "Digits may join, and one piece is matched first" }
  ])
)
