import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Path } from "effect"
import { createHash, randomBytes } from "node:crypto"
import * as Durable from "../../src/store/Durable.ts"
import * as MemoryDisk from "./MemoryDisk.ts"
import { succeed } from "./Run.ts"

describe("Durable", () => {
  it("a new folder survives a power cut with those above it, and a file in it once it is synced", async () => {
    const disk = MemoryDisk.make()
    succeed(await MemoryDisk.live(disk, 1, Effect.gen(function*() {
      yield* Durable.makeFolder("/a/b/c")
      yield* Durable.writeFile("/a/b/c/kept", Uint8Array.of(1))
      yield* Durable.syncFolder("/a/b/c")
      yield* Durable.writeFile("/a/b/c/lost", Uint8Array.of(2))
    })))
    disk.cutPower(() => false)
    assert.deepStrictEqual([...disk.files()], [["/a/b/c/kept", Uint8Array.of(1)]])
  })

  it("on Windows folders are not synced, for they cannot be", async () => {
    const disk = MemoryDisk.make()
    Effect.runSync(disk.fileSystem.makeDirectory("/a"))
    succeed(await MemoryDisk.live(disk, 1, Effect.gen(function*() {
      const path = yield* Path.Path
      const before = disk.operations()
      yield* Durable.syncFolder("/a").pipe(Effect.provideService(Path.Path, { ...path, sep: "\\" }))
      assert.strictEqual(disk.operations(), before)
      yield* Durable.syncFolder("/a")
      assert.strictEqual(disk.operations(), before + 1)
    })))
  })

  it("the digest is that of the whole file, longer than a chunk or empty, on the real disk", () =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const folder = yield* fileSystem.makeTempDirectoryScoped()
      for (const length of [0, 1, 4 * 1024 * 1024 + 17]) {
        const bytes = randomBytes(length)
        yield* Durable.writeFile(path.join(folder, "f"), bytes)
        yield* Durable.syncFolder(folder)
        assert.deepStrictEqual(yield* Durable.digest(path.join(folder, "f")), {
          bytes: length,
          sha256: createHash("sha256").update(bytes).digest("hex")
        })
      }
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer), Effect.runPromise))

  it("says what the operating system said", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Durable.digest("/no/such/file"))
      assert.strictEqual(Durable.reason(error), "ENOENT: no such file or directory, open '/no/such/file'")
      assert.isFalse(Durable.isDiskFull(error))
    }).pipe(Effect.provide(NodeServices.layer), Effect.runPromise))
})
