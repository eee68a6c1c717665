import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { crc32 } from "node:zlib"
import * as ByteFile from "../../src/format/ByteFile.ts"
import * as TensorFile from "../../src/format/TensorFile.ts"
import * as Zip from "../../src/format/Zip.ts"
import * as Disk from "./Disk.ts"

type Files = ReadonlyArray<readonly [name: string, bytes: Uint8Array]>

const archive = (files: Files): Uint8Array => {
  const frame = Zip.frame()
  const parts = files.flatMap(([name, bytes]) => [frame.before(name, bytes.length, crc32(bytes)), bytes])
  return ByteFile.concat([...parts, frame.after()])
}
const opened = (file: Uint8Array) =>
  Disk.run({ "/a.zip": file }, Effect.gen(function*() {
    const bytes = yield* TensorFile.openBytes("/a.zip", "zip")
    const entries = yield* Zip.open(bytes, "zip")
    return new Map(
      yield* Effect.forEach(entries.values(), (entry) =>
        Effect.map(Zip.read(bytes, "zip", entry), (data) => [entry.name, data] as const))
    )
  }))
const problems = async (file: Uint8Array) => {
  const error = await Disk.run({ "/a.zip": file }, Effect.flip(
    Effect.flatMap(TensorFile.openBytes("/a.zip", "zip"), (bytes) => Zip.open(bytes, "zip"))
  ))
  return error._tag === "TensorFileError" ? error : assert.fail(error.message)
}
const kinds = async (file: Uint8Array) => (await problems(file)).problems.map(({ kind }) => kind)

const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 }).filter((text) => !/\p{Surrogate}/u.test(text))
const files: fc.Arbitrary<Files> = fc.uniqueArray(fc.tuple(name, fc.uint8Array({ maxLength: 200 })), {
  selector: ([name]) => name, maxLength: 5
})

const text = (value: string): Uint8Array => new TextEncoder().encode(value)
const two = (): Uint8Array => archive([["a", text("one")], ["bc", text("two!")]])
/** A number of `width` bytes put at a place of the archive of two entries. */
const with2 = (at: number, value: number, width: 1 | 2 | 4 | 8 = 2): Uint8Array => {
  const file = two()
  const view = new DataView(file.buffer)
  if (width === 1) view.setUint8(at, value)
  else if (width === 2) view.setUint16(at, value, true)
  else if (width === 4) view.setUint32(at, value, true)
  else view.setBigUint64(at, BigInt(value), true)
  return file
}
const central = 128 + 4 // after the data of the second entry, which begin at byte 128
const end64 = central + 46 + 1 + 46 + 2
const end = end64 + 56 + 20

describe("Zip laws", () => {
  it("what is written is read back, and every entry begins at a multiple of 64", () =>
    fc.assert(fc.asyncProperty(files, async (files) => {
      const file = archive(files)
      assert.deepStrictEqual(await opened(file), new Map(files))
      await Disk.run({ "/a.zip": file }, Effect.flatMap(TensorFile.openBytes("/a.zip", "zip"), (bytes) =>
        Effect.map(Zip.open(bytes, "zip"), (entries) => {
          for (const { offset } of entries.values()) assert.strictEqual(offset % 64, 0)
        })))
    }), { numRuns: 60 }))

  it("an archive that was cut or grew anywhere is refused", async () => {
    const file = two()
    for (let length = 0; length < file.length; length++) assert.isNotEmpty(await kinds(file.slice(0, length)))
    assert.deepStrictEqual(await kinds(Uint8Array.from([...file, 0])), ["no archive"])
    await problems(Uint8Array.from([0, ...file]))
  })

  it("headers and directory hold sizes and places beyond 4 GiB", async () => {
    // the data are not there: a file that is zero wherever nothing was written
    const parts = new Map<number, Uint8Array>()
    const frame = Zip.frame()
    let position = 0
    const sizes = [2 ** 32 + 5, 3, 2 ** 32 - 1, 7]
    const offsets = sizes.map((size, index) => {
      const header = frame.before(`entry ${index} of four sizes`, size, 0) // a name that leaves no room beside padding
      parts.set(position, header)
      position += header.length + size
      return position - size
    })
    const after = frame.after()
    parts.set(position, after)
    const file: ByteFile.ByteFile<TensorFile.TensorFileError> = {
      path: "/large.zip",
      length: position + after.length,
      fill: () => Effect.void,
      bytesAt: (from, length) => Effect.sync(() => {
        const bytes = new Uint8Array(length)
        for (const [at, part] of parts) {
          const first = Math.max(at, from)
          const last = Math.min(at + part.length, from + length)
          if (first < last) bytes.set(part.subarray(first - at, last - at), first - from)
        }
        return bytes
      })
    }
    const entries = await Effect.runPromise(Zip.open(file, "zip"))
    assert.deepStrictEqual(
      [...entries.values()].map(({ bytes, offset }) => [offset, bytes]),
      offsets.map((offset, index) => [offset, sizes[index]!])
    )
  })
})

describe("Zip cases", () => {
  it("reads an archive that Python's zipfile wrote, with an older end record and a comment", async () => {
    // python3 -c "import zipfile; z = zipfile.ZipFile('a', 'w'); z.comment = b'hello'
    //   z.writestr(zipfile.ZipInfo('x/é'), b'one'); z.writestr(zipfile.ZipInfo('y'), b''); z.close()"
    const file = Uint8Array.from(Buffer.from(
      "504b030414000008000000002100f1866c7a030000000300000004000000782fc3a96f6e65504b0304140000000000000021" +
        "000000000000000000000000000100000079504b0102140314000008000000002100f1866c7a030000000300000004000000" +
        "0000000000000000800100000000782fc3a9504b010214031400000000000000210000000000000000000000000001000000" +
        "000000000000000080012500000079504b050600000000020002006100000044000000050068656c6c6f",
      "hex"
    ))
    assert.deepStrictEqual(await opened(file), new Map([["x/é", text("one")], ["y", new Uint8Array(0)]]))
  })

  it("every field that lies is an error", async () => {
    const table: ReadonlyArray<readonly [number, number, 1 | 2 | 4 | 8, string]> = [
      [0, 0, 4, "entry"], // local signature
      [6, 1, 2, "entry"], // flags
      [8, 8, 2, "entry"], // method
      [14, 1, 4, "entry"], // checksum
      [18, 4, 4, "entry"], // size
      [22, 4, 4, "entry"],
      [26, 2, 2, "entry"], // length of the name
      [28, 3000, 2, "entry"], // padding that reaches beyond the directory
      [28, 60, 2, "entry"], // padding that reaches into the next entry
      [30, 66, 1, "entry"], // the name
      [67 + 28, 60, 2, "entry"], // the padding of the last entry, into the directory
      [central, 0, 4, "directory"],
      [central + 8, 1, 2, "entry"], // encrypted
      [central + 10, 8, 2, "compressed"],
      [central + 16, 1, 4, "entry"],
      [central + 20, 4, 4, "entry"],
      [central + 24, 2, 4, "entry"],
      [central + 20, 0xffffffff, 4, "entry"], // no zip64 numbers there
      [central + 28, 200, 2, "directory"],
      [central + 30, 1, 2, "directory"],
      [central + 34, 1, 2, "entry"], // another part
      [central + 42, 64, 4, "entry"], // the header elsewhere
      [central + 46, 66, 1, "entry"],
      [central + 47 + 42, 0, 4, "entry"], // both entries at one place
      [end64, 0, 4, "directory"],
      [end64 + 4, 45, 8, "directory"],
      [end64 + 16, 1, 4, "directory"],
      [end64 + 24, 1, 8, "directory"],
      [end64 + 32, 3, 8, "directory"],
      [end64 + 40, 1, 8, "directory"],
      [end64 + 48, 1, 8, "directory"],
      [end64 + 48, 2 ** 53, 8, "directory"],
      [end64 + 56 + 8, 0, 8, "directory"],
      [end + 10, 7, 2, "directory"],
      [end + 12, 7, 4, "directory"],
      [end + 16, 7, 4, "directory"],
      [end, 0, 4, "no archive"]
    ]
    for (const [at, value, width, kind] of table) {
      assert.deepStrictEqual(await kinds(with2(at, value, width)), [kind], `byte ${at} = ${value}`)
    }
    // an archive without zip64 whose count lies
    const small = ByteFile.concat([two().slice(0, end64), two().slice(end)])
    assert.deepStrictEqual([...(await opened(small)).keys()], ["a", "bc"])
    for (const [field, value] of [[8, 1], [10, 1], [4, 1], [12, 0], [16, 0], [8, 0xffff]] as const) {
      const file = small.slice()
      file.set([value & 255, value >> 8], end64 + field)
      assert.deepStrictEqual(await kinds(file), ["directory"])
    }
    const fewer = small.slice() // one of two entries, in both counts
    fewer[end64 + 8] = fewer[end64 + 10] = 1
    assert.deepStrictEqual(await kinds(fewer), ["directory"])
    const apart = ByteFile.concat([small.slice(0, end64), new Uint8Array(3), small.slice(end64)])
    assert.deepStrictEqual(await kinds(apart), ["directory"])
    assert.deepStrictEqual(await kinds(archive([["a", text("1")], ["a", text("2")]])), ["entry"])
  })

  it("damaged data are found when they are read", async () => {
    const file = with2(128, 0x58, 1)
    const error = await Disk.run({ "/a.zip": file }, Effect.gen(function*() {
      const bytes = yield* TensorFile.openBytes("/a.zip", "zip")
      const entries = yield* Zip.open(bytes, "zip")
      assert.deepStrictEqual(yield* Zip.read(bytes, "zip", entries.get("a")!), text("one"))
      return yield* Effect.flip(Zip.read(bytes, "zip", entries.get("bc")!))
    }))
    assert.strictEqual(error.message, [
      "/a.zip: cannot read this as zip",
      `  checksum: byte 128: expected checksum ${crc32(text("two!"))} of entry "bc"; found ${crc32(text("Xwo!"))}`,
      "Likely cause, and what to do:",
      "  checksum: the bytes were damaged after they were written: fetch or save the file again"
    ].join("\n"))
  })

  it("what is no archive is told how old files of torch come about", async () => {
    assert.strictEqual((await problems(new Uint8Array(100))).message, [
      "/a.zip: cannot read this as zip",
      "  no archive: byte 0: expected an end record in the last 65 557 bytes; found 100 bytes without",
      "Likely cause, and what to do:",
      "  no archive: this is no zip archive, or its end was cut off: fetch or save it again (files that torch wrote " +
        "before 1.6 are no archives: load and save them with a newer torch)"
    ].join("\n"))
  })
})
