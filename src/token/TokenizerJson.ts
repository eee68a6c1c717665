/**
 * Hugging Face's `tokenizer.json` ⇄ a SentencePiece model.
 *
 *     merges = every split of every piece into two pieces, by (score, length left, length right) descending
 *
 * From     huggingface/transformers, `convert_slow_tokenizer.py`, and the file shipped with Llama 2: a list of merges
 *          where SentencePiece has scores. Scores are found again from the list, and the list again from the scores, so
 *          a list that no scores explain is refused.
 * Checked  test/token/TokenizerJson.test.ts (there and back on any vocabulary; 61 249 merges of Llama 2; every
 *          refusal, as text), test/parity/TokenizerJson.test.ts (the tokenizers library, id for id, both ways).
 * Departs  Hugging Face reads `<s>` in text as a control token; Cria never does. A file is one of two functions:
 *          "legacy", a space in front of every text, which is Meta's own, or not, where a space is put in front of the
 *          first text only and only if it begins with none. Each has a reader and a writer of its own, and neither
 *          reader takes the other's file.
 *
 * @module
 */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as JsonText from "./JsonText.ts"
import * as PieceTable from "./PieceTable.ts"
import * as SentencePiece from "./SentencePiece.ts"

/** A `tokenizer.json` that cannot be read as a Llama tokenizer; `path` says where in the document. */
export class TokenizerJsonError extends Schema.TaggedError<TokenizerJsonError>()("TokenizerJsonError", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `tokenizer.json, at ${this.path}: ${this.problem}\n  ` +
      "Cria reads byte-pair tokenizers converted from SentencePiece, such as Llama's; others need their tokenizer.model"
  }
}

const fail = (path: string, problem: string) => Result.fail(new TokenizerJsonError({ path, problem }))

const AddedToken = Schema.Struct({ id: Schema.Int, content: Schema.String, special: Schema.Boolean })

const Document = Schema.Struct({
  added_tokens: Schema.Array(AddedToken),
  normalizer: Schema.Unknown,
  pre_tokenizer: Schema.optionalKey(Schema.Unknown),
  decoder: Schema.optionalKey(Schema.Unknown),
  model: Schema.Struct({
    type: Schema.String,
    unk_token: Schema.NullOr(Schema.String),
    byte_fallback: Schema.optionalKey(Schema.Boolean),
    vocab: Schema.Record(Schema.String, Schema.Int),
    merges: Schema.Array(Schema.Union([Schema.String, Schema.Tuple([Schema.String, Schema.String])]))
  })
})

const decodeDocument = Schema.decodeUnknownResult(Document)

const space = "\u2581"
const prepend = { type: "Prepend", prepend: space }
const escape = { type: "Replace", pattern: { String: " " }, content: space }
const normalizerOf = (addDummyPrefix: boolean) =>
  addDummyPrefix ? { type: "Sequence", normalizers: [prepend, escape] } : escape
const metaspace = { type: "Metaspace", replacement: space, prepend_scheme: "first", split: false }
const decoderOf = (addDummyPrefix: boolean) => ({
  type: "Sequence",
  decoders: [
    { type: "Replace", pattern: { String: space }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
    ...addDummyPrefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []
  ]
})

type Document = typeof Document.Type
type Parsed = Result.Result<SentencePiece.Model, TokenizerJsonError | SentencePiece.SentencePieceError>

const documentOf = (text: string): Result.Result<Document, TokenizerJsonError> =>
  JsonText.parse(text).pipe(
    Result.flatMap((json) => { // the type first: the fields of others are others
      const type = Predicate.hasProperty(json, "model") && Predicate.hasProperty(json.model, "type")
        ? json.model.type : undefined
      return typeof type === "string" && type !== "BPE"
        ? Result.fail({ path: "$.model.type", problem: `${JSON.stringify(type)} is not "BPE"` })
        : Result.mapError(decodeDocument(json), JsonText.problemOf)
    }),
    Result.mapError((problem) => new TokenizerJsonError(problem))
  )

/** Whether the document is of the kind saved with `legacy = false`. */
const isNonLegacy = ({ normalizer, pre_tokenizer }: Document): boolean =>
  normalizer === null && sameJson(pre_tokenizer, metaspace)

/**
 * Reads a `tokenizer.json` of the legacy kind into a SentencePiece model with the same pieces and the same order of
 * merges; `Tokenizer.fromModel` is its function. The model's scores are new: the file has none.
 */
export const parse = (text: string): Parsed =>
  Result.flatMap(documentOf(text), (document) =>
    isNonLegacy(document)
      ? fail(
        "$.pre_tokenizer",
        "saved with legacy = false: it puts no space before text that begins with one, nor before text that follows " +
          "<s> or </s>, which is another function than Meta's; choose it by its name: TokenizerJson.parseNonLegacy, " +
          "Tokenizer.layerTokenizerJsonNonLegacy"
      )
      : legacyOf(document))

/** The model of a document that is not of the kind saved with `legacy = false`. */
const legacyOf = (document: Document): Parsed => {
  const { normalizer, pre_tokenizer } = document
  const addDummyPrefix = [true, false].find((prefix) => sameJson(normalizer, normalizerOf(prefix)))
  if (addDummyPrefix === undefined || (pre_tokenizer ?? null) !== null) {
    return fail(
      addDummyPrefix === undefined ? "$.normalizer" : "$.pre_tokenizer",
      "not the normalizer of a Llama tokenizer (prepend U+2581, then U+2581 for each space) without a pre-tokenizer"
    )
  }
  return modelOf(document, addDummyPrefix)
}

/**
 * Reads a `tokenizer.json` saved with `legacy = false`; `Tokenizer.fromModelNonLegacy` is its function. (Whoever wants
 * Meta's function and has only such a file may give the model to `Tokenizer.fromModel`.)
 */
export const parseNonLegacy = (text: string): Parsed =>
  Result.flatMap(documentOf(text), (document) =>
    isNonLegacy(document)
      ? modelOf(document, true)
      : fail(
        "$.pre_tokenizer",
        "not saved with legacy = false, which means a null normalizer and the pre-tokenizer " +
          `${JSON.stringify(metaspace)}; for Meta's function, read it with TokenizerJson.parse or ` +
          "Tokenizer.layerTokenizerJson"
      ))

/** Reads a `tokenizer.json` of either kind, and says which it is: `Tokenizer.fromModel` is the function of legacy. */
export const parseEither = (
  text: string
): Result.Result<
  { readonly model: SentencePiece.Model; readonly isLegacy: boolean },
  TokenizerJsonError | SentencePiece.SentencePieceError
> =>
  Result.flatMap(documentOf(text), (document) => {
    const isLegacy = !isNonLegacy(document)
    const parsed = isLegacy ? legacyOf(document) : modelOf(document, true)
    return Result.map(parsed, (model) => ({ model, isLegacy }))
  })

/** The model that a document whose normalization is known spells out. */
const modelOf = ({ added_tokens, decoder, model }: Document, addDummyPrefix: boolean): Parsed => {
  if ((decoder ?? null) !== null && !sameJson(decoder, decoderOf(addDummyPrefix))) {
    return fail(
      "$.decoder",
      `not that of a Llama tokenizer: ${JSON.stringify(decoderOf(addDummyPrefix).decoders)} in sequence`
    )
  }
  const ids = idsOf(model.vocab, added_tokens)
  if (Result.isFailure(ids)) return Result.fail(ids.failure)
  const texts = ids.success
  const idOf = new Map(texts.map((text, id) => [text, id]))
  const merges: Array<Merge> = []
  for (let i = 0; i < model.merges.length; i++) {
    const merge = model.merges[i]!
    const pair = typeof merge === "string" ? merge.split(" ") : merge
    const [left, right] = pair
    if (pair.length !== 2 || left === undefined || right === undefined) {
      return fail(`$.model.merges[${i}]`, `${JSON.stringify(merge)} is not two pieces with a space between`)
    }
    const piece = idOf.get(left + right)
    if (piece === undefined) {
      return fail(
        `$.model.merges[${i}]`,
        `${JSON.stringify(left)} and ${JSON.stringify(right)} make no piece of the vocabulary`
      )
    }
    merges.push({ left: idOf.get(left) ?? -1, right: idOf.get(right) ?? -1, piece })
  }
  const byteFallback = model.byte_fallback ?? false
  const special = new Map(added_tokens.map((token) => [token.content, token.special]))
  const typeOf = (text: string): SentencePiece.PieceType =>
    text === model.unk_token
      ? "unknown"
      : special.has(text)
        ? special.get(text)! ? "control" : "user-defined"
        : byteFallback && /^<0x[0-9A-F]{2}>$/.test(text)
          ? "byte"
          : "normal"
  const scores = scoresOf(texts.length, merges)
  const pieces = texts.map((text, id): SentencePiece.Piece => {
    const type = typeOf(text)
    return { text, type, score: type === "normal" ? scores[id]! : 0 }
  })
  const made = SentencePiece.make(
    pieces,
    {
      ...SentencePiece.defaultTrainer,
      modelType: "bpe",
      vocabSize: pieces.length,
      byteFallback,
      ...specialNames(pieces, model.unk_token)
    },
    { ...SentencePiece.identityNormalizer, addDummyPrefix }
  )
  if (Result.isFailure(made) || areAllMerges(merges, made.success.table)) return made
  const again = mergesOf(pieces)
  const given = model.merges.map((merge) => typeof merge === "string" ? merge.split(" ") : merge)
  const differs = given.findIndex(([left, right], i) => again[i]?.[0] !== left || again[i]?.[1] !== right)
  const at = differs >= 0 ? differs : given.length
  return fail(
    `$.model.merges[${at}]`,
    `${JSON.stringify(given[at] ?? null)} where the pieces' scores would put ` +
      `${JSON.stringify(again[at] ?? null)}: ` +
      "the list is not that of a vocabulary ordered by scores; transformers 5 makes such a list of a " +
      "tokenizer.model, ordered by ids: read the tokenizer.model itself"
  )
}

const specialNames = (pieces: ReadonlyArray<SentencePiece.Piece>, unkToken: string | null) => ({
  ...unkToken === null ? {} : { unkPiece: unkToken, unkId: pieces.findIndex((piece) => piece.text === unkToken) },
  padId: pieces.findIndex((piece) => piece.type === "control" && piece.text === SentencePiece.defaultTrainer.padPiece)
})

/** Equality of two JSON values, the order of keys apart. */
const sameJson = (a: unknown, b: unknown): boolean => {
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return a === b
  const [left, right] = [Object.entries(a), new Map<string, unknown>(Object.entries(b))]
  return left.length === right.size && left.every(([key, value]) => right.has(key) && sameJson(value, right.get(key)))
}

/** The pieces by id; added tokens may repeat pieces of the vocabulary, or follow them. */
const idsOf = (
  vocab: Readonly<Record<string, number>>,
  added: ReadonlyArray<typeof AddedToken.Type>
): Result.Result<ReadonlyArray<string>, TokenizerJsonError> => {
  const texts: Array<string> = []
  const all = [...Object.entries(vocab), ...added.map((token) => [token.content, token.id] as const)]
  const count = new Set(all.map(([text]) => text)).size
  for (const [text, id] of all) {
    if (id < 0 || id >= count) return fail(
      "$.model.vocab",
      `id ${id} of ${JSON.stringify(text)} is not between 0 and ${count - 1}`
    )
    if (texts[id] !== undefined && texts[id] !== text) {
      return fail("$.model.vocab", `id ${id} is given to ${JSON.stringify(texts[id])} and to ${JSON.stringify(text)}`)
    }
    texts[id] = text
  }
  const missing = Array.from({ length: count }, (_, id) => id).find((id) => texts[id] === undefined)
  return missing === undefined ? Result.succeed(texts) : fail("$.model.vocab", `no piece has id ${missing}`)
}

/** Two pieces and what they make, as ids; −1 for a half that is no piece. */
interface Merge {
  readonly left: number
  readonly right: number
  readonly piece: number
}

/**
 * Scores that put merges in the order of the list. Pieces of equal score have their merges interleaved, by length, so
 * pieces whose stretches of the list overlap get one score. Pieces that no merge makes come last, in the order of ids.
 */
const scoresOf = (size: number, merges: ReadonlyArray<Merge>): Float64Array => {
  const last = new Int32Array(size)
  merges.forEach(({ piece }, i) => { last[piece] = i })
  const scores = new Float64Array(size)
  let score = 0
  let end = -1
  merges.forEach(({ piece }, i) => {
    if (scores[piece] !== 0) return
    if (i > end) score--
    end = Math.max(end, last[piece]!)
    scores[piece] = score
  })
  return scores.map((found) => found === 0 ? --score : found)
}

/** Whether a list is {@link mergesOf} of the pieces: in its order, and as long. */
const areAllMerges = (merges: ReadonlyArray<Merge>, table: PieceTable.PieceTable): boolean => {
  const { offsets, scores, size, types, units } = table
  const lengths = new Int32Array(size)
  let count = 0
  for (let id = 0; id < size; id++) {
    const [from, end] = [offsets[id]!, offsets[id + 1]!]
    for (let at = from; at < end; lengths[id]!++) {
      at += PieceTable.characterAt(units, at) > 0xffff ? 2 : 1
      if (at === end || types[id] !== PieceTable.normalType) continue
      if (PieceTable.idWithin(table, from, at) >= 0 && PieceTable.idWithin(table, at, end) >= 0) count++
    }
  }
  const follows = (a: Merge, b: Merge): boolean =>
    (scores[a.piece]! - scores[b.piece]! || lengths[a.left]! - lengths[b.left]! ||
      lengths[a.right]! - lengths[b.right]! || b.piece - a.piece) > 0
  return count === merges.length && merges.every((merge, i) =>
    merge.left >= 0 && merge.right >= 0 && types[merge.piece] === PieceTable.normalType &&
    (i === 0 || follows(merges[i - 1]!, merge)))
}

/** A piece in two; lengths in characters. */
interface Split {
  readonly left: string
  readonly right: string
  readonly leftLength: number
  readonly rightLength: number
}

/**
 * Every split of every piece into two, in Hugging Face's order: by score, then by the characters left, then right,
 * longest first.
 */
const mergesOf = (pieces: ReadonlyArray<SentencePiece.Piece>): ReadonlyArray<readonly [string, string]> => {
  const idOf = new Map(pieces.map((piece, id) => [piece.text, id]))
  const found: Array<Split & { readonly score: number; readonly order: number }> = []
  for (const { score, text, type } of pieces) {
    if (type !== "normal") continue
    const characters = [...text]
    const splits: Array<Split> = []
    for (let at = characters[0]?.length ?? 0, count = 1; count < characters.length; at += characters[count++]!.length) {
      const left = text.slice(0, at)
      const right = text.slice(at)
      if (idOf.has(left) && idOf.has(right)) {
        splits.push({ left, right, leftLength: count, rightLength: characters.length - count })
      }
    }
    splits.sort((a, b) => idOf.get(a.left)! - idOf.get(b.left)! || idOf.get(a.right)! - idOf.get(b.right)!)
    for (const split of splits) found.push({ ...split, score, order: found.length })
  }
  found.sort(
    (a, b) => b.score - a.score || b.leftLength - a.leftLength || b.rightLength - a.rightLength || a.order - b.order
  )
  return found.map(({ left, right }) => [left, right])
}

/** What Hugging Face adds around a text, unless told not to; text alone never becomes either id. */
export interface Frame {
  readonly addBos: boolean
  readonly addEos: boolean
}

const llamaFrame: Frame = { addBos: true, addEos: false }

/**
 * Writes the `tokenizer.json` of a model, of the legacy kind: the same function as `Tokenizer.fromModel`. The frame is
 * Llama's, a beginning and no end, unless another is given. Fails for what that format, as Llama uses it, cannot say.
 */
export const print = (
  model: SentencePiece.Model, frame: Frame = llamaFrame
): Result.Result<string, TokenizerJsonError> =>
  printed(model, frame, { normalizer: normalizerOf(model.normalizer.addDummyPrefix), pre_tokenizer: null })

/** {@link print} as `legacy = false`: the same function as `Tokenizer.fromModelNonLegacy`. */
export const printNonLegacy = (
  model: SentencePiece.Model, frame: Frame = llamaFrame
): Result.Result<string, TokenizerJsonError> =>
  model.normalizer.addDummyPrefix
    ? printed(model, frame, { normalizer: null, pre_tokenizer: metaspace })
    : fail("$.pre_tokenizer", "the model puts no space in front of text, so there is no rule for one to differ in")

const printed = (
  model: SentencePiece.Model, frame: Frame, reading: { readonly normalizer: unknown; readonly pre_tokenizer: unknown }
): Result.Result<string, TokenizerJsonError> => {
  const { normalizer: { addDummyPrefix }, pieces, trainer } = model
  if (SentencePiece.rewritesText(model)) {
    return fail(
      "$.normalizer",
      "the model rewrites text by more than Llama's rule, U+2581 for each space and one in front"
    )
  }
  if (trainer.modelType !== "bpe") return fail("$.model.type", `the model is ${trainer.modelType}, not byte-pair`)
  const unused = pieces.findIndex((piece) => piece.type === "unused")
  if (unused >= 0) return fail("$.model.vocab", `piece ${unused} is of type unused, which Hugging Face does not have`)
  const added = pieces.flatMap(({ text, type }, id) =>
    type === "unknown" || type === "control" || type === "user-defined"
      ? [
        {
          id, content: text, single_word: false, lstrip: false, rstrip: false, normalized: false,
          special: type !== "user-defined"
        }
      ]
      : []
  )
  const idOf = (text: string) => pieces.findIndex((piece) => piece.type === "control" && piece.text === text)
  const [bos, eos] = [trainer.bosPiece, trainer.eosPiece]
  const framing = [...frame.addBos ? [bos] : [], ...frame.addEos ? [eos] : []]
  const nameless = framing.find((text) => idOf(text) < 0)
  if (nameless !== undefined) {
    return fail("$.post_processor", `it is to add ${nameless}, but no control piece of the model has that name`)
  }
  const special = (text: string, type_id: number) => ({ SpecialToken: { id: text, type_id } })
  const framed = (id: string, type_id: number) => [
    ...frame.addBos ? [special(bos, type_id)] : [],
    { Sequence: { id, type_id } },
    ...frame.addEos ? [special(eos, type_id)] : []
  ]
  return Result.succeed(JSON.stringify({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    ...reading,
    post_processor: framing.length === 0 ? null : {
      type: "TemplateProcessing",
      single: framed("A", 0),
      pair: [...framed("A", 0), ...framed("B", 1)],
      special_tokens: Object.fromEntries(framing.map((text) => [text, { id: text, ids: [idOf(text)], tokens: [text] }]))
    },
    decoder: decoderOf(addDummyPrefix),
    model: {
      type: "BPE",
      dropout: null,
      unk_token: trainer.unkPiece,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: trainer.byteFallback,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece.text, id])),
      merges: mergesOf(pieces).map(([left, right]) => `${left} ${right}`)
    }
  }))
}
