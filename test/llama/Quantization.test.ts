/**
 * A coded model is the model over the weights that its codes stand for; what is coded, what is refused.
 */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { type AnyCell, Backend, type Elements } from "../../src/backend/Backend.ts"
import { isCell } from "../../src/backend/HostState.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as Config from "../../src/llama/Config.ts"
import { draws } from "../../src/llama/Initialization.ts"
import * as Quantization from "../../src/llama/Quantization.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { causal } from "../../src/llama/Visibility.ts"
import * as Key from "../../src/random/Key.ts"
import * as BlockCodes from "../../src/tensor/BlockCodes.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import { leaves } from "../../src/tensor/Specification.ts"
import type * as T from "../../src/tensor/Tensor.ts"
import { entries } from "../../src/tensor/Tree.ts"

const model = Transformer.llama(Config.make({
  vocabSize: 11, embedSize: 32, layerCount: 2, headCount: 4, kvHeadCount: 2, headSize: 16, hiddenSize: 96,
  contextLength: 8
}))

const heads = ["kvHead", "group", "part", "plane"]

const whole = <P>(model: Transformer.Transformer<P>) =>
  Program.makeGeneric("whole", {
    inputs: { ids: Specification.ids({ batch: 1, position: 8 }) }, state: { parameters: model.specification }
  }, ({ ids }, state) => {
    const parameters = state.parameters as P
    return { outputs: { logits: model.logits(parameters, model.hidden(parameters, { ids, visibility: causal })) } }
  })

const logitsOf = <P>(model: Transformer.Transformer<P>, parameters: unknown) => Effect.gen(function*() {
  const backend = yield* Backend
  const executable = yield* Effect.flatMap(whole(model), (program) => backend.compile(program))
  const bound = yield* executable.bind({ parameters } as never)
  const { logits } = yield* bound.run({ ids: Int32Array.from({ length: 8 }, (_, i) => i) })
  return logits.elements
})

const floats = (seed: number) => Effect.flatMap(Backend, (backend) => {
  const draw = draws(Key.make(seed), model.specification)
  return backend.allocate(model.specification, { initial: (path) => draw(path)?.map((weight) => weight * 10) })
})

/** Weights that a coded model stands for, written out by the reference. */
const decoded = (quantized: Quantization.Quantized, cells: unknown) => Effect.gen(function*() {
  const backend = yield* Backend
  const byPath = new Map(entries(cells, isCell))
  const target = yield* backend.allocate(Specification.zeros(model.specification))
  const targets = new Map(entries(target, isCell))
  for (const [path, { sizes }] of leaves(model.specification)) {
    const over = quantized.coded.get(path)
    if (over === undefined) {
      yield* backend.copy(byPath.get(path), targets.get(path))
      continue
    }
    const coded = { codes: byPath.get(`${path}.codes`), scales: byPath.get(`${path}.scales`) }
    const specification = BlockCodes.specification(sizes, over, quantized.scheme)
    const coding = BlockCodes.codingOf(quantized.scheme)
    const into = Object.fromEntries(over.map((axis) => [axis, sizes[axis]!]))
    const program = yield* Program.makeGeneric("decode", { inputs: {}, state: { coded: specification } },
      (_, state): { outputs: { weights: T.Any } } => ({
        outputs: { weights: BlockCodes.dequantize(state.coded as never, into, coding) as T.Untyped }
      }))
    const { weights } = yield* Effect.flatMap(backend.compile(program), ({ bind }) =>
      Effect.flatMap(bind({ coded } as never), ({ run }) => run({})))
    // the axes that are summed come last: back to the order of the model
    const { elements, sizes: order } = weights as { elements: Elements; sizes: Record<string, number> }
    const turned = new Float64Array(elements.length)
    const names = Object.keys(order)
    const stride = (axis: string) => Object.keys(sizes).slice(Object.keys(sizes).indexOf(axis) + 1)
      .reduce((product, name) => product * sizes[name]!, 1)
    elements.forEach((element, flat) => {
      let [left, at] = [flat, 0]
      for (const axis of names.toReversed()) {
        at += left % order[axis]! * stride(axis)
        left = Math.floor(left / order[axis]!)
      }
      turned[at] = element
    })
    yield* backend.write(targets.get(path) as AnyCell, turned)
  }
  return target
})

layer(Reference.layer)("a coded model", (it) => {
  it.effect("has codes for what it contracts, and keeps the rest", () => Effect.gen(function*() {
    const quantized = yield* Quantization.quantized(model, Quantization.schemes["8-bit"])
    const attention = (i: number): ReadonlyArray<[string, ReadonlyArray<string>]> => [
      [`block.${i}.attention.query`, ["embed"]], [`block.${i}.attention.key`, ["embed"]],
      [`block.${i}.attention.value`, ["embed"]], [`block.${i}.attention.output`, heads],
      [`block.${i}.feedForward.gate`, ["embed"]], [`block.${i}.feedForward.up`, ["embed"]],
      [`block.${i}.feedForward.down`, ["hidden"]]
    ]
    assert.sameDeepMembers([...quantized.coded], [...attention(0), ...attention(1), ["head", ["embed"]]])
    const kept = leaves(quantized.specification).map(([path]) => path)
      .filter((path) => !path.endsWith(".codes") && !path.endsWith(".scales"))
    assert.sameMembers(kept, ["embedding", "block.0.attentionNorm.gain", "block.0.feedForwardNorm.gain",
      "block.1.attentionNorm.gain", "block.1.feedForwardNorm.gain", "norm.gain"])
  }))

  const widths = ["8-bit", "8-bit-rows", "4-bit"] as const
  it.effect.each(widths)("of %s weights computes with what its codes stand for", (width) =>
    Effect.gen(function*() {
      const parameters = yield* floats(1)
      const quantized = yield* Quantization.quantized(model, Quantization.schemes[width])
      const cells = yield* Quantization.fromCells(quantized, parameters)
      const found = yield* logitsOf(quantized, cells)
      const wanted = yield* logitsOf(model, yield* decoded(quantized, cells))
      found.forEach((logit, i) => assert.closeTo(logit, wanted[i]!, 1e-9))
      const exact = yield* logitsOf(model, parameters)
      const distance = Math.hypot(...found.map((logit, i) => logit - exact[i]!)) / Math.hypot(...exact)
      assert.isAbove(distance, 1e-4)
      if (width !== "4-bit") assert.isBelow(distance, 0.1) // 4 bits are too few for weights as wild as these
    }))

  it.effect("has blocks as long as its sizes allow", () => Effect.gen(function*() {
    const { "24M": small, "7B": large } = Config.presets
    assert.deepStrictEqual(Quantization.schemeOf("8-bit", large), { bits: 8, block: 64 })
    assert.deepStrictEqual(Quantization.schemeOf("4-bit", large), { bits: 4, block: 32 })
    for (const odd of [small, { ...large, embedSize: 4128 }, { ...large, hiddenSize: 11040 }, {
      ...large, headCount: 33, headSize: 96
    }]) assert.deepStrictEqual(Quantization.schemeOf("8-bit", odd), { bits: 8, block: 32 })
    const wide = Transformer.llama({ ...model.config, embedSize: 64, hiddenSize: 192 })
    yield* Quantization.quantized(wide, Quantization.schemeOf("8-bit", wide.config)) // refuses what it cannot cut
  }))

  it.effect("is filled from any source, one tensor after the other, and sealed", () => Effect.gen(function*() {
    const quantized = yield* Quantization.quantized(model, Quantization.schemes["8-bit"])
    const asked: Array<string> = []
    const cells = yield* Quantization.load(quantized, (path, sizes) => Effect.sync(() => {
      asked.push(path)
      return new Float32Array(Object.values(sizes).reduce((product, size) => product * size, 1)).fill(asked.length)
    }))
    assert.deepStrictEqual(asked, leaves(model.specification).map(([path]) => path))
    const backend = yield* Backend
    const all = new Map(entries(cells, isCell))
    const { codes, scales } = yield* backend.read({
      codes: all.get("head.codes")!, scales: all.get("head.scales")!
    })
    assert.deepStrictEqual([...new Set(codes.elements)], [255])
    assert.closeTo(scales.elements[0]!, asked.length / 127, 1e-6)
    for (const [path, cell] of all) {
      const { elements } = (yield* backend.read({ cell })).cell
      assert.include((yield* Effect.flip(backend.write(cell, elements))).message, "has been sealed", path)
    }
  }))

  it.effect("is refused where blocks do not divide a width, and for weights that are no numbers", () =>
    Effect.gen(function*() {
      const odd = Transformer.llama(Config.make({
        vocabSize: 11, embedSize: 24, layerCount: 1, headCount: 2, hiddenSize: 32, contextLength: 8
      }))
      const error = yield* Effect.flip(Quantization.quantized(odd, Quantization.schemes["4-bit"]))
      assert.include(error.message, "block codes, in block.0.attention.query: the block must be a power of two " +
        "from 16 on that divides 24")
      yield* Quantization.quantized(odd, Quantization.schemes["8-bit-rows"]) // rows are of any length
      const quantized = yield* Quantization.quantized(model, Quantization.schemes["4-bit"])
      const damaged = yield* Effect.flip(Quantization.load(quantized, (_, sizes) => Effect.sync(() =>
        new Float32Array(Object.values(sizes).reduce((product, size) => product * size, 1)).fill(NaN))))
      assert.include(damaged.message, "block codes: element 0 of the weights is NaN")
    }))
})
