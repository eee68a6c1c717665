/**
 * The pieces that kernels are put together from: steps over tensors, one after another.
 *
 * From     Cria's own; TensorFlow.js 4.22, as measured.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts (every primitive, on every engine that starts, against the
 *          reference).
 *
 * @module
 */
import type { Primitive } from "../../tensor/Instruction.ts"
import type { Kind } from "../../tensor/Node.ts"
import type { Elements } from "../Backend.ts"
import type { Attributes, DataType, Engine, Tensor } from "./Engine.ts"
import { same, type Shape } from "./Shape.ts"

/** What an instruction takes or gives: a constant with one number everywhere may come as a tensor without axes. */
export interface Operand {
  readonly shape: Shape
  readonly kind: Kind
  readonly fill?: number
}

/** Where kernels run, and constants that live as long as the program. */
export interface Device {
  readonly engine: Engine
  readonly constant: (elements: Elements | number, shape: Shape, type: DataType) => Tensor
}

/** An instruction at work. What it returns is new, never one of what it was given. */
export type Step = (inputs: ReadonlyArray<Tensor>) => ReadonlyArray<Tensor>

/** A step from one tensor to one. */
export type Map1 = (x: Tensor) => Tensor
/** A step from two tensors to one. */
export type Map2 = (x: Tensor, y: Tensor) => Tensor

/** The type of elements of a kind on a device. */
export const typeOf = (kind: Kind): DataType => kind === "real" ? "float32" : kind === "truth" ? "bool" : "int32"

/** More axes than this are merged, or an operation is taken apart: what every engine does rightly. */
export const most = 4

/** The steps that primitives are made of. */
export const pieces = (device: Device) => {
  const { constant, engine } = device
  const map = (kernel: string, attributes: Attributes = {}): Map1 => (x) => engine.run(kernel, { x }, attributes)
  const join = (kernel: string): Map2 => (a, b) => engine.run(kernel, { a, b })
  const reshape = (shape: Shape): Map1 => map("Reshape", { shape })
  const number = (value: number): Tensor => constant(value, [], "float32")
  const select = (condition: Tensor, t: Tensor, e: Tensor): Tensor => engine.run("Select", { condition, t, e })
  return { constant, engine, map, join, reshape, number, select }
}

/** The steps over a device. */
export type Pieces = ReturnType<typeof pieces>

/** One step after another, from `shape` to `shape`; what lies between is freed. */
export const chain = ({ engine }: Pieces, steps: ReadonlyArray<Map1>): Map1 => {
  const [first, ...rest] = steps
  if (first === undefined) return (x) => engine.run("Identity", { x })
  return rest.length === 0 ? first : (x) => engine.tidy(() => rest.reduce((y, step) => step(y), first(x)))
}

/** A reshape, where one is needed. */
export const reshaped = ({ reshape }: Pieces, from: Shape, to: Shape): ReadonlyArray<Map1> =>
  same(from, to) ? [] : [reshape(to)]

/** A step of one operand. */
export const inOne = (step: Map1): Step => ([x]) => x === undefined ? [] : [step(x)]

/** A step of two operands. */
export const inTwo = (step: Map2): Step => ([x, y]) => x === undefined || y === undefined ? [] : [step(x, y)]

/** One of the primitives. */
export type Of<Tag extends Primitive["_tag"]> = Extract<Primitive, { readonly _tag: Tag }>
