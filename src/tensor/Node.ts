/**
 * The tensor value: an immutable node of a computation, with named axes, that nothing has executed yet.
 *
 * A node is an operation over other nodes. Its axes are a set of names with sizes: their order means nothing, and only
 * `Lower` ever chooses one. The compiler checks the names (`Tensor<"batch" | "embed">`), the builder checks the sizes.
 *
 * From     Cria's own; named axes after Haliax and Penzai, typed as a union of names.
 * Checked  test/tensor/Tensor.test.ts; test/types/tensor.ts (what the compiler must refuse);
 *          test/message/ShapeError.test.ts.
 *
 * @module
 */
import { type Pipeable, pipeArguments } from "effect/Pipeable"
import type { Composite } from "./Composite.ts"
import { ShapeError } from "./ShapeError.ts"

/**
 * What the elements are: real numbers, ids (32-bit integers), truth values, or codes (bytes 0–255, in which compressed
 * weights are kept). The width of real numbers is chosen when a program is compiled.
 */
export type Kind = "real" | "id" | "truth" | "code"

/** Sizes by axis name. The order of the keys is the order in which values are given and read; it means nothing else. */
export type Sizes = Readonly<Record<string, number>>

/**
 * A tensor with the axes `A` (a union of names, in no order) and elements of kind `K`.
 *
 * It is a description of a value, not the value: build expressions from it, differentiate them, make a `Program`.
 */
export interface Tensor<in out A extends string, out K extends Kind = "real"> extends Pipeable {
  readonly operation: Operation
  readonly operands: ReadonlyArray<Any>
  readonly sizes: Sizes
  readonly kind: K
  /** Where the node was built: the names of the enclosing `within` calls, joined by dots. */
  readonly place: string
  readonly "~axes": ((axes: A) => A) | undefined
}

/** A tensor whose axes and kind the compiler does not know. */
export type Any = Tensor<any, Kind> | Tensor<never, Kind>

/** What untyped builders return: it fits every tensor type, so a typed signature must stand at the call. */
export type Untyped = Tensor<any, any>

/** A tensor without axes: one number. */
export type Scalar = Tensor<never>

/** Elementwise functions of one real tensor. */
export type UnaryFunction =
  | "exp" | "log" | "sqrt" | "rsqrt" | "reciprocal" | "sin" | "cos" | "tanh" | "sigmoid" | "abs" | "sign" | "floor"
  | "negate" | "square"

/** Elementwise functions of two tensors of one kind (real or id; `divide` and `power` real only). */
export type BinaryFunction = "add" | "subtract" | "multiply" | "divide" | "maximum" | "minimum" | "power"

/** Elementwise comparisons; the result is a truth. */
export type Relation = "equal" | "less" | "lessEqual"

/** Sizes and kind of one output of a composite. */
export interface Shape {
  readonly sizes: Sizes
  readonly kind: Kind
}

/** Elements of a constant, in the order of the keys of `sizes`. */
export type Elements = Float64Array | Int32Array | Uint8Array

/** What a node does. About thirty primitives, each with one pullback in `Gradient` and one lowering in `Lower`. */
export type Operation =
  | { readonly _tag: "Leaf"; readonly role: "input" | "cell"; readonly name: string }
  | { readonly _tag: "Fill"; readonly value: number }
  | { readonly _tag: "Constant"; readonly elements: Elements }
  | { readonly _tag: "Positions"; readonly axis: string }
  | { readonly _tag: "Unary"; readonly function: UnaryFunction }
  | { readonly _tag: "Binary"; readonly function: BinaryFunction }
  | { readonly _tag: "Compare"; readonly relation: Relation }
  | { readonly _tag: "Logic"; readonly function: "and" | "or" | "not" }
  | { readonly _tag: "Select" }
  | { readonly _tag: "Convert" }
  | { readonly _tag: "Reduce"; readonly function: "sum" | "max"; readonly axes: ReadonlyArray<string> }
  | { readonly _tag: "Contract"; readonly over: ReadonlyArray<string> }
  | { readonly _tag: "CumulativeSum"; readonly axis: string; readonly reverse: boolean }
  | { readonly _tag: "Rename"; readonly from: string; readonly to: string }
  | { readonly _tag: "Spread"; readonly axis: string }
  | { readonly _tag: "Slice"; readonly axis: string; readonly start: number; readonly end: number }
  | { readonly _tag: "Pad"; readonly axis: string; readonly before: number; readonly after: number }
  | { readonly _tag: "Concat"; readonly axis: string }
  | { readonly _tag: "Split"; readonly axis: string; readonly into: ReadonlyArray<string> }
  | { readonly _tag: "Merge"; readonly axes: ReadonlyArray<string>; readonly into: string }
  | { readonly _tag: "Take"; readonly axis: string }
  | { readonly _tag: "Put"; readonly axis: string; readonly mode: "set" | "add" }
  | { readonly _tag: "TopK"; readonly axis: string; readonly rank: string; readonly part: "values" | "ids" }
  | { readonly _tag: "StopGradient" }
  | { readonly _tag: "Barrier" }
  | { readonly _tag: "Label"; readonly name: string }
  | { readonly _tag: "Composite"; readonly composite: Composite; readonly outputs: ReadonlyArray<Shape> }
  | { readonly _tag: "Output"; readonly index: number }

const Prototype = {
  pipe() {
    return pipeArguments(this, arguments)
  },
  toString(this: Any) {
    return `${this.kind} ${describe(this.sizes)}`
  }
}

/** The place in force: the names of the enclosing `within` calls. */
let place = ""

/**
 * Builds what `thunk` builds under a name: nodes carry the place, and a `ShapeError` thrown inside begins with it.
 *
 * Nested names are joined by dots: `within("block.3", () => within("attention", …))` is `block.3.attention`.
 */
export const within = <R>(name: string, thunk: () => R): R => inPlace(place === "" ? name : `${place}.${name}`, thunk)

/** Builds what `thunk` builds at a place, whatever the place in force: a node's parts belong where the node stands. */
export const inPlace = <R>(name: string, thunk: () => R): R => {
  const outer = place
  place = name
  try {
    return thunk()
  } finally {
    place = outer
  }
}

/**
 * Builds a node. The one constructor of tensors: operations check their operands before they call it, and state the
 * type.
 */
export const make = <A extends string = any, K extends Kind = any>(
  operation: Operation, operands: ReadonlyArray<Any>, sizes: Sizes, kind: Kind
): Tensor<A, K> =>
  Object.assign(Object.create(Prototype) as object,
    { operation, operands, sizes, kind, place, "~axes": undefined }) as Tensor<A, K>

/** Is this value a tensor? */
export const isTensor =
  (value: unknown): value is Any => typeof value === "object" && value !== null && "~axes" in value

/** Sizes as `[batch: 2, position: 16]`, the notation of every message. */
export const describe = (sizes: Sizes): string =>
  `[${Object.entries(sizes).map(([axis, size]) => `${axis}: ${size}`).join(", ")}]`

/** A tensor as a message shows it: sizes, then kind and name where they tell something. */
export const show = (x: Any): string => {
  const kind = x.kind === "real" ? "" : ` ${x.kind}`
  const name = x.operation._tag === "Leaf" ? `  ${x.operation.role} ${x.operation.name}` : ""
  return `${describe(x.sizes)}${kind}${name}`
}

/** Stops the building with a `ShapeError` at the current place. */
export const fail = (
  operation: string,
  invariant: string,
  values: ReadonlyArray<readonly [string, string]>,
  remedy: string
): never => {
  throw new ShapeError({ operation, place, invariant, values, remedy })
}

/** The number of elements of the given sizes. */
export const count = (sizes: Sizes): number => Object.values(sizes).reduce((product, size) => product * size, 1)

/** Every axis of `axes` must be an axis of `x`. */
export const requireAxes = (operation: string, x: Any, axes: ReadonlyArray<string>): void => {
  const missing = axes.filter((axis) => !(axis in x.sizes))
  if (missing.length > 0) {
    fail(operation, `axis ${missing.map((axis) => `"${axis}"`).join(", ")} must be an axis of the tensor`, [
      ["tensor", show(x)]
    ], "Axes are named, not numbered: is it misspelt, renamed or already reduced?")
  }
  const twice = axes.filter((axis, i) => axes.indexOf(axis) !== i)
  if (twice.length > 0) {
    fail(operation, `axis "${twice[0]}" is named twice`, [["axes", axes.join(", ")]], "Name it once.")
  }
}

/** The operands must be of one of the given kinds. */
export const requireKind = (operation: string, operands: ReadonlyArray<Any>, kinds: ReadonlyArray<Kind>): void => {
  if (operands.some((x) => !kinds.includes(x.kind))) {
    fail(operation, `operands must be ${kinds.join(" or ")}`,
      operands.map((x, i) => [`operand ${i + 1}`, show(x)] as const),
      "`real` makes numbers of truths, ids and codes, `toIds` ids of numbers, and a comparison truths.")
  }
}

/** The union of the operands' sizes; an axis that several have must have one size. */
export const unite = (operation: string, operands: ReadonlyArray<readonly [label: string, x: Any]>): Sizes => {
  const sizes: Record<string, number> = {}
  const clashes = new Set<string>()
  for (const [, x] of operands) {
    for (const [axis, size] of Object.entries(x.sizes)) {
      if (sizes[axis] === undefined) sizes[axis] = size
      else if (sizes[axis] !== size) clashes.add(axis)
    }
  }
  if (clashes.size > 0) {
    const axes = [...clashes].map((axis) => `"${axis}"`).join(", ")
    fail(operation, `axis ${axes} must agree`, operands.map(([label, x]) => [label, show(x)] as const),
      "The same name means the same axis. Rename one if they are different axes; otherwise one operand was built " +
        "with another configuration.")
  }
  return sizes
}

/** `sizes` without some axes. */
export const omit = (sizes: Sizes, axes: ReadonlyArray<string>): Sizes =>
  Object.fromEntries(Object.entries(sizes).filter(([axis]) => !axes.includes(axis)))

/** The size of an axis. */
export const size = (x: Any, axis: string): number => {
  requireAxes("size", x, [axis])
  return x.sizes[axis] ?? 0
}

/** A size must be a whole number, zero or more. */
export const requireSizes = (operation: string, sizes: Sizes): void => {
  if (Object.values(sizes).some((size) => !Number.isSafeInteger(size) || size < 0)) {
    fail(operation, "a size must be a whole number, zero or more", [["sizes", describe(sizes)]],
      "A fraction or a NaN here usually comes from a configuration whose sizes do not divide.")
  }
}

/** Ids must be whole numbers of 32 bits. */
export const requireIds = (operation: string, numbers: ArrayLike<number>): void => {
  const odd = Array.from(numbers).findIndex((id) => id !== (id | 0))
  if (odd >= 0) {
    fail(operation, "an id must be a whole number of 32 bits", [[`element ${odd}`, String(numbers[odd])]],
      "Ids count; what is measured is real. Round it before, or keep it real.")
  }
}

/** A name that is to be given to an axis must not be taken. */
export const requireFree = (operation: string, x: Any, axis: string): void => {
  if (axis in x.sizes) {
    fail(operation, `axis "${axis}" is already there`, [["tensor", show(x)]],
      "Two axes of one tensor never share a name: choose another, or rename that axis first.")
  }
}

/** The same value, through which no gradient flows. */
export const stopGradientNode = (x: Any): Untyped => make({ _tag: "StopGradient" }, [x], x.sizes, x.kind)

/** The same node over other operands (which must have the same sizes), at the same place. */
export const withOperands = (node: Any, operands: ReadonlyArray<Any>): Any =>
  operands.every((operand, i) => operand === node.operands[i])
    ? node
    : Object.assign(make(node.operation, operands, node.sizes, node.kind), { place: node.place })
