/**
 * A computation with numbers to try it on: what arbitraries draw and laws examine.
 *
 * Leaves with names, sizes and elements, and a function from leaf tensors to output tensors. It can be evaluated at
 * once, in float64, without a backend: laws are pure.
 *
 * From     Cria's own.
 * Checked  test/law/Computation.test.ts.
 *
 * @module
 */
import * as Interpreter from "../backend/reference/Interpreter.ts"
import type { Lowered } from "../tensor/Instruction.ts"
import { lower } from "../tensor/Lower.ts"
import { type Any, type Elements, type Kind, make as makeNode, type Sizes, type Untyped } from "../tensor/Node.ts"
import { expressions } from "../tensor/Print.ts"
import { rewrite } from "../tensor/Rewrite.ts"
import { LawError } from "./LawError.ts"

/** A leaf and its elements, which lie in the order of the keys of `sizes`. */
export interface Given {
  readonly name: string
  readonly sizes: Sizes
  readonly kind: Kind
  readonly elements: Elements
}

/** Leaf tensors by name. */
export type Leaves = Readonly<Record<string, Untyped>>

/** A function of tensors and the numbers to try it on. */
export interface Computation {
  readonly given: ReadonlyArray<Given>
  readonly build: (leaves: Leaves) => ReadonlyArray<Any>
}

/** The leaf tensors of a computation. */
export const leavesOf = (given: ReadonlyArray<Given>): Leaves =>
  Object.fromEntries(given.map(({ kind, name, sizes }): readonly [string, Untyped] =>
    [name, makeNode({ _tag: "Leaf", role: "input", name }, [], sizes, kind)]))

/**
 * Outputs over leaves as a function of the leaves' elements: lowered once, changed if that is asked for, run as often
 * as is wanted.
 */
export const prepare = (
  leaves: Leaves, outputs: ReadonlyArray<Any>, change = (lowered: Lowered): Lowered => lowered
): (given: ReadonlyArray<Given>) => ReadonlyArray<Elements> => {
  const rewritten = rewrite(outputs, () => false)
  const lowered = change(lower({
    inputs: Object.entries(leaves),
    cells: [],
    outputs: outputs.map((output, i) => ({ name: String(i), node: rewritten[i] ?? output, sizes: output.sizes })),
    writes: [],
    watched: []
  }))
  return (given) => {
    const computed = Interpreter.run(lowered, new Map(given.map(({ elements, name }) => [name, elements])), new Map())
    if (Interpreter.isFault(computed)) throw new LawError({ law: "evaluation", detail: computed.detail })
    return outputs.flatMap((_, i) => {
      const elements = computed.outputs.get(String(i))
      return elements === undefined || elements instanceof Float32Array ? [] : [elements]
    })
  }
}

/** The outputs of a computation, as elements in the order of their sizes. */
export const evaluate = ({ build, given }: Computation): ReadonlyArray<Elements> => {
  const leaves = leavesOf(given)
  return prepare(leaves, build(leaves))(given)
}

/** A computation as text: the operations, then the numbers. */
export const print = ({ build, given }: Computation): string => [
  "",
  expressions(build(leavesOf(given))),
  ...given.map(({ elements, kind, name, sizes }) => `${name}: ${kind} ${JSON.stringify(sizes)} ${listed(elements)}`)
].join("\n")

/** Numbers as text; of many, the first and how many there are. */
export const listed = (elements: ArrayLike<number>): string =>
  elements.length <= 24
    ? Array.from(elements).join(" ")
    : `${Array.from(elements).slice(0, 24).join(" ")} … (${elements.length})`

/**
 * How far apart two arrays are, relative to the largest expected element or 1; ∞ where one has a NaN and the other not.
 */
export const distance = (expected: ArrayLike<number>, actual: ArrayLike<number>): number => {
  if (expected.length !== actual.length) return Infinity
  let scale = 1
  let largest = 0
  for (let i = 0; i < expected.length; i++) {
    const [left, right] = [expected[i] ?? 0, actual[i] ?? 0]
    if (Number.isFinite(left)) scale = Math.max(scale, Math.abs(left))
    if (Object.is(left, right) || left === right) continue
    const apart = Math.abs(left - right)
    largest = Math.max(largest, Number.isNaN(apart) ? Infinity : apart)
  }
  return largest / scale
}
