import { assert, describe, it } from "@effect/vitest"
import { ByteSize, Effect, FileSystem } from "effect"
import * as fc from "fast-check"
import { createHash } from "node:crypto"
import * as ByteFile from "../../src/format/ByteFile.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"

const onDisk = <A, E>(
  disk: MemoryDisk.MemoryDisk, run: Effect.Effect<A, E, FileSystem.FileSystem>, fileSystem = disk.fileSystem
): Promise<A> => Effect.runPromise(run.pipe(Effect.provideService(FileSystem.FileSystem, fileSystem)))

describe("ByteFile", () => {
  it("any range of any file is what was written there", () =>
    fc.assert(fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 9 })), fc.nat(), fc.nat(), async (parts, a, b) => {
      const disk = MemoryDisk.make()
      const all = Uint8Array.from(parts.flatMap((part) => [...part]))
      const written = await onDisk(
        disk,
        ByteFile.write("/a", (append) => Effect.forEach(parts, append, { discard: true }))
      )
      assert.deepStrictEqual(written, { bytes: all.length, sha256: createHash("sha256").update(all).digest("hex") })
      const [from, to] = [a % (all.length + 1), b % (all.length + 1)].toSorted((x, y) => x - y) as [number, number]
      const read = await onDisk(
        disk,
        Effect.scoped(Effect.flatMap(ByteFile.open("/a", (stop) => stop), (file) => {
          assert.strictEqual(file.length, all.length)
          return file.bytesAt(from, to - from, null)
        }))
      )
      assert.deepStrictEqual(read, all.slice(from, to))
    }), { numRuns: 50 }))

  it("moves long files in chunks", async () => {
    const disk = MemoryDisk.make()
    const bytes = new Uint8Array(2 * ByteFile.chunkBytes + 3).map((_, index) => index % 251)
    await onDisk(disk, ByteFile.write("/a", (append) => append(bytes)))
    const asked: Array<number> = []
    const counting: FileSystem.FileSystem = {
      ...disk.fileSystem,
      open: (path, options) => Effect.map(disk.fileSystem.open(path, options), (file) => ({
        ...file,
        read: (buffer, at) => Effect.suspend(() => {
          asked.push(buffer.length)
          return file.read(buffer, at)
        })
      }))
    }
    const all = Effect.flatMap(ByteFile.open("/a", (stop) => stop), (file) => file.bytesAt(1, bytes.length - 1, null))
    const read = await onDisk(disk, Effect.scoped(all), counting)
    assert.isTrue(Buffer.from(read).equals(bytes.subarray(1)))
    assert.deepStrictEqual(asked, [ByteFile.chunkBytes, ByteFile.chunkBytes, 2])
  })

  it("a file that shrank, and bytes that no process can hold, are told with place and tensor", async () => {
    const disk = MemoryDisk.make()
    disk.put("/a", new Uint8Array(10))
    const shrunk: FileSystem.FileSystem = {
      ...disk.fileSystem,
      open: (path, options) => Effect.map(disk.fileSystem.open(path, options), (file) => ({
        ...file,
        stat: Effect.map(file.stat, (info) => ({ ...info, size: ByteSize.bytes(2 ** 52) }))
      }))
    }
    const reading = (length: number) =>
      Effect.flip(Effect.scoped(
        Effect.flatMap(ByteFile.open("/a", (stop) => stop), (file) => file.bytesAt(4, length, "w"))
      ))
    assert.deepStrictEqual<unknown>(await onDisk(disk, reading(8), shrunk), {
      kind: "cut while reading",
      tensor: "w",
      offset: 10,
      expected: "8 bytes from byte 4",
      found: "the end of the file"
    })
    const large = await onDisk(disk, reading(2 ** 52 - 4), shrunk)
    assert.deepInclude(large, { kind: "too large", tensor: "w", offset: 4 })
  })
})
