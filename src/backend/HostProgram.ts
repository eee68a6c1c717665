/**
 * What every backend with host memory checks before a program runs, and how it hands results back.
 *
 * Checks are done once where they can be: labels and constants when a program is compiled, cells when it is bound,
 * inputs at every run. All faults of a call are collected before it fails. Nothing is cast but a real number's width.
 *
 * From     Cria's own.
 * Checked  test/backend/HostProgram.test.ts (what it says), test/backend/Backend.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Lowered, Port } from "../tensor/Instruction.ts"
import { describe, isTensor, type Kind, type Sizes } from "../tensor/Node.ts"
import * as Program from "../tensor/Program.ts"
import { type AnySpecification, isSpecification, leaves } from "../tensor/Specification.ts"
import { entries, mapAs } from "../tensor/Tree.ts"
import type { AnyCell, BackendError, Bound, Elements, Given, Outcome, Precision, Results, Values } from "./Backend.ts"
import {
  type Held, type HostState, isCell, isRefused, misfit, overlap, sameSizes, sealedRemedy, type Stretch
} from "./HostState.ts"

/** A program of any types: `Program` is covariant in all of them. */
export type AnyProgram = Program.Program<unknown, unknown, unknown>

/** One input of a run: elements of the right number and kind, or one number for all. */
export interface Input {
  readonly path: string
  readonly kind: Kind
  readonly sizes: Sizes
  readonly value: Elements | number
}

/** Fails where a precision is not the host's, or a label that is to be watched is not in the program. */
export const checkOptions = <X extends Stretch>(
  state: HostState<X>, program: AnyProgram, precision: Precision, watch: ReadonlyArray<string>
): Effect.Effect<void, BackendError> =>
  Effect.suspend(() => {
    const operation = `compile ${program.name}`
    if (!state.precisions.includes(precision)) {
      return state.fail(operation, `precision ${precision} is not one of ${state.precisions.join(", ")}`,
        "Leave `precision` out for the backend's own.")
    }
    if (watch.length === 0) return Effect.void
    const labels = Program.labels(program)
    const unknown = watch.filter((name) => !labels.includes(name))
    return unknown.length === 0
      ? Effect.void
      : state.fail(operation, `there is no label ${unknown.map((name) => `"${name}"`).join(", ")} to watch`,
        labels.length === 0
          ? "The program has no labels: name inner values with `Tensor.label`."
          : `Its labels are ${labels.map((name) => `"${name}"`).join(", ")}.`)
  })

/** What the constants of a program hold, by path. */
export interface Frozen {
  readonly values: ReadonlyMap<string, Elements>
  /** Those that are sealed, and given as they lie. */
  readonly sealed: ReadonlySet<string>
}

/** Checks the constants of a program, and gives their present values: copies of what is not sealed. */
export const freeze = <X extends Stretch>(
  state: HostState<X>, program: AnyProgram, precision: Precision, constants: ReadonlyMap<string, AnyCell>
): Effect.Effect<Frozen, BackendError> => {
  const operation = `compile ${program.name}`
  const written = new Set(program.writes.map(([path]) => path))
  const wanted = new Map(leaves(program.state))
  return Effect.flatMap(
    Effect.forEach(constants, ([path, cell]) =>
      Effect.map(state.resolve(operation, cell), (held) => [path, held] as const)),
    (held) => {
      const wrong = held.flatMap(([path, { cell }]) => {
        if (written.has(path)) return [`cell ${path} is replaced by the program and cannot be a constant`]
        const leaf = wanted.get(path)
        const fault = leaf === undefined ? "the program has no such cell" : difference(leaf, cell, precision)
        return fault === undefined ? [] : [`constant ${path}: ${fault}`]
      })
      return wrong.length > 0
        ? state.fail(operation, wrong.join("\n  "), "Give each constant under its path in the program's state.")
        : state.exclusively(operation, held.map(([, cell]) => cell))(
          Effect.map(
            Effect.forEach(held, ([path, cell]) => {
              const shown = state.shown(cell)
              return Effect.map(shown === undefined ? state.take(cell.elements) : Effect.succeed(shown), (elements) =>
                ({ path, elements, isShown: shown !== undefined }))
            }),
            (taken): Frozen => ({
              values: new Map(taken.map(({ elements, path }) => [path, elements])),
              sealed: new Set(taken.flatMap(({ isShown, path }) => isShown ? [path] : []))
            })
          )
        )
    }
  )
}

/**
 * Checks the cells that a program is bound to, and gives what each stands for, by path. Those that are constants are
 * not needed.
 */
export const bindCells = <X extends Stretch>(
  state: HostState<X>, program: AnyProgram, precision: Precision,
  constants: { readonly has: (path: string) => boolean }, cells: unknown
): Effect.Effect<ReadonlyMap<string, Held<X>>, BackendError> => {
  const operation = `bind ${program.name}`
  const written = new Set(program.writes.map(([path]) => path))
  const wanted = leaves(program.state).filter(([path]) => !constants.has(path))
  const given = new Map(entries(cells, isCell))
  const wrong = wanted.flatMap(([path, leaf]) => {
    const cell = given.get(path)
    const fault = cell === undefined ? "none was given" : difference(leaf, cell, precision)
    return fault === undefined ? [] : [`cell ${path}: ${fault}`]
  })
  if (wrong.length > 0) {
    return state.fail(operation, wrong.join("\n  "),
      "Bind cells that were allocated from the program's own state specification.")
  }
  const bound = wanted.flatMap(([path]) => {
    const cell = given.get(path)
    return cell === undefined ? [] : [[path, cell] as const]
  })
  return Effect.flatMap(
    Effect.forEach(bound, ([path, cell]) =>
      Effect.map(state.resolve(operation, cell), (held) =>
        [path, { ...held, isReplaced: written.has(path) }] as const)),
    (held) => {
      const clash = held.flatMap(([path, cell], i) =>
        held.slice(i + 1).filter(
          ([other, another]) => (written.has(path) || written.has(other)) && overlap(cell, another)
        )
          .map(([other]) => `cells ${path} and ${other} lie over the same memory, and one of them is replaced`))
      if (clash.length > 0) {
        return state.fail(operation, clash.join("\n  "), "Copy one of them into memory of its own first.")
      }
      const kept = held.flatMap(([path, cell]) =>
        isRefused(cell) ? [`cell ${path} has been sealed, and would be replaced`] : [])
      return kept.length > 0
        ? state.fail(operation, kept.join("\n  "), sealedRemedy)
        : Effect.succeed(new Map(held))
    }
  )
}

const difference = (
  leaf: { readonly kind: Kind; readonly sizes: Sizes }, cell: AnyCell, precision: Precision
): string | undefined => {
  if (cell.kind !== leaf.kind || !sameSizes(cell.sizes, leaf.sizes)) {
    return `the program has ${leaf.kind} ${describe(leaf.sizes)}, the cell ${cell.kind} ${describe(cell.sizes)}`
  }
  return cell.kind === "real" && cell.precision !== precision
    ? `the program was compiled for ${precision}, the cell is ${cell.precision}`
    : undefined
}

/** Checks the inputs of each run of a program, and gives them in the order of the specification. */
export const inputsOf = <X extends Stretch>(state: HostState<X>, program: AnyProgram) => {
  const wanted = leaves(program.inputs)
  const keys = keysOf(program.inputs, isSpecification)
  return (given: unknown): Effect.Effect<ReadonlyArray<Input>, BackendError> => Effect.suspend(() => {
    const inputs: Array<Input> = []
    for (const [i, [path, { kind, sizes }]] of wanted.entries()) {
      const value = keys[i]?.reduce(child, given)
      if (!isGiven(value) || unfit(kind, sizes, value) !== undefined) break
      inputs.push({ path, kind, sizes, value: typeof value === "boolean" ? Number(value) : value })
    }
    return inputs.length === wanted.length && countOf(given) === wanted.length
      ? Effect.succeed(inputs)
      : state.fail(`run ${program.name}`, faults(wanted, keys, given).join("\n  "),
        "Inputs are trees of the same form as the program's specification; elements lie in the order of its sizes.")
  })
}

/** The keys that lead to each leaf of a tree, in the order of `entries`. */
const keysOf = (tree: unknown, isLeaf: (value: unknown) => boolean): ReadonlyArray<ReadonlyArray<string>> =>
  isLeaf(tree) ? [[]] : typeof tree !== "object" || tree === null ? []
    : Object.entries(tree).flatMap(([key, part]) => keysOf(part, isLeaf).map((rest) => [key, ...rest]))

/** Keys as a path; in quotes those that would be taken for several, or for none. */
const pathOf = (keys: ReadonlyArray<string> = []): string =>
  keys.map((key) => /^$|[."]/.test(key) ? JSON.stringify(key) : key).join(".")

const child = (tree: unknown, key: string): unknown =>
  typeof tree === "object" && tree !== null && !isGiven(tree) && Object.prototype.propertyIsEnumerable.call(tree, key)
    ? Reflect.get(tree, key) : undefined

/** How many leaves a tree has, whatever they are. */
const countOf = (tree: unknown): number => {
  if (typeof tree !== "object" || tree === null || isGiven(tree)) return tree === undefined ? 0 : 1
  let count = 0
  for (const key in tree) count += countOf(child(tree, key))
  return count
}

/** Every way in which what was given is not what is wanted. */
const faults = (
  wanted: ReadonlyArray<readonly [string, AnySpecification]>, keys: ReadonlyArray<ReadonlyArray<string>>, given: unknown
): ReadonlyArray<string> => {
  const own = keysOf(given, isGiven)
  const values = new Map(entries(given, isGiven).map(([, value], i) => [pathOf(own[i]), value]))
  const wrong = wanted.flatMap(([, { kind, sizes }], i) => {
    const path = pathOf(keys[i])
    const value = values.get(path)
    values.delete(path)
    const fault = value === undefined ? `${kind} ${describe(sizes)} was not given` : unfit(kind, sizes, value)
    return fault === undefined ? [] : [`input ${path}: ${fault}`]
  })
  return [...wrong, ...[...values.keys()].map((path) => `input ${path}: the program has no such input`)]
}

const isGiven = (value: unknown): value is Elements | number | boolean =>
  typeof value === "number" || typeof value === "boolean" || ArrayBuffer.isView(value)

const unfit = (kind: Kind, sizes: Sizes, value: Elements | number | boolean): string | undefined => {
  if (typeof value === "boolean") return kind === "truth" ? undefined : `${kind} ${describe(sizes)} cannot be ${value}`
  if (typeof value === "number") {
    if (kind === "truth") return `a truth is true or false, not ${value}`
    if (kind === "real") return undefined
    if (kind === "code") return value === (value & 255) ? undefined : `a code is a whole number below 256, not ${value}`
    return value !== (value | 0) ? `an id is a whole number of 32 bits, not ${value}`
      : value < 0 ? `an id counts from 0, not ${value}` : undefined
  }
  const fault = misfit(kind, sizes, value)
  if (fault !== undefined || kind !== "id") return fault
  const negative = value.findIndex((id) => id < 0) // some engines count it from the end, others fault
  return negative < 0 ? undefined : `an id counts from 0, but element ${negative} is ${value[negative]}`
}

/** What a run hands back, made of the elements of each output and watched value by name: the arrays that are given. */
export const outcome = <I, S, O>(
  program: Program.Program<I, S, O>, lowered: Lowered, outputs: ReadonlyMap<string, Elements>,
  watched: ReadonlyMap<string, Elements>
): Outcome<O> => {
  const values = (ports: ReadonlyArray<Port>, elements: ReadonlyMap<string, Elements>) =>
    ports.map(({ name, sizes, value }): readonly [string, Values<string, Kind>] => [name, {
      "~values": true, sizes, kind: lowered.values[value]?.kind ?? "real",
      elements: elements.get(name) ?? new Float64Array(0)
    }])
  const byPath = new Map(values(lowered.outputs, outputs))
  return {
    outputs: mapAs<Results<O>>()(program.outputs, isTensor, (_, path) => byPath.get(path)),
    watched: Object.fromEntries(values(lowered.watched, watched))
  }
}

/** A bound program, given what runs it: its results are the caller's. */
export const bound = <I, O>(
  watch: (inputs: Given<I>) => Effect.Effect<Outcome<O>, BackendError>
): Bound<I, O> => {
  const run = (inputs: Given<I>) => Effect.map(watch(inputs), ({ outputs }) => outputs)
  return { run, watch, runWith: (inputs, use) => Effect.flatMap(run(inputs), use) }
}
