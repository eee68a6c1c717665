/**
 * The TensorFlow.js backends: `import * as TensorFlow from "cria/backend/tensorflow"`, then provide
 * `TensorFlow.layerWasm()` or another of its layers.
 *
 * @module
 */
export { layerCpu, layerNode, layerNodeGpu, layerWasm, layerWebGpu } from "./TensorFlow.ts"
export { type Load, loadFrom, type Options } from "./Engine.ts"
export { TensorFlowError } from "./TensorFlowError.ts"
