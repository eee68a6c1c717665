/**
 * Arbitraries of sizes and of well-scaled tensors.
 *
 * Elements come from random keys, so that a counterexample shrinks in its sizes and not in its digits, and so that two
 * real elements are never equal by accident: where a function has a kink, a draw does not lie on it.
 *
 * From     Cria's own; size 1 is favoured because that is where layouts go wrong.
 * Checked  test/law/Arbitrary.test.ts.
 *
 * @module
 */
import * as fc from "fast-check"
import * as Key from "../random/Key.ts"
import { count, type Elements, type Sizes } from "../tensor/Node.ts"
import type { Given } from "./Computation.ts"

/** The size of an axis: often 1, mostly small; never 0. */
export const size: fc.Arbitrary<number> = fc.oneof(
  { withCrossShrink: true },
  { weight: 3, arbitrary: fc.constant(1) },
  { weight: 5, arbitrary: fc.integer({ min: 2, max: 4 }) },
  { weight: 1, arbitrary: fc.integer({ min: 5, max: 7 }) }
)

/** The size of an axis, sometimes 0. */
export const sizeOrZero: fc.Arbitrary<number> = fc.oneof(
  { withCrossShrink: true },
  { weight: 8, arbitrary: size },
  { weight: 1, arbitrary: fc.constant(0) }
)

/** Sizes of the named axes, in any order of declaration. */
export const sizes = <const A extends string>(
  axes: ReadonlyArray<A>, one: fc.Arbitrary<number> = size
): fc.Arbitrary<Readonly<Record<A, number>>> =>
  fc.record(Object.fromEntries(axes.map((axis) => [axis, one])) as Record<A, fc.Arbitrary<number>>)

/** An order of the axes of some sizes. */
export const reordered = (all: Sizes): fc.Arbitrary<Sizes> => {
  const entries = Object.entries(all)
  return fc.shuffledSubarray(entries, { minLength: entries.length }).map((order) => Object.fromEntries(order))
}

/** Some of the axes of some sizes, in any order. */
export const part = (all: Sizes): fc.Arbitrary<Sizes> =>
  fc.shuffledSubarray(Object.entries(all)).map((order) => Object.fromEntries(order))

/** Reals uniform between −2 and 2. */
export const reals = (seed: number | string, length: number): Float64Array => {
  const elements = new Float64Array(length)
  Key.fillUniform(Key.make(seed), elements)
  return elements.map((x) => 4 * x - 2)
}

/** Ids from 0 up to, not including, `below`. */
export const idsBelow = (seed: number | string, length: number, below: number): Int32Array =>
  Int32Array.from({ length }, (_, i) => Key.below(Key.make(seed), i, below))

/** Truths, one in four of them false. */
export const truths = (seed: number | string, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => Number(Key.below(Key.make(seed), i, 4) > 0))

const seed = fc.nat({ max: 2 ** 20 })

const given = (
  name: string, kind: Given["kind"], of: Sizes, elements: (seed: string, length: number) => Elements
): fc.Arbitrary<Given> =>
  fc.record({ seed, sizes: reordered(of) }).map((drawn) => ({
    name, kind, sizes: drawn.sizes, elements: elements(`${name} ${drawn.seed}`, count(of))
  }))

/** A real tensor of the given sizes, its axes declared in any order. */
export const real = (name: string, of: Sizes): fc.Arbitrary<Given> => given(name, "real", of, reals)

/** A tensor of ids below a bound, of the given sizes, its axes declared in any order. */
export const ids = (name: string, of: Sizes, below: number): fc.Arbitrary<Given> =>
  given(name, "id", of, (drawn, length) => idsBelow(drawn, length, below))

/** A tensor of truths of the given sizes, its axes declared in any order. */
export const truth = (name: string, of: Sizes): fc.Arbitrary<Given> => given(name, "truth", of, truths)
