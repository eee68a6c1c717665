/**
 * Rewriting changes no result, and each rule does what it is for.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { topological } from "../../src/tensor/Gradient.ts"
import type { Any, Sizes, Untyped } from "../../src/tensor/Node.ts"
import { count } from "../../src/tensor/Node.ts"
import { rewrite } from "../../src/tensor/Rewrite.ts"
import * as T from "../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../src/testing/Arbitrary.ts"
import { type Computation, evaluate, type Leaves, leavesOf } from "../../src/testing/Computation.ts"
import { requireEqual } from "../../src/testing/TensorLaw.ts"
import { elementsOf } from "../law/Meaning.ts"
import * as Tolerance from "../law/Tolerance.ts"

const { reals } = Arbitrary

const realsOf = (all: Readonly<Record<string, Sizes>>): Computation["given"] =>
  Object.entries(all).map(([name, sizes], i) => ({ name, sizes, kind: "real", elements: reals(i + 1, count(sizes)) }))

interface Rule {
  readonly name: string
  readonly leaves: Readonly<Record<string, Sizes>>
  readonly build: (leaves: Leaves) => Any
  /** What must be so of the rewritten graph. */
  readonly holds: (nodes: ReadonlyArray<Any>) => boolean
}

const contractions = (nodes: ReadonlyArray<Any>): ReadonlyArray<Any> => nodes.filter(
  ({ operation }) => operation._tag === "Contract"
)

const multiplications = (nodes: ReadonlyArray<Any>): ReadonlyArray<Any> =>
  nodes.filter(({ operation }) => operation._tag === "Binary" && operation.function === "multiply")

const none = (tag: string) => (nodes: ReadonlyArray<Any>): boolean => nodes.every(
  ({ operation }) => operation._tag !== tag
)

const logits = { row: 4, vocab: 50 }
const lowRank = {
  x: { row: 3, width: 16 }, w: { width: 16, out: 5 }, d: { width: 16, rank: 2 }, u: { rank: 2, out: 5 }
}

const rules: ReadonlyArray<Rule> = [
  {
    name: "Σ (b s) y = s Σ b y where the result is smaller than b",
    leaves: { b: logits, s: { row: 4 }, y: { vocab: 50, embed: 2 } },
    build: ({ b, s, y }) => T.contract(T.multiply(b!, s!), y!, "vocab"),
    holds: (nodes) => multiplications(nodes).every(({ sizes }) => !("vocab" in sizes))
  },
  {
    name: "Σ (b s) y = Σ b (y s) where y is smaller than b",
    leaves: { b: logits, s: { row: 4 }, y: { row: 4, embed: 3 } },
    build: ({ b, s, y }) => T.contract(T.multiply(b!, s!), y!, "row"),
    holds: (nodes) => multiplications(nodes).every(({ sizes }) => !("vocab" in sizes))
  },
  {
    name: "a number leaves the product",
    leaves: { b: logits, y: { vocab: 50 } },
    build: ({ b, y }) => T.contract(T.multiply(T.multiply(b!, 2), 0.25), y!, "vocab"),
    holds: (nodes) => multiplications(nodes).length === 1 && multiplications(nodes).every(
      ({ sizes }) => !("vocab" in sizes)
    )
  },
  {
    name: "a scale stays where the result is larger than what it scales",
    leaves: { b: { row: 4, vocab: 2 }, s: { row: 4 }, y: { vocab: 2, embed: 50 } },
    build: ({ b, s, y }) => T.contract(T.multiply(b!, s!), y!, "vocab"),
    holds: (nodes) => multiplications(nodes).every(({ sizes }) => !("embed" in sizes))
  },
  {
    name: "a scale as large as what it scales stays",
    leaves: { b: logits, s: logits, y: { vocab: 50 } },
    build: ({ b, s, y }) => T.contract(T.multiply(b!, s!), y!, "vocab"),
    holds: (nodes) => multiplications(nodes).length === 1
  },
  {
    name: "a spread axis that is summed is summed before",
    leaves: { b: { row: 4 }, y: { row: 4, vocab: 50, embed: 2 } },
    build: ({ b, y }) => T.contract(T.spread(b!, "vocab", 50), y!, ["row", "vocab"]),
    holds: none("Spread")
  },
  {
    name: "the only summed axis may be a spread one",
    leaves: { b: { row: 4 }, y: { vocab: 50 } },
    build: ({ b, y }) => T.contract(T.spread(b!, "vocab", 50), y!, "vocab"),
    holds: (nodes) => contractions(nodes).length === 0
  },
  {
    name: "a spread axis that is kept is spread after",
    leaves: { b: { row: 4 }, y: { row: 4 } },
    build: ({ b, y }) => T.contract(T.spread(b!, "vocab", 50), y!, "row"),
    holds: (nodes) => contractions(nodes).every(({ sizes }) => !("vocab" in sizes))
  },
  {
    name: "a spread that an operand makes anyway is dropped",
    leaves: { b: { row: 4 }, y: logits },
    build: ({ b, y }) => T.select(T.less(T.spread(b!, "vocab", 50), y!), T.add(T.spread(b!, "vocab", 50), y!), 0),
    holds: none("Spread")
  },
  {
    name: "one of two equal spreads stays",
    leaves: { b: { row: 4 }, y: { row: 4 } },
    build: ({ b, y }) => T.add(T.spread(b!, "vocab", 3), T.spread(y!, "vocab", 3)),
    holds: (nodes) => nodes.filter(({ operation }) => operation._tag === "Spread").length === 1
  },
  {
    name: "d + put(0, v) = put(d, v)",
    leaves: { d: logits, v: { row: 4, k: 2 } },
    build: ({ d, v }) => T.add(T.put(T.fill(logits, 0), "vocab", T.ids({ k: 2 }, [7, 7]), v!, "add"), d!),
    holds: (nodes) => nodes.every(({ operation }) => operation._tag !== "Binary")
  },
  {
    name: "put(0, v) keeps to itself where d has more axes",
    leaves: { d: { row: 4, vocab: 50, embed: 2 }, v: { row: 4, k: 2 } },
    build: ({ d, v }) => T.add(T.put(T.fill(logits, 0), "vocab", T.ids({ k: 2 }, [7, 7]), v!, "add"), d!),
    holds: (nodes) => nodes.some(({ operation }) => operation._tag === "Binary")
  },
  {
    name: "put(0, v) keeps to itself where d lacks its axes",
    leaves: { d: { row: 4 }, v: { row: 4, k: 2 } },
    build: ({ d, v }) => T.add(T.put(T.fill(logits, 0), "vocab", T.ids({ k: 2 }, [7, 7]), v!, "add"), d!),
    holds: (nodes) => nodes.some(({ operation }) => operation._tag === "Binary")
  },
  ...[["d", "u"], ["u", "d"]].map(([near, far]): Rule => ({
    name: `a low-rank correction is never multiplied out (${near} ${far})`,
    leaves: lowRank,
    build: (leaves) => T.contract(
      leaves["x"]!, T.add(leaves["w"]!, T.contract(leaves[near!]!, leaves[far!]!, "rank")), "width"
    ),
    holds: (nodes) => contractions(nodes).length === 3 && contractions(nodes).every(({ sizes }) => "row" in sizes)
  })),
  {
    name: "a correction of high rank is multiplied out",
    leaves: { ...lowRank, d: { width: 16, rank: 8 }, u: { rank: 8, out: 5 } },
    build: ({ d, u, w, x }) => T.contract(x!, T.add(w!, T.contract(d!, u!, "rank")), "width"),
    holds: (nodes) => contractions(nodes).length === 2
  },
  {
    name: "a composite without a kernel is expanded, those inside it too",
    leaves: { x: logits },
    build: ({ x }) => T.recompute({ x: x! }, ({ x }) => T.softmax("vocab")(T.silu(x))),
    holds: (nodes) => none("Composite")(nodes) && none("Output")(nodes)
  },
  {
    name: "labels are gone",
    leaves: { x: logits },
    build: ({ x }) => T.label("b")(T.exp(T.label("a")(x!))),
    holds: none("Label")
  }
]

describe("every rule", () => {
  it.each(rules)("$name", ({ build, holds, leaves }) => {
    const given = realsOf(leaves)
    const computation: Computation = { given, build: (tensors) => [build(tensors)] }
    assert.isTrue(holds(topological(rewrite([build(leavesOf(given))], () => false))))
    requireEqual("rewritten = as written", elementsOf(computation), evaluate(computation), Tolerance.reordered)
  })
})

describe("rewriting", () => {
  const sum = (nodes: ReadonlyArray<Untyped>): Untyped => nodes.reduce((x: Untyped, y): Untyped => T.add(x, y))
  const factor: fc.Arbitrary<(leaves: Leaves) => Untyped> = fc.letrec<{ tree: (leaves: Leaves) => Untyped }>((tie) => ({
    tree: fc.oneof({ maxDepth: 4, withCrossShrink: true },
      fc.constantFrom("x", "w", "y", "s").map((name) => (leaves: Leaves): Untyped => leaves[name]!),
      tie("tree").chain((x) => fc.constantFrom("s", "y").map((name) => (leaves: Leaves): Untyped =>
        T.multiply(x(leaves), leaves[name]!))),
      fc.tuple(tie("tree"), tie("tree")).map(([x, y]) => (leaves: Leaves): Untyped => T.add(x(leaves), y(leaves))),
      fc.tuple(tie("tree"), tie("tree")).map(([x, y]) => (leaves: Leaves): Untyped => {
        const [left, right] = [x(leaves), y(leaves)]
        const common = Object.keys(left.sizes).filter((axis) => axis in right.sizes)
        return T.contract(left, right, common)
      }),
      tie("tree").map((x) => (leaves: Leaves): Untyped => {
        const inner = x(leaves)
        return "k" in inner.sizes ? T.multiply(inner, -0.5) : T.spread(inner, "k", leaves["w"]!.sizes["k"]!)
      }),
      tie("tree").map((x) => (leaves: Leaves): Untyped => {
        const inner = x(leaves)
        if (!("j" in inner.sizes)) return inner
        const ids = T.idConstant(0)
        return sum([inner, T.put(T.fill(inner.sizes, 0), "j", ids, T.take(inner, "j", ids), "add")])
      })
    )
  })).tree
  it("changes no result, of sums and products in any order", () =>
    fc.assert(fc.property(Arbitrary.sizes(["i", "j", "k"]), factor, ({ i, j, k }, build) => {
      const given = realsOf({ x: { i, j }, w: { j, k }, y: { i, k }, s: { j } })
      const computation: Computation = { given, build: (leaves) => [build(leaves)] }
      requireEqual("rewritten = as written", elementsOf(computation), evaluate(computation), Tolerance.reordered)
    }), { numRuns: 150 }))
  it("keeps places, so that a backend can name them", () => {
    const x = T.fill({ i: 2, j: 3 }, 1)
    const product = T.within("block.3", () => T.contract(T.multiply(x, 2), x, "i"))
    const [rewritten] = rewrite([product], () => false)
    assert.deepStrictEqual(
      topological([rewritten!]).filter(({ operation }) => operation._tag === "Contract").map(({ place }) => place),
      ["block.3"]
    )
  })
})
