/**
 * Every kernel, in float32, against the decomposition of its composite on the float64 reference: what it computes, what
 * its pullback makes of it, over random sizes and orders of axes; and that it is the kernel which is tried.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { Backend } from "../../../src/backend/Backend.ts"
import { emit } from "../../../src/backend/onnx/Emit.ts"
import { hasKernel, kernels } from "../../../src/backend/onnx/Kernel.ts"
import * as Reference from "../../../src/backend/Reference.ts"
import * as KeyValueCache from "../../../src/llama/KeyValueCache.ts"
import { rmsNorm } from "../../../src/llama/RmsNorm.ts"
import { type Angles, angles, rotate } from "../../../src/llama/Rope.ts"
import { tokenCrossEntropy } from "../../../src/loss/CrossEntropy.ts"
import { lower } from "../../../src/tensor/Lower.ts"
import { type Any, count, type Sizes, type Untyped } from "../../../src/tensor/Node.ts"
import * as Program from "../../../src/tensor/Program.ts"
import { rewrite } from "../../../src/tensor/Rewrite.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import type { Tensor } from "../../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../../src/testing/Arbitrary.ts"
import { agreesWithReference, forAll } from "../../../src/testing/BackendLaw.ts"
import { type Computation, type Given, leavesOf } from "../../../src/testing/Computation.ts"
import { gradients, requireEqual } from "../../../src/testing/TensorLaw.ts"
import * as Tolerance from "../../law/Tolerance.ts"
import { backends } from "./layers.ts"

const all = { batch: 2, position: 3, kvHead: 2, group: 1, part: 2, plane: 4, embed: 5, vocab: 6 } as const

type Axis = keyof typeof all

/** Sizes of some axes, each as above or 1 where it may be. */
const sizesOf = (required: ReadonlyArray<Axis>, optional: ReadonlyArray<Axis>): fc.Arbitrary<Sizes> =>
  fc.tuple(fc.subarray([...optional]), fc.subarray([...required, ...optional])).map(([some, ones]) =>
    Object.fromEntries([...required, ...some].map((axis) =>
      [axis, ones.includes(axis) && axis !== "part" && axis !== "embed" ? 1 : all[axis]])))

const computation = (given: ReadonlyArray<Given>, build: (...leaves: Array<Untyped>) => Untyped): Computation => ({
  given, build: (leaves) => [build(...Object.values(leaves))]
})

const given = (name: string, sizes: Sizes, elements: Iterable<number>): Given =>
  ({ name, kind: "real", sizes, elements: Float64Array.from(elements) })

const without = (sizes: Sizes, ...axes: ReadonlyArray<string>): Sizes =>
  Object.fromEntries(Object.entries(sizes).filter(([axis]) => !axes.includes(axis)))

const turn = (...[heads, cos, sin]: ReadonlyArray<Untyped>): Untyped => rotate(heads!, { cos: cos!, sin: sin! })

/** Tokens that attend over a cache: one of each of some sequences, or a block of one; a place of the cache is over. */
const attending = fc.oneof(
  fc.record({ batch: fc.integer({ min: 1, max: 6 }), position: fc.constant(1) }),
  fc.record({ batch: fc.constant(1), position: fc.integer({ min: 2, max: 4 }) })
).chain(({ batch, position }) => fc.record({
  batch: fc.constant(batch), position: fc.constant(position), kvHead: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 3 }), source: fc.integer({ min: position + 1, max: position + 4 })
}))

type Of<A> = A extends fc.Arbitrary<infer Drawn> ? Drawn : never

type Attending = Of<typeof attending>

/** A computation, its operands as they are drawn by name and sizes. */
type Drawn = (draw: (name: string, sizes: Sizes) => fc.Arbitrary<Given>) => fc.Arbitrary<Computation>

type Ids<A extends string> = Tensor<A, "id">

/** How heads are turned: not at all, by angles that are given, or by those that a function makes of their places. */
type Turning = "not" | "as given" | ((starts: Ids<"batch">, positions: Ids<"position">, headSize: number) => Angles)

const byPlace = (starts: Ids<"batch">, positions: Ids<"position">, headSize: number): Angles =>
  angles(T.addIds(starts, positions), { headSize, theta: 100 })

/** Angles that are not those of the places, or not in step. */
const otherwise: Readonly<Record<string, Turning>> = {
  "by given angles": "as given",
  "by angles of the places behind theirs": (starts, _, headSize) =>
    angles(T.addIds(T.spread(starts, "position", 1), 1), { headSize, theta: 100 }),
  "by angles of twice their places": (starts, positions, headSize) =>
    byPlace(T.addIds(starts, starts), positions, headSize),
  "by cosines and sines of different angles": (starts, positions, headSize) => ({
    cos: byPlace(starts, positions, headSize).cos,
    sin: angles(T.addIds(starts, positions), { headSize, theta: 50 }).sin
  }),
  "by sines for cosines": (starts, positions, headSize) => {
    const { cos, sin } = byPlace(starts, positions, headSize)
    return { cos: sin, sin: cos }
  }
}

/** Attention over a cache, to heads that are turned or not. */
const attention = (
  { batch, group, kvHead, position, source }: Attending, plane: number, turning: Turning
): Drawn => (draw) => {
  const [heads, block] = [{ kvHead, part: 2, plane }, { batch, position }]
  const tables = turning === "as given" ? ["cos", "sin"].map((name) => draw(name, { ...block, plane })) : []
  return fc.tuple(
    draw("query", { ...block, kvHead, group, part: 2, plane }), draw("key", { ...block, ...heads }),
    draw("value", { ...block, ...heads }), ...["keptKey", "keptValue"].map((name) =>
      draw(name, { batch, kvHead, source, part: 2, plane })),
    Arbitrary.ids("starts", { batch }, source - position + 1), ...tables
  ).map((given) => ({
    given,
    build: ({ cos, keptKey, keptValue, key, query, sin, starts, value }) => {
      const places = [starts as Ids<"batch">, T.positions("position", position)] as const
      const angles = turning === "as given" ? { cos: cos as Angles["cos"], sin: sin as Angles["sin"] }
        : turning === "not" ? undefined : turning(...places, 2 * plane)
      const heads = (x: Untyped): Untyped => angles === undefined ? x : rotate(x, angles) as Untyped
      const { kept, mixed } = KeyValueCache.attendKept(heads(query!) as never,
        { key: heads(key!) as never, value: value! }, { key: keptKey!, value: keptValue! }, starts! as never)
      return [mixed, kept.key, kept.value]
    }
  }))
}

/** What each kernel is tried on: its operands in any order of axes. */
const drawn: Readonly<Record<string, fc.Arbitrary<Computation>>> = {
  softmax: sizesOf(["vocab"], ["batch", "position"]).chain((sizes) => Arbitrary.real("x", sizes))
    .map((x) => computation([x], T.softmax("vocab"))),
  softmaxWhere: sizesOf(["position"], ["batch", "kvHead", "group"]).chain((sizes) => {
    const source = { ...sizes, source: 4 }
    const seen = Arbitrary.part(sizes).chain((part) => Arbitrary.truth("seen", { ...part, source: 4 }))
    return fc.tuple(Arbitrary.real("x", source), seen, fc.boolean())
  }).map(([x, seen, everyRowSees]) => {
    const axes = Object.keys(seen.sizes)
    const inner = count(without(seen.sizes, ...axes.slice(0, axes.indexOf("source") + 1)))
    const isFirst = (i: number): boolean => Math.floor(i / inner) % 4 === 0
    const elements = seen.elements.map((truth, i) => everyRowSees && isFirst(i) ? 1 : truth)
    return computation([x, { ...seen, elements }], (x, seen) => T.softmaxWhere(x, seen, "source", { everyRowSees }))
  }),
  silu: sizesOf([], ["batch", "embed"]).chain((sizes) => Arbitrary.real("x", sizes))
    .map((x) => computation([x], T.silu)),
  rmsNorm: sizesOf(["embed"], ["batch", "position"])
    .chain((sizes) => fc.tuple(Arbitrary.real("x", sizes), Arbitrary.real("gain", { embed: all.embed })))
    .map((given) => computation(given, (x, gain) => rmsNorm(x, gain, 1e-2))),
  softmaxCrossEntropy: sizesOf(["vocab"], ["batch", "position"])
    .chain((sizes) => fc.tuple(
      Arbitrary.real("logits", sizes), Arbitrary.ids("targets", without(sizes, "vocab"), sizes["vocab"] ?? 1)
    ))
    .map((given) => computation(given, (logits, targets) => tokenCrossEntropy(logits, targets))),
  rotate: sizesOf(["batch", "position", "part", "plane"], ["kvHead", "group"]).chain((sizes) => {
    const table = fc.subarray(["batch"]).chain((some) => {
      const { batch = 1, plane = 1, position = 1 } = sizes as Readonly<Record<string, number>>
      return fc.tuple(...["cos", "sin"].map((name) =>
        Arbitrary.real(name, { position, plane, ...(some.length > 0 ? { batch } : {}) })))
    })
    return fc.tuple(Arbitrary.real("heads", sizes), table).map(([heads, tables]) => [heads, ...tables])
  }).map((given) => computation(given, turn)),
  attendKept: attending.chain((sizes) => attention(sizes, all.plane, "not")(Arbitrary.real))
}

/** All kernels but products with codes, which round: test/backend/onnx/CodedProduct.test.ts, RowProduct.test.ts. */
const names = Object.keys(kernels).filter((name) => name !== "contractCodes" && name !== "contractRows")

/** The composites of a computation that run as a kernel, and the operators of the graph that it becomes. */
const compiled = ({ build, given }: Computation) => {
  const leaves = leavesOf(given)
  const outputs = build(leaves)
  const isKept = (node: Any): boolean =>
    node.operation._tag === "Composite" && hasKernel(node.operation.composite, node.operands)
  const nodes = rewrite(outputs, isKept).map((node, i) => ({ name: String(i), node, sizes: node.sizes }))
  const lowered = lower({ inputs: Object.entries(leaves), cells: [], outputs: nodes, writes: [], watched: [] })
  const { graph } = emit(lowered, "f32", new Map())
  return {
    composites: lowered.instructions.flatMap(({ primitive }) =>
      primitive._tag === "composite" ? [primitive.composite.name] : []),
    operators: graph.nodes.map(({ op }) => op)
  }
}

describe("kernels", () => {
  it.each(names)("%s is used", (name) =>
    fc.assert(fc.property(drawn[name]!, (computation) => {
      assert.deepStrictEqual(compiled(computation).composites, [name])
    }), { numRuns: 20 }))
  const inOrder = (name: string, sizes: Sizes): fc.Arbitrary<Given> =>
    fc.integer().map((seed) => given(name, sizes, Arbitrary.reals(seed, count(sizes))))
  it.each(Object.keys(met))("take %s as one operator, where the operands lie in order", (name) => {
    const { drawn, replaced } = met[name]!
    fc.assert(fc.property(drawn(inOrder), (computation) => {
      const { operators } = compiled(computation)
      for (const operator of replaced) assert.notInclude(operators, operator)
    }), { numRuns: 20 })
  })
  it.each(Object.keys(otherwise))("attend to heads that were turned before: %s", (name) => {
    const sizes = { batch: 2, position: 1, kvHead: 1, group: 1, source: 4 }
    const turns = (turning: Turning) => fc.sample(attention(sizes, 8, turning)(inOrder), 1)
      .map((drawn) => compiled(drawn).operators.filter((name) => name === "RotaryEmbedding").length)
    assert.deepStrictEqual([turns(byPlace), turns(otherwise[name]!)], [[0], [2]])
  })
  it("leave to the decomposition what their operators refuse", () => {
    const norm = computation(
      [given("x", { embed: 1 }, [0.5]), given("gain", { embed: 1 }, [2])], (x, gain) => rmsNorm(x, gain, 1e-5)
    )
    assert.deepStrictEqual(compiled(norm).composites, [])
    const random = (name: string, sizes: Sizes): Given => given(name, sizes, Arbitrary.reals(1, count(sizes)))
    const turned = (table: Sizes, sizes: Sizes) =>
      computation([random("heads", sizes), random("cos", table), random("sin", table)], turn)
    const heads = { batch: 1, position: 2, kvHead: 2, part: 2, plane: 2 }
    assert.deepStrictEqual(compiled(turned({ position: 2, plane: 2 }, heads)).composites, ["rotate"])
    assert.deepStrictEqual(compiled(turned({ position: 2, plane: 2 }, without(heads, "batch"))).composites, [])
    assert.deepStrictEqual(compiled(turned({ position: 2, kvHead: 2, plane: 2 }, heads)).composites, [])
    const attends = (sizes: Partial<Attending>, plane = 4) => {
      const all = { batch: 1, position: 2, kvHead: 1, group: 1, source: 3, ...sizes }
      return fc.sample(attention(all, plane, "not")(Arbitrary.real), 1).map((drawn) => compiled(drawn).composites)[0]
    }
    assert.deepStrictEqual(attends({}), ["attendKept"])
    for (const [sizes, plane] of [[{ batch: 2 }], [{ source: 2 }], [{}, 2]] as const) {
      assert.deepStrictEqual(attends(sizes, plane), ["softmaxWhere"])
    }
  })
})

const normalOfSum = (x: Untyped, y: Untyped, gain: Untyped) => {
  const sum: Untyped = T.add(x, y)
  const normal: Untyped = rmsNorm(sum, gain, 1e-5)
  return { sum, normal }
}

/** What one operator computes where composites meet, and the operators that it replaces. */
const met: Readonly<Record<string, { readonly drawn: Drawn; readonly replaced: ReadonlyArray<string> }>> = {
  "attention over a cache to heads that were turned": {
    drawn: (draw) => attending.filter(({ position }) => position === 1)
      .chain((sizes) => attention(sizes, 8, byPlace)(draw)),
    replaced: ["RotaryEmbedding"]
  },
  "attention of a block over a cache to heads that were turned": {
    drawn: (draw) => fc.tuple(attending.filter(({ position }) => position > 1), fc.constantFrom(4, 8, 12))
      .chain(([sizes, plane]) => attention(sizes, plane, byPlace)(draw)),
    replaced: ["MatMul", "FusedMatMul", "Softmax"]
  },
  "the norm of a sum": {
    drawn: (draw) => fc.tuple(fc.integer({ min: 1, max: 3 }), fc.boolean()).chain(([batch, isUsed]) =>
      fc.tuple(
        draw("x", { batch, embed: all.embed }), draw("y", { batch, embed: all.embed }),
        draw("gain", { embed: all.embed }), fc.constant(isUsed)
      )).map(([x, y, gain, isUsed]) => ({
      given: [x, y, gain],
      build: ({ gain, x, y }) => {
        const { normal, sum } = normalOfSum(x!, y!, gain!)
        return [isUsed ? T.multiply(normal, sum) : normal]
      }
    })),
    replaced: ["Add", "SimplifiedLayerNormalization"]
  },
  "the norm of what few products add": {
    drawn: (draw) => fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 10 }), fc.boolean()).chain(
      ([batch, position, isUsed]) => fc.tuple(
        draw("x", { batch, position, embed: all.embed }), draw("y", { batch, position, hidden: 3 }),
        draw("weight", { hidden: 3, embed: all.embed }), draw("gain", { embed: all.embed }), fc.constant(isUsed)
      )).map(([x, y, weight, gain, isUsed]) => ({
      given: [x, y, weight, gain],
      build: ({ gain, weight, x, y }) => {
        const product: Untyped = T.contract(T.negate(y!), weight!, "hidden")
        const { normal, sum } = normalOfSum(x!, product, gain!)
        return [isUsed ? T.multiply(normal, sum) : normal]
      }
    })),
    replaced: ["Add", "Gemm", "SimplifiedLayerNormalization"]
  }
}

/** The operator goes through rows of queries and places of the cache in tiles. */
const long: Readonly<Record<string, readonly [Partial<Attending> & Pick<Attending, "position" | "source">, number]>> = {
  "of many tiles of rows": [{ position: 40, source: 60, group: 2 }, 4],
  "over many tiles of a cache": [{ position: 5, source: 700 }, 64],
  "over many rows of a table": [{ batch: 2, position: 1, source: 1025 }, 8]
}

/** Blocks of one sequence, each from a start of its own, over a cache whose old keys are a result too or not. */
const blocks = attending.filter(({ position }) => position > 1).chain((sizes) => fc.record({
  sizes: fc.constant(sizes), seed: fc.nat(), isWatched: fc.boolean(),
  starts: fc.array(fc.integer({ min: 0, max: sizes.source - sizes.position }), { minLength: 1, maxLength: 4 })
}))

/** What each block mixes, and the cache behind it. */
const attended = Effect.fnUntraced(function*({ isWatched, seed, sizes, starts }: Of<typeof blocks>) {
  const backend = yield* Backend
  const { group, kvHead, position, source } = sizes
  const heads = { kvHead, part: 2, plane: 4 }
  const fresh = Specification.real({ batch: 1, position, ...heads })
  const kept = Specification.real({ batch: 1, kvHead, source, part: 2, plane: 4 })
  const program = yield* Effect.orDie(Program.make("blocks", {
    inputs: {
      query: Specification.real({ batch: 1, position, group, ...heads }), key: fresh, value: fresh,
      starts: Specification.ids({ batch: 1 })
    },
    state: { key: kept, value: kept }
  }, ({ key, query, starts, value }, state) => {
    const after = KeyValueCache.attendKept(query, { key, value }, state, starts)
    return { outputs: { mixed: after.mixed, ...isWatched ? { old: state.key } : {} }, state: after.kept }
  }))
  const reals = (name: string, sizes: Sizes) => Arbitrary.reals(`${seed} ${name}`, count(sizes))
  const cells = yield* backend.allocate(program.state, { initial: reals })
  const { run } = yield* (yield* backend.compile(program)).bind(cells)
  const { key, query, value } = program.inputs
  return yield* Effect.forEach(starts, (start, i) => Effect.gen(function*() {
    const { mixed } = yield* run({
      query: reals(`query ${i}`, query.sizes), key: reals(`key ${i}`, key.sizes), starts: start,
      value: reals(`value ${i}`, value.sizes)
    })
    const after = yield* backend.read(cells)
    return [mixed, after.key, after.value].map(({ elements }) => Float64Array.from(elements))
  }))
}, Effect.scoped, Effect.map((each) => each.flat()))

const targets: Given = { name: "targets", kind: "id", sizes: { batch: 2 }, elements: Int32Array.of(0, 2) }

/** A cross-entropy whose targets are the first and the third of three. */
const surprise = (...logits: ReadonlyArray<number>): Computation =>
  computation([given("logits", { batch: 2, vocab: 3 }, logits), targets], (x, ids) => tokenCrossEntropy(x, ids))

const surprises: Readonly<Record<string, Computation>> = {
  "a target whose probability underflows": surprise(-200, 0, 1, 3, 2, 1),
  "the same where the logits are a product": {
    given: [
      given("x", { batch: 2, embed: 2 }, [-100, 1, 1, 1]), given("w", { embed: 2, vocab: 3 }, [3, 0, 0, 1, 2, 3]),
      targets
    ],
    build: ({ targets, w, x }) => [tokenCrossEntropy(T.contract(x!, w!, "embed"), targets!) as Untyped]
  },
  "huge logits": surprise(1e30, 1, -1e30, 5e4, -5e4, 0),
  "a logit that is no number": surprise(NaN, 1, 2, 3, 2, 1)
}

for (const [engine, backend] of backends) {
  describe(`over ${engine}`, () => {
    layer(backend)((it) => {
      const agrees = (computation: Computation, tolerance: number) => Effect.flatMap(Backend, (backend) =>
        agreesWithReference(backend, computation, { precision: "f32", tolerance }))
      it.effect.each(names)("%s computes what its decomposition does", (name) =>
        forAll(drawn[name]!, (computation) => agrees(computation, Tolerance.single), { numRuns: 25 }))
      it.effect.each(Object.keys(met))("%s as one operator is what both are apart", (name) =>
        forAll(met[name]!.drawn(Arbitrary.real), (computation) => agrees(computation, Tolerance.single), {
          numRuns: 25
        }))
      it.effect.each(Object.keys(long))("attention %s is what its decomposition is", (name) => {
        const [sizes, plane] = long[name]!
        return forAll(attention({ batch: 1, kvHead: 1, group: 1, ...sizes }, plane, byPlace)(Arbitrary.real),
          (computation) => agrees(computation, Tolerance.composed), { numRuns: 2 })
      })
      it.effect.each(Object.keys(otherwise))("attention to heads that are turned %s is what both are apart", (name) =>
        forAll(attending.filter(({ position }) => position === 1).chain((sizes) =>
          attention(sizes, 8, otherwise[name]!)(Arbitrary.real)), (computation) =>
          agrees(computation, Tolerance.single), { numRuns: 8 }))
      it.effect("blocks that begin anywhere leave in a cache what they leave there on the reference", () =>
        forAll(blocks, (drawn) => Effect.gen(function*() {
          const found = yield* attended(drawn)
          const wanted = yield* attended(drawn).pipe(Effect.provide(Reference.layer))
          requireEqual("what blocks mix, and the cache", wanted, found, Tolerance.single)
        }), { numRuns: 20 }))
      it.effect("the norm of a sum that is a result too is what both are apart", () =>
        forAll(fc.tuple(...["x", "y"].map((name) => Arbitrary.real(name, { batch: 2, embed: all.embed })),
          Arbitrary.real("gain", { embed: all.embed })), (given) => agrees({
          given,
          build: ({ gain, x, y }) => {
            const { normal, sum } = normalOfSum(x!, y!, gain!)
            return [normal, sum]
          }
        }, Tolerance.single), { numRuns: 10 }))
      it.effect("the gradient through the norm of a sum is that of the reference", () =>
        forAll(met["the norm of a sum"]!.drawn(Arbitrary.real), (computation) =>
          agrees(gradients(computation), Tolerance.composed), { numRuns: 15 }))
      it.effect.each(names)("the gradient through %s is that of the reference", (name) =>
        forAll(drawn[name]!, (computation) => agrees(gradients(computation), Tolerance.composed), { numRuns: 15 }))
      it.effect.each(Object.keys(surprises))("cross-entropy: %s", (name) => Effect.gen(function*() {
        yield* agrees(surprises[name]!, Tolerance.single)
        yield* agrees(gradients(surprises[name]!), Tolerance.composed)
      }))
      it.effect("in float64 the gradients of composites are those of the reference", () =>
        Effect.flatMap(Backend, (backend) =>
          forAll(fc.oneof(...Object.values(drawn)), (computation) => agreesWithReference(
            backend, gradients(computation), { precision: "f64", tolerance: Tolerance.reordered }
          ), { numRuns: 60 })))
    })
  })
}
