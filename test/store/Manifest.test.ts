import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { createHash } from "node:crypto"
import * as Manifest from "../../src/store/Manifest.ts"

const manifest: Manifest.Manifest = {
  formatVersion: 1,
  step: 7,
  files: { "model.safetensors": { bytes: 12, sha256: "0f".repeat(32) } },
  configuration: { width: 2, rope: { theta: 10000 }, names: ["a", null, true] },
  dataCursor: 9,
  randomKeys: null,
  journal: { journal: 40, timing: 50 },
  environment: { engine: { name: "reference", version: "1" }, cpu: { model: "z80", features: ["a"] }, threadCount: 2 },
  dataHash: "d",
  tokenizerHash: "t",
  metrics: { "val/loss": 0.1 }
}
const summed = (text: string): readonly [Uint8Array, Uint8Array] => {
  const sum = createHash("sha256").update(text).digest("hex")
  return [new TextEncoder().encode(text), new TextEncoder().encode(`${sum}  manifest.json\n`)]
}
const damage = (text: string): Manifest.Damage => Result.getOrThrow(Result.flip(Manifest.decode(...summed(text))))

describe("Manifest", () => {
  it("is read back as it was written, and sha256sum could check it", () => {
    const { checksum, json } = Result.getOrThrow(Manifest.encode(manifest))
    assert.deepStrictEqual(Result.getOrThrow(Manifest.decode(json, checksum)), manifest)
    assert.deepStrictEqual(summed(new TextDecoder().decode(json)), [json, checksum])
  })

  it("of another format is refused by its version, whatever else it holds", () => {
    assert.deepStrictEqual(damage(`{"formatVersion":2,"new":"form"}`), {
      file: "manifest.json",
      expected: "format version 1",
      found: "format version 2"
    })
  })

  it("with a field missing, unknown or of another type is refused by the field's name", () => {
    const { step: _, ...stepless } = manifest
    for (const [fields, name] of [
      [stepless, "step"],
      [{ ...manifest, more: 1 }, "more"],
      [{ ...manifest, metrics: { "val/loss": "low" } }, "val/loss"],
      [{ ...manifest, files: { model: { bytes: 1, sha256: "short" } } }, "sha256"]
    ] as const) assert.include(damage(JSON.stringify(fields)).found, name)
    assert.strictEqual(damage("[").expected, "a manifest")
  })

  it("that JSON cannot hold is refused by the field's name", () => {
    for (const value of [NaN, Infinity]) {
      const error = Result.getOrThrow(Result.flip(Manifest.encode({ ...manifest, configuration: { rate: value } })))
      assert.include(error.message, `["configuration"]`)
    }
  })

  it("differences between saving and resuming name what differs, and how", () => {
    assert.deepStrictEqual(Manifest.differences(manifest, manifest), [])
    const environment = {
      engine: { name: "onnx", version: "2" },
      cpu: { model: "z81", features: ["a", "b"] },
      threadCount: 3
    }
    const here = { environment, dataHash: "D", tokenizerHash: "T" }
    assert.deepStrictEqual(Manifest.differences(manifest, here), [
      { field: "data", saved: `"d"`, here: `"D"` },
      { field: "tokenizer", saved: `"t"`, here: `"T"` },
      { field: "engine", saved: `{"name":"reference","version":"1"}`, here: `{"name":"onnx","version":"2"}` },
      { field: "processor", saved: `"z80"`, here: `"z81"` },
      { field: "processor features", saved: `["a"]`, here: `["a","b"]` },
      { field: "threads", saved: "2", here: "3" }
    ])
  })

  it("records the version of Node; one that was saved without is read, and says nothing of it", () => {
    const on = (node: string) => ({ ...manifest, environment: { ...manifest.environment, node } })
    const { checksum, json } = Result.getOrThrow(Manifest.encode(on("v20.1.0")))
    assert.deepStrictEqual(Result.getOrThrow(Manifest.decode(json, checksum)), on("v20.1.0"))
    assert.deepStrictEqual(Manifest.differences(on("v20.1.0"), on("v22.0.0")), [
      { field: "Node", saved: `"v20.1.0"`, here: `"v22.0.0"` }
    ])
    assert.deepStrictEqual(Manifest.differences(manifest, on("v22.0.0")), [])
  })
})
