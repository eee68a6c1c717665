import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer } from "effect"
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
