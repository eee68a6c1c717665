/**
 * Whether rounding decides what a computation gives: then it says nothing about a backend.
 *
 * The floor of something near a whole number, the greater of two that are almost equal, a difference of large numbers:
 * there the reference itself gives something else as soon as the numbers on the way are moved a little,
 *
 *     x (1 + r ε)          |r| ≤ 1, ε = 16 u
 *
 * r random · u half the distance of neighbouring numbers at 1: 2⁻²⁴ in float32, 2⁻⁵³ in float64
 *
 * Moved are the results of all arithmetic, and what was given where the width does not hold it. A choice between leaves
 * that it holds stays what it is, and so does every computation whose result depends smoothly on its numbers.
 *
 * From     Cria's own; how a computation is conditioned, by random perturbation (Parker's Monte Carlo arithmetic).
 * Checked  test/law/Rounding.test.ts.
 *
 * @module
 */
import type { Precision } from "../backend/Backend.ts"
import type { Instruction, Lowered, Primitive } from "../tensor/Instruction.ts"
import type { Elements } from "../tensor/Node.ts"
import { reals } from "./Arbitrary.ts"
import { type Computation, distance, type Given, leavesOf, prepare } from "./Computation.ts"
import { LawError } from "./LawError.ts"

const epsilon: Readonly<Record<Precision, number>> = { f32: 2 ** -20, f64: 2 ** -49 }

const times = 16

/** Whether some small movement of the numbers changes a result by more than the tolerance (`Computation.distance`). */
export const isDecidedByRounding = (
  { build, given }: Computation, { precision, tolerance }: { readonly precision: Precision; readonly tolerance: number }
): boolean => {
  const leaves = leavesOf(given)
  const outputs = build(leaves)
  const expected = prepare(leaves, outputs)(given)
  return Array.from({ length: times }, (_, time) => `rounding ${time}`).some((seed) => {
    const run = prepare(leaves, outputs, (lowered) => moved(lowered, precision, seed))
    const found = atAll(() => run(given.map((leaf) => movedLeaf(leaf, precision, seed))))
    return expected.some((elements, i) => !(distance(elements, found[i] ?? []) <= tolerance))
  })
}

/** Nothing where an id leaves its axis by being moved. */
const atAll = (run: () => ReadonlyArray<Elements>): ReadonlyArray<Elements> => {
  try { // laws are pure and throw
    return run()
  } catch (error) {
    if (error instanceof LawError) return []
    throw error
  }
}

/** Factors near 1. */
const factors = (precision: Precision, seed: string, length: number): Float64Array =>
  reals(seed, length).map((x) => 1 + x / 2 * epsilon[precision]) // reals lie between −2 and 2

/** Numbers that the width does not hold, moved. */
const movedElements = (elements: Elements, precision: Precision, seed: string): Elements => {
  if (precision === "f64" || !(elements instanceof Float64Array)) return elements
  const near = factors(precision, seed, elements.length)
  return elements.map((x, i) => Object.is(Math.fround(x), x) ? x : x * (near[i] ?? 1))
}

const movedLeaf = (leaf: Given, precision: Precision, seed: string): Given =>
  ({ ...leaf, elements: movedElements(leaf.elements, precision, `${seed} ${leaf.name}`) })

/** The program with a factor behind every result that an engine may round. */
const moved = (lowered: Lowered, precision: Precision, seed: string): Lowered => {
  const values = [...lowered.values]
  const instructions = lowered.instructions.flatMap((instruction): ReadonlyArray<Instruction> => {
    const { inputs, outputs: [output = -1], place, primitive } = instruction
    const value = lowered.values[output]
    const own = `${seed} %${output}`
    if (primitive._tag === "constant" && typeof primitive.elements !== "number") {
      const elements = movedElements(primitive.elements, precision, own)
      return [{ ...instruction, primitive: { ...primitive, elements } }]
    }
    if (value?.kind !== "real" || !rounds(primitive)) return [instruction]
    const [exact, factor] = [values.push(value) - 1, values.push(value) - 1]
    const elements = factors(precision, own, value.shape.reduce((total, size) => total * size, 1))
    return [
      { inputs, outputs: [exact], place, primitive },
      { inputs: [], outputs: [factor], place, primitive: { _tag: "constant", elements } },
      { inputs: [exact, factor], outputs: [output], place, primitive: { _tag: "binary", function: "multiply" } }
    ]
  })
  return { ...lowered, values, instructions }
}

const exactFunctions: ReadonlySet<string> = new Set(["abs", "sign", "floor", "negate", "maximum", "minimum", "max"])

const rounds = (primitive: Primitive): boolean => {
  switch (primitive._tag) {
    case "unary":
    case "binary":
    case "reduce":
      return !exactFunctions.has(primitive.function)
    case "matmul":
    case "cumulativeSum":
      return true
    case "scatter":
      return primitive.mode === "add"
    default:
      return false
  }
}
