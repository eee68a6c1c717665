/**
 * The `Backend` over engines of the TensorFlow.js family: one interpreter, a layer for each engine.
 *
 * A program is lowered without fused kernels and planned once; a run is a walk over its steps. Cells are tensors on the
 * device. Real numbers have 32 bits.
 *
 * From     Cria's own.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts (the contract), test/backend/tensorflow/Lifetime.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { lower, type Program } from "../../tensor/Program.ts"
import {
  type AnyCell, Backend, BackendError, type Bound, type CompileOptions, type Executable, type Outcome
} from "../Backend.ts"
import { bindCells, bound, checkOptions, freeze, type Input, inputsOf, outcome } from "../HostProgram.ts"
import * as HostState from "../HostState.ts"
import { primitives } from "./Composition.ts"
import { type DeviceMemory, make as makeMemory, type Place } from "./DeviceMemory.ts"
import { type Engine, type Name, type Options, start } from "./Engine.ts"
import { run } from "./Execution.ts"
import { constantsOn, plan } from "./Plan.ts"
import type { TensorFlowError } from "./TensorFlowError.ts"

const outOfMemory = "Where the device has no memory left: use smaller batches, or end the Scopes of cells that are no"
  + " longer needed. Otherwise this is a fault of Cria's: please report the program, as `Print` shows it."

const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

/** The backend over a started engine. */
export const make = (engine: Engine): Backend["Service"] => {
  const backend = `tensorflow-${engine.name}`
  const refused = (operation: string) => (error: unknown): BackendError =>
    new BackendError({ backend, operation, detail: messageOf(error), remedy: outOfMemory })
  const memory = makeMemory(engine, (operation, body) =>
    Effect.tryPromise({ try: body, catch: refused(operation) }))
  const state = HostState.makeOver({ backend, precisions: ["f32"], precision: "f32" }, memory)

  /** What an engine throws while cells are touched is a failure of the operation. */
  const guarded = (operation: string) => <A, R>(work: Effect.Effect<A, BackendError, R>) =>
    Effect.catchDefect(work, (defect) => Effect.fail(refused(operation)(defect)))

  return Backend.of({
    name: backend,
    version: `TensorFlow.js ${engine.version} (${engine.name})`,
    capabilities: {
      precisions: state.precisions, kernels: [], threads: engine.threads, primitives: primitives(engine.name),
      ...engine.device === undefined ? {} : { device: engine.device },
      ...engine.name === "webgpu" || engine.name === "node-gpu" ? { unordered: ["scatter add"] } : {}
    },
    live: Effect.sync(() => engine.memory().numTensors),
    allocate: (specification, options) => guarded("allocate")(state.allocate(specification, options)),
    read: (cells) => guarded("read")(state.read(cells)),
    write: (cell, elements) => guarded("write")(state.write(cell, elements)),
    copy: (from, to) => guarded("copy")(state.copy(from, to)),
    view: state.view,
    seal: state.seal,
    compile: (program, options) => compile(engine, memory, state, program, options)
  })
}

const compile = Effect.fnUntraced(function*<I, S, O>(
  engine: Engine, memory: DeviceMemory, state: HostState.HostState<Place>, program: Program<I, S, O>,
  options: CompileOptions = {}
): Effect.fn.Return<Executable<I, S, O>, BackendError, Scope.Scope> {
  const { constants = new Map<string, AnyCell>(), precision = state.precision, watch = [] } = options
  yield* checkOptions(state, program, precision, watch)
  const { values: frozen } = yield* freeze(state, program, precision, constants)
  const lowered = lower(program, { hasKernel: () => false, watch })
  const alone = yield* Semaphore.make(1) // two runs at once would only hold twice the memory
  let isClosed = false
  const device = yield* Effect.acquireRelease(
    Effect.sync(() => constantsOn(engine)),
    ({ free }) => alone.withPermit(Effect.sync(() => {
      isClosed = true
      free()
    }))
  )
  const planned = yield* Effect.try({
    try: () => {
      engine.activate()
      return plan(device, lowered, frozen)
    },
    catch: (error) => new BackendError({
      backend: state.backend, operation: `compile ${program.name}`, detail: messageOf(error), remedy: outOfMemory
    })
  })
  const operation = `run ${program.name}`
  const bind: Executable<I, S, O>["bind"] = (cells) =>
    Effect.map(bindCells(state, program, precision, frozen, cells), (held): Bound<I, O> => {
      const places = new Map([...held].map(([path, { elements }]) => [path, elements] as const))
      const once = (inputs: ReadonlyArray<Input>): Effect.Effect<Outcome<O>, BackendError> =>
        Effect.suspend(() => isClosed
          ? state.fail(operation, "the program has been freed",
            "The Scope that compiled the program has ended: run inside that Scope.")
          : run(engine, memory, lowered, planned, {
            inputs: new Map(inputs.map(({ path, value }) => [path, value])), cells: places
          }).pipe(
            Effect.map(({ outputs, watched }) => outcome(program, lowered, outputs, watched)),
            Effect.catch(({ detail, instruction, place, remedy }) =>
              state.fail(operation, `${instruction}${place === "" ? "" : `, in ${place}`}: ${detail}`, remedy))
          ))
      const checked = inputsOf(state, program)
      const watched = (given: unknown): Effect.Effect<Outcome<O>, BackendError> =>
        Effect.flatMap(checked(given), (inputs) =>
          alone.withPermit(state.exclusively(operation, [...held.values()])(once(inputs)))).pipe(
          Effect.tap(Effect.yieldNow)) // what an engine computes at once, it hands over before the event loop turns
      return bound(watched)
    })
  return { name: program.name, placement: { inPlace: [], copied: program.writes.map(([path]) => path) }, bind }
})

const layerOf = (name: Name) => (options?: Options): Layer.Layer<Backend, TensorFlowError> =>
  Layer.effect(Backend, Effect.map(start(name, options), make))

/** Plain JavaScript (`@tensorflow/tfjs-backend-cpu`): needs nothing native, and is slow. */
export const layerCpu = layerOf("cpu")

/** WebAssembly with SIMD, one thread (`@tensorflow/tfjs-backend-wasm`): needs nothing native. */
export const layerWasm = layerOf("wasm")

/**
 * WebGPU (`@tensorflow/tfjs-backend-webgpu`), in Node through the package `webgpu` (Dawn). Seen on SwiftShader only, a
 * card in software.
 */
export const layerWebGpu = layerOf("webgpu")

/** TensorFlow's own library on the CPU (`@tensorflow/tfjs-node`). */
export const layerNode = layerOf("node")

/**
 * TensorFlow's own library on an NVIDIA GPU (`@tensorflow/tfjs-node-gpu`). Fails where the library finds none, for it
 * would compute on the processor. Never run on one.
 */
export const layerNodeGpu = layerOf("node-gpu")
