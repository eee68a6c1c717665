/**
 * Every positional primitive on every kind and edge shape: the computations on which the laws of backends try it.
 *
 * Shapes have sizes 0 and 1, ranks from 0 to 3, axes declared in any order, and so many elements that an engine sums
 * them in parts. Leaves lie below 2 from zero; numbers that are none, and very large and small ones, are cases apart,
 * for an engine need not define them.
 *
 * From     Cria's own.
 * Checked  test/law/PrimitiveCase.test.ts (each row lowers to its primitive, on all kinds that it takes).
 *
 * @module
 */
import { barrier } from "../tensor/Composite.ts"
import { type Any, count, type Elements, type Kind, type Sizes, type Untyped } from "../tensor/Node.ts"
import * as T from "../tensor/Tensor.ts"
import * as Arbitrary from "./Arbitrary.ts"
import type { Computation, Given } from "./Computation.ts"

/** One primitive: what it is tried on. */
export interface Row {
  /** The tag of the primitive, and its function where it has several: `unary exp`. */
  readonly name: string
  readonly computations: ReadonlyArray<Computation>
  /** The same with NaN, infinities, signed zeros and numbers near the ends of float32. */
  readonly extremes: ReadonlyArray<Computation>
}

type Leaf = "x" | "y" | "z" | "ids" | "others" | "seen"

const given = (name: string, sizes: Sizes, elements: Elements): Given => {
  const kind: Kind = elements instanceof Float64Array ? "real" : elements instanceof Int32Array ? "id" : "truth"
  return { name, kind, sizes, elements }
}

const codes = (name: string, sizes: Sizes): Given => ({
  name, kind: "code", sizes, elements: Uint8Array.from(Arbitrary.idsBelow(name, count(sizes), 256))
})

const random = (name: string, sizes: Sizes): Given => given(name, sizes, Arbitrary.reals(name, count(sizes)))

const positive = (name: string, sizes: Sizes): Given =>
  given(name, sizes, Arbitrary.reals(name, count(sizes)).map((x) => Math.abs(x) + 0.25))

const ids = (name: string, sizes: Sizes, below: number): Given =>
  given(name, sizes, Arbitrary.idsBelow(name, count(sizes), below))

const truths = (name: string, sizes: Sizes): Given => given(name, sizes, Arbitrary.truths(name, count(sizes)))

const of = (
  leaves: ReadonlyArray<Given>, build: (leaves: Readonly<Record<Leaf, Untyped>>) => Any | ReadonlyArray<Any>
): Computation => ({ given: leaves, build: (tensors) => [build(tensors as Readonly<Record<Leaf, Untyped>>)].flat() })

const line = (name: string, axis: string, elements: ReadonlyArray<number>): Given =>
  given(name, { [axis]: elements.length }, Float64Array.from(elements))

const shapes: ReadonlyArray<Sizes> = [{}, { i: 1 }, { i: 0, j: 2 }, { j: 3, i: 2 }, { k: 2, i: 1, j: 5 }, { i: 70_001 }]

const strange = [NaN, Infinity, -Infinity, 0, -0, 1, -1.5, 1e-30, 80]

const ends = [NaN, Infinity, -Infinity, 3e38, -3e38, -1]

/** Every row of four of the ends. */
const tuples = ends.flatMap((a) => ends.flatMap((b) => ends.flatMap((c) => ends.map((d) => [a, b, c, d]))))

/** Those of two numbers near one end of float32 and two near the other. */
const arrangements = tuples.filter((tuple) =>
  [3e38, -3e38].every((end) => tuple.filter((element) => element === end).length === 2))

/** The same on a leaf of each kind, called x. */
const ofKinds = (
  sizes: Sizes, build: (x: Untyped) => Any | ReadonlyArray<Any>, others: ReadonlyArray<Given> = []
): ReadonlyArray<Computation> =>
  [random("x", sizes), ids("x", sizes, 9), truths("x", sizes), codes("x", sizes)]
    .map((x) => of([x, ...others], ({ x }) => build(x)))

const isPositive: ReadonlySet<string> = new Set(["log", "sqrt", "rsqrt", "reciprocal"])

const { abs, cos, exp, floor, log, negate, reciprocal, rsqrt, sigmoid, sign, sin, sqrt, square, tanh } = T

const unary = Object.entries({
  abs, cos, exp, floor, log, negate, reciprocal, rsqrt, sigmoid, sign, sin, sqrt, square, tanh
}).map(([name, f]): Row => ({
  name: `unary ${name}`,
  computations: shapes.map((sizes) => of([(isPositive.has(name) ? positive : random)("x", sizes)], ({ x }) => f(x))),
  extremes: [of([line("x", "i", name === "sin" || name === "cos" ? [NaN, Infinity, 0, -0, 3] : strange)],
    ({ x }) => f(x))]
}))

/** Shapes of two operands that broadcast by name. */
const pairs: ReadonlyArray<readonly [Sizes, Sizes]> = [
  [{}, {}], [{ i: 2, j: 3 }, { j: 3 }], [{ j: 3 }, { i: 2, j: 3 }], [{ i: 2, j: 3 }, { j: 3, i: 2 }],
  [{ i: 2 }, { j: 3 }], [{ i: 1 }, { j: 4 }], [{ j: 8 }, { i: 1 }], [{ i: 1, j: 4 }, { i: 1, k: 3 }],
  [{ i: 0, j: 2 }, { j: 2 }], [{ i: 1, j: 1 }, {}], [{ i: 300, j: 70 }, { i: 300 }]
]

const { add, addIds, divide, maximum, minimum, multiply, power, subtract, subtractIds } = T

const binary = Object.entries({ add, divide, maximum, minimum, multiply, power, subtract }).map(([name, f]): Row => ({
  name: `binary ${name}`,
  computations: [
    ...pairs.map(([left, right]) => of(
      [(name === "power" ? positive : random)("x", left), (name === "divide" ? positive : random)("y", right)],
      ({ x, y }) => f(x, y)
    )),
    ...name === "add" || name === "subtract" ? pairs.map(([left, right]) => of(
      [ids("ids", left, 9), ids("others", right, 9)],
      ({ ids, others }) => name === "add" ? addIds(ids, others) : subtractIds(ids, others)
    )) : []
  ],
  extremes: [name === "power"
    ? of([line("x", "i", [0, 1, 2, 0.5, Infinity]), line("y", "j", [0, 1, -1, 0.5, 3])], ({ x, y }) => f(x, y))
    : of([line("x", "i", strange), line("y", "j", strange)], ({ x, y }) => f(x, y))]
}))

const { equal, less, lessEqual } = T

const compare = Object.entries({ equal, less, lessEqual }).map(([name, f]): Row => ({
  name: `compare ${name}`,
  computations: pairs.flatMap(([left, right]) => [
    of([random("x", left), random("y", right)], ({ x, y }) => f(x, y)),
    of([ids("ids", left, 3), ids("others", right, 3)], ({ ids, others }) => f(ids, others))
  ]),
  extremes: [of([line("x", "i", strange), line("y", "j", strange)], ({ x, y }) => f(x, y))]
}))

const logic = Object.entries({ and: T.and, or: T.or, not: (x: Untyped) => T.not(x) }).map(([name, f]): Row => ({
  name: `logic ${name}`,
  computations: pairs.map(([left, right]) => of([truths("x", left), truths("y", right)], ({ x, y }) => f(x, y))),
  extremes: []
}))

const choice: Row = {
  name: "select",
  computations: [
    ...pairs.map(([left, right]) =>
      of([truths("seen", left), random("x", left), random("y", right)], ({ seen, x, y }) => T.select(seen, x, y))),
    of([truths("seen", { i: 3 }), random("x", { j: 2 })], ({ seen, x }) => [T.select(seen, x, 2), T.select(seen, 3, x)])
  ],
  extremes: [of( // what is not chosen leaves no trace
    [line("x", "i", [NaN, 1, Infinity]), given("seen", { i: 3 }, Uint8Array.of(0, 1, 0))],
    ({ seen, x }) => [T.select(seen, x, 2), T.select(seen, 3, x)]
  )]
}

const convert: Row = {
  name: "convert",
  computations: shapes.flatMap((sizes) => [
    of([truths("seen", sizes)], ({ seen }) => T.real(seen)), of([ids("ids", sizes, 9)], ({ ids }) => T.real(ids)),
    of([codes("x", sizes)], ({ x }) => T.real(x)), of([random("x", sizes)], ({ x }) => T.toIds(x))
  ]),
  extremes: [of([line("x", "i", [-1.9, 1.9, 0.5, 2e9, -0.5, -0])], ({ x }) => T.toIds(x))]
}

const large = random("x", { i: 300, j: 1000 })

const reduce: ReadonlyArray<Row> = [
  {
    name: "reduce sum",
    computations: [
      of([random("x", { i: 2, j: 3, k: 4 })], ({ x }) =>
        ["i", "j", "k", ["i", "k"], ["j", "k"], ["i", "j", "k"]].map((axes) => T.sum(x, axes))),
      of([random("x", { i: 0, j: 2 })], ({ x }) => [T.sum(x, "i"), T.sum(x, "j"), T.sum(x, ["i", "j"])]),
      of([random("x", { i: 1, j: 1 })], ({ x }) => [T.sum(x, "i"), T.sum(x, ["i", "j"])]),
      of([large], ({ x }) => [T.mean(x, "i"), T.mean(x, "j"), T.mean(x, ["i", "j"])]),
      of([random("x", { i: 100, j: 1000 }), random("y", { i: 3 }), random("z", { k: 70_001 })], ({ x, y, z }) =>
        [x, y, z].map((leaf) => T.multiply(T.sum(T.square(leaf), Object.keys(leaf.sizes)), 1e-3)))
    ],
    extremes: [of([given("x", { i: 2, j: 2 }, Float64Array.of(Infinity, -Infinity, Infinity, 1))],
      ({ x }) => [T.sum(x, "j"), T.sum(x, ["i", "j"])])]
  },
  {
    name: "reduce max",
    computations: [
      of([random("x", { i: 2, j: 3, k: 4 })], ({ x }) =>
        ["i", "j", "k", ["i", "k"], ["j", "k"], ["i", "j", "k"]].map((axes) => T.max(x, axes))),
      of([random("x", { i: 1, j: 0 })], ({ x }) => T.max(x, "i")),
      of([random("x", { i: 1, j: 1 })], ({ x }) => [T.max(x, "i"), T.max(x, ["i", "j"])]),
      of([large], ({ x }) => [T.max(x, "i"), T.max(x, "j"), T.max(x, ["i", "j"])])
    ],
    extremes: [
      of([given("x", { i: 2, j: 3 }, Float64Array.of(-Infinity, -Infinity, -Infinity, 1, Infinity, 2))],
        ({ x }) => T.max(x, "j")),
      of([given("x", { i: 4, j: 40 },
        Float64Array.from({ length: 160 }, (_, i) => i % 41 === 0 ? NaN : i % 7 === 0 ? -Infinity : i))],
      ({ x }) => [T.max(x, "j"), T.max(x, "i"), T.max(x, ["i", "j"])]),
      of([given("x", { i: 6, j: 4 }, Float64Array.from(arrangements.flat()))],
        ({ x }) => [T.max(x, "j"), T.max(x, "i"), T.max(x, ["i", "j"])]), // some of its sums are ∞ − ∞
      of([given("x", { i: tuples.length, j: 4 }, Float64Array.from(tuples.flat()))], ({ x }) => T.max(x, "j"))
    ]
  }
]

const matmul: Row = {
  name: "matmul",
  computations: [
    of([random("x", { b: 3, i: 5, k: 4 }), random("y", { b: 3, k: 4, j: 6 })], ({ x, y }) => {
      const z = T.contract(x, y, "k")
      const all = T.contract(x, y, ["k", "b"])
      return [z, T.contract(y, x, "k"), all, T.multiply(z, 0.25), T.contract(z, y, "j"), T.contract(z, x, "i")]
    }),
    of([random("x", { b: 3, i: 1, k: 4 }), random("y", { b: 3, k: 4, j: 6 })], ({ x, y }) => [
      T.multiply(T.contract(x, y, "k"), 0.25), T.multiply(T.contract(y, x, "k"), 0.25),
      T.multiply(T.contract(T.at(y, "j", 0), T.at(y, "j", 0), ["b", "k"]), -2)
    ]),
    of([random("x", { k: 0, i: 2 }), random("y", { k: 0, j: 3 })], ({ x, y }) => T.contract(x, y, "k")),
    of([random("x", { k: 2, i: 0 }), random("y", { k: 2, j: 3 })], ({ x, y }) => T.contract(x, y, "k")),
    of([random("x", { k: 1, i: 1 }), random("y", { k: 1 })], ({ x, y }) => T.contract(x, y, "k")),
    of([random("x", { i: 5, k: 3000 }), random("y", { k: 3000, j: 7 })],
      ({ x, y }) => T.multiply(T.contract(x, y, "k"), 1e-2))
  ],
  extremes: [of(
    [given("x", { i: 2, k: 2 }, Float64Array.of(1, NaN, 1, 2)), line("y", "k", [Infinity, 1])],
    ({ x, y }) => T.contract(x, y, "k")
  )]
}

const flat = (x: Untyped, axes: ReadonlyArray<string>): Untyped => T.merge(x, axes, "all")

const layout: ReadonlyArray<Row> = [
  { name: "transpose", build: (x: Untyped) => [flat(x, ["j", "i", "k"]), flat(x, ["k", "j", "i"])] },
  {
    name: "reshape",
    build: (x: Untyped) => [flat(x, ["i", "j", "k"]), T.split(x, "j", { a: 1, b: x.sizes["j"] ?? 0 })]
  },
  { name: "expand", build: (x: Untyped) => [T.spread(x, "m", 3), T.spread(x, "m", 1)] },
  {
    name: "slice",
    build: (x: Untyped) => ["i", "j", "k"].flatMap((axis) => {
      const size = x.sizes[axis] ?? 0
      return [T.slice(x, axis, 0, size >> 1), T.slice(x, axis, size >> 1, size), T.slice(x, axis, size, size)]
    })
  },
  {
    name: "pad",
    build: (x: Untyped) => ["i", "j", "k"].flatMap((axis) => [T.pad(x, axis, 2, 1), T.pad(x, axis, 0, 1)])
  },
  { name: "concat", build: (x: Untyped) => ["i", "j", "k"].map((axis) => T.concat(axis, [x, x, x])) }
].map(({ build, name }): Row => ({
  name,
  computations: [{ i: 2, j: 3, k: 4 }, { k: 1, i: 1, j: 1 }, { i: 0, j: 2, k: 1 }, { j: 40, i: 30, k: 20 }]
    .flatMap((sizes) => ofKinds(sizes, build)),
  extremes: [of([given("x", { i: 3, j: 3, k: 1 }, Float64Array.from(strange))], ({ x }) => build(x))]
}))

const gather: Row = {
  name: "gather",
  computations: [
    ...ofKinds({ i: 4, j: 3 }, (x) => [
      T.take(x, "i", T.ids({ k: 3 }, [3, 0, 3])), T.take(x, "j", T.ids({ k: 1 }, [2])), T.at(x, "i", 2),
      T.take(x, "i", T.ids({ j: 3 }, [3, 0, 1])), T.take(x, "j", T.ids({ i: 4, k: 2 }, [0, 1, 2, 0, 1, 2, 0, 1]))
    ]),
    ...ofKinds({ i: 3 }, (x) => T.take(x, "i", T.ids({ k: 0 }, []))),
    ...ofKinds({ i: 1 }, (x) => T.take(x, "i", T.ids({ k: 4 }, [0, 0, 0, 0]))),
    of([random("x", { i: 500, j: 64 }), ids("ids", { k: 300 }, 500)], ({ ids, x }) => T.take(x, "i", ids))
  ],
  extremes: [of([line("x", "i", strange), ids("ids", { k: 20 }, strange.length)], ({ ids, x }) => T.take(x, "i", ids))]
}

const scatter = (["set", "add"] as const).map((mode): Row => ({
  name: `scatter ${mode}`,
  computations: [
    of([random("x", { i: 4, j: 3 }), random("y", { k: 3, j: 3 })], ({ x, y }) =>
      T.put(x, "i", T.ids({ k: 3 }, mode === "add" ? [3, 0, 3] : [3, 0, 1]), y, mode)),
    of([random("x", { i: 4, j: 3 }), random("y", { j: 3 })], ({ x, y }) =>
      T.put(x, "i", T.ids({ j: 3 }, [3, 0, 3]), y, mode)),
    of([random("x", { i: 3 }), ids("ids", { k: 0 }, 3), random("y", { k: 0 })], ({ ids, x, y }) =>
      T.put(x, "i", ids, y, mode)),
    of([random("x", { i: 1 }), random("y", { k: 1 })], ({ x, y }) => T.put(x, "i", T.ids({ k: 1 }, [0]), y, mode)),
    ...mode === "set" ? [] : [of(
      [random("x", { i: 50, j: 64 }), ids("ids", { k: 300 }, 50), random("y", { k: 300, j: 64 })],
      ({ ids, x, y }) => [T.put(x, "i", ids, y, mode), T.put(T.fill({ i: 50, j: 64 }, 0), "i", ids, y, mode)]
    )]
  ],
  extremes: []
}))

const numbers = (length: number, f: (i: number) => number): Float64Array =>
  Float64Array.from({ length }, (_, i) => f(i))

const rest: ReadonlyArray<Row> = [
  {
    name: "topK",
    computations: [
      of([given("x", { i: 2, j: 40 }, numbers(80, (i) => i % 3))], ({ x }) => // of equal ones the first comes first
        [1, 5, 39, 40].flatMap((count) => Object.values(T.topK(x, "j", "rank", count)))),
      of([given("x", { j: 5000 }, numbers(5000, (i) => (i * 7919) % 1000))], ({ x }) =>
        [1, 50, 600].flatMap((count) => Object.values(T.topK(x, "j", "rank", count)))),
      of([random("x", { i: 3 })], ({ x }) => Object.values(T.topK(x, "i", "rank", 0))),
      of([random("x", { i: 1, j: 0 })], ({ x }) => Object.values(T.topK(x, "i", "rank", 1)))
    ],
    extremes: [of([line("x", "i", [-Infinity, 3, Infinity, -0.5])], ({ x }) =>
      Object.values(T.topK(x, "i", "rank", 4)))]
  },
  {
    name: "cumulativeSum",
    computations: [{ i: 2, j: 3, k: 4 }, { i: 1, j: 1, k: 1 }, { i: 0, j: 2, k: 1 }, { i: 3, j: 200, k: 2 }]
      .map((sizes) => of([random("x", sizes)], ({ x }) => ["i", "j", "k"].flatMap((axis) =>
        [T.cumulativeSum(x, axis), T.cumulativeSum(x, axis, { reverse: true })]))),
    extremes: [of([given("x", { i: 2, j: 2 }, Float64Array.of(Infinity, -Infinity, Infinity, 1))],
      ({ x }) => T.cumulativeSum(x, "j"))]
  },
  {
    name: "barrier",
    computations: [of([
      random("x", { i: 2 }), random("y", {}), random("z", { m: 0 }), ids("ids", { k: 2 }, 5), truths("seen", { l: 2 }),
      codes("others", { n: 2 })
    ], (leaves) => Object.values(leaves).flatMap((x) => Object.values(leaves).map((after) => barrier(x, after))))],
    extremes: [of([random("x", { i: 2 }), line("y", "j", [NaN, Infinity])], ({ x, y }) =>
      [barrier(x, y), barrier(y, x)])]
  },
  {
    name: "constant",
    computations: [of([], () => {
      const [whole, row] = [T.fill({ i: 2, j: 2 }, 0.5), T.values({ i: 3 }, [1, 2, 3])]
      const turned = T.merge(whole, ["i", "j"], "k")
      return [T.constant(3), T.constant(3), whole, row, turned, T.positions("i", 4), T.split(row, "i", { a: 3, b: 1 })]
    }), of([random("x", { i: 2, j: 3 })], ({ x }) => { // one value under many names
      const y = T.exp(x)
      return [y, y, flat(y, ["i", "j"]), x, x, flat(x, ["i", "j"]), T.split(y, "j", { a: 3, b: 1 })]
    })],
    extremes: [of([], () => [T.values({ i: 4 }, [NaN, Infinity, -Infinity, -0]), T.constant(-Infinity)])]
  }
]

/** All primitives. */
export const rows: ReadonlyArray<Row> = [
  ...unary, ...binary, ...compare, ...logic, choice, convert, ...reduce, matmul, ...layout, gather, ...scatter, ...rest
]
