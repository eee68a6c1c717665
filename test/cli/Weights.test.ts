import { assert, describe, it } from "@effect/vitest"
import type { Capabilities } from "../../src/backend/Backend.ts"
import * as Weights from "../../src/cli/Weights.ts"
import * as Config from "../../src/llama/Config.ts"

const { "7B": large, "24M": small } = Config.presets

const onnx: Capabilities = { precisions: ["f32", "f64"], kernels: ["contractCodes"], threads: 2 }
const reference: Capabilities = { precisions: ["f64"], kernels: [], threads: 1 }

const plan = (width: Weights.Width, memory: number, capabilities = onnx, config: Config.Config = large) => {
  const { bytes, packedBytes, ...others } = Weights.plan(config, width, capabilities, memory)
  return { gigabytes: [bytes, packedBytes].map((each) => Number((each / 1e9).toFixed(2))), ...others }
}

describe("weights", () => {
  it("take memory for themselves and for what is packed of them", () => {
    assert.deepStrictEqual(plan("4-bit", 16e9), { gigabytes: [4.65, 4.96], frozen: true })
    assert.deepStrictEqual(plan("8-bit", 16e9), { gigabytes: [7.54, 7.43], frozen: true })
    assert.deepStrictEqual(plan("8-bit", 16e9, reference), { gigabytes: [8.48, 0], frozen: true })
  })
  it("of float32 are frozen where memory holds both, or where they are small", () => {
    assert.deepStrictEqual(plan("f32", 64e9), { gigabytes: [26.95, 26.43], frozen: true })
    assert.deepStrictEqual(plan("f32", 32e9), { gigabytes: [26.95, 0], frozen: false })
    assert.deepStrictEqual(plan("f32", 1e8, onnx, small), { gigabytes: [0.1, 0.06], frozen: true })
    assert.deepStrictEqual(plan("f32", 64e9, reference, large), { gigabytes: [53.91, 0], frozen: false })
  })
  it("in codes are said to be slow where programs cannot hold them", () => {
    const limited = { ...onnx, constantBytes: 2 ** 31 }
    assert.deepStrictEqual(plan("4-bit", 64e9, limited), {
      gigabytes: [4.65, 0], frozen: false,
      warning: "4-bit weights of 4.7 GB are not built into the programs, which hold 2.1 GB here: ONNX Runtime " +
        "unpacks them anew for every token, which takes long"
    })
    assert.deepStrictEqual(plan("f32", 64e9, limited), { gigabytes: [26.95, 0], frozen: false })
    assert.isTrue(plan("8-bit", 64e9, limited, small).frozen)
  })
})
