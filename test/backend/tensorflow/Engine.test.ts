/**
 * An engine that does not start says which, why, and what to install; those that start stand side by side.
 */
import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { Backend } from "../../../src/backend/Backend.ts"
import * as Engine from "../../../src/backend/tensorflow/Engine.ts"
import { primitives } from "../../../src/backend/tensorflow/Composition.ts"
import * as TensorFlow from "../../../src/backend/tensorflow/TensorFlow.ts"
import { TensorFlowError } from "../../../src/backend/tensorflow/TensorFlowError.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"

/** Why an engine does not start where a package throws this when it is loaded. */
const failing = (name: Engine.Name, message: string) =>
  Effect.flip(Engine.start(name, { load: () => Promise.reject(new Error(message)) }))

/** A registry whose engine starts as `factory` does. */
const registryOf = (factory: () => unknown): object => ({
  registry: {}, findBackendFactory: () => factory,
  ...Object.fromEntries(["setBackend", "runKernel", "makeTensor", "tidy", "memory"].map((name) => [name, () => {}]))
})

describe("an engine that does not start", () => {
  it.effect("lacks a package: it says which, and how to install it", () => Effect.gen(function*() {
    const error = yield* failing("wasm", "Cannot find package '@tensorflow/tfjs-core' imported from here")
    assert.strictEqual(error.reason, "MissingPackage")
    assert.strictEqual(error.message, [
      "TensorFlow.js, engine wasm: its packages must be installed",
      "Cannot find package '@tensorflow/tfjs-core'",
      "They are optional peers of Cria: install them beside it, all of one version.",
      "npm install @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0"
    ].join("\n  "))
  }))

  it.effect("lacks a package here and in another folder", () => Effect.gen(function*() {
    const error = yield* Effect.flip(Engine.start("node-gpu", { load: Engine.loadFrom("/nowhere") }))
    assert.strictEqual(error.reason, "MissingPackage")
    assert.deepStrictEqual(error.values, [
      "Cannot find package '@tensorflow/tfjs-node-gpu', neither beside Cria nor in /nowhere"
    ])
  }))

  it.effect("lacks the package that gives Node a GPU", () => Effect.gen(function*() {
    const error = yield* failing("webgpu", "Cannot find package 'webgpu' imported from here")
    assert.strictEqual(error.reason, "MissingPackage")
    assert.include(error.message,
      "npm install @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-backend-webgpu@4.22.0 webgpu")
  }))

  it.effect("lacks a native library", () => Effect.gen(function*() {
    for (const message of [
      "The Node.js native addon module (tfjs_binding.node) can not be found at path: lib/napi-v8",
      "libtensorflow.so.2: cannot open shared object file: No such file or directory"
    ]) {
      const error = yield* failing("node-gpu", message)
      assert.strictEqual(error.reason, "MissingLibrary")
      assert.include(error.message, "TensorFlow.js, engine node-gpu: its native library must load\n")
      assert.include(error.message, "`npm rebuild @tensorflow/tfjs-node-gpu --ignore-scripts=false`")
      assert.include(error.message, "docs/guide/backends.md")
      assert.include(error.message, message)
    }
  }))

  /** Why WebGPU does not start over a `gpu` of one's own. */
  const withoutCard = (gpu: object, registry: object = {}) =>
    Effect.flip(Engine.start("webgpu", {
      load: (name) =>
        Promise.resolve(name === "webgpu" ? { create: () => gpu, globals: {} } : { engine: () => registry })
    })).pipe(Effect.ensuring(Effect.sync(() => {
      const navigator: object = Reflect.get(globalThis, "navigator")
      Reflect.deleteProperty(navigator, "gpu") // which starting it put there
    })))
  const drivers = "WebGPU needs a Vulkan driver, Metal or Direct3D 12. On a machine without a GPU, SwiftShader will do:"
    + " install it and name its ICD file in the variable VK_DRIVER_FILES."

  it.effect("finds no card", () => Effect.gen(function*() {
    const none = withoutCard({ requestAdapter: () => Promise.resolve(null) })
    for (const [environment, said] of [[{}, "is not set"], [{ VK_DRIVER_FILES: "/a.json" }, "is /a.json"]] as const) {
      const error = yield* Effect.provide(none, ConfigProvider.layer(ConfigProvider.fromUnknown(environment)))
      assert.strictEqual(error.reason, "NoDevice")
      assert.strictEqual(error.message, [
        "TensorFlow.js, engine webgpu: there must be a device that it can use", "WebGPU found no adapter",
        `VK_DRIVER_FILES ${said}`, drivers
      ].join("\n  "))
    }
  }))

  it.effect("has a card that gives no device", () => Effect.gen(function*() {
    const error = yield* withoutCard(
      { requestAdapter: () => Promise.resolve({}) }, registryOf(() => Promise.reject(new Error("device lost")))
    )
    assert.strictEqual(error.reason, "NoDevice")
    assert.strictEqual(error.message, [
      "TensorFlow.js, engine webgpu: there must be a device that it can use", "device lost", drivers
    ].join("\n  "))
  }))

  it.effect("would compute on the processor, and was asked for a card", () => Effect.gen(function*() {
    const load = (isUsingGpuDevice: boolean): Engine.Load => () =>
      Promise.resolve({ engine: () => registryOf(() => ({ isUsingGpuDevice })), version_core: "4.22.0" })
    const error = yield* Effect.flip(Engine.start("node-gpu", { load: load(false) }))
    assert.strictEqual(error.reason, "NoDevice")
    assert.strictEqual(error.message, [
      "TensorFlow.js, engine node-gpu: there must be a device that it can use",
      "TensorFlow's library found none, and would compute on the processor",
      "It needs an NVIDIA card with its driver, CUDA 11.2 and cuDNN 8.1, of which TensorFlow tells on stderr what it"
        + " did not find. The engine node is the same library on the processor."
    ].join("\n  "))
    assert.strictEqual((yield* Engine.start("node-gpu", { load: load(true) })).name, "node-gpu")
    assert.strictEqual((yield* Engine.start("node", { load: load(false) })).name, "node")
  }))

  it.effect("counts the threads of TensorFlow's library, which takes all cores unless it is told", () =>
    Effect.gen(function*() {
      const load: Engine.Load = () => Promise.resolve({ engine: () => registryOf(() => ({})) })
      const threads = (environment: object) =>
        Effect.map(Engine.start("node", { load }), (engine) => engine.threads).pipe(
          Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(environment)))
        )
      assert.strictEqual(yield* threads({}), availableParallelism())
      assert.strictEqual(yield* threads({ TF_NUM_INTRAOP_THREADS: "0" }), availableParallelism())
      assert.strictEqual(yield* threads({ TF_NUM_INTRAOP_THREADS: "3" }), 3)
      assert.strictEqual(yield* threads({ TF_NUM_INTRAOP_THREADS: "two" }), availableParallelism())
    }))

  it.effect("is no TensorFlow.js at all", () => Effect.gen(function*() {
    const error = yield* Effect.flip(Engine.start("cpu", { load: () => Promise.resolve({}) }))
    assert.strictEqual(error.reason, "NotStarted")
    assert.include(error.message, "@tensorflow/tfjs-core exports no engine\n")
    assert.include(error.message, "two copies of @tensorflow/tfjs-core")
  }))

  it("knows all reasons", () => {
    const { reason } = TensorFlowError.fields
    assert.deepStrictEqual(reason.literals, ["MissingPackage", "MissingLibrary", "NoDevice", "NotStarted"])
  })
})

describe("packages", () => {
  it("are those of Cria, and where it has none those of a folder", async () => {
    const folder = mkdtempSync(join(tmpdir(), "cria-modules-"))
    const write = (name: string, text: string) => {
      mkdirSync(join(folder, "node_modules", name), { recursive: true })
      writeFileSync(join(folder, "node_modules", name, "package.json"), JSON.stringify({ name, main: "index.cjs" }))
      writeFileSync(join(folder, "node_modules", name, "index.cjs"), text)
    }
    write("@tensorflow/tfjs-node-gpu", "exports.here = true")
    write("@tensorflow/tfjs-core", "exports.here = true")
    const load = Engine.loadFrom(folder)
    assert.propertyVal(await load("@tensorflow/tfjs-node-gpu"), "here", true)
    assert.notProperty(await load("@tensorflow/tfjs-core"), "here")
    rmSync(folder, { recursive: true })
  })
})

describe("engines side by side", () => {
  const add = Program.make(
    "add", { inputs: { x: Specification.real({ i: 2 }) }, state: { w: Specification.real({ i: 2 }) } },
    ({ x }, { w }) => ({ outputs: { y: T.add(w, x) }, state: { w: T.add(w, x) } })
  )
  const made = (layer: typeof TensorFlow.layerCpu) =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* add
      const cells = yield* backend.allocate(program.state)
      const { run } = yield* Effect.flatMap(backend.compile(program), ({ bind }) => bind(cells))
      return { run, cells, backend }
    }).pipe(Effect.provide(layer()))

  it.effect("each run their own programs, in turns, and refuse the cells of others", () => Effect.gen(function*() {
    const [cpu, wasm] = yield* Effect.all([made(TensorFlow.layerCpu), made(TensorFlow.layerWasm)], { concurrency: 2 })
    yield* Effect.forEach([1, 2, 3, 4], (x) => Effect.all([cpu.run({ x }), wasm.run({ x })], { concurrency: 2 }))
    assert.deepStrictEqual([...(yield* cpu.backend.read(cpu.cells)).w.elements], [10, 10])
    assert.deepStrictEqual([...(yield* wasm.backend.read(wasm.cells)).w.elements], [10, 10])
    const { message } = yield* Effect.flip(cpu.backend.read(wasm.cells))
    assert.include(message, "tensorflow-cpu, read: cell w [i: 2] was made by another backend")
  }).pipe(Effect.scoped))

  it("are named as drivers name a card", () => {
    const named = (adapterInfo: object) => Engine.deviceOf({ device: { adapterInfo } })
    assert.strictEqual(named({ device: "NVIDIA H100", description: "NVIDIA: 535.1" }), "NVIDIA H100, NVIDIA: 535.1")
    assert.strictEqual(named({ device: "", description: "SwiftShader driver 5.0.0" }), "SwiftShader driver 5.0.0")
    assert.isUndefined(named({ device: "" }))
    assert.isUndefined(Engine.deviceOf({}))
  })

  it.effect("say what they are", () => Effect.gen(function*() {
    const { capabilities, compile, name, version } = yield* Backend
    assert.deepStrictEqual([name, version], ["tensorflow-wasm", "TensorFlow.js 4.22.0 (wasm)"])
    assert.deepStrictEqual(
      capabilities, { precisions: ["f32"], kernels: [], threads: 1, primitives: primitives("wasm") }
    )
    const { message } = yield* Effect.flip(Effect.flatMap(add, (program) => compile(program, { precision: "f64" })))
    assert.include(message, "tensorflow-wasm, compile add: precision f64 is not one of f32")
  }).pipe(Effect.scoped, Effect.provide(TensorFlow.layerWasm())))
})
