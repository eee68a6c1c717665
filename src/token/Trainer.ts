/**
 * Training a SentencePiece byte-pair model: from text to a vocabulary, the same pieces in the same order as
 * SentencePiece.
 *
 *     vocabulary = <unk> <s> </s> · 256 bytes · merged pieces, best first · single characters, most frequent first
 *
 * From     Llama 2 §2.2 (byte-pair encoding, digits split, bytes for unknown characters, 32 000 pieces); the options
 *          are those in the trainer field of Llama's own `tokenizer.model`; google/sentencepiece,
 *          `src/trainer_interface.cc`.
 * Checked  test/token/Trainer.test.ts (SentencePiece's unit goldens; 664 merges of a novel by checksum),
 *          test/parity/Tokenizer.test.ts (the library, piece for piece).
 * Departs  Meta gave the 16 whitespace-only pieces of Llama a score of −10⁹ after training; SentencePiece and Cria do
 *          not. Characters that are required but do not occur are kept (SentencePiece aborts).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as LineSample from "./LineSample.ts"
import * as Merges from "./Merges.ts"
import * as SentencePiece from "./SentencePiece.ts"
import * as WordCounts from "./WordCounts.ts"

/** How to train; begin with {@link llama} and change what differs. */
export interface Options {
  /** Pieces in all, met exactly. */
  readonly vocabSize: number
  /**
   * The share of the corpus, by character, whose characters become pieces; rarer ones are left to the bytes. 0 < share
   * ≤ 1.
   */
  readonly characterCoverage: number
  /** Characters that become pieces however rare. */
  readonly requiredCharacters: string
  /** Most characters of a piece, 1 to 512. */
  readonly maxPieceLength: number
  /** Longer lines, in bytes, are passed over; the number of them is reported. */
  readonly maxSentenceLength: number
  readonly splitDigits: boolean
  readonly splitByUnicodeScript: boolean
  readonly allowWhitespaceOnlyPieces: boolean
  readonly byteFallback: boolean
  readonly addDummyPrefix: boolean
  /** Further control pieces, which text never becomes. */
  readonly controlSymbols: ReadonlyArray<string>
  /** Pieces that are matched in text before anything else. */
  readonly userDefinedSymbols: ReadonlyArray<string>
  /** Learns from so many lines, drawn by a key, instead of all; memory then grows with them too. */
  readonly sample?: LineSample.Options
}

/** The options of Llama's own tokenizer, for a vocabulary of `vocabSize`. */
export const llama = (vocabSize: number): Options => ({
  vocabSize,
  characterCoverage: 0.99995,
  requiredCharacters: "",
  maxPieceLength: 16,
  maxSentenceLength: 4192,
  splitDigits: true,
  splitByUnicodeScript: true,
  allowWhitespaceOnlyPieces: true,
  byteFallback: true,
  addDummyPrefix: true,
  controlSymbols: [],
  userDefinedSymbols: []
})

/**
 * A trained model, and what it was trained on. Save `model` with `Tokenizer.saveModel`, use it with
 * `Tokenizer.fromModel`.
 */
export interface Trained {
  readonly model: SentencePiece.Model
  readonly statistics: Statistics
}

/** What training read. Lines passed over are counted, not hidden. */
export interface Statistics {
  readonly lines: number
  /** Lines that the sample left out. */
  readonly linesNotDrawn: number
  readonly linesTooLong: number
  readonly linesReserved: number
  readonly words: number
  readonly distinctWords: number
  readonly merges: number
  /** Characters that became pieces, and those left to the bytes (or to `<unk>`). */
  readonly characters: number
  readonly rareCharacters: number
}

/** A vocabulary of the size asked for cannot be made from this text. */
export class VocabSizeError extends Schema.TaggedError<VocabSizeError>()("VocabSizeError", {
  vocabSize: Schema.Int,
  least: Schema.Int,
  /** Known only when the size was too large: finding it takes a whole training run. */
  most: Schema.optionalKey(Schema.Int),
  reserved: Schema.Int,
  characters: Schema.Int
}) {
  override get message() {
    return `tokenizer training: a vocabulary of ${this.vocabSize} pieces cannot be met\n  ` +
      `${this.reserved} reserved pieces (unknown, beginning, end, symbols, bytes) + ${this.characters} characters ` +
      `= at least ${this.least}` +
      (this.most === undefined ? "" : `; this text has pairs for at most ${this.most}`) + "\n  " +
      (this.most === undefined
        ? "raise vocabSize, or lower characterCoverage so that fewer characters need a piece"
        : `set vocabSize between ${this.least} and ${this.most}, or train on more text`)
  }
}

/** Options that contradict themselves or lie outside their range. */
export class TrainerOptionsError extends Schema.TaggedError<TrainerOptionsError>()("TrainerOptionsError", {
  problems: Schema.Array(Schema.String)
}) {
  override get message() {
    const problems = this.problems.map((problem) => `\n  ${problem}`).join("")
    return `tokenizer training: options cannot be used${problems}\n  ` +
      "begin with Trainer.llama(vocabSize) and change one field at a time"
  }
}

/** Everything that can go wrong with good input. */
export type TrainerError = VocabSizeError | TrainerOptionsError | SentencePiece.SentencePieceError

/**
 * Trains on a stream of documents (`Stream.fromIterable` for what is in memory). Each line of a document counts by
 * itself, as SentencePiece reads files. Memory grows with the number of different words only.
 */
export const train = <E, R>(
  documents: Stream.Stream<string, E, R>,
  options: Options
): Effect.Effect<Trained, E | TrainerError, R> =>
  Effect.gen(function*() {
    const reserved = yield* Effect.fromResult(reservedPieces(options))
    const reading = reader(options, reserved)
    yield* Stream.runForEachArray(documents, (chunk) => Effect.sync(() => chunk.forEach(reading.add)))
    return yield* Effect.fromResult(reading.end())
  })

/** Trains on documents in memory: {@link train} without an Effect. */
export const trainSync = (documents: Iterable<string>, options: Options): Result.Result<Trained, TrainerError> =>
  Result.flatMap(reservedPieces(options), (reserved) => {
    const reading = reader(options, reserved)
    for (const document of documents) reading.add(document)
    return reading.end()
  })

/** Takes documents one by one, and then learns. */
const reader = (options: Options, reserved: ReadonlyArray<SentencePiece.Piece>) => {
  const counts = WordCounts.make({ ...options, boundaries: reserved.map((piece) => piece.text) })
  const sample = options.sample === undefined ? undefined : LineSample.make(options.sample)
  const end = (): Result.Result<Trained, TrainerError> => {
    const kept = sample?.kept() ?? []
    kept.forEach(counts.add)
    return fromCounts(counts, (sample?.count() ?? 0) - kept.length, options, reserved)
  }
  return { add: sample?.add ?? counts.add, end }
}

/** Unknown, beginning, end, then control, user-defined and byte pieces, in the order of their ids. */
const reservedPieces = (options: Options): Result.Result<ReadonlyArray<SentencePiece.Piece>, TrainerOptionsError> => {
  const pieces: Array<SentencePiece.Piece> = [
    { text: "<unk>", score: 0, type: "unknown" },
    { text: "<s>", score: 0, type: "control" },
    { text: "</s>", score: 0, type: "control" },
    ...options.controlSymbols.map((text): SentencePiece.Piece => ({ text, score: 0, type: "control" })),
    ...options.userDefinedSymbols.map((text): SentencePiece.Piece => ({ text, score: 0, type: "user-defined" })),
    ...options.byteFallback ? SentencePiece.bytePieces : []
  ]
  const texts = pieces.map((piece) => piece.text)
  const repeated = [...new Set(texts.filter((text, i) => texts.indexOf(text) !== i))]
  const { characterCoverage, maxPieceLength, maxSentenceLength, sample, vocabSize } = options
  const problems = [
    ...Number.isInteger(vocabSize) && vocabSize > 0 ? [] : [`vocabSize ${vocabSize} is not a positive whole number`],
    ...characterCoverage > 0 && characterCoverage <= 1
      ? []
      : [`characterCoverage ${characterCoverage} is not above 0 and at most 1`],
    ...Number.isInteger(maxPieceLength) && maxPieceLength >= 1 && maxPieceLength <= 512
      ? []
      : [`maxPieceLength ${maxPieceLength} is not a whole number from 1 to 512`],
    ...sample === undefined || Number.isInteger(sample.lines) && sample.lines > 0
      ? []
      : [`sample.lines ${sample.lines} is not a positive whole number`],
    ...maxSentenceLength > 0 ? [] : [`maxSentenceLength ${maxSentenceLength} is not positive`],
    ...texts.includes("") ? ["a control or user-defined symbol is empty"] : [],
    ...repeated.map((text) => `symbol ${JSON.stringify(text)} is given twice, or is the name of a reserved piece`)
  ]
  return problems.length > 0 ? Result.fail(new TrainerOptionsError({ problems })) : Result.succeed(pieces)
}

const fromCounts = (
  counts: WordCounts.WordCounts,
  linesNotDrawn: number,
  options: Options,
  reserved: ReadonlyArray<SentencePiece.Piece>
): Result.Result<Trained, TrainerError> => {
  const frequencies = characterFrequencies(counts)
  const characters = coveredCharacters(frequencies, options)
  const least = reserved.length + characters.length
  const error = { vocabSize: options.vocabSize, least, reserved: reserved.length, characters: characters.length }
  if (options.vocabSize < least) return Result.fail(new VocabSizeError(error))
  const known = new Set(characters)
  const merges = Merges.learn(knownWords(counts, known), options, options.vocabSize - least)
  const most = least + merges.length
  if (options.vocabSize > most) return Result.fail(new VocabSizeError({ ...error, most }))
  const learned = [...merges, ...characters.map((character) => String.fromCodePoint(character))]
  const model = SentencePiece.make(
    [...reserved, ...learned.map((text, i): SentencePiece.Piece => ({ text, score: -i, type: "normal" }))],
    { ...SentencePiece.defaultTrainer, ...options, modelType: "bpe" },
    { ...SentencePiece.identityNormalizer, addDummyPrefix: options.addDummyPrefix }
  )
  return Result.map(model, (model) => ({
    model,
    statistics: {
      ...counts.statistics,
      linesNotDrawn,
      distinctWords: counts.distinct(),
      merges: merges.length,
      characters: characters.length,
      rareCharacters: [...frequencies.keys()].filter((character) => character !== tab && !known.has(character)).length
    }
  }))
}

const tab = 0x09

/** How often each character occurs in the normalized text; NUL is no character. */
const characterFrequencies = (counts: WordCounts.WordCounts): Map<number, number> => {
  const frequencies = new Map<number, number>()
  counts.forEach((word, count) => {
    for (const character of word) {
      const codePoint = character.codePointAt(0)!
      if (codePoint !== 0) frequencies.set(codePoint, (frequencies.get(codePoint) ?? 0) + count)
    }
  })
  return frequencies
}

/**
 * The characters that become pieces, most frequent first: required ones, then others until their share of the text
 * reaches the coverage. The share is rounded to float32, as in SentencePiece: with shares such as 0.99995 that decides
 * about characters.
 */
const coveredCharacters = (frequencies: ReadonlyMap<number, number>, options: Options): ReadonlyArray<number> => {
  const byFrequency = (a: number, b: number) => (frequencies.get(b) ?? 0) - (frequencies.get(a) ?? 0) || a - b
  const required = new Set(Array.from(options.requiredCharacters, (character) => character.codePointAt(0)!))
  required.delete(0)
  const ordered = [
    ...[...required].sort(byFrequency),
    ...[...frequencies.keys()].filter((codePoint) => !required.has(codePoint)).sort(byFrequency)
  ]
  const total = [...frequencies.values()].reduce((sum, count) => sum + count, 0)
  const enough = Math.fround(options.characterCoverage)
  const covered: Array<number> = []
  let sum = 0
  for (const character of ordered) {
    if (Math.fround(sum / total) >= enough) break
    sum += frequencies.get(character) ?? 0
    if (character !== tab) covered.push(character)
  }
  return covered.sort(byFrequency)
}

const knownWords = (counts: WordCounts.WordCounts, known: ReadonlySet<number>): Merges.Words => {
  const characters: Array<ReadonlyArray<number>> = []
  const frequencies: Array<number> = []
  counts.forEach((word, count) => {
    characters.push(Array.from(word, (character) => {
      const codePoint = character.codePointAt(0)!
      return known.has(codePoint) ? codePoint : -1
    }))
    frequencies.push(count)
  })
  return { characters, counts: frequencies }
}
