/**
 * A part of a corpus as one long row of tokens: every document is a BOS followed by its tokens, and the documents
 * follow one another.
 *
 *     tokens = BOS d₀ BOS d₁ … BOS dₙ₋₁
 *
 * dᵢ `encode(textᵢ)`
 *
 * Two bytes a token (four for vocabularies above 65 536), in chunks while it grows: a store of a hundred million
 * tokens is 200 MB.
 *
 * From     Llama 2 §2.2 trains on packed sequences; llama2.c and Meta's code put a BOS before every document.
 * Checked  test/data/TokenStore.test.ts (lossless, hash sees every token, every error by message).
 * Departs  the paper is silent on what parts documents. No EOS is written: the BOS of the next document marks the end
 *          of the last, and a generator stops at either.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Hash from "../random/Hash.ts"
import { foreignAt } from "../token/Detokenizer.ts"
import { textByteCount } from "../token/Utf8.ts"
import * as Document from "./Document.ts"
import type { Part } from "./Document.ts"
import * as Split from "./Split.ts"

/** Tokens of documents in a row. */
export interface TokenStore {
  /** BOS and tokens of every document, one after another. */
  readonly tokens: Uint16Array | Int32Array
  /** Where the BOS of each document stands, and after the last one the number of tokens. */
  readonly starts: Float64Array
  /** UTF-8 bytes of the texts, the denominator of bits per byte. */
  readonly bytes: number
  readonly bosId: number
  readonly vocabSize: number
}

/** How a text becomes tokens. `encode` gives ids in [0, vocabSize), and never `bosId`. */
export interface Encoder {
  readonly encode: (text: string) => ArrayLike<number>
  readonly bosId: number
  readonly vocabSize: number
}

/** How far tokenizing has come. */
export interface Progress {
  readonly documents: number
  /** UTF-8 bytes of text. */
  readonly bytes: number
  readonly tokens: number
}

/** Fails when the encoder gives an id that its vocabulary does not hold, or a BOS inside a document. */
export class TokenRangeError extends Schema.TaggedError<TokenRangeError>()("TokenRangeError", {
  file: Schema.String,
  line: Schema.Int,
  index: Schema.Int,
  id: Schema.Number,
  bosId: Schema.Number,
  vocabSize: Schema.Int
}) {
  override get message() {
    const isBos = this.id === this.bosId && foreignAt([this.id], this.vocabSize) === 0
    return (isBos
      ? `the BOS before the document at ${this.file}:${this.line} has the id ${this.id}: ids must be whole numbers ` +
        `in [0, ${this.vocabSize})\n`
      : `token ${this.index} of the document at ${this.file}:${this.line} has the id ${this.id}: ids must be whole ` +
        `numbers in [0, ${this.vocabSize}), and the BOS ${this.bosId} must not occur inside a document\n`) +
      "  likely encode, vocabulary size and BOS are of different models: take all three from one tokenizer"
  }
}

/** Fails when a store holds an id that a model does not have. */
export class ForeignTokenError extends Schema.TaggedError<ForeignTokenError>()("ForeignTokenError", {
  /** The place of the token in the store, of its document among all, and of the token in that, where a BOS is 0. */
  index: Schema.Int,
  document: Schema.Int,
  place: Schema.Int,
  id: Schema.Int,
  /** How many tokens the model has, and how many the encoder of the store. */
  vocabSize: Schema.Int,
  storeVocabSize: Schema.Int
}) {
  override get message() {
    const { document, id, index, place, storeVocabSize, vocabSize } = this
    return `corpus: token ${index}, the token ${place} of document ${document} (from 0, its BOS counted), has the id ` +
      `${id}: a model of ${vocabSize} tokens has the ids 0 to ${vocabSize - 1}\n  ` + (storeVocabSize === vocabSize
      ? "The encoder was said to have as many: is its vocabulary larger?"
      : `The texts were made tokens with a vocabulary of ${storeVocabSize}: take the tokenizer that belongs to the ` +
          "model.")
  }
}

/** Fails when a part of the corpus has nothing to predict. */
export class EmptyPartError extends Schema.TaggedError<EmptyPartError>()("EmptyPartError", {
  part: Schema.Literals(["train", "validation"]),
  documents: Schema.Int,
  validationShare: Schema.Number
}) {
  override get message() {
    if (this.documents === 0) {
      return "the corpus has no documents, so there is nothing to train on: give it at least a few kilobytes of text"
    }
    return `the ${this.part} part has no tokens to predict: ${this.documents} documents were read, and each goes to ` +
      `validation when the hash of its text falls under validationShare = ${this.validationShare}\n  ` +
      (this.part === "validation"
        ? "give more text, raise validationShare, or cut the text into smaller documents"
        : "give more text, or lower validationShare")
  }
}

/**
 * Reads a corpus once and stores its two parts as tokens.
 *
 * `onProgress` runs after about every 64 documents; between these steps the fiber yields, so progress bars move and
 * Ctrl-C works. Fails with what the stream fails with, with {@link TokenRangeError}, or with {@link EmptyPartError}.
 */
export const tokenize = Effect.fnUntraced(function*<E, R, E2 = never>(
  documents: Stream.Stream<Document.Document, E, R>,
  options: Encoder & {
    /** The share of the documents, 0 … 1, that only measures. */
    readonly validationShare: number
    /** Encodes many texts at once, on other threads; the same ids as `encode`, in the order of the texts. */
    readonly encodeMany?: (texts: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<ArrayLike<number>>, E2>
    readonly onProgress?: (progress: Progress) => Effect.Effect<void>
  }
): Effect.fn.Return<Record<Part, TokenStore>, E | E2 | TokenRangeError | EmptyPartError, R> {
  const { encode, encodeMany, onProgress, validationShare } = options
  const parts = { train: builder(options), validation: builder(options) }
  const encoded = (chunk: ReadonlyArray<Document.Document>) => {
    const texts = chunk.map(({ text }) => text)
    const ids: Effect.Effect<ReadonlyArray<ArrayLike<number>>, E2> = encodeMany === undefined
      ? Effect.sync(() => texts.map(encode))
      : encodeMany(texts)
    return Effect.map(ids, (ids) => ({ chunk, ids }))
  }
  yield* documents.pipe(
    Stream.rechunk(64),
    Stream.chunks,
    // The order of the stream, however many chunks are encoded at once: the tokens are the same to the last bit.
    Stream.mapEffect(encoded, { concurrency: encodeMany === undefined ? 1 : chunksAtOnce }),
    Stream.runForEach(Effect.fnUntraced(function*({ chunk, ids }) {
      for (let i = 0; i < chunk.length; i++) {
        const error = parts[Split.part(chunk[i]!, validationShare)].add(chunk[i]!, ids[i]!)
        if (error !== undefined) return yield* error
      }
      const [train, validation] = [parts.train.progress(), parts.validation.progress()]
      if (onProgress !== undefined) {
        yield* onProgress({
          documents: train.documents + validation.documents,
          bytes: train.bytes + validation.bytes,
          tokens: train.tokens + validation.tokens
        })
      }
      yield* Effect.yieldNow
    }))
  )
  const count = parts.train.progress().documents + parts.validation.progress().documents
  for (const part of ["train", "validation"] satisfies ReadonlyArray<Part>) {
    if (parts[part].progress().tokens < 2) return yield* new EmptyPartError({ part, documents: count, validationShare })
  }
  return { train: parts.train.finish(), validation: parts.validation.finish() }
})

/**
 * The store of a list of texts, without Effect: for tests, examples and small data. Throws what {@link tokenize}
 * fails with.
 */
export const fromTexts = (texts: Iterable<string>, encoder: Encoder): TokenStore => {
  const store = builder(encoder)
  let line = 0
  for (const text of texts) {
    const error = store.add(Document.make(text, { file: "texts", line: ++line }), encoder.encode(text))
    if (error !== undefined) throw error
  }
  return store.finish()
}

/** Fails with the first token that a model of so many tokens does not have: it is of another tokenizer. */
export const requireVocabulary = (
  { starts, tokens, vocabSize: storeVocabSize }: TokenStore, vocabSize: number
): Effect.Effect<void, ForeignTokenError> => {
  const index = foreignAt(tokens, vocabSize)
  const id = tokens[index]
  if (id === undefined) return Effect.void
  const document = starts.findLastIndex((start) => start <= index)
  const place = index - (starts[document] ?? 0)
  return Effect.fail(new ForeignTokenError({ index, document, place, id, vocabSize, storeVocabSize }))
}

/** The number of documents. */
export const documentCount = (store: TokenStore): number => store.starts.length - 1

/** The tokens of one document, BOS first: a view, not a copy. */
export const documentTokens = (store: TokenStore, index: number): Uint16Array | Int32Array =>
  store.tokens.subarray(store.starts[index], store.starts[index + 1])

/** A fingerprint of all tokens, for manifests: 32 hexadecimal digits, about 200 MB a second. */
export const fingerprint = (store: TokenStore): string => {
  const { bosId, tokens, vocabSize } = store
  const bytes = new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)
  return Hash.toHex(Hash.ofText(`${vocabSize} ${bosId} ${Hash.toHex(Hash.ofBytes(bytes))}`))
}

const chunkLength = 1 << 20

/** Chunks that are with `encodeMany` at one time. */
const chunksAtOnce = 16

const builder = ({ bosId, vocabSize }: Encoder) => {
  const allocate = (length: number) => vocabSize <= 65536 ? new Uint16Array(length) : new Int32Array(length)
  const full: Array<Uint16Array | Int32Array> = []
  const starts: Array<number> = []
  const holds = (id: number): boolean => Number.isInteger(id) && id >= 0 && id < vocabSize
  let chunk = allocate(0)
  let used = 0 // of the current chunk
  let tokens = 0
  let bytes = 0
  const push = (id: number) => {
    if (used === chunk.length) {
      full.push(chunk)
      chunk = allocate(chunkLength)
      used = 0
    }
    chunk[used++] = id
    tokens++
  }
  return {
    add: (document: Document.Document, ids: ArrayLike<number>): TokenRangeError | undefined => {
      if (!holds(bosId)) return new TokenRangeError({ ...document.source, index: 0, id: bosId, bosId, vocabSize })
      starts.push(tokens)
      push(bosId)
      for (let index = 0; index < ids.length; index++) {
        const id = ids[index]!
        if (!holds(id) || id === bosId) {
          return new TokenRangeError({ ...document.source, index, id, bosId, vocabSize })
        }
        push(id)
      }
      bytes += textByteCount(document.text)
      return undefined
    },
    progress: (): Progress => ({ documents: starts.length, bytes, tokens }),
    finish: (): TokenStore => {
      const all = allocate(tokens)
      let at = 0
      for (const piece of [...full, chunk.subarray(0, used)]) {
        all.set(piece, at)
        at += piece.length
      }
      return { tokens: all, starts: Float64Array.from([...starts, tokens]), bytes, bosId, vocabSize }
    }
  }
}
