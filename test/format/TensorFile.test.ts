import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import * as Float16 from "../../src/format/Float16.ts"
import * as TensorFile from "../../src/format/TensorFile.ts"
import * as Disk from "./Disk.ts"

/** A file without a header: its tensors stand where the entries say. */
type Bare = Partial<TensorFile.Entry> & Pick<TensorFile.Entry, "name" | "type" | "sizes">
const opened = (...entries: ReadonlyArray<Bare>) =>
  Effect.map(TensorFile.openBytes("/a", "bare"), (file) => {
    let offset = 0
    const placed = entries.map((entry): TensorFile.Entry => {
      const group = entry.group ?? (TensorFile.types[entry.type].read === "codes" ? 32 : 1)
      const bytes = TensorFile.byteCount(entry.type, TensorFile.elementCount(entry.sizes), group)
      const made = { group, offset, bytes, ...entry }
      offset += bytes
      return made
    })
    return TensorFile.make("bare", file, new Map([["made", "by hand"]]), placed)
  })

const bytesOf = (array: ArrayBufferView): Uint8Array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)

/** Blocks of ggml by its definition: an f16 scale, then codes; and the codes and scales that they hold. */
const blocks = (type: "Q8_0" | "Q4_0", count: number, seed: number) => {
  const [codes, scales] = [new Int8Array(count * 32), new Float32Array(count)]
  const bytes: Array<number> = []
  let state = seed + 1
  const next = (below: number) => (state = state * 48271 % 2147483647) % below
  for (let block = 0; block < count; block++) {
    const half = next(0x7c00)
    scales[block] = Float16.widenF16(Uint16Array.of(half))[0]!
    bytes.push(half & 255, half >> 8)
    const here = codes.subarray(block * 32, block * 32 + 32)
    for (let i = 0; i < 32; i++) here[i] = type === "Q8_0" ? next(256) - 128 : next(16) - 8
    if (type === "Q8_0") for (const code of here) bytes.push(code & 255)
    else for (let i = 0; i < 16; i++) bytes.push((here[i]! + 8) | (here[i + 16]! + 8) << 4)
  }
  return { codes, scales, bytes: Uint8Array.from(bytes) }
}

describe("TensorFile laws", () => {
  const sized = fc.tuple(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: 4 }), fc.integer({ min: 1, max: 3 }))
  const cut = fc.tuple(fc.nat(), fc.nat())
  const rowsOf = (outermost: number, [a, b]: readonly [number, number]): TensorFile.Rows => {
    const [from, to] = [a % (outermost + 1), b % (outermost + 1)]
    return from <= to ? { from, to } : { from: to, to: from }
  }

  it("some rows of a tensor are those rows of the whole, as reals and as bytes", () =>
    fc.assert(fc.asyncProperty(
      fc.constantFrom("F32", "F16", "BF16"), sized, cut, fc.nat(),
      async (type, sizes, pair, seed) => {
        const elements = TensorFile.elementCount(sizes)
        const file = new Uint8Array(8 + elements * TensorFile.types[type].bytes).map((_, i) => (i * 37 + seed) % 256)
        const rows = rowsOf(sizes[0], pair)
        const room = new Float32Array(elements + 3).fill(7)
        const [whole, some, bytes, someBytes, put] = await Disk.run({ "/a": file }, Effect.gen(function*() {
          const tensors = yield* opened({ name: "before", type: "F64", sizes: [] }, { name: "w", type, sizes })
          const [read, readBytes] = [tensors.read, tensors.readBytes]
          return [
            yield* read("w"), yield* read("w", rows), yield* readBytes("w"), yield* readBytes("w", rows),
            yield* read("w", rows, room.subarray(1))
          ] as const
        }))
        const row = sizes[1] * sizes[2]
        assert.deepStrictEqual(some, whole.slice(rows.from * row, rows.to * row))
        assert.deepStrictEqual(put, some)
        assert.deepStrictEqual(room, new Float32Array(room.length).fill(7).map((x, i) => some[i - 1] ?? x))
        assert.deepStrictEqual(bytes, file.slice(8))
        const width = row * TensorFile.types[type].bytes
        assert.deepStrictEqual(someBytes, bytes.slice(rows.from * width, rows.to * width))
        const widen = type === "F16" ? Float16.widenF16 : Float16.widenBF16
        const expected = type === "F32" ? new Float32Array(bytes.buffer) : widen(new Uint16Array(bytes.buffer))
        assert.deepStrictEqual(bytesOf(whole), bytesOf(expected))
      }
    ), { numRuns: 60 }))

  it("quantized elements are code times scale, whatever rows are asked for", () =>
    fc.assert(fc.asyncProperty(
      fc.constantFrom("Q8_0", "Q4_0"), fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 3 }), cut, fc.nat(1e6),
      async (type, outermost, across, pair, seed) => {
        const { bytes, codes, scales } = blocks(type, outermost * across, seed)
        const rows = rowsOf(outermost, pair)
        const [real, quantized, raw] = await Disk.run({ "/a": bytes }, Effect.gen(function*() {
          const tensors = yield* opened({ name: "w", type, sizes: [outermost, across * 32] })
          return [
            yield* tensors.read("w", rows), yield* tensors.readQuantized("w", rows), yield* tensors.readBytes("w", rows)
          ] as const
        }))
        const [from, to] = [rows.from * across, rows.to * across]
        const expected = { codes: codes.slice(from * 32, to * 32), scales: scales.slice(from, to), group: 32 }
        assert.deepStrictEqual(quantized, expected)
        assert.deepStrictEqual(real, Float32Array.from(expected.codes, (code, i) => code * expected.scales[i >> 5]!))
        const width = TensorFile.types[type].bytes
        assert.deepStrictEqual(raw, bytes.slice(from * width, to * width))
      }
    ), { numRuns: 60 }))

  it("rows may begin and end inside the groups of llama2.c", () =>
    fc.assert(fc.asyncProperty(cut, fc.constantFrom(2, 3, 4, 6), async (pair, group) => {
      const sizes = [8, 3]
      const codes = Int8Array.from({ length: 24 }, (_, index) => index * 5 - 60)
      const scales = Float32Array.from({ length: 24 / group }, (_, index) => index + 0.5)
      const file = Buffer.concat([bytesOf(codes), bytesOf(scales)])
      const rows = rowsOf(8, pair)
      const [some, whole, bytes] = await Disk.run({ "/a": file }, Effect.gen(function*() {
        const tensors = yield* opened({ name: "w", type: "I8_GROUPS", sizes, group })
        return [
          yield* tensors.read("w", rows), yield* tensors.readQuantized("w"), yield* tensors.readBytes("w")
        ] as const
      }))
      const all = Float32Array.from(codes, (code, i) => code * scales[Math.floor(i / group)]!)
      assert.deepStrictEqual(some, all.slice(rows.from * 3, rows.to * 3))
      assert.deepStrictEqual(whole, { codes, scales, group })
      assert.deepStrictEqual(bytes, Uint8Array.from(file))
    }), { numRuns: 40 }))
})

describe("TensorFile cases", () => {
  it("touches the bytes of the rows asked for, and holds nothing beside them", async () => {
    const rows = 5000
    const file = new Uint8Array(rows * 2000)
    const traffic: Disk.Traffic = { bytes: 0, largest: 0 }
    const two = await Disk.run({ "/a": file }, Effect.flatMap(
      opened({ name: "w", type: "F16", sizes: [rows, 1000] }), (tensors) => tensors.read("w", { from: 7, to: 9 })
    ), traffic)
    assert.strictEqual(two.length, 2000)
    assert.deepStrictEqual(traffic, { bytes: 4000, largest: two.length * 4 }) // read to where they are widened
    await Disk.run({ "/a": file }, Effect.flatMap(
      opened({ name: "w", type: "F16", sizes: [rows, 1000] }), (tensors) => tensors.read("w")
    ), traffic)
    assert.strictEqual(traffic.bytes, 4000 + file.length)
    assert.strictEqual(traffic.largest, rows * 1000 * 4)
  })

  const message = (effect: (tensors: TensorFile.TensorFile) => Effect.Effect<unknown, TensorFile.Failure>) =>
    Disk.run({ "/a": new Uint8Array(400) }, Effect.flatMap(
      opened(
        { name: "w", type: "F32", sizes: [4, 2] },
        { name: "wide", type: "F64", sizes: [2] },
        { name: "q", type: "Q8_0", sizes: [2, 48] },
        { name: "g", type: "I8_GROUPS", sizes: [4, 2], group: 4 },
        { name: "k", type: "Q6_K", sizes: [0] }
      ),
      (tensors) => Effect.map(Effect.flip(effect(tensors)), (error) => error.message.split("\n"))
    ))

  it("says what is wrong with the question", async () => {
    const head = "/a: cannot read this as bare"
    const cause = "Likely cause, and what to do:"
    assert.deepStrictEqual(await message(({ read }) => read("v")), [
      head,
      '  unknown tensor: tensor "v", byte 0: expected one of 5 names: "w", "wide", "q", "g", "k"; found no such name',
      cause,
      "  unknown tensor: the name is misspelt, or the file holds another model: compare with the names it does hold"
    ])
    assert.deepStrictEqual(await message(({ read }) => read("w", { from: 3, to: 5 })), [
      head,
      '  unfit rows: tensor "w", byte 0: expected rows of "w" of F32 [4, 2], from 0 to 4; found from 3 to 5',
      cause,
      "  unfit rows: rows are counted from 0 along the outermost axis: compare with the sizes of the tensor"
    ])
    assert.deepStrictEqual(await message(({ read }) => read("wide")), [
      head,
      '  not reals: tensor "wide", byte 32: expected F32, F16, BF16, Q8_0, Q4_0 or I8_GROUPS; found "wide" of F64 [2]',
      cause,
      "  not reals: f32 cannot hold these exactly, or no rule reads them: convert the tensor to F32, F16, BF16, " +
        "Q8_0 or Q4_0"
    ])
    assert.deepStrictEqual(await message(({ readQuantized }) => readQuantized("w")), [
      head,
      '  not quantized: tensor "w", byte 0: expected Q8_0, Q4_0 or I8_GROUPS; found "w" of F32 [4, 2]',
      cause,
      "  not quantized: the tensor has no codes and scales: read it as reals"
    ])
    const cut = '  rows cut a group: tensor "g", byte 150: expected rows of "g" of I8_GROUPS [4, 2] that are whole '
    const advice = "  rows cut a group: a group of elements has one scale: ask for rows whose elements are whole " +
      "groups, or for all"
    assert.deepStrictEqual(await message(({ readQuantized }) => readQuantized("g", { from: 1, to: 2 })), [
      head, `${cut}groups of 4; found elements from 2 to 4`, cause, advice
    ])
    assert.deepStrictEqual(await message(({ readBytes }) => readBytes("g", { from: 0, to: 2 })), [
      head, `${cut}blocks of 8; found elements from 0 to 4`, cause, advice
    ])
    assert.include((await message(({ readBytes }) => readBytes("q", { from: 0, to: 1 })))[1], "whole blocks of 32")
    for (const rows of [{ from: -1, to: 1 }, { from: 0.5, to: 1 }, { from: 2, to: 1 }, { from: 0, to: NaN }]) {
      assert.include((await message(({ read }) => read("w", rows)))[1], "unfit rows")
    }
  })

  it("reads bytes of every type, and refuses what it cannot read as reals", () =>
    Disk.run({ "/a": new Uint8Array(400) }, Effect.forEach(Object.keys(TensorFile.types), (type) => {
      const known = type as TensorFile.Type
      const sizes = [TensorFile.types[known].elements]
      return Effect.gen(function*() {
        const tensors = yield* opened({ name: "w", type: known, sizes, group: sizes[0]! })
        const bytes = yield* tensors.readBytes("w")
        assert.strictEqual(bytes.length, tensors.entries.get("w")?.bytes)
        const read = yield* Effect.exit(tensors.read("w"))
        assert.strictEqual(read._tag === "Success", TensorFile.types[known].read !== "bytes")
        const quantized = yield* Effect.exit(tensors.readQuantized("w"))
        assert.strictEqual(quantized._tag === "Success", TensorFile.types[known].read === "codes")
      })
    })))
})
