import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import * as Fs from "node:fs"
import * as Llama2c from "../../src/format/Llama2c.ts"
import * as Quantize from "../../src/format/Quantize.ts"
import type * as TensorFile from "../../src/format/TensorFile.ts"
import * as Disk from "./Disk.ts"
import * as Fixture from "./Fixture.ts"

const headers = fc.record({
  version: fc.constantFrom<Llama2c.Header["version"]>(0, 1, 2),
  half: fc.integer({ min: 1, max: 3 }),
  kv: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 2 }),
  hidden: fc.integer({ min: 1, max: 5 }),
  n_layers: fc.integer({ min: 1, max: 3 }),
  vocabulary: fc.integer({ min: 1, max: 5 }),
  max_seq_len: fc.integer({ min: 1, max: 4 }),
  shared_classifier: fc.boolean()
}).map(({ group, half, hidden, kv, vocabulary, ...rest }): Llama2c.Header => ({
  ...rest,
  dim: 2 * half * kv * group,
  hidden_dim: hidden,
  n_heads: kv * group,
  n_kv_heads: kv,
  vocab_size: vocabulary,
  group_size: rest.version === 2 ? 2 : 1
}))

/** The tensors that a header wants, filled with bytes of `seed`. */
const filled = (header: Llama2c.Header, seed: number): ReadonlyArray<TensorFile.Source> => {
  const { dim, hidden_dim: hidden, n_heads, n_kv_heads, n_layers, shared_classifier, version, vocab_size } = header
  const keys = dim / n_heads * n_kv_heads
  const layer: ReadonlyArray<readonly [string, ReadonlyArray<number>]> = [
    ["attention.wq", [dim, dim]], ["attention.wk", [keys, dim]], ["attention.wv", [keys, dim]],
    ["attention.wo", [dim, dim]], ["feed_forward.w1", [hidden, dim]], ["feed_forward.w2", [dim, hidden]],
    ["feed_forward.w3", [hidden, dim]], ["attention_norm", [dim]], ["ffn_norm", [dim]]
  ]
  const all: Array<readonly [string, ReadonlyArray<number>]> = [
    ["tok_embeddings.weight", [vocab_size, dim]], ["norm.weight", [dim]]
  ]
  if (!shared_classifier) all.push(["output.weight", [vocab_size, dim]])
  const rotation = [header.max_seq_len, dim / n_heads / 2]
  if (version === 0) all.push(["freqs_cos", rotation], ["freqs_sin", rotation])
  for (let i = 0; i < n_layers; i++) for (const [name, sizes] of layer) all.push([`layers.${i}.${name}.weight`, sizes])
  return all.map(([name, sizes], index) => {
    const elements = sizes.reduce((product, size) => product * size, 1)
    const type = version === 2 && sizes.length > 1 ? "I8_GROUPS" : "F32"
    const length = type === "F32" ? elements * 4 : elements + elements / header.group_size * 4
    return { name, type, sizes, bytes: new Uint8Array(length).map((_, at) => (at * 31 + index * 17 + seed) % 256) }
  })
}

const saved = async (header: Llama2c.Header, tensors: ReadonlyArray<TensorFile.Source>): Promise<Uint8Array> =>
  (await Disk.written(Llama2c.write("/a.bin", header, tensors))).get("/a.bin")!

const headerOf = ({ metadata }: TensorFile.TensorFile): Llama2c.Header => {
  const number = (name: string) => Number(metadata.get(name))
  const version = number("version")
  return {
    version: version === 0 ? 0 : version === 1 ? 1 : 2,
    dim: number("dim"),
    hidden_dim: number("hidden_dim"),
    n_layers: number("n_layers"),
    n_heads: number("n_heads"),
    n_kv_heads: number("n_kv_heads"),
    vocab_size: number("vocab_size"),
    max_seq_len: number("max_seq_len"),
    shared_classifier: metadata.get("shared_classifier") === true,
    group_size: number("group_size")
  }
}

describe("Llama2c laws", () => {
  it("what is written is read back, bit for bit, in every version and order of giving", () =>
    fc.assert(fc.asyncProperty(headers, fc.nat(255), async (header, seed) => {
      const tensors = filled(header, seed)
      const file = await saved(header, tensors.toReversed())
      assert.deepStrictEqual(file, await saved(header, tensors))
      await Disk.run({ "/a": file }, Effect.gen(function*() {
        const opened = yield* Llama2c.open("/a")
        assert.deepStrictEqual(headerOf(opened), header)
        assert.strictEqual(opened.format, `llama2.c v${header.version}`)
        assert.strictEqual(opened.entries.size, tensors.length)
        for (const { bytes, name, sizes, type } of tensors) {
          assert.deepInclude(opened.entries.get(name), { name, type, sizes })
          assert.deepStrictEqual(yield* opened.readBytes(name), bytes)
        }
      }))
    }), { numRuns: 40 }))

  it("a file that was cut or grew is refused, whatever its version", () =>
    fc.assert(fc.asyncProperty(headers, fc.nat(), async (header, at) => {
      const file = await saved(header, filled(header, 1))
      for (const damaged of [file.slice(0, at % file.length), Uint8Array.from([...file, 0])]) {
        const error = await Disk.run({ "/a": damaged }, Effect.flip(Llama2c.open("/a")))
        assert.strictEqual(error._tag, "TensorFileError")
      }
    }), { numRuns: 25 }))
})

describe("Llama2c cases", () => {
  for (const name of ["tied", "untied"]) {
    for (const version of [0, 1, 2]) {
      it(`${name}, version ${version}: reads what export.py wrote, and writes the same bytes`, async () => {
        const file = Fixture.bytes(`${name}-v${version}.bin`)
        const names = await Fixture.expectedNames(`${name}.`)
        const values = new Map(
          await Promise.all(names.map(async (key) => [key, await Fixture.expected(`${name}.${key}`)] as const))
        )
        const { header, quantized, tensors } = await Disk.run({ "/a": file }, Effect.gen(function*() {
          const opened = yield* Llama2c.open("/a")
          assert.deepStrictEqual(
            [...opened.entries.keys()].filter((name) => !name.startsWith("freqs")).toSorted(), names.toSorted()
          )
          const quantized: Array<TensorFile.Source> = []
          for (const { group, name, sizes, type } of opened.entries.values()) {
            const expected = values.get(name)
            if (type === "F32") {
              const bytes = yield* opened.readBytes(name)
              if (expected !== undefined) assert.deepStrictEqual(yield* opened.read(name), expected)
              quantized.push({ name, sizes, type, bytes })
            } else {
              const own = Quantize.inGroups(expected!, group)
              assert.deepStrictEqual(yield* opened.readQuantized(name), own)
              quantized.push({ name, sizes, type, bytes: Quantize.groupBytes(own) })
            }
          }
          return { header: headerOf(opened), quantized, tensors: yield* Fixture.sources(opened) }
        }))
        assert.deepStrictEqual(header, {
          version: version === 0 ? 0 : version === 1 ? 1 : 2, dim: 8, hidden_dim: 12, n_layers: 2, n_heads: 2,
          n_kv_heads: 1, vocab_size: 6, max_seq_len: 5, shared_classifier: name === "tied",
          group_size: version === 2 ? 4 : 1
        })
        assert.deepStrictEqual(await saved(header, tensors), file)
        assert.deepStrictEqual(await saved(header, quantized), file) // quantized here, not copied
      })
    }
  }

  const problems = async (file: Uint8Array) => {
    const error = await Disk.run({ "/a.bin": file }, Effect.flip(Llama2c.open("/a.bin")))
    return error._tag === "TensorFileError" ? error : assert.fail(error.message)
  }
  const changed = (name: string, at: number, value: number, width = 4): Uint8Array => {
    const file = Fixture.bytes(name)
    const view = new DataView(file.buffer)
    if (width === 1) view.setUint8(at, value)
    else view.setInt32(at, value, true)
    return file
  }

  it("names what is wrong with a header", async () => {
    const table: ReadonlyArray<readonly [Uint8Array, string, number]> = [
      [new Uint8Array(0), "header", 0],
      [new Uint8Array(27), "header", 0],
      [new Uint8Array(300), "header", 0],
      [Fixture.bytes("tied-v1.bin").slice(0, 255), "header", 0],
      [changed("tied-v1.bin", 4, 0), "version", 4],
      [changed("tied-v1.bin", 4, 3), "version", 4],
      [changed("tied-v1.bin", 8, -8), "header", 8],
      [changed("tied-v1.bin", 20, 3), "header", 8], // heads
      [changed("tied-v1.bin", 24, 3), "header", 8], // key heads
      [changed("tied-v1.bin", 36, 2, 1), "header", 36],
      [changed("tied-v1.bin", 200, 1, 1), "header", 200],
      [changed("tied-v1.bin", 37, 1, 1), "header", 37],
      [changed("tied-v2.bin", 37, 0), "header", 37],
      [changed("tied-v2.bin", 37, -4), "header", 37],
      [changed("tied-v2.bin", 41, 1, 1), "header", 41],
      [changed("tied-v2.bin", 37, 5), "length", Fixture.bytes("tied-v2.bin").length],
      [changed("tied-v0.bin", 20, -6), "length", Fixture.bytes("tied-v0.bin").length],
      [changed("tied-v0.bin", 8, 0x7fffffff), "length", Fixture.bytes("tied-v0.bin").length]
    ]
    for (const [file, kind, offset] of table) {
      const found = (await problems(file)).problems.map(({ kind, offset }) => [kind, offset])
      assert.deepStrictEqual(found, [[kind, offset]])
    }
    assert.strictEqual((await problems(changed("untied-v0.bin", 0, 10))).message, [
      "/a.bin: cannot read this as llama2.c",
      "  header: byte 0: expected heads of one even size in dim 10, not 2 heads; found a header with it",
      "Likely cause, and what to do:",
      "  header: this is no file of llama2.c, or its beginning was overwritten: fetch or export it again"
    ].join("\n"))
    assert.strictEqual((await problems(Fixture.bytes("tied-v0.bin").slice(0, -1))).message, [
      "/a.bin: cannot read this as llama2.c",
      "  length: byte 4299: expected 4300 bytes for dim 8, hidden_dim 12, n_layers 2, n_heads 2, n_kv_heads 1, " +
        "vocab_size 6, max_seq_len 5; found 4299 bytes",
      "Likely cause, and what to do:",
      "  length: the file was cut short, as by an interrupted download, or bytes were added: fetch or export it again"
    ].join("\n"))
  })

  it("a group size that does not divide a tensor is refused, in reading and in writing", async () => {
    const header: Llama2c.Header = {
      version: 2, dim: 4, hidden_dim: 2, n_layers: 1, n_heads: 2, n_kv_heads: 1, vocab_size: 3, max_seq_len: 1,
      shared_classifier: true, group_size: 8
    }
    // embeddings of 12 elements: 12 / 8 groups of four bytes would be 6 bytes; all in all a whole number of bytes
    const elements = 12 + 16 + 8 + 8 + 16 + 3 * 8
    const file = new Uint8Array(256 + 4 * 12 + elements + elements / 8 * 4)
    const view = new DataView(file.buffer)
    for (const [index, value] of [0x616b3432, 2, 4, 2, 1, 2, 1, 3, 1].entries()) view.setInt32(index * 4, value, true)
    file[36] = 1
    view.setInt32(37, 8, true)
    assert.deepStrictEqual((await problems(file)).problems.map(({ kind, tensor }) => [kind, tensor]), [
      ["groups", "tok_embeddings.weight"]
    ])
    const error = await Disk.run({}, Effect.flip(Llama2c.write("/a", header, filled({ ...header, group_size: 4 }, 0))))
    assert.include(error.message, 'groups: tensor "tok_embeddings.weight"')
  })

  it("refuses to write what is not the model of the header", async () => {
    const header: Llama2c.Header = {
      version: 1, dim: 4, hidden_dim: 3, n_layers: 1, n_heads: 2, n_kv_heads: 1, vocab_size: 3, max_seq_len: 1,
      shared_classifier: true, group_size: 1
    }
    const tensors = filled(header, 0)
    const kinds = async (tensors: ReadonlyArray<TensorFile.Source>, given: Partial<Llama2c.Header> = {}) => {
      const error = await Disk.run({}, Effect.flip(Llama2c.write("/a", { ...header, ...given }, tensors)))
      return error._tag === "TensorFileError" ? error.problems.map(({ kind, tensor }) => [kind, tensor]) : error.message
    }
    const norm = tensors.find(({ name }) => name === "norm.weight")!
    assert.deepStrictEqual(await kinds(tensors.slice(1)), [["missing tensor", "tok_embeddings.weight"]])
    assert.deepStrictEqual(await kinds([...tensors, { ...norm, name: "v" }]), [["missing tensor", "v"]])
    assert.deepStrictEqual(await kinds([norm, ...tensors]), [["missing tensor", "norm.weight"]])
    const others = tensors.filter((tensor) => tensor !== norm)
    assert.deepStrictEqual(await kinds([...others, { ...norm, sizes: [2, 2] }]), [["unfit tensor", "norm.weight"]])
    assert.deepStrictEqual(await kinds([...others, { ...norm, type: "I32" }]), [["unfit tensor", "norm.weight"]])
    assert.deepStrictEqual(
      await kinds([...others, { ...norm, bytes: new Uint8Array(3) }]), [["unfit tensor", "norm.weight"]]
    )
    for (const wrong of [{ n_layers: 2 ** 30 }, { dim: 0 }, { n_heads: 3 }, { version: 2, group_size: 0 } as const]) {
      assert.deepStrictEqual(await kinds(tensors, wrong), [["header", null]])
    }
  })

  const data = process.env["CRIA_TEST_DATA"]
  it("stories260K is version 0, and is written again as it was", async (context) => {
    if (data === undefined) return context.skip("CRIA_TEST_DATA names no folder with stories260K.bin")
    const file = new Uint8Array(Fs.readFileSync(`${data}/stories260K.bin`))
    const { header, tensors } = await Disk.run({ "/a": file }, Effect.gen(function*() {
      const opened = yield* Llama2c.open("/a")
      return { header: headerOf(opened), tensors: yield* Fixture.sources(opened) }
    }))
    assert.deepInclude(header, { version: 0, dim: 64, n_layers: 5, vocab_size: 512, shared_classifier: true })
    assert.isTrue(Buffer.from(await saved(header, tensors)).equals(file))
  })
})
