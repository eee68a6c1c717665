/**
 * Joined matrices give what each product gives alone, up to rounding, and are joined where they can be.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { Backend } from "../../../src/backend/Backend.ts"
import * as Reference from "../../../src/backend/Reference.ts"
import { emit } from "../../../src/backend/onnx/Emit.ts"
import { joinProducts } from "../../../src/backend/onnx/JoinedProducts.ts"
import { hasKernel } from "../../../src/backend/onnx/Kernel.ts"
import { attendKept } from "../../../src/llama/KeyValueCache.ts"
import { rotate } from "../../../src/llama/Rope.ts"
import { count, type Sizes, type Untyped } from "../../../src/tensor/Node.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../../src/testing/Arbitrary.ts"
import { forAll } from "../../../src/testing/BackendLaw.ts"
import { requireEqual } from "../../../src/testing/TensorLaw.ts"
import * as Tolerance from "../../law/Tolerance.ts"
import { backends } from "./layers.ts"

interface Case {
  readonly batch: number
  readonly embed: number
  readonly heads: ReadonlyArray<number>
}

/** Products of x with matrices of so many heads of two parts, every second added to, and of its square with one. */
const program = ({ batch, embed, heads }: Case) => {
  const weight = (head: number) => Specification.real({ embed, head, part: 2 })
  return Program.make("products", {
    inputs: { x: Specification.real({ batch, embed }) }, state: { weights: heads.map(weight), other: weight(1) }
  }, ({ x }, { other, weights }) => ({
    outputs: {
      all: weights.map((w, i) => i % 2 === 0 ? T.contract(x, w, "embed") : T.add(T.contract(x, w, "embed"), 1)),
      other: T.contract(T.square(x), other, "embed")
    }
  }))
}

const pathsOf = ({ heads }: Case): ReadonlyArray<string> => ["other", ...heads.map((_, i) => `weights.${i}`)]

const cases = fc.record({
  batch: fc.integer({ min: 1, max: 3 }), embed: fc.integer({ min: 1, max: 5 }),
  heads: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 4 }),
  precision: fc.constantFrom<"f32" | "f64">("f32", "f64"), seed: fc.integer({ min: 1, max: 1e6 })
})

describe("products with matrices", () => {
  const operators = Effect.fnUntraced(function*(options: Partial<Case>, frozen: (path: string) => boolean) {
    const wanted = { batch: 2, embed: 4, heads: [3, 1, 2], ...options }
    const lowered = Program.lower(yield* program(wanted), { hasKernel, watch: [] })
    const constants = new Map(lowered.cells.flatMap(({ name, sizes }) => frozen(name)
      ? [[name, new Uint8Array(Object.values(sizes).reduce((count, size) => count * size, 4))] as const] : []))
    const joined = joinProducts(lowered, constants)
    const { graph } = emit(joined.lowered, "f32", joined.constants)
    const known = new Set([...graph.nodes, ...graph.inputs, ...graph.outputs].flatMap((each) =>
      "op" in each ? each.inputs : [each.name]))
    for (const { name } of graph.initializers) assert.isTrue(known.has(name), `${name} is read`)
    return graph.nodes.map(({ op }) => op).filter((op) => op === "MatMul" || op === "Split" || op === "Gemm")
  })
  it.effect("of one operand are one where the matrices are frozen", () => Effect.gen(function*() {
    assert.deepStrictEqual(yield* operators({}, () => true), ["MatMul", "Split", "MatMul"])
    assert.deepStrictEqual(yield* operators({ batch: 32 }, () => true), ["MatMul", "Split", "MatMul"])
  }))
  it.effect("stay apart where they are not, or one of them is not, or rows are many, or there is one only", () =>
    Effect.gen(function*() {
      const apart = Array.from({ length: 4 }, () => "MatMul")
      assert.deepStrictEqual(yield* operators({}, () => false), apart)
      assert.deepStrictEqual(yield* operators({ batch: 33 }, () => true), apart)
      assert.deepStrictEqual(yield* operators({ heads: [2] }, () => true), ["MatMul", "MatMul"])
      assert.deepStrictEqual(
        yield* operators({}, (path) => path !== "weights.1"), ["MatMul", "Split", "MatMul", "MatMul"])
    }))
  it.effect("stay apart where they are more than 4 MiB together", () => Effect.gen(function*() {
    const embed = 2 ** 18
    assert.deepStrictEqual(yield* operators({ embed, heads: [1, 1] }, () => true), ["MatMul", "Split", "MatMul"])
    assert.deepStrictEqual(yield* operators({ embed, heads: [1, 1, 1] }, () => true), Array(4).fill("MatMul"))
  }))
})

const turn = (heads: Untyped, cos: Untyped, sin: Untyped): Untyped => rotate(heads, { cos, sin })

/**
 * Attention over a cache to turned heads that frozen matrices make of x; where `rows` is "parts", two rows of x make
 * the two parts of one head, so that a row of the joined product is no sequence.
 */
const attention = (
  { batch, group, kvHead, rows }: { batch: number; group: number; kvHead: number; rows: "sequences" | "parts" }
) => {
  const own: Sizes = rows === "parts" ? { part: 2 } : {}
  const made: Sizes = rows === "parts" ? { embed: 4, kvHead, plane: 8 } : { embed: 4, kvHead, part: 2, plane: 8 }
  const kept = Specification.real({ batch, kvHead, source: 3, part: 2, plane: 8 })
  const angles = Specification.real({ batch, position: 1, plane: 8 })
  return Program.makeGeneric("attention", {
    inputs: {
      x: Specification.real({ batch, position: 1, ...own, embed: 4 }), starts: Specification.ids({ batch }),
      cos: angles, sin: angles
    },
    state: {
      query: Specification.real({ ...made, group }), key: Specification.real(made), value: Specification.real(made),
      cache: { key: kept, value: kept }
    }
  }, ({ cos, sin, starts, x }, { cache, key, query, value }) => {
    const heads = (weight: Untyped): Untyped => T.contract(x as Untyped, weight, "embed")
    const attended = attendKept(turn(heads(query), cos, sin) as never,
      { key: turn(heads(key), cos, sin) as never, value: heads(value) as never }, cache, starts)
    return { outputs: { mixed: attended.mixed }, state: { cache: attended.kept } }
  })
}

/** What attention gives, and its cache after it. */
const attended = Effect.fnUntraced(function*(drawn: Parameters<typeof attention>[0], seed: number) {
  const backend = yield* Backend
  const program = yield* Effect.orDie(attention(drawn))
  const fill = (name: string, sizes: Sizes) => // small, so that rounded scores make no other choice
    Arbitrary.reals(`${seed} ${name}`, count(sizes)).map((x) => x / 4)
  const cells = yield* backend.allocate(program.state, { initial: fill })
  const constants = new Map((["query", "key", "value"] as const).map((name) => [name, cells[name]] as const))
  const { bind } = yield* backend.compile(program, { constants })
  const { cos, sin, x } = program.inputs
  const { mixed } = yield* (yield* bind(cells)).run({
    x: fill("x", x.sizes), cos: fill("cos", cos.sizes), sin: fill("sin", sin.sizes),
    starts: Arbitrary.idsBelow(seed, drawn.batch, 3)
  })
  const { key, value } = (yield* backend.read(cells)).cache
  return [mixed, key, value].map(({ elements }) => elements)
}, Effect.scoped)

for (const [engine, backend] of backends) {
  describe(`over ${engine}`, () => {
    layer(backend)((it) => {
      it.effect("are those of each alone", () =>
        forAll(cases, ({ precision, seed, ...drawn }) => Effect.gen(function*() {
          const backend = yield* Backend
          const products = yield* Effect.orDie(program(drawn))
          const cells = yield* backend.allocate(products.state, { precision })
          const all = [cells.other, ...cells.weights]
          for (const [i, cell] of all.entries()) {
            const count = Object.values(cell.sizes).reduce((total, size) => total * size, 1)
            yield* backend.write(cell, Arbitrary.reals(seed + i, count))
          }
          const constants = new Map(all.map((cell, i) => [pathsOf(drawn)[i] ?? "", cell] as const))
          const run = Effect.fnUntraced(function*(options: { readonly constants?: typeof constants }) {
            const { bind } = yield* backend.compile(products, { precision, ...options })
            const found = yield* (yield* bind(cells)).run({ x: Arbitrary.reals(seed, drawn.batch * drawn.embed) })
            return [...found.all, found.other]
          })
          const [joined, apart] = [yield* run({ constants }), yield* run({})]
          joined.forEach(({ elements, sizes }, i) => {
            assert.deepStrictEqual(sizes, apart[i]?.sizes)
            // sums of at most five products below 2 · 2 · 2, in another order
            const rounding = precision === "f32" ? 5 * 8 * 2 ** -22 : 5 * 8 * 2 ** -50
            elements.forEach((element, k) => assert.closeTo(element, apart[i]?.elements[k] ?? NaN, rounding))
          })
        }), { numRuns: 20 }))
      it.effect("meet in attention as apart, whatever a row of theirs is", () =>
        forAll(fc.tuple(fc.record({
          batch: fc.integer({ min: 1, max: 3 }), group: fc.integer({ min: 1, max: 2 }),
          kvHead: fc.integer({ min: 1, max: 2 }), rows: fc.constantFrom<"sequences" | "parts">("sequences", "parts")
        }), fc.nat()), ([drawn, seed]) => Effect.gen(function*() {
          const found = yield* attended(drawn, seed)
          const wanted = yield* attended(drawn, seed).pipe(Effect.provide(Reference.layer))
          requireEqual("what attention gives, and its cache", wanted, found, Tolerance.composed)
        }), { numRuns: 20 }))
    })
  })
}
