/**
 * Parity with llama2.c: its model of 260,032 parameters, trained on stories, gives the scores and the greedy text that
 * its own program gives.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Config from "../../src/llama/Config.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { causal } from "../../src/llama/Visibility.ts"
import type { Sizes } from "../../src/tensor/Node.ts"
import { count } from "../../src/tensor/Node.ts"
import { isSpecification } from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { mapAs } from "../../src/tensor/Tree.ts"
import { agree, elements, evaluate } from "../law/Evaluation.ts"

const folder = process.env["CRIA_TEST_DATA"]

/** Reads llama2.c's first format: seven sizes, then tensor after tensor, each of all layers together. */
const read = (path: string) => {
  const file = Fs.readFileSync(path)
  const buffer = new Uint8Array(file).buffer
  const [embed = 0, hidden = 0, layerCount = 0, headCount = 0, kvHead = 0, vocab = 0, contextLength = 0] =
    new Int32Array(buffer, 0, 7)
  const config = Config.make({
    vocabSize: vocab, embedSize: embed, layerCount, headCount, kvHeadCount: kvHead, hiddenSize: hidden, contextLength
  })
  const plane = config.headSize / 2
  const head = { kvHead, plane, part: 2 } // Meta's order: the parts of a plane lie side by side
  const heads = { kvHead, group: headCount / kvHead, plane, part: 2 }
  const order: ReadonlyArray<readonly [path: string, sizes: Sizes]> = [
    ["attentionNorm.gain", { embed }],
    ["attention.query", { ...heads, embed }],
    ["attention.key", { ...head, embed }],
    ["attention.value", { ...head, embed }],
    ["attention.output", { embed, ...heads }],
    ["feedForwardNorm.gain", { embed }],
    ["feedForward.gate", { hidden, embed }],
    ["feedForward.down", { embed, hidden }],
    ["feedForward.up", { hidden, embed }]
  ]
  const tensors = new Map<string, T.Any>()
  let offset = 28
  const take = (name: string, sizes: Sizes): void => {
    tensors.set(name, T.values(sizes, new Float32Array(buffer, offset, count(sizes))))
    offset += 4 * count(sizes)
  }
  take("embedding", { vocab, embed })
  for (const [name, sizes] of order) {
    for (let layer = 0; layer < layerCount; layer++) take(`block.${layer}.${name}`, sizes)
  }
  take("norm.gain", { embed })
  tensors.set("head", tensors.get("embedding")!) // tied
  return { config, tensors, rest: file.length - offset }
}

describe("llama2.c's stories260K", () => {
  it.skipIf(folder === undefined)("is read to its end and tells the story (needs CRIA_TEST_DATA)", () => {
    const { config, rest, tensors } = read(`${folder}/stories260K.bin`)
    assert.deepStrictEqual(config, Config.presets.stories260K)
    assert.strictEqual(rest, 2 * 4 * config.contextLength * config.headSize / 2) // tables of cosines and sines
    const model = Transformer.llama(config)
    const parameters = mapAs<Transformer.LlamaParameters>()(model.specification, isSpecification, (_, path) =>
      tensors.get(path))
    const story = [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317]
    const { logits, total } = evaluate(() => {
      const ids = T.ids({ batch: 1, position: story.length }, story)
      const logits = model.logits(parameters, model.hidden(parameters, { ids, visibility: causal }))
      return { logits, total: logits.pipe(T.logSumExp("vocab")) }
    })
    const scores = elements(logits, ["position", "vocab", "batch"])
    const row = (position: number) => scores.slice(512 * position, 512 * (position + 1))
    agree(row(0).slice(0, 4), [-6.222914, 8.404342, -6.223739, -6.222544], 1e-6)
    agree([row(0)[403]!, elements(total, ["position", "batch"])[0]!], [17.023515, 17.267259], 1e-6)
    const greedy = story.map((_, position) => row(position).indexOf(Math.max(...row(position))))
    assert.deepStrictEqual(greedy.slice(0, -1), story.slice(1))
  })
})
