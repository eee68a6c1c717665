/**
 * The same pretraining run on every backend that starts: the losses, the gradient norms and the validation are those of
 * the float64 reference.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer, Stream } from "effect"
import { existsSync } from "node:fs"
import type { Backend } from "../../src/backend/Backend.ts"
import * as BackendChoice from "../../src/cli/BackendChoice.ts"
import * as Stories from "../../src/data/Stories.ts"
import * as TokenStore from "../../src/data/TokenStore.ts"
import * as Config from "../../src/llama/Config.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Pretrain from "../../src/recipe/Pretrain.ts"
import * as Journal from "../../src/store/Journal.ts"
import * as SnapshotStore from "../../src/store/SnapshotStore.ts"
import { distance } from "../../src/testing/Computation.ts"
import { composed } from "../law/Tolerance.ts"

const swiftShader = "/usr/lib/chromium/vk_swiftshader_icd.json" // where Debian's chromium-common puts it
if (existsSync(swiftShader)) process.env["VK_DRIVER_FILES"] ??= swiftShader

const steps = 4 * Number(process.env["CRIA_LAW_RUNS"] ?? 1)

const config: Pretrain.Config = {
  ...Pretrain.defaults,
  model: Config.make({
    vocabSize: 40, embedSize: 8, layerCount: 2, headCount: 2, kvHeadCount: 1, hiddenSize: 16, contextLength: 12
  }),
  sequenceLength: 12, batchSize: 4, microBatchCount: 2, stepCount: steps, warmupSteps: 1, learningRate: 0.03,
  evaluateEvery: steps / 2, snapshotEvery: steps
}

const encoder = {
  encode: (text: string) => [...text].map((letter) => 1 + letter.charCodeAt(0) % 39), bosId: 0, vocabSize: 40
}
const data = {
  train: TokenStore.fromTexts(Array.from({ length: 12 }, (_, i) => Stories.story(1, "train", i)), encoder),
  validation: TokenStore.fromTexts([Stories.story(1, "validation", 0).slice(0, 100)], encoder)
}

/** The curves of a run: every number that its journal shows. */
const curves = Effect.fnUntraced(function*(backend: Layer.Layer<Backend, BackendChoice.Absence>) {
  const environment: Pretrain.Origin["environment"] = {
    engine: { name: "any", version: "1" }, cpu: { model: "", features: [] }, threadCount: 1
  }
  const folder = yield* Effect.flatMap(FileSystem.FileSystem, (files) => files.makeTempDirectoryScoped())
  const curve = { loss: new Array<number>(), norm: new Array<number>(), validation: new Array<number>() }
  yield* Pretrain.pretrain(config, { data, environment, tokenizerHash: "letters", resume: "never" }).pipe(
    Stream.runForEach((event) => Effect.sync(() => {
      if (event._tag === "Stepped") {
        curve.loss.push(event.loss)
        curve.norm.push(event.gradientNorm)
      }
      if (event._tag === "Evaluated") curve.validation.push(event.loss)
    })),
    Effect.provide([
      backend, Transformer.layer, Journal.layer().pipe(Layer.provideMerge(SnapshotStore.layer({ folder, keepLast: 1 })))
    ])
  )
  return curve
})

const layerOf = (name: BackendChoice.Name) => BackendChoice.layer(name, name.startsWith("onnx") ? 2 : undefined)

const run = (name: BackendChoice.Name) =>
  curves(layerOf(name)).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

const reference = Effect.runPromise(run("reference"))

/** Why a backend is not tried. */
const why = async (name: BackendChoice.Name): Promise<string | undefined> => {
  if (name.endsWith("webgpu") && process.env["CRIA_LAW_RUNS"] === undefined) {
    return "a card in software takes half a minute: CRIA_LAW_RUNS=1 tries it"
  }
  return await Effect.runPromise(Effect.scoped(Layer.build(layerOf(name))).pipe(
    Effect.as(undefined), Effect.catch(({ message }) => Effect.succeed(message.replace(/\s+/g, " ")))
  ))
}

describe("a small pretraining run", async () => {
  for (const name of BackendChoice.names.filter((name) => name !== "reference")) {
    const title = `has the curves of the reference on ${name}`
    const reason = await why(name)
    if (reason !== undefined) {
      it.skip(`${title} (${reason})`)
      continue
    }
    it.live(title, () => Effect.gen(function*() {
      const expected = yield* Effect.promise(() => reference)
      const found = yield* run(name)
      assert.strictEqual(expected.loss.length, config.stepCount)
      assert.isBelow(expected.loss.at(-1)!, expected.loss[0]! - 0.1)
      for (const key of ["loss", "norm", "validation"] as const) {
        const apart = distance(expected[key], found[key])
        assert.isAtMost(apart, composed, `${key}\n${expected[key].join(" ")}\n${found[key].join(" ")}`)
        if (process.env["CRIA_SHOW"] !== undefined) console.log(name, key, apart)
      }
    }))
  }
})
