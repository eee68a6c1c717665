/**
 * Whether the engine's products of bytes are exact on this processor.
 *
 * Some processors (x86 with AVX2, without VNNI) sum products of an unsigned and a signed byte in pairs of 16 bits,
 * which do not hold two of the largest: the engine is quick there, and wrong. So it is asked once for a product that
 * shows it.
 *
 * From     Cria's own; ONNX Runtime's guide to quantization tells of it ("U8S8", "saturation").
 * Checked  test/backend/onnx/Saturation.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { encodeModel, type Graph } from "./ModelProto.ts"
import type { Interface } from "./Session.ts"
import { bytesOf, microsoft } from "./Writer.ts"

const [count, summed, rows] = [2, 64, 32]

/** Every code is as large as there are: 255 − 128 and 127. */
const graph: Graph = {
  inputs: [{ name: "codes", type: "u8", sizes: [count, summed] }],
  outputs: [{ name: "sums", type: "f32", sizes: [count, rows] }],
  initializers: [
    { name: "weights", type: "i8", sizes: [summed, rows], bytes: new Uint8Array(summed * rows).fill(127) },
    { name: "one", type: "f32", sizes: [], bytes: bytesOf([1], "real", "f32") },
    { name: "ones", type: "f32", sizes: [rows], bytes: bytesOf(Array.from({ length: rows }, () => 1), "real", "f32") },
    { name: "zero", type: "u8", sizes: [], bytes: bytesOf([128], "code", "f32") }
  ],
  nodes: [{
    op: "MatMulIntegerToFloat", domain: microsoft,
    inputs: ["codes", "weights", "one", "ones", "zero"], outputs: ["sums"]
  }]
}

/** Whether sums of the largest codes are what they should be. */
export const areExact = (sums: ArrayLike<number>): boolean =>
  Array.from(sums).every((sum) => sum === summed * 127 * 127)

/** Whether products of matrices of bytes are exact here; an engine that refuses to say so is taken not to have them. */
export const sumsAreExact = (engine: Interface): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const session = yield* engine.createSession(encodeModel(graph))
    const codes = yield* engine.allocate("u8", [count, summed])
    const sums = yield* engine.allocate("f32", [count, rows])
    codes.data.fill(255)
    const { run } = yield* session.bind({ inputs: { codes }, outputs: { sums } })
    yield* run
    return areExact(sums.data)
  }).pipe(Effect.scoped, Effect.orElseSucceed(() => false))
