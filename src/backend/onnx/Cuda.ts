/**
 * The backend over ONNX Runtime's CUDA provider: NVIDIA cards, where a library that was built with it is installed.
 *
 * The npm package leaves that library out unless its install script fetches it; or name one in the option `library`.
 * Cells lie on the card; inputs and results are copied at every run, as with WebGPU.
 *
 * From     ONNX Runtime 1.30, its CUDA provider, through the C library.
 * Checked  test/backend/onnx/Provider.test.ts (the failure without the library; the laws where it loads). Never run on
 *          a card.
 *
 * @module
 */
import * as Layer from "effect/Layer"
import type { Backend } from "../Backend.ts"
import { type EngineError, layerKoffi } from "./Engine.ts"
import { layerNoDeps } from "./OnnxRuntime.ts"
import type { Options as ProviderOptions } from "./WebGpu.ts"

/** How the provider is found and used. */
export interface Options extends ProviderOptions {
  /** Path of a libonnxruntime that has the provider's libraries beside it, in place of the one in onnxruntime-node. */
  readonly library?: string
}

/** The backend over CUDA. Fails where its libraries or a card are missing. */
export const layerCuda = ({ isAlone = false, ...options }: Options = {}): Layer.Layer<Backend, EngineError> =>
  layerNoDeps.pipe(Layer.provide(layerKoffi({ provider: { name: "CUDA", isAlone }, ...options })))
