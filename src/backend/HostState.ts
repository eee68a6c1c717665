/**
 * Cells in memory: what every backend shares. The memory is typed arrays of this process, or whatever a device has.
 *
 * An allocation has one arena for each storage it needs; its cells lie there in the order of their paths, each starting
 * at a multiple of 64 bytes, so that an update may sweep a whole arena. A cell is an opaque handle: what it stands for
 * is known only to the host that made it. Each allocation has a lock; whoever needs several takes them in the order in
 * which they were allocated, so that no two wait for each other. A stretch that is sealed is refused to all that would
 * change it, whichever cell or view they hold.
 *
 * From     Cria's own.
 * Checked  test/backend/HostState.test.ts; test/backend/Backend.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { count, describe, type Kind, type Sizes } from "../tensor/Node.ts"
import { type AnySpecification, isSpecification, leaves } from "../tensor/Specification.ts"
import { entries, mapAs } from "../tensor/Tree.ts"
import type { AnyCell, Backend, Cells, CellValues, Elements, Precision, Values } from "./Backend.ts"
import { BackendError } from "./Backend.ts"
import * as Lock from "./Lock.ts"

/** How elements lie in memory. */
export type Storage = Precision | Exclude<Kind, "real">

/** The storage of a kind of elements. */
export const storageOf = (kind: Kind, precision: Precision): Storage => kind === "real" ? precision : kind

/** Zeroed memory of one storage. A host whose kernels need alignment gives addresses that are multiples of 64. */
export type Memory = (storage: Storage, elements: number) => Elements

/** Memory of this process, aligned as its typed arrays are. */
export const processMemory: Memory = (storage, elements) => {
  switch (storage) {
    case "f32":
      return new Float32Array(elements)
    case "f64":
      return new Float64Array(elements)
    case "id":
      return new Int32Array(elements)
    case "truth":
    case "code":
      return new Uint8Array(elements)
  }
}

/** Every cell starts at a multiple of so many bytes from the start of its arena. */
export const alignment = 64

/** Bytes of an element. */
export const bytes: Readonly<Record<Storage, number>> = { f32: 4, f64: 8, id: 4, truth: 1, code: 1 }

/** A stretch of memory: typed arrays of this process, or what stands for memory of a device. */
export interface Stretch {
  readonly length: number
}

/** What can be done with memory: an arena is a stretch, and so is every part of one. */
export interface Access<X extends Stretch> {
  /** A zeroed arena. */
  readonly allocate: (storage: Storage, length: number) => X
  readonly part: (whole: X, start: number, end: number) => X
  /** Puts elements there, or one number everywhere. */
  readonly put: (target: X, source: Elements | number) => Effect.Effect<void, BackendError>
  /** A copy of what is there. */
  readonly take: (source: X) => Effect.Effect<Elements, BackendError>
  readonly copy: (source: X, target: X) => Effect.Effect<void, BackendError>
  /** What is there as it lies; absent where that is no memory of this process. */
  readonly show?: (source: X) => Elements
  /** Ends the life of an arena. */
  readonly free: (arena: X) => Effect.Effect<void>
}

/** Cells that were allocated together. The arenas are gone once their scope has ended. */
export interface Allocation<X extends Stretch = Elements> {
  readonly serial: number
  readonly lock: Lock.Lock
  readonly arenas: Map<Storage, X>
  /** Cells that change no more. */
  readonly sealed: Array<Held<X>>
}

/** What a cell stands for: a stretch of an arena. */
export interface Held<X extends Stretch = Elements> {
  readonly cell: AnyCell
  readonly allocation: Allocation<X>
  readonly storage: Storage
  /** The place of its first element in the arena. */
  readonly start: number
  readonly elements: X
  /** Whether it is about to be replaced. */
  readonly isReplaced?: boolean
}

/** What a backend says of itself. */
export interface Identity {
  readonly backend: string
  readonly precisions: ReadonlyArray<Precision>
  /** The width of real numbers where none is asked for. */
  readonly precision: Precision
}

/** A backend whose cells are typed arrays of this process. */
export interface Host extends Identity {
  readonly memory: Memory
}

/** The state of a backend: the methods that a `Backend` has for cells, and what its runs need of them. */
export interface HostState<X extends Stretch = Elements>
  extends Identity, Pick<Backend["Service"], "allocate" | "read" | "write" | "copy" | "view" | "seal"> {
  /** How many allocations are alive. */
  readonly live: Effect.Effect<number>
  /** What a cell stands for; fails where another backend made it. */
  readonly resolve: (operation: string, cell: AnyCell) => Effect.Effect<Held<X>, BackendError>
  /** A copy of what a stretch holds. */
  readonly take: (source: X) => Effect.Effect<Elements, BackendError>
  /** The elements of a cell that is sealed, as they lie, where that is memory of this process. */
  readonly shown: (held: Held<X>) => Elements | undefined
  /**
   * Runs while nothing else touches the cells, and once begun to its end; fails if one of them has been freed, or is
   * to be replaced and has been sealed.
   */
  readonly exclusively: (
    operation: string, held: ReadonlyArray<Held<X>>
  ) => <A, E>(work: Effect.Effect<A, E>) => Effect.Effect<A, E | BackendError>
  /** Whether work that is done at once may touch the cells without `exclusively`, which would neither wait nor fail. */
  readonly areFree: (held: ReadonlyArray<Held<X>>) => boolean
  readonly fail: (operation: string, detail: string, remedy: string) => Effect.Effect<never, BackendError>
}

/** What to do about a cell that is sealed and would be replaced. */
export const sealedRemedy =
  "What is sealed changes no more, for programs hold it as it is: copy it to other cells, and change those."

/** Is this value a cell, of whatever backend? */
export const isCell = (value: unknown): value is AnyCell =>
  typeof value === "object" && value !== null && "~cell" in value

/** Says why elements do not fit where `kind` and `sizes` are wanted; `undefined` where they fit. */
export const misfit = (kind: Kind, sizes: Sizes, elements: Elements): string | undefined => {
  const wanted = kind === "real" ? "a Float32Array or Float64Array" : kind === "id" ? "an Int32Array" : "a Uint8Array"
  const isOfKind = kind === "real"
    ? elements instanceof Float32Array || elements instanceof Float64Array
    : kind === "id"
      ? elements instanceof Int32Array
      : elements instanceof Uint8Array
  if (!isOfKind) {
    const article = elements instanceof Int32Array ? "an" : "a"
    return `${kind} ${describe(sizes)} needs ${wanted}, but ${article} ${elements.constructor.name} was given`
  }
  if (elements.length !== count(sizes)) {
    return `${kind} ${describe(sizes)} has ${count(sizes)} elements, but ${elements.length} were given`
  }
  const odd = kind === "truth" ? elements.findIndex((element) => element > 1) : -1
  return odd < 0 ? undefined : `a truth is 0 or 1, but element ${odd} is ${elements[odd]}`
}

/** Makes the state of a host. */
export const make = ({ memory, ...identity }: Host): HostState =>
  makeOver(identity, {
    allocate: memory,
    part: (whole, start, end) => whole.subarray(start, end),
    // a number is put into a new arena only, which has zeros; on a device it has nothing yet
    put: (target, source) => Object.is(source, 0) ? Effect.void : Effect.sync(() => place(target, source)),
    take: (source) => Effect.sync(() => source.slice()),
    copy: (source, target) => Effect.sync(() => target.set(source)),
    show: (source) => source,
    free: () => Effect.void
  })

/** Makes the state of a backend over memory of any sort. */
export const makeOver = <X extends Stretch>(host: Identity, memory: Access<X>): HostState<X> => {
  const { backend } = host
  const known = new WeakMap<AnyCell, Held<X>>()
  let [allocations, alive] = [0, 0]
  const fail: HostState<X>["fail"] = (operation, detail, remedy) =>
    Effect.fail(new BackendError({ backend, operation, detail, remedy }))

  const hold = (
    name: string, { kind, sizes }: { readonly kind: Kind; readonly sizes: Sizes }, precision: Precision,
    stretch: Omit<Held<X>, "cell">
  ): AnyCell => {
    const cell: AnyCell = Object.freeze({ "~cell": true, name, sizes, kind, precision })
    known.set(cell, { cell, ...stretch })
    return cell
  }

  const resolve: HostState<X>["resolve"] = (operation, cell) => {
    const held = known.get(cell)
    return held === undefined
      ? fail(operation, `cell ${cell.name} ${describe(cell.sizes)} was made by another backend`,
        "Read it there and write it here: state lives on the backend that allocated it.")
      : Effect.succeed(held)
  }

  const exclusively: HostState<X>["exclusively"] = (operation, held) => <A, E>(work: Effect.Effect<A, E>) => {
    const all = [...new Set(held.map(({ allocation }) => allocation))].toSorted((a, b) => b.serial - a.serial)
    const checked = Effect.suspend((): Effect.Effect<A, E | BackendError> => {
      const freed = held.find(({ allocation }) => allocation.arenas.size === 0)
      if (freed !== undefined) {
        return fail(operation, `cell ${freed.cell.name} has been freed`,
          "The Scope that allocated it has ended: run inside that Scope.")
      }
      const kept = held.find(isRefused)
      return kept === undefined
        ? work
        : fail(operation, `cell ${kept.cell.name} has been sealed, and would be replaced`, sealedRemedy)
    })
    return all.reduce((effect, { lock }) => lock.hold(effect), Effect.uninterruptible(checked))
  }

  const areFree: HostState<X>["areFree"] = (held) =>
    held.every((each) => {
      const { arenas, lock } = each.allocation
      return arenas.size > 0 && lock.isFree() && !isRefused(each)
    })

  const heldOf = (operation: string, cells: unknown) =>
    Effect.forEach(entries(cells, isCell), ([path, cell]) =>
      Effect.map(resolve(operation, cell), (held) => [path, held] as const))

  const allocate: HostState<X>["allocate"] = (specification, options) =>
    Effect.suspend(() => {
      const precision = options?.precision ?? host.precision
      if (!host.precisions.includes(precision)) {
        return fail("allocate", `precision ${precision} is not one of ${host.precisions.join(", ")}`,
          "Leave `precision` out for the backend's own.")
      }
      const plan = planArenas(leaves(specification), precision)
      const initials = plan.cells.map(({ leaf, path }) => initialOf(path, leaf, options?.initial))
      const wrong = initials.filter((initial) => typeof initial === "string")
      if (wrong.length > 0) {
        return fail("allocate", wrong.join("\n  "),
          "Give `initial`, a function from a cell's path and sizes to its elements, in the order of the sizes.")
      }
      return Effect.flatMap(
        Effect.acquireRelease(
          Effect.sync((): Allocation<X> => {
            const arenas = new Map([...plan.lengths].map(([storage, length]) =>
              [storage, memory.allocate(storage, length)]))
            alive++
            return { serial: allocations++, lock: Lock.make(), arenas, sealed: [] }
          }),
          ({ arenas, lock }) => lock.hold(Effect.suspend(() => {
            const freed = [...arenas.values()]
            arenas.clear()
            alive--
            return Effect.forEach(freed, memory.free, { discard: true })
          }))
        ),
        (allocation) => Effect.suspend(() => {
          const begun: Array<Effect.Effect<void, BackendError>> = []
          const cells = new Map(plan.cells.map(({ leaf, path, start, storage }, i) => {
            const arena = allocation.arenas.get(storage) ?? memory.allocate(storage, 0)
            const elements = memory.part(arena, start, start + count(leaf.sizes))
            const initial = initials[i]
            if (typeof initial !== "string" && initial !== undefined) begun.push(memory.put(elements, initial))
            return [path, hold(path, leaf, precision, { allocation, storage, start, elements })] as const
          }))
          return Effect.map(Effect.all(begun, { discard: true }), () =>
            mapAs<Cells<typeof specification>>()(specification, isSpecification, (_, path) => cells.get(path)))
        })
      )
    })

  const read: HostState<X>["read"] = (cells) =>
    Effect.flatMap(heldOf("read", cells), (held) =>
      exclusively("read", held.map(([, cell]) => cell))(Effect.map(
        Effect.forEach(held, ([path, { cell, elements }]) =>
          Effect.map(memory.take(elements), (taken): readonly [string, Values<string, Kind>] =>
            [path, { "~values": true, sizes: cell.sizes, kind: cell.kind, elements: taken }])),
        (taken) => {
          const values = new Map(taken)
          return mapAs<CellValues<typeof cells>>()(cells, isCell, (_, path) => values.get(path))
        }
      )))

  const write: HostState<X>["write"] = (cell, elements) =>
    Effect.flatMap(resolve("write", cell), (held) => {
      const reason = misfit(cell.kind, cell.sizes, elements)
      return reason === undefined
        ? exclusively("write", [{ ...held, isReplaced: true }])(memory.put(held.elements, elements))
        : fail("write", `cell ${cell.name}: ${reason}`, "Elements lie in the order of the keys of the cell's sizes.")
    })

  const copy: HostState<X>["copy"] = (from, to) =>
    Effect.flatMap(Effect.all([heldOf("copy", from), heldOf("copy", to)]), ([sources, targets]) => {
      const byPath = new Map(targets)
      const wrong = [
        ...sources.flatMap(([path, { cell }]) => {
          const target = byPath.get(path)?.cell
          const same = target !== undefined && target.kind === cell.kind && sameSizes(target.sizes, cell.sizes)
          const other = target === undefined ? "there is none" : `${target.kind} ${describe(target.sizes)}`
          return same ? [] : [`${path} from ${cell.kind} ${describe(cell.sizes)} to ${other}`]
        }),
        ...targets.filter(([path]) => !sources.some(([source]) => source === path))
          .map(([path]) => `${path} from nothing`)
      ]
      if (wrong.length > 0) {
        return fail(
          "copy", wrong.join("\n  "), "Both trees must have the same cells, with the same sizes in the same order."
        )
      }
      const pairs = sources.flatMap(([path, source]) => {
        const target = byPath.get(path)
        return target === undefined ? [] : [[source, { ...target, isReplaced: true }] as const]
      })
      return exclusively("copy", pairs.flat())(Effect.forEach(
        pairs, ([source, target]) => memory.copy(source.elements, target.elements), { discard: true }
      ))
    })

  const view: HostState<X>["view"] = (cell, index) =>
    Effect.flatMap(resolve("view", cell), ({ allocation, elements, start, storage }) => {
      const [leading, ...rest] = Object.entries(cell.sizes)
      if (leading === undefined) {
        return fail("view", `cell ${cell.name} has no axis`, "View a cell whose first axis counts the parts.")
      }
      if (!Number.isInteger(index) || index < 0 || index >= leading[1]) {
        return fail("view", `index ${index} of cell ${cell.name} ${describe(cell.sizes)}`,
          `The index counts along its first axis, "${leading[0]}", from 0 up to, not including, ${leading[1]}.`)
      }
      const sizes = Object.fromEntries(rest)
      const length = count(sizes)
      return Effect.succeed(hold(`${cell.name}[${index}]`, { kind: cell.kind, sizes }, cell.precision, {
        allocation, storage, start: start + index * length, elements: memory.part(
          elements, index * length, (index + 1) * length
        )
      }))
    })

  const seal: HostState<X>["seal"] = (cells) =>
    Effect.flatMap(heldOf("seal", cells), (held) =>
      exclusively("seal", held.map(([, cell]) => cell))(Effect.sync(() => {
        for (const [, cell] of held) if (!isWithinSealed(cell)) cell.allocation.sealed.push(cell)
      })))

  const shown: HostState<X>["shown"] = (held) => isWithinSealed(held) ? memory.show?.(held.elements) : undefined

  const { take } = memory
  const live = Effect.sync(() => alive)
  return { ...host, live, allocate, read, write, copy, view, seal, resolve, take, shown, exclusively, areFree, fail }
}

const end = <X extends Stretch>({ elements, start }: Held<X>): number => start + elements.length

/** Do two cells lie over the same memory, in part at least? */
export const overlap = <X extends Stretch>(left: Held<X>, right: Held<X>): boolean =>
  left.allocation === right.allocation && left.storage === right.storage &&
  left.start < end(right) && right.start < end(left)

/** Whether a cell is to be replaced of which some is sealed. */
export const isRefused = <X extends Stretch>(held: Held<X>): boolean =>
  held.isReplaced === true && held.allocation.sealed.some((other) => overlap(held, other))

/** Whether a cell lies within one that is sealed. */
const isWithinSealed = <X extends Stretch>(held: Held<X>): boolean =>
  held.allocation.sealed.some((other) =>
    other.storage === held.storage && other.start <= held.start && end(held) <= end(other))

/** The same axes with the same sizes in the same order: the elements lie alike. */
export const sameSizes = (left: Sizes, right: Sizes): boolean => describe(left) === describe(right)

/** Puts elements, or one number everywhere. */
export const place = (target: Elements, source: Elements | number): void => {
  if (typeof source === "number") target.fill(source)
  else target.set(source)
}

interface Planned {
  readonly path: string
  readonly leaf: AnySpecification
  readonly storage: Storage
  readonly start: number
}

/** Where each cell starts in the arena of its storage, and how long the arenas are. */
const planArenas = (cells: ReadonlyArray<readonly [path: string, leaf: AnySpecification]>, precision: Precision): {
  readonly cells: ReadonlyArray<Planned>
  readonly lengths: ReadonlyMap<Storage, number>
} => {
  const lengths = new Map<Storage, number>()
  const planned = cells.map(([path, leaf]): Planned => {
    const storage = storageOf(leaf.kind, precision)
    const start = lengths.get(storage) ?? 0
    const unit = alignment / bytes[storage]
    lengths.set(storage, start + Math.ceil(count(leaf.sizes) / unit) * unit)
    return { path, leaf, storage, start }
  })
  return { cells: planned, lengths }
}

/** What a cell begins with, or a sentence that says why that is not known. */
const initialOf = (
  path: string, { initial, kind, sizes }: AnySpecification,
  draw: ((path: string, sizes: Sizes) => Elements | undefined) | undefined
): Elements | number | string => {
  const drawn = draw?.(path, sizes)
  if (drawn !== undefined) {
    const reason = misfit(kind, sizes, drawn)
    return reason === undefined ? drawn : `cell ${path}: ${reason}`
  }
  return initial._tag === "Constant"
    ? initial.value
    : `cell ${path} begins with normal draws (deviation ${initial.deviation}), and none were given`
}
