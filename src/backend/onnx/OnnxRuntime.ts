/**
 * The `Backend` over ONNX Runtime: programs compiled to ONNX graphs, cells in place, one thread pool.
 *
 * A program is lowered, written as a graph and loaded as a session; an elementwise update over big cells runs in tiles.
 * Who compiles the same program with the same options while it is loaded gets what is there; it is freed with the last
 * Scope that asked for it.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/OnnxRuntime.test.ts (the contract), test/backend/onnx/Execution.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
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
import { bindCells, bound, checkOptions, freeze, type Frozen, type Input, inputsOf, outcome } from "../HostProgram.ts"
import * as HostState from "../HostState.ts"
import type { Buffer } from "./Buffer.ts"
import { type CellMemory, elementsOf, type Lent, onDevice, onHost } from "./CellMemory.ts"
import { composeTruths, spreadPowers } from "./Detour.ts"
import { Engine, layer as engineLayer } from "./Engine.ts"
import { EngineError, type Reason } from "./EngineError.ts"
import { type Compiled, compile as compileLowered, type Execution, largestGraph } from "./Execution.ts"
import { halfFrozen, joinOnce, joinProducts } from "./JoinedProducts.ts"
import { hasKernel, kernels } from "./Kernel.ts"
import { packOnce } from "./MachineProduct.ts"
import { sumsAreExact } from "./Saturation.ts"
import type { Interface } from "./Session.ts"

const name = "onnxruntime"

/** What to do, in the words of those who run programs; reasons that need none of their own are faults of Cria's. */
const remedies: Partial<Record<Reason, string>> = {
  RunFailed: "Usual cause: an id outside its axis (a token beyond the vocabulary, a position past the end of a table). "
    + "The reference backend names the element. Cells that are replaced in place may hold part of their new values.",
  GraphTooLarge: "Leave the largest of them out of `constants`, and bind them.",
  OutOfMemory: "Use smaller batches or fewer programs at once, and end the Scopes of cells that are no longer needed.",
  Closed: "The Scope that compiled the program has ended: run inside that Scope."
}

const fault = "This is a fault of Cria's: please report the program, as `Print` shows it, with this message."

/** An engine's failure as one of the backend, with the place in the program where the engine names a node. */
const fromEngine = (operation: string, places?: ReadonlyMap<string, string>) => (error: EngineError): BackendError => {
  const node = error.values.map((value) => /Name:'([^']*)'/.exec(value)?.[1]).find((found) => found !== undefined)
  const place = node === undefined ? undefined : places?.get(node)
  const detail = error.values.length === 0 ? error.reason : error.values.join("\n  ")
  return new BackendError({
    backend: name, operation, detail: place === undefined ? detail : `${place}: ${detail}`,
    remedy: remedies[error.reason] ?? fault
  })
}

/** Primitives that are several operators of the engine, in some of their cases. */
export const composed = {
  "unary rsqrt": "composed", "reduce max": "composed", "matmul": "composed", "scatter set": "composed",
  "scatter add": "composed", "topK": "composed", "barrier": "composed"
} as const

/** WebGPU gives a wrong second output of the one (see WebGpu.ts), and leaves the other's branch to the processor. */
const notOnWebGpu: ReadonlySet<string> = new Set(["rmsNorm", "softmaxCrossEntropy"])

/** A device has no cache in place, nor a product of matrices of bytes. */
const onlyOnHost: ReadonlySet<string> = new Set(["attendKept", "contractRows"])

const nothingFrozen: Frozen = { values: new Map(), sealed: new Set() }

/** A program as positions, and its sessions. */
interface Loaded {
  readonly lowered: Lowered
  readonly compiled: Compiled
}

/** A loaded program that several may hold. */
interface Shared {
  holders: number
  readonly scope: Scope.Closeable
  readonly loaded: Effect.Effect<Loaded, BackendError>
}

const make = (engine: Interface): Effect.Effect<typeof Backend.Service, EngineError, Scope.Scope> => {
  const precisions: ReadonlyArray<Precision> = engine.provider === "webgpu" ? ["f32"] : ["f32", "f64"]
  const identity: HostState.Identity = { backend: name, precisions, precision: "f32" }
  return engine.provider === "cpu"
    ? Effect.map(sumsAreExact(engine), (isExact) =>
      makeOver(engine, onHost(engine, identity, fromEngine), isExact ? new Set() : new Set(["contractRows"])))
    : Effect.map(onDevice(engine, identity, fromEngine), (memory) =>
      makeOver(engine, memory, new Set([...onlyOnHost, ...engine.provider === "webgpu" ? notOnWebGpu : []])))
}

const makeOver = <X extends HostState.Stretch>(
  engine: Interface, { held: heldOnDevice, lend, state }: CellMemory<X>, decomposed: ReadonlySet<string>
): typeof Backend.Service => {
  const isWebGpu = engine.provider === "webgpu"
  const canFuse: typeof hasKernel = (composite, inputs) =>
    !decomposed.has(composite.name) && hasKernel(composite, inputs)
  const { allocate, copy, read, seal, view, write } = state
  const join = joinOnce()
  const pack = !engine.runsMachineCode ? undefined
    : packOnce((length) => Effect.runSync(engine.allocate("f32", [length])).data)
  let programs = 0 // that are loaded

  const load = Effect.fnUntraced(function*<I, S, O>(
    program: Program<I, S, O>, precision: Precision, watch: ReadonlyArray<string>, frozen: Frozen = nothingFrozen
  ): Effect.fn.Return<Loaded, BackendError, Scope.Scope> {
    yield* Effect.acquireRelease(Effect.sync(() => { programs++ }), () => Effect.sync(() => { programs-- }))
    const plain = lower(program, { hasKernel: precision === "f32" ? canFuse : () => false, watch })
    const lowered = isWebGpu ? composeTruths(spreadPowers(plain)) : plain
    const { sealed, values } = frozen
    const constants = new Map([...values].map(([path, { buffer, byteLength, byteOffset }]) =>
      [path, new Uint8Array(buffer, byteOffset, byteLength)] as const))
    const own = join((path) => sealed.has(path) ? values.get(path) : undefined)
    const [codes, scales] = halfFrozen(lowered, constants)
    if (codes !== undefined) {
      return yield* new BackendError({
        backend: name, operation: `compile ${program.name}`,
        detail: `codes and their scales are frozen together or not at all; frozen is ${codes}, and not ${scales}`,
        remedy: "Name both in constants."
      })
    }
    const joined = joinProducts(lowered, constants, own)
    const [sharing] = [...sealed].flatMap((path) => values.get(path) ?? []) // the first stands for all
    const compiled = yield* Effect.mapError(
      compileLowered(engine, joined.lowered, precision, joined.constants, {
        ...sharing === undefined ? {} : { sharing }, ...pack === undefined ? {} : { pack }
      }),
      fromEngine(`compile ${program.name}`)
    )
    return { lowered, compiled }
  })

  const cache = new WeakMap<object, Map<string, Shared>>()

  /** Loads a program, or holds on to what another has loaded. */
  const share = <I, S, O>(program: Program<I, S, O>, precision: Precision, watch: ReadonlyArray<string>) => {
    const versions = cache.get(program) ?? new Map<string, Shared>()
    cache.set(program, versions)
    const key = JSON.stringify([precision, watch])
    const hold = Effect.gen(function*() {
      const found = versions.get(key)
      if (found !== undefined) {
        found.holders++
        return found
      }
      const scope = yield* Scope.make()
      const loading = Effect.uninterruptible(Scope.provide(load(program, precision, watch), scope))
      const shared: Shared = { holders: 1, scope, loaded: yield* Effect.cached(loading) }
      versions.set(key, shared)
      return shared
    })
    const release = (shared: Shared) => Effect.suspend(() => {
      if (--shared.holders > 0) return Effect.void
      if (versions.get(key) === shared) versions.delete(key)
      return Scope.close(shared.scope, Exit.void)
    })
    return Effect.flatMap(Effect.acquireRelease(hold, release), ({ loaded }) => loaded)
  }

  const compile = Effect.fnUntraced(function*<I, S, O>(
    program: Program<I, S, O>, options: CompileOptions = {}
  ): Effect.fn.Return<Executable<I, S, O>, BackendError, Scope.Scope> {
    const { constants = new Map<string, AnyCell>(), precision = state.precision, watch = [] } = options
    yield* checkOptions(state, program, precision, watch)
    const frozen = yield* freeze(state, program, precision, constants)
    const loaded = frozen.values.size > 0
      ? yield* load(program, precision, watch, frozen)
      : yield* share(program, precision, watch)
    const paths = new Set(frozen.values.keys()) // what they hold is the session's from here on, or nobody's
    return executable(program, precision, loaded, paths)
  })

  const executable = <I, S, O>(
    program: Program<I, S, O>, precision: Precision, { compiled, lowered }: Loaded,
    frozen: ReadonlySet<string>
  ): Executable<I, S, O> => {
    const operation = `run ${program.name}`
    const bind: Executable<I, S, O>["bind"] = Effect.fnUntraced(function*(cells) {
      const held = yield* bindCells(state, program, precision, frozen, cells)
      yield* state.exclusively(`bind ${program.name}`, [...held.values()])(Effect.void) // fails where one was freed
      const written = new Set(program.writes.map(([path]) => path))
      const lent = new Map(yield* Effect.mapError(
        Effect.forEach(held, ([path, cell]) =>
          Effect.map(lend(cell, written.has(path)), (each) => [path, each] as const)),
        fromEngine(`bind ${program.name}`)
      ))
      const locate = (path: string): Lent["located"] => {
        const found = lent.get(path)
        if (found === undefined) throw new TypeError(`no cell ${path} was bound`)
        return found.located
      }
      const execution = yield* Effect.mapError(compiled.bind(locate), fromEngine(`bind ${program.name}`))
      const befores = [...lent.values()].flatMap(({ before }) => before ?? [])
      const afters = [...lent.values()].flatMap(({ after }) => after ?? [])
      const withStandIns = Effect.andThen(
        Effect.all(befores, { discard: true }), Effect.andThen(execution.run, Effect.all(afters, { discard: true }))
      )
      const hasStandIns = befores.length > 0
      const cellsHeld = [...held.values()]
      const exclusive = state.exclusively(operation, cellsHeld)(hasStandIns ? withStandIns : execution.run)
      const atOnce = hasStandIns ? undefined : execution.attempt
      const refused = fromEngine(operation, compiled.places)
      const buffers = yield* Semaphore.make(1) // a binding has one set of input and output buffers
      const once = (inputs: ReadonlyArray<Input>): Effect.Effect<void, BackendError> =>
        Effect.suspend(() => {
          for (const { path, value } of inputs) {
            const buffer = execution.inputs.get(path)
            if (buffer !== undefined) HostState.place(elementsOf(buffer), value)
          }
          const left = atOnce !== undefined && state.areFree(cellsHeld) ? atOnce() : undefined
          if (left === Effect.void) return Effect.void
          return Effect.mapError(left ?? exclusive, (error) => error instanceof EngineError ? refused(error) : error)
        })
      const checked = inputsOf(state, program)
      const runThen = <A, E, R>(given: unknown, use: () => Effect.Effect<A, E, R>) =>
        Effect.flatMap(checked(given), (inputs) =>
          buffers.withPermit(Effect.flatMap(once(inputs), use)))
      const copied = () => Effect.sync(() => collect(program, lowered, execution, (elements) => elements.slice()))
      const { outputs } = collect(program, lowered, execution, (elements) => elements)
      return {
        ...bound((given) => runThen(given, copied)),
        runWith: (given, use) => runThen(given, () => use(outputs))
      } satisfies Bound<I, O>
    })
    return { name: program.name, placement: { inPlace: compiled.inPlace, copied: compiled.copied }, bind }
  }

  return Backend.of({
    name,
    version: `onnxruntime ${engine.version} (${engine.name}${engine.provider === "cpu" ? "" : `, ${engine.provider}`})`,
    capabilities: {
      precisions: state.precisions, kernels: Object.keys(kernels).filter((kernel) => !decomposed.has(kernel)),
      threads: engine.threads,
      ...engine.weightsFile === undefined ? { constantBytes: largestGraph } : {},
      primitives: isWebGpu ? { ...composed, "unary sign": "composed", "logic or": "composed" } : composed,
      ...engine.provider === "cpu" ? {} : { device: engine.provider, unordered: ["scatter add"] }
    },
    live: Effect.zipWith(state.live, heldOnDevice, (allocations, pieces) => allocations + pieces + programs),
    allocate, read, write, copy, view, seal, compile
  })
}

/** The results of a run, each as `give` makes it of the elements that the engine wrote. */
const collect = <I, S, O>(
  program: Program<I, S, O>, lowered: Lowered, execution: Execution, give: (elements: Elements) => Elements
): Outcome<O> => {
  const given = (ports: ReadonlyArray<Port>, buffers: ReadonlyMap<string, Buffer>) =>
    new Map(ports.flatMap(({ name: path }) => {
      const buffer = buffers.get(path)
      return buffer === undefined ? [] : [[path, give(elementsOf(buffer))] as const]
    }))
  const { outputs, watched } = execution
  return outcome(program, lowered, given(lowered.outputs, outputs), given(lowered.watched, watched))
}

/**
 * The backend over whichever engine is provided; never shared, or a program that is given another engine inside would
 * get the backend of the outer one.
 */
export const layerNoDeps: Layer.Layer<Backend, EngineError, Engine> =
  Layer.fresh(Layer.effect(Backend, Effect.flatMap(Engine, make)))

/** The default: ONNX Runtime's C library, or its JavaScript API where that cannot load. */
export const layer = (options: Parameters<typeof engineLayer>[0] = {}): Layer.Layer<Backend, EngineError> =>
  layerNoDeps.pipe(Layer.provide(engineLayer(options)))
