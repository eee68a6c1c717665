/**
 * The SentencePiece `.model` container: a vocabulary of scored pieces, how it was trained, and how text is normalized.
 *
 *     ModelProto = { pieces 1: { text 1, score 2, type 3 } *, trainer 2, normalizer 3, denormalizer 5, … }
 *
 * From     google/sentencepiece, `src/sentencepiece_model.proto` and the loading rules of `src/model_interface.cc`;
 *          Llama 2 §2.2 (byte-pair encoding, bytes for unknown characters, 32 000 pieces).
 * Checked  test/token/SentencePiece.test.ts (the real Llama 2 file is rebuilt byte for byte; every validation
 *          message; mutated files).
 * Departs  a name given to two pieces is refused even where one is a control piece: SentencePiece would let text
 *          produce the control id. Scores must be finite.
 *
 * @module
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Protobuf from "../format/Protobuf.ts"
import * as Utf8 from "./Utf8.ts"

/**
 * What a piece is for. Text can produce `normal`, `user-defined` (matched first, never merged) and, through byte
 * fallback, `byte` pieces; `unused` ones are formed and taken apart again; `control` ids (`<s>`, `</s>`) never come
 * from text.
 */
export type PieceType = "normal" | "unknown" | "control" | "user-defined" | "unused" | "byte"

/**
 * One entry of the vocabulary; its id is its index. In `text`, U+2581 stands for a space. Higher scores merge first.
 */
export interface Piece {
  readonly text: string
  readonly score: number
  readonly type: PieceType
}

/** How the vocabulary was made; of the many options of the format, those that Cria reads or writes. */
export interface TrainerSpecification {
  readonly modelType: "unigram" | "bpe" | "word" | "char"
  readonly vocabSize: number
  readonly characterCoverage: number
  readonly maxSentenceLength: number
  readonly maxPieceLength: number
  readonly splitByUnicodeScript: boolean
  readonly splitDigits: boolean
  readonly treatWhitespaceAsSuffix: boolean
  readonly allowWhitespaceOnlyPieces: boolean
  readonly byteFallback: boolean
  readonly requiredCharacters: string
  readonly controlSymbols: ReadonlyArray<string>
  readonly userDefinedSymbols: ReadonlyArray<string>
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
  readonly pieces: ReadonlyArray<Piece>
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

const pieceTypes: ReadonlyArray<PieceType> = ["normal", "unknown", "control", "user-defined", "unused", "byte"]
const modelTypes: ReadonlyArray<TrainerSpecification["modelType"]> = ["unigram", "bpe", "word", "char"]

/** Reads a `.model` file and checks that it is a consistent vocabulary; reports every problem, not only the first. */
export const parse = (bytes: Uint8Array): Result.Result<Model, SentencePieceError> => {
  const problems: Array<Problem> = []
  const { others, pieceStarts, pieces } = readPieces(bytes, problems)
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
  if (problems.length === 0) checkPieces(pieces, trainer.byteFallback, (id) => pieceStarts[id]!, problems)
  const [first, ...rest] = problems.map(({ offset, problem }) => ({ offset, problem }))
  return first === undefined
    ? Result.succeed({ bytes, pieces, trainer, normalizer, hasDenormalizer })
    : Result.fail(new SentencePieceError({ problems: [first, ...rest] }))
}

/**
 * The pieces, where each begins, and the other fields of the file. A vocabulary has tens of thousands of pieces, and
 * this decides how long loading takes: no object for a field, and one call to decode all texts.
 */
const readPieces = (bytes: Uint8Array, problems: Array<Problem>) => {
  const others: Array<Protobuf.Field> = []
  const pieceStarts: Array<number> = []
  const scores: Array<number> = []
  const types: Array<number> = []
  const textStarts: Array<number> = []
  const textEnds: Array<number> = []
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  let id = -1

  const readField: Protobuf.Visit = (number, wire, start, from, end) => {
    const expected = number === 1 ? 2 : number === 2 ? 5 : number === 3 ? 0 : wire
    if (wire !== expected) {
      problems.push({ offset: start, problem: `piece ${id}: field ${number} has wire type ${wire}, not ${expected}` })
    } else if (number === 1) {
      // Should a piece have two texts, the last counts, as in any protocol buffer.
      textStarts[id] = from
      textEnds[id] = end
    } else if (number === 2) scores[id] = view.getFloat32(from, true)
    else if (number === 3) {
      const type = Protobuf.int32(bytes, { from, end })
      if (type < 1 || type > 6) {
        problems.push({ offset: start, problem: `piece ${id}: type ${type} is not one of 1 to 6` })
      }
      types[id] = type - 1
    }
  }
  const error = Protobuf.visit(bytes, 0, bytes.length, (number, wire, start, from, end) => {
    if (number !== 1 || wire !== 2) {
      others.push({ number, wire, start, from, end })
      if (number === 1) problems.push({ offset: start, problem: `a piece (field 1) has wire type ${wire}, not 2` })
      return
    }
    id++
    pieceStarts.push(start)
    types.push(0)
    // Nearly all pieces are a short text and a score, in this order; this spares them the general walk.
    const textEnd = from + 2 + bytes[from + 1]!
    if (textEnd + 5 === end && textEnd - from < 130 && bytes[from] === 0x0a && bytes[textEnd] === 0x15) {
      scores.push(view.getFloat32(textEnd + 1, true))
      textStarts.push(from + 2)
      textEnds.push(textEnd)
      return
    }
    scores.push(0)
    textStarts.push(from)
    textEnds.push(from)
    const pieceError = Protobuf.visit(bytes, from, end, readField)
    if (pieceError !== undefined) problems.push(pieceError)
  })
  if (error !== undefined) problems.push(error)
  const texts = readTexts(bytes, textStarts, textEnds, problems)
  problems.sort((a, b) => a.offset - b.offset)
  const pieces = texts.map((text, i): Piece => ({ text, score: scores[i]!, type: pieceTypes[types[i]!]! }))
  return { others, pieceStarts, pieces }
}

const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The texts `bytes[starts[i], ends[i])`, all decoded at once; none if one of them is not UTF-8. */
const readTexts = (
  bytes: Uint8Array, starts: ReadonlyArray<number>, ends: ReadonlyArray<number>, problems: Array<Problem>
): ReadonlyArray<string> => {
  // Moved together, each with a newline after it; before a text there is at least its key and its length, so no text
  // is overwritten before it was moved.
  const together = new Uint8Array(bytes) // a copy; `slice` of Node's Buffer, which files are read into, is a view
  let length = 0
  for (let i = 0; i < starts.length; i++) {
    together.copyWithin(length, starts[i]!, ends[i]!)
    length += ends[i]! - starts[i]!
    together[length++] = NEWLINE
  }
  const decoded = Result.try(() => strictDecoder.decode(together.subarray(0, length)))
  if (Result.isFailure(decoded)) {
    starts.forEach((start, id) => findInvalid(bytes, start, ends[id]!, id, problems))
    return []
  }
  const texts = decoded.success.split("\n")
  texts.pop()
  return texts.length === starts.length
    ? texts
    // Some text holds a newline itself: each alone, then.
    : starts.map((start, i) => Utf8.validText(bytes.subarray(start, ends[i])))
}
const NEWLINE = 0x0a

/** Reports the first byte of a text that belongs to no character. */
const findInvalid = (bytes: Uint8Array, start: number, end: number, id: number, problems: Array<Problem>): void => {
  for (let at = start; at < end;) {
    const count = Utf8.characterLength(bytes, at, end)
    if (count === 0) {
      problems.push({ offset: at, problem: `piece ${id}: byte 0x${bytes[at]!.toString(16)} is not valid UTF-8` })
      return
    }
    at += count
  }
}

const checkPieces = (
  pieces: ReadonlyArray<Piece>,
  byteFallback: boolean,
  offset: (id: number) => number,
  problems: Array<Problem>
): void => {
  // Only names that occur twice are asked for one by one.
  const distinct = new Set(pieces.map((piece) => piece.text))
  const idOf = distinct.size === pieces.length ? undefined : new Map<string, number>()
  const unknown: Array<number> = []
  let bytePieces = 0
  const say = (id: number, problem: string) => problems.push({ offset: offset(id), problem: `piece ${id}: ${problem}` })
  for (let id = 0; id < pieces.length; id++) {
    const { score, text, type } = pieces[id]!
    if (text === "") say(id, "its text is empty")
    if (!Number.isFinite(score)) {
      say(id, `score ${score} of ${JSON.stringify(text)} is not finite, so merges have no order`)
    }
    const first = idOf?.get(text)
    if (first !== undefined) say(id, `${JSON.stringify(text)} is already piece ${first}`)
    else idOf?.set(text, id)
    if (type === "unknown") unknown.push(id)
    if (type === "byte") {
      bytePieces++
      if (!byteFallback) say(id, `byte piece ${JSON.stringify(text)}, but byte_fallback is off in the trainer field`)
      if (!/^<0x[0-9A-F]{2}>$/.test(text)) {
        say(id, `${JSON.stringify(text)} is no byte; bytes are named <0x00> to <0xFF>`)
      }
    }
  }
  if (unknown.length !== 1) {
    problems.push({
      offset: 0,
      problem: `exactly one piece must have type unknown, ${unknown.length} of ${pieces.length} have` +
        (unknown.length > 0 ? `: ids ${unknown.slice(0, 8).join(", ")}` : "")
    })
  }
  if (byteFallback && bytePieces !== 256) {
    const missing = Array.from({ length: 256 }, (_, byte) => byteText(byte)).filter((text) => !distinct.has(text))
    problems.push({
      offset: 0,
      problem: `byte_fallback needs all 256 byte pieces, ${bytePieces} are there; ` +
        `missing ${missing.slice(0, 8).join(" ")}` +
        (missing.length > 8 ? " …" : "")
    })
  }
}

/** The name of a byte piece: `<0x00>` to `<0xFF>`. */
export const byteText = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`

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
      if (piece.type !== "normal") Protobuf.writeInt(w, 3, pieceTypes.indexOf(piece.type) + 1)
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
