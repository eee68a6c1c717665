import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import * as Safetensors from "../../src/format/Safetensors.ts"
import * as SafetensorsFile from "../../src/format/SafetensorsFile.ts"
import * as Disk from "./Disk.ts"
import * as Fixture from "./Fixture.ts"

const name = fc.oneof(
  fc.constantFrom("model.norm.weight", "constructor", "", "é", "\u{1F999}", 'q"\\\n'),
  fc.string({ unit: "binary", maxLength: 4 }).filter((text) => !/\p{Surrogate}/u.test(text))
)
const tensors = fc.uniqueArray(
  fc.record({
    name,
    dtype: fc.constantFrom(...Safetensors.Dtype.literals),
    shape: fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 }),
    shard: fc.nat(2)
  }),
  { selector: (tensor) => tensor.name, maxLength: 6 }
)
type Given = typeof tensors extends fc.Arbitrary<infer A> ? A : never

const source = ({ dtype, name, shape }: Given[number], index: number): Safetensors.Tensor => {
  const length = shape.reduce((product, size) => product * size, Safetensors.bytesPerElement[dtype])
  return { name, dtype, shape, bytes: new Uint8Array(length).map((_, at) => (at * 29 + index * 7) % 256) }
}

const saved = async (given: ReadonlyArray<Safetensors.Tensor>, metadata?: Safetensors.Metadata): Promise<Uint8Array> =>
  (await Disk.written(Safetensors.write("/a", given, metadata))).get("/a")!

const shard = (number: number): string => `model-0000${number + 1}-of-00003.safetensors`
const one = { name: "a", dtype: "U8", shape: [1], bytes: Uint8Array.of(1) } as const
const two = { name: "b", dtype: "U8", shape: [2], bytes: Uint8Array.of(2, 3) } as const

/** The problems of opening an index beside these shards. */
const problems = async (
  index: string | Uint8Array, shards: Readonly<Record<string, ReadonlyArray<Safetensors.Tensor>>>
) => {
  const files: Record<string, Uint8Array> = {
    "/m/index.json": typeof index === "string" ? new TextEncoder().encode(index) : index
  }
  for (const [name, given] of Object.entries(shards)) files[`/m/${name}`] = await saved(given)
  const error = await Disk.run(files, Effect.flip(SafetensorsFile.openSharded("/m/index.json")))
  return error._tag === "TensorFileError" ? error : assert.fail(error.message)
}
const map = (weight_map: Readonly<Record<string, string>>): string => JSON.stringify({ weight_map })

describe("SafetensorsFile", () => {
  it("shards are one file: every tensor bit for bit, wherever it stands", () =>
    fc.assert(fc.asyncProperty(tensors, async (given) => {
      const sources = given.map(source)
      const files: Record<string, Uint8Array> = { "/m/all.safetensors": await saved(sources, { made: "by hand" }) }
      for (const number of new Set(given.map(({ shard }) => shard))) {
        files[`/m/${shard(number)}`] = await saved(sources.filter((_, index) => given[index]!.shard === number))
      }
      const weightMap = JSON.stringify(Object.fromEntries(given.map((tensor) => [tensor.name, shard(tensor.shard)])))
      files["/m/index.json"] = new TextEncoder().encode(`{"metadata":{"total_size":7},"weight_map":${weightMap}}`)
      await Disk.run(files, Effect.gen(function*() {
        const single = yield* SafetensorsFile.open("/m/all.safetensors")
        const sharded = yield* SafetensorsFile.openSharded("/m/index.json")
        assert.deepStrictEqual(single.metadata, new Map([["made", "by hand"]]))
        assert.deepStrictEqual(sharded.metadata, new Map([["total_size", 7]]))
        assert.deepStrictEqual([...sharded.entries.keys()].toSorted(), [...single.entries.keys()].toSorted())
        for (const { bytes, dtype, name, shape } of sources) {
          assert.deepInclude(single.entries.get(name), { name, type: dtype, sizes: shape, bytes: bytes.length })
          assert.deepInclude(sharded.entries.get(name), { name, type: dtype, sizes: shape, bytes: bytes.length })
          assert.deepStrictEqual(yield* single.readBytes(name), bytes)
          assert.deepStrictEqual(yield* sharded.readBytes(name), bytes)
        }
      }))
    }), { numRuns: 40 }))

  it("reads the shards that Hugging Face wrote", async () => {
    const expected = await Fixture.expected("sharded.model.layers.1.mlp.up_proj.weight")
    await Disk.run(Fixture.files("sharded"), Effect.gen(function*() {
      const file = yield* SafetensorsFile.openSharded("/sharded/model.safetensors.index.json")
      assert.strictEqual(file.entries.size, 21)
      assert.deepStrictEqual(yield* file.read("model.layers.1.mlp.up_proj.weight"), expected)
    }))
  })

  it("reals are widened, rows are rows, in shards too", () =>
    saved([{ name: "w", dtype: "BF16", shape: [3, 1], bytes: Uint8Array.of(0x80, 0x3f, 0, 0x40, 0x40, 0xc0) }]).then(
      (file) => Disk.run(
        { [`/m/${shard(0)}`]: file, "/m/index.json": new TextEncoder().encode(map({ w: shard(0) })) },
        Effect.gen(function*() {
          const tensors = yield* SafetensorsFile.openSharded("/m/index.json")
          assert.deepStrictEqual([...yield* tensors.read("w")], [1, 2, -3])
          assert.deepStrictEqual([...yield* tensors.read("w", { from: 1, to: 3 })], [2, -3])
          assert.include((yield* Effect.flip(tensors.readQuantized("w"))).message, "not quantized")
          assert.include((yield* Effect.flip(tensors.read("v"))).message, "/m/index.json: cannot read this as sharded")
        })
      )
    ))

  it("shard names that leave the folder are refused before anything is opened", async () => {
    const names = [
      "../secret.safetensors", "/etc/x.safetensors", "a/b.safetensors", "a\\b.safetensors", "c:x.safetensors",
      "\0.safetensors", ".safetensors", "..", "", "passwd", "a\n.safetensors"
    ]
    for (const name of names) {
      const error = await problems(map({ a: name }), {})
      assert.deepStrictEqual(error.problems.map(({ kind }) => kind), ["shard name"], JSON.stringify(name))
    }
    const error = await problems(map({ a: "../../x.safetensors", b: shard(0) }), {})
    assert.strictEqual(error.message, [
      "/m/index.json: cannot read this as sharded safetensors",
      "  shard name: byte 0: expected the name of a .safetensors file beside the index; " +
        'found "../../x.safetensors"',
      "Likely cause, and what to do:",
      "  shard name: a shard stands beside its index and its name has no folder in it; an index that names other " +
        "files of this machine is damaged or hostile: do not use it"
    ].join("\n"))
  })

  it("all that index and shards disagree about is one error", async () => {
    const error = await problems(
      map({ a: shard(0), b: shard(1), c: shard(2), d: shard(0) }),
      { [shard(0)]: [one, two], [shard(1)]: [{ ...one, name: "extra" }] }
    )
    assert.strictEqual(error.message, [
      "/m/index.json: cannot read this as sharded safetensors",
      `  missing shard: byte 0: expected the file ${shard(2)} beside the index; found no such file`,
      `  wrong shard: tensor "b", byte 0: expected it in ${shard(1)}; found it in ${shard(0)}`,
      `  wrong shard: tensor "extra", byte 0: expected no shard to hold it, as the index says; found it in ${shard(1)}`,
      `  wrong shard: tensor "b", byte 0: expected it in ${shard(1)}; found it is not there`,
      `  wrong shard: tensor "d", byte 0: expected it in ${shard(0)}; found it is not there`,
      "Likely cause, and what to do:",
      "  missing shard: the download was not finished, or a file was renamed: fetch the shard into the folder of the " +
        "index",
      "  wrong shard: index and shards are of different savings: fetch or save all of them again"
    ].join("\n"))
  })

  it("an index that is not one, or names a tensor twice, is refused", async () => {
    const twice = `{"weight_map":{"a":"${shard(0)}","a":"${shard(1)}"}}`
    for (const index of [Uint8Array.of(0xff), "", "[]", "{}", '{"weight_map":{"a":1}}', '{"weight_map":"a"}', twice]) {
      const error = await problems(index, {})
      assert.deepStrictEqual([...new Set(error.problems.map(({ kind }) => kind))], ["index"])
    }
  })

  it("a damaged file is an error of this interface, with path, tensor and byte", async () => {
    const file = await saved([one, two])
    const error = await Disk.run({ "/a": file.slice(0, -1) }, Effect.flip(SafetensorsFile.open("/a")))
    assert.strictEqual(error.message, [
      "/a: cannot read this as safetensors",
      `  outside the file: tensor "b", byte ${file.length - 2}: expected an end within the 2 bytes of data; ` +
        "found data_offsets [1, 3]",
      "Likely cause, and what to do:",
      "  outside the file: the file was cut short, as by an interrupted download or a full disk: fetch or save it again"
    ].join("\n"))
  })
})
