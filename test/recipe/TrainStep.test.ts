import { assert, layer } from "@effect/vitest"
import { Cause, Effect } from "effect"
import * as fc from "fast-check"
import { Backend, type Elements } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import { maskedMean } from "../../src/loss/Mask.ts"
import { adamW } from "../../src/optimize/AdamW.ts"
import { clipByGlobalNorm } from "../../src/optimize/Clip.ts"
import { chain } from "../../src/optimize/Optimizer.ts"
import { sgd } from "../../src/optimize/Sgd.ts"
import * as TrainStep from "../../src/recipe/TrainStep.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"

const total = 8
const embed = 3

/** A regression whose loss goes through a logarithm, so that data can make it a NaN. */
const regression = (rows: number) =>
  TrainStep.make({
    name: "regression",
    inputs: {
      x: Specification.real({ batch: rows, embed }), mask: Specification.real({ batch: rows }),
      count: Specification.real({})
    },
    parameters: { layer: { weight: Specification.real({ embed }), bias: Specification.real({}) } },
    optimizer: chain(clipByGlobalNorm(1), adamW()),
    loss: ({ layer: { bias, weight } }, { count, mask, x }) => {
      const product = T.within("layer", () => T.add(T.contract(x, weight, "embed"), bias).pipe(T.label("product")))
      const surprise = T.log(product).pipe(T.label("surprise"))
      return { loss: maskedMean(T.square(surprise), mask, count), outputs: { surprise } }
    },
    initial: () => undefined
  })

const begin = Effect.fnUntraced(function*(rows: number) {
  const backend = yield* Backend
  const step = yield* regression(rows)
  yield* backend.write(step.parameters.layer.weight, Float64Array.of(0.5, 1.5, 0.25))
  yield* backend.write(step.parameters.layer.bias, Float64Array.of(1))
  const read = Effect.map(
    backend.read(step.parameters), ({ layer: { bias, weight } }) => [...weight.elements, ...bias.elements])
  return { ...step, read }
})

const given = (x: ReadonlyArray<number>, rows: number,
  part: number): { x: Elements & Float64Array; mask: Float64Array; count: number } => ({
  x: Float64Array.from(x.slice(part * rows * embed, (part + 1) * rows * embed)),
  mask: Float64Array.from({ length: rows }, (_, row) => (part * rows + row) % 3 === 0 ? 0 : 1),
  count: Array.from({ length: total }, (_, row) => row % 3 === 0 ? 0 : 1).reduce<number>((sum, one) => sum + one, 0)
})

const describeBatch = (part: number) => `rows of part ${part}`

layer(Reference.layer)("TrainStep", (it) => {
  it.effect("gives the step of the big batch for any split into micro-batches", () =>
    Effect.promise(() => fc.assert(
      fc.asyncProperty(
        fc.array(fc.double({ min: 0.1, max: 2, noNaN: true }), { minLength: total * embed, maxLength: total * embed }),
        fc.constantFrom(2, 4, 8),
        (x, parts) => Effect.runPromise(Effect.scoped(Effect.gen(function*() {
          const results = []
          for (const count of [1, parts]) {
            const rows = total / count
            const train = yield* begin(rows)
            const reports = []
            for (const step of [1, 2, 3]) {
              reports.push(yield* train.run({
                step, learningRate: 0.1, describe: describeBatch,
                microBatches: Array.from({ length: count }, (_, part) => given(x, rows, part))
              }))
            }
            results.push([...reports.flatMap(({ gradientNorm, loss }) => [gradientNorm, loss]), ...yield* train.read])
          }
          const [whole = [], split = []] = results
          whole.forEach((value, i) => assert.closeTo(split[i] ?? NaN, value, 1e-9 * Math.max(1, Math.abs(value))))
        })).pipe(Effect.provide(Reference.layer)))
      ),
      { numRuns: 15 }
    )))

  it.effect("names the first inner value that is not finite, and changes no parameter", () =>
    Effect.gen(function*() {
      const train = yield* begin(total / 2)
      const before = yield* train.read
      const bad = given(Array.from({ length: total * embed }, (_, i) => i === 15 ? -9 : 0.5), total / 2, 1)
      const error = yield* Effect.flip(train.run({
        step: 7, learningRate: 0.1, describe: describeBatch,
        microBatches: [given(Array.from({ length: total * embed }, () => 0.5), total / 2, 0), bad]
      }))
      assert.strictEqual(error.message, [
        "step 7: every number must be finite, and surprise is NaN at element 1",
        "  in micro-batch 2: rows of part 1",
        "  No parameter was changed by this step, the snapshots are intact. Usual causes: a learning rate too high",
        "  or a warm-up too short: train on from a snapshot with a lower one. If it fails at once: damaged weights."
      ].join("\n"))
      assert.deepStrictEqual(yield* train.read, before)
    }))

  it.effect("names a parameter that is not finite before anything that is made of it", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const train = yield* begin(total)
      yield* backend.write(train.parameters.layer.weight, Float64Array.of(1, Infinity, 1))
      const error = yield* Effect.flip(train.run({
        step: 1, learningRate: 0.1, describe: describeBatch,
        microBatches: [given(Array.from({ length: total * embed }, () => 0.5), total, 0)]
      }))
      assert.isTrue(error._tag === "NonFiniteError" && error.tensor === "parameter layer.weight" && error.element === 1)
    }))

  it.effect("names a gradient that is not finite where the loss is", () =>
    Effect.gen(function*() {
      const train = yield* TrainStep.make({
        name: "root",
        inputs: { x: Specification.real({ batch: 1 }) },
        parameters: { weight: Specification.real({ batch: 1 }) },
        optimizer: adamW(),
        // √0: slope ∞
        loss: ({ weight }, { x }) => ({ loss: T.sum(T.sqrt(T.multiply(weight, x)), "batch"), outputs: {} }),
        initial: () => undefined
      })
      const error = yield* Effect.flip(train.run({
        step: 1, learningRate: 0.1, describe: describeBatch, microBatches: [{ x: Float64Array.of(1) }]
      }))
      assert.isTrue(error._tag === "NonFiniteError" && error.tensor === "gradient weight")
    }))

  it.effect("names the micro-batch whose gradient is not finite, be it not the last", () =>
    Effect.gen(function*() {
      const train = yield* TrainStep.make({
        name: "root",
        inputs: { x: Specification.real({ batch: 1 }) },
        parameters: { weight: Specification.real({ batch: 1 }) },
        optimizer: adamW(),
        loss: ({ weight }, { x }) => ({ loss: T.sum(T.sqrt(T.add(weight, x)), "batch"), outputs: {} }),
        initial: () => undefined
      })
      const error = yield* Effect.flip(train.run({
        step: 1, learningRate: 0.1, describe: describeBatch,
        microBatches: [1, 0, 4].map((x) => ({ x: Float64Array.of(x) }))
      }))
      assert.isTrue(error._tag === "NonFiniteError" && error.tensor === "gradient weight")
      assert.include(error.message, "in micro-batch 2: rows of part 1")
    }))

  it.effect("names step and micro-batch where nobody describes the data", () =>
    Effect.gen(function*() {
      const train = yield* begin(total)
      const bad = given(Array.from({ length: total * embed }, () => -9), total, 0)
      const error = yield* Effect.flip(train.run({ step: 7, learningRate: 0.1, microBatches: [bad] }))
      assert.strictEqual(error.message.split("\n").slice(0, 2).join("\n"), [
        "step 7: every number must be finite, and surprise is NaN at element 0",
        "  in micro-batch 1, whose data nobody named: give the step a `describe`"
      ].join("\n"))
    }))

  it.effect("reads frozen cells and never changes them", () =>
    Effect.promise(() => fc.assert(fc.asyncProperty(
      fc.array(fc.double({ min: -2, max: 2, noNaN: true }), { minLength: 3 * embed, maxLength: 3 * embed }),
      (numbers) => Effect.runPromise(Effect.scoped(Effect.gen(function*() {
        const backend = yield* Backend
        const [base, x, y] = [0, 1, 2].map((i) => Float64Array.from(numbers.slice(i * embed, (i + 1) * embed)))
        const [weights, row] = [{ base: Specification.real({ embed }) }, Specification.real({ embed })]
        const cells = yield* backend.allocate(weights)
        yield* backend.write(cells.base, base!)
        const train = yield* TrainStep.make({
          name: "correction",
          inputs: { x: row },
          frozen: { specification: weights, cells },
          parameters: { low: Specification.real({ embed }) },
          optimizer: sgd,
          loss: ({ low }, { x }, { base }) =>
            ({ loss: T.sum(T.square(T.multiply(T.add(base, low), x)), "embed"), outputs: {} }),
          initial: () => undefined
        })
        yield* train.run({ step: 1, learningRate: 0.5, microBatches: [{ x: x! }, { x: y! }] })
        const after = yield* backend.read({ ...cells, ...train.parameters })
        assert.deepStrictEqual([...after.base.elements], [...base!])
        after.low.elements.forEach((value, i) => { // −η ∂/∂low Σ ((base + low) x)² at low = 0
          assert.closeTo(value, -0.5 * 2 * base![i]! * (x![i]! ** 2 + y![i]! ** 2), 1e-9)
        })
        assert.deepStrictEqual(Object.keys(train.memory), [])
      })).pipe(Effect.provide(Reference.layer)))
    ), { numRuns: 10 })))

  it.effect("names a frozen cell that is not finite", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const specification = { base: Specification.real({ batch: 2 }) }
      const cells = yield* backend.allocate(specification)
      yield* backend.write(cells.base, Float64Array.of(1, NaN))
      const train = yield* TrainStep.make({
        name: "correction", inputs: {}, frozen: { specification, cells },
        parameters: { low: Specification.real({ batch: 2 }) }, optimizer: sgd,
        loss: ({ low }, _, { base }) => ({ loss: T.sum(T.add(base, low), "batch"), outputs: {} }),
        initial: () => undefined
      })
      const error = yield* Effect.flip(train.run({ step: 1, learningRate: 0.5, microBatches: [{}] }))
      assert.isTrue(error._tag === "NonFiniteError" && error.tensor === "frozen base" && error.element === 1)
    }))

  it.effect("needs data", () =>
    Effect.gen(function*() {
      const train = yield* begin(total)
      const cause = yield* Effect.flip(Effect.sandbox(train.run({
        step: 3, learningRate: 0.1, describe: describeBatch, microBatches: []
      })))
      assert.include(String(Cause.squash(cause)), "regression, step 3: a step needs at least one micro-batch")
    }))

  it.effect("says so where every gradient is finite and their norm is not", () =>
    Effect.gen(function*() {
      const train = yield* TrainStep.make({
        name: "steep",
        inputs: { x: Specification.real({ batch: 1 }) },
        parameters: { weight: Specification.real({ batch: 1 }) },
        optimizer: adamW(),
        loss: ({ weight }, { x }) => ({ loss: T.sum(T.multiply(weight, x), "batch"), outputs: {} }),
        initial: () => undefined
      })
      const error = yield* Effect.flip(train.run({
        step: 1, learningRate: 0.1, describe: describeBatch, microBatches: [{ x: Float64Array.of(1e200) }]
      }))
      assert.isTrue(error._tag === "NonFiniteError" && error.tensor === "the norm of the gradients")
      assert.include(error.message, "the norm of the gradients is Infinity at element 0")
    }))
})
