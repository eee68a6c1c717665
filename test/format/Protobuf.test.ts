import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as Protobuf from "../../src/format/Protobuf.ts"

const read = (bytes: Uint8Array) => Result.getOrThrow(Protobuf.fields(bytes))
const problem = (bytes: ReadonlyArray<number>) => {
  const result = Protobuf.fields(Uint8Array.from(bytes))
  return Result.isFailure(result) ? { offset: result.failure.offset, message: result.failure.message } : undefined
}
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
const write = (body: (w: Protobuf.Writer) => void) => {
  const w = Protobuf.writer()
  body(w)
  return Protobuf.written(w)
}

describe("Protobuf", () => {
  it("every safe integer comes back, negative ones included", () => {
    fc.assert(fc.property(fc.maxSafeInteger(), fc.integer({ min: 1, max: 536_870_911 }), (value, number) => {
      const bytes = write((w) => Protobuf.writeInt(w, number, value))
      const [field, ...rest] = read(bytes)
      assert.strictEqual(rest.length, 0)
      assert.strictEqual(field!.number, number)
      assert.strictEqual(Protobuf.int64(bytes, field!), BigInt(value))
      assert.strictEqual(Protobuf.int32(bytes, field!), Number(BigInt.asIntN(32, BigInt(value))))
    }))
  })

  it("a message has as many bytes for its length as are asked for, or as it needs", () => {
    const lengths = fc.constantFrom(0, 1, 127, 128, 129, 16_383, 16_384, 40_000)
    fc.assert(fc.property(lengths, fc.integer({ min: 1, max: 5 }), (length, lengthBytes) => {
      const blob = Uint8Array.from({ length }, (_, i) => i)
      const bytes = write((w) => {
        Protobuf.writeMessage(w, 1, () => Protobuf.writeRaw(w, blob), lengthBytes)
        Protobuf.writeInt(w, 2, 7)
      })
      const needed = length < 128 ? 1 : length < 16_384 ? 2 : 3
      assert.strictEqual(bytes.length, 1 + Math.max(needed, lengthBytes) + length + 2)
      const { number, wire } = { number: 1, wire: 2 }
      const at = 1 + Math.max(needed, lengthBytes)
      assert.deepStrictEqual(Result.getOrThrow(Protobuf.fields(bytes))[0],
        { number, wire, start: 0, from: at, end: at + length })
      assert.deepStrictEqual(bytes.slice(at, at + length), blob)
    }))
  })

  it("text, bytes, floats and nested messages of any size come back", () => {
    fc.assert(fc.property(
      fc.string({ unit: "binary", maxLength: 300 }),
      fc.uint8Array({ maxLength: 400, size: "max" }),
      fc.float({ noNaN: true }),
      (text, blob, single) => {
        const bytes = write((w) => {
          Protobuf.writeMessage(w, 1, () => {
            Protobuf.writeText(w, 2, text)
            Protobuf.writeMessage(w, 3, () => Protobuf.writeBytes(w, 4, blob))
            Protobuf.writeFloat(w, 5, single)
          })
        })
        const [outer] = read(bytes)
        const inner = Result.getOrThrow(Protobuf.fields(bytes, outer!.from, outer!.end))
        assert.deepStrictEqual(inner.map((field) => field.number), [2, 3, 5])
        assert.strictEqual(
          new TextDecoder("utf-8", { ignoreBOM: true }).decode(Protobuf.payload(bytes, inner[0]!)),
          Buffer.from(text).toString()
        )
        const [innermost] = Result.getOrThrow(Protobuf.fields(bytes, inner[1]!.from, inner[1]!.end))
        assert.deepStrictEqual(Protobuf.payload(bytes, innermost!), blob)
        assert.strictEqual(Protobuf.float32(bytes, inner[2]!), single)
      }
    ), { numRuns: 50 })
  })

  it("the fields of a message, laid end to end, are the message: nothing unknown is lost", () => {
    const bytes = write((w) => {
      Protobuf.writeInt(w, 1, 150)
      Protobuf.writeText(w, 2, "testing")
      Protobuf.writeRaw(w, Uint8Array.of(0xf9, 0xe1, 0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f)) // field 19 999: 1.5
    })
    const copy = write(
      (w) => read(bytes).forEach((field) => Protobuf.writeRaw(w, bytes.subarray(field.start, field.end)))
    )
    assert.deepStrictEqual(copy, bytes)
  })

  it("writes the examples of the encoding page", () => {
    assert.strictEqual(hex(write((w) => Protobuf.writeInt(w, 1, 150))), "089601")
    assert.strictEqual(hex(write((w) => Protobuf.writeText(w, 2, "testing"))), "120774657374696e67")
    assert.strictEqual(hex(write((w) => Protobuf.writeMessage(w, 3, () => Protobuf.writeInt(w, 1, 150)))), "1a03089601")
    assert.strictEqual(hex(write((w) => Protobuf.writeInt(w, 1, -2))), "08feffffffffffffffff01")
    assert.strictEqual(hex(write((w) => Protobuf.writeInt(w, 1, true))), "0801")
  })

  it("a nested message moves up for a length of any size", () => {
    for (const size of [0, 1, 126, 127, 128, 16_382, 16_383, 16_384, 2_097_152]) {
      const bytes = write((w) => Protobuf.writeMessage(w, 1, () => Protobuf.writeRaw(w, new Uint8Array(size).fill(7))))
      const [field] = read(bytes)
      assert.deepStrictEqual(
        [field!.end - field!.from, bytes[field!.from], bytes.at(-1)],
        size === 0 ? [0, undefined, 0] : [size, 7, 7]
      )
    }
  })

  it("text of 127 and 128 bytes, ASCII or not, gets the right length", () => {
    for (const text of [
      "a".repeat(127), "a".repeat(128), "é".repeat(63), "é".repeat(64), "é".repeat(127), "ab€".repeat(40)
    ]) {
      const bytes = write((w) => Protobuf.writeText(w, 1, text))
      assert.strictEqual(new TextDecoder().decode(Protobuf.payload(bytes, read(bytes)[0]!)), text)
    }
  })

  it("says where bytes stop being a message, and allocates nothing for a length that lies", () => {
    assert.deepStrictEqual(problem([0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1]), {
      offset: 8,
      message: "protocol buffer, byte 8: field 1 claims 562949953421311 bytes, 1 are left in its message\n  " +
        "the bytes are truncated, corrupted, or not a protocol buffer: check where the file comes from and its checksum"
    })
    assert.strictEqual(problem([0x08])?.offset, 1)
    assert.include(problem([0x08])!.message, "the varint of field 1 does not end (end of message)")
    assert.include(problem([0x08, ...Array.from({ length: 10 }, () => 0x80), 1])!.message, "more than 10 bytes")
    assert.include(problem([0x80])!.message, "a field key does not end")
    assert.include(problem([0x0a, 0x80])!.message, "the length of field 1 does not end")
    assert.include(problem([0x00, 0x00])!.message, "field number 0 is not between 1 and 536870911")
    assert.include(problem([0x0b])!.message, "field 1 has wire type 3; only 0, 1, 2 and 5 are readable")
    assert.include(problem([0x0d, 1, 2])!.message, "field 1 claims 4 bytes, 2 are left")
    assert.include(problem([0x09, 1, 2])!.message, "field 1 claims 8 bytes, 2 are left")
  })

  it("any bytes at all are read or refused, never thrown over", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      const result = Protobuf.fields(bytes)
      if (Result.isSuccess(result)) assert.strictEqual(result.success.at(-1)?.end ?? 0, bytes.length)
      else assert.isAtMost(result.failure.offset, bytes.length)
    }), { numRuns: 2000 })
  })

  it("refuses to write a number that a varint cannot hold exactly", () => {
    assert.throws(() => write((w) => Protobuf.writeInt(w, 3, 1.5)), "field 3: 1.5 is not a whole number below 2^53")
    assert.throws(() => write((w) => Protobuf.writeInt(w, 3, 2 ** 53)), "not a whole number below 2^53")
  })
})
