/**
 * What is replaced where it lies and what is copied; and whatever is decided, cells end as on the reference.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Backend } from "../../../src/backend/Backend.ts"
import * as Reference from "../../../src/backend/Reference.ts"
import { placement } from "../../../src/backend/onnx/Placement.ts"
import { tokenCrossEntropy } from "../../../src/loss/CrossEntropy.ts"
import { gradient } from "../../../src/tensor/Gradient.ts"
import type { Untyped } from "../../../src/tensor/Node.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { forAll } from "../../../src/testing/BackendLaw.ts"
import { requireEqual } from "../../../src/testing/TensorLaw.ts"
import * as Tolerance from "../../law/Tolerance.ts"
import { backends } from "./layers.ts"
import { type Named, product, programOf, runs, turned, type Update, updates } from "./updates.ts"

type Cells = Readonly<Record<"a" | "b" | "c", Untyped>>

const update = (
  size: number, build: (cells: Cells, rate: Untyped) => Named | readonly [state: Named, outputs: Named]
): Update => ({
  size,
  build: (rate, cells) => {
    const built = build(cells as Cells, rate)
    return Array.isArray(built) ? { state: built[0], outputs: built[1] } : { state: built as Named, outputs: {} }
  }
})

const row = T.ids({ p: 1 }, [0])

const rowOf = (x: Untyped): Untyped => T.rename(T.slice(x, "i", 0, 1), "i", "p")

const gradientOf = <P>(loss: Untyped, parameters: P): P => gradient(loss as never, parameters as never)

const chain = (x: Untyped): Untyped => x.pipe(T.tanh, T.negate, T.sin, T.sigmoid)

/** Each with the cells that are copied; all others that it replaces are replaced where they lie. */
const decisions: Readonly<Record<string, readonly [copied: ReadonlyArray<string>, Update]>> = {
  "an elementwise update": [[], update(3, ({ a, b }, rate) => ({ a: T.subtract(a, T.multiply(b, rate)) }))],
  "moments and the parameters that they change": [[], update(3, ({ a, b, c }) => {
    const [first, second] = [T.add(T.multiply(b, 0.9), c), T.add(T.multiply(c, 0.9), 0.1)]
    return { a: T.subtract(a, T.divide(first, T.add(T.square(second), 1))), b: first }
  })],
  "a value that another product reads": [["a"], update(3, ({ a, b }) =>
    [{ a: T.subtract(a, product(b, b)) }, { y: product(a, b) }])],
  "a value whose readers all come before, far enough": [[], update(3, ({ a, b }) =>
    ({ a: T.subtract(a, chain(product(a, b))) }))],
  "a value whose readers all come before, but so near that they might be fused": [["a"], update(3, ({ a, b }) =>
    ({ a: T.subtract(a, product(a, b)) }))],
  "a row put into it": [[], update(3, ({ a, b }) => ({ a: T.put(a, "i", row, rowOf(b), "set") }))],
  "a row of its own put into it": [["a"], update(3, ({ a }) =>
    ({ a: T.put(a, "i", row, rowOf(a), "add") }))],
  "a row put into it while another reads it": [["a"], update(3, ({ a, b }) =>
    [{ a: T.put(a, "i", row, rowOf(b), "set") }, { y: T.sum(a, "i") }])],
  "a row put into zeros": [[], update(3, ({ a, b }) =>
    ({ a: T.put(T.fill(a.sizes, 0), "i", row, rowOf(b), "add"), b: T.multiply(b, 2) }))],
  "a row put into zeros that something else reads": [[], update(3, ({ a, b }) => {
    const zeros: Untyped = T.fill(a.sizes, 0)
    return [{ a: T.put(zeros, "i", row, rowOf(b), "add") }, { y: T.cumulativeSum(zeros, "i") }]
  })],
  "a row put into zeros, from its old value": [["a"], update(3, ({ a }) =>
    ({ a: T.put(T.fill(a.sizes, 0), "i", row, rowOf(a), "set") }))],
  "a product added to it": [[], update(3, ({ a, b, c }) => ({ a: T.add(a, product(b, c)) }))],
  "its transpose": [["a"], update(3, ({ a }) => ({ a: turned(a) }))],
  "what remains of it above its largest": [["a"], update(3, ({ a }) => ({ a: T.subtract(a, T.max(a, "i")) }))],
  "two that change places": [["a", "b"], update(3, ({ a, b }) => ({ a: b, b: a }))],
  "another's value": [[], update(3, ({ b }) => ({ a: b }))],
  "its own value": [[], update(3, ({ a }) => ({ a }))],
  "one value for two": [[], update(3, ({ a }) => ({ a: T.exp(a), b: T.exp(a) }))],
  "a new value that is an output too": [[], update(3, ({ a, b }) =>
    [{ a: T.add(a, b) }, { y: T.add(a, b), z: T.exp(T.add(a, b)) }])],
  "an old value that is an output too": [["a"], update(3, ({ a, b }) => [{ a: T.add(a, product(b, b)) }, { y: a }])],
  "parameters that the rare branch of a cross-entropy reads once more": [["a"], update(3, ({ a, b }, rate) => {
    const logits = T.rename(T.multiply(product(b, a), 200), "j", "vocab")
    const loss: Untyped = T.sum(tokenCrossEntropy(logits, T.ids({ i: 3 }, [0, 1, 2])), "i")
    return [{ a: T.subtract(a, T.multiply(gradientOf(loss, { a }).a, rate)) }, { y: loss }]
  })],
  "an elementwise update, with the old value as an output": [[], update(3, ({ a, b }) =>
    [{ a: T.add(a, b) }, { y: a }])]
}

/** What the engine makes wrong where it fuses an operator with a reader of the cell that it writes. */
const hazards: Readonly<Record<string, Update>> = {
  "x σ(1.702 x) is one operator, which destroys x before it has done": update(70, ({ a }) =>
    ({ a: T.multiply(a, T.sigmoid(T.multiply(a, 1.702))) })),
  "a factor becomes part of a product": update(70, ({ a, b }) => ({ a: product(T.multiply(a, 2), b) })),
  "a sum becomes part of a product": update(70, ({ a, b }) => ({ a: T.add(product(b, a), a) })),
  "a parameter that another gradient still reads": update(40, ({ a, b, c }, rate) => {
    const hidden = T.tanh(product(c, a))
    const found = gradientOf(T.sum(T.square(product(hidden, b)), ["i", "j"]), { a, b })
    return { a: T.subtract(a, T.multiply(found.a, rate)), b: T.subtract(b, T.multiply(found.b, rate)) }
  })
}

describe("names that operators leave out", () => {
  it("join nothing: what reads the old value may come after the new one", () => {
    const node = (op: string, inputs: ReadonlyArray<string>, outputs: ReadonlyArray<string>) =>
      ({ op, inputs, outputs })
    const port = { name: "w", value: 0, sizes: {} }
    const graph = (blank: string) => ({
      nodes: [
        node("Softmax", ["cell:w"], ["s"]),
        node("SkipSimplifiedLayerNormalization", ["s", "s", "gain"], ["output:y", blank, blank, "t"]),
        node("GroupQueryAttention", ["x", blank, blank, "k", "v", "starts", "total"], ["mixed", "k2", "v2"]),
        ...[0, 1, 2, 3].map((i) => node("MatMul", [i === 0 ? "mixed" : `p${i}`, "x"], [`p${i + 1}`])),
        node("Add", ["p4", "x"], ["write:w"])
      ],
      inputs: [], outputs: [], initializers: []
    })
    assert.deepStrictEqual(placement(graph(""), [port]).copied, ["w"])
    assert.deepStrictEqual(placement(graph("joined"), [port]).inPlace, ["w"])
  })
})

for (const [name, backend] of backends) {
  layer(backend)(`over ${name}`, (it) => {
    const endsAsOnTheReference = (update: Update, precision: "f32" | "f64") => Effect.gen(function*() {
      const expected = yield* runs(update, "f64").pipe(Effect.provide(Reference.layer))
      const tolerance = precision === "f64" ? Tolerance.reordered : Tolerance.composed
      requireEqual("cells end as on the reference", expected, yield* runs(update, precision), tolerance)
    })
    it.effect.each(Object.keys(decisions))("%s", (name) => Effect.gen(function*() {
      const [copied, update] = decisions[name]!
      const program = yield* programOf(update)
      const { placement } = yield* (yield* Backend).compile(program)
      assert.deepStrictEqual(placement.copied.toSorted(), copied)
      assert.sameMembers([...placement.copied, ...placement.inPlace], program.writes.map(([path]) => path))
      yield* endsAsOnTheReference(update, "f32")
      yield* endsAsOnTheReference(update, "f64")
    }))
    it.effect.each(Object.keys(hazards))("%s", (name) => endsAsOnTheReference(hazards[name]!, "f32"))
    for (const precision of ["f32", "f64"] as const) {
      for (const onlyElementwise of [true, false]) {
        it.effect(`random ${onlyElementwise ? "elementwise " : ""}updates in ${precision}`, () =>
          forAll(updates({ onlyElementwise }), (update) => endsAsOnTheReference(update, precision), { numRuns: 100 }))
      }
    }
  })
}
