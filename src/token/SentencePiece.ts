/**
 * The SentencePiece `.model` container: a vocabulary of scored pieces, how it was trained, and how text is normalized.
 *
 *     ModelProto = { pieces 1: { text 1, score 2, type 3 } *, trainer 2, normalizer 3, denormalizer 5, … }
 *
 * From     google/sentencepiece, `src/sentencepiece_model.proto` and the loading rules of `src/model_interface.cc`;
 *          Llama 2 §2.2 (byte-pair encoding, bytes for unknown characters, 32 000 pieces).
 * Checked  test/token/SentencePiece.test.ts (the real Llama 2 file is rebuilt byte for byte; pieces with any fields in
 *          any order; every validation message; mutated files).
 * Departs  a name given to two pieces is refused even where one is a control piece: SentencePiece would let text
 *          produce the control id. Scores must be finite.
 *
 * @module
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Protobuf from "../format/Protobuf.ts"
import { grown } from "./GrowingArray.ts"
import * as PieceTable from "./PieceTable.ts"
import * as Utf8 from "./Utf8.ts"

export type { Piece, PieceType } from "./PieceTable.ts"
type Piece = PieceTable.Piece

/** How the vocabulary was made; of the many options of the format, those that Cria reads or writes. */
export interface TrainerSpecification {
  readonly modelType: "unigram" | "bpe" | "word" | "char"
  readonly vocabSize: number
  /** The share of the text, 0 to 1, whose characters became pieces. */
  readonly characterCoverage: number
  /** In bytes: longer lines were passed over. */
  readonly maxSentenceLength: number
  /** In characters. */
  readonly maxPieceLength: number
  readonly splitByUnicodeScript: boolean
  readonly splitDigits: boolean
  readonly treatWhitespaceAsSuffix: boolean
  readonly allowWhitespaceOnlyPieces: boolean
  readonly byteFallback: boolean
  readonly requiredCharacters: string
  readonly controlSymbols: ReadonlyArray<string>
  readonly userDefinedSymbols: ReadonlyArray<string>
  /** The ids of the special pieces; −1 for one that there is not. */
  readonly unkId: number
  readonly bosId: number
  readonly eosId: number
  readonly padId: number
  readonly unkPiece: string
  readonly bosPiece: string
  readonly eosPiece: string
  readonly padPiece: string
  /** What an unknown id decodes to. */
  readonly unkSurface: string
}

/** What happens to text before it is cut into pieces. Llama: nothing but a leading space, and U+2581 for each space. */
export interface NormalizerSpecification {
  readonly name: string
  /** Compiled replacement rules (Unicode NFKC and the like); empty for the identity. */
  readonly charsmap: Uint8Array
  readonly addDummyPrefix: boolean
  readonly removeExtraWhitespaces: boolean
  readonly escapeWhitespaces: boolean
}

/** A `.model` file as a value: `bytes` is the whole file, unknown fields included, and the rest is what it says. */
export interface Model {
  readonly bytes: Uint8Array
  /** Made when first asked for; encoding and decoding need only `table`. */
  readonly pieces: ReadonlyArray<Piece>
  /** The same pieces in flat arrays, for loops over all of them. */
  readonly table: PieceTable.PieceTable
  readonly trainer: TrainerSpecification
  readonly normalizer: NormalizerSpecification
  /** Whether decoded text is to be rewritten by rules of its own (Cria refuses to encode with such a model). */
  readonly hasDenormalizer: boolean
}

/** A `.model` file that cannot be used: every problem found, each with the byte offset it was found at. */
export class SentencePieceError extends Schema.TaggedError<SentencePieceError>()("SentencePieceError", {
  problems: Schema.NonEmptyArray(Schema.Struct({ offset: Schema.Int, problem: Schema.String }))
}) {
  override get message() {
    const shown = this.problems.slice(0, 8).map(({ offset, problem }) => `\n  byte ${offset}: ${problem}`)
    const more = this.problems.length - shown.length
    const count = `${this.problems.length} problem${this.problems.length === 1 ? "" : "s"}`
    return `SentencePiece model, ${count}:${shown.join("")}` +
      (more > 0 ? `\n  … and ${more} more` : "") +
      "\n  is it the tokenizer.model of the checkpoint, whole and unchanged? " +
      "compare its size and checksum with the source"
  }
}

interface Problem {
  readonly offset: number
  readonly problem: string
}

const modelTypes: ReadonlyArray<TrainerSpecification["modelType"]> = ["unigram", "bpe", "word", "char"]

/** Reads a `.model` file and checks that it is a consistent vocabulary; reports every problem, not only the first. */
export const parse = (bytes: Uint8Array): Result.Result<Model, SentencePieceError> => {
  const problems: Array<Problem> = []
  const { made, odd, others } = readPieces(bytes, problems)
  const nested = (field: Protobuf.Field, name: string): ReadonlyArray<Protobuf.Field> => {
    if (field.wire !== 2) {
      problems.push({
        offset: field.start,
        problem: `${name} (field ${field.number}) has wire type ${field.wire} where a message has 2`
      })
      return []
    }
    const result = Protobuf.fields(bytes, field.from, field.end)
    if (Result.isSuccess(result)) return result.success
    problems.push(result.failure)
    return []
  }
  let trainer = defaultTrainer
  let normalizer = defaultNormalizer
  let hasDenormalizer = false
  for (const field of others) {
    if (field.number === 2) trainer = readTrainer(bytes, nested(field, "trainer"), trainer, problems)
    if (field.number === 3) normalizer = readNormalizer(bytes, nested(field, "normalizer"), normalizer, problems)
    if (field.number === 5) {
      const denormalizer = readNormalizer(bytes, nested(field, "denormalizer"), defaultNormalizer, problems)
      hasDenormalizer = denormalizer.charsmap.length > 0
    }
  }
  const found = problems.length === 0 ? checkPieces(bytes, made, odd, trainer.byteFallback) : problems
  const [first, ...rest] = found.map(({ offset, problem }) => ({ offset, problem }))
  if (first !== undefined) return Result.fail(new SentencePieceError({ problems: [first, ...rest] }))
  const { table } = made
  let pieces: ReadonlyArray<Piece> | undefined
  return Result.succeed({
    bytes,
    get pieces() {
      return pieces ??= PieceTable.pieces(table)
    },
    table,
    trainer,
    normalizer,
    hasDenormalizer
  })
}

/**
 * The pieces and the other fields of the file. A vocabulary has tens of thousands of pieces, and this decides how long
 * loading takes: no object is made for a field, nor for a piece.
 */
const readPieces = (bytes: Uint8Array, problems: Array<Problem>) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const others: Array<Protobuf.Field> = []
  // A guess: usual pieces have ten bytes or more. Those without a score can have fewer, and more of them fit.
  let room = Math.ceil(bytes.length / 10)
  let records = new Int32Array(room * PieceTable.recordLength)
  let count = 0
  /** To be called before a record when `count` is `room`: what is written past the end of an array is lost. */
  const makeRoom = (): void => {
    room *= 2
    records = grown(new Int32Array(room * PieceTable.recordLength), records)
  }
  // Pieces with something unusual about them, to be looked at one by one.
  const odd: Array<number> = []

  const readField: Protobuf.Visit = (number, wire, start, from, end) => {
    const expected = number === 1 ? 2 : number === 2 ? 5 : number === 3 ? 0 : wire
    const record = count * PieceTable.recordLength
    if (wire !== expected) {
      problems.push({
        offset: start, problem: `piece ${count}: field ${number} has wire type ${wire}, not ${expected}`
      })
    } else if (number === 1) {
      // Should a piece have two texts, the last counts, as in any protocol buffer.
      records[record] = from
      records[record + 1] = end
    } else if (number === 2) records[record + 2] = view.getInt32(from, true)
    else if (number === 3) {
      const type = Protobuf.int32(bytes, { from, end })
      if (type < 1 || type > 6) {
        problems.push({ offset: start, problem: `piece ${count}: type ${type} is not one of 1 to 6` })
      }
      records[record + 3] = type - 1
    }
  }
  const readPiece = (from: number, end: number): void => {
    if (count === room) makeRoom()
    const error = Protobuf.visit(bytes, from, end, readField)
    if (error !== undefined) problems.push(error)
    odd.push(count++)
  }
  let at = 0
  // Nearly all pieces are a short text and a score, in this order, one after another, and spared the general walk.
  while (bytes[at] === 0x0a) {
    const end = at + 2 + bytes[at + 1]!
    const textEnd = at + 4 + bytes[at + 3]!
    if (!(end <= bytes.length && end - at < 130)) break
    if (textEnd + 5 === end && textEnd > at + 4 && bytes[at + 2] === 0x0a && bytes[textEnd] === 0x15) {
      const score = view.getInt32(textEnd + 1, true)
      // An exponent of ones: infinite, or not a number.
      if ((score & 0x7f800000) === 0x7f800000) odd.push(count)
      if (count === room) makeRoom()
      const record = count++ * PieceTable.recordLength
      records[record] = at + 4
      records[record + 1] = textEnd
      records[record + 2] = score
    } else readPiece(at + 2, end)
    at = end
  }
  const error = Protobuf.visit(bytes, at, bytes.length, (number, wire, start, from, end) => {
    if (number === 1 && wire === 2) return readPiece(from, end)
    others.push({ number, wire, start, from, end })
    if (number === 1) problems.push({ offset: start, problem: `a piece (field 1) has wire type ${wire}, not 2` })
  })
  if (error !== undefined) problems.push(error)
  const made = PieceTable.make(bytes, records.subarray(0, count * PieceTable.recordLength))
  for (const [id, offset] of made.invalid) {
    problems.push({ offset, problem: `piece ${id}: byte 0x${bytes[offset]!.toString(16)} is not valid UTF-8` })
  }
  problems.sort((a, b) => a.offset - b.offset)
  return { others, odd, made }
}

/** What is wrong with pieces that were read; `odd` are the ids of those that need looking at. */
const checkPieces = (
  bytes: Uint8Array,
  { repeated, table }: PieceTable.Made,
  odd: ReadonlyArray<number>,
  byteFallback: boolean
): ReadonlyArray<Problem> => {
  const { offsets, scores, size, types } = table
  const found: Array<readonly [id: number, problem: string]> = []
  const byteType = PieceTable.pieceTypes.indexOf("byte")
  for (const id of [...new Set([...odd, ...repeated.keys()])].sort((a, b) => a - b)) {
    const text = PieceTable.text(table, id)
    const name = JSON.stringify(text)
    const say = (problem: string) => found.push([id, `piece ${id}: ${problem}`])
    if (offsets[id] === offsets[id + 1]) say("its text is empty")
    if (!Number.isFinite(scores[id])) say(`score ${scores[id]} of ${name} is not finite, so merges have no order`)
    if (repeated.has(id)) say(`${name} is already piece ${repeated.get(id)}`)
    if (types[id] === byteType) {
      if (!byteFallback) say(`byte piece ${name}, but byte_fallback is off in the trainer field`)
      if (!/^<0x[0-9A-F]{2}>$/.test(text)) say(`${name} is no byte; bytes are named <0x00> to <0xFF>`)
    }
  }
  const starts = found.length === 0 ? [] : Result.getOrElse(Protobuf.fields(bytes), () => [])
    .flatMap((field) => field.number === 1 ? [field.start] : [])
  const problems = found.map(([id, problem]): Problem => ({ offset: starts[id]!, problem }))
  const unknown = PieceTable.idsOfType(table, "unknown")
  if (unknown.length !== 1) {
    problems.push({
      offset: 0,
      problem: `exactly one piece must have type unknown, ${unknown.length} of ${size} have` +
        (unknown.length > 0 ? `: ids ${unknown.slice(0, 8).join(", ")}` : "")
    })
  }
  const byteCount = PieceTable.idsOfType(table, "byte").length
  if (byteFallback && byteCount !== 256) {
    const missing = Array.from({ length: 256 }, (_, byte) => byteText(byte))
      .filter((text) => PieceTable.idOf(table, text) < 0)
    problems.push({
      offset: 0,
      problem: `byte_fallback needs all 256 byte pieces, ${byteCount} are there; ` +
        `missing ${missing.slice(0, 8).join(" ")}` +
        (missing.length > 8 ? " …" : "")
    })
  }
  return problems
}

/** The name of a byte piece: `<0x00>` to `<0xFF>`. */
export const byteText = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`

/** The 256 byte pieces, in the order of the bytes. */
export const bytePieces: ReadonlyArray<Piece> =
  Array.from({ length: 256 }, (_, byte) => ({ text: byteText(byte), score: 0, type: "byte" }))

/** The defaults of the format, which a file need not repeat. */
export const defaultTrainer: TrainerSpecification = {
  modelType: "unigram",
  vocabSize: 8000,
  characterCoverage: 0.9995,
  maxSentenceLength: 4192,
  maxPieceLength: 16,
  splitByUnicodeScript: true,
  splitDigits: false,
  treatWhitespaceAsSuffix: false,
  allowWhitespaceOnlyPieces: false,
  byteFallback: false,
  requiredCharacters: "",
  controlSymbols: [],
  userDefinedSymbols: [],
  unkId: 0,
  bosId: 1,
  eosId: 2,
  padId: -1,
  unkPiece: "<unk>",
  bosPiece: "<s>",
  eosPiece: "</s>",
  padPiece: "<pad>",
  unkSurface: " \u2047 "
}

const defaultNormalizer: NormalizerSpecification = {
  name: "",
  charsmap: new Uint8Array(0),
  addDummyPrefix: true,
  removeExtraWhitespaces: true,
  escapeWhitespaces: true
}

/** The normalizer of Llama: a space in front of any text, U+2581 for each space, nothing else. */
export const identityNormalizer: NormalizerSpecification = {
  ...defaultNormalizer,
  name: "identity",
  removeExtraWhitespaces: false
}

/** Does a model do more to text than Llama's, which writes U+2581 for each space and may put a space in front? */
export const rewritesText = ({ normalizer, trainer }: Pick<Model, "normalizer" | "trainer">): boolean =>
  normalizer.charsmap.length > 0 || normalizer.removeExtraWhitespaces || !normalizer.escapeWhitespaces ||
  trainer.treatWhitespaceAsSuffix

/** Typed access to the fields of one nested message; a known field of another wire type is a problem, not a guess. */
const reader = (bytes: Uint8Array, message: string, problems: Array<Problem>) => {
  const has = (field: Protobuf.Field, wire: Protobuf.WireType): boolean => {
    if (field.wire === wire) return true
    const problem = `${message}: field ${field.number} has wire type ${field.wire}, not ${wire}`
    problems.push({ offset: field.start, problem })
    return false
  }
  return {
    int: (field: Protobuf.Field, otherwise: number) => has(field, 0) ? Protobuf.int32(bytes, field) : otherwise,
    bool: (field: Protobuf.Field, otherwise: boolean) =>
      has(field, 0) ? Protobuf.int64(bytes, field) !== BigInt(0) : otherwise,
    float: (field: Protobuf.Field, otherwise: number) => has(field, 5) ? Protobuf.float32(bytes, field) : otherwise,
    text: (field: Protobuf.Field, otherwise: string) =>
      has(field, 2) ? Utf8.lenientText(Protobuf.payload(bytes, field)) : otherwise,
    bytes: (field: Protobuf.Field, otherwise: Uint8Array) => has(field, 2) ? Protobuf.payload(bytes, field) : otherwise
  }
}

const readTrainer = (
  bytes: Uint8Array,
  fields: ReadonlyArray<Protobuf.Field>,
  start: TrainerSpecification,
  problems: Array<Problem>
): TrainerSpecification => {
  const read = reader(bytes, "trainer", problems)
  const texts = (number: number) =>
    fields.filter((field) => field.number === number).map((field) => read.text(field, ""))
  return fields.reduce((t, field): TrainerSpecification => {
    switch (field.number) {
      case 3: {
        const modelType = modelTypes[read.int(field, 1) - 1]
        if (modelType === undefined) {
          problems.push({ offset: field.start, problem: "trainer: model_type is not one of 1 to 4" })
        }
        return { ...t, modelType: modelType ?? t.modelType }
      }
      case 4: return { ...t, vocabSize: read.int(field, t.vocabSize) }
      case 10: return { ...t, characterCoverage: read.float(field, t.characterCoverage) }
      case 18: return { ...t, maxSentenceLength: read.int(field, t.maxSentenceLength) }
      case 20: return { ...t, maxPieceLength: read.int(field, t.maxPieceLength) }
      case 21: return { ...t, splitByUnicodeScript: read.bool(field, t.splitByUnicodeScript) }
      case 24: return { ...t, treatWhitespaceAsSuffix: read.bool(field, t.treatWhitespaceAsSuffix) }
      case 25: return { ...t, splitDigits: read.bool(field, t.splitDigits) }
      case 26: return { ...t, allowWhitespaceOnlyPieces: read.bool(field, t.allowWhitespaceOnlyPieces) }
      case 35: return { ...t, byteFallback: read.bool(field, t.byteFallback) }
      case 36: return { ...t, requiredCharacters: read.text(field, t.requiredCharacters) }
      case 40: return { ...t, unkId: read.int(field, t.unkId) }
      case 41: return { ...t, bosId: read.int(field, t.bosId) }
      case 42: return { ...t, eosId: read.int(field, t.eosId) }
      case 43: return { ...t, padId: read.int(field, t.padId) }
      case 44: return { ...t, unkSurface: read.text(field, t.unkSurface) }
      // An empty name means the default one, as in SentencePiece.
      case 45: return { ...t, unkPiece: read.text(field, t.unkPiece) || defaultTrainer.unkPiece }
      case 46: return { ...t, bosPiece: read.text(field, t.bosPiece) || defaultTrainer.bosPiece }
      case 47: return { ...t, eosPiece: read.text(field, t.eosPiece) || defaultTrainer.eosPiece }
      case 48: return { ...t, padPiece: read.text(field, t.padPiece) || defaultTrainer.padPiece }
      default: return t
    }
  }, {
    ...start,
    controlSymbols: [...start.controlSymbols, ...texts(30)],
    userDefinedSymbols: [...start.userDefinedSymbols, ...texts(31)]
  })
}

const readNormalizer = (
  bytes: Uint8Array,
  fields: ReadonlyArray<Protobuf.Field>,
  start: NormalizerSpecification,
  problems: Array<Problem>
): NormalizerSpecification => {
  const read = reader(bytes, "normalizer", problems)
  return fields.reduce((n, field): NormalizerSpecification => {
    switch (field.number) {
      case 1: return { ...n, name: read.text(field, n.name) }
      case 2: return { ...n, charsmap: read.bytes(field, n.charsmap) }
      case 3: return { ...n, addDummyPrefix: read.bool(field, n.addDummyPrefix) }
      case 4: return { ...n, removeExtraWhitespaces: read.bool(field, n.removeExtraWhitespaces) }
      case 5: return { ...n, escapeWhitespaces: read.bool(field, n.escapeWhitespaces) }
      default: return n
    }
  }, start)
}

/**
 * Writes a new model: the bytes are what SentencePiece itself would load. Fails where {@link parse} would refuse the
 * result.
 */
export const make = (
  pieces: ReadonlyArray<Piece>,
  trainer: TrainerSpecification,
  normalizer: NormalizerSpecification
): Result.Result<Model, SentencePieceError> => {
  const w = Protobuf.writer(pieces.length * 20 + 1024)
  writePieces(w, pieces)
  Protobuf.writeMessage(w, 2, () => writeTrainer(w, trainer))
  Protobuf.writeMessage(w, 3, () => writeNormalizer(w, normalizer))
  return parse(Protobuf.written(w))
}

/** The same model with other pieces; every other field of the file, known or not, is kept as it was. */
export const withPieces = (model: Model, pieces: ReadonlyArray<Piece>): Result.Result<Model, SentencePieceError> => {
  const w = Protobuf.writer(model.bytes.length)
  writePieces(w, pieces)
  for (const field of Result.getOrElse(Protobuf.fields(model.bytes), () => [])) {
    if (field.number !== 1) Protobuf.writeRaw(w, model.bytes.subarray(field.start, field.end))
  }
  return parse(Protobuf.written(w))
}

const writePieces = (w: Protobuf.Writer, pieces: ReadonlyArray<Piece>): void => {
  for (const piece of pieces) {
    Protobuf.writeMessage(w, 1, () => {
      Protobuf.writeText(w, 1, piece.text)
      Protobuf.writeFloat(w, 2, piece.score)
      if (piece.type !== "normal") Protobuf.writeInt(w, 3, PieceTable.pieceTypes.indexOf(piece.type) + 1)
    })
  }
}

const writeTrainer = (w: Protobuf.Writer, t: TrainerSpecification): void => {
  Protobuf.writeInt(w, 3, modelTypes.indexOf(t.modelType) + 1)
  Protobuf.writeInt(w, 4, t.vocabSize)
  Protobuf.writeFloat(w, 10, t.characterCoverage)
  Protobuf.writeInt(w, 18, t.maxSentenceLength)
  Protobuf.writeInt(w, 20, t.maxPieceLength)
  Protobuf.writeInt(w, 21, t.splitByUnicodeScript)
  Protobuf.writeInt(w, 24, t.treatWhitespaceAsSuffix)
  Protobuf.writeInt(w, 25, t.splitDigits)
  Protobuf.writeInt(w, 26, t.allowWhitespaceOnlyPieces)
  t.controlSymbols.forEach((symbol) => Protobuf.writeText(w, 30, symbol))
  t.userDefinedSymbols.forEach((symbol) => Protobuf.writeText(w, 31, symbol))
  Protobuf.writeInt(w, 35, t.byteFallback)
  Protobuf.writeText(w, 36, t.requiredCharacters)
  Protobuf.writeInt(w, 40, t.unkId)
  Protobuf.writeInt(w, 41, t.bosId)
  Protobuf.writeInt(w, 42, t.eosId)
  Protobuf.writeInt(w, 43, t.padId)
  Protobuf.writeText(w, 44, t.unkSurface)
  Protobuf.writeText(w, 45, t.unkPiece)
  Protobuf.writeText(w, 46, t.bosPiece)
  Protobuf.writeText(w, 47, t.eosPiece)
  Protobuf.writeText(w, 48, t.padPiece)
}

const writeNormalizer = (w: Protobuf.Writer, n: NormalizerSpecification): void => {
  Protobuf.writeText(w, 1, n.name)
  Protobuf.writeBytes(w, 2, n.charsmap)
  Protobuf.writeInt(w, 3, n.addDummyPrefix)
  Protobuf.writeInt(w, 4, n.removeExtraWhitespaces)
  Protobuf.writeInt(w, 5, n.escapeWhitespaces)
}
