/**
 * ONNX Runtime through the JavaScript API of onnxruntime-node: the fallback where koffi cannot load.
 *
 * Slower than the C library called directly (every output is copied once, the event loop stands still during a run,
 * bf16 cannot pass), with the same results. Sessions have thread pools of their own, which therefore do not spin.
 *
 * From     onnxruntime-node 1.30.0, its native binding (the public `run` has no synchronous form).
 * Checked  test/backend/onnx/Engine.test.ts, beside the C library.
 * Departs  an ArrayBuffer's address is out of reach here: buffers have malloc's 16-byte alignment, not 64.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { createRequire } from "node:module"
import { availableParallelism } from "node:os"
import * as Lock from "../Lock.ts"
import { allocate, type Arrays, type Buffer, isRemote, type Remote } from "./Buffer.ts"
import { type EngineError, failure } from "./EngineError.ts"
import { type ElementType, elementTypeOf } from "./ModelProto.ts"
import { type Declared, type Interface, make as makeSession, type Native } from "./Session.ts"

/** How the engine is started. */
export interface Options {
  /** Threads of each session; by default the cores this process may use, at most 16. */
  readonly threads?: number
}

interface Tensor {
  readonly data: Arrays[ElementType]
}

interface Metadata {
  readonly name: string
  readonly isTensor: boolean
  readonly type: number
  readonly shape: ReadonlyArray<number>
}

interface NativeSession {
  readonly inputMetadata: ReadonlyArray<Metadata>
  readonly outputMetadata: ReadonlyArray<Metadata>
  loadModel(memory: ArrayBufferLike, offset: number, length: number, options: object): void
  run(inputs: Record<string, Tensor>, outputs: Record<string, Tensor>, options: object): unknown
  dispose(): void
}

interface Binding {
  readonly binding: {
    readonly InferenceSession: new() => NativeSession
    readonly listSupportedBackends: () => ReadonlyArray<{ readonly name: string }>
  }
  readonly initOrt: () => void
}

interface Package {
  readonly Tensor: new(type: string, data: Arrays[ElementType], sizes: ReadonlyArray<number>) => Tensor
  readonly env: { logLevel?: string; readonly versions: { readonly node?: string } }
}

const typeNames: { readonly [T in ElementType]: string | undefined } = {
  f32: "float32", f64: "float64", i32: "int32", i64: "int64", bool: "bool", u8: "uint8", f16: "float16", i8: "int8",
  bf16: undefined
}

const optimizationLevels = { off: "disabled", basic: "basic", extended: "extended", all: "all" } as const

const declared = ({ isTensor, name, shape, type }: Metadata): Declared => ({
  name,
  type: isTensor ? elementTypeOf(type) : undefined,
  sizes: isTensor ? shape : []
})

/** The engine over the JavaScript API. Fails where onnxruntime-node or its native binding is missing. */
export const make = (options: Options = {}): Effect.Effect<Interface, EngineError> =>
  Effect.suspend(() => {
    const { threads = Math.min(availableParallelism(), 16) } = options
    if (!Number.isSafeInteger(threads) || threads < 1) {
      return Effect.fail(failure("BadOption", "its JavaScript API", `threads: ${threads}`))
    }
    process.env["ORT_DISABLE_TELEMETRY"] = "1" // read when the library loads, which would otherwise send usage data
    return Effect.try({
      try: (): Interface => {
        const require = createRequire(import.meta.url)
        const api: Package = require("onnxruntime-node")
        const { binding, initOrt }: Binding = require("onnxruntime-node/dist/binding.js")
        api.env.logLevel = "fatal" // failures come back as text
        initOrt()
        const permits = Lock.make() // a run holds the event loop, so a second could not begin anyway
        const load = (model: Uint8Array, level: string): Native => {
          const session = new binding.InferenceSession()
          session.loadModel(model.buffer, model.byteOffset, model.byteLength, {
            intraOpNumThreads: threads,
            interOpNumThreads: 1,
            graphOptimizationLevel: level,
            enableMemPattern: false,
            extra: { session: { intra_op: { allow_spinning: "0" } } }
          })
          const inputs = session.inputMetadata.map(declared)
          const outputs = session.outputMetadata.map(declared)
          const tensors = (
            values: ReadonlyArray<Declared>, buffers: ReadonlyArray<Buffer | Remote>
          ): Record<string, Tensor> =>
            Object.fromEntries(values.flatMap(({ name }, index) => {
              const buffer = buffers[index]
              if (buffer === undefined || isRemote(buffer)) return []
              const type = typeNames[buffer.type]
              return type ? [[name, new api.Tensor(type, buffer.data, buffer.sizes)]] : []
            }))
          return {
            inputs,
            outputs,
            permits,
            refuses: (buffer) =>
              isRemote(buffer) || typeNames[buffer.type] === undefined
                ? `cannot pass: only layerKoffi passes ${isRemote(buffer) ? "memory of a device" : buffer.type}`
                : undefined,
            device: undefined,
            bind: (inputBuffers, outputBuffers) => {
              const feeds = tensors(inputs, inputBuffers)
              const fetches = tensors(outputs, outputBuffers)
              const now = (): string | undefined => {
                const result = Result.try({ try: () => session.run(feeds, fetches, {}), catch: String })
                return Result.isFailure(result) ? result.failure : undefined
              }
              return { now, start: (done) => setImmediate(() => done(now())) }
            },
            release: () => session.dispose()
          }
        }
        return {
          name: "node",
          provider: "cpu",
          version: api.env.versions.node ?? "unknown",
          threads,
          runsMachineCode: false,
          providers: binding.listSupportedBackends().map(({ name }) => name),
          allocate: allocate(() => 0),
          createSession: (model, { optimization = "all" } = {}) =>
            makeSession(Effect.try({
              try: () => load(model, optimizationLevels[optimization]),
              catch: (cause) => failure("BadModel", "createSession", cause, `the model has ${model.length} bytes`)
            }))
        }
      },
      catch: (cause) => failure("MissingLibrary", "its JavaScript API", "onnxruntime-node", cause)
    })
  })
