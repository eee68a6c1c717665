/**
 * Arbitrary computations: whole random programs of one to eight operations over named axes.
 *
 * A program is drawn as numbers that choose from what is there: an operation, its operands, its axes. So it shrinks to
 * fewer operations, smaller axes and plainer choices.
 *
 * From     Cria's own; differential fuzzing of compilers.
 * Checked  test/law/ProgramArbitrary.test.ts (every operation is drawn; a fault shrinks to one operation).
 *
 * @module
 */
import * as fc from "fast-check"
import { topological } from "../tensor/Gradient.ts"
import { type Any, count } from "../tensor/Node.ts"
import * as Arbitrary from "./Arbitrary.ts"
import { type Computation, type Given, type Leaves, leavesOf, print } from "./Computation.ts"
import { type Item, operations, type Step } from "./RandomOperation.ts"

/** What programs may be drawn. */
export interface Options {
  /** Axes of size 0 occur. */
  readonly zero?: boolean
  /** The names of the operations to draw from; all by default. */
  readonly operations?: ReadonlyArray<string>
}

/** A random computation. */
export interface RandomProgram extends Computation {
  /** The operations that it is made of. */
  readonly operations: ReadonlyArray<string>
}

/** The names of all operations that programs are drawn from. */
export const allOperations: ReadonlyArray<string> = Object.keys(operations)

/** The operations through which every gradient flows: all but `stopGradient`. */
export const differentiable: ReadonlyArray<string> = allOperations.filter((name) => name !== "stopGradient")

/** Random programs. Their outputs are the values that nothing else uses. */
export const programs = (options: Options = {}): fc.Arbitrary<RandomProgram> => {
  const step: fc.Arbitrary<Step> = fc.record({
    operation: fc.constantFrom(...options.operations ?? allOperations),
    x: choice, y: choice, ids: choice, truth: choice, axis: choice, number: choice
  })
  return fc.record({
    sizes: Arbitrary.sizes(axes, options.zero === true ? Arbitrary.sizeOrZero : Arbitrary.size),
    x: leaf([]), y: leaf(["embed"]), w: leaf(["embed", "hidden"]), ids: leaf([], "embed"), seen: leaf([]),
    steps: fc.array(step, { minLength: 1, maxLength: 8 })
  }).map(({ sizes, steps, ...leaves }) => { // not chained: so everything shrinks at once
    const below = Math.max(1, sizes.embed)
    const given = Object.entries(leaves).map(([name, { axes, draw }]): Given => {
      const seed = `${name} ${draw}` // two leaves are never alike: a tie is a kink
      const own = Object.fromEntries(axes.map((axis) => [axis, sizes[axis]]))
      const length = count(own)
      return name === "ids"
        ? { name, kind: "id", sizes: own, elements: Arbitrary.idsBelow(seed, length, below) }
        : name === "seen"
          ? { name, kind: "truth", sizes: own, elements: Arbitrary.truths(seed, length) }
          : { name, kind: "real", sizes: own, elements: Arbitrary.reals(seed, length) }
    })
    return random(given, steps, below)
  })
}

const axes = ["batch", "position", "embed", "hidden"] as const

type Axis = typeof axes[number]

const choice = fc.nat({ max: 11 })

interface Drawn {
  readonly axes: ReadonlyArray<Axis>
  readonly draw: number
}

/** Axes in any order, some of them always and one perhaps never, and a seed of elements. */
const leaf = (always: ReadonlyArray<Axis>, never?: Axis): fc.Arbitrary<Drawn> =>
  fc.record({
    order: fc.shuffledSubarray([...axes], { minLength: axes.length }),
    some: fc.subarray(axes.filter((axis) => axis !== never)),
    draw: fc.nat({ max: 2 ** 20 })
  }).map(
    ({ draw, order, some }) => ({ axes: order.filter((axis) => always.includes(axis) || some.includes(axis)), draw })
  )

const random = (given: ReadonlyArray<Given>, steps: ReadonlyArray<Step>, idsBelow: number): RandomProgram => {
  const program: RandomProgram = {
    given,
    build: (leafTensors) => perform(leafTensors, steps, idsBelow).ends,
    operations: perform(leavesOf(given), steps, idsBelow).done
  }
  return Object.assign(program, { [fc.toStringMethod]: () => print(program) })
}

const perform = (leafTensors: Leaves, steps: ReadonlyArray<Step>, idsBelow: number): {
  readonly ends: ReadonlyArray<Any>
  readonly done: ReadonlyArray<string>
} => {
  const pool: Array<Item> = Object.values(leafTensors).map(
    (node) => ({ node, bound: node.kind === "id" ? idsBelow : 2 })
  )
  const made: Array<Any> = []
  const done: Array<string> = []
  steps.forEach((step, i) => {
    const results = operations[step.operation]?.(pool, step, `axis${i}`) ?? []
    if (results.length > 0) done.push(step.operation)
    pool.push(...results)
    made.push(...results.map(({ node }) => node))
  })
  const used = new Set(topological(made).flatMap(({ operands }) => operands))
  const ends = made.filter((node) => !used.has(node))
  return { ends: ends.length > 0 ? ends : Object.values(leafTensors), done }
}
