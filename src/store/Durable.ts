/**
 * Files that survive a crash: what is written is waited for until it is on the disk, and so is the folder that names
 * it.
 *
 * From     POSIX fsync: a file's bytes and the entry of its name are made safe separately.
 * Checked  test/store/Snapshot.test.ts (power cut after every operation), test/store/Durable.test.ts,
 *          test/cli/RunFolder.test.ts (a file that is replaced is whole or not there).
 * Departs  Windows has no sync of folders: there a rename is as safe as the file system's own journal makes it.
 *
 * @module
 */
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import { createHash } from "node:crypto"

type Stored<A, R = FileSystem.FileSystem> = Effect.Effect<A, PlatformError, R>

const chunkBytes = 4 * 1024 * 1024

/** Writes a small file and waits until its bytes are on the disk; its name is safe after `syncFolder` of its folder. */
export const writeFile = (path: string, bytes: Uint8Array): Stored<void> =>
  Effect.scoped(Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const file = yield* fileSystem.open(path, { flag: "w" })
    yield* file.writeAll(bytes)
    yield* file.sync
  })).pipe(Effect.uninterruptible)

/** The beginning of the names of what is being written; a killed process may leave some, which are rubbish. */
export const partialPrefix = ".partial-"

/** Writes a small file under another name and renames it once it is safe: it is never seen half written. */
export const replaceFile = (path: string, bytes: Uint8Array): Stored<void, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const { basename, dirname, join } = yield* Path.Path
    const partial = join(dirname(path), `${partialPrefix}${basename(path)}`)
    yield* writeFile(partial, bytes)
    yield* fileSystem.rename(partial, path)
    yield* syncFolder(dirname(path))
  }).pipe(Effect.uninterruptible)

/** Waits until the names in a folder (files made, renamed and removed in it) are on the disk. */
export const syncFolder = (path: string): Stored<void, FileSystem.FileSystem | Path.Path> =>
  Effect.scoped(Effect.gen(function*() {
    const { sep } = yield* Path.Path
    if (sep === "\\") return // Windows refuses to sync a folder
    const fileSystem = yield* FileSystem.FileSystem
    const folder = yield* fileSystem.open(path, { flag: "r" })
    yield* folder.sync
  })).pipe(Effect.uninterruptible)

/** Makes a folder, and those above it that are missing, and waits until their names are on the disk. */
export const makeFolder: (path: string) => Stored<void, FileSystem.FileSystem | Path.Path> = Effect.fnUntraced(
  function*(path: string) {
    const fileSystem = yield* FileSystem.FileSystem
    if (yield* fileSystem.exists(path)) return
    const { dirname } = yield* Path.Path
    yield* makeFolder(dirname(path))
    yield* fileSystem.makeDirectory(path, { recursive: true })
    yield* syncFolder(dirname(path))
  }
)

/** The length of a file and the SHA-256 of its bytes, in hexadecimal; a file of any size. */
export const digest = (path: string): Stored<{ readonly bytes: number; readonly sha256: string }> =>
  Effect.scoped(Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const file = yield* fileSystem.open(path, { flag: "r" })
    const bytes = ByteSize.toNumberUnsafe((yield* file.stat).size)
    const buffer = new Uint8Array(Math.min(bytes, chunkBytes))
    const hash = createHash("sha256")
    for (let position = 0; position < bytes;) {
      const count = yield* Effect.uninterruptible(file.read(buffer, { position: BigInt(position) }))
      if (count === 0) break // it shrank: its digest will not be the expected one
      hash.update(buffer.subarray(0, count))
      position += count
    }
    return { bytes, sha256: hash.digest("hex") }
  }))

/** What the operating system said, as "ENOSPC: no space left on device, write". */
export const reason = (error: PlatformError): string =>
  error.cause instanceof Error ? error.cause.message : error.message

/** Whether an operation failed for want of space, on the disk or in the user's quota. */
export const isDiskFull = (error: PlatformError): boolean =>
  Predicate.hasProperty(error.cause, "code") && (error.cause.code === "ENOSPC" || error.cause.code === "EDQUOT")
