import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as TextArbitrary from "../../src/testing/TextArbitrary.ts"
import * as PieceTable from "../../src/token/PieceTable.ts"

/** Any well-formed text. */
const text = fc.string({ unit: "binary", maxLength: 8 }).map(TextArbitrary.wellFormed)

const piece = fc.record({
  text,
  score: fc.float({ noNaN: true, noDefaultInfinity: true }),
  type: fc.constantFrom(...PieceTable.pieceTypes)
})

/** The table of pieces that stand in bytes with others between them, as in a file. */
const tableOf = (pieces: ReadonlyArray<PieceTable.Piece>, encoded: ReadonlyArray<Uint8Array>): PieceTable.Made => {
  const bytes = Uint8Array.from(encoded.flatMap((part) => [0xff, ...part]))
  const records = new Int32Array(pieces.length * PieceTable.recordLength)
  const scores = new Float32Array(records.buffer)
  let at = 0
  pieces.forEach(({ score, type }, id) => {
    records[id * PieceTable.recordLength] = ++at
    records[id * PieceTable.recordLength + 1] = at += encoded[id]!.length
    scores[id * PieceTable.recordLength + 2] = score
    records[id * PieceTable.recordLength + 3] = PieceTable.pieceTypes.indexOf(type)
  })
  return PieceTable.make(bytes, records)
}
const encoded = (pieces: ReadonlyArray<PieceTable.Piece>) => pieces.map(({ text }) => new TextEncoder().encode(text))

describe("PieceTable", () => {
  it("holds the texts, scores and types of all pieces, and finds each by its text", () => {
    fc.assert(fc.property(fc.uniqueArray(piece, { selector: ({ text }) => text }), text, (pieces, other) => {
      const { invalid, repeated, table } = tableOf(pieces, encoded(pieces))
      assert.deepStrictEqual(PieceTable.pieces(table), pieces)
      assert.deepStrictEqual([invalid.size, repeated.size, table.size], [0, 0, pieces.length])
      pieces.forEach(({ text, type }, id) => {
        assert.strictEqual(PieceTable.text(table, id), text)
        assert.strictEqual(PieceTable.idOf(table, text), id)
        assert.strictEqual(PieceTable.typeOf(table, id), type)
        const characters: Array<string> = []
        for (let at = table.offsets[id]!; at < table.offsets[id + 1]!; at += characters.at(-1)!.length) {
          characters.push(String.fromCodePoint(PieceTable.characterAt(table.units, at)))
        }
        assert.deepStrictEqual(characters, [...text])
      })
      assert.strictEqual(PieceTable.idOf(table, other), pieces.findIndex(({ text }) => text === other))
      for (const type of PieceTable.pieceTypes) {
        const ids = pieces.flatMap((piece, id) => piece.type === type ? [id] : [])
        assert.deepStrictEqual(PieceTable.idsOfType(table, type), ids)
      }
    }), { numRuns: 200 })
  })

  it("refuses records that share bytes and are longer together than all bytes", () => {
    const bytes = new TextEncoder().encode("abcd")
    assert.throws(
      () => PieceTable.make(bytes, Int32Array.of(0, 4, 0, 0, 1, 3, 0, 0)),
      RangeError,
      "piece table: the texts of 2 records have 6 code units, but only 4 bytes were given; " +
        "records share bytes: give each text bytes of its own"
    )
    assert.strictEqual(PieceTable.make(bytes, Int32Array.of(0, 2, 0, 0, 2, 4, 0, 0)).table.size, 2)
  })

  it("tells of texts that stand twice, whose piece is the first", () => {
    const few = fc.array(fc.record({ text: fc.constantFrom("", "a", "aa", "é", "🦙"), score: fc.constant(0),
      type: fc.constantFrom(...PieceTable.pieceTypes) }))
    fc.assert(fc.property(few, (pieces) => {
      const { repeated, table } = tableOf(pieces, encoded(pieces))
      pieces.forEach(({ text }, id) => {
        const first = pieces.findIndex((piece) => piece.text === text)
        assert.strictEqual(repeated.get(id), first === id ? undefined : first)
        assert.strictEqual(PieceTable.idOf(table, text), first)
      })
    }))
  })

  it("tells where a text is no UTF-8", () => {
    const normal = { text: "", score: 0, type: "normal" } as const
    const parts = [
      [0x61], [0x61, 0xff, 0x62], [0xe2, 0x96, 0x81], [0xe2, 0x96], [0xed, 0xa0, 0x80], [0xf0, 0x9f, 0xa6, 0x99]
    ]
    const { invalid, table } = tableOf(parts.map(() => normal), parts.map((part) => Uint8Array.from(part)))
    assert.deepStrictEqual([...invalid], [[1, 4], [3, 11], [4, 14]])
    assert.deepStrictEqual([0, 2, 5].map((id) => PieceTable.text(table, id)), ["a", "\u2581", "🦙"])
  })
})
