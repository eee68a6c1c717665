/**
 * Cells on a device: each is a tensor, which a run exchanges for another; a view of a cell is a stretch of it.
 *
 * Writing through a view makes the tensor anew out of what lies before, the new elements, and what lies behind: tensors
 * of TensorFlow.js cannot be changed.
 *
 * From     Cria's own.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts (the contract), test/backend/tensorflow/Lifetime.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Elements, BackendError } from "../Backend.ts"
import * as DevicePlace from "../DevicePlace.ts"
import type { Access, Storage } from "../HostState.ts"
import type { DataType, Engine, Tensor } from "./Engine.ts"
import { same, type Shape } from "./Shape.ts"

/** A tensor that can be exchanged; there is none where there are no elements. */
interface Slot extends DevicePlace.Slot {
  tensor: Tensor | undefined
}

/** Cells that are freed together, or a stretch of one of them. */
export type Place = DevicePlace.Place<Slot>

/** A tensor for the time of a run, and whether the run must free it. */
export interface Loan {
  readonly tensor: Tensor
  readonly isOwned: boolean
}

/** What a run needs of the memory of its cells, beside what every backend does with them. */
export interface DeviceMemory extends Access<Place> {
  /** What a cell holds, in a shape. */
  readonly borrow: (place: Place, shape: Shape) => Loan
  /** Exchanges what cells hold, all or none. The tensors belong to the cells from then on. */
  readonly exchange: (written: ReadonlyArray<readonly [Place, Tensor]>) => void
}

/** The type of elements of a storage on a device. */
export const typeOfStorage = (storage: Storage): DataType =>
  storage === "truth" ? "bool" : storage === "id" || storage === "code" ? "int32" : "float32"

/** Elements as a device takes them: a copy, for some engines go on using what they are given. */
export const toDevice = (elements: Elements, type: DataType): Elements =>
  type === "float32"
    ? Float32Array.from(elements)
    : type === "int32" ? Int32Array.from(elements) : Uint8Array.from(elements)

/** A copy of what a device gives: some engines hand out their own memory. */
export const fromDevice = (elements: Elements, isCode: boolean): Elements =>
  isCode ? Uint8Array.from(elements) : elements.slice()

/** The memory of an engine. */
export const make = (
  engine: Engine, attempt: <A>(operation: string, body: () => Promise<A>) => Effect.Effect<A, BackendError>
): DeviceMemory => {
  const reshape = (x: Tensor, shape: Shape): Tensor => engine.run("Reshape", { x }, { shape })
  const slice = (x: Tensor, start: number, length: number): Tensor =>
    engine.run("Slice", { x }, { begin: [start], size: [length] })
  const tensorOf = ({ tensor }: Slot): Tensor => {
    if (tensor === undefined) throw new TypeError("a cell holds no tensor")
    return tensor
  }

  const borrow: DeviceMemory["borrow"] = (place, shape) => {
    const { length, slot, start } = DevicePlace.partOf(place)
    if (length < slot.length) {
      return {
        isOwned: true,
        tensor: engine.tidy(() => reshape(slice(reshape(tensorOf(slot), [slot.length]), start, length), shape))
      }
    }
    const held = tensorOf(slot)
    if (same(held.shape, shape)) return { tensor: held, isOwned: false }
    slot.tensor = reshape(held, shape)
    held.dispose()
    return { tensor: slot.tensor, isOwned: false }
  }

  const exchange: DeviceMemory["exchange"] = (written) => {
    const next = new Map<Slot, Tensor>()
    for (const [place, tensor] of written) {
      const { length, slot, start } = DevicePlace.partOf(place)
      if (length === slot.length) {
        next.get(slot)?.dispose()
        next.set(slot, tensor)
        continue
      }
      const whole = next.get(slot) ?? tensorOf(slot)
      const end = start + length
      next.set(slot, engine.tidy(() => {
        const flat = reshape(whole, [slot.length])
        return engine.join("Concat", [
          ...(start === 0 ? [] : [slice(flat, 0, start)]), reshape(tensor, [length]),
          ...(end === slot.length ? [] : [slice(flat, end, slot.length - end)])
        ], { axis: 0 })
      }))
      if (whole !== slot.tensor) whole.dispose()
      tensor.dispose()
    }
    for (const [slot, tensor] of next) {
      slot.tensor?.dispose()
      slot.tensor = tensor
    }
  }

  const put = (target: Place, source: Elements | number): void => {
    if (target.length === 0) return
    engine.activate()
    const type = typeOfStorage(DevicePlace.partOf(target).slot.storage)
    const shape = [target.length]
    const tensor = typeof source !== "number"
      ? engine.upload(toDevice(source, type), shape, type)
      : type === "float32"
        ? engine.run("Fill", {}, { shape, value: source, dtype: type })
        : engine.upload(toDevice(new Int32Array(target.length).fill(source), type), shape, type)
    exchange([[target, tensor]])
  }

  const take: DeviceMemory["take"] = (source) =>
    Effect.suspend(() => {
      const { length, slot: { storage } } = DevicePlace.partOf(source)
      if (length === 0) return Effect.succeed(emptyOf(storage))
      engine.activate()
      const { isOwned, tensor } = borrow(source, [length])
      return Effect.ensuring(
        Effect.map(attempt("read", () => tensor.data()), (elements) => fromDevice(elements, storage === "code")),
        Effect.sync(() => {
          if (isOwned) tensor.dispose()
        })
      )
    })

  return {
    ...DevicePlace.places((slot): Slot => ({ ...slot, tensor: undefined })),
    put: (target, source) => Effect.sync(() => put(target, source)),
    take,
    copy: (source, target) => Effect.sync(() => {
      if (source.length === 0) return
      engine.activate()
      const { isOwned, tensor } = borrow(source, [source.length])
      exchange([[target, isOwned ? tensor : engine.run("Identity", { x: tensor })]])
    }),
    free: (arena) => Effect.sync(() => {
      if (arena._tag === "Part") return
      for (const slot of arena.slots) {
        slot.tensor?.dispose()
        slot.tensor = undefined
      }
    }),
    borrow,
    exchange
  }
}

const emptyOf = (storage: Storage): Elements =>
  storage === "f32" || storage === "f64"
    ? new Float32Array(0)
    : storage === "id" ? new Int32Array(0) : new Uint8Array(0)
