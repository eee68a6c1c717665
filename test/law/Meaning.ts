/**
 * What a graph means, by plain loops over named indices: no order of axes, no lowering, no rewriting, no sharing.
 *
 * A second opinion on the float64 reference, which has all of these.
 */
import { partsOf } from "../../src/tensor/Composite.ts"
import type { Any, Sizes } from "../../src/tensor/Node.ts"
import type { Computation } from "../../src/testing/Computation.ts"
import { leavesOf } from "../../src/testing/Computation.ts"

type Index = Readonly<Record<string, number>>

interface Table {
  readonly sizes: Sizes
  readonly elements: ReadonlyArray<number>
}

/** Every index of some sizes, the last axis changing fastest. */
export const indices = (sizes: Sizes): ReadonlyArray<Index> =>
  Object.entries(sizes).reduce(
    (found: ReadonlyArray<Index>, [axis, size]) =>
      found.flatMap((index) => Array.from({ length: size }, (_, i) => ({ ...index, [axis]: i }))),
    [{}]
  )

const tabulate = (sizes: Sizes, f: (index: Index) => number): Table => ({ sizes, elements: indices(sizes).map(f) })

const at = ({ elements, sizes }: Table, index: Index): number =>
  elements[Object.entries(sizes).reduce((place, [axis, size]) => place * size + index[axis]!, 0)]!

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, x) => total + x, 0)

const only = (sizes: Sizes, axes: ReadonlyArray<string>): Sizes =>
  Object.fromEntries(axes.map((axis) => [axis, sizes[axis]!]))

const unary: Record<string, (x: number) => number> = {
  exp: Math.exp, log: Math.log, sqrt: Math.sqrt, rsqrt: (x) => x ** -0.5, reciprocal: (x) => 1 / x, sin: Math.sin,
  cos: Math.cos,
  tanh: (x) => 1 - 2 / (Math.exp(2 * x) + 1), sigmoid: (x) => (1 + Math.tanh(x / 2)) / 2, abs: (x) => x < 0 ? -x : x,
  sign: (x) => x > 0 ? 1 : x < 0 ? -1 : 0, floor: Math.floor, negate: (x) => 0 - x, square: (x) => x ** 2
}

const binary: Record<string, (x: number, y: number) => number> = {
  add: (x, y) => x + y, subtract: (x, y) => x - y, multiply: (x, y) => x * y, divide: (x, y) => x / y,
  power: (x, y) => Math.pow(x, y),
  maximum: (x, y) => x > y ? x : y, minimum: (x, y) => x < y ? x : y, equal: (x, y) => x === y ? 1 : 0,
  less: (x, y) => x < y ? 1 : 0,
  lessEqual: (x, y) => x <= y ? 1 : 0, and: (x, y) => x * y, or: (x, y) => x + y > 0 ? 1 : 0
}

/** The elements of some outputs, by the names of the leaves. */
export const meaning = (outputs: ReadonlyArray<Any>, leaves: ReadonlyMap<string, Table>): ReadonlyArray<Table> => {
  const known = new Map<Any, Table>()
  const parts = new Map<Any, ReadonlyArray<Any>>()
  const of = (node: Any): Table => {
    const found = known.get(node) ?? compute(node)
    known.set(node, found)
    return found
  }
  const compute = (node: Any): Table => {
    const { operands, operation, sizes } = node
    const each = (f: (index: Index) => number): Table => tabulate(sizes, f)
    const x = operation._tag === "Output" || operands[0] === undefined ? { sizes: {}, elements: [] } : of(operands[0])
    switch (operation._tag) {
      case "Leaf":
        return leaves.get(operation.name)!
      case "Fill":
        return each(() => operation.value)
      case "Constant":
        return { sizes, elements: [...operation.elements] }
      case "Positions":
        return each((index) => index[operation.axis]!)
      case "Unary":
        return each((index) => unary[operation.function]!(at(x, index)))
      case "Binary":
        return each((index) => binary[operation.function]!(at(x, index), at(of(operands[1]!), index)))
      case "Compare":
        return each((index) => binary[operation.relation]!(at(x, index), at(of(operands[1]!), index)))
      case "Logic":
        return each((index) => operation.function === "not"
          ? 1 - at(x, index)
          : binary[operation.function]!(at(x, index), at(of(operands[1]!), index)))
      case "Select":
        return each((index) => at(of(operands[at(x, index) === 1 ? 1 : 2]!), index))
      case "Convert":
        return each((index) => node.kind === "id" ? Math.trunc(at(x, index)) : at(x, index))
      case "Reduce": {
        const over = indices(only(x.sizes, operation.axes))
        return each((index) => {
          const all = over.map((inner) => at(x, { ...index, ...inner }))
          return operation.function === "sum" ? sum(all) : Math.max(...all)
        })
      }
      case "Contract": {
        const over = indices(only(x.sizes, operation.over))
        const y = of(operands[1]!)
        return each((index) => sum(over.map((inner) => at(x, { ...index, ...inner }) * at(y, { ...index, ...inner }))))
      }
      case "CumulativeSum":
        return each((index) => sum(indices(only(sizes, [operation.axis])).flatMap((inner) => {
          const apart = index[operation.axis]! - inner[operation.axis]!
          return (operation.reverse ? apart <= 0 : apart >= 0) ? [at(x, { ...index, ...inner })] : []
        })))
      case "Rename":
        return each((index) => at(x, { ...index, [operation.from]: index[operation.to]! }))
      case "Slice":
        return each((index) => at(x, { ...index, [operation.axis]: index[operation.axis]! + operation.start }))
      case "Pad":
        return each((index) => {
          const i = index[operation.axis]! - operation.before
          return i < 0 || i >= x.sizes[operation.axis]! ? 0 : at(x, { ...index, [operation.axis]: i })
        })
      case "Concat":
        return each((index) => {
          let i = index[operation.axis]!
          const part = operands.map(of).find(({ sizes }) => {
            if (i < sizes[operation.axis]!) return true
            i -= sizes[operation.axis]!
            return false
          })
          return at(part!, { ...index, [operation.axis]: i })
        })
      case "Split":
        return each((index) => at(x, {
          ...index, [operation.axis]: operation.into.reduce((place, axis) => place * sizes[axis]! + index[axis]!, 0)
        }))
      case "Merge":
        return each((index) => at(x, { ...index, ...indices(only(x.sizes, operation.axes))[index[operation.into]!] }))
      case "Take":
        return each((index) => at(x, { ...index, [operation.axis]: at(of(operands[1]!), index) }))
      case "Put": {
        const [ids, values] = [of(operands[1]!), of(operands[2]!)]
        return each((index) => indices(ids.sizes).reduce((kept, inner) => {
          const meets = Object.keys(inner).every((axis) => !(axis in sizes) || inner[axis] === index[axis])
          if (!meets || at(ids, inner) !== index[operation.axis]) return kept
          return (operation.mode === "add" ? kept : 0) + at(values, { ...index, ...inner })
        }, at(x, index)))
      }
      case "TopK":
        return each((index) => {
          const row = indices(only(x.sizes, [operation.axis])).map((inner) => ({
            id: inner[operation.axis]!, value: at(x, { ...index, ...inner })
          }))
          const ranked = row.sort((a, b) => b.value - a.value || a.id - b.id)[index[operation.rank]!]!
          return operation.part === "ids" ? ranked.id : ranked.value
        })
      case "Spread":
      case "StopGradient":
      case "Barrier":
      case "Label":
        return each((index) => at(x, index))
      case "Output": {
        const decomposed = parts.get(operands[0]!) ?? partsOf(operands[0]!)
        parts.set(operands[0]!, decomposed)
        const part = of(decomposed[operation.index]!)
        return each((index) => at(part, index))
      }
      case "Composite":
        return { sizes, elements: [] }
    }
  }
  return outputs.map((output) => {
    const table = of(output)
    return tabulate(output.sizes, (index) => at(table, index))
  })
}

/** The elements of the outputs of a computation, each in the order of its sizes. */
export const elementsOf = ({ build, given }: Computation): ReadonlyArray<ReadonlyArray<number>> =>
  meaning(
    build(leavesOf(given)),
    new Map(given.map(({ elements, name, sizes }) => [name, { sizes, elements: [...elements] }]))
  )
    .map(({ elements }) => elements)
