import { assert, describe, it } from "@effect/vitest"
import { Console, Effect, Result } from "effect"
import * as TestClock from "effect/testing/TestClock"
import type { Capabilities } from "../../src/backend/Backend.ts"
import * as Continuation from "../../src/cli/Continuation.ts"
import * as Weights from "../../src/cli/Weights.ts"
import * as Config from "../../src/llama/Config.ts"

const { "7B": large, "24M": small } = Config.presets

const onnx: Capabilities = { precisions: ["f32", "f64"], kernels: ["contractCodes", "contractRows"], threads: 2 }
const reference: Capabilities = { precisions: ["f64"], kernels: [], threads: 1 }

const plan = (width: Weights.Width, memory: number, capabilities = onnx, config: Config.Config = large) => {
  const { bytes, packedBytes, ...others } = Weights.plan(config, width, capabilities, memory)
  return { gigabytes: [bytes, packedBytes].map((each) => Number((each / 1e9).toFixed(2))), ...others }
}

describe("weights", () => {
  it("take memory for themselves and for what is packed of them", () => {
    assert.deepStrictEqual(plan("4-bit", 16e9), { gigabytes: [4.65, 4.96], frozen: true })
    assert.deepStrictEqual(plan("8-bit", 16e9), { gigabytes: [7.54, 7.43], frozen: true })
    assert.deepStrictEqual(plan("8-bit-rows", 16e9), { gigabytes: [7.14, 6.61], frozen: true })
    const inexact = { ...onnx, kernels: ["contractCodes"] } // rows become float32 in each of three programs
    assert.deepStrictEqual(plan("8-bit-rows", 16e9, inexact), { gigabytes: [7.14, 79.29], frozen: true })
    assert.deepStrictEqual(plan("8-bit", 16e9, reference), { gigabytes: [8.48, 0], frozen: true })
  })
  it("of float32 are frozen where three quarters of memory hold all of it, or copies are small", () => {
    assert.deepStrictEqual(plan("f32", 80e9), { gigabytes: [26.95, 26.43], frozen: true })
    assert.deepStrictEqual(plan("f32", 32e9), { gigabytes: [26.95, 0], frozen: false })
    assert.deepStrictEqual(plan("f32", 70e9), { gigabytes: [26.95, 0], frozen: false }) // 53.4 of 70 leave little
    assert.isTrue(plan("f32", 72e9).frozen)
    assert.isFalse(Weights.plan(large, "f32", onnx, 72e9, 2e9).frozen)
    assert.deepStrictEqual(plan("f32", 1e8, onnx, small), { gigabytes: [0.1, 0], frozen: false })
    assert.deepStrictEqual(plan("f32", 1e9, onnx, small), { gigabytes: [0.1, 0.06], frozen: true })
    assert.isTrue(plan("f32", 1e9, reference, small).frozen)
    assert.deepStrictEqual(plan("f32", 64e9, reference, large), { gigabytes: [53.91, 0], frozen: false })
  })
  it("in codes are said to be slow where programs cannot hold them", () => {
    const limited = { ...onnx, constantBytes: 2 ** 31 }
    assert.deepStrictEqual(plan("4-bit", 64e9, limited), {
      gigabytes: [4.65, 0], frozen: false,
      warning: "4-bit weights of 4.7 GB are not built into the programs, which hold 2.1 GB here: ONNX Runtime " +
        "unpacks them anew for every token, which takes long"
    })
    assert.deepStrictEqual(plan("f32", 64e9, limited), { gigabytes: [26.95, 0], frozen: false })
    assert.isTrue(plan("8-bit", 64e9, limited, small).frozen)
  })
  it("as a draft are said to be slow where products with codes are", () => {
    const said = (width: Weights.Coded, capabilities: Capabilities) =>
      Weights.draftWarning(width, "an engine", capabilities)
    const slow = (width: Weights.Coded) =>
      `an engine has no quick product with weights in ${width}: answers come sooner without --draft`
    for (const width of ["8-bit", "8-bit-rows", "4-bit"] as const) {
      assert.isUndefined(said(width, onnx))
      assert.strictEqual(said(width, reference), slow(width))
    }
    const inexact = { ...onnx, kernels: ["contractCodes"] }
    assert.isUndefined(said("8-bit", inexact))
    assert.strictEqual(said("8-bit-rows", inexact), slow("8-bit-rows")) // it computes them as float32
  })
  it.effect("are refused where memory does not hold them and what is beside them together", () =>
    Effect.gen(function*() {
      const fitting = (
        width: Weights.Width, slots: number, contextLength: number, memory = 16e9, draft?: Weights.Coded
      ) => {
        const beside = Continuation.cachesOf(large, { slots, contextLength, ...draft === undefined ? {} : { draft } })
        return Weights.fitting({ config: large, path: "llama-2-7b" }, width, beside, onnx, memory)
      }
      const refused = (...given: Parameters<typeof fitting>) =>
        Effect.map(Effect.flip(fitting(...given)), ({ message }) => message)
      assert.strictEqual((yield* fitting("8-bit", 1, 256)).frozen, true)
      assert.strictEqual(yield* refused("8-bit", 1, 4096), // either alone would fit
        "llama-2-7b takes at least 19.3 GB of memory here, and there are 16.0 GB\n  7.54 GB of 8-bit weights, 7.43 " +
          "GB packed of them for products, 4.30 GB of a cache for 4096 tokens\n  Take --weights 4-bit, a " +
          "shorter --context-length, or a machine with more memory.")
      assert.match(yield* refused("4-bit", 8, 4096), new RegExp(" GB of 8 caches \\(--slots\\) for 4096 tokens\n" +
        " {2}Take fewer --slots, a shorter --context-length, or a machine with more memory\\.$"))
      assert.match(yield* refused("f32", 1, 256),
        / at least 27\.2 GB .*\n {2}27\.0 GB of f32 weights, .* a cache .*\n {2}Take --weights 8-bit or 4-bit, a sm/)
      assert.strictEqual(yield* refused("f32", 1, 256, 32e9, "4-bit"),
        "llama-2-7b takes at least 36.8 GB of memory here, and there are 32.0 GB\n  27.0 GB of f32 weights, 9.88 GB " +
          "of a cache for 256 tokens and a draft in 4-bit (--draft)\n  Take --weights 8-bit or 4-bit without " +
          "--draft, no --draft, a shorter --context-length, or a machine with more memory.")
      assert.match(yield* refused("4-bit", 1, 256, 8e9), /\n {2}Take a smaller model, or a machine with more memory\.$/)
    }))
  it.effect.each([[9, []], [25, [ // seconds for all five, each as long as the others
    "weights     ████████░░░░░░░░░░░░ 2 of 5 tensors, 10 s", "weights     ████████████████░░░░ 4 of 5 tensors, 20 s",
    "weights     ████████████████████ 5 of 5 tensors, 25 s; building the programs"
  ]]] as const)("that take %i seconds to read tell how far they are, where that is long", ([seconds, lines]) =>
    Effect.gen(function*() {
      const told: Array<string> = []
      const console = Object.assign(Object.create(globalThis.console), { error: (line: string) => told.push(line) })
      const names = ["a", "b", "c", "d", "e"]
      yield* Effect.gen(function*() {
        const adjusted = TestClock.adjust(seconds * 200)
        const { pieces, read } = yield* Weights.telling({
          parameters: new Map(names.map((name) => [name, { name, type: "F32", sizes: [], bytes: 0 }])),
          read: (_: string) => Effect.as(adjusted, new Float32Array(1)),
          pieces: (_: string) => Effect.succeed({ lying: {}, each: (_: unknown) => adjusted })
        })
        for (const name of names.slice(0, 3)) assert.lengthOf(yield* read(name), 1)
        for (const name of names.slice(3)) yield* (yield* pieces(name))!.each(() => Result.void)
      }).pipe(Effect.provideService(Console.Console, console))
      assert.deepStrictEqual(told, [...lines])
    }))
})
