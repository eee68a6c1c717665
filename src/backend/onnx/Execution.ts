/**
 * Makes sessions of a positional program and binds them to memory: whole, or a head and tiles.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/Execution.test.ts; test/backend/onnx/Tiling.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type { Lowered, Port } from "../../tensor/Instruction.ts"
import type { Precision } from "../Backend.ts"
import { type Buffer, isRemote, over, type Remote, view } from "./Buffer.ts"
import { onHost } from "./Detour.ts"
import { type DeviceMemory, exchange, type Slot } from "./DeviceMemory.ts"
import { cellName, emit, inputName, outputName, watchName, writeName } from "./Emit.ts"
import { EngineError, failure } from "./EngineError.ts"
import { handOver } from "./HandedWeights.ts"
import { type ElementType, encodeModel } from "./ModelProto.ts"
import { placement } from "./Placement.ts"
import type { Interface, Run, Session } from "./Session.ts"
import { type Region, type Tiling, tiling } from "./Tiling.ts"
import { elementType, type Pack } from "./Writer.ts"

/** Where a cell lies in memory of the host: an arena, and a place there, at a multiple of 64 bytes. */
export interface Located {
  readonly arena: Buffer
  readonly offset: number
  readonly length: number
}

/** Where a cell lies that is on a device. */
export interface OnDevice extends Pick<DeviceMemory, "reserve"> {
  readonly slot: Slot
}

type Locate = (cell: string) => Located | OnDevice

/** A program bound to memory. Inputs are written into buffers, `run` runs, outputs are read from buffers. */
export interface Execution {
  readonly inputs: ReadonlyMap<string, Buffer>
  readonly outputs: ReadonlyMap<string, Buffer>
  readonly watched: ReadonlyMap<string, Buffer>
  readonly run: Effect.Effect<void, EngineError>
  /** See `Session`; absent where a run is more than one of a session's. */
  readonly attempt?: Run["attempt"]
}

/** A compiled program. */
export interface Compiled {
  /** Cells whose new value is written over the old one, and cells whose new value is copied there when a run ends. */
  readonly inPlace: ReadonlyArray<string>
  readonly copied: ReadonlyArray<string>
  /** The instruction behind each node that an error may name. */
  readonly places: ReadonlyMap<string, string>
  readonly bind: (locate: Locate) => Effect.Effect<Execution, EngineError>
}

/** What programs that hold the same constants share. */
export interface Shared {
  /** What stands for the constants: with the same one, what the engine packs of them is there once. */
  readonly sharing?: object
  /** Where products are operators of our own: what packs weights for them. */
  readonly pack?: Pack
}

/** Compiles a program; `constants` holds the bytes of cells that are frozen. */
export const compile = (
  engine: Interface, lowered: Lowered, precision: Precision, constants: ReadonlyMap<string, Uint8Array>,
  shared: Shared = {}
): Effect.Effect<Compiled, EngineError, Scope.Scope> => {
  // tiles pay where an update waits for memory; to a device each would be copied by itself
  const plan = engine.provider === "cpu" ? tiling(lowered, new Set(constants.keys())) : undefined
  return plan === undefined
    ? whole(engine, lowered, precision, constants, shared)
    : tiled(engine, plan, precision, constants, shared)
}

/** The engine reads graphs of less than 2 GiB; a little is left for the rest. */
export const largestGraph = 2 ** 31 - 2 ** 24

const load = Effect.fnUntraced(function*(
  engine: Interface, lowered: Lowered, precision: Precision, constants: ReadonlyMap<string, Uint8Array>,
  shared: Shared = {}
) {
  const { pack, sharing } = shared
  const machine = pack === undefined ? undefined : { threads: engine.threads, pack }
  const emitted = yield* Effect.try({
    try: () => emit(lowered, precision, constants, engine.provider, machine),
    catch: (cause) => cause instanceof EngineError ? cause : failure("BadModel", "createSession", cause)
  })
  const { graph, weights } = engine.weightsFile === undefined
    ? { graph: emitted.graph, weights: [] }
    : handOver(emitted.graph, engine.weightsFile)
  const inside = graph.initializers.reduce((total, { bytes }) => total + bytes.length, 0)
  if (inside >= largestGraph) {
    return yield* failure("GraphTooLarge", "createSession",
      `the constants have ${inside} bytes together; a graph takes less than ${largestGraph}`)
  }
  const model = yield* Effect.try({
    try: () => encodeModel(graph),
    catch: (cause) => failure("BadModel", "createSession", cause)
  })
  const handed = new Map(weights.map(({ bytes, name, sizes, type }) => [name, over(type, sizes, bytes)]))
  // In float64 not all rewrites: one makes x σ(x) an operator that has no such kernel, and loading would fail.
  const session = yield* engine.createSession(model, {
    optimization: precision === "f32" ? "all" : "basic",
    weights: handed,
    operators: emitted.operators,
    ...sharing === undefined ? {} : { sharing },
    ...engine.provider === "webgpu" ? { onHost: onHost(emitted.graph) } : {}
  })
  return { ...emitted, session }
})

const whole = Effect.fnUntraced(function*(
  engine: Interface, lowered: Lowered, precision: Precision, constants: ReadonlyMap<string, Uint8Array>,
  shared: Shared = {}
): Effect.fn.Return<Compiled, EngineError, Scope.Scope> {
  const count = lowered.outputs.length + lowered.writes.length + lowered.watched.length
  if (count === 0) return nothing(engine, lowered, precision)
  const { cleared, graph, places, session, shapes } = yield* load(engine, lowered, precision, constants, shared)
  const { copied, inPlace } = placement(graph, lowered.writes, engine.provider !== "cpu")
  const shapeOf = ({ value }: Port, name: string) => shapes.get(name) ?? lowered.values[value]?.shape ?? []
  const makeBuffers = (ports: ReadonlyArray<Port>, nameOf: (port: Port) => string) =>
    buffersOf(engine, lowered, precision, ports, (port) => shapeOf(port, nameOf(port)))
  const bind: Compiled["bind"] = Effect.fnUntraced(function*(locate) {
    const given = yield* makeBuffers(lowered.inputs, inputName)
    const results = yield* makeBuffers(lowered.outputs, outputName)
    const watched = yield* makeBuffers(lowered.watched, watchName)
    const buffers = new Map<string, Buffer | Remote | undefined>([
      ...lowered.inputs.map((port) => [inputName(port), given.get(port.name)] as const),
      ...lowered.outputs.map((port) => [outputName(port), results.get(port.name)] as const),
      ...lowered.watched.map((port) => [watchName(port), watched.get(port.name)] as const)
    ])
    const typeOf = ({ value }: Port) => elementType(lowered.values[value]?.kind ?? "real", precision)
    for (const port of lowered.cells) {
      if (!session.inputs.includes(cellName(port))) continue // not read, or frozen
      const shape = shapeOf(port, cellName(port))
      buffers.set(cellName(port), (yield* target(locate(port.name), typeOf(port), shape)).present)
    }
    const settled: Array<() => void> = []
    for (const port of lowered.writes) {
      const { apart, present } = yield* target(locate(port.name), typeOf(port), shapeOf(port, writeName(port)))
      if (inPlace.includes(port.name)) {
        buffers.set(writeName(port), present)
        continue
      }
      const { buffer, settle } = yield* apart(engine)
      settled.push(settle)
      buffers.set(writeName(port), buffer)
    }
    const { attempt, run } = yield* bindSession(session, buffers)
    const zeros = lowered.cells.flatMap((port) => {
      const buffer = cleared.includes(port.name) ? buffers.get(cellName(port)) : undefined
      return buffer === undefined || isRemote(buffer) ? [] : [buffer]
    })
    const clear = Effect.sync(() => zeros.forEach(({ bytes }) => bytes.fill(0)))
    const settle = Effect.sync(() => settled.forEach((each) => each()))
    const all = Effect.andThen(Effect.andThen(clear, run), settle)
    const isBare = zeros.length + settled.length === 0
    return { inputs: given, outputs: results, watched, ...isBare ? { run, attempt } : { run: all } }
  })
  return { inPlace, copied, places, bind }
})

/** Where the new value of a cell is written. */
interface Target {
  /** The memory of the old one. */
  readonly present: Buffer | Remote
  /** Other memory, and how the cell comes to hold what was written there. */
  readonly apart: (engine: Interface) => Effect.Effect<
    { readonly buffer: Buffer | Remote; readonly settle: () => void }, EngineError
  >
}

const target = (
  located: Located | OnDevice, type: ElementType, sizes: ReadonlyArray<number>
): Effect.Effect<Target, EngineError> => {
  if (!("slot" in located)) {
    return Effect.map(view(located.arena, located.offset, sizes), (present) => ({
      present,
      apart: (engine) => Effect.map(engine.allocate(present.type, sizes), (buffer) =>
        ({ buffer, settle: () => present.bytes.set(buffer.bytes) }))
    }))
  }
  const { reserve, slot } = located
  return Effect.succeed({
    present: { type, sizes, address: () => slot.now },
    apart: () => Effect.as(reserve(slot), {
      buffer: { type, sizes, address: () => slot.next }, settle: () => exchange(slot)
    })
  })
}

/** Fresh buffers for some ports, by name. */
const buffersOf = Effect.fnUntraced(function*(
  engine: Interface, { values }: Lowered, precision: Precision, ports: ReadonlyArray<Port>,
  shapeOf: (port: Port) => ReadonlyArray<number>
) {
  const buffers = new Map<string, Buffer>()
  for (const port of ports) {
    const type = elementType(values[port.value]?.kind ?? "real", precision)
    buffers.set(port.name, yield* engine.allocate(type, shapeOf(port)))
  }
  return buffers
})

/** A program without results: it takes its inputs. */
const nothing = (engine: Interface, lowered: Lowered, precision: Precision): Compiled => ({
  inPlace: [],
  copied: [],
  places: new Map(),
  bind: () => Effect.map(
    buffersOf(engine, lowered, precision, lowered.inputs, ({ value }) => lowered.values[value]?.shape ?? []),
    (inputs) => ({ inputs, outputs: new Map(), watched: new Map(), run: Effect.void })
  )
})

/** Binds a session to those of some buffers that it asks for. */
const bindSession = (
  session: Session, buffers: ReadonlyMap<string, Buffer | Remote | undefined>
): Effect.Effect<Run, EngineError> => {
  const chosen = (names: ReadonlyArray<string>): Record<string, Buffer | Remote> =>
    Object.fromEntries(names.flatMap((name) => {
      const buffer = buffers.get(name)
      return buffer === undefined ? [] : [[name, buffer] as const]
    }))
  return session.bind({ inputs: chosen(session.inputs), outputs: chosen(session.outputs) })
}

/** Elements in a tile, more or less: few enough for the cache, so many that an operator runs on all threads. */
export const tileSize = 262_144

/** Equal tiles, each but the last a multiple of 64 elements, so that each starts at a multiple of 64 bytes. */
const tilesOf = (length: number): ReadonlyArray<readonly [start: number, length: number]> => {
  const step = Math.ceil(length / Math.max(1, Math.round(length / tileSize)) / 64) * 64
  return Array.from({ length: Math.ceil(length / step) || 0 }, (_, i) => [i * step, Math.min(step, length - i * step)])
}

const tiled = Effect.fnUntraced(function*(
  engine: Interface, { head, regions }: Tiling, precision: Precision, constants: ReadonlyMap<string, Uint8Array>,
  shared: Shared = {}
): Effect.fn.Return<Compiled, EngineError, Scope.Scope> {
  const scope = yield* Effect.scope
  const first = yield* whole(engine, head, precision, constants, shared)
  const sessions = new Map<string, Session>()
  const sessionFor = Effect.fnUntraced(function*({ program, structure }: Region, length: number) {
    const key = `${length} ${structure}`
    const found = sessions.get(key)
    if (found !== undefined) return found
    const { session } = yield* Scope.provide(load(engine, program(length), precision, new Map()), scope)
    sessions.set(key, session)
    return session
  })
  const bind: Compiled["bind"] = Effect.fnUntraced(function*(locate) {
    const execution = yield* first.bind(locate)
    const scalars = new Map([
      ...head.inputs.map(({ name, value }) => [value, execution.inputs.get(name)] as const),
      ...head.watched.map(({ name, value }) => [value, execution.watched.get(name)] as const)
    ])
    const runs: Array<Run> = []
    for (const { length, region, slots } of joined(regions.map((region) => rangeOf(region, locate)))) {
      const given = region.scalars.map((value, i) => [`input:${i}`, scalars.get(value)] as const)
      for (const [start, size] of tilesOf(length)) {
        const session = yield* sessionFor(region, size)
        const parts = yield* Effect.forEach(slots, ({ arena, offset }) => view(arena, offset + start, [size]))
        runs.push(yield* bindSession(session, new Map([
          ...given, ...parts.flatMap((part, i) => [[`cell:${i}`, part], [`write:${i}`, part]] as const)
        ])))
      }
    }
    const { inputs, outputs, watched } = execution
    return { inputs, outputs, watched, run: Effect.andThen(execution.run, runTiles(runs)) }
  })
  return { ...first, inPlace: [...first.inPlace, ...regions.flatMap(({ writes }) => writes)], bind }
})

/** Tiles run at once, a few at a time, so that the event loop turns every few milliseconds. */
const runTiles = (runs: ReadonlyArray<Run>): Effect.Effect<void, EngineError> =>
  Effect.forEach(chunks(runs, 8), (part) =>
    Effect.andThen(
      Effect.try({
        try: () => part.forEach((run) => run.runSync()),
        catch: (error) => error instanceof EngineError ? error : failure("RunFailed", "runSync", error)
      }),
      Effect.yieldNow
    ), { discard: true })

const chunks = <X>(items: ReadonlyArray<X>, length: number): ReadonlyArray<ReadonlyArray<X>> =>
  Array.from({ length: Math.ceil(items.length / length) }, (_, i) => items.slice(i * length, (i + 1) * length))

/** A region in memory. */
interface Range {
  readonly region: Region
  readonly slots: ReadonlyArray<Located>
  readonly length: number
}

const rangeOf = (region: Region, locate: Locate): Range => {
  const slots = region.slots.map((cell) => {
    const located = locate(cell)
    if ("slot" in located) throw new TypeError(`cell ${cell} lies on a device, where nothing is tiled`)
    return located
  })
  return { region, slots, length: slots[0]?.length ?? 0 }
}

/** Ranges of one structure, each slot of the one ending where that of the next begins, become one. */
const joined = (ranges: ReadonlyArray<Range>): ReadonlyArray<Range> => {
  const result: Array<Range> = []
  const start = ({ slots }: Range): number => slots[0]?.offset ?? 0
  for (const next of ranges.toSorted((left, right) => start(left) - start(right))) {
    const index = result.findIndex(({ length, region, slots }) => region.structure === next.region.structure &&
      slots.every(({ arena, offset }, i) => arena === next.slots[i]?.arena && offset + length === next.slots[i].offset))
    const before = result[index]
    if (before === undefined) result.push(next)
    else result[index] = { ...before, length: before.length + next.length }
  }
  return result
}
