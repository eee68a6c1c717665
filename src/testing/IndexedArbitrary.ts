/**
 * Tables, ids and rows for `take` and `put`, whose axes lie in any order, shared or not, before or behind the chosen
 * axis.
 *
 * From     Cria's own.
 * Checked  test/law/BackendLaws.test.ts, test/backend/Backend.test.ts.
 *
 * @module
 */
import * as fc from "fast-check"
import { count, type Sizes, type Untyped } from "../tensor/Node.ts"
import * as T from "../tensor/Tensor.ts"
import * as Arbitrary from "./Arbitrary.ts"
import type { Computation, Given } from "./Computation.ts"

const axes = { a: 2, b: 3, c: 1, d: 8 } as const // rows of 8 elements and more may be written as rows

const random = (name: string, sizes: Sizes, seed: number): Given =>
  ({ name, kind: "real", sizes, elements: Arbitrary.reals(`${name} ${seed}`, count(sizes)) })

/** A table from which ids take, to which they add, and in which they replace. */
export const indexed: fc.Arbitrary<Computation> = fc.record({
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
    ({ name, kind: "id", sizes, elements: Arbitrary.idsBelow(seed, count(sizes), axes[axis]) })
  const orders = fc.tuple(Arbitrary.reordered({ ...common, ...own }), Arbitrary.reordered({ ...rest, ...own }))
  return orders.map(([idSizes, sizes]): Computation => ({
    given: [random("table", table, seed), random("rows", sizes, seed), chosen("ids", idSizes), chosen("once", common)],
    build: ({ ids, once, rows, table }) => {
      if (ids === undefined || once === undefined || rows === undefined || table === undefined) return []
      const row = Object.keys(own).reduce((sum, name): Untyped => T.sum(sum, name), rows)
      return [
        T.take(table, axis, ids), T.put(table, axis, ids, rows, "add"),
        T.put(table, axis, once, row, "set") // one id for a row: which of several is set last is not defined
      ]
    }
  }))
})
