/**
 * Where cells lie on a device whose memory this process does not see: each has a slot of its own, whatever a backend
 * keeps there; an arena is the slots that are freed together, and a view is a stretch of one slot.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/DeviceMemory.test.ts, test/backend/tensorflow/Lifetime.test.ts.
 *
 * @module
 */
import type { Access, Storage, Stretch } from "./HostState.ts"

/** Memory of one cell. */
export interface Slot {
  readonly storage: Storage
  readonly length: number
}

/** A stretch of a slot. */
export interface Part<S extends Slot> extends Stretch {
  readonly _tag: "Part"
  readonly slot: S
  readonly start: number
}

/** Cells that are freed together. */
export interface Arena<S extends Slot> extends Stretch {
  readonly _tag: "Arena"
  readonly storage: Storage
  readonly slots: Array<S>
}

/** What a backend's state calls a stretch of memory. */
export type Place<S extends Slot> = Arena<S> | Part<S>

/** A place that holds elements. */
export const partOf = <S extends Slot>(place: Place<S>): Part<S> => {
  if (place._tag === "Arena") throw new TypeError("an arena holds no elements, only its cells do")
  return place
}

/** The part of `Access` that only counts: a slot for each part of an arena, and parts of parts over the same slot. */
export const places = <S extends Slot>(slotOf: (slot: Slot) => S): Pick<Access<Place<S>>, "allocate" | "part"> => ({
  allocate: (storage, length) => ({ _tag: "Arena", storage, length, slots: [] }),
  part: (whole, start, end) => {
    const length = end - start
    if (whole._tag === "Part") return { ...whole, start: whole.start + start, length }
    const slot = slotOf({ storage: whole.storage, length })
    whole.slots.push(slot)
    return { _tag: "Part", slot, start: 0, length }
  }
})
