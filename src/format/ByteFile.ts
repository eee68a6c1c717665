/**
 * Files of any size as bytes at positions: read anywhere, or written from the beginning to the end, in bounded chunks.
 *
 * From     nothing but the file system of Effect.
 * Checked  test/format/ByteFile.test.ts (any range of any file, files that shrink, digests).
 *
 * @module
 */
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import type * as Scope from "effect/Scope"
import { createHash } from "node:crypto"

/**
 * The most bytes that one request reads or writes: enough for a disk's full speed, and few enough that hashing them
 * does not hold up the event loop.
 */
export const chunkBytes = 4 * 1024 * 1024

/** One array of the bytes of all parts. */
export const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/**
 * Why bytes could not be read where the operating system gives no reason: for which tensor, and at which byte of the
 * file.
 */
export interface Stop {
  readonly kind: "too large" | "cut while reading"
  readonly tensor: string | null
  readonly offset: number
  readonly expected: string
  readonly found: string
}

/** What to do about each {@link Stop}. */
export const advice: { readonly [K in Stop["kind"]]: string } = {
  "too large": "the tensor does not fit into this process: use a machine with more memory or a newer Node",
  "cut while reading": "another process cut or replaced the file: read it again when nobody writes it"
}

/** An open file of `length` bytes. Its errors `E` are those of the format that opened it. */
export interface ByteFile<E> {
  readonly path: string
  readonly length: number
  /** A new buffer with `length` bytes from byte `position`; the caller has checked that the file holds so many. */
  readonly bytesAt: (
    position: number, length: number, tensor: string | null
  ) => Effect.Effect<Uint8Array<ArrayBuffer>, E | PlatformError>
  /** Fills `target` from byte `position`. */
  readonly fill: (target: Uint8Array, position: number, tensor: string | null) => Effect.Effect<void, E | PlatformError>
}

/** Makes an object of `length` bytes. Where the process cannot hold it, fails with the error that `stopped` makes. */
export const allocate = <A, E>(
  make: () => A, length: number, position: number, tensor: string | null, stopped: (stop: Stop) => E
): Effect.Effect<A, E> =>
  Effect.try({
    try: make,
    catch: (reason) => {
      const expected = `${length} bytes from byte ${position}`
      return stopped({ kind: "too large", tensor, offset: position, expected, found: String(reason) })
    }
  })

/** Opens a file until the Scope closes. `stopped` makes the error of the format from what went wrong. */
export const open = Effect.fnUntraced(function*<E>(
  path: string,
  stopped: (stop: Stop) => E
): Effect.fn.Return<ByteFile<E>, PlatformError, FileSystem.FileSystem | Scope.Scope> {
  const fileSystem = yield* FileSystem.FileSystem
  const file = yield* fileSystem.open(path, { flag: "r" })
  const fill = Effect.fnUntraced(function*(target: Uint8Array, position: number, tensor: string | null) {
    for (let from = 0; from < target.length;) {
      const chunk = target.subarray(from, from + chunkBytes)
      // uninterruptible, for the file must not be closed while the operating system reads from it
      const count = yield* Effect.uninterruptible(file.read(chunk, { position: BigInt(position + from) }))
      if (count === 0) {
        const [expected, found] = [`${target.length} bytes from byte ${position}`, "the end of the file"]
        return yield* Effect.fail(
          stopped({ kind: "cut while reading", tensor, offset: position + from, expected, found })
        )
      }
      from += count
    }
  })
  const bytesAt = Effect.fnUntraced(function*(position: number, length: number, tensor: string | null) {
    const bytes = yield* allocate(() => new Uint8Array(length), length, position, tensor, stopped)
    yield* fill(bytes, position, tensor)
    return bytes
  })
  return { path, length: ByteSize.toNumberUnsafe((yield* file.stat).size), bytesAt, fill }
})

/** What stands on the disk after writing: the length of the file and the SHA-256 of all its bytes, in hexadecimal. */
export interface Written {
  readonly bytes: number
  readonly sha256: string
}

/** Appends bytes to the file that is being written. */
export type Append = (bytes: Uint8Array) => Effect.Effect<void, PlatformError>

/**
 * Writes a file by the appends of `body` and waits until it is on the disk. On failure a partial file is left: write
 * under a temporary name and rename on success, as the store does.
 */
export const write = Effect.fnUntraced(function*<E, R>(
  path: string,
  body: (append: Append) => Effect.Effect<void, E, R>
): Effect.fn.Return<Written, PlatformError | E, FileSystem.FileSystem | R> {
  const digest = createHash("sha256")
  let length = 0
  yield* Effect.scoped(Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const file = yield* fileSystem.open(path, { flag: "w" })
    yield* body(Effect.fnUntraced(function*(bytes) {
      for (let from = 0; from < bytes.length; from += chunkBytes) {
        const chunk = bytes.subarray(from, from + chunkBytes)
        const hash = Effect.sync(() => digest.update(chunk)) // while the operating system writes
        // uninterruptible, for the file must not be closed while the operating system writes to it
        yield* Effect.uninterruptible(Effect.all([file.writeAll(chunk), hash], { concurrency: 2, discard: true }))
        length += chunk.length
      }
    }))
    yield* Effect.uninterruptible(file.sync)
  }))
  return { bytes: length, sha256: digest.digest("hex") }
})
