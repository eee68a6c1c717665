import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, FileSystem, Option, Path, Result } from "effect"
import * as fc from "fast-check"
import * as Snapshot from "../../src/store/Snapshot.ts"
import * as SnapshotStore from "../../src/store/SnapshotStore.ts"
import * as MemoryDisk from "./MemoryDisk.ts"
import { folder, intactSteps, request, succeed, tensors, use } from "./Run.ts"

const losses = [5, 1, 3, 2] // the second step is the best: from step 4 on, with two kept, step 3 has to go

/** Saves four snapshots and says which saves came back. */
const runInto = (done: Array<number>) =>
  use((store) =>
    Effect.forEach(losses, (loss, index) =>
      Effect.tap(store.save(request(index + 1, loss)), ({ step }) => Effect.sync(() => done.push(step)))), 1)

const names = (disk: MemoryDisk.MemoryDisk) => Effect.runSync(disk.fileSystem.readDirectory(folder)).sort()

/** A new process finds the newest snapshot whose save came back, or a newer one; all are whole; the run goes on. */
const afterCrash = async (disk: MemoryDisk.MemoryDisk, done: ReadonlyArray<number>, when: string): Promise<void> => {
  const exists = Effect.runSync(disk.fileSystem.exists(folder))
  const seen = exists ? succeed(await MemoryDisk.live(disk, 2, intactSteps)) : []
  const last = done.at(-1) ?? 0
  assert.isTrue(last === 0 || seen.some((step) => step >= last), `${when}: saved ${done}, found ${seen}`)
  if (last >= 2) assert.include(seen, 2, `${when}: the best is gone`)
  const next = (seen.at(-1) ?? 0) + 1
  succeed(await MemoryDisk.live(disk, 3, use((store) => store.save(request(next, 9)), 1)))
  assert.deepStrictEqual(
    names(disk),
    [...new Set([seen.includes(2) ? 2 : seen.includes(1) ? 1 : next, next])].map(Snapshot.nameOf),
    when
  )
}

describe("SnapshotStore laws", () => {
  it("killed before any operation, the last snapshot that was saved loads and nothing is half visible", async () => {
    let isKilled = true
    let n = 0
    for (; isKilled; n++) {
      const [disk, done] = [MemoryDisk.make(), new Array<number>()]
      disk.killAfter(n)
      isKilled = Exit.isFailure(await MemoryDisk.live(disk, 1, runInto(done)))
      disk.revive()
      await afterCrash(disk, done, `killed after ${n} operations`)
    }
    assert.isAbove(n, 100)
  })

  it("cut off from power at any moment, whatever of the unsynced reached the disk, neither", () =>
    fc.assert(fc.asyncProperty(fc.nat(130), fc.infiniteStream(fc.boolean()), async (n, survives) => {
      const [disk, done] = [MemoryDisk.make(), new Array<number>()]
      disk.killAfter(n)
      await MemoryDisk.live(disk, 1, runInto(done))
      disk.cutPower(() => survives.next().value)
      await afterCrash(disk, done, `power cut after ${n} operations`)
    }), { numRuns: 150 }))

  it("cut off from power at every moment with all unsynced lost, neither", async () => {
    for (let n = 0; n < 130; n++) {
      const [disk, done] = [MemoryDisk.make(), new Array<number>()]
      disk.killAfter(n)
      await MemoryDisk.live(disk, 1, runInto(done))
      disk.cutPower(() => false)
      await afterCrash(disk, done, `power cut after ${n} operations`)
    }
  })

  it("on a disk that fills at any byte the save fails, leaves nothing, and works once there is space", async () => {
    const failsWith = async (room: number): Promise<boolean> => {
      const disk = MemoryDisk.make()
      const fails = succeed(await MemoryDisk.live(disk, 1, use(Effect.fnUntraced(function*(store) {
        yield* store.save(request(1, 5))
        const before = names(disk)
        disk.fillAt([...disk.files().values()].reduce((sum, { length }) => sum + length, room))
        const exit = yield* Effect.exit(store.save(request(2, 4)))
        if (Exit.isSuccess(exit)) return false
        const error = yield* Effect.flip(store.save(request(2, 4)))
        assert.isTrue(error._tag === "SnapshotWriteError" && error.isDiskFull && error.leftover === null)
        assert.deepStrictEqual(names(disk), before)
        disk.fillAt(Infinity)
        yield* store.save(request(2, 4))
        return true
      }))))
      assert.deepStrictEqual(succeed(await MemoryDisk.live(disk, 2, intactSteps)), [1, 2])
      return fails
    }
    let room = 0
    while (await failsWith(room)) room += 29
    assert.isAbove(room, 1000)
  })

  it("keeps the last k and the best by validation loss, of any history", () =>
    fc.assert(fc.asyncProperty(
      fc.integer({ min: 1, max: 3 }),
      fc.array(fc.option(fc.integer({ min: 0, max: 5 }), { nil: undefined }), { minLength: 1, maxLength: 7 }),
      async (keepLast, losses) => {
        const disk = MemoryDisk.make()
        succeed(await MemoryDisk.live(disk, 1, use(Effect.fnUntraced(function*(store) {
          for (const [index, loss] of losses.entries()) {
            const before = (yield* store.list).map(({ step }) => step)
            const { removed } = yield* store.save(request(index + 1, loss))
            const history = losses.slice(0, index + 1)
            const lowest = Math.min(...history.map((loss) => loss ?? Infinity))
            const best = lowest === Infinity ? [] : [history.indexOf(lowest) + 1]
            const recent = history.map((_, index) => index + 1).slice(-keepLast)
            const expected = [...new Set([...best, ...recent])].sort((a, b) => a - b)
            assert.deepStrictEqual((yield* store.list).map(({ step }) => step), expected)
            assert.deepStrictEqual(
              removed,
              before.filter((step) => !expected.includes(step)).map((step) => `${folder}/${Snapshot.nameOf(step)}`)
            )
          }
        }), keepLast)))
      }
    ), { numRuns: 40 }))
})

describe("an amended snapshot", () => {
  const { tensors: _, ...fields } = request(1)
  const amended = { ...fields, metrics: { "val/loss": 3 } }
  const manifestOf = (disk: MemoryDisk.MemoryDisk) =>
    MemoryDisk.live(disk, 2, Effect.map(Snapshot.load(`${folder}/${Snapshot.nameOf(1)}`), ({ manifest }) => manifest))
  const metricsOf = (disk: MemoryDisk.MemoryDisk) =>
    MemoryDisk.live(disk, 2, Effect.map(Snapshot.load(`${folder}/${Snapshot.nameOf(1)}`), ({ manifest }) =>
      manifest.metrics))

  it("is whole, and says the old or the new, whenever it is killed or cut off from power", async () => {
    const seen = new Set<string>()
    let isKilled = true
    for (let n = 0; isKilled; n++) {
      for (const survives of [true, false]) {
        const disk = MemoryDisk.make()
        succeed(await MemoryDisk.live(disk, 1, use((store) => store.save(request(1)))))
        disk.killAfter(n)
        isKilled = Exit.isFailure(await MemoryDisk.live(disk, 1, use((store) => store.amend(amended))))
        disk.cutPower(() => survives)
        const metrics = JSON.stringify(succeed(await metricsOf(disk)))
        if (!isKilled) assert.strictEqual(metrics, `{"val/loss":3}`)
        seen.add(metrics)
        succeed(await MemoryDisk.live(disk, 3, use((store) => store.amend(amended))))
        assert.deepStrictEqual(succeed(await metricsOf(disk)), { "val/loss": 3 })
      }
    }
    assert.deepStrictEqual([...seen].sort(), ["{}", `{"val/loss":3}`].sort())
  })

  it("keeps the environment that made its tensors, and all but its journal and what was measured", async () => {
    const disk = MemoryDisk.make()
    const unfinished = { loss: 2 }
    succeed(await MemoryDisk.live(disk, 1, use((store) => store.save({ ...request(1), unfinished }))))
    const before = succeed(await manifestOf(disk))
    assert.deepStrictEqual(before.unfinished, unfinished)
    const other = {
      ...amended, environment: { ...fields.environment, threadCount: 64 }, dataHash: "d2", configuration: {},
      journal: { journal: 400, timing: 500 }
    }
    succeed(await MemoryDisk.live(disk, 1, use((store) => store.amend(other))))
    const { unfinished: _, ...kept } = before
    assert.deepStrictEqual(succeed(await manifestOf(disk)),
      { ...kept, metrics: { "val/loss": 3 }, journal: { journal: 400, timing: 500 } })
  })

  it("on a disk that fills at any byte is whole, is told to be, and leaves nothing half written", async () => {
    let fails = true
    let room = 0
    for (; fails; room += 29) {
      const disk = MemoryDisk.make()
      fails = succeed(await MemoryDisk.live(disk, 1, use(Effect.fnUntraced(function*(store) {
        yield* store.save(request(1))
        disk.fillAt([...disk.files().values()].reduce((sum, { length }) => sum + length, room))
        const outcome = yield* Effect.result(store.amend(amended))
        disk.fillAt(Infinity)
        assert.deepStrictEqual([...disk.files().keys()].filter((name) => name.includes(".partial")), [])
        if (Result.isSuccess(outcome)) return false
        assert.strictEqual(outcome.failure.message,
          "/runs/a/snapshot-00000001 is whole, but what was measured since could not be noted: ENOSPC: no space left " +
            "on device, write\nWhat is missing is measured again when the run goes on from there. Free space on this " +
            "disk, then resume the run.")
        const { newest, stage } = outcome.failure as SnapshotStore.SnapshotWriteError
        assert.deepStrictEqual([stage, newest], ["amend", "/runs/a/snapshot-00000001"])
        return true
      }))))
      succeed(await manifestOf(disk))
      succeed(await MemoryDisk.live(disk, 3, use((store) => store.amend(amended))))
      assert.deepStrictEqual(succeed(await manifestOf(disk)).metrics, { "val/loss": 3 })
    }
    assert.isAbove(room, 200)
  })

  it("first clears what a killed process left of the amendment before, which takes space", async () => {
    const disk = MemoryDisk.make()
    succeed(await MemoryDisk.live(disk, 1, use((store) => store.save(request(1)))))
    disk.put(`${folder}/${Snapshot.nameOf(1)}/.partial-manifest.json`, new Uint8Array(5000))
    succeed(await MemoryDisk.live(disk, 2, use((store) => {
      disk.fillAt([...disk.files().values()].reduce((sum, { length }) => sum + length, 0))
      return store.amend(amended)
    })))
    assert.deepStrictEqual(succeed(await manifestOf(disk)).metrics, { "val/loss": 3 })
  })

  it("can be the best from then on, and keeps its tensors", async () => {
    const disk = MemoryDisk.make()
    succeed(await MemoryDisk.live(disk, 1, use((store) => Effect.gen(function*() {
      yield* store.save(request(1))
      assert.isTrue(Option.isNone(yield* store.best))
      yield* store.amend(amended)
      assert.strictEqual(Option.getOrThrow(yield* store.best).step, 1)
      yield* store.save(request(2, 4))
      assert.strictEqual(Option.getOrThrow(yield* store.best).step, 1)
      assert.match((yield* Effect.flip(store.amend(amended))).message,
        /^snapshot of step 1: the run already has \/runs\/a\/snapshot-00000002\n/)
    }))))
    assert.deepStrictEqual(succeed(await MemoryDisk.live(disk, 2, intactSteps)), [1, 2])
  })
})

describe("SnapshotStore cases", () => {
  it("says what it saved", async () => {
    const disk = MemoryDisk.make()
    const saved = succeed(await MemoryDisk.live(disk, 1, use((store) => store.save(request(1200)))))
    const bytes = [...disk.files().values()].reduce((sum, { length }) => sum + length, 0)
    assert.deepStrictEqual({ ...saved, seconds: 0 }, {
      step: 1200,
      path: "/runs/a/snapshot-00001200",
      bytes,
      seconds: 0,
      removed: []
    })
    assert.isAtLeast(saved.seconds, 0)
    assert.deepStrictEqual([...disk.files().keys()].sort(), [
      "/runs/a/snapshot-00001200/manifest.json",
      "/runs/a/snapshot-00001200/manifest.sha256",
      "/runs/a/snapshot-00001200/model.safetensors",
      "/runs/a/snapshot-00001200/optimizer.safetensors"
    ])
  })

  it("an error of the tensors' own Effects passes through and leaves nothing", async () => {
    const disk = MemoryDisk.make()
    const whose = (bytes: Effect.Effect<Uint8Array, "gone">) =>
      ({ ...request(1), tensors: { model: [{ name: "a", dtype: "F32", shape: [1], bytes }] } }) as const
    const gone = use((store) => Effect.flip(store.save(whose(Effect.fail("gone")))))
    assert.strictEqual(succeed(await MemoryDisk.live(disk, 1, gone)), "gone")
    assert.deepStrictEqual(names(disk), [])
    const exit = await MemoryDisk.live(disk, 1, use((store) => store.save(whose(Effect.die("bug")))))
    assert.include(String(Exit.isFailure(exit) && exit.cause), "bug")
    assert.deepStrictEqual(names(disk), [])
  })

  it("tensors that do not fit their shape, and values without JSON, are refused and leave nothing", async () => {
    const disk = MemoryDisk.make()
    const wrong = { ...request(1), tensors: { model: [{ ...tensors(1)["model"]![0]!, shape: [3] }] } }
    const requests = [wrong, { ...request(1), metrics: { "val/loss": NaN } }, { ...request(1), dataCursor: Infinity }]
    const outcomes = succeed(await MemoryDisk.live(disk, 1, use((store) =>
      Effect.forEach(requests, Effect.fnUntraced(function*(bad) {
        const before = disk.operations()
        const { _tag } = yield* Effect.flip(store.save(bad))
        return [_tag, disk.operations() - before]
      })))))
    assert.deepStrictEqual(outcomes.map(([tag]) => tag), ["SafetensorsError", "ManifestError", "ManifestError"])
    assert.deepStrictEqual(outcomes.slice(1).map(([, operations]) => operations), [0, 0])
    assert.deepStrictEqual(names(disk), [])
  })

  it("a save that began is finished, also when its fiber is interrupted", async () => {
    const disk = MemoryDisk.make()
    succeed(await MemoryDisk.live(disk, 1, use(Effect.fnUntraced(function*(store) {
      const [begun, go] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const tensor = tensors(1)["optimizer"]![0]!
      const bytes = Effect.as(Effect.andThen(Deferred.succeed(begun, undefined), Deferred.await(go)), tensor.bytes)
      const slow = { ...request(1), tensors: { ...tensors(1), optimizer: [{ ...tensor, bytes }] } }
      const fiber = yield* Effect.forkChild(store.save(slow))
      yield* Deferred.await(begun)
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber))
      yield* Effect.yieldNow
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(interrupting)
    }))))
    assert.deepStrictEqual(succeed(await MemoryDisk.live(disk, 2, intactSteps)), [1])
  })

  it("what a killed run left is cleared when the store is opened, and named", async () => {
    const disk = MemoryDisk.make()
    succeed(await MemoryDisk.live(disk, 1, use((store) => store.save(request(1)))))
    disk.killAfter(20)
    await MemoryDisk.live(disk, 2, use((store) => store.save(request(2))))
    disk.revive()
    assert.include(names(disk), ".partial-snapshot-00000002")
    const cleared = succeed(await MemoryDisk.live(disk, 3, use((store) => Effect.succeed(store.cleared))))
    assert.deepStrictEqual(cleared, ["/runs/a/.partial-snapshot-00000002"])
    assert.deepStrictEqual(names(disk), ["snapshot-00000001"])
  })

  it("a run is written by one store at a time", async () => {
    const disk = MemoryDisk.make()
    const error = succeed(await MemoryDisk.live(disk, 1, use(() => Effect.flip(use(() => Effect.void)).pipe(
      Effect.provideService(FileSystem.FileSystem, disk.fileSystem),
      Effect.provide(Path.layer)
    ))))
    assert.strictEqual((error as { readonly _tag: string })._tag, "RunLockedError")
  })

  it("a run that resumes from an earlier snapshot discards those after it, newest first", async () => {
    const disk = MemoryDisk.make()
    succeed(await MemoryDisk.live(disk, 1, use(Effect.fnUntraced(function*(store) {
      for (const step of [1, 2, 3, 4]) yield* store.save(request(step))
      assert.deepStrictEqual(
        yield* store.discardAfter(2),
        [4, 3].map((step) => `${folder}/${Snapshot.nameOf(step)}`)
      )
      assert.deepStrictEqual((yield* store.list).map(({ step }) => step), [2])
      yield* store.save(request(3))
    }), 3)))
    assert.deepStrictEqual(succeed(await MemoryDisk.live(disk, 2, intactSteps)), [2, 3])
  })

  it("a snapshot whose manifest is damaged is not removed, nor counted among those kept", async () => {
    const disk = MemoryDisk.make()
    succeed(await MemoryDisk.live(disk, 1, use(Effect.fnUntraced(function*(store) {
      yield* store.save(request(1, 1))
      disk.put(`${folder}/snapshot-00000001/manifest.json`, Uint8Array.of(0))
      for (const step of [2, 3, 4]) yield* store.save(request(step, step))
      assert.deepStrictEqual((yield* store.list).map(({ step }) => step), [1, 2, 4])
    }), 1)))
  })

  it("a store that keeps no snapshot is a defect", async () => {
    for (const keepLast of [0, -1, 1.5, NaN]) {
      const exit = await MemoryDisk.live(MemoryDisk.make(), 1, use(() => Effect.void, keepLast))
      assert.include(String(Exit.isFailure(exit) && exit.cause), `keepLast is ${keepLast}`)
    }
  })

  it("on the real disk", () =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const folder = path.join(yield* fileSystem.makeTempDirectoryScoped(), "runs", "a")
      const opened = (keepLast: number) => SnapshotStore.layer({ folder, keepLast })
      yield* Effect.gen(function*() {
        const store = yield* SnapshotStore.SnapshotStore
        for (const step of [1, 2, 3]) yield* store.save(request(step, step))
        assert.deepStrictEqual((yield* store.list).map(({ step }) => step), [1, 3])
        const { tensors: found } = yield* store.load(3)
        assert.deepStrictEqual(found, tensors(3))
      }).pipe(Effect.provide(opened(1)))
      const left = yield* fileSystem.readDirectory(folder)
      assert.deepStrictEqual(left.sort(), ["snapshot-00000001", "snapshot-00000003"])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer), Effect.runPromise))
})

describe("SnapshotStore messages", () => {
  const message = async <E extends { readonly message: string }>(
    run: (store: SnapshotStore.SnapshotStore["Service"], disk: MemoryDisk.MemoryDisk) => Effect.Effect<unknown, E>
  ): Promise<string> => {
    const disk = MemoryDisk.make()
    const exit = await MemoryDisk.live(disk, 1, use((store) =>
      Effect.andThen(store.save(request(1)), Effect.flip(Effect.suspend(() => run(store, disk)))), 1))
    return succeed(exit).message
  }

  it("a full disk", async () => {
    assert.strictEqual(
      await message((store, disk) => {
        disk.fillAt(0)
        return store.save(request(2))
      }),
      "/runs/a/snapshot-00000002 could not be saved: ENOSPC: no space left on device, write\n" +
        "The others are untouched; /runs/a/snapshot-00000001 is the newest. " +
        "Free space on this disk, then resume the run."
    )
  })

  it("a step that is not after the others", async () => {
    assert.strictEqual(
      await message((store) => store.save(request(1))),
      "snapshot of step 1: the run already has /runs/a/snapshot-00000001\n" +
        "Snapshots are saved in the order of their steps. A run that resumes from an earlier one first discards " +
        "those after it (discardAfter); one that begins anew takes another folder."
    )
  })

  it("a value without JSON", async () => {
    assert.strictEqual(
      await message((store) => store.save({ ...request(2), metrics: { "val/loss": NaN } })),
      "snapshot of step 2: its manifest has no JSON form, so nothing was written: Expected a finite number\n" +
        `  at ["metrics"]["val/loss"]\n` +
        "JSON has no NaN, Infinity, undefined, bigint or date: give that value as a finite number or a text."
    )
  })

  it("a folder that cannot be removed", () => {
    const error = new SnapshotStore.SnapshotWriteError({
      path: "/runs/a/snapshot-00000001",
      stage: "remove",
      reason: "EACCES: permission denied, rename",
      isDiskFull: false,
      leftover: "/runs/a/.removed-snapshot-00000001",
      newest: "/runs/a/snapshot-00000002"
    })
    assert.strictEqual(
      error.message,
      "/runs/a/snapshot-00000001 is no longer kept, but could not be removed: EACCES: permission denied, rename\n" +
        "The others are untouched; /runs/a/snapshot-00000002 is the newest. What remains of it in " +
        "/runs/a/.removed-snapshot-00000001 is cleared when the run is next opened. " +
        "See that this folder can be written, then resume the run."
    )
  })
})
