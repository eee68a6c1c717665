/**
 * The operations of random programs: each takes what it needs from a pool of values, if that is there.
 *
 * Every value has a known bound, so that nothing overflows, and every id stays below the size of its axis. An axis
 * whose size an operation changes gets a new name, so that sizes never clash.
 *
 * From     Cria's own.
 * Checked  test/law/ProgramArbitrary.test.ts.
 *
 * @module
 */
import { type Any, count, type Untyped } from "../tensor/Node.ts"
import * as T from "../tensor/Tensor.ts"

/** A value that operations may use: a real is at most `bound` from zero, an id is below it. */
export interface Item {
  readonly node: Untyped
  readonly bound: number
}

/** One operation and the choices it makes among what is there. */
export interface Step {
  readonly operation: string
  readonly x: number
  readonly y: number
  readonly ids: number
  readonly truth: number
  readonly axis: number
  readonly number: number
}

/** Adds values to a program; none where it does not apply. `fresh` begins the name of every new axis. */
export type Operation = (pool: ReadonlyArray<Item>, step: Step, fresh: string) => ReadonlyArray<Item>

const most = { bound: 64, elements: 300, axes: 6 }

const axesOf = (x: Any): ReadonlyArray<string> => Object.keys(x.sizes).toSorted()

const choose = <A>(items: ReadonlyArray<A>, choice: number): A | undefined => items[choice % Math.max(1, items.length)]

const itemOf = (pool: ReadonlyArray<Item>, kind: T.Kind, choice: number): Item | undefined =>
  choose(pool.filter(({ node }) => node.kind === kind), choice)

const keep = (node: Untyped, bound: number): ReadonlyArray<Item> =>
  bound <= most.bound && count(node.sizes) <= most.elements && axesOf(node).length <= most.axes ? [{ node, bound }] : []

/** An operation on one real tensor. */
const one = (
  f: (x: Untyped, bound: number, step: Step, fresh: string) => ReadonlyArray<Item>
): Operation => (pool, step, fresh) => {
  const x = itemOf(pool, "real", step.x)
  return x === undefined ? [] : f(x.node, x.bound, step, fresh)
}

/** An operation on two real tensors; the result must not have too many elements. */
const two = (
  f: (x: Untyped, y: Untyped, bounds: readonly [number, number], step: Step, fresh: string) => ReadonlyArray<Item>
): Operation =>
  (pool, step, fresh) => {
    const [x, y] = [itemOf(pool, "real", step.x), itemOf(pool, "real", step.y)]
    if (x === undefined || y === undefined || count({ ...x.node.sizes, ...y.node.sizes }) > most.elements) return []
    return f(x.node, y.node, [x.bound, y.bound], step, fresh)
  }

/** An operation on one axis of a real tensor. */
const along = (
  f: (x: Untyped, axis: string, size: number, bound: number, step: Step, fresh: string) => ReadonlyArray<Item>
): Operation => one((x, bound, step, fresh) => {
  const axis = choose(axesOf(x), step.axis)
  return axis === undefined ? [] : f(x, axis, x.sizes[axis] ?? 0, bound, step, fresh)
})

/** The same where the axis has elements. */
const alongSome: typeof along = (f) => along((x, axis, size, ...rest) => size === 0 ? [] : f(x, axis, size, ...rest))

/** A real tensor, ids, and an axis from which they can choose. */
const chosen = (
  f: (x: Untyped, axis: string, ids: Untyped, bound: number, step: Step) => ReadonlyArray<Item>
): Operation =>
  (pool, step) => {
    const [x, ids] = [itemOf(pool, "real", step.x), itemOf(pool, "id", step.ids)]
    if (x === undefined || ids === undefined) return []
    const axis = choose(axesOf(x.node).filter((name) =>
      (x.node.sizes[name] ?? 0) >= ids.bound && !(name in ids.node.sizes)), step.axis)
    return axis === undefined ? [] : f(x.node, axis, ids.node, x.bound, step)
  }

const compared = (pool: ReadonlyArray<Item>, step: Step, relation: T.Comparison): ReadonlyArray<Item> => {
  const isOfIds = step.number % 3 === 0
  const [x, y] = isOfIds
    ? [itemOf(pool, "id", step.x), itemOf(pool, "id", step.y)]
    : [itemOf(pool, "real", step.x), itemOf(pool, "real", step.y)]
  return x === undefined || y === undefined || count({ ...x.node.sizes, ...y.node.sizes }) > most.elements
    ? []
    : keep(relation(x.node, y.node), 1)
}

const truths = (f: (x: Untyped, y: Untyped) => Untyped): Operation => (pool, step) => {
  const [x, y] = [itemOf(pool, "truth", step.x), itemOf(pool, "truth", step.y)]
  return x === undefined || y === undefined ? [] : keep(f(x.node, y.node), 1)
}

const positive = (x: Untyped): Untyped => T.add(T.square(x), 0.5)

const numbers = [0, 1, 0.5, -1.5, 2, -1]

/** The operations by name. */
export const operations: Readonly<Record<string, Operation>> = {
  negate: one((x, bound) => keep(T.negate(x), bound)),
  square: one((x, bound) => keep(T.square(x), bound * bound)),
  sin: one((x) => keep(T.sin(x), 1)),
  cos: one((x) => keep(T.cos(x), 1)),
  tanh: one((x) => keep(T.tanh(x), 1)),
  sigmoid: one((x) => keep(T.sigmoid(x), 1)),
  silu: one((x, bound) => keep(T.silu(x), bound)),
  exp: one((x, bound) => keep(T.exp(x), Math.exp(bound))),
  log: one((x, bound) => keep(T.log(positive(x)), Math.max(0.7, Math.log(bound * bound + 0.5)))),
  sqrt: one((x, bound) => keep(T.sqrt(positive(x)), bound + 1)),
  rsqrt: one((x) => keep(T.rsqrt(positive(x)), 2)),
  reciprocal: one((x) => keep(T.reciprocal(positive(x)), 2)),
  abs: one((x, bound) => keep(T.abs(x), bound)),
  sign: one((x) => keep(T.sign(x), 1)),
  floor: one((x, bound) => keep(T.floor(x), bound + 1)),
  label: one((x, bound) => keep(T.label("inner")(x), bound)),
  stopGradient: one((x, bound) => keep(T.stopGradient(x), bound)),
  addNumber: one((x, bound, { number }) => keep(T.add(x, choose(numbers, number) ?? 0), bound + 2)),
  multiplyNumber: one((x, bound, { number }) => keep(T.multiply(x, choose(numbers, number) ?? 0), bound * 2)),
  add: two((x, y, [a, b]) => keep(T.add(x, y), a + b)),
  subtract: two((x, y, [a, b]) => keep(T.subtract(x, y), a + b)),
  multiply: two((x, y, [a, b]) => keep(T.multiply(x, y), a * b)),
  divide: two((x, y, [a]) => keep(T.divide(x, positive(y)), 2 * a)),
  maximum: two((x, y, [a, b]) => keep(T.maximum(x, y), Math.max(a, b))),
  minimum: two((x, y, [a, b]) => keep(T.minimum(x, y), Math.max(a, b))),
  power: two((x, y, [a]) => keep(T.power(positive(x), T.tanh(y)), Math.max(2, a * a + 0.5))),
  recompute: two(
    (x, y, [a, b]) => keep(T.recompute({ x, y }, ({ x, y }) => T.multiply(T.tanh(x), T.sin(y))), Math.min(a, b, 1))
  ),
  equal: (pool, step) => compared(pool, step, T.equal),
  less: (pool, step) => compared(pool, step, T.less),
  lessEqual: (pool, step) => compared(pool, step, T.lessEqual),
  and: truths(T.and),
  or: truths(T.or),
  not: truths((x) => T.not(x)),
  select: (pool, step, fresh) => two((x, y, [a, b]) => {
    const condition = itemOf(pool, "truth", step.truth)
    return condition === undefined || count({ ...x.sizes, ...y.sizes, ...condition.node.sizes }) > most.elements
      ? []
      : keep(T.select(condition.node, x, step.number % 3 === 0 ? 0.25 : y), Math.max(a, b))
  })(pool, step, fresh),
  realOfTruths: (pool, step) => {
    const truth = itemOf(pool, "truth", step.truth)
    return truth === undefined ? [] : keep(T.real(truth.node), 1)
  },
  realOfIds: (pool, step) => {
    const ids = itemOf(pool, "id", step.ids)
    return ids === undefined ? [] : keep(T.real(ids.node), ids.bound)
  },
  toIds: one((x, bound) => keep(T.toIds(T.abs(x)), Math.floor(bound) + 1)),
  addIds: (pool, step) => {
    const [x, y] = [itemOf(pool, "id", step.x), itemOf(pool, "id", step.y)]
    return x === undefined || y === undefined ? [] : keep(T.addIds(x.node, y.node), x.bound + y.bound - 1)
  },
  subtractIds: (pool, step) => {
    const ids = itemOf(pool, "id", step.ids)
    return ids === undefined ? [] : keep(T.subtractIds(T.idConstant(ids.bound - 1), ids.node), ids.bound)
  },
  positions: along((_, axis, size) => keep(T.positions(axis, size), Math.max(1, size))),
  oneHot: (pool, step, fresh) => {
    const ids = itemOf(pool, "id", step.ids)
    return ids === undefined || ids.bound > 8 ? [] : keep(T.oneHot(ids.node, fresh, ids.bound), 1)
  },
  sum: along((x, axis, size, bound) => keep(T.sum(x, axis), bound * size)),
  sumAll: one((x, bound) => keep(T.sum(x, axesOf(x)), bound * count(x.sizes))),
  mean: alongSome((x, axis, _, bound) => keep(T.mean(x, axis), bound)),
  max: alongSome((x, axis, _, bound) => keep(T.max(x, axis), bound)),
  logSumExp: alongSome((x, axis, size, bound) => keep(T.logSumExp(x, axis), bound + Math.log(size))),
  softmax: alongSome((x, axis) => keep(T.softmax(axis)(x), 1)),
  softmaxWhere: (pool, step, fresh) => alongSome((x, axis, size) => {
    const seen = itemOf(pool, "truth", step.truth)?.node
    const fits = seen !== undefined && axis in seen.sizes && axesOf(seen).every((name) => name in x.sizes)
    const visible: Untyped = fits ? seen : T.lessEqual(T.positions(axis, size), step.number - 1)
    return keep(T.softmaxWhere(x, visible, axis), 1)
  })(pool, step, fresh),
  cumulativeSum: along((x, axis, size, bound, { number }) =>
    keep(T.cumulativeSum(x, axis, { reverse: number % 2 === 1 }), bound * Math.max(1, size))),
  contract: two((x, y, [a, b], { axis, number }) => {
    const common = axesOf(x).filter((name) => name in y.sizes)
    const over = number % 2 === 0 ? common : common.filter((_, i) => i === axis % common.length)
    return over.length === 0 ? [] : keep(
      T.contract(x, y, over), a * b * over.reduce((n, name) => n * (x.sizes[name] ?? 1), 1)
    )
  }),
  rename: along((x, axis, _, bound, __, fresh) => keep(T.rename(x, axis, fresh), bound)),
  spread: one((x, bound, { number }, fresh) => keep(T.spread(x, fresh, 1 + number % 3), bound)),
  slice: along((x, axis, size, bound, { number }, fresh) => {
    const start = number % (size + 1)
    const end = Math.min(size, start + 1 + number % 2)
    return keep(T.rename(T.slice(x, axis, start, end), axis, fresh), bound)
  }),
  pad: along((x, axis, _, bound, { number }, fresh) =>
    keep(T.rename(T.pad(x, axis, number % 3, number % 2), axis, fresh), bound)),
  concat: along((x, axis, size, bound, { number }, fresh) => {
    const other = number % 2 === 0 ? T.negate(x) : T.slice(x, axis, 0, Math.min(1, size))
    return keep(T.rename(T.concat(axis, [x, other, x]), axis, fresh), bound)
  }),
  stack: two((x, y, [a, b], _, fresh) => {
    const same = axesOf(x).join() === axesOf(y).join()
    return keep(T.stack(fresh, [x, same ? y : T.sin(x)]), Math.max(a, b, 1))
  }),
  split: along((x, axis, size, bound, { number }, fresh) => {
    const outer = [1, 2, 3, size].filter((factor) => factor > 0 && size % factor === 0)
    const factor = choose(outer, number) ?? 1
    return keep(T.split(x, axis, { [`${fresh}a`]: factor, [`${fresh}b`]: size / factor }), bound)
  }),
  merge: one((x, bound, { axis, number }, fresh) => {
    const [first, second] = [choose(axesOf(x), axis), choose(axesOf(x), number)]
    return first === undefined || second === undefined || first === second
      ? []
      : keep(T.merge(x, [first, second], fresh), bound)
  }),
  at: alongSome((x, axis, size, bound, { number }) => keep(T.at(x, axis, number % size), bound)),
  take: chosen((x, axis, ids, bound) => keep(T.take(x, axis, ids), bound)),
  putAdd: chosen((x, axis, ids, bound) => {
    const values = T.sin(T.take(x, axis, ids))
    return keep(T.put(x, axis, ids, values, "add"), bound + count(ids.sizes))
  }),
  putOnZeros: chosen((x, axis, ids) => {
    const values = T.tanh(T.take(x, axis, ids))
    return keep(T.put(T.fill(x.sizes, 0), axis, ids, values, "add"), count(ids.sizes))
  }),
  putSet: along((x, axis, size, bound, { number }, fresh) => {
    const written = number % (size + 1)
    const ids = T.addIds(T.positions(fresh, written), size - written)
    return keep(T.put(x, axis, ids, T.cos(T.take(x, axis, ids)), "set"), Math.max(bound, 1))
  }),
  topK: along((x, axis, size, bound, { number }, fresh) => {
    const { ids, values } = T.topK(x, axis, fresh, number % (size + 1))
    return [...keep(values, bound), ...keep(ids, Math.max(1, size))]
  })
}
