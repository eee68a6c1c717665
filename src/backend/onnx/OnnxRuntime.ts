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
import type { Lowered } from "../../tensor/Instruction.ts"
import type { Kind } from "../../tensor/Node.ts"
import * as Program from "../../tensor/Program.ts"
import { leaves } from "../../tensor/Specification.ts"
import { entries, mapAs } from "../../tensor/Tree.ts"
import { isTensor } from "../../tensor/Node.ts"
import {
  Backend, BackendError, type Bound, type CompileOptions, type Elements, type Executable, type Outcome, type Precision, type Results, type Values
} from "../Backend.ts"
import * as HostState from "../HostState.ts"
import type { Buffer } from "./Buffer.ts"
import { Engine, layer as engineLayer } from "./Engine.ts"
import type { EngineError } from "./EngineError.ts"
import { type Compiled, type Located, tiled, whole } from "./Execution.ts"
import { hasKernel, kernels } from "./Kernel.ts"
import type { ElementType } from "./ModelProto.ts"
import type { Interface } from "./Session.ts"
import { tiling } from "./Tiling.ts"

const elementTypes: Record<HostState.Storage, ElementType> = { f32: "f32", f64: "f64", id: "i32", truth: "bool" }

const name = "onnxruntime"

const fromEngine = (operation: string) => (error: EngineError): BackendError =>
  new BackendError({ backend: name, operation, detail: error.message, remedy: `reason ${error.reason}` })

/** The elements of a buffer, as cells and values show them. */
const elementsOf = (buffer: Buffer): Elements => {
  const { data } = buffer
  if (data instanceof Float32Array || data instanceof Float64Array || data instanceof Int32Array || data instanceof Uint8Array) return data
  throw new TypeError(`a ${buffer.type} buffer holds no elements of a program`)
}

const make = Effect.fnUntraced(function*(engine: Interface): Effect.fn.Return<typeof Backend.Service, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const arenas = new WeakMap<Elements, Buffer>()
  const memory: HostState.Memory = (storage, count) => {
    const buffer = Effect.runSync(engine.allocate(elementTypes[storage], [count]))
    const elements = elementsOf(buffer)
    arenas.set(elements, buffer)
    return elements
  }
  const host = HostState.make({ backend: name, precisions: ["f32", "f64"], precision: "f32", memory })
  const cache = new WeakMap<object, Map<string, { readonly lowered: Lowered; readonly compiled: Compiled }>>()

  const build = Effect.fnUntraced(function*(lowered: Lowered, precision: Precision, constants: ReadonlyMap<string, Uint8Array>) {
    const plan = tiling(lowered)
    return plan === undefined ? yield* whole(engine, lowered, precision, constants) : yield* tiled(engine, plan, lowered, precision, constants)
  })

  const compile = <I, S, O>(program: Program.Program<I, S, O>, options: CompileOptions = {}): Effect.Effect<Executable<I, S, O>, BackendError, Scope.Scope> =>
    Effect.gen(function*() {
      const operation = `compile ${program.name}`
      const precision = options.precision ?? host.precision
      const watch = options.watch ?? []
      const unknown = watch.filter((label) => !Program.labels(program).includes(label))
      if (unknown.length > 0) {
        return yield* host.fail(operation, `no label ${unknown.map((label) => `"${label}"`).join(", ")}`,
          `Labels of this program: ${Program.labels(program).join(", ") || "none"}.`)
      }
      const frozen = yield* Effect.forEach(options.constants ?? [], ([path, cell]) =>
        Effect.flatMap(host.resolve(operation, cell), (held) =>
          host.exclusively(operation, [held])(Effect.sync(() => [path, new Uint8Array(held.elements.slice().buffer)] as const))))
      const lowerNow = () => Program.lower(program, { hasKernel: precision === "f32" ? hasKernel : () => false, watch })
      const loading = (lowered: Lowered) => Effect.mapError(build(lowered, precision, new Map(frozen)), fromEngine(operation))
      if (frozen.length > 0) {
        const lowered = lowerNow()
        return executable(program, precision, lowered, yield* loading(lowered), new Set(frozen.map(([path]) => path)))
      }
      const key = `${precision} ${watch.join()}`
      const versions = cache.get(program) ?? new Map<string, { readonly lowered: Lowered; readonly compiled: Compiled }>()
      cache.set(program, versions)
      const known = versions.get(key)
      if (known !== undefined) return executable(program, precision, known.lowered, known.compiled, new Set())
      const lowered = lowerNow()
      const compiled = yield* Scope.provide(loading(lowered), scope)
      versions.set(key, { lowered, compiled })
      return executable(program, precision, lowered, compiled, new Set())
    })

  const executable = <I, S, O>(
    program: Program.Program<I, S, O>, precision: Precision, lowered: Lowered, compiled: Compiled, frozen: ReadonlySet<string>
  ): Executable<I, S, O> => {
    const operation = `run ${program.name}`
    const bind: Executable<I, S, O>["bind"] = Effect.fnUntraced(function*(cells) {
      const given = new Map(entries(cells, HostState.isCell))
      const wanted = leaves(program.state).filter(([path]) => !frozen.has(path))
      const held = new Map<string, HostState.Held>()
      for (const [path, specification] of wanted) {
        const cell = given.get(path)
        const fits = cell !== undefined && cell.kind === specification.kind && HostState.sameSizes(cell.sizes, specification.sizes) &&
          (cell.kind !== "real" || cell.precision === precision)
        if (!fits) {
          return yield* host.fail(`bind ${program.name}`,
            `cell ${path} must be ${specification.kind} ${JSON.stringify(specification.sizes)}${specification.kind === "real" ? ` in ${precision}` : ""}, ` +
              (cell === undefined ? "none was given" : `but is ${cell.kind} ${JSON.stringify(cell.sizes)} in ${cell.precision}`),
            "Bind cells that were allocated from this program's specification, with the precision it is compiled for.")
        }
        held.set(path, yield* host.resolve(`bind ${program.name}`, cell))
      }
      const locate = (path: string): Effect.Effect<Located> => Effect.sync(() => {
        const found = held.get(path)
        const arena = found?.allocation.arenas.get(found.storage)
        const buffer = arena === undefined ? undefined : arenas.get(arena)
        if (found === undefined || buffer === undefined) throw new TypeError(`no memory behind cell ${path}`)
        return { arena: buffer, offset: found.start, length: found.elements.length }
      })
      const execution = yield* Effect.mapError(compiled.bind(locate), fromEngine(`bind ${program.name}`))
      const touched = [...held.values()].filter(({ cell }) => lowered.cells.some(({ name: path }) => held.get(path)?.cell === cell))
      const inputs = leaves(program.inputs)
      const exclusively = host.exclusively(operation, touched)
      const attempt = (values: unknown): Effect.Effect<void, BackendError> => Effect.suspend(() => {
        const provided = new Map(entries(values, isGiven))
        for (const [path, { kind, sizes }] of inputs) {
          const value = provided.get(path)
          const problem = value === undefined ? "was not given" : typeof value === "object" ? HostState.misfit(kind, sizes, value)
            : (typeof value === "boolean") === (kind === "truth") ? undefined : `is ${kind}, but ${String(value)} was given`
          if (problem !== undefined) return host.fail(operation, `input ${path}: ${problem}`, "Elements lie in the order of the keys of the input's sizes.")
        }
        for (const [path] of inputs) {
          const value = provided.get(path)
          const buffer = execution.inputs.get(path)
          if (buffer !== undefined && value !== undefined) HostState.place(elementsOf(buffer), typeof value === "boolean" ? Number(value) : value)
        }
        return Effect.mapError(execution.run, fromEngine(operation))
      })
      const collect = (): Outcome<O> => ({
        outputs: mapAs<Results<O>>()(program.outputs, isTensor, (tensor, path): Values<string, Kind> => {
          const buffer = execution.outputs.get(path)
          return HostState.toValues(tensor.sizes, tensor.kind, buffer === undefined ? new Float32Array() : elementsOf(buffer))
        }),
        watched: Object.fromEntries(lowered.watched.map(({ name: label, sizes, value }) => {
          const kind = lowered.values[value]?.kind ?? "real"
          const buffer = execution.watched.get(label)
          return [label, HostState.toValues(sizes, kind, buffer === undefined ? new Float32Array() : elementsOf(buffer))]
        }))
      })
      // one run at a time through these buffers: a second waits for the locks, or for the first where there are no cells
      const run = (values: unknown): Effect.Effect<Outcome<O>, BackendError> => exclusively(single.withPermit(Effect.map(attempt(values), collect)))
      const single = yield* Effect.sync(() => Semaphore.makeUnsafe(1))
      return { run: (values) => Effect.map(run(values), ({ outputs }) => outputs), watch: run } satisfies Bound<I, O>
    })
    return { name: program.name, placement: { inPlace: compiled.inPlace, copied: compiled.copied }, bind }
  }

  return {
    name,
    version: `onnxruntime ${engine.version} (${engine.name})`,
    capabilities: { precisions: host.precisions, kernels: Object.keys(kernels), threads: engine.threads },
    allocate: host.allocate, read: host.read, write: host.write, copy: host.copy, view: host.view, compile
  }
})

const isGiven = (value: unknown): value is Elements | number | boolean =>
  typeof value === "number" || typeof value === "boolean" || ArrayBuffer.isView(value)

/** The backend over whichever engine is provided. */
export const layerNoDeps: Layer.Layer<Backend, never, Engine> = Layer.effect(Backend, Effect.flatMap(Engine, make))

/** The default: ONNX Runtime's C library, or its JavaScript API where that cannot load. */
export const layer = (options: Parameters<typeof engineLayer>[0] = {}): Layer.Layer<Backend, EngineError> =>
  layerNoDeps.pipe(Layer.provide(engineLayer(options)))
