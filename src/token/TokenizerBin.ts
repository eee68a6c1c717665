/**
 * llama2.c's `tokenizer.bin` ⇄ a SentencePiece model.
 *
 *     file = uint32 longest text · { float32 score · int32 length · text }*        little-endian, spaces for U+2581
 *
 * From     karpathy/llama2.c, `tokenizer.py` (export) and `run.c` (build_tokenizer): ids 0, 1, 2 are unknown, beginning
 *          and end, the latter two stored between newlines; then the 256 bytes.
 * Checked  test/token/TokenizerBin.test.ts (the 512-piece file of stories260K there and back, byte for byte;
 *          truncations and mutations).
 * Departs  the count of pieces is not in the file: it is what fits, where llama2.c takes it from the weights.
 *
 * @module
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SentencePiece from "./SentencePiece.ts"
import * as Utf8 from "./Utf8.ts"

/** A `tokenizer.bin` that cannot be read, or a model that it cannot hold; `offset` is −1 for the latter. */
export class TokenizerBinError extends Schema.TaggedError<TokenizerBinError>()("TokenizerBinError", {
  offset: Schema.Int,
  problem: Schema.String
}) {
  override get message() {
    return this.offset < 0
      ? `tokenizer.bin cannot hold this model: ${this.problem}\n  ` +
        "save it as tokenizer.model instead, which holds everything"
      : `tokenizer.bin, byte ${this.offset}: ${this.problem}\n  ` +
        "is it a tokenizer.bin of llama2.c, whole and unchanged? compare its size and checksum with the source"
  }
}

const fail = (offset: number, problem: string) => Result.fail(new TokenizerBinError({ offset, problem }))

const bosText = "\n<s>\n"
const eosText = "\n</s>\n"

/** Reads a `tokenizer.bin`. */
export const parse = (
  bytes: Uint8Array
): Result.Result<SentencePiece.Model, TokenizerBinError | SentencePiece.SentencePieceError> => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  if (bytes.length < 4) return fail(0, `${bytes.length} bytes are too few for the length of the longest piece`)
  const longest = view.getUint32(0, true)
  const pieces: Array<SentencePiece.Piece> = []
  let found = 0
  for (let at = 4; at < bytes.length;) {
    const id = pieces.length
    if (at + 8 > bytes.length) return fail(
      at,
      `piece ${id} has ${bytes.length - at} of the 8 bytes of its score and length`
    )
    const score = view.getFloat32(at, true)
    const length = view.getInt32(at + 4, true)
    if (length < 1 || length > longest || at + 8 + length > bytes.length) {
      return fail(
        at + 4,
        `piece ${id} claims ${length} bytes; the longest has ${longest}, ${bytes.length - at - 8} are left`
      )
    }
    const raw = bytes.subarray(at + 8, at + 8 + length)
    const text = Utf8.lenientText(raw)
    if (Utf8.textByteCount(text) !== length) return fail(at + 8, `piece ${id} is not valid UTF-8`)
    if ((id === 1 && text !== bosText) || (id === 2 && text !== eosText)) {
      return fail(at + 8, `piece ${id} is ${JSON.stringify(text)}, not ${JSON.stringify(id === 1 ? bosText : eosText)}`)
    }
    pieces.push(id > 0 && id < 3
      ? { text: text.trim(), score, type: "control" }
      : id === 0
        ? { text, score, type: "unknown" }
        : id < 259 && text === SentencePiece.byteText(id - 3)
          ? { text, score, type: "byte" }
          : { text: text.replaceAll(" ", "\u2581"), score, type: "normal" })
    found = Math.max(found, length)
    at += 8 + length
  }
  if (found !== longest) return fail(0, `the longest piece has ${found} bytes, not ${longest}`)
  const byteFallback = pieces.some((piece) => piece.type === "byte")
  return SentencePiece.make(
    pieces,
    { ...SentencePiece.defaultTrainer, modelType: "bpe", vocabSize: pieces.length, byteFallback },
    SentencePiece.identityNormalizer
  )
}

/** Writes a `tokenizer.bin`. Fails for a model whose special pieces or normalization llama2.c does not know. */
export const print = (model: SentencePiece.Model): Result.Result<Uint8Array, TokenizerBinError> => {
  const { normalizer, pieces } = model
  const fits = (piece: SentencePiece.Piece, id: number): boolean =>
    id === 0
      ? piece.type === "unknown"
      : id < 3
        ? piece.type === "control" && piece.text === (id === 1 ? "<s>" : "</s>")
        : id < 259
          ? piece.type === "byte" && piece.text === SentencePiece.byteText(id - 3)
          : piece.type === "normal"
  const odd = pieces.findIndex((piece, id) => !fits(piece, id))
  if (odd >= 0 || pieces.length < 259) {
    return fail(-1, "ids 0 to 258 must be unknown, <s>, </s> and the 256 bytes, all others normal; " +
      (odd < 0
        ? `it has ${pieces.length} pieces`
        : `piece ${odd} is ${pieces[odd]!.type} ${JSON.stringify(pieces[odd]!.text)}`))
  }
  if (!normalizer.addDummyPrefix || SentencePiece.rewritesText(model)) return fail(
    -1,
    "llama2.c always puts a space in front of a text and rewrites nothing; this model does otherwise"
  )
  const encoder = new TextEncoder()
  const texts = pieces.map((piece, id) =>
    encoder.encode(id === 1 ? bosText : id === 2 ? eosText : piece.text.replaceAll("\u2581", " "))
  )
  const bytes = new Uint8Array(4 + texts.reduce((sum, text) => sum + 8 + text.length, 0))
  const view = new DataView(bytes.buffer)
  view.setUint32(0, texts.reduce((longest, text) => Math.max(longest, text.length), 0), true)
  let at = 4
  texts.forEach((text, id) => {
    view.setFloat32(at, pieces[id]!.score, true)
    view.setInt32(at + 4, text.length, true)
    bytes.set(text, at + 8)
    at += 8 + text.length
  })
  return Result.succeed(bytes)
}
