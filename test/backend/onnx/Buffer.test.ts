import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { allocate, view } from "../../../src/backend/onnx/Buffer.ts"
import { elementCount, elements, elementTypes } from "../../../src/backend/onnx/ModelProto.ts"

const type = fc.constantFrom(...elementTypes)
const sizes = fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 3 })

describe("allocate", () => {
  it("makes zeroed buffers that start where they should, whatever address the memory has", () => {
    fc.assert(fc.property(type, sizes, fc.nat({ max: 999 }), (type, sizes, units) => {
      const address = 16 * units // what malloc promises
      const buffer = Effect.runSync(allocate(() => address)(type, sizes))
      assert.strictEqual((address + buffer.bytes.byteOffset) % 64, 0)
      assert.strictEqual(buffer.bytes.length, elementCount(sizes) * elements[type].bytes)
      assert.strictEqual(buffer.data.length, elementCount(sizes))
      assert.strictEqual(buffer.data.buffer, buffer.bytes.buffer)
      assert.strictEqual(buffer.data.byteOffset, buffer.bytes.byteOffset)
      assert.isTrue(buffer.bytes.every((byte) => byte === 0))
      assert.isAtLeast(buffer.bytes.buffer.byteLength, 256)
    }))
  })

  it.effect("refuses sizes that are none, and memory that is not there", () =>
    Effect.gen(function*() {
      for (const size of [-1, 0.5, NaN, Infinity]) {
        const error = yield* Effect.flip(allocate(() => 0)("f32", [2, size]))
        assert.strictEqual(error.reason, "BadBuffer")
        assert.include(error.message, "is no size")
      }
      const error = yield* Effect.flip(allocate(() => 0)("f64", [2 ** 22, 2 ** 26]))
      assert.strictEqual(error.reason, "OutOfMemory")
      assert.strictEqual(
        error.message,
        `ONNX Runtime, in allocate: memory for a buffer must be there
  f64 [4194304, 67108864]
  Array buffer allocation failed
  Use smaller batches or fewer sessions; one buffer holds at most 4 GiB on Node 20.`
      )
    }))
})

describe("view", () => {
  it("shows the same memory, from an aligned start", () => {
    fc.assert(fc.property(type, fc.nat({ max: 3 }), fc.nat({ max: 3 }), sizes, (type, outer, inner, sizes) => {
      const step = 64 / elements[type].bytes
      const whole = Effect.runSync(allocate(() => 16)(type, [(outer + inner) * step + elementCount(sizes)]))
      whole.bytes.forEach((_, index) => whole.bytes[index] = index)
      const first = Effect.runSync(view(whole, outer * step, [inner * step + elementCount(sizes)]))
      const part = Effect.runSync(view(first, inner * step, sizes)) // a view of a view
      assert.deepStrictEqual([...part.data], [...whole.data.subarray((outer + inner) * step)])
      part.bytes.fill(255)
      assert.isTrue(whole.bytes.subarray((outer + inner) * 64).every((byte) => byte === 255))
    }))
  })

  it.effect("refuses a start off the grid or out of range, and says everything at once", () =>
    Effect.gen(function*() {
      const buffer = yield* allocate(() => 0)("f32", [4, 16])
      const error = yield* Effect.flip(view(buffer, 24, [3, 16]))
      assert.strictEqual(
        error.message,
        `ONNX Runtime, in view of f32 [4, 16]: every buffer must be what the model declares
  starts at byte 96, no multiple of 64
  ends at element 72 of 64
  Make buffers with \`allocate\` or \`view\`, from the same sizes the model was written for.`
      )
      for (const [start, sizes] of [[-16, [1]], [0.5, [1]], [NaN, [1]], [0, [65]], [0, [-1]]] as const) {
        assert.strictEqual((yield* Effect.flip(view(buffer, start, sizes))).reason, "BadBuffer")
      }
      assert.deepStrictEqual((yield* view(buffer, 64, [0])).data.length, 0)
    }))
})
