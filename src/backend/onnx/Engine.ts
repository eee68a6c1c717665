/**
 * ONNX Runtime as a service: sessions over typed memory, with no knowledge of Cria's tensors.
 *
 * Importing this module loads nothing native; building a layer does. `layer` calls the C library through koffi and
 * falls back to the JavaScript API; the other two choose one of them.
 *
 * Checked  test/backend/onnx/Engine.test.ts, on both.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as CLibrary from "./CLibrary.ts"
import * as JavaScriptApi from "./JavaScriptApi.ts"
import type { EngineError } from "./EngineError.ts"
import type { Interface } from "./Session.ts"

export { type Arrays, type Buffer, view } from "./Buffer.ts"
export { libraryPath } from "./CLibrary.ts"
export { EngineError, type Reason } from "./EngineError.ts"
export type { Buffers, Interface, Optimization, Run, Session } from "./Session.ts"

/** Loads models and runs them on buffers. */
export class Engine extends Context.Service<Engine, Interface>()("cria/backend/onnx/Engine") {}

/** The C library called directly: no copies, live event loop. The first layer of a process fixes its thread pool. */
export const layerKoffi = (options?: CLibrary.Options): Layer.Layer<Engine, EngineError> =>
  Layer.effect(Engine, CLibrary.make(options))

/** The JavaScript API of onnxruntime-node: copies outputs and blocks the event loop while it runs; no bf16. */
export const layerNode = (options?: JavaScriptApi.Options): Layer.Layer<Engine, EngineError> =>
  Layer.effect(Engine, JavaScriptApi.make(options))

/**
 * The C library, or where koffi or the library cannot load the JavaScript API; a debug message says which, and why.
 * Where the option `library` names a library, nothing replaces it.
 */
export const layer = (options: CLibrary.Options = {}): Layer.Layer<Engine, EngineError> =>
  Layer.effect(
    Engine,
    CLibrary.make(options).pipe(
      Effect.catchIf(
        ({ reason }) => options.library === undefined && (reason === "MissingLibrary" || reason === "StackTooSmall"),
        (error) =>
          Effect.logDebug("using the JavaScript API of onnxruntime-node", error.message).pipe(
            Effect.andThen(JavaScriptApi.make(options))
          )
      ),
      Effect.tap(({ name, threads, version }) =>
        Effect.logDebug(`ONNX Runtime ${version} through ${name}, ${threads} threads`)
      )
    )
  )
