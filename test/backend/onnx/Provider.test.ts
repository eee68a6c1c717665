/**
 * ONNX Runtime's providers keep the laws where they start; where not, the failure says what is missing and what to do.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { existsSync } from "node:fs"
import { Backend } from "../../../src/backend/Backend.ts"
import { layerCuda } from "../../../src/backend/onnx/Cuda.ts"
import { type EngineError, failure } from "../../../src/backend/onnx/EngineError.ts"
import { layerWebGpu } from "../../../src/backend/onnx/WebGpu.ts"
import * as Config from "../../../src/llama/Config.ts"
import * as Transformer from "../../../src/llama/Transformer.ts"
import * as Visibility from "../../../src/llama/Visibility.ts"
import { tokenCrossEntropy } from "../../../src/loss/CrossEntropy.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { tolerances } from "../../../src/testing/BackendLaws.ts"
import { contract } from "../Contract.ts"

const swiftShader = "/usr/lib/chromium/vk_swiftshader_icd.json" // where Debian's chromium-common puts it
if (existsSync(swiftShader)) process.env["VK_DRIVER_FILES"] ??= swiftShader

const providers: Readonly<Record<string, string>> = { layerWebGpu: "WebGPU", layerCuda: "CUDA" }

/** Why a layer does not start, if it does not. */
const absence = (layer: Layer.Layer<Backend, EngineError>): Promise<EngineError | undefined> =>
  Effect.runPromise(Effect.scoped(Layer.build(layer)).pipe(Effect.as(undefined), Effect.catch(Effect.succeed)))

const config = Config.make({
  vocabSize: 40, embedSize: 16, layerCount: 1, headCount: 2, hiddenSize: 24, contextLength: 8
})

const layers = { layerWebGpu, layerCuda }

describe("a provider that does not start", () => {
  it("lacks a module, and need not say who asked for it", () => {
    const cause = new Error("Cannot find 'koffi'\nRequire stack:\n- /a.js")
    const { values } = failure("MissingLibrary", "its C library", cause)
    assert.deepStrictEqual(values, ["Cannot find 'koffi'"])
  })
  const said = (name: string, cause: string) =>
    failure("MissingProvider", "its C library", `provider: ${name}`, "built into this library: cpu", new Error(cause))
      .message
  it("says what it found, in its own words, and what it needs", () => {
    const source = "/src/webgpu_context.cc:136 Initialize(const Config&)::<lambda()> status == Success was false. "
    assert.strictEqual(said("WebGPU", `${source}Failed to get an adapter: none\n`), [
      "ONNX Runtime, in its C library: a provider must be built into the library, and find a device with its driver",
      "provider: WebGPU", "built into this library: cpu", "Failed to get an adapter: none",
      "WebGPU needs a driver: Vulkan on Linux (on a machine without a card SwiftShader will do, whose .json the"
        + " variable VK_DRIVER_FILES names), Metal on macOS, Direct3D 12 on Windows.",
      "docs/guide/backends.md says what each needs."
    ].join("\n  "))
    assert.strictEqual(said("CUDA", "Failed to load shared library"), [
      "ONNX Runtime, in its C library: a provider must be built into the library, and find a device with its driver",
      "provider: CUDA", "built into this library: cpu", "Failed to load shared library",
      "CUDA needs Linux x64, a card, CUDA 12, cuDNN 9, and the provider's libraries: fetch them with"
        + " `npm rebuild onnxruntime-node --ignore-scripts=false`, or in a script name a library that has them"
        + " beside it, `layerCuda({ library })`.",
      "docs/guide/backends.md says what each needs."
    ].join("\n  "))
  })
})

for (const [name, make] of Object.entries(layers)) {
  const absent = await absence(make())
  describe(name, () => {
    if (absent !== undefined) {
      it.skip(`the laws were not tried, for it does not start: ${absent.message.split("\n").slice(1, -1).join(";")}`)
      it("says what is missing, and what to do", () => {
        assert.strictEqual(absent.reason, "MissingProvider")
        const rule = "ONNX Runtime, in its C library: a provider must be built into the library, and find a device"
        assert.include(absent.message, rule)
        assert.include(absent.message, `\n  provider: ${providers[name]}\n`)
        assert.include(absent.message, "docs/guide/backends.md")
      })
      return
    }
    contract(make(), tolerances.f32, { programs: 20, perOperation: 2, extremes: false })
    it.effect("computes in float32, on its device", () => Effect.gen(function*() {
      const { capabilities, version } = yield* Backend
      assert.include(version, `(koffi, ${capabilities.device})`)
      if (name === "layerWebGpu") assert.deepStrictEqual(capabilities.precisions, ["f32"])
    }).pipe(Effect.provide(make())))
    it.effect("alone it refuses what it would leave to the processor", () => Effect.gen(function*() {
      const backend = yield* Backend
      const compile = (f: (x: T.Tensor<"i" | "j">) => T.Tensor<"i" | "j">) => Effect.scoped(Effect.flatMap(
        Program.make("alone", { inputs: { x: Specification.real({ i: 8, j: 8 }) }, state: {} }, ({ x }) => ({
          outputs: { y: f(x) }
        })),
        (program) => backend.compile(program)
      ))
      yield* compile((x) => T.exp(T.multiply(x, 2)))
      if (name !== "layerWebGpu") return
      const error = yield* Effect.flip(compile((x) => T.sin(x)))
      assert.include(error.message, "onnxruntime, compile alone: ")
    }).pipe(Effect.provide(make({ isAlone: true }))))
    it.effect("alone it takes the gradients of a model", () => Effect.gen(function*() {
      const backend = yield* Backend
      const model = Transformer.llama(config)
      const ids = Specification.ids({ batch: 2, position: 8 })
      const program = yield* Program.make("gradients", {
        inputs: { ids, targets: ids },
        state: { parameters: model.specification, gradients: model.specification }
      }, ({ ids, targets }, { parameters }) => {
        const logits = model.logits(parameters, model.hidden(parameters, { ids, visibility: Visibility.causal }))
        const loss = T.mean(tokenCrossEntropy(logits, targets), ["batch", "position"])
        return { outputs: { loss }, state: { gradients: T.gradient(loss, parameters) } }
      })
      yield* Effect.scoped(backend.compile(program))
    }).pipe(Effect.provide(make({ isAlone: true }))))
  })
}
