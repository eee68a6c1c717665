/**
 * Thousands of damaged and hostile files of every format: each is read or refused with a typed error; nothing crashes,
 * hangs or asks for more memory than the file has bytes. `CRIA_FORMAT_RUNS=10000` says how many of each (300 unless
 * told).
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import type { Scope, FileSystem, Path } from "effect"
import * as fc from "fast-check"
import { crc32 } from "node:zlib"
import { encodeModel } from "../../src/backend/onnx/ModelProto.ts"
import * as ByteFile from "../../src/format/ByteFile.ts"
import * as Gguf from "../../src/format/Gguf.ts"
import * as Llama2c from "../../src/format/Llama2c.ts"
import * as Onnx from "../../src/format/Onnx.ts"
import * as Pickle from "../../src/format/Pickle.ts"
import * as Safetensors from "../../src/format/Safetensors.ts"
import * as SafetensorsFile from "../../src/format/SafetensorsFile.ts"
import * as TensorFile from "../../src/format/TensorFile.ts"
import * as TorchFile from "../../src/format/TorchFile.ts"
import * as Zip from "../../src/format/Zip.ts"
import * as Disk from "../format/Disk.ts"
import * as Fixture from "../format/Fixture.ts"

const runs = Number(process.env["CRIA_FORMAT_RUNS"] ?? 300)

const extremes = [
  0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 127, 128, 255, 256, 0x7fff, 0xffff, 0x10000, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1,
  2 ** 32, 2 ** 40, 2 ** 53 - 1, 2 ** 53, 2 ** 62, 2 ** 63, 2 ** 64 - 2 ** 11
]
/** What an attacker would put in: paths, other types, calls, opcodes, signatures, offsets. */
const words = [
  "../", "/etc/", "\\", ".safetensors", '"F64"', '"BF16"', '"I64"', '"U8"', "[0,8]", "[8,0]", ",0]",
  "cos\nsystem\n", "i__builtin__\neval\n", "ctorch\nDoubleStorage\n", "(tR", "R", "\x81", "h\x00", "t", "Q", "b",
  "e", "u", "PK\x01\x02", "PK\x03\x04", "PK\x05\x06", "PK\x06\x06", "GGUF", "\x09\0\0\0\x09\0\0\0", "24ka"
].map((word) => Uint8Array.from(word, (character) => character.charCodeAt(0)))

const change = fc.oneof(
  fc.record({ kind: fc.constant("flip"), at: fc.nat(), size: fc.nat(7), from: fc.nat(), value: fc.nat() }),
  fc.record({
    kind: fc.constantFrom("byte", "cut", "repeat", "zero", "end", "digit", "copy", "insert", "word", "over"),
    at: fc.nat(),
    size: fc.nat(64),
    from: fc.nat(),
    value: fc.nat(255)
  }),
  fc.record({
    kind: fc.constantFrom("number"),
    at: fc.nat(),
    size: fc.constantFrom(1, 2, 4, 8),
    from: fc.nat(),
    value: fc.constantFrom(...extremes)
  })
)
const changes = fc.array(change, { minLength: 1, maxLength: 4 })
type Change = typeof change extends fc.Arbitrary<infer A> ? A : never

/** The file after one change; places are counted in the file, and half of them in its first 512 bytes. */
const changed = (file: Uint8Array, { at: place, from: other, kind, size, value }: Change): Uint8Array => {
  if (file.length === 0) return file
  const span = place % 2 === 0 ? file.length : Math.min(file.length, 512)
  const at = Math.floor(place / 2) % span
  const end = Math.min(file.length, at + size)
  const copy = file.slice()
  switch (kind) {
    case "flip":
      copy[at]! ^= 1 << size
      return copy
    case "byte":
      copy[at] = value
      return copy
    case "digit": { // the next digit of a text becomes another
      const digit = copy.findIndex((byte, index) => index >= at && byte >= 0x30 && byte <= 0x39)
      if (digit >= 0) copy[digit] = 0x30 + value % 10
      return copy
    }
    case "zero":
      return copy.fill(0, at, end)
    case "end":
      return copy.slice(0, at)
    case "cut":
      return ByteFile.concat([copy.slice(0, at), copy.slice(end)])
    case "repeat":
      return ByteFile.concat([copy.slice(0, end), copy.slice(at)])
    case "insert":
      return ByteFile.concat([copy.slice(0, at), Uint8Array.of(value), copy.slice(at)])
    case "word": // put between
    case "over": { // put over what is there
      const word = words[value % words.length]!
      return ByteFile.concat([copy.slice(0, at), word, copy.slice(kind === "over" ? at + word.length : at)])
    }
    case "copy": { // a stretch over another
      const source = file.slice(other % file.length, other % file.length + size)
      copy.set(source.subarray(0, file.length - at), at)
      return copy
    }
    default: {
      const number = new Uint8Array(8)
      new DataView(number.buffer).setBigUint64(0, BigInt(value), true)
      copy.set(number.subarray(0, Math.min(size, file.length - at)), at)
      return copy
    }
  }
}
const damaged = (file: Uint8Array, changes: ReadonlyArray<Change>): Uint8Array => changes.reduce(changed, file)

type Open = Effect.Effect<
  TensorFile.TensorFile | Onnx.Model, TensorFile.Failure, FileSystem.FileSystem | Path.Path | Scope.Scope
>

/** Opens and reads everything; what cannot be had is a typed error that names the file, and nothing was too large. */
const survives = async (files: Readonly<Record<string, Uint8Array>>, open: Open): Promise<"read" | "refused"> => {
  const whole = Object.values(files).reduce((sum, { length }) => sum + length, 0)
  const traffic: Disk.Traffic = { bytes: 0, largest: 0 }
  const refused = (error: TensorFile.Failure) => {
    if (error._tag !== "TensorFileError") return assert.fail(error.message)
    assert.isNotEmpty(error.problems)
    assert.include(error.message, `: cannot read this as ${error.format}`)
    for (const { offset } of error.problems) assert.isAtLeast(offset, 0)
  }
  const outcome = await Disk.run(files, Effect.gen(function*() {
    const opened = yield* Effect.result(open)
    if (Result.isFailure(opened)) {
      refused(opened.failure)
      return "refused"
    }
    const file = opened.success
    if (!("entries" in file)) { // of which nothing more is read
      for (const { bytes } of file.tensors) assert.isAtMost(bytes, 16 * whole) // a byte is a number of at most 128 bits
      return "read"
    }
    for (const { bytes, name, offset, sizes } of file.entries.values()) {
      assert.isAtMost(offset + bytes, whole)
      const raw = yield* Effect.result(file.readBytes(name))
      if (Result.isFailure(raw)) refused(raw.failure)
      else assert.strictEqual(raw.success.length, bytes)
      const read = yield* Effect.result(file.read(name))
      if (Result.isFailure(read)) refused(read.failure)
      else {
        assert.strictEqual(read.success.length, TensorFile.elementCount(sizes))
        assert.isAtMost(read.success.byteLength, 8 * whole) // four bits become 32
      }
      const row = yield* Effect.result(file.read(name, { from: 0, to: 1 }))
      if (Result.isFailure(row)) refused(row.failure)
    }
    return "read"
  }), traffic)
  assert.isAtMost(traffic.largest, whole) // of the buffers that bytes are read into
  return outcome === "read" ? "read" : "refused"
}

/** Every base is read as it is; then so many damaged ones are read or refused, and no few of them refused. */
const campaign = (
  name: string,
  bases: () => Promise<ReadonlyArray<Uint8Array>>,
  files: (damaged: Uint8Array) => Readonly<Record<string, Uint8Array>>,
  open: Open
): void =>
  it(name, async () => {
    const given = await bases()
    for (const base of given) assert.strictEqual(await survives(files(base), open), "read")
    let refused = 0
    await fc.assert(
      fc.asyncProperty(fc.nat(given.length - 1), changes, async (which, changes) => {
        if (await survives(files(damaged(given[which]!, changes)), open) === "refused") refused++
      }),
      { numRuns: runs }
    )
    assert.isAbove(refused, runs / 10)
  })

const tensors: ReadonlyArray<TensorFile.Source> = [
  { name: "norm.weight", type: "F32", sizes: [4], bytes: new Uint8Array(16).fill(63) },
  { name: "layers.0.attention.wq.weight", type: "BF16", sizes: [4, 4], bytes: new Uint8Array(32).fill(61) },
  { name: "empty", type: "F16", sizes: [0, 4], bytes: new Uint8Array(0) },
  { name: "ids", type: "I32", sizes: [], bytes: new Uint8Array(4) }
]
const single = async (effect: Parameters<typeof Disk.written>[0]): Promise<Uint8Array> =>
  (await Disk.written(effect)).get("/a")!
const safetensors = (given: ReadonlyArray<TensorFile.Source>): Promise<Uint8Array> =>
  single(Safetensors.write("/a", given.map(({ bytes, name, sizes, type }): Safetensors.Source => {
    const dtype = type === "BF16" || type === "F16" || type === "I32" ? type : "F32"
    return { name, dtype, shape: sizes, bytes: bytes instanceof Uint8Array ? bytes : new Uint8Array(0) }
  })))
const only = (file: Uint8Array) => ({ "/a": file })

/** What torch.save writes around a pickle: the checksum of a damaged one is right. */
const around = (pickle: Uint8Array): Uint8Array => {
  const frame = Zip.frame()
  const entries: ReadonlyArray<readonly [string, Uint8Array]> = [
    ["a/data.pkl", pickle], ["a/data/0", new Uint8Array(24)], ["a/data/1", new Uint8Array(12)]
  ]
  return ByteFile.concat([
    ...entries.flatMap(([name, bytes]) => [frame.before(name, bytes.length, crc32(bytes)), bytes]), frame.after()
  ])
}

describe("damaged files", () => {
  campaign(
    "safetensors",
    async () => [await safetensors(tensors), Fixture.bytes("expected.safetensors").slice()],
    only,
    SafetensorsFile.open("/a")
  )

  const shards = Fixture.files("sharded")
  const index = "/sharded/model.safetensors.index.json"
  campaign(
    "the index of sharded safetensors",
    () => Promise.resolve([shards[index]!]),
    (file) => ({ ...shards, [index]: file }),
    SafetensorsFile.openSharded(index)
  )
  campaign(
    "a shard of sharded safetensors",
    () => Promise.resolve([shards["/sharded/model-00002-of-00003.safetensors"]!]),
    (file) => ({ ...shards, "/sharded/model-00002-of-00003.safetensors": file }),
    SafetensorsFile.openSharded(index)
  )

  campaign(
    "torch.save, archives",
    async () => [
      await single(TorchFile.write("/a", tensors)), Fixture.bytes("torch.pth"), Fixture.bytes("state.pth")
    ],
    only,
    TorchFile.open("/a")
  )
  campaign(
    "torch.save, pickles within whole archives",
    () => Promise.resolve([
      Pickle.encode([
        { name: "a", type: "FloatStorage", key: "0", sizes: [2, 3] },
        { name: "b", type: "HalfStorage", key: "1", sizes: [6] }
      ])
    ]),
    (pickle) => only(around(pickle)),
    TorchFile.open("/a")
  )

  campaign(
    "GGUF",
    async () => [
      await single(Gguf.write("/a", new Map<string, Gguf.Value>([
        ["general.architecture", { type: "string", value: "llama" }],
        ["tokens", { type: "strings", values: ["a", "b", "c"] }],
        ["scores", { type: "numbers", values: Float32Array.of(1, 2, 3) }],
        ["nested", { type: "arrays", values: [{ type: "bools", values: Uint8Array.of(1) }] }]
      ]), tensors)),
      Fixture.bytes("package.gguf")
    ],
    only,
    Gguf.open("/a")
  )

  const { "/onnx/external.data": data, ...models } = Fixture.files("onnx")
  campaign(
    "ONNX",
    () => Promise.resolve([
      models["/onnx/inline.onnx"]!, models["/onnx/external.onnx"]!,
      encodeModel({
        nodes: [{ op: "Gather", inputs: ["w", "x"], outputs: ["y"], attributes: { axis: { int: 0 } } }],
        inputs: [{ name: "x", type: "i32", sizes: [1, 8] }],
        outputs: [{ name: "y", type: "f32", sizes: [1, 8, 4] }],
        initializers: [{ name: "w", type: "f32", sizes: [9, 4], bytes: new Uint8Array(144).fill(63) }],
        externals: [{ name: "d", type: "f32", sizes: [9, 4], location: "external.data", offset: 1, length: 144 }]
      })
    ]),
    (file) => ({ "/a": file, "/external.data": data! }),
    Onnx.open("/a")
  )

  for (const version of [0, 1, 2]) {
    campaign(
      `llama2.c v${version}`,
      () => Promise.resolve([Fixture.bytes(`tied-v${version}.bin`), Fixture.bytes(`untied-v${version}.bin`)]),
      only,
      Llama2c.open("/a")
    )
  }
})
