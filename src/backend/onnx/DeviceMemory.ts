/**
 * Cells on the device of a provider: each has memory of its own there, and a second piece for its next value where a
 * program cannot write over the old one.
 *
 * What is put, read or copied passes through small graphs over words of 32 bits, whatever the cell holds. A device has
 * no addresses within its memory, so a view of a cell is a copy of that stretch for the time of a run; one that is not
 * made of whole words goes through the host.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/DeviceMemory.test.ts; test/backend/onnx/Provider.test.ts (where a provider starts).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type { BackendError, Elements } from "../Backend.ts"
import * as DevicePlace from "../DevicePlace.ts"
import { type Access, bytes, place, type Storage } from "../HostState.ts"
import type { Buffer, Remote } from "./Buffer.ts"
import { type EngineError, failure } from "./EngineError.ts"
import { encodeModel, type Graph, type Node, type Value } from "./ModelProto.ts"
import type { Interface, Session } from "./Session.ts"

/** Memory of a cell. */
export interface Slot extends DevicePlace.Slot {
  /** Where it lies; 0 before there was anything to put there. */
  now: number
  /** Where a run writes its next value; 0 where none did. */
  next: number
  /** What stands for a stretch of it while a program runs, by start and length. */
  readonly standIns: Map<string, Slot>
}

/** Cells that are freed together, or a stretch of one of them. */
export type Place = DevicePlace.Place<Slot>

type Part = DevicePlace.Part<Slot>

/** A slot for the time of a binding, and what each run does before and after where it stands for a part. */
export interface Loan {
  readonly slot: Slot
  readonly before?: Effect.Effect<void, EngineError>
  readonly after?: Effect.Effect<void, EngineError>
}

/** The memory of a device, and what programs need of it. */
export interface DeviceMemory extends Access<Place> {
  readonly borrow: (place: Place) => Effect.Effect<Loan, EngineError>
  /** Makes room for the next value of a slot. */
  readonly reserve: (slot: Slot) => Effect.Effect<void, EngineError>
  /** How many pieces of memory are held. */
  readonly held: Effect.Effect<number>
}

/** The next value becomes the present one. */
export const exchange = (slot: Slot): void => {
  [slot.now, slot.next] = [slot.next, slot.now]
}

/** Words of memory behind so many elements. */
const wordsOf = (storage: Storage, length: number): number => Math.ceil(length * bytes[storage] / 4)

const isWhole = ({ length, slot }: Part): boolean => length === slot.length

/** Does a part consist of whole words? */
const isOfWords = ({ length, slot, start }: Part): boolean =>
  (start * bytes[slot.storage]) % 4 === 0 && (length * bytes[slot.storage]) % 4 === 0

/** What a word is read as: WebGPU has no kernel that cuts integers, and what computes on floats could change them. */
type Word = "i32" | "f32"

const wordOf = (storage: Storage): Word => storage === "f32" ? "f32" : "i32"

/** A graph over words in a row; its other inputs count words. */
const graphOf = (
  word: Word, rows: ReadonlyArray<string>, counts: ReadonlyArray<string>, nodes: ReadonlyArray<Node>
): Graph => {
  const row = (name: string): Value => ({ name, type: word, sizes: [-1] })
  const inputs = [...rows.map(row), ...counts.map((name): Value => ({ name, type: "i64", sizes: [1] }))]
  return { name: "words", inputs, nodes, outputs: [row("y")], initializers: [] }
}

const moving = graphOf("i32", ["x"], [], [{ op: "Identity", inputs: ["x"], outputs: ["y"] }])

const cutting = (word: Word): Graph => graphOf(word, ["x"], ["start", "end"], [
  { op: "Slice", inputs: ["x", "start", "end"], outputs: ["y"] }
])

const joining = (word: Word): Graph => graphOf(word, ["x", "part"], ["zero", "start", "end", "size"], [
  { op: "Slice", inputs: ["x", "zero", "start"], outputs: ["left"] },
  { op: "Slice", inputs: ["x", "end", "size"], outputs: ["right"] },
  { op: "Concat", inputs: ["left", "part", "right"], outputs: ["y"], attributes: { axis: { int: 0 } } }
])

/** The elements of a storage over memory of the host. */
const elementsOver = (storage: Storage, { bytes: { buffer, byteOffset } }: Buffer, length: number): Elements => {
  switch (storage) {
    case "f32":
      return new Float32Array(buffer, byteOffset, length)
    case "f64":
      return new Float64Array(buffer, byteOffset, length)
    case "id":
      return new Int32Array(buffer, byteOffset, length)
    case "truth":
    case "code":
      return new Uint8Array(buffer, byteOffset, length)
  }
}

/** The memory of an engine's device; `refused` says of what the engine's failures are failures. */
export const make = Effect.fnUntraced(function*(
  engine: Interface, refused: (operation: string) => (error: EngineError) => BackendError
): Effect.fn.Return<DeviceMemory, EngineError, Scope.Scope> {
  const scope = yield* Effect.scope
  const load = (graph: Graph) => Effect.cached(Scope.provide(engine.createSession(encodeModel(graph)), scope))
  const mover = yield* load(moving)
  const cutters = { f32: yield* load(cutting("f32")), i32: yield* load(cutting("i32")) }
  const joiners = { f32: yield* load(joining("f32")), i32: yield* load(joining("i32")) }
  const { device } = yield* mover
  if (device === undefined) return yield* failure("MissingProvider", "memory", `${engine.name} has only the host's`)
  let held = 0

  const allocate = (slot: Slot): Effect.Effect<number, EngineError> =>
    Effect.map(device.allocate(4 * Math.max(1, wordsOf(slot.storage, slot.length))), (address) => {
      held++
      return address
    })
  const ensure = (slot: Slot): Effect.Effect<void, EngineError> =>
    slot.now !== 0 ? Effect.void : Effect.map(allocate(slot), (address) => { slot.now = address })
  const reserve = (slot: Slot): Effect.Effect<void, EngineError> =>
    slot.next !== 0 ? Effect.void : Effect.map(allocate(slot), (address) => { slot.next = address })

  const remote = (slot: Slot, which: "now" | "next", type: Word = "i32"): Remote =>
    ({ type, sizes: [wordsOf(slot.storage, slot.length)], address: () => slot[which] })
  const run = (
    session: Effect.Effect<Session, EngineError>, inputs: Readonly<Record<string, Buffer | Remote>>, y: Buffer | Remote
  ) =>
    Effect.flatMap(session, ({ bind }) => Effect.flatMap(bind({ inputs, outputs: { y } }), ({ run }) => run))
  const indexOf = (count: number) =>
    Effect.map(engine.allocate("i64", [1]), (buffer) => {
      buffer.data[0] = BigInt(count)
      return buffer
    })

  const takeSlot = Effect.fnUntraced(function*(slot: Slot) {
    const buffer = yield* engine.allocate("i32", [wordsOf(slot.storage, slot.length)])
    yield* run(mover, { x: remote(slot, "now") }, buffer)
    return elementsOver(slot.storage, buffer, slot.length)
  })
  const putSlot = Effect.fnUntraced(function*(slot: Slot, source: Elements | number) {
    const buffer = yield* engine.allocate("i32", [wordsOf(slot.storage, slot.length)])
    place(elementsOver(slot.storage, buffer, slot.length), source)
    yield* ensure(slot)
    yield* run(mover, { x: buffer }, remote(slot, "now"))
  })
  const take = ({ length, slot, start }: Part) =>
    Effect.map(takeSlot(slot), (elements) => elements.slice(start, start + length))
  const put = Effect.fnUntraced(function*(target: Part, source: Elements | number) {
    const { length, slot, start } = target
    if (length === 0) return
    if (isWhole(target)) return yield* putSlot(slot, source)
    const elements = yield* takeSlot(slot)
    place(elements.subarray(start, start + length), source)
    yield* putSlot(slot, elements)
  })
  /** A part's words into a slot of its length. */
  const cut = Effect.fnUntraced(function*({ length, slot, start }: Part, target: Slot) {
    const [from, to] = [wordsOf(slot.storage, start), wordsOf(slot.storage, start + length)]
    const ends = { start: yield* indexOf(from), end: yield* indexOf(to) }
    const word = wordOf(slot.storage)
    yield* run(cutters[word], { x: remote(slot, "now", word), ...ends }, remote(target, "now", word))
  })
  /** The words of a slot in place of a part. */
  const join = Effect.fnUntraced(function*(source: Slot, { length, slot, start }: Part) {
    const [from, to] = [wordsOf(slot.storage, start), wordsOf(slot.storage, start + length)]
    yield* reserve(slot)
    const word = wordOf(slot.storage)
    yield* run(joiners[word], {
      x: remote(slot, "now", word), part: remote(source, "now", word), zero: yield* indexOf(0),
      start: yield* indexOf(from), end: yield* indexOf(to), size: yield* indexOf(wordsOf(slot.storage, slot.length))
    }, remote(slot, "next", word))
    exchange(slot)
  })
  const copy = Effect.fnUntraced(function*(source: Part, target: Part): Effect.fn.Return<void, EngineError> {
    if (source.length === 0) return
    if (isWhole(source) && isWhole(target)) {
      yield* run(mover, { x: remote(source.slot, "now") }, remote(target.slot, "now"))
    } else if (!isOfWords(source) || !isOfWords(target)) {
      yield* put(target, yield* take(source))
    } else if (isWhole(target)) {
      yield* cut(source, target.slot)
    } else if (isWhole(source)) {
      yield* join(source.slot, target)
    } else {
      const { slot } = yield* standIn(source)
      yield* cut(source, slot)
      yield* join(slot, target)
    }
  })

  /** The slot that stands for a part; it lives as long as the cell. */
  const standIn = Effect.fnUntraced(function*({ length, slot: { standIns, storage }, start }: Part) {
    const key = `${start} ${length}`
    const slot: Slot = standIns.get(key) ?? { storage, length, now: 0, next: 0, standIns: new Map() }
    standIns.set(key, slot)
    yield* ensure(slot)
    return { slot, whole: { _tag: "Part", slot, start: 0, length } satisfies Part }
  })

  const free = (slot: Slot): Effect.Effect<void> =>
    Effect.suspend(() => {
      const addresses = [slot.now, slot.next].filter((address) => address !== 0)
      held -= addresses.length
      slot.now = slot.next = 0
      return Effect.andThen(
        Effect.forEach(addresses, device.free, { discard: true }),
        Effect.forEach([...slot.standIns.values()], free, { discard: true })
      )
    })

  return {
    ...DevicePlace.places((slot): Slot => ({ ...slot, now: 0, next: 0, standIns: new Map() })),
    put: (target, source) => Effect.mapError(put(DevicePlace.partOf(target), source), refused("write")),
    take: (source) => Effect.mapError(take(DevicePlace.partOf(source)), refused("read")),
    copy: (source, target) =>
      Effect.mapError(copy(DevicePlace.partOf(source), DevicePlace.partOf(target)), refused("copy")),
    free: (arena) => arena._tag === "Part" ? Effect.void : Effect.forEach(arena.slots, free, { discard: true }),
    borrow: Effect.fnUntraced(function*(place) {
      const part = DevicePlace.partOf(place)
      if (isWhole(part)) {
        yield* ensure(part.slot) // a cell without elements was never put
        return { slot: part.slot }
      }
      const { slot, whole } = yield* standIn(part)
      return { slot, before: copy(part, whole), after: copy(whole, part) }
    }),
    reserve,
    held: Effect.sync(() => held)
  }
})
