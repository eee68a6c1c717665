import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import * as Gguf from "../../src/format/Gguf.ts"
import * as Quantize from "../../src/format/Quantize.ts"
import * as Safetensors from "../../src/format/Safetensors.ts"
import * as TensorFile from "../../src/format/TensorFile.ts"
import * as TorchFile from "../../src/format/TorchFile.ts"
import * as Disk from "../format/Disk.ts"

/** A Python with torch, safetensors and gguf, which reads what is written here. */
const python = process.env["CRIA_PEER_PYTHON"]
const script = fileURLToPath(new URL("../parity/make/check_formats.py", import.meta.url))

const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 })
  .filter((text) => !/[\p{Surrogate}\0]/u.test(text))
const types = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"] as const
const isTruth = (type: TensorFile.Type) => type === "BOOL"
const tensors = (...types: ReadonlyArray<TensorFile.Type & Safetensors.Dtype>) =>
  fc.uniqueArray(
    fc.record({
      name,
      type: fc.constantFrom(...types),
      sizes: fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 4 }),
      seed: fc.nat(99)
    }),
    { selector: ({ name }) => name, minLength: 1, maxLength: 6 }
  ).map((given) => given.map(({ name, seed, sizes, type }) => {
    const bytes = new Uint8Array(TensorFile.byteCount(type, TensorFile.elementCount(sizes), 1))
    return { name, type, sizes, bytes: bytes.map((_, at) => (at * 41 + seed) % (isTruth(type) ? 2 : 256)) }
  }))

const described = (given: ReadonlyArray<TensorFile.Source>) =>
  given.map(({ bytes, name, sizes, type }) => (
    { name, type, sizes, hex: bytes instanceof Uint8Array ? Buffer.from(bytes).toString("hex") : "" }
  ))

describe.skipIf(python === undefined)("files in the hands of Python (needs CRIA_PEER_PYTHON)", () => {
  it("torch, safetensors, gguf and zipfile read what is written here, bit for bit", async () => {
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "cria-"))
    const manifest: Array<Readonly<Record<string, unknown>>> = []
    const put = async (file: string, effect: Parameters<typeof Disk.written>[0]) =>
      Fs.writeFileSync(Path.join(folder, file), (await Disk.written(effect)).get("/a")!)
    const samples = <A>(arbitrary: fc.Arbitrary<A>): ReadonlyArray<readonly [number, A]> =>
      fc.sample(arbitrary, { numRuns: 40, seed: 7 }).map((value, index) => [index, value])

    for (const [index, given] of samples(tensors(...types))) {
      await put(`${index}.pth`, TorchFile.write("/a", given))
      manifest.push({ file: `${index}.pth`, format: "torch", tensors: described(given) })
      const sources = given.map(({ bytes, name, sizes, type }) => ({ name, dtype: type, shape: sizes, bytes }))
      await put(`${index}.safetensors`, Safetensors.write("/a", sources))
      manifest.push({ file: `${index}.safetensors`, format: "safetensors", tensors: described(given) })
    }
    const metadata = new Map<string, Gguf.Value>([
      ["general.architecture", { type: "string", value: "llama" }],
      ["llama.context_length", { type: "u32", value: 4096 }],
      ["llama.attention.layer_norm_rms_epsilon", { type: "f32", value: 2 ** -17 }],
      ["tokenizer.ggml.tokens", { type: "strings", values: ["<unk>", "▁a", "\u{1F999}", ""] }],
      ["tokenizer.ggml.scores", { type: "numbers", values: Float32Array.of(0, -1.5, -2, 3) }],
      ["tokenizer.ggml.token_type", { type: "numbers", values: Int32Array.of(2, 1, 1, 6) }],
      ["tokenizer.ggml.add_bos_token", { type: "bool", value: true }],
      ["large", { type: "u64", value: 2n ** 53n }]
    ])
    const contents = {
      "general.architecture": "llama", "llama.context_length": 4096, "llama.attention.layer_norm_rms_epsilon": 2 ** -17,
      "tokenizer.ggml.tokens": ["<unk>", "▁a", "\u{1F999}", ""], "tokenizer.ggml.scores": [0, -1.5, -2, 3],
      "tokenizer.ggml.token_type": [2, 1, 1, 6], "tokenizer.ggml.add_bos_token": true, large: 2 ** 53
    }
    const weights = fc.array(fc.float({ min: -8, max: 8, noNaN: true }), { minLength: 64, maxLength: 64 })
    for (const [index, [given, values]] of samples(fc.tuple(tensors("F32", "F16", "I32"), weights))) {
      const blocks = Quantize.blocksOfQ8(Float32Array.from(values))
      const sources: ReadonlyArray<TensorFile.Source> = [
        ...given.filter(({ name, sizes }) => name !== "q8" && sizes.length > 0),
        { name: "q8", type: "Q8_0", sizes: [2, 32], bytes: blocks }
      ]
      await put(`${index}.gguf`, Gguf.write("/a", metadata, sources))
      const read = await Disk.run(
        { "/a": new Uint8Array(Fs.readFileSync(Path.join(folder, `${index}.gguf`))) },
        Effect.flatMap(Gguf.open("/a"), (file) => file.read("q8"))
      )
      manifest.push({
        file: `${index}.gguf`, format: "gguf", tensors: described(sources), metadata: contents, reals: { q8: [...read] }
      })
    }
    Fs.writeFileSync(Path.join(folder, "manifest.json"), JSON.stringify(manifest))
    const answer = execFileSync(python!, [script, folder], { maxBuffer: 2 ** 30 }).toString("utf8").trim()
    assert.strictEqual(answer, "120 files agree")
    Fs.rmSync(folder, { recursive: true })
  })
})
