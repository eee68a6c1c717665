import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, FileSystem, Path } from "effect"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as fc from "fast-check"
import { spawnSync } from "node:child_process"
import * as Lock from "../../src/store/Lock.ts"
import * as MemoryDisk from "./MemoryDisk.ts"

const withRun = (): MemoryDisk.MemoryDisk => {
  const disk = MemoryDisk.make()
  Effect.runSync(disk.fileSystem.makeDirectory("/run"))
  return disk
}
const ownedBy = (owner: Lock.Owner): MemoryDisk.MemoryDisk => {
  const disk = withRun()
  Effect.runSync(disk.fileSystem.makeDirectory("/run/run.lock"))
  disk.put(fileOf(owner), new Uint8Array())
  return disk
}
const fileOf = ({ host, process, started }: Lock.Owner): string =>
  `/run/run.lock/${host},${process},${encodeURIComponent(started ?? "")},x`
const acquire = Lock.acquire("/run")

const refusal = async (disk: MemoryDisk.MemoryDisk, process: number): Promise<Lock.RunLockedError> => {
  const exit = await MemoryDisk.live(disk, process, Effect.flip(acquire))
  if (Exit.isFailure(exit) || exit.value._tag !== "RunLockedError") throw new Error("the lock was taken")
  return exit.value
}

describe("Lock laws", () => {
  it("a process killed before any of its operations leaves a run that the next one can lock", async () => {
    for (const begin of [withRun, () => ownedBy({ host: "here", process: 9, started: "life 9" })]) {
      let operations = 0
      for (let n = 0; n <= operations; n++) {
        const disk = begin()
        const before = disk.operations()
        disk.killAfter(n)
        const first = await MemoryDisk.live(disk, 1, acquire)
        if (n === 0) assert.isTrue(Exit.isFailure(first))
        if (Exit.isFailure(first)) operations = n + 1
        else operations = Math.max(operations, disk.operations() - before) // killed while it let go
        disk.revive()
        assert.isTrue(Exit.isSuccess(await MemoryDisk.live(disk, 2, acquire)), `killed after ${n} operations`)
      }
      assert.isAbove(operations, 5)
    }
  })

  it("of several who come at once, one wins, also over a stale lock", async () => {
    for (const disk of [withRun(), ownedBy({ host: "here", process: 9, started: "life 9" })]) {
      let [holders, most, wins] = [0, 0, 0]
      const hold = Effect.scoped(Effect.gen(function*() {
        yield* acquire
        most = Math.max(most, ++holders)
        wins++
        yield* Effect.yieldNow
        holders--
      })).pipe(Effect.exit)
      await MemoryDisk.live(disk, 1, Effect.all([hold, hold, hold, hold], { concurrency: "unbounded" }))
      assert.strictEqual(most, 1)
      assert.isAtLeast(wins, 1)
    }
  })

  it("three processes over a stale lock, in any order of their operations: no two ever hold it", () =>
    fc.assert(fc.asyncProperty(fc.infiniteStream(fc.nat(6)), async (delays) => {
      const disk = ownedBy({ host: "here", process: 9, started: "life 9" })
      const turn = Effect.suspend(() => Effect.repeat(Effect.yieldNow, { times: delays.next().value }))
      const slow = new Proxy(disk.fileSystem, {
        get: (target, name: keyof FileSystem.FileSystem) => {
          const value: unknown = target[name]
          return typeof value !== "function" ? value
            : (...args: ReadonlyArray<unknown>) => Effect.andThen(turn, Reflect.apply(value, target, args))
        }
      })
      let [holders, most, wins] = [0, 0, 0]
      const contend = (process: number) =>
        Effect.scoped(Effect.gen(function*() {
          yield* Effect.acquireRelease( // counted out before the lock is let go
            Effect.tap(acquire, () => Effect.sync(() => { most = Math.max(most, ++holders) })),
            () => Effect.sync(() => { holders-- })
          )
          wins++
          yield* turn
        })).pipe(
          Effect.provideService(FileSystem.FileSystem, slow),
          Effect.provideService(Lock.Processes, {
            self: Effect.succeed({ host: "here", process, started: `life ${process}` }),
            exists: (other) => Effect.succeed(other !== 9),
            started: (other) => Effect.succeed(`life ${other}`)
          }),
          Effect.exit
        )
      const exit = await MemoryDisk.live(disk, 0, Effect.forEach([1, 2, 3], contend, { concurrency: "unbounded" }))
      const refusals = Exit.isSuccess(exit) ? exit.value.filter(Exit.isFailure).map(({ cause }) => Cause.squash(cause))
        : [exit.cause]
      assert.deepStrictEqual(refusals.filter((error) => !(error instanceof Lock.RunLockedError)), [])
      assert.strictEqual(most, 1)
      assert.isAtLeast(wins, 1)
      assert.deepStrictEqual(Effect.runSync(disk.fileSystem.readDirectory("/run")), [])
    }), { numRuns: Number(process.env["CRIA_LOCK_RUNS"] ?? 200) }))

  it("when the Scope closes nothing of the lock is left", async () => {
    const disk = withRun()
    await MemoryDisk.live(disk, 1, acquire)
    assert.deepStrictEqual([...disk.files().keys()], [])
    assert.deepStrictEqual(Effect.runSync(disk.fileSystem.readDirectory("/run")), [])
  })
})

describe("Lock cases", () => {
  it("a dead owner's lock is taken over, so is that of an earlier process with our number", async () => {
    for (const process of [9, 1]) {
      const disk = ownedBy({ host: "here", process, started: "an earlier boot" })
      assert.isTrue(Exit.isSuccess(await MemoryDisk.live(disk, 1, acquire)))
    }
  })

  it("a stale lock that another process takes over first is left to it", async () => {
    const disk = ownedBy({ host: "here", process: 9, started: "life 9" })
    const winner: Lock.Owner = { host: "here", process: 3, started: "life 3" }
    const racing: FileSystem.FileSystem = {
      ...disk.fileSystem,
      rename: (from, to) => Effect.suspend(() => {
        const isTakeover = to.startsWith("/run/run.lock/") && disk.files().has(from)
        const first = isTakeover ? disk.fileSystem.rename(from, fileOf(winner)) : Effect.void
        return Effect.andThen(first, disk.fileSystem.rename(from, to))
      })
    }
    const exit = await MemoryDisk.live(disk, 1, Effect.gen(function*() {
      const processes = yield* Lock.Processes
      return yield* Effect.flip(acquire).pipe(
        Effect.provideService(FileSystem.FileSystem, racing),
        Effect.provideService(Lock.Processes, { ...processes, exists: (process) => Effect.succeed(process !== 9) })
      )
    }))
    assert.deepStrictEqual(Exit.isSuccess(exit) && exit.value._tag === "RunLockedError" && exit.value.owner, winner)
    assert.deepStrictEqual([...disk.files().keys()], [fileOf(winner)])
  })

  it("this process cannot lock a run twice", async () => {
    const exit = await MemoryDisk.live(withRun(), 1, Effect.andThen(acquire, Effect.flip(acquire)))
    assert.strictEqual(
      Exit.isSuccess(exit) ? exit.value.message : "",
      "/run is being written already, by process 1 on here, this very process. " +
        "Two writers would mix two runs in one folder.\nClose the first store of this run before opening a second."
    )
  })

  it("a refusal leaves the lock as it was", async () => {
    const disk = ownedBy({ host: "elsewhere", process: 5, started: null })
    await refusal(disk, 1)
    assert.deepStrictEqual([...disk.files().keys()], ["/run/run.lock/elsewhere,5,,x"])
  })

  it("the real processes: this one lives, a finished child does not, and a child cannot be taken for another", () =>
    Effect.gen(function*() {
      const processes = yield* Lock.Processes
      const child = spawnSync(process.execPath, ["--version"]).pid
      assert.isTrue(yield* processes.exists(process.pid))
      assert.isTrue(yield* processes.exists(1)) // another user's, where the tests are not root's
      assert.isFalse(yield* processes.exists(child))
      const self = yield* processes.self
      assert.deepStrictEqual([self.process, self.started], [process.pid, yield* processes.started(process.pid)])
      assert.strictEqual(self.started === null, process.platform !== "linux")
    }).pipe(Effect.provide(NodeServices.layer), Effect.runPromise))

  it("when a process began is read from Linux's /proc, and one that is over did not", async () => {
    const disk = MemoryDisk.make()
    const put = (path: string, text: string): void => {
      Effect.runSync(disk.fileSystem.makeDirectory(path.slice(0, path.lastIndexOf("/")), { recursive: true }))
      disk.put(path, new TextEncoder().encode(text))
    }
    const between = Array.from({ length: 18 }, (_, index) => index).join(" ")
    const status = (state: string) => `7 (a (b) c) ${state} ${between} 4242 9 9\n`
    put("/proc/sys/kernel/random/boot_id", "0-1-2\n")
    put("/proc/7/stat", status("S"))
    put("/proc/8/stat", status("Z"))
    const { started } = Effect.runSync(Effect.service(Lock.Processes))
    const found = Effect.forEach([7, 8, 9], started).pipe(Effect.provideService(FileSystem.FileSystem, disk.fileSystem))
    assert.deepStrictEqual(await Effect.runPromise(found), ["0-1-2 4242", null, null])
  })

  it("on the real disk", () =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const folder = yield* fileSystem.makeTempDirectoryScoped()
      const error = yield* Effect.scoped(Effect.andThen(Lock.acquire(folder), Effect.flip(Lock.acquire(folder))))
      assert.strictEqual(error._tag, "RunLockedError")
      assert.deepStrictEqual(yield* fileSystem.readDirectory(folder), [])
      const { host } = yield* (yield* Lock.Processes).self
      yield* fileSystem.makeDirectory(path.join(folder, "run.lock"))
      yield* fileSystem.writeFileString(path.join(folder, "run.lock", `${host},${process.pid},before,x`), "")
      const again = yield* Effect.exit(Effect.scoped(Lock.acquire(folder)))
      assert.strictEqual(Exit.isSuccess(again), process.platform === "linux")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer), Effect.runPromise))
})

describe("Lock messages", () => {
  it("a live owner, a foreign one, and one that is not named", async () => {
    const title = "Two writers would mix two runs in one folder."
    const disk = ownedBy({ host: "here", process: 1, started: null })
    await MemoryDisk.live(disk, 1, Effect.gen(function*() {
      const processes = yield* Lock.Processes
      const error = yield* Effect.flip(acquire).pipe(Effect.provideService(Lock.Processes, {
        ...processes,
        self: Effect.succeed({ host: "here", process: 2, started: null }),
        exists: () => Effect.succeed(true)
      }))
      assert.strictEqual(
        error.message,
        `/run is being written already, by process 1 on here. ${title}\n` +
          "Let it finish, or stop it, or give this run a folder of its own."
      )
    })).then((exit) => assert.isTrue(Exit.isSuccess(exit)))
    assert.strictEqual(
      (await refusal(ownedBy({ host: "elsewhere", process: 5, started: null }), 1)).message,
      `/run is being written already, by process 5 on elsewhere. ${title}\n` +
        "Whether it still runs cannot be seen from here: if it does not, remove /run/run.lock."
    )
    const unnamed = ownedBy({ host: "here", process: 5, started: null })
    unnamed.put("/run/run.lock/second", new Uint8Array())
    assert.strictEqual(
      (await refusal(unnamed, 1)).message,
      `/run is being written already, by whom, /run/run.lock does not say. ${title}\n` +
        "Whether it still runs cannot be seen from here: if it does not, remove /run/run.lock."
    )
  })
})
