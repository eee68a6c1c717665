/**
 * Reverse-mode differentiation, from graph to graph.
 *
 *     x̄ = Σ over the uses y of x:  ȳ · ∂y/∂x
 *
 * x̄ the cotangent of x (the gradient of the loss with respect to it)
 *
 * One pullback for each primitive, made of the same operations, so that a gradient can be differentiated again. Nothing
 * is traced or recorded: the graph is already there. The walk is iterative, for a training step is thousands of nodes
 * deep.
 *
 * From     Cria's own; the adjoint rules are textbook (Griewank & Walther, Evaluating Derivatives, ch. 3).
 * Checked  test/tensor/Gradient.test.ts (every primitive and composite against central differences in float64; second
 *          order).
 * Departs  where a function has no derivative the doc comment of its operation says what is taken.
 *
 * @module
 */
import { barrier, outputsOf } from "./Composite.ts"
import {
  add, constant, cos, divide, equal, less, lessEqual, log, multiply, negate, power, real, select, sign, sin, square,
  subtract
} from "./Elementwise.ts"
import { isOne, putNode, take, zerosLike } from "./Indexing.ts"
import type { Any, BinaryFunction, Operation, Scalar, UnaryFunction, Untyped } from "./Node.ts"
import { describe, fail, inPlace, isTensor, make, show } from "./Node.ts"
import { contract, cumulativeSum, sum } from "./Reduction.ts"
import { merge, pad, rename, slice, split, spread } from "./Structure.ts"
import { map, mapAs, tensors, type Tree } from "./Tree.ts"

/** What each operand receives; `undefined` where no gradient flows. */
type Cotangents = ReadonlyArray<Any | undefined>

/**
 * The gradient of a scalar with respect to every tensor of a tree; zeros where the loss does not depend on it.
 *
 * Its elements lie as those of the tensor do.
 */
export const gradient = <P>(loss: Scalar, parameters: P & Tree<P>): P => {
  if (Object.keys(loss.sizes).length > 0) {
    fail("gradient", "the loss must be one number", [["loss", show(loss)]], "Reduce it with a visible mean or sum.")
  }
  const leaves = tensors(parameters)
  const discrete = leaves.filter(([, leaf]) => leaf.kind !== "real")
  if (discrete.length > 0) {
    fail("gradient", "only real tensors have one", discrete.map(([path, leaf]) => [path, show(leaf)] as const),
      "Take it with respect to the real leaves of the tree.")
  }
  const found = pullback([loss], [constant(1)], leaves.map(([, leaf]) => leaf))
  const byPath = new Map(leaves.map(([path, leaf], i) => [path, lyingAs(leaf, found[i] ?? zerosLike(leaf))]))
  return map(parameters, (leaf, path) => byPath.get(path) ?? zerosLike(leaf))
}

/** The same value, its axes named in the order of another tensor. */
const lyingAs = (leaf: Any, x: Any): Any =>
  describe(leaf.sizes) === describe(x.sizes) ? x : make({ _tag: "Label", name: "" }, [x], leaf.sizes, x.kind)

/** `gradient` for code that is generic in its tree: that every leaf is a tensor is checked when it runs. */
export const gradientOf = <P>(loss: Scalar, parameters: P): P => {
  const leaves = tensors(parameters)
  const byPath = gradient(loss, Object.fromEntries(leaves))
  return mapAs<P>()(parameters, isTensor, (_, path) => byPath[path])
}

/**
 * Pulls cotangents of some outputs back to some inputs: Σ ȳ · ∂y/∂x for each x; `undefined` where y does not depend on
 * x.
 *
 * The inputs are independent variables: a dependence between them is not followed.
 */
export const pullback =
  (outputs: ReadonlyArray<Any>, cotangents: Cotangents,
    inputs: ReadonlyArray<Any>): ReadonlyArray<Untyped | undefined> => {
    const wanted = new Set<Any>(inputs)
    const order = topological(outputs, (node) => wanted.has(node))
    const leads = new Set<Any>(inputs)
    for (const node of order) if (node.operands.some((operand) => leads.has(operand))) leads.add(node)
    const received = new Map<Any, Any>()
    const receivedOutputs = new Map<Any, Array<Any | undefined>>()
    const receive = (node: Any, cotangent: Any | undefined): void => {
      if (cotangent === undefined || !leads.has(node)) return
      const earlier = received.get(node)
      received.set(node, earlier === undefined ? cotangent : add(earlier as Untyped, cotangent as Untyped))
    }
    outputs.forEach((output, i) => receive(output, cotangents[i]))
    for (let i = order.length - 1; i >= 0; i--) {
      const node = order[i]
      if (node === undefined || wanted.has(node) || !leads.has(node)) continue
      const { operation } = node
      if (operation._tag === "Composite") {
        const bars = receivedOutputs.get(node)
        if (bars !== undefined) {
          inPlace(node.place, () => pullComposite(node, operation, bars)).forEach(
            (bar, k) => receive(at(node.operands, k), bar))
        }
        continue
      }
      const bar = received.get(node)
      if (bar === undefined) continue
      if (operation._tag === "Output") {
        const composite = at(node.operands, 0)
        const bars = receivedOutputs.get(composite) ?? []
        const earlier = bars[operation.index]
        bars[operation.index] = earlier === undefined ? bar : add(earlier as Untyped, bar as Untyped)
        receivedOutputs.set(composite, bars)
      } else inPlace(node.place, () => pull(node, bar as Untyped)).forEach(
        (part, k) => receive(at(node.operands, k), part))
    }
    return inputs.map((input) => received.get(input) as Untyped | undefined)
  }

/** The nodes that the outputs depend on, operands first. Does not look behind a node where `stop` holds. */
export const topological =
  (outputs: ReadonlyArray<Any>, stop: (node: Any) => boolean = () => false): ReadonlyArray<Any> => {
    const order: Array<Any> = []
    const seen = new Set<Any>()
    const stack: Array<{ readonly node: Any; next: number }> = []
    for (const output of outputs) {
      if (seen.has(output)) continue
      seen.add(output)
      stack.push({ node: output, next: 0 })
      for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
        const operand = stop(frame.node) ? undefined : frame.node.operands[frame.next++]
        if (operand === undefined) {
          order.push(frame.node)
          stack.pop()
        } else if (!seen.has(operand)) {
          seen.add(operand)
          stack.push({ node: operand, next: 0 })
        }
      }
    }
    return order
  }

/**
 * Runs `f` now and once more when its gradient is taken, instead of keeping what it computes in between.
 *
 * That costs one more forward pass of the region and saves the memory of everything inside it (activation
 * checkpointing). Every parameter, cell or input that a gradient could flow to must come in through `inputs`; where `f`
 * closes over another, a `ShapeError` is thrown.
 */
export const recompute = <P, R extends Any>(inputs: P, f: (inputs: P) => R): R => {
  const leaves = tensors(inputs).map(([, leaf]) => leaf)
  const rebuilt = (values: ReadonlyArray<Any>): R => {
    let next = 0
    return f(mapAs<P>()(inputs, isTensor, () => at(values, next++)))
  }
  const composite = {
    name: "recompute",
    attributes: {},
    residuals: 0,
    decompose: (values: ReadonlyArray<Any>) => [rebuilt(values)],
    pullback: (values: ReadonlyArray<Untyped>, _: ReadonlyArray<Untyped>, bars: ReadonlyArray<Untyped | undefined>) => {
      const [bar] = bars
      if (bar === undefined) return values.map(() => undefined)
      const behind = values.map((value) => barrier(value, bar))
      return pullback([rebuilt(behind)], [bar], behind)
    }
  }
  // built once over stand-ins, so that a tensor that is closed over is told from one that comes in, though made of it
  const standIns = leaves.map((leaf): Any => make({ _tag: "Label", name: "" }, [leaf], leaf.sizes, leaf.kind))
  const shape = rebuilt(standIns)
  const inside = new Set(standIns)
  const stray = topological([shape], (node) => inside.has(node) || carriesNoGradient(node))
    .find((node) => node.operation._tag === "Leaf" && node.kind === "real" && !inside.has(node))
  if (stray !== undefined) {
    fail("recompute", "every tensor that a gradient could flow to must be one of its inputs",
      [["closed over", show(stray)]],
      "Pass it (or what is made of it) through `inputs`, or put `stopGradient` around it.")
  }
  const node = make({ _tag: "Composite", composite, outputs: [{ sizes: shape.sizes, kind: shape.kind }] }, leaves, {},
    "real")
  return at(outputsOf(node), 0) as Any as R
}

const carriesNoGradient = ({ kind, operation }: Any): boolean =>
  kind !== "real" && operation._tag !== "Composite" || operation._tag === "StopGradient" || operation._tag === "Convert"

const at = <X>(items: ReadonlyArray<X>, index: number): X => {
  const item = items[index]
  if (item === undefined) throw new TypeError(`a node lacks operand ${index}`)
  return item
}

const pullComposite =
  (node: Any, operation: Operation & { _tag: "Composite" }, bars: ReadonlyArray<Any | undefined>): Cotangents => {
    const { composite } = operation
    const proper = operation.outputs.length - composite.residuals
    const usesResidual = bars.some((bar, i) => bar !== undefined && i >= proper)
    if (composite.pullback !== undefined && !usesResidual) {
      const all = operation.outputs.map((_, i) => bars[i] as Untyped | undefined)
      return composite.pullback(node.operands as ReadonlyArray<Untyped>, outputsOf(node), all.slice(0, proper))
    }
    const independent = node.operands.map(
      (operand): Untyped => make({ _tag: "Label", name: "" }, [operand], operand.sizes, operand.kind))
    return pullback(composite.decompose(independent), operation.outputs.map((_, i) => bars[i]), independent)
  }

/** Sums a cotangent down to the axes of an operand that was broadcast. */
const reduceTo = (bar: Untyped, x: Any): Untyped => {
  const extra = Object.keys(bar.sizes).filter((axis) => !(axis in x.sizes))
  return extra.length === 0 ? bar : sum(bar, extra)
}

/** Spreads a cotangent over the axes that its operand had before they were reduced. */
const spreadTo = (bar: Untyped, x: Any): Untyped =>
  Object.entries(x.sizes).reduce(
    (value: Untyped, [axis, size]) => axis in value.sizes ? value : spread(value, axis, size), bar)

const unary: Record<UnaryFunction, (bar: Untyped, x: Untyped, y: Untyped) => Any | undefined> = {
  exp: (bar, _, y) => multiply(bar, y),
  log: (bar, x) => divide(bar, x),
  sqrt: (bar, _, y) => divide(multiply(bar, 0.5), y),
  rsqrt: (bar, _, y) => multiply(bar, multiply(multiply(square(y), y), -0.5)),
  reciprocal: (bar, _, y) => negate(multiply(bar, square(y))),
  sin: (bar, x) => multiply(bar, cos(x)),
  cos: (bar, x) => negate(multiply(bar, sin(x))),
  tanh: (bar, _, y) => multiply(bar, subtract(constant(1), square(y))),
  sigmoid: (bar, _, y) => multiply(bar, multiply(y, subtract(constant(1), y))),
  abs: (bar, x) => multiply(bar, sign(x)),
  sign: () => undefined,
  floor: () => undefined,
  negate: (bar) => negate(bar),
  square: (bar, x) => multiply(bar, multiply(x, 2))
}

/** x, but 1 where the exponent y is 0: x⁰ is 1 for every x, 0 too, and 0 · 0⁻¹ must not be NaN. */
const apartFromZero = (y: Untyped, x: Untyped): Untyped =>
  y.operation._tag === "Fill" && y.operation.value !== 0 ? x : select(equal(y, 0), 1, x)

const binary: Record<BinaryFunction,
  (bar: Untyped, x: Untyped, y: Untyped, out: Untyped) => readonly [Untyped, Untyped]> = {
  add: (bar) => [bar, bar],
  subtract: (bar) => [bar, negate(bar)],
  multiply: (bar, x, y) => [multiply(bar, y), multiply(bar, x)],
  divide: (bar, _, y, out) => [divide(bar, y), negate(divide(multiply(bar, out), y))],
  maximum: (bar, x, y) => [select(lessEqual(y, x), bar, 0), select(lessEqual(y, x), 0, bar)],
  minimum: (bar, x, y) => [select(lessEqual(x, y), bar, 0), select(lessEqual(x, y), 0, bar)],
  power: (bar, x, y, out) => [
    multiply(bar, multiply(y, power(apartFromZero(y, x), subtract(y, 1)))),
    multiply(bar, multiply(out, log(select(less(constant(0), x), x, 1)))) // 0 · log 0 counts as 0
  ]
}

/** The pullback of each primitive. */
const pull = (node: Any, bar: Untyped): Cotangents => {
  const { operands, operation } = node
  const [x, y, z] = operands as ReadonlyArray<Untyped>
  const out = node as Untyped
  if (x === undefined) return []
  switch (operation._tag) {
    case "Unary":
      return [unary[operation.function](bar, x, out)]
    case "Binary": {
      if (y === undefined || node.kind !== "real") return []
      const [left, right] = binary[operation.function](bar, x, y, out)
      return [reduceTo(left, x), reduceTo(right, y)]
    }
    case "Select":
      return y === undefined || z === undefined ? []
        : [undefined, reduceTo(select(x, bar, 0), y), reduceTo(select(x, 0, bar), z)]
    case "Reduce": {
      if (operation.function === "sum") return [spreadTo(bar, x)]
      const largest = real(equal(x, out))
      return [multiply(largest, divide(bar, sum(largest, operation.axes)))]
    }
    case "Contract":
      return y === undefined ? [] : [contract(bar, y, missing(y, x)), contract(bar, x, missing(x, y))]
    case "CumulativeSum":
      return [cumulativeSum(bar, operation.axis, { reverse: !operation.reverse })]
    case "Rename":
      return [rename(bar, operation.to, operation.from)]
    case "Spread":
      return [sum(bar, operation.axis)]
    case "Slice":
      return [pad(bar, operation.axis, operation.start, (x.sizes[operation.axis] ?? 0) - operation.end)]
    case "Pad":
      return [slice(bar, operation.axis, operation.before, operation.before + (x.sizes[operation.axis] ?? 0))]
    case "Concat": {
      let start = 0
      return operands.map((part) => slice(bar, operation.axis, start, start += part.sizes[operation.axis] ?? 0))
    }
    case "Split":
      return [merge(bar, operation.into, operation.axis)]
    case "Merge":
      return [split(bar, operation.into, Object.fromEntries(operation.axes.map((axis) => [axis, x.sizes[axis] ?? 0])))]
    case "Take": {
      if (y === undefined || x.kind !== "real") return []
      if (!isOne(y)) return [putNode(zerosLike(x), operation.axis, y, bar, "add"), undefined]
      const index = y.operation.value
      const row: Untyped = spread(bar, operation.axis, 1)
      return [pad(row, operation.axis, index, (x.sizes[operation.axis] ?? 0) - index - 1), undefined]
    }
    case "Put": {
      if (y === undefined || z === undefined) return []
      const kept = operation.mode === "add" ? bar : putNode(bar, operation.axis, y, zerosLike(z), "set")
      return [kept, undefined, take(bar, operation.axis, y)]
    }
    case "TopK": {
      if (operation.part === "ids") return []
      const ids = make({ ...operation, part: "ids" }, operands, node.sizes, "id")
      return [putNode(zerosLike(x), operation.axis, ids, bar, "add")]
    }
    case "Label":
      return [bar]
    case "Barrier":
      return [bar, undefined]
    case "Leaf":
    case "Fill":
    case "Constant":
    case "Positions":
    case "Compare":
    case "Logic":
    case "Convert":
    case "StopGradient":
      return []
    case "Composite":
    case "Output":
      throw new TypeError("a composite is pulled back as a whole")
  }
}

/** The axes of `y` that `x` lacks. */
const missing = (y: Any, x: Any): ReadonlyArray<string> => Object.keys(y.sizes).filter((axis) => !(axis in x.sizes))
