import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as Pickle from "../../src/format/Pickle.ts"

/** The bytes of a pickle: numbers are bytes, texts are Latin-1. */
const pickle = (...parts: ReadonlyArray<number | string>): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) =>
    typeof part === "string" ? [...part].map((character) => character.charCodeAt(0)) : part
  ))
const value = (text: string) => Result.getOrThrow(Pickle.read(pickle(0x80, 2, text, ".")))
const error = (text: string) => Result.getOrThrow(Result.flip(Pickle.read(pickle(0x80, 2, text))))
const list = (...items: ReadonlyArray<Pickle.Value>): Pickle.Value => ({ kind: "list", items })
const tuple = (...items: ReadonlyArray<Pickle.Value>): Pickle.Value => ({ kind: "tuple", items })
const dict = (...items: ReadonlyArray<readonly [Pickle.Value, Pickle.Value]>): Pickle.Value => ({ kind: "dict", items })

const rebuild = "ctorch._utils\n_rebuild_tensor_v2\n"
const ordered = "ccollections\nOrderedDict\n)R"
const u = (text: string): string => `X${String.fromCharCode(text.length)}\0\0\0${text}`
const storage = (type = "FloatStorage", elements = "K\x06") =>
  `(${u("storage")}ctorch\n${type}\n${u("0")}${u("cpu")}${elements}tQ`
const tensor = (storage: string, sizes = "K\x02K\x03\x86", strides = "K\x03K\x01\x86") =>
  `${rebuild}(${storage}K\x00${sizes}${strides}\x89${ordered}tR`

const stored = fc.record({
  name: fc.string({ unit: "grapheme", maxLength: 8 }).filter((text) => !/\p{Surrogate}/u.test(text)),
  type: fc.constantFrom(...(Object.keys(Pickle.storageTypes) as Array<Pickle.StorageClass>)),
  key: fc.nat(99).map(String),
  sizes: fc.array(fc.oneof(fc.nat(4), fc.constantFrom(255, 256, 70_000, 2 ** 33)), { maxLength: 3 })
})

describe("Pickle laws", () => {
  it("what is encoded is read back: names, storages, sizes beyond 32 bits", () =>
    fc.assert(fc.property(fc.array(stored, { maxLength: 5 }), (tensors) => {
      fc.pre(tensors.every(({ sizes }) => Number.isSafeInteger(sizes.reduce((a, b) => a * Math.max(1, b), 1))))
      assert.deepStrictEqual(
        Result.getOrThrow(Pickle.read(Pickle.encode(tensors))),
        dict(...tensors.map(({ key, name, sizes, type }) => {
          const elements = sizes.reduce((product, size) => product * size, 1)
          const strides = Pickle.rowMajor(sizes)
          return [name, {
            kind: "tensor", storage: { kind: "storage", type, key, elements }, offset: 0, sizes, strides
          }] as const
        }))
      )
    })))

  it("whatever the bytes, reading is a result", () => {
    const start = Pickle.encode([{ name: "w", type: "HalfStorage", key: "0", sizes: [2, 3] }])
    const change = fc.tuple(fc.nat(start.length - 1), fc.nat(255))
    const mutated = fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) => {
      const bytes = start.slice()
      for (const [at, byte] of changes) bytes[at] = byte
      return bytes
    })
    fc.assert(fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 60 })), (bytes) => {
      Pickle.read(bytes)
    }), { numRuns: 2000 })
  })

  it("a pickle that is cut anywhere is an error", () => {
    const bytes = Pickle.encode([{ name: "w", type: "HalfStorage", key: "0", sizes: [2, 3] }])
    for (let length = 0; length < bytes.length; length++) {
      assert.isTrue(Result.isFailure(Pickle.read(bytes.slice(0, length))))
    }
  })
})

describe("Pickle cases", () => {
  it("builds what the opcodes say", () => {
    assert.strictEqual(value("N"), null)
    assert.deepStrictEqual(value("\x88\x89\x86"), tuple(true, false))
    assert.strictEqual(value("K\xff"), 255)
    assert.strictEqual(value("M\x01\x02"), 513)
    assert.strictEqual(value("J\xfe\xff\xff\xff"), -2)
    assert.strictEqual(value("\x8a\x00"), 0)
    assert.strictEqual(value("\x8a\x02\x00\x80"), -32768)
    assert.strictEqual(value("\x8a\x09\0\0\0\0\0\0\0\0\x01"), 2n ** 64n)
    assert.strictEqual(value("G\x3f\xf8\0\0\0\0\0\0"), 1.5)
    assert.strictEqual(value("X\x02\0\0\0\xc3\xa9"), "é")
    assert.strictEqual(value("\x8c\x03abc"), "abc")
    assert.deepStrictEqual(value("]K\x01aK\x02a"), list(1, 2))
    assert.deepStrictEqual(value("](K\x01K\x02e"), list(1, 2))
    assert.deepStrictEqual(value(`}${u("a")}K\x01s`), dict(["a", 1]))
    assert.deepStrictEqual(value(`}(${u("a")}K\x01K\x02Nu`), dict(["a", 1], [2, null]))
    assert.deepStrictEqual(value(`${ordered}(${u("a")}K\x01u}${u("_metadata")}Nsb`), dict(["a", 1]))
    assert.deepStrictEqual(value("K\x01K\x02K\x03\x87(K\x04t)\x87"), tuple(tuple(1, 2, 3), tuple(4), tuple()))
    assert.deepStrictEqual(value("K\x01\x85\x85"), tuple(tuple(1)))
  })

  it("remembers by number and by order", () => {
    assert.deepStrictEqual(value("K\x05q\x07h\x07\x86"), tuple(5, 5))
    assert.deepStrictEqual(value("K\x05r\0\0\x01\0j\0\0\x01\0\x86"), tuple(5, 5))
    const byOrder = "\x95\x08\0\0\0\0\0\0\0K\x05\x94K\x06\x94h\x00\x87h\x01\x86"
    assert.deepStrictEqual(value(byOrder), tuple(tuple(5, 6, 5), 6))
  })

  it("describes a tensor, also by the opcodes of protocol 4", () => {
    const expected: Pickle.Value = {
      kind: "tensor",
      storage: { kind: "storage", type: "FloatStorage", key: "0", elements: 6 },
      offset: 0,
      sizes: [2, 3],
      strides: [3, 1]
    }
    assert.deepStrictEqual(value(tensor(storage())), expected)
    const byStack = tensor(storage().replace("ctorch\nFloatStorage\n", "\x8c\x05torch\x8c\x0cFloatStorage\x93"))
    assert.deepStrictEqual(value(byStack), expected)
  })

  it("strides step over empty axes as over those of one element, as in torch", () => {
    assert.deepStrictEqual(Pickle.rowMajor([2, 0, 3]), [3, 3, 1])
  })

  it("refuses whatever could run, and names it", () => {
    const refused: ReadonlyArray<readonly [string, number, string]> = [
      ["cos\nsystem\n", 2, 'the global "os.system", which is not one of those understood'],
      ["c__builtin__\neval\n", 2, 'the global "__builtin__.eval", which is not one of those understood'],
      ["ctorch\nload\n", 2, 'the global "torch.load", which is not one of those understood'],
      ["ctorch\n__proto__\n", 2, 'the global "torch.__proto__", which is not one of those understood'],
      ["ctorch\ntoString\n", 2, 'the global "torch.toString", which is not one of those understood'],
      ["ctorch._utils\n_rebuild_parameter\n", 2, "the global"],
      ["ccollections\nOrderedDict.popitem\n", 2, "the global"],
      ["\x8c\x02os\x8c\x06system\x93", 14, 'the global "os.system"'],
      ["i__builtin__\neval\n", 2, "the opcode 0x69"], // INST
      ["(oN", 3, "the opcode 0x6f"], // OBJ
      ["ccollections\nOrderedDict\n)\x81", 28, "the opcode 0x81"], // NEWOBJ
      ["ccollections\nOrderedDict\n)}\x92", 29, "the opcode 0x92"], // NEWOBJ_EX
      ["\x82\x01", 2, "the opcode 0x82"], // EXT1
      ["P0\n", 2, "the opcode 0x50"], // PERSID
      ["C\x01a", 2, "the opcode 0x43"], // SHORT_BINBYTES
      ["\x97", 2, "the opcode 0x97"], // NEXT_BUFFER
      ["I1\n", 2, "the opcode 0x49"], // INT, a text to be evaluated
      ["\x8b\x01\0\0\0\x01", 2, "the opcode 0x8b"],
      ["\x80\x06", 2, "protocol 6"],
      [`\x8a\x11${"\0".repeat(17)}`, 2, "a number of 17 bytes"],
      ["\x8a\xff", 2, "an argument of 255 bytes"],
      ["ccollections\nOrderedDict\nK\x01\x85R", 30, "a call of collections.OrderedDict with arguments"],
      [`${rebuild})R`, 36, "a call of torch._utils._rebuild_tensor_v2 with arguments"],
      ["K\x01)R", 5, "a call of a value"],
      ["ctorch\nFloatStorage\nK\x01\x85R", 25, "a call of torch.FloatStorage with arguments"],
      ["K\x01Q", 4, "a persistent id"],
      ["}K\x01b", 5, "a state that is no dict"]
    ]
    for (const [text, offset, problem] of refused) {
      const found = error(text)
      assert.include(found.problem, problem, JSON.stringify(text))
      assert.strictEqual(found.offset, offset, JSON.stringify(text))
    }
    assert.strictEqual(error("cos\nsystem\n").message, [
      'pickle, byte 2: the global "os.system", which is not one of those understood',
      "  a pickle can run any program, so only numbers, texts, dicts, lists and plain tensors are read: save " +
        "{name: tensor} with torch.save, or convert the file to safetensors where you trust it"
    ].join("\n"))
  })

  it("refuses tensors and storages that are not plain", () => {
    const sixtyFive = `(${"K\x01".repeat(65)}t`
    for (const text of [
      storage("QInt8Storage"), storage("FloatStorage", "N"), storage("FloatStorage", "J\xff\xff\xff\xff"),
      tensor(storage(), "K\x06\x85"), tensor(storage(), "]K\x02aK\x03a"),
      tensor(storage(), "G\x3f\xf8\0\0\0\0\0\0K\x03\x86"),
      tensor("K\x01"), tensor(storage(), sixtyFive, sixtyFive), tensor(storage()).replace("\x89", "K\x01"),
      tensor(storage()).replace(ordered, `${ordered}(K\x01K\x01u`)
    ]) {
      assert.isTrue(error(text).refused, JSON.stringify(text))
    }
  })

  it("says what is damaged", () => {
    const damaged: ReadonlyArray<readonly [Uint8Array, number, string]> = [
      [pickle(), 0, "the end of the pickle, before its STOP"],
      [pickle("N."), 0, "a first byte that does not tell the protocol"],
      [pickle(0x80, 2, "."), 2, "0 values at the STOP, not one"],
      [pickle(0x80, 2, "NN."), 4, "2 values at the STOP, not one"],
      [pickle(0x80, 2, "N(."), 4, "1 values at the STOP, not one"],
      [pickle(0x80, 2, "N.N"), 3, "1 bytes after the STOP"],
      [pickle(0x80, 2, "\x86"), 2, "fewer values on the stack than it takes"],
      [pickle(0x80, 2, "N(\x85"), 4, "fewer values on the stack than it takes"],
      [pickle(0x80, 2, "t"), 2, "no mark on the stack"],
      [pickle(0x80, 2, "h\x05"), 2, "memory 5 is empty"],
      [pickle(0x80, 2, "q\x05"), 2, "nothing on the stack to remember"],
      [pickle(0x80, 2, "a"), 2, "fewer values on the stack than it takes"],
      [pickle(0x80, 2, "Na"), 3, "no list on the stack to add to"],
      [pickle(0x80, 2, "NNa"), 4, "no list on the stack to add to"],
      [pickle(0x80, 2, "N(NNu"), 6, "no dict on the stack to add to"],
      [pickle(0x80, 2, "}(Nu"), 5, "a key without a value"],
      [pickle(0x80, 2, "X\xff\xff\xff\xffa"), 2, "an argument of 4294967295 bytes, 1 are left"],
      [pickle(0x80, 2, "X\x01\0\0\0\xff"), 2, "a text that is not UTF-8"],
      [pickle(0x80, 2, "cos"), 2, "a line without an end"],
      [pickle(0x80, 2, "NN\x93"), 4, "a global whose name is no text"]
    ]
    for (const [bytes, offset, problem] of damaged) {
      const found = Result.getOrThrow(Result.flip(Pickle.read(bytes)))
      assert.deepStrictEqual([found.offset, found.problem, found.refused], [offset, problem, false])
    }
    assert.strictEqual(Result.getOrThrow(Result.flip(Pickle.read(pickle(0x80, 2, "N.N")))).message, [
      "pickle, byte 3: 1 bytes after the STOP",
      "  the pickle is truncated or corrupted: check where the file comes from and its checksum"
    ].join("\n"))
  })
})
