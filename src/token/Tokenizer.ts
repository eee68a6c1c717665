/**
 * Text ⇄ ids: the tokenizer of Llama 2 as one service.
 *
 *     decode(encode(text)) = text        for every well-formed text without U+2581
 *
 * From     Llama 2 §2.2: byte-pair encoding by SentencePiece, digits single, bytes for unknown characters, 32 000
 *          pieces.
 * Checked  test/token/Tokenizer.test.ts (llama.cpp's 47 cases and the edge cases of real Llama 2; laws on generated
 *          text), test/parity/Tokenizer.test.ts (the SentencePiece library, id for id).
 * Departs  text never becomes a control id: beginning and end of sequence enter by `Codec.encodeSegments` alone.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Key from "../random/Key.ts"
import * as BytePair from "./BytePair.ts"
import * as Detokenizer from "./Detokenizer.ts"
import * as Normalizer from "./Normalizer.ts"
import * as PieceTable from "./PieceTable.ts"
import * as SentencePiece from "./SentencePiece.ts"
import * as TokenizerBin from "./TokenizerBin.ts"
import * as TokenizerConfig from "./TokenizerConfig.ts"
import * as TokenizerJson from "./TokenizerJson.ts"
import * as Utf8 from "./Utf8.ts"
import * as Vocabulary from "./Vocabulary.ts"

/**
 * The beginning or the end of a sequence, as a part of `Codec.encodeSegments`: see {@link bos} and {@link eos}.
 */
export interface Special {
  readonly special: "bos" | "eos"
}

/** Beginning of sequence, `<s>` in Llama. */
export const bos: Special = { special: "bos" }

/** End of sequence, `</s>` in Llama. */
export const eos: Special = { special: "eos" }

/** How to encode with dropout. One key gives one text the same ids at all times: derive one a text and epoch. */
export interface Dropout {
  /** The probability, 0 to 1, that a merge that could be made is not; 0.1 is the usual choice. */
  readonly rate: number
  readonly key: Key.Key
}

/** A rate of dropout that is no probability: a mistake of the caller, thrown by `encodeWithDropout`. */
export class DropoutRateError extends Schema.TaggedError<DropoutRateError>()("DropoutRateError", {
  rate: Schema.Number
}) {
  override get message() {
    return `encodeWithDropout: the rate ${this.rate} is not between 0 and 1\n  ` +
      "it is the probability that a merge is left out: 0 is encode, 0.1 is usual, 1 leaves characters and bytes"
  }
}

/** A tokenizer as a value: pure functions over one vocabulary. */
export interface Codec {
  readonly vocabSize: number
  readonly unkId: number
  readonly bosId: number
  readonly eosId: number
  /** Llama 2 has none; padding is then a matter of lengths and masks. */
  readonly padId: number | undefined
  /** Ids of a text, without beginning or end of sequence. Lone surrogates read as U+FFFD. */
  readonly encode: (text: string) => Int32Array
  /** Ids of UTF-8 bytes; each byte that belongs to no character reads as U+FFFD. */
  readonly encodeBytes: (bytes: Uint8Array) => Int32Array
  /**
   * Ids of a text by byte-pair encoding with dropout: a random way to write the same text, for training that is to see
   * more than one. Rate 0 is `encode`, rate 1 gives characters and bytes. Throws {@link DropoutRateError}.
   */
  readonly encodeWithDropout: (text: string, dropout: Dropout) => Int32Array
  /**
   * Texts, each encoded on its own, with specials between them. Each gets its own leading space, as in Meta's code, but
   * with {@link fromModelNonLegacy} only a text that nothing precedes, not even a special: `<s>` written in a text is
   * read so by Hugging Face. The `<s>` that it puts around a text is no part of it: that is `[bosId, ...encode(text)]`.
   */
  readonly encodeSegments: (segments: ReadonlyArray<string | Special>) => Int32Array
  /** Text of a sequence; control ids are silent. Throws {@link Detokenizer.IdRangeError}. */
  readonly decode: (ids: ArrayLike<number>) => string
  /** Decodes one sequence id by id, as it is generated. */
  readonly streamDecoder: () => Detokenizer.StreamDecoder
  /** A piece as the vocabulary writes it, U+2581 for spaces. Throws {@link Detokenizer.IdRangeError}. */
  readonly piece: (id: number) => string
  /**
   * UTF-8 bytes that an id stands for, for losses in bits per byte; throws {@link Detokenizer.IdRangeError}.
   * Over `encode(text)` they sum to the bytes of the text and 1 for the space in front (0 without a dummy prefix, or
   * for "").
   */
  readonly byteLength: (id: number) => number
}

/** The tokenizer that a program uses. */
export class Tokenizer extends Context.Service<Tokenizer, Codec>()("cria/token/Tokenizer") {}

/** A model that is well formed but does what Cria's encoder does not: refused, rather than encoded wrongly. */
export class UnsupportedModelError extends Schema.TaggedError<UnsupportedModelError>()("UnsupportedModelError", {
  reasons: Schema.Array(Schema.String)
}) {
  override get message() {
    const reasons = this.reasons.map((reason) => `\n  ${reason}`).join("")
    return `SentencePiece model: not usable as a Llama tokenizer${reasons}\n  ` +
      "Cria encodes byte-pair models (model_type BPE) with <s> and </s> as control pieces"
  }
}

/** A tokenizer file that cannot be used, with its path. */
export class TokenizerFileError extends Schema.TaggedError<TokenizerFileError>()("TokenizerFileError", {
  path: Schema.String,
  reason: Schema.Union([
    SentencePiece.SentencePieceError,
    UnsupportedModelError,
    TokenizerJson.TokenizerJsonError,
    TokenizerConfig.TokenizerConfigError,
    TokenizerBin.TokenizerBinError
  ])
}) {
  override get message() {
    return `${this.path}: ${this.reason.message}`
  }
}

/**
 * The tokenizer of a SentencePiece model, read from a file or just trained. A space is put in front of every text, also
 * of one that begins with a space or follows a special: what SentencePiece and Meta's code do, and Hugging Face calls
 * legacy.
 */
export const fromModel = (model: SentencePiece.Model): Result.Result<Codec, UnsupportedModelError> =>
  codecOf(
    model,
    Result.map(
      Normalizer.make(model.normalizer, model.trainer.treatWhitespaceAsSuffix, model.table),
      (normalize) => ({ first: normalize, later: normalize })
    )
  )

/**
 * The same vocabulary as another function, Hugging Face's `legacy = false`: a space is put only in front of the first
 * text of a sequence, and only if it begins with none. Decoding still drops one space in front, so a text that begins
 * with a space comes back without it.
 */
export const fromModelNonLegacy = (model: SentencePiece.Model): Result.Result<Codec, UnsupportedModelError> =>
  codecOf(
    model,
    model.normalizer.addDummyPrefix && !SentencePiece.rewritesText(model)
      ? Result.succeed({ first: Normalizer.nonLegacyFirst, later: Normalizer.nonLegacyLater })
      : Result.fail("its normalizer is not Llama's, and legacy = false is defined for no other")
  )

/** How texts are normalized: at the beginning of a sequence, and after something. */
interface Reading {
  readonly first: Normalizer.Normalize
  readonly later: Normalizer.Normalize
}

const codecOf = (
  model: SentencePiece.Model, reading: Result.Result<Reading, string>
): Result.Result<Codec, UnsupportedModelError> => {
  const { normalizer, table, trainer } = model
  const control = new Map(PieceTable.idsOfType(table, "control").map((id) => [PieceTable.text(table, id), id]))
  const bosId = control.get(trainer.bosPiece) ?? -1
  const eosId = control.get(trainer.eosPiece) ?? -1
  const padId = control.get(trainer.padPiece)
  const reasons = [
    ...trainer.modelType === "bpe" ? [] : [
      `its model_type is ${trainer.modelType}, which cuts text by another rule than byte-pair encoding`
    ],
    ...model.hasDenormalizer ? ["it has a denormalizer, which would rewrite decoded text"] : [],
    ...bosId >= 0 ? [] : [`no control piece is named ${trainer.bosPiece} (beginning of sequence)`],
    ...eosId >= 0 ? [] : [`no control piece is named ${trainer.eosPiece} (end of sequence)`],
    ...Result.isFailure(reading) ? [reading.failure] : []
  ]
  if (Result.isFailure(reading) || reasons.length > 0) return Result.fail(new UnsupportedModelError({ reasons }))
  const { first: { bytes, text }, later } = reading.success
  const vocabulary = Vocabulary.make(table, normalizer.escapeWhitespaces)
  const pairs = BytePair.make(vocabulary)
  // Made at first use: a program that only encodes does without.
  let detokenizer: Detokenizer.Detokenizer | undefined
  const decoding = (): Detokenizer.Detokenizer => detokenizer ??= Detokenizer.make(model)
  const encode = (input: string) => pairs.encode(text(input))
  const checked = (id: number): number => {
    if (table.types[id] === undefined) throw new Detokenizer.IdRangeError({ id, position: 0, vocabSize: table.size })
    return id
  }
  return Result.succeed({
    vocabSize: table.size,
    unkId: vocabulary.unkId,
    bosId,
    eosId,
    padId,
    encode,
    encodeBytes: (input) => pairs.encode(bytes(input)),
    encodeWithDropout: (input, { key, rate }) => {
      if (!(rate >= 0 && rate <= 1)) throw new DropoutRateError({ rate })
      if (rate === 0) return encode(input)
      let draws = 0
      return pairs.encodeWithDropout(text(input), () => Key.uniform(key, draws++) < rate)
    },
    encodeSegments: (segments) => {
      let isFirst = true
      return concatenated(segments.map((segment) => {
        const ids = typeof segment !== "string"
          ? Int32Array.of(segment.special === "bos" ? bosId : eosId)
          : isFirst ? encode(segment) : pairs.encode(later.text(segment))
        if (ids.length > 0) isFirst = false
        return ids
      }))
    },
    decode: (ids) => decoding().decode(ids),
    streamDecoder: () => decoding().streamDecoder(),
    piece: (id) => PieceTable.text(table, checked(id)),
    byteLength: (id) => decoding().byteLengths[checked(id)]!
  })
}

const concatenated = (parts: ReadonlyArray<Int32Array>): Int32Array => {
  const all = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0))
  parts.reduce((at, part) => {
    all.set(part, at)
    return at + part.length
  }, 0)
  return all
}

const readFile = <A>(
  path: string,
  parse: (bytes: Uint8Array) => Result.Result<A, TokenizerFileError["reason"]>
): Effect.Effect<A, TokenizerFileError | PlatformError.PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const bytes = yield* files.readFile(path)
    return yield* Effect.fromResult(parse(bytes)).pipe(
      Effect.mapError((reason) => new TokenizerFileError({ path, reason }))
    )
  })

/** Reads a SentencePiece `.model` file. */
export const loadModel = (
  path: string
): Effect.Effect<SentencePiece.Model, TokenizerFileError | PlatformError.PlatformError, FileSystem.FileSystem> =>
  readFile(path, SentencePiece.parse)

/** Writes a model as a SentencePiece `.model` file, which SentencePiece itself, llama.cpp and others read. */
export const saveModel = (
  path: string,
  model: SentencePiece.Model
): Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem> =>
  Effect.flatMap(FileSystem.FileSystem, (files) => files.writeFile(path, model.bytes))

/** The two files of a Hugging Face tokenizer: what they hold, together. */
export interface HuggingFace {
  readonly model: SentencePiece.Model
  readonly config: TokenizerConfig.TokenizerConfig
}

/**
 * Reads `tokenizer.json` and `tokenizer_config.json` from a folder; the model has the special tokens that the latter
 * names. `parse` is `TokenizerJson.parse` or `TokenizerJson.parseNonLegacy`: the caller says which function it expects.
 */
export const loadHuggingFace = Effect.fnUntraced(function*(
  folder: string, parse: typeof TokenizerJson.parse
): Effect.fn.Return<
  HuggingFace, TokenizerFileError | PlatformError.PlatformError, FileSystem.FileSystem | Path.Path
> {
  const path = yield* Path.Path
  const spelled = yield* readFile(path.join(folder, "tokenizer.json"), (bytes) => parse(Utf8.lenientText(bytes)))
  const file = path.join(folder, "tokenizer_config.json")
  const config = yield* readFile(file, (bytes) => TokenizerConfig.parse(Utf8.lenientText(bytes)))
  const model = yield* Effect.fromResult(TokenizerConfig.named(spelled, config)).pipe(
    Effect.mapError((reason) => new TokenizerFileError({ path: file, reason }))
  )
  return { model, config }
})

/**
 * Writes `tokenizer.json` and `tokenizer_config.json` into a folder that exists. `print` is `TokenizerJson.print` or
 * `TokenizerJson.printNonLegacy`: the caller says which function readers are to get.
 */
export const saveHuggingFace = Effect.fnUntraced(function*(
  folder: string, { config, model }: HuggingFace, print: typeof TokenizerJson.print
): Effect.fn.Return<
  void, TokenizerJson.TokenizerJsonError | PlatformError.PlatformError, FileSystem.FileSystem | Path.Path
> {
  const [files, path] = [yield* FileSystem.FileSystem, yield* Path.Path]
  const text = yield* Effect.fromResult(print(model, config))
  yield* files.writeFileString(path.join(folder, "tokenizer.json"), text)
  yield* files.writeFileString(path.join(folder, "tokenizer_config.json"), TokenizerConfig.print(config))
})

const layerFile = (
  path: string,
  parse: (bytes: Uint8Array) => Result.Result<SentencePiece.Model, TokenizerFileError["reason"]>,
  codec: typeof fromModel = fromModel
): Layer.Layer<Tokenizer, TokenizerFileError | PlatformError.PlatformError, FileSystem.FileSystem> =>
  Layer.effect(
    Tokenizer,
    Effect.flatMap(readFile(path, parse), (model) =>
      Effect.fromResult(codec(model)).pipe(Effect.mapError((reason) => new TokenizerFileError({ path, reason }))))
  )

/** The tokenizer of a SentencePiece `.model` file. */
export const layerSentencePiece = (
  path: string
): Layer.Layer<Tokenizer, TokenizerFileError | PlatformError.PlatformError, FileSystem.FileSystem> =>
  layerFile(path, SentencePiece.parse)

/** The tokenizer of a Hugging Face `tokenizer.json` of the legacy kind: see `TokenizerJson.parse`. */
export const layerTokenizerJson = (
  path: string
): Layer.Layer<Tokenizer, TokenizerFileError | PlatformError.PlatformError, FileSystem.FileSystem> =>
  layerFile(path, (bytes) => TokenizerJson.parse(Utf8.lenientText(bytes)))

/** The tokenizer of a Hugging Face `tokenizer.json` saved with `legacy = false`: see `TokenizerJson.parseNonLegacy`. */
export const layerTokenizerJsonNonLegacy = (
  path: string
): Layer.Layer<Tokenizer, TokenizerFileError | PlatformError.PlatformError, FileSystem.FileSystem> =>
  layerFile(path, (bytes) => TokenizerJson.parseNonLegacy(Utf8.lenientText(bytes)), fromModelNonLegacy)

/** The tokenizer of a `tokenizer.bin` of llama2.c. */
export const layerLlama2c = (
  path: string
): Layer.Layer<Tokenizer, TokenizerFileError | PlatformError.PlatformError, FileSystem.FileSystem> =>
  layerFile(path, TokenizerBin.parse)

/** The tokenizer of a model at hand, as `Trainer.train` makes it. */
export const layerModel = (model: SentencePiece.Model): Layer.Layer<Tokenizer, UnsupportedModelError> =>
  Layer.effect(Tokenizer, Effect.fromResult(fromModel(model)))

/** A model that learned nothing: `<unk>`, `<s>`, `</s>` and the 256 bytes, id = byte + 3, with no space in front. */
export const bytesModel: SentencePiece.Model = Result.getOrThrow(SentencePiece.make(
  [
    { text: "<unk>", score: 0, type: "unknown" },
    { text: "<s>", score: 0, type: "control" },
    { text: "</s>", score: 0, type: "control" },
    ...SentencePiece.bytePieces
  ],
  { ...SentencePiece.defaultTrainer, modelType: "bpe", vocabSize: 259, byteFallback: true },
  { ...SentencePiece.identityNormalizer, addDummyPrefix: false, escapeWhitespaces: false }
))

/** The tokenizer of {@link bytesModel}, which needs no training: 259 ids, one for each byte. */
export const layerBytes: Layer.Layer<Tokenizer> = Layer.sync(Tokenizer, () => Result.getOrThrow(fromModel(bytesModel)))
