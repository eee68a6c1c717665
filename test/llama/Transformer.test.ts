import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as fc from "fast-check"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import type { Input } from "../../src/llama/Attention.ts"
import * as Attention from "../../src/llama/Attention.ts"
import { type Component, seal } from "../../src/llama/Component.ts"
import * as Config from "../../src/llama/Config.ts"
import * as FeedForward from "../../src/llama/FeedForward.ts"
import * as RmsNorm from "../../src/llama/RmsNorm.ts"
import * as Rope from "../../src/llama/Rope.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { causal } from "../../src/llama/Visibility.ts"
import { tokenCrossEntropy } from "../../src/loss/CrossEntropy.ts"
import { maskedMean } from "../../src/loss/Mask.ts"
import type { Any } from "../../src/tensor/Node.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import type { Tensor } from "../../src/tensor/Tensor.ts"
import {
  agree, constants, evaluate, flat, hasTheSlopeOfDifferences, numbers, someIds
} from "../law/Evaluation.ts"

const config = Config.make({
  vocabSize: 7, embedSize: 8, layerCount: 2, headCount: 4, kvHeadCount: 2, hiddenSize: 6, contextLength: 8
})
const model = Transformer.llama(config)
const parameters = constants("model", model.specification)

type Ids = Tensor<"batch" | "position", "id">

const logits = (ids: Ids, options?: Transformer.Options) =>
  model.logits(parameters, model.hidden(parameters, { ids, visibility: causal }, options))

const lossOf = <P>(other: Transformer.Transformer<P>, given: P, ids: Ids, options?: Transformer.Options) => {
  const scores = other.logits(given, other.hidden(given, { ids, visibility: causal }, options))
  return T.mean(tokenCrossEntropy(scores, ids), ["batch", "position"])
}

const inOrder = ["batch", "position", "vocab"]

describe("Transformer", () => {
  it("declares its parameters in the order of memory", () => {
    const { specification } = Transformer.llama({ ...config, layerCount: 1 })
    const lines = Specification.leaves(specification).map(([path, { sizes }]) =>
      `${path} ${JSON.stringify(sizes).replaceAll("\"", "")}`)
    assert.deepStrictEqual(lines, [
      "embedding {vocab:7,embed:8}",
      "block.0.attentionNorm.gain {embed:8}",
      "block.0.attention.query {embed:8,kvHead:2,group:2,part:2,plane:1}",
      "block.0.attention.key {embed:8,kvHead:2,part:2,plane:1}",
      "block.0.attention.value {embed:8,kvHead:2,part:2,plane:1}",
      "block.0.attention.output {kvHead:2,group:2,part:2,plane:1,embed:8}",
      "block.0.feedForwardNorm.gain {embed:8}",
      "block.0.feedForward.gate {embed:8,hidden:6}",
      "block.0.feedForward.up {embed:8,hidden:6}",
      "block.0.feedForward.down {hidden:6,embed:8}",
      "norm.gain {embed:8}",
      "head {embed:8,vocab:7}"
    ])
  })

  it("is causal: changing a token changes no score before it", () => {
    fc.assert(fc.property(fc.nat(), fc.integer({ min: 1, max: 6 }), fc.nat(5), (seed, position, place) => {
      const at = place % position
      const ids = someIds(seed, { batch: 2, position }, 6)
      const changed = T.addIds(ids, T.toIds(T.real(T.equal(T.positions("position", position), at))))
      const difference = numbers(T.subtract(logits(changed), logits(ids)), inOrder)
      difference.forEach((value, i) =>
        assert.strictEqual(value !== 0, Math.floor(i / 7) % position >= at, `element ${i}`))
    }), { numRuns: 15 })
  })

  it("keeps examples apart", () => {
    const [one, two] = [someIds(1, { batch: 1, position: 4 }, 7), someIds(2, { batch: 1, position: 4 }, 7)]
    const together = numbers(logits(T.concat("batch", [one, two])), inOrder)
    agree(together, [...numbers(logits(one), inOrder), ...numbers(logits(two), inOrder)])
  })

  it("numbers positions from 0 where none are given", () => {
    const ids = someIds(3, { batch: 2, position: 4 }, 7)
    const positions = T.ids({ batch: 2, position: 4 }, [0, 1, 2, 3, 0, 1, 2, 3])
    const given = model.logits(parameters, model.hidden(parameters, { ids, positions, visibility: causal }))
    agree(numbers(given, inOrder), numbers(logits(ids), inOrder))
  })

  it("has the gradient that differences say, in every parameter", () => {
    const ids = someIds(4, { batch: 2, position: 4 }, 7)
    hasTheSlopeOfDifferences(parameters, (given) => lossOf(model, given, ids))
    const gradient = evaluate(() => T.gradient(lossOf(model, parameters, ids), parameters))
    for (const block of gradient.block) {
      for (const [name, part] of Object.entries(block)) {
        for (const { elements } of Object.values(part)) assert.isTrue(elements.some((x) => x !== 0), name)
      }
    }
  })

  it("recomputes blocks without changing a bit", () => {
    const ids = someIds(5, { batch: 2, position: 4 }, 7)
    const both = evaluate(() => [undefined, { recomputeBlocks: true }].map((options) => {
      const loss = lossOf(model, parameters, ids, options)
      return { loss, gradient: T.gradient(loss, parameters) }
    }))
    assert.deepStrictEqual(flat(both[1]), flat(both[0]))
  })

  it("gives, over any split of a batch, gradients that sum to those of the whole", () => {
    const ids = someIds(6, { batch: 3, position: 4 }, 7)
    const targets = someIds(7, { batch: 3, position: 4 }, 7)
    const mask = T.values({ batch: 3, position: 4 }, [1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]) // nothing of the last counts
    const gradient = (start: number, end: number) => {
      const scores = logits(T.slice(ids, "batch", start, end))
      const losses = tokenCrossEntropy(scores, T.slice(targets, "batch", start, end))
      return T.gradient(maskedMean(losses, T.slice(mask, "batch", start, end), T.constant(6)), parameters)
    }
    const { parts, whole } = evaluate(() => ({
      whole: gradient(0, 3), parts: [gradient(0, 1), gradient(1, 2), gradient(2, 3)]
    }))
    const summed = parts.map(flat).reduce((total, part) => total.map((x, i) => x + part[i]!))
    agree(summed, flat(whole))
  })

  it("refuses a sequence longer than its context", () => {
    const ids = someIds(8, { batch: 1, position: 9 }, 7)
    assert.throws(() => logits(ids), `transformer: at most contextLength = 8 positions
  ids  [batch: 1, position: 9] id
  Cut the sequences, or configure a longer context: positions that were never trained give nonsense.`)
  })
})

describe("labels", () => {
  const ids = someIds(9, { batch: 1, position: 3 }, 7)

  const programOf = (options?: Transformer.Options) =>
    Program.make("labels", { inputs: {}, state: model.specification }, (_, state) => ({
      outputs: { loss: lossOf(model, state, ids, options) }
    }))

  const inBlock = (i: number) => [
    `block.${i}.attention.mixed`, `block.${i}.attention.result`, `block.${i}.attention.scores`,
    `block.${i}.attention.weights`, `block.${i}.feedForward.passed`, `block.${i}.feedForward.result`,
    `block.${i}.residual`
  ]

  it.effect("name the values of every block, recomputed or not", () =>
    Effect.gen(function*() {
      const expected = ["embedded", ...inBlock(0), ...inBlock(1), "logits", "norm.result"]
      assert.sameMembers([...Program.labels(yield* programOf())], expected)
      assert.sameMembers([...Program.labels(yield* programOf({ recomputeBlocks: true }))], expected)
    }))

  it.effect("lead to the first tensor that is not finite", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      for (const options of [undefined, { recomputeBlocks: true }]) {
        const program = yield* programOf(options)
        const cells = yield* backend.allocate(model.specification, {
          initial: (path, sizes) => Float64Array.from({ length: Object.values(sizes).reduce((n, size) => n * size, 1) },
            (_, i) => path === "block.1.attention.value" && i === 2 ? Number.NaN : Math.sin(i + path.length))
        })
        const bound = yield* (yield* backend.compile(program, { watch: Program.labels(program) })).bind(cells)
        const { watched } = yield* bound.watch({})
        const isFinite = (name: string): boolean => [...watched[name]!.elements].every(Number.isFinite)
        assert.isTrue(isFinite("block.0.residual") && isFinite("block.1.attention.weights"))
        assert.isFalse(isFinite("block.1.attention.mixed"))
      }
    }).pipe(Effect.provide(Reference.layer)))
})

describe("make", () => {
  const ids = someIds(10, { batch: 2, position: 4 }, 7)
  const finite = (tree: unknown): boolean => flat(tree).every((value) => Number.isFinite(value) && value !== 0)

  it.effect("is the plain Llama with the paper's components", () =>
    Effect.gen(function*() {
      const made = yield* Transformer.make(config)
      assert.deepStrictEqual(Specification.leaves(made.specification), Specification.leaves(model.specification))
      const hidden = constants("model", made.specification)
      const scores = made.logits(hidden, made.hidden(hidden, { ids, visibility: causal }))
      agree(numbers(scores, inOrder), numbers(logits(ids), inOrder))
    }).pipe(Effect.provide(Transformer.layer)))

  /** A model made with one component replaced, its parameters and its loss. */
  const variant = <I>(layer: Layer.Layer<I>) =>
    Transformer.make(config).pipe(
      Effect.provide(Layer.mergeAll(Transformer.layer, layer)), // the last one given wins
      Effect.map((made) => {
        const drawn = constants("variant", made.specification)
        return { made, drawn, paths: Specification.leaves(made.specification).map(([path]) => path) }
      })
    )

  it.effect("takes an attention of one's own, with parameters of its own", () =>
    Effect.gen(function*() {
      interface Mine {
        readonly average: Tensor<"embed" | "next">
      }
      const mine: Component<Mine, Input, Tensor<"batch" | "position" | "embed">> = {
        specification: ({ embedSize }) => ({ average: Specification.real({ embed: embedSize, next: embedSize }) }),
        apply: ({ average }, { x }) =>
          T.contract(T.cumulativeSum(x, "position"), average, "embed").pipe(T.rename("next", "embed"))
      }
      const { drawn, made, paths } = yield* variant(Layer.succeed(Attention.Attention, seal(mine)))
      assert.include(paths, "block.1.attention.average")
      assert.isFalse(paths.some((path) => path.endsWith("query")))
      const gradient = evaluate(() => T.gradient(lossOf(made, drawn, ids), drawn))
      assert.isTrue(gradient.block.every(({ attention }) => finite(attention)))
    }))

  it.effect("takes a normalization, a feed-forward layer and a position encoding of one's own", () =>
    Effect.gen(function*() {
      type Residual = Tensor<"batch" | "position" | "embed">
      const noNorm: Component<object, Residual, Residual> = { specification: () => ({}), apply: (_, x) => x }
      const linear: Component<{ readonly map: Tensor<"embed" | "next"> }, Residual, Residual> = {
        specification: ({ embedSize }) => ({ map: Specification.real({ embed: embedSize, next: embedSize }) }),
        apply: ({ map }, x) => T.contract(x, map, "embed").pipe(T.rename("next", "embed"))
      }
      const learned: Component<{ readonly scale: Tensor<"place" | "plane"> }, Rope.Positions, Rope.Encode> = {
        specification: ({ contextLength, headSize }) => ({
          scale: Specification.real({ place: contextLength, plane: headSize / 2 })
        }),
        apply: ({ scale }, positions) => {
          const own: Any = T.take(scale, "place", positions as Tensor<"position", "id">)
          return (heads) => T.multiply(heads, own as Tensor<"position" | "plane">) as typeof heads
        }
      }
      const { drawn, made, paths } = yield* variant(Layer.mergeAll(
        Layer.succeed(RmsNorm.Normalization, seal(noNorm)),
        Layer.succeed(FeedForward.FeedForward, seal(linear)),
        Layer.succeed(Rope.PositionEncoding, seal(learned))
      ))
      assert.isFalse(paths.some((path) => path.endsWith("gain")))
      assert.includeMembers(paths, ["encoding.scale", "block.0.feedForward.map"])
      const [plain, recomputed] = evaluate(() => [undefined, { recomputeBlocks: true }].map((options) =>
        T.gradient(lossOf(made, drawn, ids, options), drawn)))
      assert.isTrue(flat(plain!.encoding).some((value) => value !== 0))
      agree(flat(recomputed), flat(plain))
    }))
})
