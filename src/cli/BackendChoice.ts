/**
 * The backends that the command line can choose: their names, their layers, and which one is taken unasked.
 *
 * Unasked, the first that starts is taken, in an order that is thought to be fastest first: a card with ONNX Runtime's
 * CUDA provider, then ONNX Runtime and TensorFlow's library on the processor, then WebAssembly. The last three are
 * ordered by a training step of a million parameters on two cores, on a busy machine; CUDA was never run, and is first
 * unmeasured. WebGPU is never taken unasked: a device in software is slower than the processor, and which it is the
 * engine does not say.
 *
 * Packages of TensorFlow.js that are not installed beside Cria are taken from the folder that CRIA_MODULES names.
 *
 * From     Cria's own; docs/log.md has the measurements.
 * Checked  test/cli/BackendChoice.test.ts.
 *
 * @module
 */
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Backend } from "../backend/Backend.ts"
import * as OnnxRuntime from "../backend/onnx/index.ts"
import * as Reference from "../backend/Reference.ts"
import * as TensorFlow from "../backend/tensorflow/index.ts"
import * as Host from "./Host.ts"
import { backendNames } from "./Settings.ts"

/** The name of a backend, as `--backend` takes it. */
export type Name = typeof backendNames[number]

/** Why a backend does not start. */
export type Absence = OnnxRuntime.EngineError | TensorFlow.TensorFlowError | OneThreadError

type Start = (threads: number | undefined) => Layer.Layer<Backend, Absence>

/** A backend that can be chosen. */
export interface Choice {
  readonly start: Start
  /** What it is, in a line. */
  readonly what: string
  /** Where it was tested, and where it never was. */
  readonly ran: string
}

const onnx = (threads: number | undefined) => threads === undefined ? {} : { threads }

/** More than one thread is asked of a backend that has one. */
export class OneThreadError extends Schema.TaggedError<OneThreadError>()("OneThreadError", {
  backend: Schema.String,
  threads: Schema.Int
}) {
  override get message() {
    return `--threads ${this.threads}: --backend ${this.backend} computes with one thread, and cannot with more\n` +
      "  Give --threads 1, or another --backend: cria doctor tells how many threads each has."
  }
}

/** A backend that has one thread. */
const alone = (name: Name, layer: Layer.Layer<Backend, Absence>): Start => (threads = 1) =>
  threads === 1 ? layer : Layer.effect(Backend, Effect.fail(new OneThreadError({ backend: name, threads })))

/** A layer that finds its packages beside Cria or in the folder that CRIA_MODULES names. */
const tensorFlow = (layer: typeof TensorFlow.layerNode): Layer.Layer<Backend, Absence> =>
  Layer.unwrap(Effect.map(
    Effect.orDie(Config.option(Config.String("CRIA_MODULES"))),
    Option.match({ onNone: () => layer(), onSome: (folder) => layer({ load: TensorFlow.loadFrom(folder) }) })
  ))

/** TensorFlow's library, which reads how many threads it is to have from the environment, when it is loaded. */
const library = (layer: typeof TensorFlow.layerNode): Start => (threads) =>
  threads === undefined ? tensorFlow(layer) : Layer.unwrap(Effect.sync(() => {
    process.env["TF_NUM_INTRAOP_THREADS"] = String(threads) // an edge: native code takes it from the process alone
    return Layer.provide(tensorFlow(layer), ConfigProvider.layer(ConfigProvider.fromEnv()))
  }))

/** The backends by name. */
export const choices: Record<Name, Choice> = {
  onnx: {
    start: (threads) => OnnxRuntime.layer(onnx(threads)),
    what: "ONNX Runtime on the processor, through its C library",
    ran: "on linux x64; not on linux arm64, macOS or Windows"
  },
  "onnx-node": {
    start: (threads) => OnnxRuntime.layerNoDeps.pipe(Layer.provide(OnnxRuntime.layerNode(onnx(threads)))),
    what: "ONNX Runtime on the processor, through its JavaScript API",
    ran: "on linux x64; not elsewhere"
  },
  "onnx-webgpu": {
    start: (threads) => OnnxRuntime.layerWebGpu(onnx(threads)),
    what: "ONNX Runtime on a graphics card, through WebGPU",
    ran: "on linux x64 with SwiftShader, which is no card; not on one, nor elsewhere"
  },
  "onnx-cuda": {
    start: (threads) => OnnxRuntime.layerCuda(onnx(threads)), // the number is fixed by whichever is tried first
    what: "ONNX Runtime on an NVIDIA card", ran: "nowhere yet"
  },
  "tensorflow-node-gpu": {
    start: library(TensorFlow.layerNodeGpu), what: "TensorFlow's library on an NVIDIA card", ran: "nowhere yet"
  },
  "tensorflow-node": {
    start: library(TensorFlow.layerNode), what: "TensorFlow's library on the processor",
    ran: "on linux x64; not elsewhere"
  },
  "tensorflow-webgpu": {
    start: alone("tensorflow-webgpu", tensorFlow(TensorFlow.layerWebGpu)),
    what: "TensorFlow.js on a graphics card, through WebGPU",
    ran: "on linux x64 with SwiftShader, which is no card; not on one, nor elsewhere"
  },
  "tensorflow-wasm": {
    start: alone("tensorflow-wasm", tensorFlow(TensorFlow.layerWasm)),
    what: "TensorFlow.js in WebAssembly, one thread",
    ran: "on linux x64; it has nothing native in it"
  },
  "tensorflow-cpu": {
    start: alone("tensorflow-cpu", tensorFlow(TensorFlow.layerCpu)),
    what: "TensorFlow.js in plain JavaScript, slow",
    ran: "on linux x64; it has nothing native in it"
  },
  reference: {
    start: alone("reference", Reference.layer), what: "float64 in plain TypeScript, slow and exact",
    ran: "on linux x64; it has nothing native in it"
  }
}

/** More threads than this machine can make anything of. */
export class ThreadCountError extends Schema.TaggedError<ThreadCountError>()("ThreadCountError", {
  threads: Schema.Number,
  cores: Schema.Number,
  most: Schema.Number
}) {
  override get message() {
    return `--threads ${this.threads} is more than the ${this.most} that are allowed here: this machine computes ` +
      `with ${this.cores} at once, and more than that wait for one another\n  Give --threads ${this.cores}.`
  }
}

/** Fails for a number of threads that would hang the machine: four times its cores are allowed, and always 64. */
export const requireThreads = (
  threads: number | undefined, cores: number = Host.cores()
): Effect.Effect<void, ThreadCountError> => {
  const most = Math.max(64, 4 * cores) // a run that is resumed may have been begun on a larger machine
  return threads === undefined || threads <= most ? Effect.void
    : Effect.fail(new ThreadCountError({ threads, cores, most }))
}

/** The backend of a name. */
export const layer = (name: Name, threads: number | undefined): Layer.Layer<Backend, Absence> =>
  choices[name].start(threads)

/** What is tried unasked, fastest first. The slow ones are for who asks for them. */
export const order: ReadonlyArray<Name> = ["onnx-cuda", "onnx", "tensorflow-node", "tensorflow-wasm"]

/** No engine starts. */
export class NoEngineError extends Schema.TaggedError<NoEngineError>()("NoEngineError", {
  reasons: Schema.Array(Schema.String)
}) {
  override get message() {
    return ["no engine starts, so only --backend reference works here, which is slow", ...this.reasons].join("\n")
  }
}

/** The fastest backend that starts; each is tried, and closed again. */
export const fastest = (
  threads: number | undefined, start: (name: Name) => Layer.Layer<Backend, Absence> = (name) => layer(name, threads)
): Effect.Effect<Name, NoEngineError> =>
  Effect.gen(function*() {
    const reasons: Array<string> = []
    for (const name of order) {
      const started = yield* Effect.result(Effect.scoped(Layer.build(start(name))))
      if (Result.isSuccess(started)) return name
      reasons.push(`${name}: ${started.failure.message}`)
    }
    return yield* new NoEngineError({ reasons })
  })

/** The names as a flag takes them. */
export { backendNames as names }
