/**
 * Trees of parameters: nested records and arrays with leaves of one sort, typed from interfaces, walked in one order.
 *
 * A leaf's path is its keys joined by dots (`block.3.attention.query`): the name of a cell, of a tensor in a file, of
 * a metric. Records are walked in the order of their keys, arrays by index.
 *
 * From     Cria's own; the pytrees of JAX, with types.
 * Checked  test/tensor/Tree.test.ts.
 *
 * @module
 */
import type { Any } from "./Node.ts"
import { isTensor } from "./Node.ts"

/** A tree of tensors: what `P & Tree<P>` demands of an interface `P`. */
export type Tree<P> = P extends Any ? P : P extends object ? { readonly [K in keyof P]: Tree<P[K]> } : never

/** A part of a tree: any branch may be missing. */
export type Part<P> = P extends Any ? P : P extends ReadonlyArray<infer Q> ? ReadonlyArray<Part<Q>>
  : { readonly [K in keyof P]?: Part<P[K]> | undefined }

const join = (path: string, key: string): string => path === "" ? key : `${path}.${key}`

/**
 * The leaves of any tree with their paths; `isLeaf` says what a leaf is. Absent (`undefined`) branches are passed over;
 * whatever else is neither a record nor an array is a TypeError that names its path.
 */
export const entries =
  <L>(tree: unknown, isLeaf: (value: unknown) => value is L): ReadonlyArray<readonly [string, L]> => {
    const found: Array<readonly [string, L]> = []
    const visit = (value: unknown, path: string): void => {
      if (isLeaf(value)) found.push([path, value])
      else if (typeof value === "object" && value !== null) {
        for (const [key, child] of Object.entries(value)) visit(child, join(path, key))
      } else if (value !== undefined) throw new TypeError(
        `tree: ${path === "" ? "the root" : `"${path}"`} is ${String(value)}, not a leaf, a record or an array`)
    }
    visit(tree, "")
    return found
  }

/**
 * A tree of the same form, each leaf replaced. The caller states the resulting type, which the leaves' types decide.
 */
export const mapAs = <R>() => <L>(
  tree: unknown, isLeaf: (value: unknown) => value is L, f: (leaf: L, path: string) => unknown
): R => {
  const visit = (value: unknown, path: string): unknown => {
    if (isLeaf(value)) return f(value, path)
    if (Array.isArray(value)) return value.map((child, index) => visit(child, join(path, String(index))))
    if (typeof value === "object" && value !== null) {
      return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, visit(child, join(path, key))]))
    }
    return value
  }
  return visit(tree, "") as R
}

/** The tensors of a tree with their paths. */
export const tensors = <P>(tree: P): ReadonlyArray<readonly [string, Any]> => entries(tree, isTensor)

/** A tree of tensors of the same form, each replaced by one with the same axes. */
export const map = <P>(tree: P & Tree<P>, f: (leaf: Any, path: string) => Any): P => mapAs<P>()(tree, isTensor, f)

/** Two trees of the same form, leaf by leaf. A leaf that the right one lacks is a TypeError that names its path. */
export const zip = <P>(left: P & Tree<P>, right: P & Tree<P>, f: (left: Any, right: Any, path: string) => Any): P => {
  const others = new Map(tensors(right))
  return map(left, (leaf, path) => {
    const other = others.get(path)
    if (other === undefined) throw new TypeError(`tree: the right tree has no leaf "${path}"`)
    return f(leaf, other, path)
  })
}
