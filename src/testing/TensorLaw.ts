/**
 * Laws of tensor functions: what holds of every computation that is written with named axes and differentiated.
 *
 * A law throws a `LawError` where it does not hold, so it fits `fc.property` and any test of one case.
 *
 *     L(x) = Σ y(x) ∘ r          ∂L/∂xᵢ ≈ (8 (L₊₁ − L₋₁) − (L₊₂ − L₋₂)) / 12 h
 *
 * y the real outputs · r fixed random weights · L₊ₖ the loss at xᵢ + k h
 *
 * From     Cria's own; the five-point stencil is textbook.
 * Checked  test/law/TensorLaw.test.ts (each law fails where it should), test/tensor/*.test.ts.
 *
 * @module
 */
import { outputsOf } from "../tensor/Composite.ts"
import { add, constant, multiply } from "../tensor/Elementwise.ts"
import { gradient, pullback } from "../tensor/Gradient.ts"
import { at, values, zerosLike } from "../tensor/Indexing.ts"
import {
  type Any, count, type Elements, type Scalar, type Sizes, stopGradientNode, type Tensor, type Untyped
} from "../tensor/Node.ts"
import { sum } from "../tensor/Reduction.ts"
import { reals } from "./Arbitrary.ts"
import {
  type Computation, distance, evaluate, type Given, type Leaves, leavesOf, listed, prepare
} from "./Computation.ts"
import { LawError } from "./LawError.ts"

/** One number that depends on every element of the real outputs, each with a weight of its own. */
export const weighted = (outputs: ReadonlyArray<Any>): Scalar =>
  outputs.reduce((total: Scalar, output, i): Scalar => {
    if (output.kind !== "real") return total
    const sizes = Object.fromEntries(Object.entries(output.sizes).toSorted(([a], [b]) => a < b ? -1 : 1))
    const weights: Untyped = values(sizes, reals(i + 1, count(sizes))) // by name, whatever the order of the axes
    const weighed: Tensor<string> = multiply(output as Untyped, weights)
    return add(total, sum(weighed, Object.keys(output.sizes)))
  }, constant(0))

const realLeaves = (given: ReadonlyArray<Given>, leaves: Leaves): Leaves =>
  Object.fromEntries(given.flatMap(({ kind, name }) => {
    const leaf = leaves[name]
    return kind === "real" && leaf !== undefined ? [[name, leaf] as const] : []
  }))

/**
 * The gradient with respect to every real leaf is that of finite differences, up to `tolerance` relative to the terms
 * that it sums, or 1.
 *
 * Each leaf is moved along at most four directions, which together move all its elements. A direction in which the
 * difference quotients of no two step widths agree (a kink or a jump lies between) is passed over; if that is so of
 * every direction the law fails.
 */
export const hasFiniteDifferenceGradient = ({ build, given }: Computation, tolerance: number): void => {
  const leaves = leavesOf(given)
  const loss = weighted(build(leaves))
  const parameters = realLeaves(given, leaves)
  const slopes = prepare(leaves, Object.values(gradient(loss, parameters)))(given)
  const run = prepare(leaves, [loss])
  const directions = Object.keys(parameters).flatMap((name, k) => {
    const found = slopes[k] ?? new Float64Array(0)
    const count = Math.min(found.length, 4)
    return Array.from({ length: count }, (_, part) =>
      ({ name, found, direction: reals(part, found.length).map((x, i) => i % count === part ? x : 0) }))
  })
  const settled = directions.filter(({ direction, found, name }) => {
    const lossAt = (shift: number): number =>
      run(
        given.map((leaf) => leaf.name === name ? { ...leaf, elements: moved(leaf.elements, direction, shift) } : leaf)
      )[0]?.[0] ?? NaN
    const quotient = (h: number): number =>
      (8 * (lossAt(h) - lossAt(-h)) - (lossAt(2 * h) - lossAt(-2 * h))) / (12 * h)
    const terms = Array.from(found, (slope, i) => slope * (direction[i] ?? 0))
    const scale = terms.reduce((total, term) => total + Math.abs(term), 1)
    const h = steps.find((h) => Math.abs(quotient(h) - quotient(h / 2)) <= tolerance * scale)
    if (h === undefined) return false
    const narrow = quotient(h / 2)
    const slope = terms.reduce((total, term) => total + term, 0)
    if (Math.abs(narrow - slope) <= tolerance * scale) return true
    const where = Array.from(direction).flatMap((x, i) => x === 0 ? [] : [i]).join(", ")
    throw new LawError({
      law: "the gradient is that of finite differences",
      detail: `moving elements ${where} of ${name}, the gradient gives a slope of ${slope}, differences give ${narrow}`
    })
  })
  if (directions.length > 0 && settled.length === 0) {
    throw new LawError({ law: "the gradient is that of finite differences", detail: "no difference quotient settles" })
  }
}

/** Smooth functions settle at the first; the others come closer to a kink. */
const steps = [2 ** -12, 2 ** -16, 2 ** -20]

const moved = (elements: Elements, direction: ArrayLike<number>, shift: number): Elements =>
  elements.map((x, i) => x + shift * (direction[i] ?? 0))

/** The computation whose outputs are the gradients of `weighted` outputs, for laws of second derivatives. */
export const gradients = ({ build, given }: Computation): Computation => ({
  given,
  build: (leaves) => Object.values(gradient(weighted(build(leaves)), realLeaves(given, leaves)))
})

/** Declaring the axes of the leaves in another order changes no result: `order` gives the new order of each leaf. */
export const ignoresAxisOrder = (
  computation: Computation, order: (leaf: Given) => Sizes, tolerance: number
): void => {
  const permuted = computation.given.map((leaf): Given => {
    const sizes = order(leaf)
    return { ...leaf, sizes, elements: arrange(leaf.elements, leaf.sizes, sizes) }
  })
  const before = computation.build(leavesOf(computation.given))
  const after = computation.build(leavesOf(permuted))
  const expected = evaluate(computation)
  const found = evaluate({ ...computation, given: permuted })
  requireEqual("the axis order of leaves changes no result", expected, found.map((elements, i) =>
    arrange(elements, after[i]?.sizes ?? {}, before[i]?.sizes ?? {})), tolerance)
}

/** Elements that lie in the order of `from` as they lie in the order of `to`, the same axes. */
export const arrange = (elements: Elements, from: Sizes, to: Sizes): Elements => {
  const order = Object.keys(from)
  const arranged = elements.slice()
  const total = count(to)
  for (let i = 0; i < total; i++) {
    let rest = i
    const index: Record<string, number> = {}
    for (const [axis, size] of Object.entries(to).reverse()) {
      index[axis] = rest % size
      rest = Math.floor(rest / size)
    }
    arranged[i] = elements[order.reduce((place, axis) => place * (from[axis] ?? 1) + (index[axis] ?? 0), 0)] ?? NaN
  }
  return arranged
}

/**
 * The function does to a tensor with one axis more what it does to each part: f(x) at i = f(x at i).
 *
 * `axis` is an axis of at least one leaf that the function does not name.
 */
export const liftsOver = (axis: string, { build, given }: Computation, tolerance: number): void => {
  const leaves = leavesOf(given)
  const whole = build(leaves)
  const size = given.find((leaf) => axis in leaf.sizes)?.sizes[axis] ?? 0
  for (let i = 0; i < size; i++) {
    const only = (x: Untyped): Untyped => axis in x.sizes ? at(x, axis, i) : x
    const parts = build(Object.fromEntries(Object.entries(leaves).map(([name, leaf]) => [name, only(leaf)])))
    const run = prepare(leaves, [...whole.map((output) => only(output as Untyped)), ...parts])(given)
    const expected = whole.map((output, k) => arrange(
      run[whole.length + k] ?? new Float64Array(0), parts[k]?.sizes ?? {},
      Object.fromEntries(Object.entries(output.sizes).filter(([name]) => name !== axis))))
    requireEqual(`a function lifts over "${axis}"`, expected, run.slice(0, whole.length), tolerance)
  }
}

/** The pullback of every composite among the outputs is that of its decomposition. */
export const pullsBackAsItsDecomposition = ({ build, given }: Computation, tolerance: number): void => {
  const leaves = leavesOf(given)
  for (const output of build(leaves)) {
    const [node] = output.operands
    if (node?.operation._tag !== "Composite" || node.operation.composite.pullback === undefined) continue
    const { composite } = node.operation
    const inputs = node.operands.map(
      (operand) => stopGradientNode(operand)
    ) // independent, also where one is given twice
    const proper = node.operation.outputs.length - composite.residuals
    const derived = composite.decompose(inputs)
    const bars = derived.slice(0, proper).map((part, i): Untyped => values(part.sizes, reals(i + 1, count(part.sizes))))
    const own = composite.pullback?.(node.operands as ReadonlyArray<Untyped>, outputsOf(node), bars) ?? []
    const expected = pullback(derived.slice(0, proper), bars, inputs)
    const pairs = node.operands.map(
      (operand, i) => [expected[i] ?? zerosLike(operand), own[i] ?? zerosLike(operand)] as const
    )
    const run = prepare(leaves, pairs.flat())(given)
    pairs.forEach(([left, right], i) => {
      requireEqual(`the pullback of ${composite.name} is that of its decomposition (input ${i + 1})`,
        [run[2 * i] ?? []], [arrange(run[2 * i + 1] ?? new Float64Array(0), right.sizes, left.sizes)], tolerance)
    })
  }
}

/** Fails where arrays differ by more than `tolerance` (see `Computation.distance`). */
export const requireEqual = (
  law: string, expected: ReadonlyArray<ArrayLike<number>>, found: ReadonlyArray<ArrayLike<number>>, tolerance: number
): void =>
  expected.forEach((elements, i) => {
    const apart = distance(elements, found[i] ?? [])
    if (!(apart <= tolerance)) {
      throw new LawError({
        law,
        detail: `output ${i + 1} differs by ${apart}, more than ${tolerance}\n  expected ${listed(elements)}\n` +
          `  found    ${listed(found[i] ?? [])}`
      })
    }
  })
