import { createRequire } from "node:module"
import { pathToFileURL } from "node:url"
import * as Layer from "effect/Layer"
import type { Load, Name } from "../../../src/backend/tensorflow/Engine.ts"
import * as TensorFlow from "../../../src/backend/tensorflow/TensorFlow.ts"

/** A folder whose `node_modules` has what this repository has not: `webgpu`, `@tensorflow/tfjs-node`. */
const folder = process.env["CRIA_TEST_MODULES"]

const isElsewhere = (name: string): boolean => name === "webgpu" || name.startsWith("@tensorflow/tfjs-node")

/** Imports those from that folder, the rest as Cria does. */
export const load: Load = (name) =>
  folder === undefined || !isElsewhere(name)
    ? import(name)
    : import(pathToFileURL(createRequire(`${folder}/package.json`).resolve(name)).href)

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
