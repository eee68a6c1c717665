import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, FileSystem, Layer } from "effect"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import { EngineError } from "../../src/backend/onnx/index.ts"
import * as BackendChoice from "../../src/cli/BackendChoice.ts"

const absent = new EngineError({ reason: "MissingLibrary", operation: "layer", values: [] })

const only = (...there: ReadonlyArray<BackendChoice.Name>) =>
  (name: BackendChoice.Name): Layer.Layer<Backend, EngineError> =>
    there.includes(name) ? Reference.layer : Layer.effect(Backend, Effect.fail(absent))

describe("the backend that is taken unasked", () => {
  it.effect("is the first that starts, fastest first, and never WebGPU", () => Effect.gen(function*() {
    const taken = (...there: ReadonlyArray<BackendChoice.Name>) => BackendChoice.fastest(undefined, only(...there))
    assert.strictEqual(yield* taken("tensorflow-wasm", "onnx", "onnx-webgpu"), "onnx")
    assert.strictEqual(yield* taken("onnx", "onnx-cuda"), "onnx-cuda")
    assert.strictEqual(yield* taken("tensorflow-wasm", "reference"), "tensorflow-wasm")
    const error = yield* Effect.flip(taken("onnx-webgpu", "reference", "tensorflow-cpu"))
    assert.strictEqual(error.message, [
      "no engine starts, so only --backend reference works here, which is slow",
      ...BackendChoice.order.map((name) => `${name}: ${absent.message}`)
    ].join("\n"))
  }))
  it.effect("takes as many threads as a larger machine may have had, and no thousands", () => Effect.gen(function*() {
    yield* BackendChoice.requireThreads(undefined, 2)
    yield* BackendChoice.requireThreads(64, 2)
    yield* BackendChoice.requireThreads(128, 32)
    assert.strictEqual((yield* Effect.flip(BackendChoice.requireThreads(65, 2))).message, "--threads 65 is more than " +
      "the 64 that are allowed here: this machine computes with 2 at once, and more than that wait for one another\n" +
      "  Give --threads 2.")
    assert.include((yield* Effect.flip(BackendChoice.requireThreads(129, 32))).message, "than the 128 that")
  }))
  it.effect("is refused more threads than it can have, and is told none in vain", () => Effect.gen(function*() {
    const started = (name: BackendChoice.Name, threads: number) =>
      Effect.scoped(Layer.build(BackendChoice.layer(name, threads)))
    for (const name of ["reference", "tensorflow-cpu", "tensorflow-wasm", "tensorflow-webgpu"] as const) {
      const error = yield* Effect.flip(started(name, 4))
      assert.strictEqual(error._tag, "OneThreadError")
      assert.strictEqual(error.message, `--threads 4: --backend ${name} computes with one thread, and cannot with ` +
        "more\n  Give --threads 1, or another --backend: cria doctor tells how many threads each has.")
    }
    yield* started("reference", 1)
    for (const name of ["onnx", "onnx-node", "onnx-webgpu", "onnx-cuda"] as const) { // it reaches the engine
      assert.include((yield* Effect.flip(started(name, 0))).message, "\n  threads: 0\n", name)
    }
    const reasons = yield* Effect.flip(BackendChoice.fastest(4, (name) =>
      name === "tensorflow-wasm" ? BackendChoice.layer(name, 4) : only()(name)))
    assert.include(reasons.message, "\ntensorflow-wasm: --threads 4: ")
  }))
  it.effect("tells TensorFlow's library how many threads to take", () => Effect.gen(function*() {
    const { makeDirectory, makeTempDirectoryScoped, writeFileString } = yield* FileSystem.FileSystem
    const folder = yield* makeTempDirectoryScoped()
    const place = `${folder}/node_modules/@tensorflow/tfjs-node`
    yield* makeDirectory(place, { recursive: true })
    yield* writeFileString(`${place}/package.json`, `{"name": "@tensorflow/tfjs-node", "main": "index.cjs"}`)
    yield* writeFileString(`${place}/index.cjs`, `exports.told = process.env.TF_NUM_INTRAOP_THREADS
const nothing = () => {}
exports.version_core = "told " + exports.told
exports.engine = () => ({ registry: {}, findBackendFactory: () => () => ({}), setBackend: nothing, runKernel: nothing,
  makeTensor: nothing, tidy: nothing, memory: nothing })`)
    const kept = ["CRIA_MODULES", "TF_NUM_INTRAOP_THREADS"].map((name) => [name, process.env[name]] as const)
    yield* Effect.addFinalizer(() => Effect.sync(() => {
      for (const [name, value] of kept) {
        if (value === undefined) delete process.env[name]
        else process.env[name] = value
      }
    }))
    process.env["CRIA_MODULES"] = folder
    const { capabilities, version } = yield* Effect.provide(Backend, BackendChoice.layer("tensorflow-node", 3))
    assert.strictEqual(capabilities.threads, 3)
    assert.include(version, "told 3") // when it was loaded
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
  it.effect("finds packages in the folder that CRIA_MODULES names", () => Effect.gen(function*() {
    const { message } = yield* Effect.flip(Layer.build(BackendChoice.layer("tensorflow-node-gpu", undefined)))
    assert.include(message, "Cannot find package '@tensorflow/tfjs-node-gpu', neither beside Cria nor in /nowhere\n")
  }).pipe(
    Effect.scoped, Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ CRIA_MODULES: "/nowhere" })))
  ))
  it.live("is one that computes here", () => Effect.gen(function*() {
    const name = yield* BackendChoice.fastest(3) // no default of any machine with two or four cores
    assert.include(["onnx", "onnx-cuda"], name)
  }))
})
