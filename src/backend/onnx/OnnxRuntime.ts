/**
 * The `Backend` over ONNX Runtime: programs compiled to ONNX graphs, cells in place, one thread pool.
 *
 * A program is lowered, written as a graph and loaded as a session once; an elementwise update over big cells runs in
 * tiles. Compiled programs are kept for the lifetime of the layer, by program and options.
 *
 * From     Cria's own.
 * Checked  backend/Backend.test.ts and tensor/Primitive.test.ts on this layer, against the float64 reference.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Lowered, Port } from "../../tensor/Instruction.ts"
import type { Program } from "../../tensor/Program.ts"
import { lower } from "../../tensor/Program.ts"
import {
  type AnyCell, Backend, BackendError, type Bound, type CompileOptions, type Elements, type Executable, type Outcome,
  type Precision
} from "../Backend.ts"
import { bindCells, checkInputs, checkOptions, freeze, type Input, outcome } from "../HostProgram.ts"
import * as HostState from "../HostState.ts"
import type { Buffer } from "./Buffer.ts"
import { Engine, layer as engineLayer } from "./Engine.ts"
import type { EngineError } from "./EngineError.ts"
import { type Compiled, type Execution, type Located, tiled, whole } from "./Execution.ts"
import { hasKernel, kernels } from "./Kernel.ts"
import type { ElementType } from "./ModelProto.ts"
import type { Interface } from "./Session.ts"
import { tiling } from "./Tiling.ts"

const name = "onnxruntime"

const elementTypes: Record<HostState.Storage, ElementType> = { f32: "f32", f64: "f64", id: "i32", truth: "bool" }

const fromEngine = (operation: string) => (error: EngineError): BackendError =>
  new BackendError({ backend: name, operation, detail: error.message, remedy: `The engine's reason is ${error.reason}.` })

/** The elements of a buffer, as cells and values show them. */
const elementsOf = ({ data, type }: Buffer): Elements => {
  if (
    data instanceof Float32Array || data instanceof Float64Array || data instanceof Int32Array ||
    data instanceof Uint8Array
  ) return data
  throw new TypeError(`a ${type} buffer holds no elements of a program`)
}

/** A program as positions, and its sessions. */
interface Loaded {
  readonly lowered: Lowered
  readonly compiled: Compiled
}

const make = Effect.fnUntraced(function*(
  engine: Interface
): Effect.fn.Return<typeof Backend.Service, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const arenas = new WeakMap<Elements, Buffer>()
  const memory: HostState.Memory = (storage, count) => {
    const buffer = Effect.runSync(engine.allocate(elementTypes[storage], [count]))
    const elements = elementsOf(buffer)
    arenas.set(elements, buffer)
    return elements
  }
  const state = HostState.make({ backend: name, precisions: ["f32", "f64"], precision: "f32", memory })
  const { allocate, copy, read, view, write } = state
  const cache = new WeakMap<object, Map<string, Loaded>>()

  const load = Effect.fnUntraced(function*<I, S, O>(
    program: Program<I, S, O>, precision: Precision, watch: ReadonlyArray<string>, frozen: ReadonlyMap<string, Elements>
  ) {
    const lowered = lower(program, { hasKernel: precision === "f32" ? hasKernel : () => false, watch })
    const plan = tiling(lowered)
    const constants = new Map([...frozen].map(([path, { buffer, byteLength, byteOffset }]) =>
      [path, new Uint8Array(buffer, byteOffset, byteLength)] as const))
    const compiling = plan === undefined
      ? whole(engine, lowered, precision, constants)
      : tiled(engine, plan, lowered, precision, constants)
    const compiled = yield* Effect.mapError(compiling, fromEngine(`compile ${program.name}`))
    return { lowered, compiled }
  })

  const compile = Effect.fnUntraced(function*<I, S, O>(
    program: Program<I, S, O>, options: CompileOptions = {}
  ): Effect.fn.Return<Executable<I, S, O>, BackendError, Scope.Scope> {
    const { constants = new Map<string, AnyCell>(), precision = state.precision, watch = [] } = options
    const key = `${precision} ${watch.join()}`
    const known = constants.size === 0 ? cache.get(program)?.get(key) : undefined
    if (known !== undefined) return executable(program, precision, known, new Map())
    yield* checkOptions(state, program, precision, watch)
    const frozen = yield* freeze(state, program, precision, constants)
    if (frozen.size > 0) return executable(program, precision, yield* load(program, precision, watch, frozen), frozen)
    const loaded = yield* Scope.provide(load(program, precision, watch, frozen), scope)
    const versions = cache.get(program) ?? new Map<string, Loaded>()
    cache.set(program, versions.set(key, loaded))
    return executable(program, precision, loaded, frozen)
  })

  const executable = <I, S, O>(
    program: Program<I, S, O>, precision: Precision, { compiled, lowered }: Loaded, frozen: ReadonlyMap<string, Elements>
  ): Executable<I, S, O> => {
    const operation = `run ${program.name}`
    const bind: Executable<I, S, O>["bind"] = Effect.fnUntraced(function*(cells) {
      const held = yield* bindCells(state, program, precision, frozen, cells)
      const locate = (path: string): Effect.Effect<Located> =>
        Effect.sync(() => {
          const found = held.get(path)
          const arena = found?.allocation.arenas.get(found.storage)
          const buffer = arena === undefined ? undefined : arenas.get(arena)
          if (found === undefined || buffer === undefined) throw new TypeError(`no memory behind cell ${path}`)
          return { arena: buffer, offset: found.start, length: found.elements.length }
        })
      const execution = yield* Effect.mapError(compiled.bind(locate), fromEngine(`bind ${program.name}`))
      const buffers = yield* Semaphore.make(1) // a binding has one set of input and output buffers
      const once = (inputs: ReadonlyArray<Input>): Effect.Effect<Outcome<O>, BackendError> =>
        Effect.suspend(() => {
          for (const { path, value } of inputs) {
            const buffer = execution.inputs.get(path)
            if (buffer !== undefined) HostState.place(elementsOf(buffer), value)
          }
          return Effect.mapError(execution.run, fromEngine(operation))
        }).pipe(Effect.map(() => collect(program, lowered, execution)))
      const watch = (given: unknown): Effect.Effect<Outcome<O>, BackendError> =>
        Effect.flatMap(checkInputs(state, program, given), (inputs) =>
          state.exclusively(operation, [...held.values()])(buffers.withPermit(once(inputs))))
      return { watch, run: (given) => Effect.map(watch(given), ({ outputs }) => outputs) } satisfies Bound<I, O>
    })
    return { name: program.name, placement: { inPlace: compiled.inPlace, copied: compiled.copied }, bind }
  }

  return Backend.of({
    name,
    version: `onnxruntime ${engine.version} (${engine.name})`,
    capabilities: { precisions: state.precisions, kernels: Object.keys(kernels), threads: engine.threads },
    allocate, read, write, copy, view, compile
  })
})

const collect = <I, S, O>(program: Program<I, S, O>, lowered: Lowered, execution: Execution): Outcome<O> => {
  const copies = (ports: ReadonlyArray<Port>, buffers: ReadonlyMap<string, Buffer>) =>
    new Map(ports.flatMap(({ name: path }) => {
      const buffer = buffers.get(path)
      return buffer === undefined ? [] : [[path, elementsOf(buffer).slice()] as const]
    }))
  return outcome(program, lowered, copies(lowered.outputs, execution.outputs), copies(lowered.watched, execution.watched))
}

/** The backend over whichever engine is provided. */
export const layerNoDeps: Layer.Layer<Backend, never, Engine> = Layer.effect(Backend, Effect.flatMap(Engine, make))

/** The default: ONNX Runtime's C library, or its JavaScript API where that cannot load. */
export const layer = (options: Parameters<typeof engineLayer>[0] = {}): Layer.Layer<Backend, EngineError> =>
  layerNoDeps.pipe(Layer.provide(engineLayer(options)))
