import { assert, describe, it } from "@effect/vitest"
import { ByteSize, Effect, Exit, FileSystem, Result } from "effect"
import * as fc from "fast-check"
import { createHash } from "node:crypto"
import * as Safetensors from "../../src/format/Safetensors.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"

const dtype = fc.constantFrom(...Safetensors.Dtype.literals)
const shape = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 })
const name = fc.oneof(
  fc.constantFrom("block.0.attention.query", "__proto__", "constructor", "", "0", "é", "\u{1F999}", "\uFF5E", 'q"\\\n'),
  fc.string({ unit: "binary", maxLength: 6 }).filter((text) => !/\p{Surrogate}/u.test(text))
)

const tensors = fc.uniqueArray(fc.record({ name, dtype, shape }), { selector: (tensor) => tensor.name, maxLength: 6 })
  .chain((specifications) =>
    fc.tuple(...specifications.map((specification) => {
      const size = specification.shape.reduce((product, size) => product * size, 1)
      const length = size * Safetensors.bytesPerElement[specification.dtype]
      return fc.uint8Array({ minLength: length, maxLength: length })
        .map((bytes): Safetensors.Tensor => ({ ...specification, bytes }))
    }))
  )
const metadata = fc.dictionary(fc.string({ maxLength: 4 }), fc.string({ maxLength: 4 }))

const withDisk = <A, E>(
  run: (disk: MemoryDisk.MemoryDisk) => Effect.Effect<A, E, FileSystem.FileSystem>
): Promise<A> => {
  const disk = MemoryDisk.make()
  return Effect.runPromise(run(disk).pipe(Effect.provideService(FileSystem.FileSystem, disk.fileSystem)))
}

const saved = (
  given: ReadonlyArray<Safetensors.Source>,
  metadata?: Safetensors.Metadata
): Promise<{ readonly file: Uint8Array; readonly written: Safetensors.Written }> =>
  withDisk((disk) =>
    Safetensors.write("/a.safetensors", given, metadata).pipe(
      Effect.map((written) => ({ file: disk.files().get("/a.safetensors")!, written }))
    )
  )

const readBack = (file: Uint8Array): Promise<Exit.Exit<Effect.Success<ReturnType<typeof Safetensors.read>>, unknown>> =>
  withDisk((disk) => {
    disk.put("/a.safetensors", file)
    return Effect.exit(Safetensors.read("/a.safetensors"))
  })

const byName = (tensors: ReadonlyArray<Safetensors.Tensor>) => new Map(tensors.map((tensor) => [tensor.name, tensor]))

/** A file with a header of our own making, to break. */
const handmade = (header: string | Uint8Array, data = new Uint8Array(0), announced?: bigint): Uint8Array => {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header
  const file = new Uint8Array(8 + text.length + data.length)
  new DataView(file.buffer).setBigUint64(0, announced ?? BigInt(text.length), true)
  file.set(text, 8)
  file.set(data, 8 + text.length)
  return file
}
const entry = (name: string, dtype: string, shape: string, begin: number | string, end: number | string): string =>
  `"${name}":{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${begin},${end}]}`

const parsed = (file: Uint8Array) => Safetensors.parseHeader(file, file.length)
const problems = (file: Uint8Array): ReadonlyArray<Safetensors.Problem> =>
  Result.match(parsed(file), { onFailure: (error) => error.problems, onSuccess: () => [] })
const kinds = (file: Uint8Array) => problems(file).map(({ kind, tensor }) => [kind, tensor])

describe("Safetensors laws", () => {
  it("what is written is read back, bit for bit: every dtype, shape, name, NaN payload and negative zero", () =>
    fc.assert(fc.asyncProperty(tensors, metadata, async (given, metadata) => {
      const { file, written } = await saved(given, metadata)
      const exit = await readBack(file)
      assert.isTrue(Exit.isSuccess(exit))
      if (Exit.isSuccess(exit)) {
        assert.deepStrictEqual(byName(exit.value.tensors), byName(given))
        assert.deepStrictEqual(exit.value.metadata, metadata)
      }
      assert.strictEqual(written.bytes, file.length)
      assert.strictEqual(written.sha256, createHash("sha256").update(file).digest("hex"))
    }), { numRuns: 150 }))

  it("every element is aligned to its width, and the data begins at a multiple of eight", () =>
    fc.assert(fc.property(tensors, (given) => {
      const { bytes, header } = Result.getOrThrow(Safetensors.encodeHeader(given))
      assert.strictEqual(bytes.length % 8, 0)
      assert.strictEqual(header.dataStart, bytes.length)
      for (const { begin, dtype } of header.entries) assert.strictEqual(begin % Safetensors.bytesPerElement[dtype], 0)
    })))

  it("the order in which tensors are given does not matter, nor whether their bytes come early or late", () =>
    fc.assert(fc.asyncProperty(tensors, async (given) => {
      const late = given.toReversed().map((tensor) => ({ ...tensor, bytes: Effect.succeed(tensor.bytes) }))
      assert.deepStrictEqual(await saved(late), await saved(given))
    }), { numRuns: 30 }))

  it("a header, encoded and parsed, is itself", () =>
    fc.assert(fc.property(tensors, metadata, (given, metadata) => {
      const { bytes, header } = Result.getOrThrow(Safetensors.encodeHeader(given, metadata))
      const fileBytes = bytes.length + (header.entries.at(-1)?.end ?? 0)
      assert.deepStrictEqual(Result.getOrThrow(Safetensors.parseHeader(bytes, fileBytes)), header)
    })))

  it("a file that was cut or grew anywhere is an error", async () => {
    const { file } = await saved([
      { name: "a", dtype: "F32", shape: [2], bytes: new Uint8Array(8).fill(1) },
      { name: "b", dtype: "U8", shape: [3], bytes: new Uint8Array(3).fill(2) }
    ], { made: "by hand" })
    for (let length = 0; length < file.length; length++) {
      assert.isTrue(Result.isFailure(parsed(file.subarray(0, length))), `cut to ${length}`)
    }
    assert.isTrue(Result.isFailure(parsed(new Uint8Array([...file, 0]))))
  })

  it("offsets that were changed anywhere are an error", () =>
    fc.assert(fc.property(
      tensors.filter((given) => given.length > 0),
      fc.nat(),
      fc.constantFrom("begin", "end"),
      fc.integer({ min: -9, max: 9 }).filter((by) => by !== 0),
      (given, which, side, by) => {
        const { header } = Result.getOrThrow(Safetensors.encodeHeader(given))
        const end = header.entries.at(-1)!.end
        const changed = header.entries.map((entry, index) =>
          index === which % header.entries.length ? { ...entry, [side]: entry[side as "begin"] + by } : entry
        )
        const fields = changed.map(({ begin, dtype, end, name, shape }) =>
          `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${begin},${end}]}`
        )
        const text = `{${fields.join(",")}}`
        const file = handmade(text)
        assert.isTrue(Result.isFailure(Safetensors.parseHeader(file, file.length + end)), text)
      }
    )))

  it("whatever the bytes, parsing is a result, and what it accepts covers the data exactly", () => {
    const start = handmade(`{${entry("a", "U8", "2", 0, 2)},${entry("b", "U8", "1", 2, 3)}}`, Uint8Array.of(1, 2, 3))
    const change = fc.tuple(fc.nat(start.length - 1), fc.nat(255))
    const mutated = fc.array(change, { minLength: 1, maxLength: 3 }).map((changes) => {
      const file = start.slice()
      for (const [at, byte] of changes) file[at] = byte
      return file
    })
    fc.assert(fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 40 })), (file) => {
      const result = parsed(file)
      if (Result.isSuccess(result)) {
        const { dataStart, entries } = result.success
        let covered = 0
        for (const { begin, dtype, end, shape } of entries) {
          assert.strictEqual(begin, covered)
          assert.strictEqual(end - begin, shape.reduce((a, b) => a * b, Safetensors.bytesPerElement[dtype]))
          covered = end
        }
        assert.strictEqual(dataStart + covered, file.length)
      }
    }), { numRuns: 2000 })
  })
})

describe("Safetensors cases", () => {
  // made by safetensors 0.8.0 (Rust) from Python:
  // save({"b.bias": uint8 [1, 2, 3], "a.weight": float32 [[1.5, -0.0]], "scalar": int64 7, "empty": float32 (0, 4)},
  //   metadata={"made": "by hand"})
  const fromRust = Uint8Array.from(Buffer.concat([
    Buffer.from("1801000000000000", "hex"),
    Buffer.from(`{"__metadata__":{"made":"by hand"},${entry("scalar", "I64", "", 0, 8)},`),
    Buffer.from(`${entry("a.weight", "F32", "1,2", 8, 16)},`),
    Buffer.from(`${entry("empty", "F32", "0,4", 16, 16)},${entry("b.bias", "U8", "3", 16, 19)}}     `),
    Buffer.from("07000000000000000000c03f00000080010203", "hex")
  ]))

  it("writes the bytes that the Rust library writes", async () => {
    const { file } = await saved([
      { name: "b.bias", dtype: "U8", shape: [3], bytes: Uint8Array.of(1, 2, 3) },
      { name: "a.weight", dtype: "F32", shape: [1, 2], bytes: new Uint8Array(Float32Array.of(1.5, -0).buffer) },
      { name: "scalar", dtype: "I64", shape: [], bytes: Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0) },
      { name: "empty", dtype: "F32", shape: [0, 4], bytes: new Uint8Array(0) }
    ], { made: "by hand" })
    assert.deepStrictEqual(Buffer.from(file).toString("latin1"), Buffer.from(fromRust).toString("latin1"))
  })

  it("sorts names as the Rust library does, by code point", () => {
    const names = ["b", "a", "\u{1F600}", "\uFF5E", "é", 'z"\\\n\t\x01\x7f/\u2028'] // it sorts them so:
    const sorted = ["a", "b", 'z"\\\n\t\x01\x7f/\u2028', "é", "\uFF5E", "\u{1F600}"]
    const { bytes, header } = Result.getOrThrow(
      Safetensors.encodeHeader(names.map((name) => ({ name, dtype: "U8", shape: [1] })))
    )
    assert.deepStrictEqual(header.entries.map(({ name }) => name), sorted)
    assert.include(new TextDecoder().decode(bytes), '"z\\"\\\\\\n\\t\\u0001\x7f/\u2028":')
  })

  it("reads one tensor without its neighbours", () =>
    withDisk(Effect.fnUntraced(function*() {
      const given: ReadonlyArray<Safetensors.Source> = [
        { name: "a", dtype: "F32", shape: [2], bytes: new Uint8Array(8).fill(1) },
        { name: "b", dtype: "F32", shape: [1], bytes: new Uint8Array(4).fill(2) }
      ]
      yield* Safetensors.write("/a.safetensors", given)
      const b = yield* Effect.scoped(Effect.flatMap(Safetensors.open("/a.safetensors"), (reader) => reader.read("b")))
      assert.deepStrictEqual(b, { name: "b", dtype: "F32", shape: [1], bytes: new Uint8Array(4).fill(2) })
      assert.strictEqual(b.bytes.buffer.byteLength, 4) // its own buffer: any typed array can be laid over it
    })))

  it("a length that lies costs eight bytes of reading, whatever it announces", async () => {
    for (const announced of [1n, 100_000_001n, 2n ** 53n, 2n ** 64n - 1n]) {
      let most = 0
      const file = handmade("{}", new Uint8Array(0), announced)
      const exit = await withDisk(Effect.fnUntraced(function*(disk) {
        disk.put("/a", file)
        const counting: FileSystem.FileSystem = {
          ...disk.fileSystem,
          open: (path, options) => Effect.map(disk.fileSystem.open(path, options), (handle) => ({
            ...handle,
            read: (buffer, at) => Effect.suspend(() => {
              most = Math.max(most, buffer.buffer.byteLength)
              return handle.read(buffer, at)
            })
          }))
        }
        return yield* Effect.exit(Safetensors.read("/a").pipe(Effect.provideService(FileSystem.FileSystem, counting)))
      }))
      assert.isTrue(Exit.isFailure(exit))
      assert.strictEqual(most, 8)
    }
  })

  it("names what is wrong, and all of it", () => {
    const data = new Uint8Array(4)
    const invalid = Uint8Array.from(Buffer.from(`{${entry("\xff", "U8", "0", 0, 0)}}`, "latin1"))
    const inside = [entry("a", "U8", "3", 0, 3), entry("b", "U8", "1", 1, 2), entry("c", "U8", "1", 3, 4)]
    const table: ReadonlyArray<readonly [Uint8Array, ReadonlyArray<readonly [string, string | null]>]> = [
      [new Uint8Array(0), [["header length", null]]],
      [handmade(invalid), [["header text", null]]],
      [handmade(" {}"), [["header text", null]]],
      [handmade("\uFEFF{}"), [["header text", null]]],
      [handmade("{,}"), [["header text", null]]],
      [handmade(`{${entry("a", "U8", "4", 0, 4)},${entry("a", "U8", "4", 0, 4)}}`, data), [["duplicate name", "a"]]],
      [handmade(`{${entry("a", "U8", "0", 0, 0)},${entry("\\u0061", "U8", "0", 0, 0)}}`), [["duplicate name", "a"]]],
      [handmade(`{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, data), [["duplicate name", "a"]]],
      [handmade(`{"__metadata__":{"k":"1","k":"2"}}`), [["duplicate name", "__metadata__"]]],
      [handmade(`{"__metadata__":{"k":1}}`), [["header entry", "__metadata__"]]],
      [handmade(`{"__metadata__":["k"]}`), [["header entry", "__metadata__"]]],
      [handmade(`{"__metadata__":null}`), [["header entry", "__metadata__"]]],
      [handmade(`{"a":null}`), [["header entry", "a"]]],
      [handmade(`{"a":[]}`), [["header entry", "a"]]],
      [handmade(`{"a":{"dtype":"U8","shape":[4]}}`, data), [["header entry", "a"]]],
      [handmade(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"scale":2}}`, data), [["header entry", "a"]]],
      [handmade(`{${entry("a", "U8", "-4", 0, 4)}}`, data), [["header entry", "a"]]],
      [handmade(`{${entry("a", "U8", "1.5", 0, 4)}}`, data), [["header entry", "a"]]],
      [handmade(`{${entry("a", "U8", "4", 0, "4,5")}}`, data), [["header entry", "a"]]],
      [handmade(`{${entry("a", "U8", "4", 0, 2 ** 60)}}`, data), [["header entry", "a"]]],
      [handmade(`{${entry("a", "F4", "8", 0, 4)}}`, data), [["unknown dtype", "a"]]],
      [handmade(`{${entry("a", "F32", "2", 0, 4)}}`, data), [["byte count", "a"]]],
      [handmade(`{${entry("a", "U8", "4", 4, 0)}}`, data), [["byte count", "a"]]],
      [handmade(`{${entry("a", "F64", `${2 ** 52},${2 ** 52}`, 0, 4)}}`, data), [["byte count", "a"]]],
      [handmade(`{${entry("a", "U8", "8", 0, 8)}}`, data), [["outside the file", "a"]]],
      [handmade(`{${entry("a", "U8", "3", 0, 3)},${entry("b", "U8", "2", 2, 4)}}`, data), [["overlap", "b"]]],
      [handmade(`{${inside.join(",")}}`, data), [["overlap", "b"]]],
      [handmade(`{${entry("a", "U8", "1", 0, 1)},${entry("b", "U8", "2", 2, 4)}}`, data), [["hole", "b"]]],
      [handmade(`{${entry("a", "U8", "3", 0, 3)}}`, data), [["hole", null]]],
      [handmade(`{}`, data), [["hole", null]]],
      [
        handmade(`{${entry("a", "Q8", "4", 0, 4)},${entry("b", "F32", "2", 0, 4)},"c":1}`, data),
        [["unknown dtype", "a"], ["byte count", "b"], ["header entry", "c"]]
      ]
    ]
    for (const [file, expected] of table) {
      assert.deepStrictEqual<unknown>(kinds(file), expected, Buffer.from(file).toString("latin1"))
    }
    assert.deepStrictEqual(kinds(fromRust), [])
    const huge = `${Array.from({ length: 25 }, () => 2 ** 52).join(",")},0` // whose product overflows before the 0
    const empty = [entry("z", "U8", "0", 0, 0), entry("b", "U8", "1", 0, 1), entry("c", "F64", huge, 0, 0)]
    assert.deepStrictEqual(kinds(handmade(`{${empty.join(",")}}`, Uint8Array.of(1))), []) // they may stand anywhere
  })

  it("refuses to write what it could not read", () => {
    const refused = (...tensors: ReadonlyArray<Safetensors.Specification>) =>
      Result.match(Safetensors.encodeHeader(tensors), {
        onFailure: (error) => error.problems.map(({ kind, tensor }) => [kind, tensor]),
        onSuccess: () => []
      })
    const tensor = { name: "a", dtype: "U8", shape: [1] } as const
    assert.deepStrictEqual(refused(tensor, tensor), [["duplicate name", "a"]])
    assert.deepStrictEqual(refused({ ...tensor, name: "__metadata__" }), [["unfit name", "__metadata__"]])
    assert.deepStrictEqual(refused({ ...tensor, name: "\uD800" }), [["unfit name", "\uD800"]])
    for (const shape of [[-1], [1.5], [NaN], [2 ** 53], [2 ** 52, 2 ** 52]]) {
      assert.deepStrictEqual(refused({ ...tensor, shape }, { ...tensor, name: "b" }), [["unfit shape", "a"]])
    }
  })

  it("bytes of another length than dtype and shape say are refused, early or late", async () => {
    const wrong = { name: "a", dtype: "F32", shape: [2], bytes: new Uint8Array(4) } as const
    for (const source of [wrong, { ...wrong, bytes: Effect.succeed(wrong.bytes) }]) {
      const [error, files] = await withDisk((disk) =>
        Effect.flip(Safetensors.write<never, never>("/a.safetensors", [source])).pipe(
          Effect.map((error) => [error, disk.files().size] as const)
        )
      )
      assert.strictEqual(error._tag === "SafetensorsError" && error.problems[0]?.kind, "byte count")
      assert.strictEqual(files, source === wrong ? 0 : 1) // known too late to write nothing
    }
  })

  it("a file that shrinks while it is read, and a tensor too large for the process, are typed errors", async () => {
    const header = `{${entry("a", "U8", "4", 0, 4)}}`
    const large = `{${entry("a", "U8", `${2 ** 52}`, 0, 2 ** 52)}}`
    for (const [text, bytes, kind] of [[header, 4, "cut while reading"], [large, 2 ** 52, "too large"]] as const) {
      const error = await withDisk((disk) => {
        const file = handmade(text)
        disk.put("/a", file)
        const pretending: FileSystem.FileSystem = { // says that the data is there, which it is not
          ...disk.fileSystem,
          open: (path, options) => Effect.map(disk.fileSystem.open(path, options), (handle) => ({
            ...handle,
            stat: Effect.map(handle.stat, (info) => ({ ...info, size: ByteSize.bytes(file.length + bytes) }))
          }))
        }
        return Effect.flip(Safetensors.read("/a").pipe(Effect.provideService(FileSystem.FileSystem, pretending)))
      })
      assert.deepStrictEqual(
        error._tag === "SafetensorsError" && error.problems.map(({ kind, tensor }) => [kind, tensor]),
        [[kind, "a"]]
      )
    }
  })
})

describe("Safetensors messages", () => {
  it("a damaged header", () => {
    const file = handmade(`{${entry("a", "Q8", "4", 0, 4)},${entry("b", "F32", "2,3", 0, 4)}}`, new Uint8Array(4))
    const message = Result.match(parsed(file), { onFailure: (error) => error.message, onSuccess: () => "" })
    assert.strictEqual(message, [
      "in memory: this breaks the safetensors format",
      '  unknown dtype: tensor "a", byte 8: expected a known dtype; found "Q8"',
      '  byte count: tensor "b", byte 116: expected 24 bytes for F32 [2, 3]; found 4, data_offsets [0, 4]',
      "Likely cause, and what to do:",
      `  unknown dtype: convert the tensor before saving it; these are read: ${Safetensors.Dtype.literals.join(", ")}`,
      "  byte count: dtype or shape was changed, or the bytes are another tensor's: save it again from its source"
    ].join("\n"))
  })

  it("an unknown tensor", () =>
    withDisk(Effect.fnUntraced(function*() {
      yield* Safetensors.write("/a.safetensors", [
        { name: "block.0.attention.query", dtype: "U8", shape: [], bytes: Uint8Array.of(1) }
      ])
      const opened = Safetensors.open("/a.safetensors")
      const reading = Effect.flatMap(opened, (reader) => reader.read("block.0.attention.qurey"))
      const error = yield* Effect.flip(Effect.scoped(reading))
      assert.strictEqual(error.message, [
        "/a.safetensors: this breaks the safetensors format",
        '  unknown tensor: tensor "block.0.attention.qurey", byte 8: ' +
          'expected one of 1 names: "block.0.attention.query"; found no such name',
        "Likely cause, and what to do:",
        "  unknown tensor: the name is misspelt, or the file holds another model: compare with the names it does hold"
      ].join("\n"))
    })))

  it("thousands of problems are counted, a dozen shown", () => {
    const fields = Array.from({ length: 2000 }, (_, index) => entry(`t${index}`, "Q8", "", 0, 0))
    const file = handmade(`{${fields.join(",")}}`)
    const error = Result.getOrThrow(Result.flip(parsed(file)))
    assert.strictEqual(error.problems.length, 2000)
    assert.include(error.message, "… and 1988 more")
    assert.isBelow(error.message.length, 2000)
  })
})
