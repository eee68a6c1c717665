/**
 * Parity with Hugging Face: what transformers saved, in each way of sharing keys and values and each width, in one file
 * or shards, tied or not, is opened and has its scores. The fixtures were made by make/checkpoint.py.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import * as Safetensors from "../../src/format/Safetensors.ts"
import * as Checkpoint from "../../src/llama/Checkpoint.ts"
import { agree } from "../law/Evaluation.ts"
import { scoresOf } from "../llama/checkpoints.ts"

const folder = (name: string): string => fileURLToPath(new URL(`checkpoint/${name}`, import.meta.url))

/** Hugging Face computes in float32, the reference in float64. */
const tolerance = 1e-5

describe("transformers' folders", () => {
  const kinds: ReadonlyArray<readonly [name: string, type: string]> = [
    ["mha-f32", "F32"], ["mqa-f16", "F16"], ["gqa-bf16-sharded", "BF16"], ["gqa-f32-tied", "F32"]
  ]
  it.effect.each(kinds)("%s has its scores", ([name, type]) =>
    Effect.gen(function*() {
      const { tensors } = yield* Safetensors.read(`${folder(name)}/expected.safetensors`)
      const bytesOf = (key: string) => new Uint8Array(tensors.find(({ name }) => name === key)!.bytes).buffer
      const checkpoint = yield* Checkpoint.open(folder(name))
      assert.strictEqual(checkpoint.format, "huggingface")
      assert.strictEqual(checkpoint.isTied, name.endsWith("tied"))
      assert.isTrue([...checkpoint.parameters.values()].every((stored) => stored.type === type))
      const scores = yield* scoresOf(checkpoint, [...new Int32Array(bytesOf("ids"))], { batch: 2, position: 9 })
      agree(scores, [...new Float32Array(bytesOf("logits"))], tolerance, name)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
