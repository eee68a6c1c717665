import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { createHash } from "node:crypto"
import * as Protobuf from "../../src/format/Protobuf.ts"
import * as PieceTable from "../../src/token/PieceTable.ts"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import { hasData, llamaModel, readData } from "./realModel.ts"
import { bytePieces, modelOf, reserved } from "./vocabularies.ts"

const errorOf = (bytes: Uint8Array): SentencePiece.SentencePieceError =>
  Result.getOrThrow(Result.flip(SentencePiece.parse(bytes)))

const bytesOf = (body: (w: Protobuf.Writer) => void): Uint8Array => {
  const w = Protobuf.writer()
  body(w)
  return Protobuf.written(w)
}

const problemsOf = (
  pieces: ReadonlyArray<SentencePiece.Piece>,
  trainer: Partial<SentencePiece.TrainerSpecification> = {}
) =>
  Result.getOrThrow(Result.flip(SentencePiece.make(
    pieces,
    { ...SentencePiece.defaultTrainer, modelType: "bpe", ...trainer },
    SentencePiece.identityNormalizer
  ))).problems.map(({ problem }) => problem)

const sample = modelOf(
  [
    { text: "\u2581the", score: -1.5, type: "normal" },
    { text: "<sep>", score: 0, type: "user-defined" },
    { text: "🦙", score: -0, type: "unused" }
  ],
  true,
  {},
  {
    unkSurface: "?", requiredCharacters: "äé", controlSymbols: ["<a>", "<b>"], userDefinedSymbols: ["<sep>"],
    vocabSize: 262
  }
)

/** How a piece is written: its fields in order, the code units that its text is made longer by, fields around it. */
interface PieceRecord {
  readonly order: ReadonlyArray<"text" | "score" | "type" | "extension" | "replaced">
  readonly longer: number
  readonly isAfterAnother: boolean
  readonly score: number
  readonly type: SentencePiece.PieceType
}
const textOnly: PieceRecord = { order: ["text"], longer: 0, isAfterAnother: false, score: 0, type: "normal" }
const usual: PieceRecord = { ...textOnly, order: ["text", "score"], score: -1 }
const unknown: PieceRecord = { ...textOnly, order: ["text", "type"], type: "unknown" }

/** Records to a file, and the pieces that it holds; texts are short, and all are different. */
const fileOf = (records: ReadonlyArray<PieceRecord>) => {
  const pieces: Array<SentencePiece.Piece> = []
  const bytes = bytesOf((w) => records.forEach(({ isAfterAnother, longer, order, score, type }, id) => {
    const text = id.toString(36) + "é".repeat(longer)
    if (isAfterAnother) Protobuf.writeText(w, 200, "an extension")
    Protobuf.writeMessage(w, 1, () => order.forEach((field) => {
      if (field === "score") Protobuf.writeFloat(w, 2, score)
      else if (field === "type") Protobuf.writeInt(w, 3, PieceTable.pieceTypes.indexOf(type) + 1)
      else if (field === "extension") Protobuf.writeText(w, 15, "of a piece")
      else {
        // Of two texts the last one counts.
        if (field === "replaced") Protobuf.writeText(w, 1, "replaced")
        Protobuf.writeText(w, 1, text)
      }
    }))
    pieces.push({
      text, score: order.includes("score") ? score : 0, type: order.includes("type") ? type : "normal"
    })
  }))
  return { bytes, pieces }
}
const times = (count: number, record: PieceRecord) => Array.from({ length: count }, () => record)

describe("SentencePiece", () => {
  it("what is made is what is parsed", () => {
    const again = Result.getOrThrow(SentencePiece.parse(sample.bytes))
    assert.deepStrictEqual(again, sample)
    assert.deepStrictEqual(sample.pieces.slice(0, 3), [...reserved])
    assert.deepStrictEqual(sample.pieces.slice(259), [
      { text: "\u2581the", score: -1.5, type: "normal" },
      { text: "<sep>", score: 0, type: "user-defined" },
      { text: "🦙", score: -0, type: "unused" }
    ])
    assert.deepStrictEqual(sample.trainer, {
      ...SentencePiece.defaultTrainer,
      modelType: "bpe",
      byteFallback: true,
      characterCoverage: Math.fround(0.9995),
      unkSurface: "?",
      requiredCharacters: "äé",
      controlSymbols: ["<a>", "<b>"],
      userDefinedSymbols: ["<sep>"],
      vocabSize: 262
    })
    assert.deepStrictEqual(sample.normalizer, SentencePiece.identityNormalizer)
  })

  it("texts with a newline, of many bytes and at the limits of the format survive", () => {
    const texts = ["\n", "a\n\nb", "x".repeat(127), "y".repeat(128), "é".repeat(300), "\ufeff", "\ufffd", "\0"]
    const fresh = texts.map((text, i): SentencePiece.Piece => ({ text, score: -i, type: "normal" }))
    assert.deepStrictEqual(modelOf(fresh, false).pieces.slice(3), fresh)
    assert.deepStrictEqual(modelOf(fresh.slice(2), false).pieces.slice(3), fresh.slice(2))
  })

  it("parsing changes no byte, of Node's Buffer neither, whose slice is a view", () => {
    const model = Tokenizer.bytesModel
    const buffer = Buffer.from(model.bytes)
    assert.isTrue(Result.isSuccess(SentencePiece.parse(buffer)))
    assert.isTrue(buffer.equals(Buffer.from(model.bytes)))
  })
  it("any text and any float32 score survive", () => {
    fc.assert(fc.property(
      fc.uniqueArray(fc.record({
        text: fc.string({ unit: "binary", minLength: 1, maxLength: 20 }).filter((text) => !/\p{Surrogate}/u.test(text)),
        score: fc.float({ noNaN: true, noDefaultInfinity: true }),
        type: fc.constantFrom<SentencePiece.PieceType>("normal", "control", "user-defined", "unused")
      }), { selector: (piece) => piece.text, maxLength: 20 }),
      (pieces) => {
        const fresh = pieces.filter(({ text }) => !reserved.some((piece) => piece.text === text))
        assert.deepStrictEqual(modelOf(fresh, false).pieces.slice(3), fresh)
      }
    ), { numRuns: 50 })
  })

  it("pieces are all there, whichever fields each has, in whatever order", () => {
    const any: fc.Arbitrary<PieceRecord> = fc.record({
      order: fc.tuple(
        fc.shuffledSubarray(["score", "type", "extension"] as const),
        fc.nat(3),
        fc.constantFrom("text" as const, "replaced" as const)
      ).map(([others, at, text]) => [...others.slice(0, at), text, ...others.slice(at)]),
      longer: fc.constantFrom(0, 0, 1, 57, 58, 63, 64, 200),
      isAfterAnother: fc.boolean(),
      score: fc.float({ noNaN: true, noDefaultInfinity: true }),
      type: fc.constantFrom<SentencePiece.PieceType>("normal", "control", "user-defined", "unused")
    })
    const kind = fc.oneof({ weight: 2, arbitrary: fc.constantFrom(textOnly, usual) }, any)
    const run = fc.tuple(fc.integer({ min: 1, max: 40 }), kind).map(([count, record]) => times(count, record))
    fc.assert(fc.property(fc.array(run, { maxLength: 6 }), fc.nat(), (runs, at) => {
      const records = runs.flat()
      records.splice(at % (records.length + 1), 0, unknown)
      const { bytes, pieces } = fileOf(records)
      const model = Result.getOrThrow(SentencePiece.parse(bytes))
      assert.deepStrictEqual(model.pieces, pieces)
      assert.strictEqual(model.table.size, pieces.length)
    }), { numRuns: 100 })
  })

  it("pieces without a score, which are shorter than usual ones, take no other's place", () => {
    for (const records of [
      [unknown, ...times(4, textOnly), ...times(2, usual)],
      [unknown, ...times(10, textOnly), ...times(20, usual)],
      [unknown, ...times(10, textOnly), ...times(20, usual), textOnly],
      [unknown, ...times(20, textOnly), ...times(26, usual), textOnly],
      [unknown, ...times(400, textOnly)]
    ]) {
      const { bytes, pieces } = fileOf(records)
      assert.deepStrictEqual(Result.getOrThrow(SentencePiece.parse(bytes)).pieces, pieces)
    }
    // A record of two bytes is the shortest there is.
    const empty = bytesOf((w) => times(99, textOnly).forEach(() => Protobuf.writeMessage(w, 1, () => {})))
    assert.strictEqual(errorOf(empty).problems.filter(({ problem }) => problem.endsWith("text is empty")).length, 99)
  })

  it("unknown fields are kept, at the top and when pieces are replaced", () => {
    const extended = bytesOf((w) => {
      Protobuf.writeText(w, 200, "an extension")
      Protobuf.writeRaw(w, sample.bytes)
      Protobuf.writeMessage(w, 4, () => Protobuf.writeText(w, 1, "self-test"))
    })
    const model = Result.getOrThrow(SentencePiece.parse(extended))
    assert.strictEqual(model.bytes, extended)
    const replaced = Result.getOrThrow(
      SentencePiece.withPieces(model, [...model.pieces, { text: "new", score: -9, type: "normal" }])
    )
    const numbers = Result.getOrThrow(
      Protobuf.fields(replaced.bytes)
    ).map((field) => field.number).filter((number) => number !== 1)
    assert.deepStrictEqual(numbers, [200, 2, 3, 4])
    assert.deepStrictEqual(replaced.pieces.at(-1), { text: "new", score: -9, type: "normal" })
    assert.deepStrictEqual(replaced.trainer, model.trainer)
  })

  it("fields that are not there have SentencePiece's defaults", () => {
    const bare = Result.getOrThrow(SentencePiece.parse(bytesOf((w) =>
      Protobuf.writeMessage(w, 1, () => {
        Protobuf.writeText(w, 1, "<unk>")
        Protobuf.writeInt(w, 3, 2)
      })
    )))
    assert.deepStrictEqual(bare.pieces, [{ text: "<unk>", score: 0, type: "unknown" }])
    assert.deepStrictEqual(bare.trainer, SentencePiece.defaultTrainer)
    assert.deepStrictEqual(
      bare.normalizer,
      { ...SentencePiece.identityNormalizer, name: "", removeExtraWhitespaces: true }
    )
  })

  it("says every problem of a vocabulary", () => {
    const normal = (text: string, score = 0): SentencePiece.Piece => ({ text, score, type: "normal" })
    assert.deepStrictEqual(problemsOf(
      [normal("a"), normal("a"), normal(""), normal("b", NaN), normal("c", -Infinity)]
    ), [
      "piece 1: \"a\" is already piece 0",
      "piece 2: its text is empty",
      "piece 3: score NaN of \"b\" is not finite, so merges have no order",
      "piece 4: score -Infinity of \"c\" is not finite, so merges have no order",
      "exactly one piece must have type unknown, 0 of 5 have"
    ])
    assert.deepStrictEqual(problemsOf([...reserved, { text: "?", score: 0, type: "unknown" }]), [
      "exactly one piece must have type unknown, 2 of 4 have: ids 0, 3"
    ])
    assert.deepStrictEqual(problemsOf(
      [...reserved, ...bytePieces.filter((_, byte) => byte !== 10 && byte !== 255)],
      { byteFallback: true }
    ), [
      "byte_fallback needs all 256 byte pieces, 254 are there; missing <0x0A> <0xFF>"
    ])
    assert.deepStrictEqual(problemsOf([...reserved, bytePieces[65]!, { text: "<0xff>", score: 0, type: "byte" }]), [
      "piece 3: byte piece \"<0x41>\", but byte_fallback is off in the trainer field",
      "piece 4: byte piece \"<0xff>\", but byte_fallback is off in the trainer field",
      "piece 4: \"<0xff>\" is no byte; bytes are named <0x00> to <0xFF>"
    ])
    assert.deepStrictEqual(problemsOf([...reserved, normal("<s>")]), ["piece 3: \"<s>\" is already piece 1"])
  })

  it("says where bytes are wrong", () => {
    const broken = bytesOf((w) => {
      Protobuf.writeMessage(w, 1, () => {
        Protobuf.writeBytes(w, 1, Uint8Array.of(0x61, 0xff))
        Protobuf.writeInt(w, 3, 9)
        Protobuf.writeText(w, 2, "score?")
      })
      Protobuf.writeInt(w, 2, 1)
      Protobuf.writeMessage(w, 3, () => Protobuf.writeFloat(w, 3, 1))
    })
    assert.strictEqual(
      errorOf(broken).message,
      "SentencePiece model, 5 problems:\n" +
        "  byte 5: piece 0: byte 0xff is not valid UTF-8\n" +
        "  byte 6: piece 0: type 9 is not one of 1 to 6\n" +
        "  byte 8: piece 0: field 2 has wire type 2, not 5\n" +
        "  byte 16: trainer (field 2) has wire type 0 where a message has 2\n" +
        "  byte 20: normalizer: field 3 has wire type 5, not 0\n" +
        "  is it the tokenizer.model of the checkpoint, whole and unchanged? " +
        "compare its size and checksum with the source"
    )
    assert.deepStrictEqual(errorOf(new Uint8Array(0)).problems, [
      { offset: 0, problem: "exactly one piece must have type unknown, 0 of 0 have" }
    ])
    const many = problemsOf(Array.from({ length: 20 }, () => reserved[1]!))
    assert.strictEqual(many.length, 20)
    assert.include(errorOf(bytesOf((w) => {
      for (let i = 0; i < 20; i++) Protobuf.writeMessage(w, 1, () => Protobuf.writeText(w, 1, "x"))
    })).message, "… and 12 more")
  })

  it("a truncated or mutated file is read or refused with an offset inside it", () => {
    const offsetIsInside = (bytes: Uint8Array) => {
      const result = SentencePiece.parse(bytes)
      if (Result.isFailure(result)) result.failure.problems.forEach(
        ({ offset }) => assert.isAtMost(offset, bytes.length)
      )
      return Result.isFailure(result)
    }
    let refused = 0
    fc.assert(fc.property(
      fc.integer({ min: 0, max: sample.bytes.length }),
      fc.array(fc.record({ at: fc.nat(sample.bytes.length - 1), to: fc.nat(255) }), { maxLength: 3 }),
      fc.boolean(),
      (end, changes, truncate) => {
        const bytes = sample.bytes.slice(0, truncate ? end : undefined)
        for (const { at, to } of changes) if (at < bytes.length) bytes[at] = to
        if (offsetIsInside(bytes)) refused++
      }
    ), { numRuns: 1500 })
    assert.isAbove(refused, 500)
  })

  it.skipIf(!hasData)("the real Llama 2 file: contents, and byte for byte when rebuilt (needs CRIA_TEST_DATA)", () => {
    const bytes = readData("tokenizer.model")
    const model = llamaModel()
    assert.strictEqual(
      createHash("sha256").update(bytes).digest("hex"),
      "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347"
    )
    assert.deepStrictEqual(
      new Uint8Array(Result.getOrThrow(SentencePiece.withPieces(model, model.pieces)).bytes),
      bytes
    )
    const count = (type: SentencePiece.PieceType) => model.pieces.filter((piece) => piece.type === type).length
    assert.deepStrictEqual([count("normal"), count("byte"), count("control"), count("unknown")], [31_741, 256, 2, 1])
    const {
      byteFallback, characterCoverage, maxPieceLength, splitDigits, allowWhitespaceOnlyPieces, modelType, vocabSize
    } = model.trainer
    assert.deepStrictEqual(
      [modelType, vocabSize, byteFallback, splitDigits, allowWhitespaceOnlyPieces, maxPieceLength, characterCoverage],
      ["bpe", 32_000, true, true, true, 16, Math.fround(0.99995)]
    )
    assert.deepStrictEqual(model.normalizer, SentencePiece.identityNormalizer)
    assert.strictEqual(model.hasDenormalizer, false)
    assert.deepStrictEqual(model.pieces[259], { text: "\u2581\u2581", score: -1e9, type: "normal" })
  })
})
