/**
 * Makes sessions of a positional program and binds them to memory: whole, or a head and tiles.
 *
 * From     Cria's own.
 * Checked  backend/onnx/Execution.test.ts; every backend test on this layer.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type { Lowered, Port } from "../../tensor/Instruction.ts"
import type { Precision } from "../Backend.ts"
import { type Buffer, view } from "./Buffer.ts"
import { cellName, elementType, emit, inputName, outputName, watchName, writeName } from "./Emit.ts"
import type { EngineError } from "./EngineError.ts"
import { encodeModel } from "./ModelProto.ts"
import { placement } from "./Placement.ts"
import type { Interface, Run, Session } from "./Session.ts"
import { type Region, scalarName, tileSize, type Tiling } from "./Tiling.ts"

/** Where a cell lies: an arena, and the place of its elements there. */
export interface Located {
  readonly arena: Buffer
  readonly offset: number
  readonly length: number
}

/** A program bound to memory. Inputs are written into buffers, `run` runs, outputs are read from buffers. */
export interface Execution {
  readonly inputs: ReadonlyMap<string, Buffer>
  readonly outputs: ReadonlyMap<string, Buffer>
  readonly watched: ReadonlyMap<string, Buffer>
  readonly run: Effect.Effect<void, EngineError>
}

/** A compiled program. */
export interface Compiled {
  readonly inPlace: ReadonlyArray<string>
  readonly copied: ReadonlyArray<string>
  readonly bind: (locate: (cell: string) => Effect.Effect<Located, EngineError>) => Effect.Effect<Execution, EngineError, Scope.Scope>
}

const load = (engine: Interface, lowered: Lowered, precision: Precision, constants: ReadonlyMap<string, Uint8Array>) => {
  const { graph, shapes } = emit(lowered, precision, constants)
  // a level below "all" in float64: there a fusion of x σ(x) into an operator that has no such kernel makes loading fail
  return Effect.map(engine.createSession(encodeModel(graph), { optimization: precision === "f32" ? "all" : "basic" }), (session) => ({ session, shapes }))
}

/** Compiles a program into one session. */
export const whole = Effect.fnUntraced(function*(
  engine: Interface, lowered: Lowered, precision: Precision, constants: ReadonlyMap<string, Uint8Array>
): Effect.fn.Return<Compiled, EngineError, Scope.Scope> {
  const { copied, inPlace } = placement(lowered)
  const { session, shapes } = yield* load(engine, lowered, precision, constants)
  const bind: Compiled["bind"] = Effect.fnUntraced(function*(locate) {
    const inputs: Record<string, Buffer> = {}
    const outputs: Record<string, Buffer> = {}
    const shapeOf = (port: Port, name: string) => shapes.get(name) ?? lowered.values[port.value]?.shape ?? []
    const typeOf = (port: Port) => elementType(lowered.values[port.value]?.kind ?? "real", precision)
    const fresh = Effect.fnUntraced(function*(ports: ReadonlyArray<Port>, name: (port: Port) => string, into: Record<string, Buffer>, used: ReadonlyArray<string>) {
      const byPort = new Map<string, Buffer>()
      for (const port of ports) {
        const buffer = yield* engine.allocate(typeOf(port), shapeOf(port, name(port)))
        byPort.set(port.name, buffer)
        if (used.includes(name(port))) into[name(port)] = buffer
      }
      return byPort
    })
    const given = yield* fresh(lowered.inputs, inputName, inputs, session.inputs)
    const results = yield* fresh(lowered.outputs, outputName, outputs, session.outputs)
    const watched = yield* fresh(lowered.watched, watchName, outputs, session.outputs)
    for (const port of lowered.cells) {
      if (!session.inputs.includes(cellName(port))) continue
      const { arena, offset } = yield* locate(port.name)
      inputs[cellName(port)] = yield* view(arena, offset, shapeOf(port, cellName(port)))
    }
    const copies: Array<readonly [from: Buffer, to: Buffer]> = []
    for (const port of lowered.writes) {
      const { arena, offset } = yield* locate(port.name)
      const target = yield* view(arena, offset, shapeOf(port, writeName(port)))
      const buffer = inPlace.has(port.name) ? target : yield* engine.allocate(target.type, target.sizes)
      if (buffer !== target) copies.push([buffer, target])
      outputs[writeName(port)] = buffer
    }
    const bound = yield* session.bind({ inputs, outputs })
    const run = copies.length === 0 ? bound.run : Effect.andThen(bound.run, Effect.sync(() => copies.forEach(([from, to]) => to.bytes.set(from.bytes))))
    return { inputs: given, outputs: results, watched, run }
  })
  return { inPlace: [...inPlace], copied: [...copied], bind }
})

/** Compiles an elementwise update into a head and tiles. */
export const tiled = Effect.fnUntraced(function*(
  engine: Interface, { head, regions }: Tiling, lowered: Lowered, precision: Precision, constants: ReadonlyMap<string, Uint8Array>
): Effect.fn.Return<Compiled, EngineError, Scope.Scope> {
  const scope = yield* Effect.scope
  const first = head.outputs.length === 0 ? undefined : yield* whole(engine, head, precision, constants)
  const sessions = new Map<string, Session>()
  const sessionFor = Effect.fnUntraced(function*(region: Region, length: number) {
    const key = `${length} ${region.structure}`
    const found = sessions.get(key)
    if (found !== undefined) return found
    const { session } = yield* Scope.provide(load(engine, region.program(length), precision, new Map()), scope)
    sessions.set(key, session)
    return session
  })
  const bind: Compiled["bind"] = Effect.fnUntraced(function*(locate) {
    const execution: Execution = first === undefined
      ? { inputs: yield* inputBuffers(engine, lowered, precision), outputs: new Map(), watched: new Map(), run: Effect.void }
      : yield* first.bind(locate)
    const scalars = new Map<number, Buffer>()
    for (const { name, value } of lowered.inputs) scalars.set(value, execution.inputs.get(name) ?? (yield* engine.allocate(precision, [])))
    for (const { name, value } of head.outputs) {
      const buffer = execution.outputs.get(name)
      if (name === scalarName(value) && buffer !== undefined) scalars.set(value, buffer)
    }
    const runs: Array<Run> = []
    for (const range of ranges(yield* Effect.forEach(regions, (region) => located(region, locate)))) {
      for (let start = 0; start < range.length; start += tileSize) {
        const length = Math.min(tileSize, range.length - start)
        const session = yield* sessionFor(range.region, length)
        const inputs: Record<string, Buffer> = {}
        const outputs: Record<string, Buffer> = {}
        for (const [i, value] of range.region.scalars.entries()) {
          const buffer = scalars.get(value)
          if (buffer !== undefined && session.inputs.includes(`input:${scalarName(i)}`)) inputs[`input:${scalarName(i)}`] = buffer
        }
        for (const [i, slot] of range.slots.entries()) {
          const buffer = yield* view(slot.arena, slot.offset + start, [length])
          if (session.inputs.includes(`cell:slot:${i}`)) inputs[`cell:slot:${i}`] = buffer
          if (session.outputs.includes(`write:slot:${i}`)) outputs[`write:slot:${i}`] = buffer
        }
        runs.push(yield* session.bind({ inputs, outputs }))
      }
    }
    return { ...execution, run: Effect.andThen(execution.run, runTiles(runs)) }
  })
  return { inPlace: lowered.writes.map(({ name }) => name), copied: [], bind }
})

const inputBuffers = Effect.fnUntraced(function*(engine: Interface, lowered: Lowered, precision: Precision) {
  const buffers = new Map<string, Buffer>()
  for (const { name, value } of lowered.inputs) {
    const { kind, shape } = lowered.values[value] ?? { kind: "real", shape: [] }
    buffers.set(name, yield* engine.allocate(elementType(kind, precision), shape))
  }
  return buffers
})

/** Tiles run at once, a few at a time, so that the event loop turns every few milliseconds. */
const runTiles = (runs: ReadonlyArray<Run>): Effect.Effect<void, EngineError> =>
  Effect.forEach(chunks(runs, 8), (part) =>
    Effect.andThen(Effect.try({ try: () => part.forEach((run) => run.runSync()), catch: (error) => error as EngineError }), Effect.yieldNow), { discard: true })

const chunks = <X>(items: ReadonlyArray<X>, length: number): ReadonlyArray<ReadonlyArray<X>> =>
  Array.from({ length: Math.ceil(items.length / length) }, (_, i) => items.slice(i * length, (i + 1) * length))

interface Range {
  readonly region: Region
  readonly slots: ReadonlyArray<Located>
  readonly length: number
}

const located = Effect.fnUntraced(function*(region: Region, locate: (cell: string) => Effect.Effect<Located, EngineError>) {
  const slots = yield* Effect.forEach(region.slots, locate)
  return { region, slots, length: slots[0]?.length ?? 0 }
})

/** Neighbours in memory with one structure become one range; the padding between them is updated too, which harms nobody. */
const ranges = (parts: ReadonlyArray<Range>): ReadonlyArray<Range> => {
  const joined: Array<Range> = []
  for (const next of parts.toSorted((a, b) => a.region.structure < b.region.structure ? -1 : a.region.structure > b.region.structure ? 1 : (a.slots[0]?.offset ?? 0) - (b.slots[0]?.offset ?? 0))) {
    const last = joined.at(-1)
    const step = (next.slots[0]?.offset ?? 0) - (last?.slots[0]?.offset ?? 0)
    const follows = last !== undefined && last.region.structure === next.region.structure && step >= last.length && step < last.length + 16 &&
      last.slots.every((slot, i) => slot.arena === next.slots[i]?.arena && next.slots[i].offset - slot.offset === step)
    if (follows) joined[joined.length - 1] = { ...last, length: step + next.length }
    else joined.push(next)
  }
  return joined
}

