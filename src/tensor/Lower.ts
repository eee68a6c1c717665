/**
 * Lowering: names to positions. The only file that knows an order of axes.
 *
 * Leaves lie in the order of their declaration. Every other value takes the order that spares transposes: elementwise
 * results follow their largest operand or the order that a consumer wants, a contraction groups its axes into one
 * matrix product [shared, free left, free right]. Equal instructions are shared, dead ones are dropped.
 *
 * From     Cria's own.
 * Checked  test/tensor/Lower.test.ts (the axis order of leaves changes no result); every backend test.
 *
 * @module
 */
import { topological } from "./Gradient.ts"
import type { Instruction, Lowered, Port, Primitive, Value } from "./Instruction.ts"
import type { Any, Kind, Sizes } from "./Node.ts"

/** A named end of a graph, and the order in which its elements are to lie: that of the keys of `sizes`. */
export interface End {
  readonly name: string
  readonly node: Any
  readonly sizes: Sizes
}

/** Named ends of a graph. */
export interface Roots {
  readonly inputs: ReadonlyArray<readonly [name: string, leaf: Any]>
  readonly cells: ReadonlyArray<readonly [name: string, leaf: Any]>
  readonly outputs: ReadonlyArray<End>
  readonly writes: ReadonlyArray<End>
  readonly watched: ReadonlyArray<End>
}

type Order = ReadonlyArray<string>

interface Placed {
  readonly id: number
  readonly order: Order
}

/** Lowers a graph whose composites without a kernel have been expanded (see `Rewrite`). */
export const lower = (roots: Roots): Lowered => {
  const builder = makeBuilder()
  const ends = [...roots.outputs, ...roots.writes, ...roots.watched]
  const nodes = topological(ends.map(({ node }) => node))
  const lowering = makeLowering(builder, wantedOrders(nodes, ends), countUses(nodes, ends))
  const leaf = ([name, node]: readonly [string, Any]): Port =>
    ({ name, value: lowering.place(node).id, sizes: node.sizes })
  const inputs = roots.inputs.map(leaf)
  const cells = roots.cells.map(leaf)
  for (const node of nodes) lowering.place(node)
  const port = ({ name, node, sizes }: End): Port => ({
    name, value: builder.arrange(lowering.place(node), Object.keys(sizes)).id, sizes
  })
  const outputs = roots.outputs.map(port)
  const writes = roots.writes.map(port)
  const watched = roots.watched.map(port)
  const live = [...outputs, ...writes, ...watched].map(({ value }) => value)
  return { values: builder.values, instructions: alive(builder.instructions, live), inputs, cells, outputs, writes,
    watched }
}

const alive = (instructions: ReadonlyArray<Instruction>, roots: ReadonlyArray<number>): ReadonlyArray<Instruction> => {
  const used = new Set(roots)
  return instructions.toReversed().filter((instruction) => {
    if (!instruction.outputs.some((output) => used.has(output))) return false
    instruction.inputs.forEach((input) => used.add(input))
    return true
  }).reverse()
}

const countUses = (nodes: ReadonlyArray<Any>, ends: ReadonlyArray<End>): ReadonlyMap<Any, number> => {
  const uses = new Map<Any, number>()
  const use = (node: Any): void => void uses.set(node, (uses.get(node) ?? 0) + 1)
  for (const { node } of ends) use(node)
  for (const node of nodes) node.operands.forEach(use)
  return uses
}

/** The order in which a node's value is wanted by what is made of it, where that is known. */
const wantedOrders = (nodes: ReadonlyArray<Any>, ends: ReadonlyArray<End>): ReadonlyMap<Any, Order> => {
  const wanted = new Map<Any, Order>()
  for (const { node, sizes } of ends) if (!wanted.has(node)) wanted.set(node, Object.keys(sizes))
  for (const node of nodes.toReversed()) {
    const order = wanted.get(node)
    if (order === undefined || !keepsAxes.has(node.operation._tag)) continue
    for (const operand of node.operands) {
      if (!wanted.has(operand) && Object.keys(operand.sizes).length === order.length &&
        order.every((axis) => axis in operand.sizes)) {
        wanted.set(operand, order)
      }
    }
  }
  return wanted
}

const keepsAxes: ReadonlySet<string> =
  new Set(["Unary", "Binary", "Select", "Put", "Label", "StopGradient", "Barrier", "CumulativeSum"])

interface Builder {
  readonly values: Array<Value>
  readonly instructions: Array<Instruction>
  readonly leaf: (sizes: Sizes, kind: Kind) => Placed
  /** Emits an instruction, or finds the equal one that is already there. */
  readonly emit: (primitive: Primitive, inputs: ReadonlyArray<number>, output: Value, place: string) => number
  readonly emitAll: (primitive: Primitive, inputs: ReadonlyArray<number>, outputs: ReadonlyArray<Value>,
    place: string) => ReadonlyArray<number>
  /** The value in another order of the same axes. */
  readonly arrange: (x: Placed, order: Order) => Placed
  readonly reshape: (id: number, shape: ReadonlyArray<number>, axes: Order) => number
}

const makeBuilder = (): Builder => {
  const values: Array<Value> = []
  const instructions: Array<Instruction> = []
  const known = new Map<string, ReadonlyArray<number>>()
  const identities = new Map<object, number>()
  const identity = (thing: object): number => {
    const found = identities.get(thing) ?? identities.size
    identities.set(thing, found)
    return found
  }
  const emitAll: Builder["emitAll"] = (primitive, inputs, outputs, place) => {
    const key = `${keyOf(primitive, identity)}(${inputs.join()})${outputs.map(
      (output) => `${output.kind}[${output.shape.join()}]`).join("")}`
    const found = known.get(key)
    if (found !== undefined) return found
    const ids = outputs.map((output) => values.push(output) - 1)
    instructions.push({ primitive, inputs, outputs: ids, place })
    known.set(key, ids)
    return ids
  }
  const emit: Builder["emit"] =
    (primitive, inputs, output, place) => emitAll(primitive, inputs, [output], place)[0] ?? 0
  const at = (id: number): Value => values[id] ?? { shape: [], axes: [], kind: "real" }
  const reshape: Builder["reshape"] = (id, shape, axes) => {
    const { kind, shape: now } = at(id)
    return now.length === shape.length && now.every((size, i) => size === shape[i])
      ? id
      : emit({ _tag: "reshape" }, [id], { shape, axes, kind }, "")
  }
  const arrange: Builder["arrange"] = (x, order) => {
    if (sameOrder(x.order, order)) return x
    const { kind, shape } = at(x.id)
    const sizes = new Map(x.order.map((axis, i) => [axis, shape[i] ?? 1]))
    const wide = (axes: Order): Order => axes.filter((axis) => sizes.get(axis) !== 1)
    const next = order.map((axis) => sizes.get(axis) ?? 1)
    if (sameOrder(wide(x.order), wide(order))) return { id: reshape(x.id, next, order), order }
    const permutation = order.map((axis) => x.order.indexOf(axis))
    return { id: emit({ _tag: "transpose", permutation }, [x.id], { shape: next, axes: order, kind }, ""), order }
  }
  const leaf: Builder["leaf"] = (sizes, kind) => {
    const order = Object.keys(sizes)
    return { id: values.push({ shape: Object.values(sizes), axes: order, kind }) - 1, order }
  }
  return { values, instructions, leaf, emit, emitAll, arrange, reshape }
}

const sameOrder = (left: Order, right: Order): boolean => left.length === right.length &&
  left.every((axis, i) => axis === right[i])

/** Primitives with equal keys over equal inputs compute equal values. */
const keyOf = (primitive: Primitive, identity: (thing: object) => number): string => {
  if (primitive._tag === "constant") {
    const { elements } = primitive
    if (typeof elements === "number") return `constant ${digits(elements)}`
    return elements.length <= 64 ? `constant ${Array.from(elements, digits).join()}` : `constant #${identity(elements)}`
  }
  if (primitive._tag === "composite") {
    const { attributes, name } = primitive.composite
    return `composite ${name} ${JSON.stringify(attributes)} ${primitive.orders.join(";")}`
  }
  return Object.values(primitive).map(String).join(" ")
}

/** A number as text that tells −0 from 0. */
const digits = (x: number): string => Object.is(x, -0) ? "-0" : String(x)

interface Lowering {
  /** The value of a node whose operands have been placed (or are leaves). */
  readonly place: (node: Any) => Placed
}

const makeLowering = (builder: Builder, wanted: ReadonlyMap<Any, Order>, uses: ReadonlyMap<Any, number>): Lowering => {
  const done = new Map<Any, Placed>()
  const composites = new Map<Any, ReadonlyArray<Placed>>()
  const { arrange, emit, reshape } = builder

  const counts = new Map<number, Int32Array>()
  const counted = (size: number): Int32Array => {
    const elements = counts.get(size) ?? Int32Array.from({ length: size }, (_, i) => i)
    counts.set(size, elements)
    return elements
  }

  const shapeOf = (order: Order, sizes: Sizes): ReadonlyArray<number> => order.map((axis) => sizes[axis] ?? 1)

  /** The value stretched to broadcast against arrays of the given order. */
  const aligned = (x: Any, order: Order): number => {
    const own = order.filter((axis) => axis in x.sizes)
    const placed = arrange(place(x), own)
    const first = order.findIndex((axis) => axis in x.sizes)
    if (first < 0) return placed.id
    const tail = order.slice(first)
    return reshape(placed.id, tail.map((axis) => x.sizes[axis] ?? 1), tail.map((axis) => axis in x.sizes ? axis : ""))
  }

  /** The order of an elementwise result: what is wanted, else that of the largest operand, other axes behind. */
  const elementwiseOrder = (node: Any): Order => {
    const axes = Object.keys(node.sizes)
    const hint = wanted.get(node)
    const orders = node.operands.map((operand) => place(operand).order)
    const full = orders.filter((order) => order.length === axes.length)
    if (hint !== undefined && (full.length === 0 || full.some((order) => sameOrder(order, hint)))) return hint
    const [largest] = full.length > 0 ? full : orders.toSorted((a, b) => volume(b, node.sizes) - volume(a, node.sizes))
    return [...(largest ?? []), ...axes.filter((axis) => !(largest ?? []).includes(axis))]
  }

  const elementwise = (node: Any, primitive: Primitive): Placed => {
    const order = elementwiseOrder(node)
    const inputs = node.operands.map((operand) => aligned(operand, order))
    return { id: emit(primitive, inputs, { shape: shapeOf(order, node.sizes), axes: order, kind: node.kind },
      node.place), order }
  }

  const contraction = (node: Any, scale: number): Placed => {
    const [x, y] = node.operands
    if (x === undefined || y === undefined || node.operation._tag !== "Contract") throw new TypeError(
      "not a contraction")
    const { over } = node.operation
    const plain = planProduct(place(x).order, place(y).order, over, x.sizes, y.sizes)
    const order = wanted.get(node)
    const wide = (axes: Order): Order => axes.filter((axis) => node.sizes[axis] !== 1)
    const swap = order !== undefined &&
      !sameOrder(wide(order), wide([...plain.shared, ...plain.freeLeft, ...plain.freeRight])) &&
      sameOrder(wide(order), wide([...plain.shared, ...plain.freeRight, ...plain.freeLeft]))
    const [left, right] = swap ? [y, x] : [x, y]
    const [freeLeft, freeRight] = swap ? [plain.freeRight, plain.freeLeft] : [plain.freeLeft, plain.freeRight]
    const sizes: Sizes = { ...x.sizes, ...y.sizes }
    const total = (axes: Order): number => axes.reduce((product, axis) => product * (sizes[axis] ?? 1), 1)
    const batch = plain.shared.length === 0 ? [] : [total(plain.shared)]
    const matrix = (
      operand: Any, free: Order, prefersContractedLast: boolean
    ): { readonly id: number; readonly contractedLast: boolean } => {
      const now = place(operand)
      const flat = (axes: Order): Order => axes.filter((axis) => sizes[axis] !== 1)
      const lies = sameOrder(flat(now.order), flat([...plain.shared, ...plain.summed, ...free]))
      const last = flat(now.order).at(-1) // where it must be moved its last axis stays last: whole runs are copied
      const liesLast = sameOrder(flat(now.order), flat([...plain.shared, ...free, ...plain.summed]))
      // where it lies both ways (an axis of size 1), the matrix that needs no transposition
      const contractedLast = lies
        ? liesLast && prefersContractedLast
        : liesLast || last === undefined || plain.summed.includes(last)
      const target = contractedLast ? [...plain.shared, ...free, ...plain.summed]
        : [...plain.shared, ...plain.summed, ...free]
      const shape = contractedLast ? [...batch, total(free), total(plain.summed)]
        : [...batch, total(plain.summed), total(free)]
      const names = (contractedLast ? [plain.shared, free, plain.summed] : [plain.shared, plain.summed, free])
      return {
        id: reshape(arrange(now, target).id, shape,
          names.slice(batch.length === 0 ? 1 : 0).map((axes) => axes.join("·"))),
        contractedLast
      }
    }
    const a = matrix(left, freeLeft, true)
    const b = matrix(right, freeRight, false)
    const result = [...plain.shared, ...freeLeft, ...freeRight]
    const id = emit(
      { _tag: "matmul", transposeLeft: !a.contractedLast, transposeRight: b.contractedLast, scale },
      [a.id, b.id],
      { shape: [...batch, total(freeLeft), total(freeRight)],
        axes: [...batch.map(() => plain.shared.join("·")), freeLeft.join("·"), freeRight.join("·")], kind: "real" },
      node.place
    )
    return { id: reshape(id, shapeOf(result, node.sizes), result), order: result }
  }

  const gather = (node: Any, axis: string): Placed => {
    const [x, ids] = node.operands
    if (x === undefined || ids === undefined) throw new TypeError("take needs two operands")
    const now = place(x)
    if (ids.operation._tag === "Fill" && Object.keys(ids.sizes).length === 0) {
      const k = now.order.indexOf(axis)
      const start = ids.operation.value
      const rest = now.order.filter((name) => name !== axis)
      const shape = now.order.map((name) => name === axis ? 1 : x.sizes[name] ?? 1)
      const part = emit({ _tag: "slice", axis: k, start, end: start + 1 }, [now.id],
        { shape, axes: now.order, kind: node.kind }, node.place)
      return { id: reshape(part, shapeOf(rest, x.sizes), rest), order: rest }
    }
    const shared = now.order.filter((name) => name in ids.sizes)
    const rest = now.order.filter((name) => !shared.includes(name))
    const table = arrange(now, [...shared, ...rest])
    const outer = place(ids).order.filter((name) => !shared.includes(name))
    const index = arrange(place(ids), [...shared, ...outer])
    const order = [...shared, ...rest.flatMap((name) => name === axis ? outer : [name])]
    const id = emit({ _tag: "gather", batch: shared.length, axis: table.order.indexOf(axis) }, [table.id, index.id],
      { shape: shapeOf(order, node.sizes), axes: order, kind: node.kind }, node.place)
    return { id, order }
  }

  const scatter = (node: Any, axis: string, mode: "set" | "add"): Placed => {
    const [base, ids, values] = node.operands
    if (base === undefined || ids === undefined || values === undefined) throw new TypeError("put needs three operands")
    const hint = wanted.get(node) ?? place(base).order
    const shared = hint.filter((name) => name in ids.sizes)
    const target = arrange(place(base), [...shared, ...hint.filter((name) => !shared.includes(name))])
    const outer = place(ids).order.filter((name) => !shared.includes(name))
    const index = arrange(place(ids), [...shared, ...outer])
    const rows = arrange(place(values), target.order.flatMap((name) => name === axis ? outer : [name]))
    const id = emit({ _tag: "scatter", batch: shared.length, axis: target.order.indexOf(axis), mode },
      [target.id, index.id, rows.id],
      { shape: shapeOf(target.order, node.sizes), axes: target.order, kind: "real" }, node.place)
    return { id, order: target.order }
  }

  const compositeOutputs = (node: Any): ReadonlyArray<Placed> => {
    const found = composites.get(node)
    if (found !== undefined) return found
    if (node.operation._tag !== "Composite" || node.operation.composite.layout === undefined) throw new TypeError(
      "a composite without a layout must be expanded")
    const { composite, outputs } = node.operation
    const layout = node.operation.composite.layout(node.operands.map((operand) => place(operand).order))
    const inputs = node.operands.map(
      (operand, i) => arrange(place(operand), layout.inputs[i] ?? place(operand).order).id)
    const values = outputs.map(({ kind, sizes }, i) => {
      const order = layout.outputs[i] ?? Object.keys(sizes)
      return { shape: shapeOf(order, sizes), axes: order, kind }
    })
    const orders = node.operands.map((operand, i) => layout.inputs[i] ?? place(operand).order)
    const ids = builder.emitAll({ _tag: "composite", composite, orders }, inputs, values, node.place)
    const placed = ids.map((id, i) => ({ id, order: values[i]?.axes ?? [] }))
    composites.set(node, placed)
    return placed
  }

  const operandOf = (node: Any): Any => {
    const [x] = node.operands
    if (x === undefined) throw new TypeError(`${node.operation._tag} needs an operand`)
    return x
  }

  const build = (node: Any): Placed => {
    const { kind, operation, sizes } = node
    const order = Object.keys(sizes)
    const value = (axes: Order): Value => ({ shape: shapeOf(axes, sizes), axes, kind })
    switch (operation._tag) {
      case "Leaf":
        return builder.leaf(sizes, kind)
      case "Fill": {
        const scalar = emit({ _tag: "constant", elements: operation.value }, [], { shape: [], axes: [], kind },
          node.place)
        return { id: order.length === 0 ? scalar
          : emit({ _tag: "expand" }, [scalar], value(wanted.get(node) ?? order), node.place),
        order: wanted.get(node) ?? order }
      }
      case "Constant":
        return { id: emit({ _tag: "constant", elements: operation.elements }, [], value(order), node.place), order }
      case "Positions": {
        const elements = counted(sizes[operation.axis] ?? 0)
        return { id: emit({ _tag: "constant", elements }, [], value(order), node.place), order }
      }
      case "Unary":
        return elementwise(node, { _tag: "unary", function: operation.function })
      case "Binary": {
        const [x, y] = node.operands
        for (const [product, factor] of [[x, y], [y, x]]) {
          if (operation.function !== "multiply" || factor?.operation._tag !== "Fill" ||
            Object.keys(factor.sizes).length > 0) continue
          if (product?.operation._tag === "Contract" && uses.get(product) === 1) return contraction(
            product, factor.operation.value)
        }
        return elementwise(node, { _tag: "binary", function: operation.function })
      }
      case "Compare":
        return elementwise(node, { _tag: "compare", relation: operation.relation })
      case "Logic":
        return elementwise(node, { _tag: "logic", function: operation.function })
      case "Select":
        return elementwise(node, { _tag: "select" })
      case "Convert":
        return operandOf(node).kind === kind ? place(operandOf(node)) : elementwise(node, { _tag: "convert", to: kind })
      case "StopGradient":
      case "Label":
        return place(operandOf(node))
      case "Reduce": {
        const x = place(operandOf(node))
        const axes = x.order.flatMap((axis, i) => operation.axes.includes(axis) ? [i] : [])
        const rest = x.order.filter((axis) => !operation.axes.includes(axis))
        return { id: emit({ _tag: "reduce", function: operation.function, axes }, [x.id], value(rest), node.place),
          order: rest }
      }
      case "Contract":
        return contraction(node, 1)
      case "CumulativeSum": {
        const x = place(operandOf(node))
        return { id: emit({ _tag: "cumulativeSum", axis: x.order.indexOf(operation.axis), reverse: operation.reverse },
          [x.id], value(x.order), node.place), order: x.order }
      }
      case "Rename": {
        const x = place(operandOf(node))
        return { id: x.id, order: x.order.map((axis) => axis === operation.from ? operation.to : axis) }
      }
      case "Spread": {
        const x = place(operandOf(node))
        const spread = [operation.axis, ...x.order]
        if (sizes[operation.axis] === 1) return { id: reshape(x.id, shapeOf(spread, sizes), spread), order: spread }
        return { id: emit({ _tag: "expand" }, [x.id], value(spread), node.place), order: spread }
      }
      case "Slice": {
        const x = place(operandOf(node))
        const primitive: Primitive =
          { _tag: "slice", axis: x.order.indexOf(operation.axis), start: operation.start, end: operation.end }
        return { id: emit(primitive, [x.id], value(x.order), node.place), order: x.order }
      }
      case "Pad": {
        const x = place(operandOf(node))
        const primitive: Primitive =
          { _tag: "pad", axis: x.order.indexOf(operation.axis), before: operation.before, after: operation.after }
        return { id: emit(primitive, [x.id], value(x.order), node.place), order: x.order }
      }
      case "Concat": {
        const { order: first } = place(operandOf(node))
        const parts = node.operands.map((part) => arrange(place(part), first).id)
        return { id: emit({ _tag: "concat", axis: first.indexOf(operation.axis) }, parts, value(first), node.place),
          order: first }
      }
      case "Split": {
        const x = place(operandOf(node))
        const next = x.order.flatMap((axis) => axis === operation.axis ? operation.into : [axis])
        return { id: reshape(x.id, shapeOf(next, sizes), next), order: next }
      }
      case "Merge": {
        const x = place(operandOf(node))
        const [first] = x.order.filter((axis) => operation.axes.includes(axis))
        const together = x.order.flatMap(
          (axis) => axis === first ? operation.axes : operation.axes.includes(axis) ? [] : [axis])
        const next = x.order.flatMap(
          (axis) => axis === first ? [operation.into] : operation.axes.includes(axis) ? [] : [axis])
        return { id: reshape(arrange(x, together).id, shapeOf(next, sizes), next), order: next }
      }
      case "Take":
        return gather(node, operation.axis)
      case "Put":
        return scatter(node, operation.axis, operation.mode)
      case "TopK": {
        const x = operandOf(node)
        const rest = place(x).order.filter((axis) => axis !== operation.axis)
        const sorted = arrange(place(x), [...rest, operation.axis])
        const top = [...rest, operation.rank]
        const shape = shapeOf(top, sizes)
        const ids = builder.emitAll({ _tag: "topK", count: sizes[operation.rank] ?? 0 }, [sorted.id],
          [{ shape, axes: top, kind: "real" }, { shape, axes: top, kind: "id" }], node.place)
        return { id: ids[operation.part === "values" ? 0 : 1] ?? 0, order: top }
      }
      case "Barrier": {
        const x = place(operandOf(node))
        const after = node.operands[1]
        const inputs = after === undefined ? [x.id] : [x.id, place(after).id]
        return { id: emit({ _tag: "barrier" }, inputs, value(x.order), node.place), order: x.order }
      }
      case "Output":
        return compositeOutputs(operandOf(node))[operation.index] ?? { id: 0, order }
      case "Composite":
        compositeOutputs(node)
        return { id: -1, order: [] }
    }
  }

  const place = (node: Any): Placed => {
    const found = done.get(node)
    if (found !== undefined) return found
    const placed = build(node)
    done.set(node, placed)
    return placed
  }
  return { place }
}

const volume = (order: Order, sizes: Sizes): number => order.reduce((product, axis) => product * (sizes[axis] ?? 1), 1)

interface Plan {
  readonly shared: Order
  readonly summed: Order
  readonly freeLeft: Order
  readonly freeRight: Order
}

/** Which order of the shared and of the summed axes lets the operands lie as they are, or moves the smaller of them. */
const planProduct = (left: Order, right: Order, over: Order, x: Sizes, y: Sizes): Plan => {
  const shared = (order: Order): Order => order.filter((axis) => axis in x && axis in y && !over.includes(axis))
  const summed = (order: Order): Order => order.filter((axis) => over.includes(axis))
  const free = (order: Order): Order => order.filter((axis) => !over.includes(axis) && !(axis in x && axis in y))
  const moves = (order: Order, sizes: Sizes, batch: Order, sum: Order): number => {
    const wide = (axes: Order): Order => axes.filter((axis) => sizes[axis] !== 1)
    const lies = sameOrder(wide(order), wide([...batch, ...free(order), ...sum])) ||
      sameOrder(wide(order), wide([...batch, ...sum, ...free(order)]))
    return lies ? 0 : volume(order, sizes)
  }
  const plans = [left, right].flatMap(
    (batch) => [left, right].map((sum) => ({ shared: shared(batch), summed: summed(sum) })))
  const cost = (plan: { readonly shared: Order; readonly summed: Order }): number =>
    moves(left, x, plan.shared, plan.summed) + moves(right, y, plan.shared, plan.summed)
  const [best] = plans.toSorted((a, b) => cost(a) - cost(b))
  return { ...(best ?? { shared: [], summed: [] }), freeLeft: free(left), freeRight: free(right) }
}
