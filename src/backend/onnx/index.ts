/**
 * The ONNX Runtime backend: `import * as OnnxRuntime from "cria/backend/onnx"`, then provide `OnnxRuntime.layer()`.
 *
 * @module
 */
export { layer, layerNoDeps } from "./OnnxRuntime.ts"
export { Engine, EngineError, layerKoffi, layerNode } from "./Engine.ts"
export { layerCuda } from "./Cuda.ts"
export { layerWebGpu } from "./WebGpu.ts"
