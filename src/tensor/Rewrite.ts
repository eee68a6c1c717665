/**
 * Rewrites a graph into an equal one that is cheaper: composites without a kernel expanded, contractions relieved.
 *
 *     Σₖ (b s) y       = s Σₖ b y                 s without the axis k; result smaller than b, or s one number
 *     Σₖ (b s) y       = Σₖ b (y s)               y smaller than b
 *     d + put(0, v)    = put(d, v)
 *     x (W + D U)      = x W + (x D) U            D U of a rank at most a quarter of what is summed over
 *     x decoded(c)     = one composite            weights in few bits need not be written out
 *
 * So the row weights of a cross-entropy never touch its logits: they go to the small side of the product. Broadcasts
 * that an operation performs anyway are dropped.
 *
 * From     Cria's own.
 * Checked  test/tensor/Rewrite.test.ts (rewritten = as written, on random programs and on each rule).
 *
 * @module
 */
import { fuseContraction } from "./BlockCodes.ts"
import { partsOf } from "./Composite.ts"
import { add, multiply, multiplyScalars } from "./Elementwise.ts"
import { topological } from "./Gradient.ts"
import { putNode } from "./Indexing.ts"
import type { Any, Untyped } from "./Node.ts"
import { count, inPlace, withOperands } from "./Node.ts"
import { contract, sum } from "./Reduction.ts"
import { spread } from "./Structure.ts"

/** Rewrites the outputs together. `hasKernel` says which composites stay whole. */
export const rewrite = (outputs: ReadonlyArray<Any>, hasKernel: (composite: Any) => boolean): ReadonlyArray<Any> =>
  rebuild(expand(rebuild(outputs, fuseContraction), hasKernel), simplify)

/** Rebuilds a graph bottom up, each node given by `f` over its rebuilt operands. */
const rebuild = (outputs: ReadonlyArray<Any>, f: (node: Any) => Any): ReadonlyArray<Any> => {
  const images = new Map<Any, Any>()
  for (const node of topological(outputs)) {
    const next = withOperands(node, node.operands.map((operand) => images.get(operand) ?? operand))
    images.set(node, inPlace(node.place, () => f(next)))
  }
  return outputs.map((output) => images.get(output) ?? output)
}

const expand = (outputs: ReadonlyArray<Any>, hasKernel: (composite: Any) => boolean): ReadonlyArray<Any> => {
  const decomposed = new Map<Any, ReadonlyArray<Any>>()
  const next = rebuild(outputs, (node) => {
    const [composite] = node.operands
    if (node.operation._tag === "Label" && composite !== undefined) return composite
    if (node.operation._tag !== "Output" || composite?.operation._tag !== "Composite" ||
      hasKernel(composite)) return node
    const parts = decomposed.get(composite) ?? partsOf(composite)
    decomposed.set(composite, parts)
    return parts[node.operation.index] ?? node
  })
  return decomposed.size === 0 ? next : expand(next, hasKernel)
}

const axesOf = (x: Any): ReadonlyArray<string> => Object.keys(x.sizes)

const has = (x: Any, axes: ReadonlyArray<string>): boolean => axes.every((axis) => axis in x.sizes)

const hasNone = (x: Any, axes: ReadonlyArray<string>): boolean => axes.every((axis) => !(axis in x.sizes))

const isZero = (x: Any): boolean => x.operation._tag === "Fill" && x.operation.value === 0

const simplify = (node: Any): Any => {
  const [x, y] = node.operands
  switch (node.operation._tag) {
    case "Binary":
    case "Compare":
    case "Select": {
      const bare = withoutSpreads(node)
      if (bare.operation._tag !== "Binary" || x === undefined || y === undefined) return bare
      if (bare.operation.function === "add") return absorbPut(bare)
      return bare.operation.function === "multiply" ? multiplyScalars(bare) : bare
    }
    case "Contract":
      return x === undefined || y === undefined ? node : product(x, y, node.operation.over)
    default:
      return node
  }
}

/** Operands need no explicit spread along an axis that another operand has. */
const withoutSpreads = (node: Any): Any => {
  const operands = [...node.operands]
  for (let i = 0; i < operands.length; i++) {
    for (let x = operands[i]; x !== undefined && x.operation._tag === "Spread"; x = operands[i]) {
      const { axis } = x.operation
      const [inner] = x.operands
      if (inner === undefined || !operands.some((other, k) => k !== i && axis in other.sizes)) break
      operands[i] = inner
    }
  }
  return withOperands(node, operands)
}

/** d + put(0, v) = put(d, v). */
const absorbPut = (node: Any): Any => {
  for (const [sparse, dense] of [node.operands, [...node.operands].reverse()]) {
    if (sparse === undefined || dense === undefined || sparse.operation._tag !== "Put" ||
      sparse.operation.mode !== "add") continue
    const [base, ids, values] = sparse.operands
    if (base === undefined || ids === undefined || values === undefined || !isZero(base) ||
      !has(dense, axesOf(base))) continue
    if (has(base, axesOf(dense))) return putNode(dense, sparse.operation.axis, ids, values, "add")
  }
  return node
}

/**
 * How many layers an operand is relieved of: a longer chain of scalings is left as it is, for it would fill the stack.
 */
const deepest = 100

/** The contraction of two operands, each relieved of what can be done more cheaply outside. */
const product = (x: Any, y: Any, over: ReadonlyArray<string>, depth = 0): Any =>
  relieved(x, y, over, depth + 1) ?? relieved(y, x, over, depth + 1) ?? contract(x as Untyped, y as Untyped, over)

const relieved = (x: Any, y: Any, over: ReadonlyArray<string>, depth: number): Any | undefined => {
  const [inner, second] = x.operands
  if (inner === undefined || depth > deepest) return undefined
  const { operation } = x
  if (operation._tag === "Spread") return spreadProduct(
    inner, y, over, operation.axis, x.sizes[operation.axis] ?? 0, depth)
  if (second === undefined) return undefined
  if (operation._tag === "Binary" && operation.function === "multiply") {
    return scaledProduct(inner, second, y, over, depth) ?? scaledProduct(second, inner, y, over, depth)
  }
  if (operation._tag === "Binary" && operation.function === "add") {
    return lowRankProduct(inner, second, y, over, depth) ?? lowRankProduct(second, inner, y, over, depth)
  }
  return undefined
}

const spreadProduct =
  (inner: Any, y: Any, over: ReadonlyArray<string>, axis: string, size: number, depth: number): Any => {
    if (over.includes(axis)) {
      const rest = over.filter((name) => name !== axis)
      const total = sum(y as Untyped, axis)
      return rest.length === 0 ? multiply(inner as Untyped, total) : product(inner, total, rest, depth)
    }
    const result = product(inner, y, over, depth)
    return axis in y.sizes ? result : spread(result as Untyped, axis, size)
  }

const scaledProduct = (big: Any, scale: Any, y: Any, over: ReadonlyArray<string>, depth: number): Any | undefined => {
  if (!has(big, axesOf(scale)) || axesOf(big).length === axesOf(scale).length) return undefined
  const outer = new Set([...axesOf(big), ...axesOf(y)].filter((axis) => !over.includes(axis)))
  const result = [...outer].reduce((total, axis) => total * (big.sizes[axis] ?? y.sizes[axis] ?? 1), 1)
  if (hasNone(scale, over) && (axesOf(scale).length === 0 || result < count(big.sizes))) {
    return multiply(product(big, y, over, depth) as Untyped, scale as Untyped)
  }
  if (has(y, axesOf(scale)) && count(y.sizes) < count(big.sizes)) return product(
    big, multiply(y as Untyped, scale as Untyped), over, depth)
  return undefined
}

const lowRankProduct = (full: Any, low: Any, y: Any, over: ReadonlyArray<string>, depth: number): Any | undefined => {
  const [left, right] = low.operands
  if (low.operation._tag !== "Contract" || left === undefined || right === undefined) return undefined
  const rank = low.operation.over
  const size = rank.reduce((total, axis) => total * (left.sizes[axis] ?? 1), 1)
  if (!hasNone(y, rank) || 4 * size > over.reduce((total, axis) => total * (y.sizes[axis] ?? 1), 1)) return undefined
  for (const [near, far] of [[left, right], [right, left]] as const) {
    if (has(near, over) && hasNone(far, over) && hasNone(far, axesOf(y)) && has(full, axesOf(low))) {
      return add(product(full, y, over, depth) as Untyped,
        product(product(near, y, over, depth), far, rank, depth) as Untyped)
    }
  }
  return undefined
}
