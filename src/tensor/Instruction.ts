/**
 * Positional programs: what `Lower` makes of a graph and what a backend runs.
 *
 * A value is an array with an order of axes; an instruction computes one or more values from others. Elementwise
 * instructions broadcast as NumPy does: shapes are aligned at their last axis, an axis of size 1 stretches.
 *
 * From     Cria's own.
 * Checked  test/tensor/Primitive.test.ts (every instruction against plain loops, on the reference);
 *          test/law/BackendLaws.test.ts (the laws by which other backends are compared with it).
 *
 * @module
 */
import type { Composite } from "./Composite.ts"
import type { BinaryFunction, Elements, Kind, Relation, Sizes, UnaryFunction } from "./Node.ts"

/**
 * An array that a program computes or is given. Its axes keep their names for messages, `·` between those that lowering
 * made one; `""` is an axis of size 1 that lowering added.
 */
export interface Value {
  readonly shape: ReadonlyArray<number>
  readonly axes: ReadonlyArray<string>
  readonly kind: Kind
}

/** The positional primitives. Inputs and outputs are indices into `Lowered.values`. */
export type Primitive =
  /** A constant array; one number fills it. */
  | { readonly _tag: "constant"; readonly elements: Elements | number }
  | { readonly _tag: "unary"; readonly function: UnaryFunction }
  | { readonly _tag: "binary"; readonly function: BinaryFunction }
  | { readonly _tag: "compare"; readonly relation: Relation }
  | { readonly _tag: "logic"; readonly function: "and" | "or" | "not" }
  /** inputs: condition, then, else. */
  | { readonly _tag: "select" }
  | { readonly _tag: "convert"; readonly to: Kind }
  /** Removes the axes (positions, ascending). */
  | { readonly _tag: "reduce"; readonly function: "sum" | "max"; readonly axes: ReadonlyArray<number> }
  /** [batch?, m, k] · [batch?, k, n] · scale; a transposed operand has its last two axes swapped. */
  | {
    readonly _tag: "matmul"
    readonly transposeLeft: boolean
    readonly transposeRight: boolean
    readonly scale: number
  }
  /** Output axis i is input axis permutation[i]. */
  | { readonly _tag: "transpose"; readonly permutation: ReadonlyArray<number> }
  | { readonly _tag: "reshape" }
  /** Broadcasts to the shape of the output. */
  | { readonly _tag: "expand" }
  | { readonly _tag: "slice"; readonly axis: number; readonly start: number; readonly end: number }
  | { readonly _tag: "pad"; readonly axis: number; readonly before: number; readonly after: number }
  | { readonly _tag: "concat"; readonly axis: number }
  /**
   * x [batch…, outer…, k, rest…], ids [batch…, i…] → [batch…, outer…, i…, rest…]; `batch` counts axes, `axis` is the
   * place of k.
   */
  | { readonly _tag: "gather"; readonly batch: number; readonly axis: number }
  /** The transpose of gather: inputs base, ids, values; writes or adds the values. */
  | { readonly _tag: "scatter"; readonly batch: number; readonly axis: number; readonly mode: "set" | "add" }
  /** Along the last axis; outputs values, ids. */
  | { readonly _tag: "topK"; readonly count: number }
  | { readonly _tag: "cumulativeSum"; readonly axis: number; readonly reverse: boolean }
  /** The first input, not computed before the second is. */
  | { readonly _tag: "barrier" }
  /** A composite that the backend has a kernel for; `orders` names the axes of each input. */
  | { readonly _tag: "composite"; readonly composite: Composite; readonly orders: ReadonlyArray<ReadonlyArray<string>> }

/** One step of a positional program. */
export interface Instruction {
  readonly primitive: Primitive
  readonly inputs: ReadonlyArray<number>
  readonly outputs: ReadonlyArray<number>
  readonly place: string
}

/** A named end of a positional program. */
export interface Port {
  readonly name: string
  readonly value: number
  /** The axes in the order in which the elements lie. */
  readonly sizes: Sizes
}

/** A positional program: instructions in an order in which they can run. */
export interface Lowered {
  readonly values: ReadonlyArray<Value>
  readonly instructions: ReadonlyArray<Instruction>
  readonly inputs: ReadonlyArray<Port>
  /** Cells that are read or written, with the value they hold when a run begins. */
  readonly cells: ReadonlyArray<Port>
  readonly outputs: ReadonlyArray<Port>
  /** What cells hold when a run ends. */
  readonly writes: ReadonlyArray<Port>
  readonly watched: ReadonlyArray<Port>
}
