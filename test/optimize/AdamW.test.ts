import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Options } from "../../src/optimize/AdamW.ts"
import { adamW } from "../../src/optimize/AdamW.ts"
import type { Hidden } from "../../src/tensor/Hidden.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { constants, agree, evaluate, flat, normals } from "../law/Evaluation.ts"

const specification = { matrix: Specification.real({ embed: 2, hidden: 3 }), gain: Specification.real({ embed: 2 }) }

type Parameters = Specification.Tensors<typeof specification>

const treeOf = (seed: string): Parameters => ({
  gain: normals(`${seed} gain`, { embed: 2 }), matrix: normals(`${seed} matrix`, { embed: 2, hidden: 3 })
})

/** Parameters after some updates with drawn gradients, and after the last one the memory. */
const run = (options: Options, learningRates: ReadonlyArray<number>, gradient: (step: number) => Parameters) => {
  const optimizer = adamW(options)
  let memory: Hidden = constants("zero", optimizer.memory(specification), 0)
  let parameters = treeOf("start")
  learningRates.forEach((rate, i) => {
    const step = { learningRate: T.constant(rate), count: T.constant(i + 1), gradientNorm: T.constant(1) }
    const updated = optimizer.update({ gradients: gradient(i + 1), memory, parameters, step })
    memory = updated.memory
    parameters = updated.parameters
  })
  return { memory, parameters }
}

/** The textbook form, on one number. */
const textbook = (
  start: number, gradients: ReadonlyArray<number>, rates: ReadonlyArray<number>,
  { beta1, beta2, decay, epsilon }: { beta1: number; beta2: number; decay: number; epsilon: number }
) => {
  let [w, m, v] = [start, 0, 0]
  gradients.forEach((g, i) => {
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    const [mean, size] = [m / (1 - beta1 ** (i + 1)), v / (1 - beta2 ** (i + 1))]
    w = w - rates[i]! * (mean / (Math.sqrt(size) + epsilon)) - rates[i]! * decay * w
  })
  return { w, m, v }
}

const rates = fc.array(fc.double({ min: 1e-4, max: 0.5, noNaN: true }), { minLength: 1, maxLength: 6 })
const beta = fc.double({ min: 0, max: 0.999, noNaN: true })

describe("adamW", () => {
  it("is the textbook form, with scaled moments; only the matrix decays", () => {
    fc.assert(fc.property(rates, beta, beta, fc.constantFrom(1e-8, 1e-5, 1), (learningRates, beta1, beta2, epsilon) => {
      const options = { beta1, beta2, epsilon, weightDecay: 0.3 }
      const { end, gradients, start } = evaluate(() => ({
        start: treeOf("start"),
        gradients: learningRates.map((_, i) => treeOf(`gradient ${i}`)),
        end: run(options, learningRates, (step) => treeOf(`gradient ${step - 1}`))
      }))
      const expected = flat(start).map((w, i) => textbook(w, gradients.map((tree) => flat(tree)[i]!), learningRates, {
        ...options, decay: i < 2 ? 0 : 0.3 // the gain comes first
      }))
      agree(flat(end.parameters), expected.map(({ w }) => w), 1e-9)
      agree(flat(end.memory), [
        ...expected.map(({ m }) => m / (1 - beta1)), ...expected.map(({ v }) => v / (1 - beta2))
      ], 1e-9)
    }), { numRuns: 25 })
  })

  it("without gradients is pure decay, of matrices alone", () => {
    const none = (): Parameters => ({ gain: T.fill({ embed: 2 }, 0), matrix: T.fill({ embed: 2, hidden: 3 }, 0) })
    const { end, start } = evaluate(() => ({
      start: treeOf("start"), end: run({ weightDecay: 0.1 }, [0.5, 0.2], none).parameters
    }))
    agree([...end.matrix.elements], [...start.matrix.elements].map((w) => w * (1 - 0.05) * (1 - 0.02)))
    agree([...end.gain.elements], [...start.gain.elements])
  })

  it("decays what it is told to", () => {
    const decays = (path: string, axisCount: number) => path === "gain" && axisCount === 1
    const { one, two } = evaluate(() => ({
      one: run({ weightDecay: 0.5, decays }, [0.1], () => treeOf("g")).parameters,
      two: run({ weightDecay: 0 }, [0.1], () => treeOf("g")).parameters
    }))
    agree([...one.matrix.elements], [...two.matrix.elements])
    assert.isTrue([...one.gain.elements].every((w, i) => w !== two.gain.elements[i]))
  })

  it("moves every coordinate by the learning rate at first, whatever the size of its gradient", () => {
    const { end, gradient, start } = evaluate(() => ({
      start: treeOf("start"), gradient: treeOf("g"),
      end: run({ epsilon: 1e-12, weightDecay: 0 }, [0.01], () => treeOf("g")).parameters
    }))
    const signs = flat(gradient).map(Math.sign)
    agree(flat(end), flat(start).map((w, i) => w - 0.01 * signs[i]!), 1e-8)
  })

  it("refuses numbers with which no update is one", () => {
    for (const options of [{ beta1: 1 }, { beta2: -0.1 }, { epsilon: 0 }, { weightDecay: NaN }]) {
      assert.throws(() => adamW(options), /adamW: 0 ≤ beta1 < 1, 0 ≤ beta2 < 1, epsilon > 0 and weightDecay ≥ 0, got/)
    }
  })

  it("remembers, at first.path and second.path, tensors that begin at zero", () => {
    const drawn = Specification.real({ embed: 4 }, { _tag: "Normal", deviation: 1 })
    assert.deepStrictEqual(
      Specification.leaves(adamW().memory({ block: [{ gain: drawn }] })),
      ["first", "second"].map((slot) => [`${slot}.block.0.gain`, Specification.real({ embed: 4 })] as const)
    )
  })
})
