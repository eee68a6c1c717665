import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { crc32 } from "node:zlib"
import * as ByteFile from "../../src/format/ByteFile.ts"
import * as TensorFile from "../../src/format/TensorFile.ts"
import * as TorchFile from "../../src/format/TorchFile.ts"
import * as Zip from "../../src/format/Zip.ts"
import * as Disk from "./Disk.ts"
import * as Fixture from "./Fixture.ts"

const known = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"] as const
const tensors = fc.uniqueArray(
  fc.record({
    name: fc.oneof(
      fc.constantFrom("layers.0.attention.wq.weight", "", "__proto__", "é"),
      fc.string({ unit: "binary", maxLength: 6 }).filter((text) => !/\p{Surrogate}/u.test(text))
    ),
    type: fc.constantFrom(...known),
    sizes: fc.array(fc.nat(3), { maxLength: 4 }),
    seed: fc.nat(9)
  }),
  { selector: ({ name }) => name, maxLength: 6 }
).map((given) => given.map(({ name, seed, sizes, type }): TensorFile.Source => {
  const length = TensorFile.byteCount(type, TensorFile.elementCount(sizes), 1)
  return { name, type, sizes, bytes: new Uint8Array(length).map((_, at) => (at * 41 + seed) % 256) }
}))

const saved = async (tensors: ReadonlyArray<TensorFile.Source>): Promise<Uint8Array> =>
  (await Disk.written(TorchFile.write("/a.pth", tensors))).get("/a.pth")!

/** An archive of torch.save around a pickle of our own making, with storages by key. */
const archive = (
  pickle: string,
  storages: Readonly<Record<string, Uint8Array>> = {},
  others: Readonly<Record<string, string>> = { "a/byteorder": "little" }
): Uint8Array => {
  const frame = Zip.frame()
  const entries: ReadonlyArray<readonly [string, Uint8Array]> = [
    ["a/data.pkl", Uint8Array.from(`\x80\x02${pickle}.`, (character) => character.charCodeAt(0))],
    ...Object.entries(storages).map(([key, bytes]) => [`a/data/${key}`, bytes] as const),
    ...Object.entries(others).map(([name, value]) => [name, new TextEncoder().encode(value)] as const)
  ]
  const parts = entries.flatMap(([name, bytes]) => [frame.before(name, bytes.length, crc32(bytes)), bytes])
  return ByteFile.concat([...parts, frame.after()])
}
const u = (text: string): string => `X${String.fromCharCode(text.length)}\0\0\0${text}`
const tensor = (
  { elements = 6, key = "0", offset = 0, sizes = [2, 3], strides = [3, 1], type = "FloatStorage" } = {}
): string => {
  const number = (value: number) => `K${String.fromCharCode(value)}`
  const numbers = (values: ReadonlyArray<number>) => `(${values.map(number).join("")}t`
  const storage = `(${u("storage")}ctorch\n${type}\n${u(key)}${u("cpu")}${number(elements)}tQ`
  const view = `${number(offset)}${numbers(sizes)}${numbers(strides)}`
  return `ctorch._utils\n_rebuild_tensor_v2\n(${storage}${view}\x89ccollections\nOrderedDict\n)RtR`
}
const problems = async (file: Uint8Array) => {
  const error = await Disk.run({ "/a.pth": file }, Effect.flip(TorchFile.open("/a.pth")))
  return error._tag === "TensorFileError" ? error : assert.fail(error.message)
}
const kinds = async (file: Uint8Array) => (await problems(file)).problems.map(({ kind, tensor }) => [kind, tensor])
const six = { "0": new Uint8Array(24) }

describe("TorchFile laws", () => {
  it("what is written is read back, bit for bit: every type, name and size", () =>
    fc.assert(fc.asyncProperty(tensors, async (tensors) => {
      const file = await saved(tensors)
      await Disk.run({ "/a": file }, Effect.gen(function*() {
        const opened = yield* TorchFile.open("/a")
        assert.deepStrictEqual([...opened.entries.keys()], tensors.map(({ name }) => name))
        for (const { bytes, name, sizes, type } of tensors) {
          assert.deepInclude(opened.entries.get(name), { name, type, sizes })
          assert.deepStrictEqual(yield* opened.readBytes(name), bytes)
        }
      }))
    }), { numRuns: 60 }))

  it("a file that was cut anywhere is refused", async () => {
    const file = await saved([{ name: "w", type: "F32", sizes: [2], bytes: new Uint8Array(8) }])
    for (let length = 0; length < file.length; length += 7) await problems(file.slice(0, length))
  })
})

describe("TorchFile cases", () => {
  it("reads what torch.save wrote: all types, shared storages, nesting, what is no tensor", async () => {
    const whole = await Fixture.expected("torch.whole")
    const halves = await Promise.all(["float16", "bfloat16"].map((name) => Fixture.expected(`torch.${name}`)))
    await Disk.run({ "/a": Fixture.bytes("torch.pth") }, Effect.gen(function*() {
      const file = yield* TorchFile.open("/a")
      assert.deepStrictEqual([...file.entries.values()].map(({ name, sizes, type }) => [name, type, sizes]), [
        ["types.float64", "F64", [2, 3]], ["types.float32", "F32", [2, 3]], ["types.float16", "F16", [2, 3]],
        ["types.bfloat16", "BF16", [2, 3]], ["types.int64", "I64", [2, 3]], ["types.int32", "I32", [2, 3]],
        ["types.int16", "I16", [2, 3]], ["types.int8", "I8", [2, 3]], ["types.uint8", "U8", [2, 3]],
        ["types.bool", "BOOL", [2, 3]], ["whole", "F32", [4, 3]], ["rows", "F32", [2, 3]], ["scalar", "F32", []],
        ["empty", "F32", [0, 4]], ["one", "F32", [1, 3]], ["list.0", "F32", [1]]
      ])
      assert.deepStrictEqual(Object.fromEntries(file.metadata), {
        "list.1.step": 7, text: "é", none: null, yes: true, number: 2.5, large: 2n ** 60n, negative: -3,
        numbers: [1, 2, 3], pair: [1, "x"]
      })
      assert.deepStrictEqual(yield* file.read("whole"), whole)
      assert.deepStrictEqual(yield* file.read("rows"), whole.slice(3, 9))
      assert.deepStrictEqual([...yield* file.read("scalar")], [2.5])
      assert.deepStrictEqual(yield* file.read("types.float16"), halves[0])
      assert.deepStrictEqual(yield* file.read("types.bfloat16"), halves[1])
      const bytes = yield* file.readBytes("types.int64")
      assert.deepStrictEqual([...new BigInt64Array(bytes.buffer)], [-7n, -4n, -1n, 0n, 3n, 5n])
    }))
  })

  it("reads the state of a module, in protocol 4", async () => {
    const weight = await Fixture.expected("state.weight")
    await Disk.run({ "/a": Fixture.bytes("state.pth") }, Effect.gen(function*() {
      const file = yield* TorchFile.open("/a")
      assert.deepStrictEqual([...file.entries.keys()], ["weight", "bias"])
      assert.deepStrictEqual(yield* file.read("weight"), weight)
    }))
  })

  it("opening touches the pickle and the headers, not the storages", async () => {
    const file = await saved([{ name: "w", type: "F32", sizes: [1_000_000], bytes: new Uint8Array(4_000_000) }])
    const traffic: Disk.Traffic = { bytes: 0, largest: 0 }
    await Disk.run({ "/a": file }, TorchFile.open("/a"), traffic)
    assert.isBelow(traffic.bytes, 70_000)
  })

  it("refuses every tensor that is not contiguous, by name", async () => {
    assert.deepStrictEqual(await kinds(Fixture.bytes("strided.pth")), [
      ["not contiguous", "turned"], ["not contiguous", "wide"], ["not contiguous", "spread"]
    ])
    assert.include(
      (await problems(Fixture.bytes("strided.pth"))).message,
      'not contiguous: tensor "turned", byte 896: expected strides [4, 1] for F32 [3, 4]; found [1, 3]'
    )
  })

  it("imports no class, whatever the pickle asks for", async () => {
    const { message } = await problems(Fixture.bytes("module.pth"))
    assert.include(message, 'a pickle of tensors; found the global "torch.nn.modules.linear.Linear"')
    const offset = 64 // where the pickle begins, behind a header with padding
    assert.strictEqual((await problems(archive("cos\nsystem\n(X\x04\0\0\0echotR"))).message, [
      "/a.pth: cannot read this as torch.save",
      `  refused pickle: byte ${offset + 2}: expected a pickle of tensors; found the global "os.system", which is ` +
        "not one of those understood",
      "Likely cause, and what to do:",
      "  refused pickle: a pickle can run any program, so only numbers, texts, dicts, lists and plain tensors are " +
        "read: save {name: tensor} with torch.save, or convert the file to safetensors where you trust it"
    ].join("\n"))
  })

  it("names what archive and pickle disagree about, and all of it", async () => {
    const table: ReadonlyArray<readonly [Uint8Array, ReadonlyArray<readonly [string, string | null]>]> = [
      [archive(tensor(), six), []],
      [archive(tensor({ offset: 1 }), six), [["outside the storage", ""]]],
      [archive(tensor({ elements: 7 }), six), [["missing storage", ""]]],
      [archive(tensor({ elements: 5 }), six), [["missing storage", ""]]],
      [archive(tensor({ type: "HalfStorage" }), six), [["missing storage", ""]]],
      [archive(tensor({ key: "1" }), six), [["missing storage", ""]]],
      [archive(tensor({ key: "../0" }), six), [["missing storage", ""]]],
      [archive(tensor({ strides: [3, 0] }), six), [["not contiguous", ""]]],
      [archive(tensor({ sizes: [6, 1], strides: [1, 99] }), six), []],
      [archive(tensor({ sizes: [0, 9], strides: [7, 7] }), six), []],
      [archive(`](${tensor()}${tensor()}e`, six), []],
      [
        archive(`}(${u("a")}${tensor({ key: "7" })}${u("b")}${tensor({ offset: 9 })}u`, six),
        [["missing storage", "a"], ["outside the storage", "b"]]
      ],
      [archive(`}(${u("a")}NK\x01NNNu`), [["not flat", ""]]],
      [archive(`}(${u("a.b")}N${u("a")}}${u("b")}Nsu`), [["duplicate name", "a.b"]]],
      [archive(`}(${u("a")}N${u("a")}Nu`), [["duplicate name", "a"]]],
      [archive(`}${u("a")}ccollections\nOrderedDict\ns`), [["refused pickle", "a"]]],
      [archive("K\x01K"), [["pickle", null]]],
      [archive("N", {}, { "a/byteorder": "big" }), [["byte order", null]]],
      [archive("N", {}, { "b/data.pkl": "" }), [["no pickle", null]]]
    ]
    for (const [file, expected] of table) {
      if (expected.length > 0) assert.deepStrictEqual<unknown>(await kinds(file), expected)
      else await Disk.run({ "/a": file }, TorchFile.open("/a"))
    }
    const frame = Zip.frame()
    const without = ByteFile.concat([frame.before("x", 0, 0), frame.after()])
    assert.deepStrictEqual(await kinds(without), [["no pickle", null]])
  })

  it("a short pickle that builds a tree without end is refused at once", async () => {
    const itself = "]q\x00h\x00a"
    // lists of which each holds the one before it twice: the last has 2⁵⁰ leaves
    const byte = (value: number) => String.fromCharCode(value)
    const doubled = Array.from({ length: 50 }, (_, i) => `](h${byte(i)}h${byte(i)}eq${byte(i + 1)}`).join("")
    // a name of 70 000 letters, which stands before each of forty others
    const long = `X${byte(70_000 & 255)}${byte(70_000 >> 8 & 255)}${byte(70_000 >> 16)}\0${"n".repeat(70_000)}`
    const names = `}(${long}](${"]".repeat(40)}eu`
    const deep = "](".repeat(70) + "e".repeat(70)
    for (const pickle of [itself, `(]q\x00${doubled}t`, names, deep]) {
      assert.strictEqual((await kinds(archive(pickle)))[0]?.[0], "not flat")
    }
  })

  it("refuses to write what torch cannot hold", async () => {
    const tensor: TensorFile.Source = { name: "w", type: "F32", sizes: [2], bytes: new Uint8Array(8) }
    const refused = async (...tensors: ReadonlyArray<TensorFile.Source>) => {
      const error = await Disk.run({}, Effect.flip(TorchFile.write("/a", tensors)))
      return error._tag === "TensorFileError" ? error.problems.map(({ kind }) => kind) : error.message
    }
    assert.deepStrictEqual(await refused(tensor, tensor), ["duplicate name"])
    for (const wrong of [
      { type: "Q8_0", sizes: [32] }, { type: "U32" }, { sizes: [-1] }, { sizes: [1.5] }, { sizes: [2 ** 52, 4] },
      { sizes: [0, 2 ** 33, 2 ** 33], bytes: new Uint8Array(0) }, // no elements, but strides beyond 64 bits
      { name: "\uD800" }, { bytes: new Uint8Array(7) }, { bytes: Effect.succeed(new Uint8Array(9)) }
    ] as const) {
      assert.deepStrictEqual(await refused({ ...tensor, ...wrong }), ["unfit tensor"])
    }
  })
})
