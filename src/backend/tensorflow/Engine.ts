/**
 * Engines of the TensorFlow.js family behind one interface: kernels over tensors that lie on a device.
 *
 * Nothing is loaded until a layer starts; then only the packages of its engine are. The interface names what Cria uses
 * of TensorFlow.js and nothing of its types, so that Cria's declarations stand without its packages. The registry of
 * TensorFlow.js has one active engine in a process: whoever is about to run kernels activates its own, and does not
 * yield before it is done.
 *
 * From     TensorFlow.js 4.22, `tfjs-core/src/engine.ts`.
 * Checked  test/backend/tensorflow/Engine.test.ts (fake packages, and those that are installed).
 *
 * @module
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { createRequire } from "node:module"
import { availableParallelism } from "node:os"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import type { Elements } from "../Backend.ts"
import { type Reason, TensorFlowError } from "./TensorFlowError.ts"

/** The types of elements on a device; codes lie there as 32-bit integers. */
export type DataType = "float32" | "int32" | "bool"

/** A tensor of TensorFlow.js, as far as Cria uses it. */
export interface Tensor {
  /** What its data is known by: tensors that are one another's reshapes share it. */
  readonly dataId: object
  readonly shape: ReadonlyArray<number>
  readonly dtype: DataType
  readonly data: () => Promise<Elements>
  readonly dataSync: () => Elements
  readonly dispose: () => void
}

/** What a kernel is called with beside tensors. */
export type Attributes = Readonly<Record<string, unknown>>

/** The names of the engines. */
export type Name = "cpu" | "wasm" | "webgpu" | "node" | "node-gpu"

/** How much an engine holds. */
export interface Memory {
  readonly numTensors: number
  readonly numDataBuffers: number
}

/** The engine of `tfjs-core`, as far as Cria uses it. */
interface Registry {
  readonly backendName: string | undefined
  /** What has been started, by name. */
  readonly registry: Record<string, unknown>
  readonly findBackendFactory: (name: string) => unknown
  readonly setBackend: (name: string) => Promise<boolean>
  readonly runKernel: (
    name: string, inputs: Readonly<Record<string, Tensor>> | ReadonlyArray<Tensor>, attributes?: Attributes
  ) => unknown
  readonly makeTensor: (elements: Elements, shape: ReadonlyArray<number>, type: DataType) => Tensor
  readonly tidy: <A>(body: () => A) => A
  readonly memory: () => Memory
}

/** A started engine. */
export interface Engine {
  readonly name: Name
  readonly version: string
  readonly threads: number
  /** The graphics card, as its driver calls it, where that is known. */
  readonly device: string | undefined
  /** Can values be read while a program runs? Otherwise only at its end. */
  readonly isSynchronous: boolean
  /** Makes this the engine that runs kernels, until the caller yields. */
  readonly activate: () => void
  /** Runs a kernel that gives one tensor. */
  readonly run: (kernel: string, inputs: Readonly<Record<string, Tensor>>, attributes?: Attributes) => Tensor
  /** Runs a kernel that takes a list of tensors. */
  readonly join: (kernel: string, inputs: ReadonlyArray<Tensor>, attributes: Attributes) => Tensor
  /** Runs a kernel that gives several tensors. */
  readonly split: (
    kernel: string, inputs: Readonly<Record<string, Tensor>>, attributes: Attributes
  ) => ReadonlyArray<Tensor>
  /** Copies elements to the device. */
  readonly upload: (elements: Elements, shape: ReadonlyArray<number>, type: DataType) => Tensor
  /** Runs `body` and frees every tensor that it made but the one that it returns. */
  readonly tidy: (body: () => Tensor) => Tensor
  readonly memory: () => Memory
  /** What the device has refused so far: a GPU does not throw, it computes nothing. */
  readonly complaints: () => ReadonlyArray<string>
}

/** Imports a package by its name. */
export type Load = (name: string) => Promise<unknown>

/** How an engine is started. */
export interface Options {
  /** How packages are imported; by default as Cria itself imports them. */
  readonly load?: Load
}

/** What an engine is made of. */
interface Recipe {
  /** The name under which TensorFlow.js registers it. */
  readonly registered: string
  /** The packages to load, in order; the first has what `tfjs-core` exports. */
  readonly packages: ReadonlyArray<string>
  /** What has to be there before a package is loaded. */
  readonly prepare?: (load: Load) => Promise<void>
}

const version = "4.22.0"

const core = "@tensorflow/tfjs-core"

/** The packages of each engine and what they need. */
const recipes: Record<Name, Recipe> = {
  cpu: { registered: "cpu", packages: [core, "@tensorflow/tfjs-backend-cpu"] },
  wasm: { registered: "wasm", packages: [core, "@tensorflow/tfjs-backend-wasm"] },
  webgpu: {
    registered: "webgpu", packages: [core, "@tensorflow/tfjs-backend-webgpu"], prepare: (load) => provideGpu(load)
  },
  node: { registered: "tensorflow", packages: ["@tensorflow/tfjs-node"], prepare: () => provideNode() },
  "node-gpu": { registered: "tensorflow", packages: ["@tensorflow/tfjs-node-gpu"], prepare: () => provideNode() }
}

/** The command that installs the packages of an engine. */
export const install = (name: Name): string =>
  [
    "npm install", ...recipes[name].packages.map((each) => `${each}@${version}`),
    ...(name === "webgpu" ? ["webgpu"] : [])
  ].join(" ")

const isObject = (value: unknown): value is object =>
  (typeof value === "object" || typeof value === "function") && value !== null

const member = (value: unknown, name: string): unknown => isObject(value) ? Reflect.get(value, name) : undefined

/** A browser's `navigator.gpu` and the constants of WebGPU, where the process has none of its own. */
const provideGpu = (load: Load): Promise<void> =>
  member(member(globalThis, "navigator"), "gpu") !== undefined
    ? Promise.resolve()
    : load("webgpu").then((loaded) => {
      const create = member(loaded, "create")
      const constants = member(loaded, "globals")
      if (typeof create !== "function" || !isObject(constants)) {
        throw new TypeError("the package webgpu has no `create`")
      }
      Object.assign(globalThis, constants)
      const gpu: unknown = create([])
      const navigator = member(globalThis, "navigator")
      if (isObject(navigator)) Object.defineProperty(navigator, "gpu", { value: gpu, configurable: true })
      else Object.defineProperty(globalThis, "navigator", { value: { gpu, userAgent: "node" }, configurable: true })
    })

/** Is there a card? TensorFlow.js takes one for granted. */
const findsAdapter = (): Promise<boolean> => {
  const gpu = member(member(globalThis, "navigator"), "gpu")
  const request = member(gpu, "requestAdapter")
  return typeof request !== "function"
    ? Promise.resolve(false)
    : Promise.resolve(request.call(gpu)).then((adapter: unknown) => isObject(adapter))
}

/** tfjs-node calls a function of `node:util` that Node 23 removed. */
const provideNode = (): Promise<void> =>
  import("node:util").then(({ default: util }) => {
    if (!("isNullOrUndefined" in util)) {
      Object.defineProperty(util, "isNullOrUndefined", {
        value: (value: unknown) => value === null || value === undefined, configurable: true
      })
    }
  })

const isRegistry = (value: unknown): value is Registry =>
  ["findBackendFactory", "setBackend", "runKernel", "makeTensor", "tidy", "memory"].every((name) =>
    typeof member(value, name) === "function") && isObject(member(value, "registry"))

const starting = new WeakMap<Registry, Map<string, Promise<void>>>()

/**
 * Starts what TensorFlow.js registers under a name, once. Its own way of doing so leaves no engine active until the new
 * one has started, and fails the programs that run meanwhile.
 */
const startOnce = (registry: Registry, name: string): Promise<void> => {
  const started = starting.get(registry) ?? new Map<string, Promise<void>>()
  starting.set(registry, started)
  const factory = registry.findBackendFactory(name)
  const found = started.get(name) ?? Promise.resolve(registry.registry[name] ?? (
    typeof factory === "function" ? factory() : Promise.reject(new TypeError(`no backend "${name}" was registered`))
  )).then((instance: unknown) => {
    if (name === "cpu" && isObject(instance)) Reflect.set(instance, "firstUse", false) // else it advertises
    registry.registry[name] = instance
  })
  started.set(name, found)
  return found.catch((error: unknown) => {
    started.delete(name)
    throw error
  })
}

const importPackage: Load = (name) => import(name)

const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

/**
 * Imports packages as Cria itself does, and those that are not there from the `node_modules` of a folder or of one that
 * it lies in: `layerNode({ load: loadFrom("/srv/models") })`.
 */
export const loadFrom = (folder: string): Load => (name) => {
  const found = (from: string) => Result.try(() => createRequire(from).resolve(name))
  if (Result.isSuccess(found(import.meta.url))) return importPackage(name)
  const there = found(resolve(folder, "package.json"))
  return Result.isSuccess(there)
    ? importPackage(pathToFileURL(there.success).href)
    : Promise.reject(new Error(`Cannot find package '${name}', neither beside Cria nor in ${folder}`))
}

/** Why a package did not load: it is not there, or what it loads is not. */
const reasonOf = (message: string): Reason =>
  /Cannot find (package|module) '(@tensorflow|webgpu)/.test(message)
    ? "MissingPackage"
    : /\.node\b|libtensorflow|shared object|tfjs_binding|node-pre-gyp/.test(message)
      ? "MissingLibrary"
      : "NotStarted"

/** How many threads TensorFlow's library computes with: as many as it is told in a number, or as there are cores. */
const threadsOfTensorFlow = Effect.map(
  Effect.orElseSucceed(Config.option(Config.Int("TF_NUM_INTRAOP_THREADS")), () => Option.none<number>()),
  Option.match({ onNone: availableParallelism, onSome: (count) => count > 0 ? count : availableParallelism() })
)

/** Starts an engine, or takes the one that runs in this process already. */
export const start = (name: Name, { load = importPackage }: Options = {}): Effect.Effect<Engine, TensorFlowError> => {
  const { packages, prepare, registered } = recipes[name]
  const error = (reason: Reason, ...values: ReadonlyArray<string>) =>
    new TensorFlowError({ reason, engine: name, install: install(name), values })
  const attempt = <A>(body: () => Promise<A>) =>
    Effect.tryPromise({
      try: body,
      catch: (thrown) => {
        const said = messageOf(thrown).replace(/(Cannot find \w+ '[^']+') imported from .*/, "$1") // which is Cria
        return error(reasonOf(said), ...said.split("\n").slice(0, 4))
      }
    })
  return Effect.gen(function*() {
    if (prepare !== undefined) yield* attempt(() => prepare(load))
    if (name === "webgpu" && !(yield* attempt(findsAdapter))) {
      const driver = yield* Effect.orDie(Config.option(Config.String("VK_DRIVER_FILES")))
      const named = Option.match(driver, { onNone: () => "is not set", onSome: (file) => `is ${file}` })
      return yield* error("NoDevice", "WebGPU found no adapter", `VK_DRIVER_FILES ${named}`)
    }
    const [first] = yield* Effect.forEach(packages, (each) => attempt(() => load(each)))
    const makeRegistry = member(first, "engine") ?? member(member(first, "default"), "engine")
    const registry: unknown = typeof makeRegistry === "function" ? makeRegistry() : undefined
    if (!isRegistry(registry)) return yield* error("NotStarted", `${packages[0]} exports no engine`)
    yield* Effect.mapError(attempt(() => startOnce(registry, registered)), (failure) =>
      name === "webgpu" ? error("NoDevice", ...failure.values) : failure)
    if (name === "node-gpu" && member(registry.registry[registered], "isUsingGpuDevice") === false) {
      return yield* error("NoDevice", "TensorFlow's library found none, and would compute on the processor")
    }
    const found = member(first, "version_core") ?? member(member(first, "default"), "version_core")
    const threads = name === "node" || name === "node-gpu" ? yield* threadsOfTensorFlow : 1
    return over({ name, registered, threads, version: typeof found === "string" ? found : version }, registry)
  })
}

const isTensor = (value: unknown): value is Tensor => typeof member(value, "dispose") === "function"

/** Lists what a GPU refuses from now on. */
const listen = (backend: unknown): ReadonlyArray<string> => {
  const complaints: Array<string> = []
  const device = member(backend, "device")
  const add = member(device, "addEventListener")
  if (typeof add === "function") {
    add.call(device, "uncapturederror", (event: unknown) => {
      complaints.push(String(member(member(event, "error"), "message")))
      const prevent = member(event, "preventDefault")
      if (typeof prevent === "function") prevent.call(event)
    })
  }
  return complaints
}

/** What the driver of a graphics card says of it: a name, and which driver. */
export const deviceOf = (backend: unknown): string | undefined => {
  const info = member(member(backend, "device"), "adapterInfo")
  const said = ["device", "description"].map((each) => member(info, each))
    .filter((text) => typeof text === "string" && text !== "")
  return said.length === 0 ? undefined : said.join(", ")
}

const over = (
  { name, registered, threads, version }: Pick<Engine, "name" | "threads" | "version"> & Pick<Recipe, "registered">,
  registry: Registry
): Engine => {
  const complaints = listen(registry.registry[registered])
  const one = (kernel: string, result: unknown): Tensor => {
    const tensor: unknown = Array.isArray(result) ? result[0] : result
    if (!isTensor(tensor)) throw new TypeError(`kernel ${kernel} gave no tensor`)
    return tensor
  }
  return {
    name,
    version,
    threads,
    device: deviceOf(registry.registry[registered]),
    isSynchronous: name !== "webgpu",
    activate: () => {
      if (registry.backendName !== registered) void registry.setBackend(registered) // at once, for it has been started
    },
    run: (kernel, inputs, attributes) => one(kernel, registry.runKernel(kernel, inputs, attributes)),
    join: (kernel, inputs, attributes) => one(kernel, registry.runKernel(kernel, inputs, attributes)),
    split: (kernel, inputs, attributes) => {
      const result = registry.runKernel(kernel, inputs, attributes)
      return Array.isArray(result) ? result.filter(isTensor) : [one(kernel, result)]
    },
    upload: (elements, shape, type) => registry.makeTensor(elements, shape, type),
    tidy: (body) => registry.tidy(body),
    memory: () => registry.memory(),
    complaints: () => complaints
  }
}
