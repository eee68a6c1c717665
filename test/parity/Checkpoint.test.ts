/**
 * Parity with Hugging Face: what transformers saved, in each way of sharing keys and values and each width, in one file
 * or shards, tied or not, is opened and has its scores; and so have such weights in Meta's shards. The fixtures were
 * made by make/checkpoint.py and make/meta.py.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import * as Safetensors from "../../src/format/Safetensors.ts"
import * as Checkpoint from "../../src/llama/Checkpoint.ts"
import { agree } from "../law/Evaluation.ts"
import { scoresOf } from "../llama/checkpoints.ts"

const folder = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** Hugging Face computes in float32, the reference in float64. */
const tolerance = 1e-5

/** Opens a folder whose parameters are all of a type, and compares its scores with those that stand beside it. */
const agreeing = Effect.fnUntraced(function*(name: string, type: string) {
  const { tensors } = yield* Safetensors.read(`${folder(name)}/expected.safetensors`)
  const bytesOf = (key: string) => new Uint8Array(tensors.find(({ name }) => name === key)!.bytes).buffer
  const checkpoint = yield* Checkpoint.open(folder(name))
  assert.isTrue([...checkpoint.parameters.values()].every((stored) => stored.type === type))
  const scores = yield* scoresOf(checkpoint, [...new Int32Array(bytesOf("ids"))], { batch: 2, position: 9 })
  agree(scores, [...new Float32Array(bytesOf("logits"))], tolerance, name)
  return checkpoint
})

describe("transformers' folders", () => {
  const kinds: ReadonlyArray<readonly [name: string, type: string]> = [
    ["mha-f32", "F32"], ["mqa-f16", "F16"], ["gqa-bf16-sharded", "BF16"], ["gqa-f32-tied", "F32"]
  ]
  it.effect.each(kinds)("%s has its scores", ([name, type]) =>
    Effect.gen(function*() {
      const { format, isTied } = yield* agreeing(`checkpoint/${name}`, type)
      assert.deepStrictEqual([format, isTied], ["huggingface", name.endsWith("tied")])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})

describe("Meta's folders", () => {
  const kinds: ReadonlyArray<readonly [name: string, type: string]> = [
    ["mha-f32-4", "F32"], ["gqa-f16-2", "F16"], ["gqa-bf16-1", "BF16"]
  ]
  it.effect.each(kinds)("%s has its scores, of as many shards", ([name, type]) =>
    Effect.gen(function*() {
      const { format } = yield* agreeing(`meta/${name}`, type)
      assert.strictEqual(format, "meta")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
