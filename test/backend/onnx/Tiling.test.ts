/**
 * Updates in tiles: what is tiled, that it gives what a whole graph gives, and that no tile reaches beyond its cells.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Backend, type Elements, type Precision } from "../../../src/backend/Backend.ts"
import { tileSize } from "../../../src/backend/onnx/Execution.ts"
import { tiling } from "../../../src/backend/onnx/Tiling.ts"
import * as Reference from "../../../src/backend/Reference.ts"
import { adamW } from "../../../src/optimize/AdamW.ts"
import { count, type Sizes, type Untyped } from "../../../src/tensor/Node.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { entries } from "../../../src/tensor/Tree.ts"
import * as Arbitrary from "../../../src/testing/Arbitrary.ts"
import { requireEqual } from "../../../src/testing/TensorLaw.ts"
import * as Tolerance from "../../law/Tolerance.ts"
import { backends } from "./layers.ts"

const row = (n: number) => Specification.real({ n })

const lowered = <I, S, O>(program: Program.Program<I, S, O>) =>
  Program.lower(program, { hasKernel: () => false, watch: [] })

type Update = (cells: Readonly<Record<string, Untyped>>, rate: Untyped) => {
  readonly outputs?: object
  readonly state: object
}

const tilingOf = (
  cells: Readonly<Record<string, Specification.AnySpecification>>, f: Update, constants: ReadonlyArray<string> = []
) =>
  Effect.map(
    Program.makeGeneric("update", { inputs: { rate: Specification.real({}) }, state: cells }, ({ rate }, state) =>
      ({ outputs: {}, ...f(state as never, rate as never) })),
    (program) => tiling(lowered(program), new Set(constants))
  )

describe("tiling", () => {
  it.effect("makes a region of writes that share cells, and a head of the rest", () => Effect.gen(function*() {
    const plan = yield* tilingOf({ g: row(3), m: row(3), w: row(3) }, ({ g, m, w }, rate) => {
      const moment = T.add(T.multiply(m!, 0.9), g!)
      return {
        outputs: { norm: T.sum(T.square(g!), "n") },
        state: { m: moment, w: T.subtract(w!, T.multiply(moment, T.sqrt(rate))) }
      }
    })
    assert.deepStrictEqual(plan?.regions.map(({ writes }) => writes), [["m", "w"]])
    assert.sameMembers([...plan?.regions[0]?.slots ?? []], ["g", "m", "w"])
    assert.deepStrictEqual(plan?.head.writes, [])
    assert.deepStrictEqual(plan?.head.outputs.map(({ name }) => name), ["norm"])
    assert.deepStrictEqual(plan?.head.watched.length, 1) // the root of the rate; 0.9 is part of the tile
  }))
  it.effect("leaves to the head what is not elementwise, and what reads that", () => Effect.gen(function*() {
    const plan = yield* tilingOf({ a: row(3), b: row(3), c: row(3), s: Specification.real({}) }, ({ a, b, c, s }) => ({
      state: { a: T.cumulativeSum(a!, "n"), b: T.add(b!, a!), c: T.multiply(c!, s!), s: T.add(s!, 1) }
    }))
    assert.deepStrictEqual(plan?.regions.map(({ writes }) => writes), [["c"]])
    assert.deepStrictEqual(plan?.head.writes.map(({ name }) => name), ["a", "b", "s"])
  }))
  it.effect("leaves to the head what must be copied", () => Effect.gen(function*() {
    assert.isUndefined(yield* tilingOf({ a: row(3), b: row(3) }, ({ a, b }) => ({ state: { a: b!, b: a! } })))
  }))
  it.effect("leaves to the head what reads frozen cells", () => Effect.gen(function*() {
    const update = (constants: ReadonlyArray<string>) =>
      tilingOf({ a: row(3), b: row(3) }, ({ a, b }) => ({ state: { a: T.add(a!, b!) } }), constants)
    assert.strictEqual((yield* update([]))?.regions.length, 1)
    assert.isUndefined(yield* update(["b"]))
  }))
  it.effect("tells structures apart by their numbers, 0 and −0 and ∞ too", () => Effect.gen(function*() {
    const plan = yield* tilingOf({ a: row(2), b: row(2), c: row(2), d: row(2), e: row(4) }, ({ a, b, c, d, e }) => ({
      state: {
        a: T.maximum(a!, 0), b: T.maximum(b!, -0), c: T.maximum(c!, Infinity), d: T.maximum(d!, NaN),
        e: T.maximum(e!, 0)
      }
    }))
    const structures = plan?.regions.map(({ structure }) => structure) ?? []
    assert.strictEqual(structures.length, 5)
    assert.strictEqual(new Set(structures).size, 4)
  }))
})

/** The cells that a program leaves behind after two runs, and its outputs. */
const ends = <I, S, O>(
  program: Program.Program<I, S, O>, inputs: Readonly<Record<string, number>>, precision: Precision
) => Effect.scoped(Effect.gen(function*() {
  const backend = yield* Backend
  const cells = yield* backend.allocate(program.state, { precision, initial: (path, sizes) => drawn(path, sizes) })
  const { run } = yield* (yield* backend.compile(program, { precision })).bind(cells)
  yield* run(inputs as never)
  yield* run(inputs as never)
  return elements(yield* backend.read(cells))
}))

const drawn = (path: string, sizes: Sizes): Float64Array =>
  Arbitrary.reals(path.length, count(sizes)).map((x) => Math.abs(x) + 0.1)

const isValues = (value: unknown): value is { readonly elements: Elements } =>
  typeof value === "object" && value !== null && "~values" in value

const elements = (values: unknown): ReadonlyArray<Elements> =>
  entries(values, isValues).map(([, { elements }]) => elements)

const endsOnReference = <I, S, O>(program: Program.Program<I, S, O>, inputs: Readonly<Record<string, number>>) =>
  ends(program, inputs, "f64").pipe(Effect.provide(Reference.layer))

const agrees = <I, S, O>(
  program: Program.Program<I, S, O>, inputs: Readonly<Record<string, number>>, precision: Precision,
  wanted = endsOnReference(program, inputs)
) => Effect.gen(function*() {
  const expected = yield* wanted
  const tolerance = precision === "f64" ? Tolerance.reordered : Tolerance.single
  requireEqual("tiles give what the reference gives", expected, yield* ends(program, inputs, precision), tolerance)
})

const matrix = (n: number, m: number) => Specification.real({ n, m })

/** Matrices and rows of every size around those at which tiles begin and end, whose updates differ. */
const parameters = {
  a: row(5), b: matrix(3, 8), c: row(16), d: matrix(2, tileSize + 40), e: row(1), f: matrix(7, 3), g: matrix(1, 64),
  h: row(0), i: matrix(2, 4)
}

const optimizer = adamW()

const training = Program.makeGeneric("training", {
  inputs: { learningRate: Specification.real({}), count: Specification.real({}), gradientNorm: Specification.real({}) },
  state: { parameters, gradients: Specification.zeros(parameters), memory: optimizer.memory(parameters) }
}, (step, { gradients, memory, parameters }) => ({
  outputs: {}, state: optimizer.update({ gradients, memory, parameters, step })
}))

const numbers = { learningRate: 0.1, count: 3, gradientNorm: 1 }

/** What training leaves behind, computed once for all backends. */
const trained = Effect.runSync(Effect.cached(Effect.flatMap(training, (program) => endsOnReference(program, numbers))))

for (const [name, backend] of backends) {
  layer(backend)(`over ${name}`, (it) => {
    for (const precision of ["f32", "f64"] as const) {
      it.effect(`AdamW over cells of many sizes, ${precision}`, () => Effect.gen(function*() {
        const program = yield* training
        assert.strictEqual(tiling(lowered(program), new Set())?.head.writes.length, 0)
        yield* agrees(program, numbers, precision, Effect.orDie(trained))
      }))
      it.effect(`does not reach what lies between cells of one structure, ${precision}`, () => Effect.gen(function*() {
        // the odd ones are updated alike, the even ones are not written
        const names = Array.from({ length: 9 }, (_, i) => `c${i}`)
        const cells = Object.fromEntries(names.map((name, i) => [name, row([8, 3, 16, 5, 8, 1, 32, 7, 8][i] ?? 1)]))
        const program = yield* Program.makeGeneric("between", { inputs: {}, state: cells }, (_, state) => ({
          outputs: {},
          state: Object.fromEntries(Object.entries(state).filter((_, i) => i % 2 === 0)
            .map(([name, cell]) => [name, T.multiply(cell, 2)]))
        }))
        yield* agrees(program, {}, precision)
      }))
    }
    it.effect("reads numbers that are cells, and leaves those to the head", () => Effect.gen(function*() {
      const number = Specification.real({})
      const program = yield* Program.make("numbers", {
        inputs: { rate: number, unused: row(3) }, state: { a: row(70), b: row(70), s: number, t: number }
      }, ({ rate }, { a, b, s, t }) => {
        const scale = T.multiply(T.add(s, rate), T.mean(b, "n"))
        const state = { a: T.add(T.subtract(a, T.multiply(b, scale)), t), s: T.add(s, 1), t: T.sum(a, "n") }
        return { outputs: { scale, s }, state }
      })
      assert.deepStrictEqual(tiling(lowered(program), new Set())?.regions.map(({ writes }) => writes), [["a"]])
      yield* agrees(program, { rate: 0.1, unused: 0 }, "f32")
    }))
    it.effect("does not reach views that lie between views", () => Effect.gen(function*() {
      const backend = yield* Backend
      const one = { _tag: "Constant", value: 1 } as const
      const { all } = yield* backend.allocate({ all: Specification.real({ slot: 5, n: 8 }, one) })
      const program = yield* Program.make("double", { inputs: {}, state: { a: row(8), b: row(8), c: row(8) } },
        (_, { a, b, c }) => ({ outputs: {}, state: { a: T.multiply(a, 2), b: T.multiply(b, 2), c: T.multiply(c, 2) } }))
      const [a, b, c] = [yield* backend.view(all, 0), yield* backend.view(all, 2), yield* backend.view(all, 3)]
      const { run } = yield* (yield* backend.compile(program)).bind({ a, b, c } as never)
      yield* run({})
      const { elements } = (yield* backend.read({ all })).all
      assert.deepStrictEqual([...elements].filter((_, i) => i % 8 === 7), [2, 1, 2, 2, 1])
    }))
    it.effect("updates ids and truths", () => Effect.gen(function*() {
      const sizes = { i: 70 }
      const cells = { n: Specification.ids(sizes), seen: Specification.truths(sizes), x: Specification.real(sizes) }
      const program = yield* Program.make("kinds", { inputs: {}, state: cells }, (_, { n, seen, x }) => {
        const isLess = T.less(T.real(n), x)
        const state = { n: T.addIds(n, 1), seen: T.or(T.not(seen), isLess), x: T.select(isLess, x, T.add(x, 1)) }
        return { outputs: {}, state }
      })
      const found = (precision: Precision) => Effect.scoped(Effect.gen(function*() {
        const backend = yield* Backend
        const cells = yield* backend.allocate(program.state, { precision })
        const { run } = yield* (yield* backend.compile(program, { precision })).bind(cells)
        for (let i = 0; i < 3; i++) yield* run({})
        return elements(yield* backend.read(cells))
      }))
      const expected = yield* found("f64").pipe(Effect.provide(Reference.layer))
      requireEqual("ids and truths", expected, yield* found("f32"), Tolerance.exact)
    }))
  })
}
