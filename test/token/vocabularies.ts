import { Result } from "effect"
import * as fc from "fast-check"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"

/** `<unk>`, `<s>`, `</s>`, which every vocabulary here begins with. */
export const reserved: ReadonlyArray<SentencePiece.Piece> = [
  { text: "<unk>", score: 0, type: "unknown" },
  { text: "<s>", score: 0, type: "control" },
  { text: "</s>", score: 0, type: "control" }
]

export const { bytePieces } = SentencePiece

/** A model of reserved pieces, bytes if asked for, and `pieces`, normalizing as Llama does unless told otherwise. */
export const modelOf = (
  pieces: ReadonlyArray<SentencePiece.Piece>,
  byteFallback: boolean,
  normalizer: Partial<SentencePiece.NormalizerSpecification> = {},
  trainer: Partial<SentencePiece.TrainerSpecification> = {}
): SentencePiece.Model =>
  Result.getOrThrow(SentencePiece.make(
    [...reserved, ...byteFallback ? bytePieces : [], ...pieces],
    { ...SentencePiece.defaultTrainer, modelType: "bpe", byteFallback, ...trainer },
    { ...SentencePiece.identityNormalizer, ...normalizer }
  ))

export const codecOf = (model: SentencePiece.Model): Tokenizer.Codec => Result.getOrThrow(Tokenizer.fromModel(model))

/** Scores as SentencePiece writes them: pieces with few distinct values, so that ties are common. */
const score = fc.integer({ min: -4, max: 0 })

/** Pieces over a small alphabet, so that random texts are full of them. */
export const pieces = (
  types: ReadonlyArray<SentencePiece.PieceType>
): fc.Arbitrary<ReadonlyArray<SentencePiece.Piece>> =>
  fc.uniqueArray(
    fc.record({
      text: fc.string({ unit: fc.constantFrom("a", "b", "c", "\u2581", "é", "🙂"), minLength: 1, maxLength: 6 }),
      score,
      type: fc.constantFrom(...types)
    }),
    { selector: (piece) => piece.text, maxLength: 40 }
  )

/** Texts over the same alphabet and a little more: spaces, U+2581 itself, lone surrogates, characters in no piece. */
export const text: fc.Arbitrary<string> = fc.string({
  unit: fc.constantFrom("a", "a", "b", "b", "c", " ", " ", "\u2581", "é", "🙂", "\ud83d", "\ude42", "x", "\n"),
  maxLength: 120
})
