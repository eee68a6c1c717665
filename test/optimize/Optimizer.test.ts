import { assert, describe, it } from "@effect/vitest"
import { adamW } from "../../src/optimize/AdamW.ts"
import type { GradientMap, Step } from "../../src/optimize/Optimizer.ts"
import { chain, perTensor } from "../../src/optimize/Optimizer.ts"
import { sgd } from "../../src/optimize/Sgd.ts"
import type { Hidden } from "../../src/tensor/Hidden.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import type { Tensor } from "../../src/tensor/Tensor.ts"
import { mapAs } from "../../src/tensor/Tree.ts"
import { agree, constants, evaluate, flat } from "../law/Evaluation.ts"

const specification = {
  gain: Specification.real({ embed: 2 }), block: [{ matrix: Specification.real({ embed: 2, hidden: 3 }) }]
}

const step: Step = { learningRate: T.constant(0.1), count: T.constant(1), gradientNorm: T.constant(3) }

const emptyMemory = (optimizer: typeof sgd): Hidden => constants("zero", optimizer.memory(specification), 0)

const scaled = (factor: number): GradientMap => (gradients) =>
  mapAs<typeof gradients>()(gradients, T.isTensor, (leaf) => T.multiply(leaf as Tensor<string>, factor))

const shifted: GradientMap = (gradients, { gradientNorm }) =>
  mapAs<typeof gradients>()(gradients, T.isTensor, (leaf) => T.add(leaf as Tensor<string>, gradientNorm))

describe("sgd", () => {
  it("steps against the gradient and remembers nothing", () => {
    assert.deepStrictEqual(Specification.leaves(sgd.memory(specification)), [])
    const { after, gradients, parameters } = evaluate(() => {
      const [parameters, gradients] = [constants("w", specification), constants("g", specification)]
      const after = sgd.update({ gradients, memory: emptyMemory(sgd), parameters, step }).parameters
      return { after, gradients, parameters }
    })
    agree(flat(after), flat(parameters).map((w, i) => w - 0.1 * flat(gradients)[i]!))
  })
})

describe("chain", () => {
  it("maps the gradients in the order in which the maps stand, before the optimizer sees them", () => {
    const { after, gradients, parameters } = evaluate(() => {
      const [parameters, gradients] = [constants("w", specification), constants("g", specification)]
      const optimizer = chain(scaled(2), shifted, sgd)
      const after = optimizer.update({ gradients, memory: emptyMemory(sgd), parameters, step }).parameters
      return { after, gradients, parameters }
    })
    agree(flat(after), flat(parameters).map((w, i) => w - 0.1 * (2 * flat(gradients)[i]! + 3)))
  })

  it("keeps the memory of the optimizer, and one link is the optimizer itself", () => {
    assert.deepStrictEqual(chain(scaled(2), adamW()).memory(specification), adamW().memory(specification))
    assert.strictEqual(chain(scaled(2), chain(shifted, sgd)).memory, sgd.memory)
    const { alone, chained } = evaluate(() => {
      const [parameters, gradients] = [constants("w", specification), constants("g", specification)]
      const input = { gradients, memory: emptyMemory(sgd), parameters, step }
      return { alone: sgd.update(input).parameters, chained: chain(sgd).update(input).parameters }
    })
    assert.deepStrictEqual(flat(chained), flat(alone))
  })
})

describe("perTensor", () => {
  it("lets an optimizer of one's own be written in a few lines", () => {
    const momentum = perTensor(["velocity"], ({ learningRate }) => ({ gradient, memory, parameter }) => {
      const velocity = T.add(T.multiply(memory.velocity, 0.5), gradient)
      return { parameter: T.subtract(parameter, T.multiply(velocity, learningRate)), memory: { velocity } }
    })
    const { end, gradients, memory, parameters } = evaluate(() => {
      const [parameters, gradients] = [constants("w", specification), constants("g", specification)]
      const once = momentum.update({ gradients, memory: emptyMemory(momentum), parameters, step })
      const twice = momentum.update({ gradients, step, ...once })
      return { parameters, gradients, end: twice.parameters, memory: twice.memory }
    })
    agree(flat(memory), flat(gradients).map((g) => 1.5 * g))
    agree(flat(end), flat(parameters).map((w, i) => w - 0.1 * 2.5 * flat(gradients)[i]!))
  })

  it("names a tensor that the gradients or the memory lack", () => {
    const parameters = constants("w", specification)
    const memory = emptyMemory(adamW())
    const lacking = { gain: parameters.gain, block: [] as unknown as typeof parameters.block }
    assert.throws(
      () => sgd.update({ gradients: lacking, memory, parameters, step }),
      "optimizer: no \"block.0.matrix\" in the gradients; give those of the same parameters and optimizer"
    )
    assert.throws(
      () => adamW().update({ gradients: parameters, memory: emptyMemory(sgd), parameters, step }),
      "optimizer: no \"first.gain\" in the memory; give those of the same parameters and optimizer"
    )
  })
})
