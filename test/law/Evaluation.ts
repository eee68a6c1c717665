/**
 * Evaluates expressions on the float64 reference, and the laws that are checked with it.
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import type { Results, Values } from "../../src/backend/Backend.ts"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as Key from "../../src/random/Key.ts"
import { partsOf } from "../../src/tensor/Composite.ts"
import { gradientOf } from "../../src/tensor/Gradient.ts"
import type { Any, Kind, Sizes, Tensor } from "../../src/tensor/Node.ts"
import { count } from "../../src/tensor/Node.ts"
import * as Program from "../../src/tensor/Program.ts"
import { isSpecification, type Tensors } from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { mapAs } from "../../src/tensor/Tree.ts"

type AnyValues = Values<string, Kind>

/** The values of a tree of expressions that has no leaves but constants. */
export const evaluate = <O>(build: () => O): Results<O> =>
  Effect.runSync(Effect.scoped(Effect.gen(function*() {
    const program = yield* Program.makeGeneric("test", { inputs: {}, state: {} }, () => ({ outputs: build() }))
    const executable = yield* (yield* Backend).compile(program)
    return yield* (yield* executable.bind({})).run({})
  })).pipe(Effect.provide(Reference.layer)))

/** The elements of a value in an order of its axes. */
export const elements = (values: AnyValues, order: ReadonlyArray<string>): ReadonlyArray<number> => {
  const own = Object.keys(values.sizes)
  assert.sameMembers(own, [...order])
  const strideAfter = (i: number): number => own.slice(i + 1).reduce((n, name) => n * sizeOf(values, name), 1)
  const strides = new Map(own.map((axis, i) => [axis, strideAfter(i)]))
  const walk = (axes: ReadonlyArray<string>, offset: number): ReadonlyArray<number> => {
    const [axis, ...rest] = axes
    if (axis === undefined) return [Number(values.elements[offset])]
    return Array.from({ length: sizeOf(values, axis) }, (_, i) => walk(rest, offset + i * strides.get(axis)!)).flat()
  }
  return walk(order, 0)
}

const sizeOf = (values: AnyValues, axis: string): number => values.sizes[axis] ?? 0

/** The one number of a value without axes. */
export const number = (values: AnyValues): number => elements(values, [])[0]!

/** The elements of an expression in an order of its axes. */
export const numbers = (x: Any, order: ReadonlyArray<string> = Object.keys(x.sizes)): ReadonlyArray<number> =>
  elements(evaluate(() => ({ x })).x as AnyValues, order)

/** Equal within a tolerance, absolute where numbers are small and relative where they are large. */
export const agree = (
  actual: ReadonlyArray<number>, expected: ReadonlyArray<number>, tolerance = 1e-9, name = ""
): void => {
  assert.strictEqual(actual.length, expected.length, name)
  actual.forEach((value, i) => {
    const wanted = expected[i]!
    if (!(Math.abs(value - wanted) <= tolerance * (1 + Math.abs(wanted)))) {
      assert.fail(`${name}: element ${i} is ${value}, expected ${wanted} within ${tolerance}`)
    }
  })
}

/** A constant of normal draws. */
export const normals = <const A extends string>(
  seed: number | string, sizes: Readonly<Record<A, number>>, deviation = 1
): Tensor<A> => {
  const drawn = new Float64Array(count(sizes))
  Key.fillNormal(Key.make(seed), drawn, { mean: 0, deviation })
  return T.values(sizes, drawn)
}

/** A constant of ids below a number. */
export const someIds = <const A extends string>(
  seed: number | string, sizes: Readonly<Record<A, number>>, below: number
): Tensor<A, "id"> =>
  T.ids(sizes, Array.from({ length: count(sizes) }, (_, i) => Key.below(Key.make(seed), i, below)))

/** Constants for a tree of specifications, all normal, so that no gain is 1 and no score is near 0. */
export const constants = <S>(seed: number | string, specification: S, deviation = 0.5): Tensors<S> =>
  mapAs<Tensors<S>>()(specification, isSpecification, ({ sizes }, path) => normals(`${seed} ${path}`, sizes, deviation))

/** Σ x ∘ fixed normal weights: a number that notices every element of x. */
export const weighed = (x: Any, seed = "weights"): T.Scalar => {
  const y = x as Tensor<string>
  return T.sum(T.multiply(y, normals(seed, y.sizes as Sizes)), Object.keys(y.sizes))
}

/**
 * The pullback of a composite is that of its decomposition: for outputs of `build`, which must be a composite's, and
 * every input that is named.
 */
export const pullsBackAsItsDecomposition = <P>(inputs: P, build: (inputs: P) => Any): void => {
  const output = build(inputs)
  const [composite] = output.operands
  assert.strictEqual(composite?.operation._tag, "Composite", "the output of a composite")
  assert.isDefined(composite?.operation._tag === "Composite" ? composite.operation.composite.pullback : undefined)
  const index = output.operation._tag === "Output" ? output.operation.index : 0
  const { decomposed, own } = evaluate(() => ({
    own: gradientOf(weighed(output), inputs),
    decomposed: gradientOf(weighed(partsOf(composite!)[index]!), inputs)
  }))
  agree(flat(own), flat(decomposed), 1e-9, "pullback against that of the decomposition")
}

/** The slope of Σ weights ∘ f along a random direction is what central differences say. */
export const hasTheSlopeOfDifferences = <P>(inputs: P, build: (inputs: P) => Any, tolerance = 1e-6): void => {
  const direction = mapAs<P>()(inputs, T.isTensor, (leaf, path) => normals(`direction ${path}`, leaf.sizes))
  const step = 1e-5
  const at = (t: number): T.Scalar => weighed(build(zip(inputs, direction, (x, d) => T.add(x, T.multiply(d, t)))))
  const { high, low, slope } = evaluate(() => ({
    high: at(step),
    low: at(-step),
    slope: dot(gradientOf(weighed(build(inputs)), inputs), direction)
  }))
  agree([number(slope)], [(number(high) - number(low)) / (2 * step)], tolerance, "slope against central differences")
}

const leavesOf = (tree: unknown): ReadonlyArray<Tensor<string>> => {
  const found: Array<Tensor<string>> = []
  mapAs()(tree, T.isTensor, (leaf) => found.push(leaf as Tensor<string>))
  return found
}

const zip = <P>(left: P, right: P, f: (x: Tensor<string>, y: Tensor<string>) => Any): P => {
  const others = leavesOf(right)
  let next = 0
  return mapAs<P>()(left, T.isTensor, (leaf) => f(leaf as Tensor<string>, others[next++]!))
}

const dot = (left: unknown, right: unknown): T.Scalar => {
  const others = leavesOf(right)
  return leavesOf(left).reduce(
    (total, leaf, i) => T.add(total, T.sum(T.multiply(leaf, others[i]!), Object.keys(leaf.sizes))), T.constant(0)
  )
}

/** All elements of a tree of values, each in the order of its own sizes. */
export const flat = (tree: unknown): ReadonlyArray<number> => {
  const found: Array<number> = []
  mapAs()(tree, isValues, (values) => found.push(...elements(values, Object.keys(values.sizes).toSorted())))
  return found
}

const isValues = (value: unknown): value is AnyValues =>
  typeof value === "object" && value !== null && "~values" in value
