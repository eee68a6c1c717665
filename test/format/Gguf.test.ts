import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import * as Gguf from "../../src/format/Gguf.ts"
import * as TensorFile from "../../src/format/TensorFile.ts"
import * as Disk from "./Disk.ts"
import * as Fixture from "./Fixture.ts"

const text = fc.oneof(
  fc.constantFrom("", "▁the", "<0x0A>", "\u{1F999}", "\uFFFD", "__proto__"),
  fc.string({ unit: "binary", maxLength: 6 }).filter((text) => !/\p{Surrogate}/u.test(text))
)
const whole = (type: "u8" | "i8" | "u16" | "i16" | "u32" | "i32", min: number, max: number): fc.Arbitrary<Gguf.Value> =>
  fc.integer({ min, max }).map((value) => ({ type, value }))
const numbers: fc.Arbitrary<TensorFile.Numbers> = fc.oneof(
  fc.uint8Array({ maxLength: 5 }), fc.int8Array({ maxLength: 5 }), fc.uint16Array({ maxLength: 5 }),
  fc.int16Array({ maxLength: 5 }), fc.uint32Array({ maxLength: 5 }), fc.int32Array({ maxLength: 5 }),
  fc.float32Array({ maxLength: 5 }), fc.float64Array({ maxLength: 5 }), fc.bigUint64Array({ maxLength: 5 }),
  fc.bigInt64Array({ maxLength: 5 })
)
const lists: fc.Arbitrary<Gguf.Value> = fc.letrec<{ readonly list: Gguf.Value }>((tie) => ({
  list: fc.oneof(
    { depthSize: "small", maxDepth: 5 },
    numbers.map((values) => ({ type: "numbers" as const, values })),
    fc.array(fc.boolean(), { maxLength: 4 }).map((truths) => ({
      type: "bools" as const, values: Uint8Array.from(truths, Number)
    })),
    fc.array(text, { maxLength: 4 }).map((values) => ({ type: "strings" as const, values })),
    fc.array(tie("list"), { maxLength: 3 }).map((values) => ({ type: "arrays" as const, values }))
  )
})).list
const value: fc.Arbitrary<Gguf.Value> = fc.oneof(
  whole("u8", 0, 255), whole("i8", -128, 127), whole("u16", 0, 65535), whole("i16", -32768, 32767),
  whole("u32", 0, 2 ** 32 - 1), whole("i32", -(2 ** 31), 2 ** 31 - 1),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((value) => ({ type: "u64" as const, value })),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((value) => ({ type: "i64" as const, value })),
  fc.float({ noNaN: true }).map((value) => ({ type: "f32" as const, value })),
  fc.double({ noNaN: true }).map((value) => ({ type: "f64" as const, value })),
  fc.boolean().map((value) => ({ type: "bool" as const, value })),
  text.map((value) => ({ type: "string" as const, value })),
  lists
)
const metadata = fc.array(fc.tuple(text, value), { maxLength: 5 }).map((items) => new Map(items))

const known = (["F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64", "Q4_0", "Q5_1", "Q8_0", "Q6_K"] as const)
const tensors = fc.uniqueArray(
  fc.record({
    name: text, type: fc.constantFrom(...known), sizes: fc.array(fc.nat(3), { maxLength: 4 }), seed: fc.nat(9)
  }),
  { selector: ({ name }) => name, maxLength: 5 }
).map((given) => given.map(({ name, seed, sizes, type }): TensorFile.Source => {
  const block = TensorFile.types[type].elements
  const blocked = sizes.map((size, axis) => axis === sizes.length - 1 ? size * block : size)
  const fit = block > 1 && sizes.length === 0 ? [block] : blocked
  const length = TensorFile.byteCount(type, TensorFile.elementCount(fit), 1)
  return { name, type, sizes: fit, bytes: new Uint8Array(length).map((_, at) => (at * 41 + seed) % 256) }
}))

const saved = async (metadata: Gguf.Metadata, tensors: ReadonlyArray<TensorFile.Source>): Promise<Uint8Array> =>
  (await Disk.written(Gguf.write("/a", metadata, tensors))).get("/a")!

const problems = async (file: Uint8Array) => {
  const error = await Disk.run({ "/a": file }, Effect.flip(Gguf.open("/a")))
  return error._tag === "TensorFileError" ? error : assert.fail(error.message)
}

/** A header of our own making, to break: 8-byte numbers as bigints, 4-byte ones as numbers, texts with their length. */
const handmade = (...parts: ReadonlyArray<bigint | number | string | Uint8Array>): Uint8Array => {
  const bytes = parts.flatMap((part) => {
    if (typeof part === "number") return [...new Uint8Array(Uint32Array.of(part).buffer)]
    if (typeof part === "bigint") return [...new Uint8Array(BigUint64Array.of(part).buffer)]
    if (typeof part !== "string") return [...part]
    const encoded = new TextEncoder().encode(part)
    return [...new Uint8Array(BigUint64Array.of(BigInt(encoded.length)).buffer), ...encoded]
  })
  return Uint8Array.from([0x47, 0x47, 0x55, 0x46, ...bytes])
}
const padded = (file: Uint8Array, data: number, alignment = 32): Uint8Array => {
  const whole = new Uint8Array(Math.ceil(file.length / alignment) * alignment + data)
  whole.set(file)
  return whole
}

describe("Gguf laws", () => {
  it("what is written is read back: every type of metadata and of tensor, name and size", () =>
    fc.assert(fc.asyncProperty(metadata, tensors, fc.constantFrom(8, 32, 40, 0), async (given, tensors, step) => {
      const metadata = new Map<string, Gguf.Value>(given)
      if (step > 0) metadata.set("general.alignment", { type: "u32", value: step })
      const file = await saved(metadata, tensors)
      await Disk.run({ "/a": file }, Effect.gen(function*() {
        const opened = yield* Gguf.open("/a")
        assert.strictEqual(opened.version, 3)
        assert.deepStrictEqual(opened.typed, metadata)
        assert.deepStrictEqual([...opened.entries.keys()].toSorted(), tensors.map(({ name }) => name).toSorted())
        for (const { bytes, name, sizes, type } of tensors) {
          const entry = opened.entries.get(name)
          assert.deepInclude(entry, { name, type, sizes })
          if (entry !== undefined) assert.strictEqual(entry.offset % (step > 0 ? step : 32), 0)
          assert.deepStrictEqual(yield* opened.readBytes(name), bytes)
        }
      }))
    }), { numRuns: 100 }))

  it("a file that was cut anywhere before its padding is refused", () =>
    fc.assert(fc.asyncProperty(
      metadata, tensors.filter((tensors) => tensors.length > 0), fc.nat(), async (given, tensors, at) => {
        const file = await saved(given, tensors)
        const { end } = await Disk.run({ "/a": file }, Effect.map(Gguf.open("/a"), ({ entries }) => (
          { end: Math.max(...[...entries.values()].map(({ bytes, offset }) => offset + bytes)) }
        )))
        await problems(file.slice(0, at % end))
      }
    ), { numRuns: 40 }))
})

describe("Gguf cases", () => {
  it("reads what the gguf package wrote, and dequantizes as it does", async () => {
    const names = ["f32.weight", "f16.weight", "bf16.weight", "q8_0.weight", "q4_0.weight"]
    const values = await Promise.all(names.map((name) => Fixture.expected(`gguf.${name}`)))
    await Disk.run({ "/a": Fixture.bytes("package.gguf") }, Effect.gen(function*() {
      const file = yield* Gguf.open("/a")
      for (const [index, name] of names.entries()) assert.deepStrictEqual(yield* file.read(name), values[index])
      assert.deepInclude(file.entries.get("q4_0.weight"), { type: "Q4_0", sizes: [3, 64], group: 32, bytes: 108 })
      assert.deepStrictEqual(
        new Int32Array((yield* file.readBytes("whole")).buffer), Int32Array.of(0, 1, 2, 3, 4)
      )
      assert.deepStrictEqual(Object.fromEntries(file.typed), {
        "general.architecture": { type: "string", value: "llama" },
        "test.u8": { type: "u8", value: 200 },
        "test.i8": { type: "i8", value: -100 },
        "test.u16": { type: "u16", value: 60000 },
        "test.i16": { type: "i16", value: -30000 },
        "test.u32": { type: "u32", value: 4000000000 },
        "test.i32": { type: "i32", value: -2000000000 },
        "test.f32": { type: "f32", value: 1.5 },
        "test.u64": { type: "u64", value: 2n ** 63n + 1n },
        "test.i64": { type: "i64", value: -(2n ** 63n) },
        "test.f64": { type: "f64", value: 0.1 },
        "test.bool": { type: "bool", value: true },
        "test.string": { type: "string", value: "é 🦙" },
        "tokenizer.ggml.tokens": { type: "strings", values: ["<unk>", "<s>", "▁a", ""] },
        "tokenizer.ggml.scores": { type: "numbers", values: Float32Array.of(0, -1.5, -2.5, 3) },
        "test.integers": { type: "numbers", values: Int32Array.of(1, -2, 3) },
        "test.bools": { type: "bools", values: Uint8Array.of(1, 0) }
      })
      assert.deepStrictEqual(file.metadata.get("test.bools"), Uint8Array.of(1, 0))
      assert.strictEqual(file.metadata.get("test.u64"), 2n ** 63n + 1n)
      assert.strictEqual(file.format, "GGUF v3")
    }))
  })

  it("writes the bytes that the gguf package writes", async () => {
    const file = Fixture.bytes("package.gguf")
    const again = await Disk.run({ "/a": file }, Effect.gen(function*() {
      const opened = yield* Gguf.open("/a")
      return { metadata: opened.typed, tensors: yield* Fixture.sources(opened) }
    }))
    assert.isTrue(Buffer.from(await saved(again.metadata, again.tensors)).equals(file))
  })

  it("reads version 2, whose layout is that of 3", async () => {
    const file = Fixture.bytes("package.gguf")
    file[4] = 2
    await Disk.run({ "/a": file }, Effect.map(Gguf.open("/a"), ({ entries, version }) => {
      assert.strictEqual(version, 2)
      assert.strictEqual(entries.size, 6)
    }))
  })

  it("reads a header longer than its first look, and no tensor", async () => {
    const strings = Array.from({ length: 90_000 }, (_, index) => `token ${index}`)
    const file = await saved(
      new Map([["tokens", { type: "strings", values: strings }]]),
      [{ name: "w", type: "F32", sizes: [1_000_000], bytes: new Uint8Array(4_000_000) }]
    )
    const traffic: Disk.Traffic = { bytes: 0, largest: 0 }
    await Disk.run({ "/a": file }, Effect.map(Gguf.open("/a"), ({ entries, metadata }) => {
      assert.deepStrictEqual(metadata.get("tokens"), strings)
      assert.strictEqual(entries.size, 1)
    }), traffic)
    assert.isBelow(traffic.bytes, file.length)
  })

  it("names what is wrong with a header", async () => {
    const zero = BigInt(0)
    const one = BigInt(1)
    const tensor = (offset: bigint, name = "w") => [name, 1, BigInt(8), 0, offset]
    const alignment = (type: number, value: number | bigint) => handmade(3, zero, one, "general.alignment", type, value)
    const huge = BigInt(2) ** BigInt(40)
    const nest = Array.from({ length: 9 }, () => [9, one]).flat()
    const table: ReadonlyArray<readonly [Uint8Array, string, string | null]> = [
      [new Uint8Array(0), "cut short", null],
      [new Uint8Array(30), "not GGUF", null],
      [handmade(1, zero, zero), "version", null],
      [handmade(4, zero, zero), "version", null],
      [handmade(0x03000000, zero, zero), "version", null],
      [handmade(3, zero), "cut short", null],
      [handmade(3, BigInt(2) ** BigInt(63), zero), "cut short", null],
      [handmade(3, zero, BigInt(2) ** BigInt(63)), "cut short", null],
      [handmade(3, zero, one, "k", 13, zero), "metadata", null],
      [handmade(3, zero, one, BigInt(2) ** BigInt(63), zero), "metadata", null],
      [handmade(3, zero, one, BigInt(70_000), new Uint8Array(71_000)), "metadata", null],
      [handmade(3, zero, one, "k", 8, BigInt(2) ** BigInt(63)), "cut short", null],
      [handmade(3, zero, one, "k", 8, one, Uint8Array.of(0xff)), "metadata", null],
      [handmade(3, zero, one, "k", 7, Uint8Array.of(2)), "metadata", null],
      [handmade(3, zero, one, "k", 9, 7, one, Uint8Array.of(2)), "metadata", null],
      [handmade(3, zero, one, "k", 9, 4, BigInt(2) ** BigInt(62)), "cut short", null],
      [handmade(3, zero, one, "k", 9, 8, BigInt(2) ** BigInt(40)), "cut short", null],
      [handmade(3, zero, one, "k", 9, 9, BigInt(2) ** BigInt(40)), "cut short", null],
      [handmade(3, zero, one, "k", 9, ...nest, 4, zero), "metadata", null],
      [handmade(3, zero, BigInt(2), "k", 0, Uint8Array.of(1), "k", 0, Uint8Array.of(1)), "duplicate name", null],
      [alignment(4, 12), "metadata", null],
      [alignment(4, 0), "metadata", null],
      [alignment(10, BigInt(32)), "metadata", null],
      [padded(handmade(3, one, zero, "w", 5, zero, zero, zero, zero, zero, 0, zero), 0), "unfit sizes", "w"],
      [padded(handmade(3, one, zero, "w", 1, BigInt(8), 31, zero), 32), "unknown type", "w"],
      [padded(handmade(3, one, zero, "w", 1, BigInt(8), 8, zero), 32), "unfit sizes", "w"],
      [padded(handmade(3, one, zero, "w", 2, BigInt(16), BigInt(2), 8, zero), 64), "unfit sizes", "w"], // half a block
      [padded(handmade(3, one, zero, "w", 2, huge, huge, 0, zero), 32), "unfit sizes", "w"],
      [padded(handmade(3, one, zero, ...tensor(zero)), 31), "outside the file", "w"],
      [padded(handmade(3, one, zero, ...tensor(BigInt(8))), 64), "outside the file", "w"],
      [padded(handmade(3, one, zero, ...tensor(BigInt(2) ** BigInt(63))), 64), "outside the file", "w"],
      [padded(handmade(3, BigInt(2), zero, ...tensor(zero), ...tensor(BigInt(32))), 64), "duplicate name", "w"],
      [padded(handmade(3, BigInt(2), zero, ...tensor(zero), ...tensor(zero, "v")), 64), "overlap", "v"]
    ]
    for (const [file, kind, tensor] of table) {
      assert.deepStrictEqual(
        (await problems(file)).problems.map(({ kind, tensor }) => [kind, tensor]), [[kind, tensor]],
        Buffer.from(file.slice(0, 100)).toString("latin1")
      )
    }
    assert.strictEqual((await problems(padded(handmade(3, one, zero, ...tensor(zero)), 31))).message, [
      "/a: cannot read this as GGUF",
      '  outside the file: tensor "w", byte 24: expected 32 bytes for F32 [8] from a multiple of 32, within 31; ' +
        "found offset 0",
      "Likely cause, and what to do:",
      "  outside the file: the file was cut short, as by an interrupted download or a full disk: fetch it again"
    ].join("\n"))
    assert.strictEqual((await problems(handmade(3, zero, one, "k", 9, 8, BigInt(2) ** BigInt(40)))).message, [
      "/a: cannot read this as GGUF",
      '  cut short: byte 49: expected the array "k" within 0 bytes; found 1099511627776 of at least 8 bytes',
      "Likely cause, and what to do:",
      "  cut short: the file was cut short, as by an interrupted download, or a length was damaged: fetch it again"
    ].join("\n"))
  })

  it("refuses to write what GGUF cannot hold", async () => {
    const tensor: TensorFile.Source = { name: "w", type: "F32", sizes: [2], bytes: new Uint8Array(8) }
    const kinds = async (
      metadata: ReadonlyArray<readonly [string, Gguf.Value]>, ...tensors: ReadonlyArray<TensorFile.Source>
    ) => {
      const error = await Disk.run({}, Effect.flip(Gguf.write("/a", new Map(metadata), tensors)))
      return error._tag === "TensorFileError" ? error.problems.map(({ kind }) => kind) : error.message
    }
    const nested = (depth: number): Gguf.Value =>
      depth === 0 ? { type: "strings", values: [] } : { type: "arrays", values: [nested(depth - 1)] }
    const values: ReadonlyArray<Gguf.Value> = [
      { type: "u8", value: 256 }, { type: "i8", value: 1.5 }, { type: "u32", value: -1 }, { type: "u64", value: -1n },
      { type: "i64", value: 2n ** 63n }, { type: "string", value: "\uD800" }, { type: "strings", values: ["\uDC00"] },
      { type: "bools", values: Uint8Array.of(2) }, { type: "arrays", values: [{ type: "u8", value: 1 }] }, nested(8)
    ]
    for (const value of values) assert.deepStrictEqual(await kinds([["k", value]]), ["metadata"])
    assert.deepStrictEqual(await kinds([["general.alignment", { type: "u32", value: 4 }]]), ["metadata"])
    assert.deepStrictEqual(await kinds([["general.alignment", { type: "u64", value: 32n }]]), ["metadata"])
    assert.deepStrictEqual(await kinds([["k".repeat(65_536), { type: "u8", value: 1 }]]), ["unfit name"])
    assert.deepStrictEqual(await kinds([], { ...tensor, name: "w".repeat(64) }), ["unfit name"])
    assert.deepStrictEqual(await kinds([], { ...tensor, name: "\uD800" }), ["unfit name"])
    assert.deepStrictEqual(await kinds([], tensor, tensor), ["duplicate name"])
    assert.deepStrictEqual(await kinds([], { ...tensor, type: "BOOL" }), ["unfit tensor"])
    assert.deepStrictEqual(await kinds([], { ...tensor, type: "Q8_0", sizes: [32, 2] }), ["unfit sizes"])
    assert.deepStrictEqual(await kinds([], { ...tensor, sizes: [1, 1, 1, 1, 2] }), ["unfit sizes"])
    assert.deepStrictEqual(await kinds([], { ...tensor, bytes: new Uint8Array(7) }), ["unfit tensor"])
    assert.deepStrictEqual(await kinds([], { ...tensor, bytes: Effect.succeed(new Uint8Array(7)) }), ["unfit tensor"])
  })
})
