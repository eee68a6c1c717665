import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { tokenCrossEntropy } from "../../src/loss/CrossEntropy.ts"
import * as T from "../../src/tensor/Tensor.ts"
import {
  agree, evaluate, hasTheSlopeOfDifferences, normals, numbers, pullsBackAsItsDecomposition, someIds
} from "../law/Evaluation.ts"

const shape = fc.record({
  seed: fc.nat(), batch: fc.integer({ min: 1, max: 2 }), position: fc.integer({ min: 1, max: 3 }),
  vocab: fc.integer({ min: 1, max: 7 })
})

interface Sizes {
  readonly seed: number
  readonly batch: number
  readonly position: number
  readonly vocab: number
}

const inputsOf = ({ batch, position, seed, vocab }: Sizes) => ({
  logits: normals(seed, { batch, position, vocab }, 3),
  targets: someIds(seed, { batch, position }, vocab)
})

const inOrder = ["batch", "position"]

describe("tokenCrossEntropy", () => {
  it("is −log softmax at the target, by plain loops", () => {
    fc.assert(fc.property(shape, (sizes) => {
      const { logits, targets } = inputsOf(sizes)
      const [z, t] = [numbers(logits), numbers(T.real(targets))]
      const expected = t.map((target, i) => {
        const row = z.slice(i * sizes.vocab, (i + 1) * sizes.vocab)
        return -Math.log(Math.exp(row[target]!) / row.reduce((sum, value) => sum + Math.exp(value), 0))
      })
      agree(numbers(tokenCrossEntropy(logits, targets), inOrder), expected)
    }), { numRuns: 30 })
  })

  it("does not see a shift of all logits of a token", () => {
    fc.assert(fc.property(shape, (sizes) => {
      const { logits, targets } = inputsOf(sizes)
      const shift = normals("shift", { batch: sizes.batch, position: sizes.position }, 100)
      agree(
        numbers(tokenCrossEntropy(T.add(logits, shift), targets), inOrder),
        numbers(tokenCrossEntropy(logits, targets), inOrder), 1e-9
      )
    }), { numRuns: 20 })
  })

  it("is log V where all are alike", () => {
    const loss = tokenCrossEntropy(T.fill({ position: 1, vocab: 32_000 }, 5), T.ids({ position: 1 }, [77]))
    agree(numbers(loss), [Math.log(32_000)])
  })

  it("stays finite, with its gradient, where logits are huge", () => {
    const logits = T.values({ position: 2, vocab: 2 }, [1e30, -1e30, 1e30, -1e30])
    const { gradient, loss } = evaluate(() => {
      const loss = tokenCrossEntropy(logits, T.ids({ position: 2 }, [0, 1]))
      return { loss, gradient: T.gradient(T.sum(loss, "position"), logits) }
    })
    assert.deepStrictEqual([...loss.elements], [0, 2e30])
    assert.deepStrictEqual([...gradient.elements], [0, 0, 1, -1])
  })

  it("has a gradient that sums to zero over the vocabulary: softmax less one at the target", () => {
    const { logits, targets } = inputsOf({ seed: 3, batch: 2, position: 2, vocab: 5 })
    const { gradient, probability } = evaluate(() => ({
      gradient: T.gradient(T.sum(tokenCrossEntropy(logits, targets), ["batch", "position"]), logits),
      probability: T.subtract(logits.pipe(T.softmax("vocab")), T.oneHot(targets, "vocab", 5))
    }))
    agree([...gradient.elements], [...probability.elements])
  })

  it("pulls back as its decomposition does, and as differences say", () => {
    fc.assert(fc.property(shape, (sizes) => {
      const { logits, targets } = inputsOf(sizes)
      pullsBackAsItsDecomposition({ logits }, (inputs) => tokenCrossEntropy(inputs.logits, targets))
      hasTheSlopeOfDifferences({ logits }, (inputs) => tokenCrossEntropy(inputs.logits, targets))
    }), { numRuns: 20 })
  })

  it("can be differentiated twice: the gradient of a gradient", () => {
    const { logits, targets } = inputsOf({ seed: 5, batch: 1, position: 2, vocab: 4 })
    hasTheSlopeOfDifferences({ logits }, (inputs) =>
      T.gradient(T.sum(tokenCrossEntropy(inputs.logits, targets), ["batch", "position"]), inputs.logits))
  })
})
