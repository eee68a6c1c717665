import * as Layer from "effect/Layer"
import { type Load, loadFrom, type Name } from "../../../src/backend/tensorflow/Engine.ts"
import * as TensorFlow from "../../../src/backend/tensorflow/TensorFlow.ts"

/** A folder whose `node_modules` has what this repository has not: `webgpu`, `@tensorflow/tfjs-node`. */
const folder = process.env["CRIA_MODULES"]

/** Imports packages of this repository, or else those of that folder. */
export const load: Load = folder === undefined ? (name) => import(name) : loadFrom(folder)

const wanted = (process.env["CRIA_TEST_ENGINES"] ?? "").split(",")

const optional = ["webgpu", "node", "node-gpu"] as const

/** The engines that were not asked for. */
export const absent = optional.filter((name) => !wanted.includes(name))

/** The engines to test: those that need nothing native, and those that were asked for by name. */
export const engines: ReadonlyArray<Name> = ["cpu", "wasm", ...optional.filter((name) => wanted.includes(name))]

const layers = {
  cpu: TensorFlow.layerCpu, wasm: TensorFlow.layerWasm, webgpu: TensorFlow.layerWebGpu, node: TensorFlow.layerNode,
  "node-gpu": TensorFlow.layerNodeGpu
}

/** The backend over each of them. */
export const backends = engines.map((name) => [name, Layer.orDie(layers[name]({ load }))] as const)
