/**
 * Parity with Hugging Face's Llama: tiny random models with as many key and value heads as query heads, and with half
 * as many. The fixtures were made by make/llama.py; they carry the versions that made them.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import * as Safetensors from "../../src/format/Safetensors.ts"
import { naming } from "../../src/llama/checkpoint/HuggingFaceModel.ts"
import { places } from "../../src/llama/checkpoint/Layout.ts"
import * as Config from "../../src/llama/Config.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { causal } from "../../src/llama/Visibility.ts"
import { tokenCrossEntropy } from "../../src/loss/CrossEntropy.ts"
import { maskedMean } from "../../src/loss/Mask.ts"
import { globalNorm } from "../../src/optimize/Clip.ts"
import type { Sizes } from "../../src/tensor/Node.ts"
import { isSpecification } from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { mapAs } from "../../src/tensor/Tree.ts"
import { agree, elements, evaluate, number } from "../law/Evaluation.ts"

/** float64 throughout, but Hugging Face's norms and rotary tables are float32. */
const tolerance = 1e-6

const read = (name: string) =>
  Effect.map(Safetensors.read(fileURLToPath(new URL(`llama/${name}`, import.meta.url))), ({ metadata, tensors }) => {
    const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]))
    const numbers = (path: string): ReadonlyArray<number> => {
      const { bytes, dtype } = byName.get(path)!
      const View = { F64: Float64Array, F32: Float32Array, I32: Int32Array }[dtype as "F64" | "F32" | "I32"]
      return Array.from(new View(new Uint8Array(bytes).buffer))
    }
    return { metadata, numbers, names: [...byName.keys()] }
  })

/** Hugging Face's name of a parameter, and the axes of its tensor in memory. */
const translate = (path: string, config: Config.Config): readonly [name: string, sizes: Sizes] => {
  const place = places(config, naming).find((place) => place.path === path)!
  return [place.name, place.theirs]
}

describe.each(["mha.safetensors", "gqa.safetensors"])("%s", (file) => {
  it.effect("has Hugging Face's scores, loss and gradients", () =>
    Effect.gen(function*() {
      const { metadata, names, numbers } = yield* read(file)
      const sizeOf = (key: string): number => Number(metadata[key])
      const config = Config.make({
        vocabSize: sizeOf("vocabSize"), embedSize: sizeOf("embedSize"), hiddenSize: sizeOf("hiddenSize"),
        layerCount: sizeOf("layerCount"), headCount: sizeOf("headCount"), kvHeadCount: sizeOf("kvHeadCount"),
        contextLength: sizeOf("contextLength")
      })
      const model = Transformer.llama(config)
      const used = new Set<string>()
      const parameters = mapAs<Transformer.LlamaParameters>()(model.specification, isSpecification, (_, path) => {
        const [name, sizes] = translate(path, config)
        used.add(name)
        return T.values(sizes, numbers(name))
      })
      const tokens = { batch: 2, position: 9 }
      const ids = T.ids(tokens, numbers("ids"))
      const mask = numbers("mask")
      const { gradients, logits, loss, norm } = evaluate(() => {
        const logits = model.logits(parameters, model.hidden(parameters, { ids, visibility: causal }))
        const losses = tokenCrossEntropy(logits, T.ids(tokens, numbers("targets")))
        const loss = maskedMean(losses, T.values(tokens, mask), T.constant(mask.reduce((sum, x) => sum + x, 0)))
        const gradients = T.gradient(loss, parameters)
        return { logits, loss, gradients, norm: globalNorm(gradients) }
      })
      agree(elements(logits, ["batch", "position", "vocab"]), numbers("logits"), tolerance, "logits")
      agree([number(loss)], numbers("loss"), tolerance, "loss")
      mapAs()(gradients, isValues, (values, path) => {
        const [name, sizes] = translate(path, config)
        agree(elements(values, Object.keys(sizes)), numbers(`gradient.${name}`), tolerance, `gradient of ${path}`)
      })
      const theirs = names.filter((name) => name.startsWith("gradient."))
      assert.sameMembers([...used].map((name) => `gradient.${name}`), theirs)
      const squares = theirs.flatMap((name) => numbers(name)).reduce((sum, x) => sum + x * x, 0)
      agree([number(norm)], [Math.sqrt(squares)], tolerance, "norm")
    }).pipe(Effect.provide(NodeServices.layer)))
})

type Some = Parameters<typeof elements>[0]

const isValues = (value: unknown): value is Some => typeof value === "object" && value !== null && "~values" in value
