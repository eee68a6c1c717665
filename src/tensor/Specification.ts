/**
 * What a program's inputs and state look like before there are any: trees of sizes and kinds.
 *
 * From     Cria's own.
 * Checked  test/tensor/Program.test.ts; test/types/tensor.ts.
 *
 * @module
 */
import type { Kind, Tensor } from "./Node.ts"
import { requireSizes } from "./Node.ts"
import { entries, mapAs } from "./Tree.ts"

/** How a cell begins: every element one value, or independent normal draws around zero (see `random/Key`). */
export type Initial =
  | { readonly _tag: "Constant"; readonly value: number }
  | { readonly _tag: "Normal"; readonly deviation: number }

/** Sizes and kind of one tensor. The order of the keys of `sizes` is the order in which its elements lie. */
export interface Specification<A extends string, K extends Kind = "real"> {
  readonly "~specification": true
  readonly sizes: Readonly<Record<A, number>>
  readonly kind: K
  readonly initial: Initial
}

/** A specification whose axes and kind the compiler does not know. */
export type AnySpecification = Specification<string, Kind>

/** The tree of specifications of a tree of tensors. */
export type Specifications<P> = P extends Tensor<infer A, infer K> ? Specification<A, K>
  : P extends object ? { readonly [X in keyof P]: Specifications<P[X]> } : P

/** The tree of tensors of a tree of specifications. */
export type Tensors<S> = S extends Specification<infer A, infer K> ? Tensor<A, K>
  : S extends object ? { readonly [X in keyof S]: Tensors<S[X]> } : S

const zero: Initial = { _tag: "Constant", value: 0 }

const specification = <A extends string,
  K extends Kind>(sizes: Readonly<Record<A, number>>, kind: K, initial: Initial): Specification<A, K> => {
  requireSizes("specification", sizes)
  return { "~specification": true, sizes, kind, initial }
}

/** Real numbers; a cell begins at zero unless `initial` says otherwise. */
export const real = <const A extends string = never>(
  sizes: Readonly<Record<A, number>>, initial: Initial = zero
): Specification<A> => specification(sizes, "real", initial)

/** Ids: 32-bit integers. */
export const ids = <const A extends string = never>(sizes: Readonly<Record<A, number>>): Specification<A, "id"> =>
  specification(sizes, "id", zero)

/** Truth values. */
export const truths = <const A extends string = never>(sizes: Readonly<Record<A, number>>): Specification<A, "truth"> =>
  specification(sizes, "truth", zero)

/** Codes: bytes. */
export const codes = <const A extends string = never>(sizes: Readonly<Record<A, number>>): Specification<A, "code"> =>
  specification(sizes, "code", zero)

/** Is this value a specification? */
export const isSpecification = (value: unknown): value is AnySpecification =>
  typeof value === "object" && value !== null && "~specification" in value

/** The specifications of a tree with their paths. */
export const leaves =
  (tree: unknown): ReadonlyArray<readonly [path: string, leaf: AnySpecification]> => entries(tree, isSpecification)

/** A tree of the same sizes and kinds whose cells begin at zero: gradients, moments. */
export const zeros = <S>(tree: S): S =>
  mapAs<S>()(tree, isSpecification, (leaf) => ({ ...leaf, initial: zero }))
