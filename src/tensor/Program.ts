/**
 * Programs: a tree of inputs to a tree of outputs, over state cells that are read and replaced. The closed form of a
 * computation.
 *
 * A program is a value: it can be printed, differentiated before it was closed, compiled by any backend, run over any
 * state of its specification. It names the cells it reads and those it replaces; nothing else is an effect.
 *
 * From     Cria's own.
 * Checked  test/tensor/Program.test.ts; test/backend/Backend.test.ts (runs of them).
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import type { Composite } from "./Composite.ts"
import { topological } from "./Gradient.ts"
import type { Lowered } from "./Instruction.ts"
import { holdsLabel, labelled } from "./Label.ts"
import { type End, lower as lowerRoots } from "./Lower.ts"
import type { Any } from "./Node.ts"
import { describe, make as makeNode, show } from "./Node.ts"
import { rewrite } from "./Rewrite.ts"
import { attempt, ShapeError } from "./ShapeError.ts"
import { type AnySpecification, isSpecification, leaves, type Tensors } from "./Specification.ts"
import { mapAs, type Part, tensors, type Tree } from "./Tree.ts"

/** A closed computation; `I` and `S` are trees of specifications, `O` the tree of output tensors. */
export interface Program<out I, out S, out O> {
  readonly name: string
  readonly inputs: I
  readonly state: S
  readonly outputs: O
  /** The inputs, as leaves of the graph. */
  readonly leaves: Named
  /** The cells, as leaves of the graph: what they hold when a run begins. */
  readonly cells: Named
  /** The outputs by path. */
  readonly results: Named
  /** The cells that a run replaces, with their new values. */
  readonly writes: Named
}

/** Tensors by path. */
export type Named = ReadonlyArray<readonly [path: string, tensor: Any]>

/** What the function that writes a program down returns. */
export interface Parts<S, O> {
  readonly outputs: O
  /** New values of some cells; a cell that is absent keeps its value. */
  readonly state?: Part<Tensors<S>>
}

/**
 * Closes a computation: `f` receives tensors for the inputs and for the cells, and returns outputs and, for the cells
 * that it replaces, new values. A `ShapeError` that is thrown on the way is the failure of the Effect.
 */
export const make = <I, S, O>(
  name: string,
  specification: { readonly inputs: I; readonly state: S },
  f: (inputs: Tensors<I>, state: Tensors<S>) => Parts<S, O & Tree<O>>
): Effect.Effect<Program<I, S, O>, ShapeError> => attempt(() => close<I, S, O>(name, specification, f))

/**
 * `make` for code that is generic in its trees: the forms of the outputs and of the new state are checked when it is
 * closed.
 */
export const makeGeneric = <I, S, O>(
  name: string,
  specification: { readonly inputs: I; readonly state: S },
  f: (inputs: Tensors<I>, state: Tensors<S>) => { readonly outputs: O; readonly state?: unknown }
): Effect.Effect<Program<I, S, O>, ShapeError> => attempt(() => close(name, specification, f))

const close = <I, S, O>(
  name: string,
  specification: { readonly inputs: I; readonly state: S },
  f: (inputs: Tensors<I>, state: Tensors<S>) => { readonly outputs: O; readonly state?: unknown }
): Program<I, S, O> => {
  const tree = <T>(role: "input" | "cell", part: unknown): T =>
    mapAs<T>()(part, isSpecification,
      ({ kind, sizes }, path) => makeNode({ _tag: "Leaf", role, name: path }, [], sizes, kind))
  const inputs = tree<Tensors<I>>("input", specification.inputs)
  const state = tree<Tensors<S>>("cell", specification.state)
  const parts = f(inputs, state)
  const leafTensors = tensors(inputs)
  const cells = tensors(state)
  const results = tensors(parts.outputs)
  const writes = tensors(parts.state ?? {})
  checkPaths(name, { inputs: leafTensors, cells, outputs: results, "new state": writes })
  checkWrites(name, new Map(leaves(specification.state)), writes)
  const own = new Set([...leafTensors, ...cells].map(([, leaf]) => leaf))
  const stray = topological([...results, ...writes].map(([, node]) => node)).find(
    (node) => node.operation._tag === "Leaf" && !own.has(node))
  if (stray !== undefined) {
    throw new ShapeError({
      operation: `program ${name}`, place: "", invariant: "every leaf must be an input or a cell of this program",
      values: [["leaf", show(stray)]],
      remedy: "It was made for another program: build the expression inside this one, from the tensors it is given."
    })
  }
  return { name, inputs: specification.inputs, state: specification.state, outputs: parts.outputs, leaves: leafTensors,
    cells, results, writes }
}

const checkPaths = (program: string, trees: Readonly<Record<string, Named>>): void => {
  const wrong = Object.entries(trees).flatMap(([tree, named]) => {
    const paths = named.map(([path]) => path)
    return paths.filter((path, i) => paths.indexOf(path) !== i).map((path) => [tree, path] as const)
  })
  if (wrong.length === 0) return
  throw new ShapeError({
    operation: `program ${program}`, place: "", invariant: "no two leaves of a tree may have one path", values: wrong,
    remedy: "A path is the keys joined by dots: give other names to keys that hold dots."
  })
}

const checkWrites = (name: string, cells: ReadonlyMap<string, AnySpecification>, writes: Named): void => {
  const wrong = writes.filter(([path, value]) => {
    const cell = cells.get(path)
    return cell === undefined || cell.kind !== value.kind ||
      Object.keys(cell.sizes).length !== Object.keys(value.sizes).length ||
      Object.entries(cell.sizes).some(([axis, size]) => value.sizes[axis] !== size)
  })
  if (wrong.length === 0) return
  throw new ShapeError({
    operation: `program ${name}`, place: "", invariant: "a cell must be replaced by a tensor of its own sizes and kind",
    values: wrong.flatMap(([path, value]) => [
      [`cell ${path}`, cells.has(path) ? `${describe(cells.get(path)?.sizes ?? {})} ${cells.get(path)?.kind}`
        : "there is none"] as const,
      ["new value", show(value)] as const
    ]),
    remedy: "Return the state in the form of its specification; a cell that is left out keeps its value."
  })
}

/** Which composites a backend has a kernel for, and which labelled inner values it shall return. */
export interface LowerOptions {
  readonly hasKernel: (composite: Composite, inputs: ReadonlyArray<Any>) => boolean
  /** Full names of labels; composites that hold one are expanded. */
  readonly watch: ReadonlyArray<string>
}

/** Lowers a program to positional instructions, in an order in which a backend can run them. */
export const lower = <I, S, O>(program: Program<I, S, O>, options: LowerOptions): Lowered => {
  const watched = new Set(options.watch)
  const keep = (node: Any): boolean =>
    node.operation._tag === "Composite" && node.operation.composite.layout !== undefined &&
    options.hasKernel(node.operation.composite, node.operands) && !holdsLabel(node, watched)
  const ends = [...program.results, ...program.writes]
  const watchable = watched.size === 0
    ? []
    : labelled(ends.map(([, node]) => node)).filter(([name]) => watched.has(name))
  const roots = [...ends, ...watchable].map(([, node]) => node)
  const rewritten = rewrite(roots, keep)
  const cells = new Map(program.cells)
  const named = (start: number, names: Named): ReadonlyArray<End> =>
    names.map(([name, node], i) => ({ name, node: rewritten[start + i] ?? node, sizes: node.sizes }))
  return lowerRoots({
    inputs: program.leaves,
    cells: program.cells,
    outputs: named(0, program.results),
    writes: named(program.results.length, program.writes)
      .map((end) => ({ ...end, sizes: cells.get(end.name)?.sizes ?? end.sizes })),
    watched: named(ends.length, watchable)
  })
}

/**
 * The labelled values that a program can be compiled to watch, by full name; composites are looked into. Different
 * values of one name are numbered in the order in which they are computed: `x`, `x·2`.
 */
export const labels = <I, S, O>(program: Program<I, S, O>): ReadonlyArray<string> =>
  labelled([...program.results, ...program.writes].map(([, node]) => node)).map(([name]) => name)
