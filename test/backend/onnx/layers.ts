import * as Layer from "effect/Layer"
import * as Engine from "../../../src/backend/onnx/Engine.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/OnnxRuntime.ts"

/** The two ways into ONNX Runtime. */
export const engines = {
  koffi: Layer.orDie(Engine.layerKoffi({ threads: 2 })),
  node: Layer.orDie(Engine.layerNode({ threads: 2 }))
}

/** The backend over each of them. */
export const backends = Object.entries(engines).map(([name, engine]) =>
  [name, Layer.provide(OnnxRuntime.layerNoDeps, engine)] as const)
