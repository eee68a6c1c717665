/**
 * Decoding on ONNX Runtime: the cache lies still, and each token has the probability that the reference gives it.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { Backend } from "../../../src/backend/Backend.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/OnnxRuntime.ts"
import * as Reference from "../../../src/backend/Reference.ts"
import { emit } from "../../../src/backend/onnx/Emit.ts"
import { joinProducts } from "../../../src/backend/onnx/JoinedProducts.ts"
import { hasKernel } from "../../../src/backend/onnx/Kernel.ts"
import { program } from "../../../src/generate/CachedProgram.ts"
import { collect } from "../../../src/generate/Answer.ts"
import * as Decoder from "../../../src/generate/Decoder.ts"
import * as Masses from "../../../src/generate/Masses.ts"
import type { Place } from "../../../src/generate/Request.ts"
import { logProbability, sampling } from "../../../src/generate/Sampling.ts"
import * as Scoring from "../../../src/generate/Scoring.ts"
import * as KeyValueCache from "../../../src/llama/KeyValueCache.ts"
import * as Transformer from "../../../src/llama/Transformer.ts"
import * as Key from "../../../src/random/Key.ts"
import { count } from "../../../src/tensor/Node.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as Tokenizer from "../../../src/token/Tokenizer.ts"
import {
  codec, contextLength, divisible, divisibleParameters, model, parameters, whole
} from "../../generate/models.ts"
import { composed, single } from "../../law/Tolerance.ts"

layer(Layer.merge(OnnxRuntime.layer(), Layer.succeed(Tokenizer.Tokenizer, codec)))("decoding", (it) => {
  it.effect.each([[2, 1], [2, 3], [1, 3]] as const)("replaces the cache where it lies: %d blocks of %d", (
    [batch, position]
  ) =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* Program.make("block", {
        inputs: { ids: Specification.ids({ batch, position }), starts: Specification.ids({ batch }) },
        state: {
          parameters: model.specification,
          cache: KeyValueCache.specification(model.config, { batch, source: contextLength })
        }
      }, (inputs, state) => {
        const { cache, hidden } = KeyValueCache.extend(model, state.parameters, state.cache, inputs)
        return { outputs: { hidden }, state: { cache } }
      })
      const { placement } = yield* backend.compile(program)
      assert.deepStrictEqual(placement.copied, [])
      assert.strictEqual(placement.inPlace.length, 2 * model.config.layerCount)
    }))

  it.effect.each([1, 3, 33])("takes as few operators for a block of the model as there can be: %d sequences", (batch) =>
    Effect.gen(function*() {
      const operators = Effect.fnUntraced(function*(layerCount: number, isFrozen: boolean) {
        const own = Transformer.llama({ ...divisible.config, layerCount })
        const lowered = Program.lower(
          yield* program("step", own, { batch, position: 1, source: contextLength }), { hasKernel, watch: [] })
        const constants = new Map(lowered.cells.flatMap(({ name, sizes }) =>
          isFrozen && name.startsWith("parameters") ? [[name, new Uint8Array(4 * count(sizes))] as const] : []))
        const joined = joinProducts(lowered, constants)
        return emit(joined.lowered, "f32", joined.constants).graph.nodes.map(({ op }) => op)
      })
      const ofOneMore = Effect.fnUntraced(function*(isFrozen: boolean) {
        const all = yield* operators(3, isFrozen)
        for (const op of yield* operators(2, isFrozen)) all.splice(all.indexOf(op), 1)
        return all.toSorted()
      })
      const few = ["GroupQueryAttention", "Mul", "QuickGelu"]
      const adds = Array<string>(2).fill("SkipSimplifiedLayerNormalization")
      const products = (count: number) => Array<string>(count).fill("MatMul")
      if (batch <= 32) {
        assert.deepStrictEqual(yield* ofOneMore(false), [...few, ...products(7), ...adds].toSorted())
        assert.deepStrictEqual(yield* ofOneMore(true), [...few, ...products(4), "Split", ...adds].toSorted())
      } else {
        const rows = [...Array<string>(2).fill("Gemm"), ...Array<string>(2).fill("SimplifiedLayerNormalization")]
        const apart = [...few, ...products(5), ...rows, ...Array<string>(4).fill("Reshape")].toSorted()
        assert.deepStrictEqual(yield* ofOneMore(true), apart)
      }
    }))

  it.effect.each([
    [2, 1, "by tables"], [2, 1, "before"], [1, 3, "before"]
  ] as const)("refuses places outside the cache, which stays as it is: %d blocks of %d, heads turned %s", (
    [batch, position, turned]
  ) =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const [own, weights] = turned === "by tables" ? [divisible, yield* divisibleParameters]
        : [model, yield* parameters(3)]
      const cache = KeyValueCache.specification(own.config, { batch, source: contextLength })
      const program = yield* Program.make("step", {
        inputs: { ids: Specification.ids({ batch, position }), starts: Specification.ids({ batch }) },
        state: { parameters: own.specification, cache }
      }, (inputs, state) => {
        const { cache, hidden } = KeyValueCache.extend(own, state.parameters, state.cache, inputs)
        return { outputs: { hidden }, state: { cache } }
      })
      const cells = yield* backend.allocate(cache)
      const { run } = yield* (yield* backend.compile(program)).bind({ parameters: weights, cache: cells })
      const ids = Int32Array.from({ length: batch * position }, (_, i) => i + 1)
      const starts = (first: number) => Int32Array.of(first, 0).subarray(0, batch)
      yield* run({ ids, starts: starts(contextLength - position) })
      const before = yield* backend.read(cells)
      for (const start of [contextLength - position + 1, contextLength, contextLength + 1, 2 ** 31 - 1]) {
        const { detail } = yield* Effect.flip(run({ ids, starts: starts(start) }))
        assert.include(detail, "attendKept")
      }
      assert.deepStrictEqual(yield* backend.read(cells), before)
    }))

  it.effect.each([
    { temperature: 0.8, topK: 50 }, { temperature: 1 }, { temperature: 0.8, topP: 0.9 }
  ])("gives each token the probability that the reference gives it, by %o", (options) =>
    Effect.gen(function*() {
      const rule = sampling(options)
      const prompts = [[1], [1, 70, 260], [1, 9, 8, 7, 6, 5, 4]]
      const request = { prompts, candidates: 2, maximumTokens: 5, rule, key: Key.make(4), stopIds: [] }
      const cells = yield* parameters(3)
      const decoder = yield* Decoder.make({ model, parameters: cells })
      const wide = yield* Decoder.make({ model, parameters: cells, slots: 4, blockLengths: [2], frozen: true })
      const alone = yield* collect(decoder.generate(request))
      const together = yield* collect(wide.generate(request))
      assert.deepStrictEqual(together.map(({ ids, text }) => [ids, text]), alone.map(({ ids, text }) => [ids, text]))
      const reference = Effect.gen(function*() {
        const full = yield* (yield* Backend).compile(yield* whole)
        const { run } = yield* full.bind({ parameters: yield* parameters(3) })
        for (const { ids, item, logProbs } of [...alone, ...together]) {
          const before = prompts[item]!
          const all = Int32Array.from({ length: contextLength }, (_, i) => [...before, ...ids][i] ?? 0)
          const { logits } = yield* run({ ids: all })
          ids.forEach((id, i) => {
            const place = before.length + i
            const row = logits.elements.subarray((place - 1) * codec.vocabSize, place * codec.vocabSize)
            assert.closeTo(logProbs[i]!, logProbability(rule(row), id), composed)
          })
        }
      })
      yield* Effect.provide(reference, Reference.layer)
    }))

  it.effect("weighs runs beside the scores, and names no top where there is none", () =>
    Effect.gen(function*() {
      const rows = 3
      const length = 128
      const weigh = yield* (yield* Masses.make(rows, 2 * length))(sampling({ temperature: 0.25 }))
      for (let strange = 0; strange < 2 * length; strange += 5) {
        const logits = new Float32Array(rows * 2 * length).map((_, i) => 900 + i % 7 / 4)
        logits.set([Infinity], strange)
        logits.set([NaN], 2 * length + strange)
        logits.set([-Infinity], 4 * length + strange)
        const { masses, tops } = yield* weigh({ logits }, (scores) => Effect.succeed(structuredClone(scores)))
        const own = strange < length ? 0 : 1
        assert.deepStrictEqual([tops![own], tops![2 + own], tops![5 - own]], [Infinity, NaN, 901.5])
        const weights = [...logits.subarray(4 * length)].map((logit) => Math.exp((logit - 901.5) * 4))
        for (const run of [0, 1]) {
          const mass = weights.slice(run * length, (run + 1) * length).reduce((sum, weight) => sum + weight)
          assert.closeTo(masses!.runs[4 + run]! / mass, 1, single)
        }
        assert.strictEqual(masses!.inverse, 4)
      }
    }))

  it.effect("gives the same tokens with a draft, and the same probabilities", () =>
    Effect.gen(function*() {
      const [plain, cells] = [divisible, yield* divisibleParameters]
      const rule = sampling({ temperature: 0.8, topK: 50 })
      const request = {
        prompts: [[1], [1, 70, 260]], candidates: 2, maximumTokens: 8, rule, key: Key.make(4), stopIds: []
      }
      const alone = yield* collect((yield* Decoder.make({ model: plain, parameters: cells })).generate(request))
      for (const frozen of [false, true]) {
        const decoder = yield* Decoder.make({ model: plain, parameters: cells, frozen, draft: "8-bit" })
        const drafted = yield* collect(decoder.generate(request))
        assert.deepStrictEqual(drafted.map(({ ids, text }) => [ids, text]), alone.map(({ ids, text }) => [ids, text]))
        drafted.forEach(({ logProbs }, i) =>
          logProbs.forEach((logProb, t) => assert.closeTo(logProb, alone[i]!.logProbs[t]!, composed)))
      }
    }))

  it.effect("changes no bit of a sequence by what runs beside it, and scores what it sampled", () =>
    Effect.gen(function*() {
      const cells = yield* parameters(5)
      const rule = sampling({ temperature: 0.9, topP: 0.95 })
      const prompts = [[1], [1, 70, 260, 9, 8], [1, 9, 8, 7, 6, 5, 4], [1, 33], [1, 44, 55]]
      const settings = { candidates: 3, maximumTokens: 5, rule, key: Key.make(6), stopIds: [70, 71, 72, 73] }
      const decoder = yield* Decoder.make({ model, parameters: cells, slots: 4, blockLengths: [2, 8] })
      const together = yield* collect(decoder.generate({ prompts, ...settings }))
      const alone = yield* Effect.forEach(prompts, (ids, item) =>
        collect(decoder.generateFrom(Stream.make({ item, ids }), settings)))
      const name = ({ candidate, item }: Place) => `${item} ${candidate}`
      const expected = new Map(alone.flat().map((answer) => [name(answer), answer]))
      assert.strictEqual(together.length, expected.size)
      for (const answer of together) assert.deepStrictEqual(answer, expected.get(name(answer)))

      const scorer = yield* Scoring.make({ model, parameters: cells, slots: 4, blockLength: 8, rule })
      const given = together.map(({ ids, item }) => ({ item, prompt: prompts[item]!, answer: ids }))
      const scores = yield* Stream.runCollect(scorer.score(Stream.fromIterable(given)))
      scores.forEach(({ logProbs }, i) =>
        logProbs.forEach((logProb, t) => assert.closeTo(logProb, together[i]!.logProbs[t]!, composed)))
    }))
})
