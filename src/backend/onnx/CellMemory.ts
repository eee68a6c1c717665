/**
 * Where the cells of a backend lie, in memory of the host or of a device, and how a program gets at one of them.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/OnnxRuntime.test.ts, test/backend/onnx/DeviceMemory.test.ts (the contract).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BackendError, Elements } from "../Backend.ts"
import * as HostState from "../HostState.ts"
import type { Buffer } from "./Buffer.ts"
import * as DeviceMemory from "./DeviceMemory.ts"
import { EngineError } from "./EngineError.ts"
import type { Located, OnDevice } from "./Execution.ts"
import type { ElementType } from "./ModelProto.ts"
import type { Interface } from "./Session.ts"

/** A cell for a program that is bound to it; and where another stands in for it, what a run does before and after. */
export interface Lent {
  readonly located: Located | OnDevice
  readonly before?: Effect.Effect<void, EngineError>
  readonly after?: Effect.Effect<void, EngineError>
}

/** Cells, and how a program gets at them. */
export interface CellMemory<X extends HostState.Stretch> {
  readonly state: HostState.HostState<X>
  readonly lend: (cell: HostState.Held<X>, isWritten: boolean) => Effect.Effect<Lent, EngineError>
  /** Pieces of a device's memory that are held. */
  readonly held: Effect.Effect<number>
}

type Refused = (operation: string) => (error: EngineError) => BackendError

/** How each storage is called by the engine. */
export const elementTypes: Record<HostState.Storage, ElementType> = {
  f32: "f32", f64: "f64", id: "i32", truth: "bool", code: "u8"
}

/** The elements of a buffer, as cells and values show them. */
export const elementsOf = ({ data, type }: Buffer): Elements => {
  if (
    data instanceof Float32Array || data instanceof Float64Array || data instanceof Int32Array ||
    data instanceof Uint8Array
  ) return data
  throw new TypeError(`a ${type} buffer holds no elements of a program`)
}

/** Cells in memory of the host. One that starts at no multiple of 64 bytes (a view) has another stand in for it. */
export const onHost = (engine: Interface, identity: HostState.Identity, refused: Refused): CellMemory<Elements> => {
  const arenas = new WeakMap<Elements, Buffer>()
  const memory: HostState.Memory = (storage, length) => {
    const buffer = Effect.runSync(engine.allocate(elementTypes[storage], [length]))
    const arena = elementsOf(buffer)
    arenas.set(arena, buffer)
    return arena
  }
  const state = HostState.make({ ...identity, memory })
  return {
    state: {
      ...state,
      allocate: (specification, options) =>
        Effect.catchDefect(state.allocate(specification, options), (defect) =>
          defect instanceof EngineError ? Effect.fail(refused("allocate")(defect)) : Effect.die(defect))
    },
    held: Effect.succeed(0),
    lend: Effect.fnUntraced(function*({ allocation, cell, elements, start, storage }, isWritten) {
      if (start * elements.BYTES_PER_ELEMENT % HostState.alignment !== 0) {
        const buffer = yield* engine.allocate(elementTypes[storage], [elements.length])
        const before = Effect.sync(() => elementsOf(buffer).set(elements))
        const after = Effect.sync(() => elements.set(elementsOf(buffer)))
        const located = { arena: buffer, offset: 0, length: elements.length }
        return { located, before, ...isWritten ? { after } : {} }
      }
      const arena = allocation.arenas.get(storage)
      const buffer = arena === undefined ? undefined : arenas.get(arena)
      if (buffer === undefined) throw new TypeError(`no memory behind cell ${cell.name}`)
      return { located: { arena: buffer, offset: start, length: elements.length } }
    })
  }
}

/** Cells in memory of the engine's device. */
export const onDevice = Effect.fnUntraced(function*(
  engine: Interface, identity: HostState.Identity, refused: Refused
): Effect.fn.Return<CellMemory<DeviceMemory.Place>, EngineError, Scope.Scope> {
  const memory = yield* DeviceMemory.make(engine, refused)
  const { reserve } = memory
  return {
    state: HostState.makeOver(identity, memory),
    held: memory.held,
    lend: ({ elements }, isWritten) => Effect.map(memory.borrow(elements), ({ after, before, slot }) => ({
      located: { slot, reserve },
      ...before === undefined ? {} : { before },
      ...isWritten && after !== undefined ? { after } : {}
    }))
  }
})
