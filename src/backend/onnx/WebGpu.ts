/**
 * The backend over ONNX Runtime's WebGPU provider, which comes with onnxruntime-node: any graphics card with a Vulkan,
 * Metal or Direct3D 12 driver, or SwiftShader, which is one in software.
 *
 * Cells lie on the card; inputs and results are copied at every run. What the provider has no kernel for the processor
 * computes, inside the same run: of a training step nothing, of a decoding step the sines and cosines.
 *
 * From     ONNX Runtime 1.30, its WebGPU provider, through the C library.
 * Checked  test/backend/onnx/Provider.test.ts (the laws, where a device or SwiftShader is found). Seen working on linux
 *          x64 with SwiftShader only.
 * Departs  NaN, infinities and sums over equal ids are as the card has them: WGSL does not define the first two, and
 *          atomic sums come in any order. Float32 only. The normalization kernel is composed, for the provider's second
 *          output of it is wrong.
 *
 * @module
 */
import * as Layer from "effect/Layer"
import type { Backend } from "../Backend.ts"
import { type EngineError, layerKoffi } from "./Engine.ts"
import { layerNoDeps } from "./OnnxRuntime.ts"

/** How a provider is used. */
export interface Options {
  /** Whether a program that the device cannot compute whole fails to compile; by default the processor helps out. */
  readonly isAlone?: boolean
  /** Threads of the processor, for what the card does not do; all cores by default, and one number for a process. */
  readonly threads?: number
}

/** The backend over WebGPU. Fails where no device is found. */
export const layerWebGpu = ({ isAlone = false, ...options }: Options = {}): Layer.Layer<Backend, EngineError> =>
  layerNoDeps.pipe(Layer.provide(layerKoffi({ provider: { name: "WebGPU", isAlone }, ...options })))
