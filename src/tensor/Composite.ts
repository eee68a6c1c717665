/**
 * Composites: named pieces of a graph that a backend may run as one kernel, with a pullback better than the derived
 * one.
 *
 * Everything that a composite means is its decomposition into primitives; a backend without the kernel, float64
 * gradient checks and a residual that is differentiated again all use it. The pullback is itself made of differentiable
 * operations.
 *
 * From     Cria's own; the same idea as custom derivatives in JAX and operator fusion by pattern in compilers.
 * Checked  test/tensor/Gradient.test.ts (pullback = pullback of the decomposition; residuals); composites of other
 *          folders in the tests of their own files.
 *
 * @module
 */
import type { Any, Kind, Tensor, Untyped } from "./Node.ts"
import { inPlace, make } from "./Node.ts"

/** The axis order in which a kernel sees its inputs and gives its outputs. */
export interface Layout {
  readonly inputs: ReadonlyArray<ReadonlyArray<string>>
  readonly outputs: ReadonlyArray<ReadonlyArray<string>>
}

/** The definition of a composite, from which `composite` builds its outputs. */
export interface Composite {
  readonly name: string
  /** Constants on which the result depends, e.g. an epsilon: what a kernel needs to know beside the inputs. */
  readonly attributes: Readonly<Record<string, number | string>>
  /** The outputs as primitives; trailing ones may be residuals that only the pullback uses. */
  readonly decompose: (inputs: ReadonlyArray<Any>) => ReadonlyArray<Any>
  /** How many of the outputs are residuals. */
  readonly residuals: number
  /**
   * The cotangent of each input (`undefined` where none flows), given the inputs, all outputs, and the cotangents of
   * the proper outputs.
   */
  readonly pullback?: (
    inputs: ReadonlyArray<Untyped>, outputs: ReadonlyArray<Untyped>, cotangents: ReadonlyArray<Untyped | undefined>
  ) => ReadonlyArray<Any | undefined>
  /** The axis orders of a kernel, given the orders in which the inputs lie. Without it no backend has a kernel. */
  readonly layout?: (orders: ReadonlyArray<ReadonlyArray<string>>) => Layout
}

/** Builds the outputs of a composite over some inputs, residuals included. */
export const composite = (definition: Composite, inputs: ReadonlyArray<Any>): ReadonlyArray<Untyped> => {
  const shapes = definition.decompose(inputs).map(({ kind, sizes }) => ({ kind, sizes }))
  return outputsOf(make({ _tag: "Composite", composite: definition, outputs: shapes }, inputs, {}, "real"))
}

/** The outputs of a composite node, one tensor each; nothing for any other node. */
export const outputsOf = (node: Any): ReadonlyArray<Untyped> =>
  node.operation._tag === "Composite"
    ? node.operation.outputs.map(({ kind, sizes }, index) => make({ _tag: "Output", index }, [node], sizes, kind))
    : []

/** The outputs of a composite node, decomposed; nothing for any other node. */
export const partsOf = (node: Any): ReadonlyArray<Any> => {
  const { operation } = node
  return operation._tag === "Composite" ? inPlace(node.place, () => operation.composite.decompose(node.operands)) : []
}

/** `order` with `last` moved to its end, in the given order. */
export const withLast = (order: ReadonlyArray<string>, last: ReadonlyArray<string>): ReadonlyArray<string> => [
  ...order.filter((axis) => !last.includes(axis)),
  ...last
]

/**
 * The same value, which must not be computed before `after` is. Nothing is shared or folded across a barrier: so
 * `recompute` keeps a region that is computed again apart from its first run.
 */
export const barrier = <A extends string, K extends Kind>(x: Tensor<A, K>, after: Any): Tensor<A, K> =>
  make({ _tag: "Barrier" }, [x, after], x.sizes, x.kind)
