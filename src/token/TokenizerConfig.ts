/**
 * Hugging Face's `tokenizer_config.json`: what stands beside `tokenizer.json` and is not in it.
 *
 *     file = special tokens · add_bos_token · add_eos_token · legacy · model_max_length · chat_template · others
 *
 * From     huggingface/transformers, `tokenization_utils_base.py` and the file shipped with Llama 2.
 * Checked  test/token/TokenizerConfig.test.ts (there and back, fields that Cria does not know included; every refusal,
 *          as text), test/parity/TokenizerJson.test.ts (a file that transformers wrote).
 * Departs  a special token must be a control piece of the vocabulary: Hugging Face would add it as a new id. A chat
 *          template is carried as text, not run. `legacy` is carried, and decides nothing: version 5 of transformers
 *          ignores it, and Llama 2's own folder contradicts itself (legacy = false beside a legacy `tokenizer.json`).
 *
 * @module
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as JsonText from "./JsonText.ts"
import * as PieceTable from "./PieceTable.ts"
import * as SentencePiece from "./SentencePiece.ts"
import type * as TokenizerJson from "./TokenizerJson.ts"

/** A `tokenizer_config.json` that cannot be used; `path` says where in the document. */
export class TokenizerConfigError extends Schema.TaggedError<TokenizerConfigError>()("TokenizerConfigError", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `tokenizer_config.json, at ${this.path}: ${this.problem}\n  ` +
      "Cria reads the file that stands beside a Llama tokenizer.json; take both from one checkpoint"
  }
}

const fail = (path: string, problem: string) => Result.fail(new TokenizerConfigError({ path, problem }))

/** What a `tokenizer_config.json` says. */
export interface TokenizerConfig extends TokenizerJson.Frame {
  /** Names of special tokens; undefined for one that the tokenizer does not have. */
  readonly unkToken: string | undefined
  readonly bosToken: string | undefined
  readonly eosToken: string | undefined
  readonly padToken: string | undefined
  /** What the file says of the function; which one a `tokenizer.json` is, only that file can say. */
  readonly legacy: boolean | undefined
  /** The most tokens the model was made for; undefined for no limit. */
  readonly modelMaxLength: number | undefined
  /** A Jinja template, as text. */
  readonly chatTemplate: string | undefined
  /** All other fields, as they were. */
  readonly others: Readonly<Record<string, unknown>>
}

/** A token by name, or with flags of which only the name matters here. */
const Token = Schema.Union([Schema.String, Schema.Struct({ content: Schema.String })])
const OptionalToken = Schema.optionalKey(Schema.NullOr(Token))
const OptionalBoolean = Schema.optionalKey(Schema.NullOr(Schema.Boolean))

const Document = Schema.Struct({
  unk_token: OptionalToken,
  bos_token: OptionalToken,
  eos_token: OptionalToken,
  pad_token: OptionalToken,
  add_bos_token: OptionalBoolean,
  add_eos_token: OptionalBoolean,
  legacy: OptionalBoolean,
  model_max_length: Schema.optionalKey(Schema.NullOr(Schema.Finite.check(Schema.isGreaterThan(0)))),
  chat_template: Schema.optionalKey(Schema.NullOr(Schema.Union([Schema.String, Schema.Array(Schema.Unknown)])))
})
const known: ReadonlySet<string> = new Set(Object.keys(Document.fields))

const decodeFields = Schema.decodeUnknownResult(Schema.Record(Schema.String, Schema.Unknown))
const decodeDocument = Schema.decodeUnknownResult(Document)

/** From this on, Hugging Face writes a length that means none: 10³⁰, as the nearest double. */
const noLimit = 1e20

/** Reads a `tokenizer_config.json`. */
export const parse = (text: string): Result.Result<TokenizerConfig, TokenizerConfigError> => {
  const fields = JsonText.parse(text).pipe(
    Result.flatMap((json) => Result.mapError(decodeFields(json), JsonText.problemOf))
  )
  if (Result.isFailure(fields)) return Result.fail(new TokenizerConfigError(fields.failure))
  const decoded = Result.mapError(decodeDocument(fields.success), JsonText.problemOf)
  if (Result.isFailure(decoded)) return Result.fail(new TokenizerConfigError(decoded.failure))
  const { add_bos_token, add_eos_token, chat_template, legacy, model_max_length, ...tokens } = decoded.success
  if (typeof chat_template === "object" && chat_template !== null) {
    return fail(
      "$.chat_template",
      `${chat_template.length} named templates, where one is a text; keep the one to use as a string`
    )
  }
  const nameOf = (token: typeof Token.Type | null | undefined) => typeof token === "string" ? token : token?.content
  return Result.succeed({
    unkToken: nameOf(tokens.unk_token),
    bosToken: nameOf(tokens.bos_token),
    eosToken: nameOf(tokens.eos_token),
    padToken: nameOf(tokens.pad_token),
    // What Llama's class does where the file is silent.
    addBos: add_bos_token ?? true,
    addEos: add_eos_token ?? false,
    legacy: legacy ?? undefined,
    modelMaxLength: model_max_length === undefined || model_max_length === null || model_max_length >= noLimit
      ? undefined
      : model_max_length,
    chatTemplate: chat_template ?? undefined,
    others: Object.fromEntries(Object.entries(fields.success).filter(([name]) => !known.has(name)))
  })
}

/** Writes a `tokenizer_config.json`. What is undefined is left out, but for the padding token, which is null. */
export const print = (config: TokenizerConfig): string => {
  const { bosToken, chatTemplate, eosToken, legacy, modelMaxLength, others, padToken, unkToken } = config
  return JSON.stringify(
    {
      ...others,
      add_bos_token: config.addBos,
      add_eos_token: config.addEos,
      unk_token: unkToken,
      bos_token: bosToken,
      eos_token: eosToken,
      pad_token: padToken ?? null,
      legacy,
      model_max_length: modelMaxLength,
      chat_template: chatTemplate
    },
    undefined,
    2
  )
}

/**
 * The configuration of a model, framed as Llama's. `others` names the class by which transformers takes a
 * `tokenizer.json` as it is: `LlamaTokenizer` would put the rule of `legacy = false` in place of the file's own.
 */
export const ofModel = (model: SentencePiece.Model, legacy: boolean): TokenizerConfig => {
  const { bosPiece, eosPiece, padPiece, unkPiece } = model.trainer
  const controls = new Set(
    PieceTable.idsOfType(model.table, "control").map((id) => PieceTable.text(model.table, id))
  )
  return {
    addBos: true,
    addEos: false,
    unkToken: unkPiece,
    bosToken: controls.has(bosPiece) ? bosPiece : undefined,
    eosToken: controls.has(eosPiece) ? eosPiece : undefined,
    padToken: controls.has(padPiece) ? padPiece : undefined,
    legacy,
    modelMaxLength: undefined,
    chatTemplate: undefined,
    others: { clean_up_tokenization_spaces: false, tokenizer_class: "PreTrainedTokenizerFast" }
  }
}

/**
 * The model with the special tokens that the configuration names, so that `Codec.bosId` and its like are their ids.
 * Fails if the vocabulary has no such control piece.
 */
export const named = (
  model: SentencePiece.Model, config: TokenizerConfig
): Result.Result<SentencePiece.Model, TokenizerConfigError | SentencePiece.SentencePieceError> => {
  const { bosToken, eosToken, padToken, unkToken } = config
  const wanted = [["unk_token", unkToken], ["bos_token", bosToken], ["eos_token", eosToken], ["pad_token", padToken]]
  for (const [field, token] of wanted) {
    if (token === undefined) continue
    const id = PieceTable.idOf(model.table, token)
    if (id < 0) return fail(`$.${field}`, `${JSON.stringify(token)} is not in the vocabulary`)
    const type = PieceTable.typeOf(model.table, id)
    const expected = field === "unk_token" ? "unknown" : "control"
    // Some checkpoints pad with <unk>; `Codec.padId` is then undefined, as with none.
    if (type !== expected && !(field === "pad_token" && type === "unknown")) {
      return fail(`$.${field}`, `${JSON.stringify(token)} is piece ${id}, of type ${type}, not ${expected}`)
    }
  }
  const id = (token: string | undefined) => token === undefined ? -1 : PieceTable.idOf(model.table, token)
  return SentencePiece.make(
    model.pieces,
    {
      ...model.trainer,
      bosId: id(bosToken),
      eosId: id(eosToken),
      padId: id(padToken),
      ...bosToken === undefined ? {} : { bosPiece: bosToken },
      ...eosToken === undefined ? {} : { eosPiece: eosToken },
      ...padToken === undefined ? {} : { padPiece: padToken }
    },
    model.normalizer
  )
}
