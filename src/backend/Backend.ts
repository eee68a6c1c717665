/**
 * The backend: who computes a program. A service with one contract and several layers.
 *
 * State is a value of its own: `allocate` gives a tree of cells, any number of executables bind the same cells.
 * `compile` once, `bind` once, `run` often. Runs that touch a cell are serialized; a run that began cannot be
 * interrupted.
 *
 * From     Cria's own.
 * Checked  test/backend/Backend.test.ts on every layer.
 *
 * @module
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Kind, Sizes, Tensor } from "../tensor/Node.ts"
import type { Program } from "../tensor/Program.ts"
import type { Specification } from "../tensor/Specification.ts"

/** The width of real numbers: 32 or 64 bits. */
export type Precision = "f32" | "f64"

/**
 * Elements of each kind as they lie in memory: reals as floats of the precision, ids as 32-bit integers, truths as
 * bytes 0 and 1, codes as bytes.
 */
export interface ElementsOf {
  readonly real: Float32Array | Float64Array
  readonly id: Int32Array
  readonly truth: Uint8Array
  readonly code: Uint8Array
}

/** Elements of any kind. */
export type Elements = ElementsOf[Kind]

/**
 * Numbers with sizes: what a run gives back. Elements lie in the order of the keys of `sizes`, the last changing
 * fastest.
 */
export interface Values<A extends string, K extends Kind = "real"> {
  readonly "~values": true
  readonly sizes: Readonly<Record<A, number>>
  readonly kind: K
  readonly elements: ElementsOf[K]
}

/** What a run takes for an input: elements in the order of the specification's sizes, or one number for all. */
export type Given<S> = S extends Specification<string, infer K>
  ? ElementsOf[K] | (K extends "truth" ? boolean : number)
  : { readonly [X in keyof S]: Given<S[X]> }

/** What a run gives back for a tree of output tensors. */
export type Results<O> = O extends Tensor<infer A, infer K> ? Values<A, K> : { readonly [X in keyof O]: Results<O[X]> }

/** A named piece of state that lives on a backend. */
export interface Cell<A extends string, K extends Kind = "real"> {
  readonly "~cell": true
  readonly name: string
  readonly sizes: Readonly<Record<A, number>>
  readonly kind: K
  readonly precision: Precision
}

/** A cell whose axes and kind the compiler does not know. */
export type AnyCell = Cell<string, Kind>

/** The tree of cells of a tree of specifications. */
export type Cells<S> = S extends Specification<infer A, infer K> ? Cell<A, K>
  : S extends object ? { readonly [X in keyof S]: Cells<S[X]> } : S

/** The tree of values of a tree of cells. */
export type CellValues<C> = C extends Cell<infer A, infer K> ? Values<A, K>
  : C extends object ? { readonly [X in keyof C]: CellValues<C[X]> } : C

/**
 * Fails when a backend cannot do what it was asked for: which one, what it was doing, what is wrong, and what to do.
 */
export class BackendError extends Schema.TaggedError<BackendError>()("BackendError", {
  /** The backend's name. */
  backend: Schema.String,
  /** What it was doing, e.g. `run trainStep`. */
  operation: Schema.String,
  /** What went wrong, with all values. */
  detail: Schema.String,
  /** What to do. */
  remedy: Schema.String
}) {
  override get message() {
    return `${this.backend}, ${this.operation}: ${this.detail}\n  ${this.remedy}`
  }
}

/** How a program is compiled. */
export interface CompileOptions {
  /** The width of real numbers; the backend's own by default. */
  readonly precision?: Precision
  /**
   * Cells whose present values are frozen into the executable, by path; they need not be bound. Faster where they are
   * read often. Of cells that are not sealed the executable takes a copy.
   */
  readonly constants?: ReadonlyMap<string, AnyCell>
  /** Full names of labelled inner values to return as well (see `Program.labels`). */
  readonly watch?: ReadonlyArray<string>
}

/** What a run returns. */
export interface Outcome<O> {
  readonly outputs: Results<O>
  /** The watched inner values by label. */
  readonly watched: Readonly<Record<string, Values<string, Kind>>>
}

/** A program bound to cells. */
export interface Bound<I, O> {
  /** Runs once. Serialized with every other run over the same cells, uninterruptible once it began. */
  readonly run: (inputs: Given<I>) => Effect.Effect<Results<O>, BackendError>
  /**
   * The same, with the results where they lie and not in memory of the caller's: they hold until `use` has ended. For
   * results of megabytes in programs of milliseconds. `use` must not run the same binding, for which it would wait.
   */
  readonly runWith: <A, E, R>(
    inputs: Given<I>, use: (results: Results<O>) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | BackendError, R>
  /** The same, with the watched values. */
  readonly watch: (inputs: Given<I>) => Effect.Effect<Outcome<O>, BackendError>
}

/** A compiled program. */
export interface Executable<I, S, O> {
  readonly name: string
  /** Cells that a run replaces where they lie, and cells that it must copy because their old value is still read. */
  readonly placement: { readonly inPlace: ReadonlyArray<string>; readonly copied: ReadonlyArray<string> }
  readonly bind: (cells: Cells<S>) => Effect.Effect<Bound<I, O>, BackendError, Scope.Scope>
}

/** What a backend can do. */
export interface Capabilities {
  readonly precisions: ReadonlyArray<Precision>
  /** Composites that run as one kernel. */
  readonly kernels: ReadonlyArray<string>
  readonly threads: number
  /** How many bytes the constants of a program may have together; absent where memory alone sets an end to them. */
  readonly constantBytes?: number
  /** What the engine computes on, as it calls it; absent for the processor of the host. */
  readonly device?: string
  /**
   * Primitives that are not one operation of the engine, by name (see `testing/PrimitiveCase`), in some of their cases:
   * composed of several, or computed by the processor of the host and not the engine (fallback).
   */
  readonly primitives?: Readonly<Record<string, "composed" | "fallback">>
  /** Primitives, by the same names, that add in any order, so that their last bits change from run to run. */
  readonly unordered?: ReadonlyArray<string>
}

/**
 * The service. The order in which its methods are called does not matter; everything that is allocated is freed with
 * its Scope.
 */
export class Backend extends Context.Service<Backend, {
  readonly name: string
  /** The engine and its version, as a manifest records them. */
  readonly version: string
  readonly capabilities: Capabilities
  /**
   * How many things are alive on the backend now: allocations, loaded programs, tensors of a device. Absent where the
   * engine does not count them.
   */
  readonly live?: Effect.Effect<number>
  /**
   * Allocates cells, which begin as their specification says. Where that says normal draws, `initial` gives the
   * elements of each path.
   */
  readonly allocate: <S>(specification: S, options?: {
    readonly precision?: Precision
    readonly initial?: (path: string, sizes: Sizes) => Elements | undefined
  }) => Effect.Effect<Cells<S>, BackendError, Scope.Scope>
  /** A copy of what the cells hold. */
  readonly read: <C>(cells: C) => Effect.Effect<CellValues<C>, BackendError>
  /** Replaces what one cell holds. */
  readonly write: (cell: AnyCell, elements: Elements) => Effect.Effect<void, BackendError>
  /** Copies cell by cell between trees of the same form. */
  readonly copy: <C>(from: C, to: C) => Effect.Effect<void, BackendError>
  /** One index of the leading axis of a cell as a cell of its own, over the same memory. */
  readonly view: (cell: AnyCell, index: number) => Effect.Effect<AnyCell, BackendError>
  /**
   * Promises that cells change no more: from here on writing to them, copying into them, and running a program that
   * replaces them fail. They can be read, and be constants of programs without a copy. There is no way back.
   */
  readonly seal: <C>(cells: C) => Effect.Effect<void, BackendError>
  readonly compile: <I, S, O>(program: Program<I, S, O>, options?: CompileOptions) =>
  Effect.Effect<Executable<I, S, O>, BackendError, Scope.Scope>
}>()("cria/backend/Backend") {}
