import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as fc from "fast-check"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as BlockCodes from "../../src/tensor/BlockCodes.ts"
import { count, type Sizes } from "../../src/tensor/Node.ts"
import { ShapeError } from "../../src/tensor/ShapeError.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"

const schemes = fc.record({
  bits: fc.constantFrom<4 | 8>(4, 8), block: fc.constantFrom(16, 32)
})

const rows: BlockCodes.Scheme = { bits: 8, block: "row" }

/** Weights [out, in, width], contracted over two of the axes, of magnitudes that differ from block to block. */
const cases = fc.record({
  scheme: fc.oneof(schemes, fc.constant(rows)), out: fc.integer({ min: 1, max: 3 }),
  blocks: fc.integer({ min: 1, max: 2 }),
  over: fc.constantFrom<ReadonlyArray<"in" | "width">>(["in"], ["in", "width"], ["width", "in"]),
  seed: fc.integer({ min: 1, max: 1e6 })
}).map(({ blocks, out, over, scheme, seed }) => {
  const length = (scheme.block === "row" ? 7 : scheme.block) * blocks
  const sizes = { out, in: length, width: 2 }
  let state = seed
  const next = () => (state = state * 16807 % 2147483647) / 2147483647 - 0.5
  const draw = (length: number) => Float32Array.from({ length }, (_, i) => next() * 10 ** (i % 5 - 2))
  return { sizes, over, scheme, weights: draw(count(sizes)), x: draw(length * 2) }
})

const run = <I, O>(program: Effect.Effect<Program.Program<I, {}, O>, unknown>, inputs: unknown) =>
  Effect.runPromise(Effect.gen(function*() {
    const backend = yield* Backend
    const executable = yield* backend.compile(yield* program)
    return yield* (yield* executable.bind({})).run(inputs as never)
  }).pipe(Effect.scoped, Effect.provide(Reference.layer)))

const overSizes = (sizes: Sizes, over: ReadonlyArray<string>): Sizes =>
  Object.fromEntries(over.map((axis) => [axis, sizes[axis]!]))

const encoded = (...[elements, sizes, over, scheme]: Parameters<typeof BlockCodes.encode>) =>
  Result.getOrThrow(BlockCodes.encode(elements, sizes, over, scheme))

const close = (found: ArrayLike<number>, wanted: ArrayLike<number>) => {
  assert.strictEqual(found.length, wanted.length)
  for (let i = 0; i < found.length; i++) assert.closeTo(found[i]!, wanted[i]!, 1e-9 + Math.abs(wanted[i]!) * 1e-9)
}

describe("block codes", () => {
  it("stand for weights within half a scale of those that were coded", () =>
    fc.assert(fc.asyncProperty(cases, async ({ over, scheme, sizes, weights }) => {
      const specification = BlockCodes.specification(sizes, over, scheme)
      const coded = encoded(weights, sizes, over, scheme)
      const { decoded, scales } = await run(Program.make("decode", { inputs: specification, state: {} }, (codes) => {
        const into = overSizes(sizes, over) as { in: number }
        const coding = BlockCodes.codingOf(scheme)
        const whole = BlockCodes.dequantize<"out", string>(codes as never, into, coding) as T.Untyped
        return { outputs: { decoded: T.merge(T.rename(whole, "out", "first"), ["first", "in", "width"], "all"),
          scales: codes.scales } }
      }), coded)
      const strides = { out: sizes.in * sizes.width, in: sizes.width, width: 1 }
      const rest = (["out", "in", "width"] as const).filter((axis) => !over.some((name) => name === axis))
      const order = [...rest, ...over]
      const perBlock = scheme.block === "row" ? over.reduce((all, axis) => all * sizes[axis], 1) : scheme.block
      weights.forEach((_, flat) => { // flat counts the weights in the order in which they are coded
        let place = 0
        let left = flat
        for (const axis of order.toReversed()) {
          place += left % sizes[axis] * strides[axis]
          left = Math.floor(left / sizes[axis])
        }
        const scale = scales.elements[Math.floor(flat / perBlock)]!
        assert.isAtMost(Math.abs(weights[place]! - decoded.elements[place]!), scale / 2 * (1 + 1e-6))
        const largest = Math.abs(weights[place]!)
        assert.isAtLeast(scale * (2 ** (scheme.bits - 1) - 1), largest * (1 - 1e-6))
      })
    }), { numRuns: 30 }))

  it("are contracted, and pull back, as the weights that they stand for", () =>
    fc.assert(fc.asyncProperty(cases, async ({ over, scheme, sizes, weights, x }) => {
      const specification = BlockCodes.specification(sizes, over, scheme)
      const into = overSizes(sizes, over)
      const xSizes = { row: 1, ...into }
      const program = (isFused: boolean) =>
        Program.make("product", {
          inputs: { x: Specification.real<string>(xSizes), coded: specification }, state: {}
        }, ({ coded, x }) => {
          const coding = BlockCodes.codingOf(scheme)
          const whole = BlockCodes.dequantize<"out", string>(coded as never, into, coding) as T.Untyped
          const y: T.Untyped = isFused ? T.contract(x, whole, over) : T.sum(T.multiply(x, whole), over)
          const loss = T.sum(T.square(y as T.Tensor<"row" | "out">), Object.keys(y.sizes) as Array<"row" | "out">)
          const slopes = T.gradient(loss, { x, scales: coded.scales })
          return { outputs: { y, ...slopes } }
        })
      const inputs = { x: x.slice(0, count(xSizes)), coded: encoded(weights, sizes, over, scheme) }
      const lowered = (isFused: boolean) => Effect.map(program(isFused), (closed) =>
        Program.lower(closed, { hasKernel: ({ name }) => name.startsWith("contract"), watch: [] }).instructions
          .filter(({ primitive }) => primitive._tag === "composite").length)
      assert.deepStrictEqual(await Effect.runPromise(Effect.all([lowered(true), lowered(false)])), [1, 0])
      const [fused, plain] = [await run(program(true), inputs), await run(program(false), inputs)]
      for (const key of ["y", "x", "scales"] as const) close(fused[key].elements, plain[key].elements)
    }), { numRuns: 30 }))

  it("are exact for whole multiples of a scale, zero and weights too small for a scale", () => {
    const sizes = { in: 16, out: 1 }
    const scheme = { bits: 4, block: 16 } as const
    const steps = Float32Array.from({ length: 16 }, (_, i) => Math.min(i, 14) - 7)
    const { codes, scales } = encoded(steps.map((step) => step / 4), sizes, ["in"], scheme)
    assert.deepStrictEqual([...scales], [0.25])
    assert.deepStrictEqual([...codes].flatMap((byte) => [byte & 15, byte >> 4]), [...steps].map((step) => step + 8))
    assert.deepStrictEqual(encoded(new Float32Array(16), sizes, ["in"], scheme),
      { codes: new Uint8Array(8).fill(0x88), scales: new Float32Array(1) })
    const tiny = encoded(new Float32Array(16).fill(1e-45), sizes, ["in"], { bits: 8, block: 16 })
    assert.deepStrictEqual(tiny, { codes: new Uint8Array(16).fill(128), scales: new Float32Array(1) })
  })

  it("of rows are signed bytes, with what is summed first", () => {
    const sizes = { out: 2, in: 3 }
    const { codes, scales } = encoded(Float32Array.of(1, -127, 3, 0.5, 0.25, 0), sizes, ["in"], rows)
    assert.deepStrictEqual([...new Int8Array(codes.buffer)], [1, 127, -127, 64, 3, 0])
    assert.deepStrictEqual([...scales], [1, Math.fround(0.5 / 127)])
    assert.deepStrictEqual(BlockCodes.specification(sizes, ["in"], rows).codes.sizes, { block: 1, byte: 3, out: 2 })
    assert.deepStrictEqual(encoded(new Float32Array(6), sizes, ["in"], rows),
      { codes: new Uint8Array(6), scales: new Float32Array(2) })
    const tiny = encoded(Float32Array.of(1e-45, 0, 0, 180 * 2 ** -149, -180 * 2 ** -149, 0), sizes, ["in"], rows)
    assert.deepStrictEqual([...new Int8Array(tiny.codes.buffer)], [0, 127, 0, -127, 0, 0])
    const odd = BlockCodes.encode(Float32Array.of(1, 2, 3, 4, Infinity, 6), sizes, ["in"], rows)
    assert.include(Result.isFailure(odd) ? odd.failure.message : "", "element 4 of the weights is Infinity")
  })

  it("are refused for weights that are no numbers", () => {
    const weights = new Float32Array(32)
    weights[5] = NaN
    const result = BlockCodes.encode(weights, { in: 16, out: 2 }, ["in"], { bits: 8, block: 16 })
    assert.strictEqual(Result.isFailure(result) ? result.failure.message : "", [
      "block codes: element 5 of the weights is NaN",
      "  Only finite float32 weights have codes. Training that went wrong leaves others; is the checkpoint damaged?"
    ].join("\n"))
  })

  it("are refused for weights that float32 does not hold, of which a scale would be infinite", () => {
    for (const scheme of [{ bits: 4, block: 16 } as const, rows]) {
      for (const out of [1, 2]) { // rows of one lie as a file's do
        const encode = (weight: number) => BlockCodes.encode(
          new Float64Array(16 * out).fill(weight), { in: 16, out }, ["in"], scheme)
        assert.isTrue(Result.isSuccess(encode(3e38)))
        const result = encode(-1e300)
        assert.include(Result.isFailure(result) ? result.failure.message : "", "element 0 of the weights is -1e+300")
      }
    }
  })

  it("stay in their bits where a scale is so small that it is inexact", () => {
    const weights = Float32Array.from({ length: 16 }, (_, i) => (i % 2 === 0 ? 10 : -10) * 2 ** -149)
    for (const bits of [4, 8] as const) {
      const elements = weights.map((weight) => bits === 4 ? weight : weight * 18) // scales of 1.43 and 1.42 steps
      const scheme = { bits, block: 16 } as const
      const { codes } = encoded(elements, { in: 16, out: 1 }, ["in"], scheme)
      assert.deepStrictEqual([...new Set(codes)], bits === 4 ? [0x1f] : [255, 1])
    }
  })

  it("are refused where axes are missing or named as those of codes, and elements are too few or too many", () => {
    const scheme = { bits: 8, block: "row" } as const
    for (const block of [scheme, { bits: 8, block: 16 } as const]) {
      const refused = (sizes: Readonly<Record<string, number>>, over: ReadonlyArray<string>, count: number) =>
        assert.throws(() => BlockCodes.encode(new Float32Array(count), sizes, over, block), ShapeError)
      refused({ k: 32, n: 3 }, ["q"], 96)
      refused({ k: 32, byte: 3 }, ["k"], 96)
      refused({ n: 2, k: 32 }, ["k"], 32)
      refused({ n: 2, k: 32 }, ["k"], 96)
    }
  })

  it("refuse blocks that do not fill the axes", () => {
    const message = (block: number) => {
      try {
        BlockCodes.specification({ in: 48, out: 2 }, ["in"], { bits: 8, block })
        return ""
      } catch (error) {
        return (error as Error).message
      }
    }
    assert.strictEqual(message(16), "")
    for (const block of [8, 24, 32]) {
      assert.strictEqual(message(block), [
        "block codes: the block must be a power of two from 16 on that divides 48, the size of \"in\"",
        "  weights  [in: 48, out: 2]",
        `  block    ${block}`,
        "  Choose a smaller block, one scale for each row (block: \"row\"), or leave these weights as they are."
      ].join("\n"))
    }
  })

  it.effect("refuse another number of bits, and a gradient", () => Effect.gen(function*() {
    const inputs = BlockCodes.specification({ in: 32, out: 2 }, ["in"], { bits: 8, block: 32 })
    const wrong = yield* Effect.flip(Program.make("wrong", { inputs, state: {} }, (coded) => ({
      outputs: { w: BlockCodes.dequantize(coded, { in: 32 }, 4) }
    })))
    assert.strictEqual(wrong.message, [
      "dequantize: as many weights in \"block\" and \"byte\" of 4-bit codes as in the new axes that come from them",
      "  codes   [out: 2, block: 1, byte: 32] code  input codes",
      "  scales  [out: 2, block: 1]  input scales",
      "  into    [in: 32]",
      "  The scales have the axes of the codes without \"byte\". Were they coded with another number of bits?"
    ].join("\n"))
    const slope = yield* Effect.flip(Program.makeGeneric("slope", { inputs, state: {} }, (coded) => {
      const loss = T.sum(BlockCodes.dequantize(coded, { in: 32 }, 8), ["in", "out"])
      return { outputs: T.gradient(loss, coded as { codes: T.Any }) }
    }))
    assert.include(slope.message, "gradient: only real tensors have one\n  codes  [out: 2, block: 1, byte: 32] code")
  }))
})
