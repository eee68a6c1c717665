/**
 * Every primitive on ONNX Runtime, in both widths and over both ways into the engine, against the float64 reference:
 * random shapes with sizes 0 and 1, all ways in which gather and scatter can lie, big arrays, numbers that are none.
 */
import { describe, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { Backend } from "../../../src/backend/Backend.ts"
import { barrier } from "../../../src/tensor/Composite.ts"
import { type Any, count, type Elements, type Kind, type Sizes, type Untyped } from "../../../src/tensor/Node.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../../src/testing/Arbitrary.ts"
import { agreesWithReference, forAll } from "../../../src/testing/BackendLaw.ts"
import type { Computation, Given } from "../../../src/testing/Computation.ts"
import { allOperations, programs } from "../../../src/testing/ProgramArbitrary.ts"
import * as Tolerance from "../../law/Tolerance.ts"
import { backends } from "./layers.ts"

const given = (name: string, sizes: Sizes, elements: Elements): Given => {
  const kind: Kind = elements instanceof Float64Array ? "real" : elements instanceof Int32Array ? "id" : "truth"
  return { name, kind, sizes, elements }
}

const random = (name: string, sizes: Sizes, seed = 1): Given => given(name, sizes, Arbitrary.reals(seed, count(sizes)))

const ids = (name: string, sizes: Sizes, below: number): Given =>
  given(name, sizes, Arbitrary.idsBelow(2, count(sizes), below))

const reals = (name: string, axis: string, elements: Iterable<number>): Given => {
  const array = Float64Array.from(elements)
  return given(name, { [axis]: array.length }, array)
}

const truths = (name: string, axis: string, ...elements: ReadonlyArray<number>): Given =>
  given(name, { [axis]: elements.length }, Uint8Array.from(elements))

type Leaf = "x" | "y" | "z" | "ids" | "others" | "once" | "table" | "rows" | "seen" | "a" | "b"

const of = (
  leaves: ReadonlyArray<Given>, build: (leaves: Readonly<Record<Leaf, Untyped>>) => Any | ReadonlyArray<Any>
): Computation => ({ given: leaves, build: (tensors) => [build(tensors as Readonly<Record<Leaf, Untyped>>)].flat() })

const { abs, exp, floor, log, negate, reciprocal, rsqrt, sigmoid, sign, sqrt, square, tanh } = T
const functions = [abs, exp, floor, log, negate, reciprocal, rsqrt, sigmoid, sign, sqrt, square, tanh]

const strange = [NaN, Infinity, -Infinity, 0, -0, 1, -1.5, 1e-30, 80]
const pairs = [reals("x", "i", strange), reals("y", "j", strange)]

const numbers = (length: number, f: (i: number) => number): Float64Array =>
  Float64Array.from({ length }, (_, i) => f(i))

const cases: Readonly<Record<string, Computation>> = {
  "functions of numbers that are none": of(pairs, ({ x }) => functions.map((f) => f(x))),
  "sin and cos of numbers that are none": of(
    [reals("x", "i", [NaN, Infinity, 0, -0, 3])], ({ x }) => [T.sin(x), T.cos(x)]
  ),
  "arithmetic with numbers that are none": of(pairs, ({ x, y }) =>
    [T.add, T.subtract, T.multiply, T.divide, T.maximum, T.minimum].map((f) => f(x, y))),
  "comparisons with numbers that are none": of(pairs, ({ x, y }) => [T.equal(x, y), T.less(x, y), T.lessEqual(x, y)]),
  "powers at the borders": of(
    [reals("x", "i", [0, 1, 2, 0.5, Infinity]), reals("y", "j", [0, 1, -1, 0.5, 3])], ({ x, y }) => T.power(x, y)
  ),
  "choice leaves no trace of what it leaves": of(
    [reals("x", "i", [NaN, 1, Infinity]), truths("seen", "i", 0, 1, 0)],
    ({ seen, x }) => [T.select(seen, x, 2), T.select(seen, 3, x)]
  ),
  "the largest, infinities included": of(
    [given("x", { i: 2, j: 3 }, Float64Array.of(-Infinity, -Infinity, -Infinity, 1, Infinity, 2))],
    ({ x }) => T.max(x, "j")
  ),
  "the largest where one is no number": of(
    [given("x", { i: 4, j: 40 }, numbers(160, (i) => i % 41 === 0 ? NaN : i % 7 === 0 ? -Infinity : i))],
    ({ x }) => [T.max(x, "j"), T.max(x, "i"), T.max(x, ["i", "j"])]
  ),
  "sums with infinities": of(
    [given("x", { i: 2, j: 2 }, Float64Array.of(Infinity, -Infinity, Infinity, 1))],
    ({ x }) => [T.sum(x, "j"), T.cumulativeSum(x, "j")]
  ),
  "a sum over no element": of([random("x", { i: 0, j: 2 })], ({ x }) => [T.sum(x, "i"), T.sum(x, ["i", "j"])]),
  "a product over no element": of(
    [random("x", { i: 0, j: 2 }), random("y", { i: 0, k: 3 })], ({ x, y }) => T.contract(x, y, "i")
  ),
  "a join with nothing": of(
    [random("x", { i: 0, j: 2 }), random("y", { i: 2, j: 2 })],
    ({ x, y }) => [T.concat("i", [x, y]), T.concat("i", [x, y, x, y])]
  ),
  "nothing padded": of(
    [random("x", { i: 0, j: 2 }), truths("seen", "i")], ({ seen, x }) => [T.pad(x, "i", 1, 2), T.pad(seen, "i", 1, 0)]
  ),
  "nothing put somewhere": of(
    [random("x", { i: 3 }), ids("ids", { k: 0 }, 3), random("y", { k: 0 })],
    ({ ids, x, y }) => [T.put(x, "i", ids, y, "add"), T.put(x, "i", ids, y, "set"), T.take(x, "i", ids)]
  ),
  "nothing, from leaf to result": of([random("x", { i: 0, j: 2 })], ({ x }) =>
    [x, T.exp(x), T.merge(x, ["j", "i"], "k"), T.topK(T.spread(x, "k", 2), "k", "rank", 0).ids]),
  "the none largest": of([random("x", { i: 3 })], ({ x }) => Object.values(T.topK(x, "i", "rank", 0))),
  "of equal ones the first comes first": of(
    [given("x", { i: 2, j: 40 }, numbers(80, (i) => i % 3))],
    ({ x }) => [1, 5, 39, 40].flatMap((count) => Object.values(T.topK(x, "j", "rank", count)))
  ),
  "the largest of many": of([reals("x", "j", numbers(5000, (i) => (i * 7919) % 1000))], ({ x }) =>
    [1, 50, 600].flatMap((count) => Object.values(T.topK(x, "j", "rank", count)))),
  "means of many": of([random("x", { i: 300, j: 1000 })], ({ x }) =>
    [T.mean(x, "i"), T.mean(x, "j"), T.mean(x, ["i", "j"]), T.max(x, "i"), T.max(x, ["i", "j"])]),
  "sums of many squares": of(
    [random("x", { i: 100, j: 1000 }), random("y", { i: 3 }), random("z", { k: 70_001 })],
    ({ x, y, z }) => [x, y, z].map((leaf) => T.sum(T.square(leaf), Object.keys(leaf.sizes)))
  ),
  "a square that is also wanted itself": of([random("x", { i: 4 })], ({ x }) => [T.sum(T.square(x), "i"), T.square(x)]),
  "a scaled product with a vector": of(
    [random("x", { b: 3, i: 1, k: 4 }), random("y", { b: 3, k: 4, j: 6 }, 2)],
    ({ x, y }) => [
      T.multiply(T.contract(x, y, "k"), 0.25), T.multiply(T.contract(y, x, "k"), 0.25),
      T.multiply(T.contract(T.at(y, "j", 0), T.at(y, "j", 0), ["b", "k"]), -2)
    ]
  ),
  "products of every orientation": of(
    [random("x", { b: 3, i: 5, k: 4 }), random("y", { b: 3, k: 4, j: 6 }, 2)],
    ({ x, y }) => {
      const z = T.contract(x, y, "k")
      const [turned, all] = [T.contract(y, x, "k"), T.contract(x, y, ["k", "b"])]
      return [z, turned, all, T.multiply(z, 0.25), T.contract(z, y, "j"), T.contract(z, x, "i")]
    }
  ),
  "ids": of([ids("ids", { i: 4 }, 9), ids("others", { j: 3 }, 9)], ({ ids, others }) => [
    T.addIds(ids, others), T.subtractIds(ids, others), T.real(ids),
    T.equal(ids, others), T.less(ids, others), T.lessEqual(ids, others), T.slice(ids, "i", 1, 3),
    T.pad(ids, "i", 1, 1), T.concat("i", [ids, ids]), T.spread(ids, "k", 2),
    T.merge(T.addIds(ids, others), ["j", "i"], "k"), T.take(ids, "i", T.ids({ k: 2 }, [3, 0])), T.at(ids, "i", 2)
  ]),
  "truths": of([truths("a", "i", 0, 1, 0, 1), truths("b", "j", 0, 1)], ({ a, b }) => [
    T.and(a, b), T.or(a, b), T.not(a), T.real(a),
    T.slice(a, "i", 1, 3), T.pad(a, "i", 2, 1), T.concat("i", [a, T.not(a)]), T.spread(a, "k", 3),
    T.merge(T.and(a, b), ["j", "i"], "k"), T.take(a, "i", T.ids({ k: 2 }, [3, 0])), T.at(b, "j", 1)
  ]),
  "real numbers become ids towards zero": of([reals("x", "i", [-1.9, 1.9, 0.5, 2e9, -0.5])], ({ x }) => T.toIds(x)),
  "barriers of every kind behind every kind": of([
    reals("x", "i", [1, 2]), random("y", {}), reals("z", "j", [NaN, Infinity]), random("a", { m: 0 }),
    ids("ids", { k: 2 }, 5), truths("seen", "l", 0, 1)
  ], (leaves) => Object.values(leaves).flatMap((x) => Object.values(leaves).map((after) => barrier(x, after)))),
  "one value under many names": of([random("x", { i: 2, j: 3 })], ({ x }) => {
    const y = T.exp(x)
    const flat = (value: Untyped, into: string) => T.merge(value, ["i", "j"], into)
    return [y, y, flat(y, "k"), flat(y, "l"), x, x, flat(x, "k"), T.split(y, "j", { a: 3, b: 1 })]
  }),
  "constants as results": of([], () => {
    const [whole, row] = [T.fill({ i: 2, j: 2 }, 0.5), T.values({ i: 3 }, [1, 2, 3])]
    const turned = T.merge(whole, ["i", "j"], "k")
    return [T.constant(3), T.constant(3), whole, row, turned, T.positions("i", 4), T.split(row, "i", { a: 3, b: 1 })]
  })
}

const axes = { a: 2, b: 3, c: 1, d: 8 } as const // rows of 8 elements and more are written as rows

/** Tables, ids and rows whose axes lie in any order, shared or not, before or behind the chosen axis. */
const indexed: fc.Arbitrary<Computation> = fc.record({
  table: Arbitrary.part(axes).filter((sizes) => "a" in sizes || "b" in sizes),
  shared: fc.shuffledSubarray(["b", "c", "d"] as const),
  own: Arbitrary.part({ p: 2, q: 2, r: 1 }),
  seed: fc.nat({ max: 99 })
}).chain(({ own, seed, shared, table }) => {
  const axis = "a" in table ? "a" : "b"
  const together = shared.filter((name) => name !== axis && name in table)
  const common = Object.fromEntries(together.map((name) => [name, axes[name]]))
  const rest = Object.fromEntries(Object.entries(table).filter(([name]) => name !== axis))
  const chosen = (name: string, sizes: Sizes): Given =>
    given(name, sizes, Arbitrary.idsBelow(seed, count(sizes), axes[axis]))
  const orders = fc.tuple(Arbitrary.reordered({ ...common, ...own }), Arbitrary.reordered({ ...rest, ...own }))
  return orders.map(([idSizes, sizes]) => of(
    [random("table", table, seed), random("rows", sizes, seed + 1), chosen("ids", idSizes), chosen("once", common)],
    ({ ids, once, rows, table }) => {
      const row = Object.keys(own).reduce((sum, name): Untyped => T.sum(sum, name), rows)
      return [
        T.take(table, axis, ids), T.put(table, axis, ids, rows, "add"),
        T.put(table, axis, once, row, "set") // one id for a row: which of several is set last is not defined
      ]
    }
  ))
})

for (const [name, backend] of backends) {
  for (const [precision, tolerance] of [["f32", Tolerance.single], ["f64", Tolerance.reordered]] as const) {
    describe(`over ${name}, ${precision}`, () => {
      layer(backend)((it) => {
        const agrees = (computation: Computation, closeness: number = tolerance) =>
          Effect.flatMap(Backend, (backend) =>
            agreesWithReference(backend, computation, { precision, tolerance: closeness }))
        it.effect.each([...allOperations])("%s", (operation) =>
          forAll(programs({ operations: [operation], zero: true }), (program) =>
            agrees(program, precision === "f32" ? Tolerance.composed : tolerance), { numRuns: 8 }))
        it.effect.each(Object.keys(cases))("%s", (name) => agrees(cases[name]!))
        it.effect("gather and scatter, however they lie", () =>
          forAll(indexed, (drawn) => agrees(drawn), { numRuns: 60 }))
      })
    })
  }
}
