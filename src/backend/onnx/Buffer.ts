/**
 * Typed memory that native code reads and writes in place.
 *
 * From     the rules that sharing memory with C sets: it must not move, and it must be aligned for vector units.
 * Checked  test/backend/onnx/Buffer.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { type EngineError, failure } from "./EngineError.ts"
import { elementCount, elements, type ElementType } from "./ModelProto.ts"

/** The typed array that shows each element type; f16 and bf16 show their bit patterns. */
export interface Arrays {
  readonly f32: Float32Array
  readonly f64: Float64Array
  readonly i32: Int32Array
  readonly i64: BigInt64Array
  readonly bool: Uint8Array
  readonly u8: Uint8Array
  readonly f16: Uint16Array
  readonly bf16: Uint16Array
  readonly i8: Int8Array
}

/**
 * Memory of one tensor, row-major: `bytes` and `data` show the same memory, which starts at a multiple of 64 bytes (a
 * sum's last bits depend on alignment) and never moves. Do not transfer its ArrayBuffer to a worker while it is bound.
 */
export interface Buffer<T extends ElementType = ElementType> {
  readonly type: T
  readonly sizes: ReadonlyArray<number>
  readonly bytes: Uint8Array
  readonly data: Arrays[T]
}

/** Memory of one tensor on a device: `address` says before each run where it lies. */
export interface Remote {
  readonly type: ElementType
  readonly sizes: ReadonlyArray<number>
  readonly address: () => number
}

/** Does this memory lie on a device? */
export const isRemote = (buffer: Buffer | Remote): buffer is Remote => "address" in buffer

/** Every buffer starts at a multiple of this many bytes. */
export const alignment = 64

/** Bytes behind the smallest buffer: V8 keeps typed arrays of 64 bytes and less in its own heap, where they move. */
export const minimumBytes = 256

const arrays: {
  readonly [T in ElementType]: new(memory: ArrayBufferLike, start: number, count: number) => Arrays[T]
} = {
  f32: Float32Array, f64: Float64Array, i32: Int32Array, i64: BigInt64Array, bool: Uint8Array, u8: Uint8Array,
  f16: Uint16Array, bf16: Uint16Array, i8: Int8Array
}

const makeBuffer = <T extends ElementType>(
  type: T, sizes: ReadonlyArray<number>, memory: ArrayBufferLike, start: number
): Buffer<T> => {
  const count = elementCount(sizes)
  const bytes = new Uint8Array(memory, start, count * elements[type].bytes)
  return { type, sizes, bytes, data: new arrays[type](memory, start, count) }
}

/** A buffer over memory that is there already, wherever it starts: to be read, and not to be bound. */
export const over = (type: ElementType, sizes: ReadonlyArray<number>, bytes: Uint8Array): Buffer =>
  makeBuffer(type, sizes, bytes.buffer, bytes.byteOffset)

/** An element type with sizes, as messages show them; a negative size is an open one. */
export const describe = (type: ElementType | undefined, sizes: ReadonlyArray<number>): string =>
  `${type ?? "(unsupported type)"} [${sizes.map((size) => size < 0 ? "?" : size).join(", ")}]`

const isSizes = (sizes: ReadonlyArray<number>): boolean =>
  sizes.every((size) => Number.isSafeInteger(size) && size >= 0)

/**
 * Zeroed buffers, given where an ArrayBuffer starts in memory (0 where that cannot be known), and what is to be done
 * with memory before it is touched.
 */
export const allocate = (
  addressOf: (memory: ArrayBuffer) => number, prepare: (address: number, byteLength: number) => void = () => {}
) =>
  <T extends ElementType>(type: T, sizes: ReadonlyArray<number>): Effect.Effect<Buffer<T>, EngineError> => {
    if (!isSizes(sizes)) return Effect.fail(failure("BadBuffer", "allocate", `${describe(type, sizes)} is no size`))
    return Effect.try({
      try: () => {
        const memory = new ArrayBuffer(alignment + Math.max(minimumBytes, elementCount(sizes) * elements[type].bytes))
        const address = addressOf(memory)
        prepare(address, memory.byteLength)
        return makeBuffer(type, sizes, memory, (alignment - address % alignment) % alignment)
      },
      catch: (cause) => failure("OutOfMemory", "allocate", describe(type, sizes), cause)
    })
  }

/**
 * A buffer over part of another: the same memory from `start` elements on. Writing either shows in both. The start
 * must be a multiple of 64 bytes (16 f32, 8 f64) and the end within the buffer, else `BadBuffer`.
 */
export const view = <T extends ElementType>(
  buffer: Buffer<T>, start: number, sizes: ReadonlyArray<number>
): Effect.Effect<Buffer<T>, EngineError> => {
  const size = elements[buffer.type].bytes
  const values = [
    ...(Number.isSafeInteger(start) && start >= 0 ? [] : [`starts at element ${start}`]),
    ...((start * size) % alignment === 0 ? [] : [`starts at byte ${start * size}, no multiple of ${alignment}`]),
    ...(isSizes(sizes) ? [] : [`${describe(buffer.type, sizes)} is no size`]),
    ...((start + elementCount(sizes)) * size <= buffer.bytes.length ? [] : [
      `ends at element ${start + elementCount(sizes)} of ${buffer.bytes.length / size}`
    ])
  ]
  return values.length > 0
    ? Effect.fail(failure("BadBuffer", `view of ${describe(buffer.type, buffer.sizes)}`, ...values))
    : Effect.sync(() => makeBuffer(buffer.type, sizes, buffer.bytes.buffer, buffer.bytes.byteOffset + start * size))
}
