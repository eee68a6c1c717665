import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import * as fc from "fast-check"
import * as Snapshot from "../../src/store/Snapshot.ts"
import * as MemoryDisk from "./MemoryDisk.ts"
import { folder, request, succeed, tensors, use } from "./Run.ts"

const at = (step: number, file = ""): string => `${folder}/${Snapshot.nameOf(step)}${file === "" ? "" : `/${file}`}`

const withSnapshots = async (...steps: ReadonlyArray<number>): Promise<MemoryDisk.MemoryDisk> => {
  const disk = MemoryDisk.make()
  succeed(await MemoryDisk.live(disk, 1, use((store) =>
    Effect.forEach(steps, (step) => store.save(request(step, 10 - step))), 9)))
  return disk
}
const files = (disk: MemoryDisk.MemoryDisk, step: number): ReadonlyArray<readonly [string, Uint8Array]> =>
  [...disk.files()].filter(([path]) => path.startsWith(at(step)))
const load = (disk: MemoryDisk.MemoryDisk, step: number, files?: ReadonlyArray<string>) =>
  MemoryDisk.live(disk, 2, Snapshot.load(at(step), files))
const loadError = async (disk: MemoryDisk.MemoryDisk, step: number): Promise<Snapshot.SnapshotDamagedError> => {
  const error = succeed(await MemoryDisk.live(disk, 2, Effect.flip(Snapshot.load(at(step)))))
  if (error._tag !== "SnapshotDamagedError") throw error
  return error
}

describe("Snapshot laws", () => {
  const shape = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 2 })
  const tensor = fc.tuple(fc.string({ maxLength: 4 }), shape).chain(([name, shape]) => {
    const length = shape.reduce((product, size) => product * size, 4)
    return fc.uint8Array({ minLength: length, maxLength: length })
      .map((bytes) => ({ name, dtype: "F32" as const, shape, bytes }))
  })
  const file = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 3 })

  it("what was saved is loaded, tensors to the bit and the manifest to the letter", () =>
    fc.assert(fc.asyncProperty(fc.dictionary(fc.constantFrom("model", "optimizer", "critic"), file), fc.jsonValue(),
      async (tensors, configuration) => {
        fc.pre(!JSON.stringify(configuration).includes("-0")) // JSON texts drop the sign of zero
        const disk = MemoryDisk.make()
        const asked = { ...request(5, 0.1 + 0.2), configuration: JSON.parse(JSON.stringify(configuration)), tensors }
        succeed(await MemoryDisk.live(disk, 1, use((store) => store.save(asked))))
        const { manifest, tensors: found } = succeed(await load(disk, 5))
        const { files: _, formatVersion, ...described } = manifest
        assert.strictEqual(formatVersion, 1)
        const byName = (all: Snapshot.Loaded["tensors"]) =>
          new Map(Object.entries(all).map(([file, all]) => [file, new Map(all.map((tensor) => [tensor.name, tensor]))]))
        assert.deepStrictEqual(byName(found), byName(tensors))
        const { tensors: _tensors, ...rest } = asked
        assert.deepStrictEqual(described, rest)
      }), { numRuns: 40 }))

  it("any byte changed, cut off or added in any file is found and named, and nothing is passed over unasked", () => {
    const disks = withSnapshots(1, 2, 3)
    return fc.assert(fc.asyncProperty(
      fc.nat(), fc.nat(), fc.integer({ min: 1, max: 255 }), fc.constantFrom("change", "cut", "add", "remove"),
      async (which, place, difference, kind) => {
        const disk = await disks
        const all = files(disk, 3)
        const [path, bytes] = all[which % all.length]!
        const damaged = bytes.slice()
        damaged[place % bytes.length]! ^= difference
        if (kind === "remove") Effect.runSync(disk.fileSystem.remove(path))
        else {
          const cut = bytes.subarray(0, place % bytes.length)
          disk.put(path, kind === "change" ? damaged : kind === "cut" ? cut : Uint8Array.of(...bytes, difference))
        }
        const error = await loadError(disk, 3)
        const { latest, latestIntact } = succeed(await MemoryDisk.live(disk, 2, Effect.all({
          latest: Snapshot.latest(folder),
          latestIntact: Snapshot.latestIntact(folder)
        })))
        disk.put(path, bytes)
        const named = kind === "remove" ? path : path.replace(".sha256", ".json")
        assert.deepStrictEqual(error.damages.map(({ file }) => at(3, file)), [named])
        assert.strictEqual(error.intact, at(2))
        assert.deepStrictEqual(latest, Option.some({ step: 3, path: at(3) }))
        assert.deepStrictEqual(latestIntact.snapshot, Option.some({ step: 2, path: at(2) }))
        assert.deepStrictEqual(latestIntact.passedOver.map(({ path }) => path), [at(3)])
        succeed(await load(disk, 3))
      }
    ), { numRuns: 150 })
  })
})

describe("Snapshot cases", () => {
  it("lists what the store writes, by step, and nothing else", async () => {
    const disk = await withSnapshots(9, 10)
    const others = ["snapshot-11", ".partial-snapshot-00000012", "snapshot-000000013", "snapshot-00000014.old", "notes"]
    for (const name of others) {
      Effect.runSync(disk.fileSystem.makeDirectory(`${folder}/${name}`))
    }
    Effect.runSync(disk.fileSystem.makeDirectory(`${folder}/snapshot-123456789`))
    const listed = succeed(await MemoryDisk.live(disk, 2, Snapshot.list(folder)))
    assert.deepStrictEqual(listed.map(({ step }) => step), [9, 10, 123456789])
  })

  it("loads only the files that are asked for, whatever became of the others", async () => {
    const disk = await withSnapshots(1)
    disk.put(at(1, "optimizer.safetensors"), Uint8Array.of(0))
    const { tensors: found } = succeed(await load(disk, 1, ["model"]))
    assert.deepStrictEqual(found, { model: tensors(1)["model"]! })
  })

  it("a new run has no latest, no intact and no best snapshot", async () => {
    const disk = await withSnapshots()
    assert.deepStrictEqual(
      succeed(await MemoryDisk.live(disk, 2, Effect.all([
        Snapshot.latest(folder),
        Snapshot.best(folder),
        Snapshot.latestIntact(folder)
      ]))),
      [Option.none(), Option.none(), { snapshot: Option.none(), passedOver: [] }]
    )
  })

  it("the best has the lowest validation loss, the first of equals", async () => {
    const disk = MemoryDisk.make()
    const losses = [undefined, 3, 2, 2, undefined]
    succeed(await MemoryDisk.live(disk, 1, use((store) =>
      Effect.forEach(losses, (loss, index) => store.save(request(index + 1, loss))), 9)))
    const best = succeed(await MemoryDisk.live(disk, 2, Snapshot.best(folder)))
    assert.deepStrictEqual(Option.map(best, ({ step }) => step), Option.some(3))
    disk.put(at(5, "manifest.json"), Uint8Array.of(0))
    const error = succeed(await MemoryDisk.live(disk, 2, Effect.flip(Snapshot.best(folder))))
    assert.strictEqual(error._tag, "SnapshotDamagedError")
  })

  it("the snapshot to resume from is one before the damaged one, not after", async () => {
    const disk = await withSnapshots(1, 2, 3)
    disk.put(at(2, "model.safetensors"), Uint8Array.of(0))
    assert.strictEqual((await loadError(disk, 2)).intact, at(1))
  })

  it("a snapshot that was copied elsewhere is loaded from there", async () => {
    const disk = await withSnapshots(1, 2)
    Effect.runSync(disk.fileSystem.makeDirectory("/kept"))
    for (const [path, bytes] of files(disk, 2)) disk.put(path.replace(at(2), "/kept"), bytes)
    assert.strictEqual(succeed(await MemoryDisk.live(disk, 2, Snapshot.load("/kept"))).step, 2)
    disk.put("/kept/model.safetensors", Uint8Array.of(0))
    const error = succeed(await MemoryDisk.live(disk, 2, Effect.flip(Snapshot.load("/kept"))))
    assert.isTrue(error._tag === "SnapshotDamagedError" && error.intact === null)
  })
})

describe("Snapshot messages", () => {
  it("damaged files, with the snapshot to resume from", async () => {
    const disk = await withSnapshots(1, 2)
    const sums = new Map(Object.entries(succeed(await load(disk, 2)).manifest.files))
    const model = sums.get("model.safetensors")!
    disk.put(at(2, "model.safetensors"), new TextEncoder().encode("abc")) // the example of FIPS 180
    Effect.runSync(disk.fileSystem.remove(at(2, "optimizer.safetensors")))
    const optimizer = sums.get("optimizer.safetensors")!
    assert.strictEqual((await loadError(disk, 2)).message, [
      "/runs/a/snapshot-00000002 is not the snapshot that was saved",
      `  model.safetensors: expected ${model.bytes} bytes with sha256 ${model.sha256}; ` +
        "found 3 bytes with sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      `  optimizer.safetensors: expected ${optimizer.bytes} bytes with sha256 ${optimizer.sha256}; found no file`,
      "Files were cut or changed since, or the disk is failing. The newest intact snapshot before it is " +
        "/runs/a/snapshot-00000001: resume from that one."
    ].join("\n"))
  })

  it("no intact snapshot is left", async () => {
    const disk = await withSnapshots(1, 2)
    for (const step of [1, 2]) Effect.runSync(disk.fileSystem.remove(at(step, "manifest.json")))
    assert.strictEqual((await loadError(disk, 2)).message, [
      "/runs/a/snapshot-00000002 is not the snapshot that was saved",
      "  manifest.json: expected a file; found none",
      "Files were cut or changed since, or the disk is failing. No snapshot before it in this folder is intact: " +
        "restore it from a copy, or begin the run anew."
    ].join("\n"))
  })

  it("no such snapshot, and no such file in it", async () => {
    const disk = await withSnapshots(1, 2)
    const message = async (step: number, files?: ReadonlyArray<string>): Promise<string> =>
      succeed(await MemoryDisk.live(disk, 2, Effect.flip(Snapshot.load(at(step), files)))).message
    assert.strictEqual(
      await message(3),
      "/runs/a/snapshot-00000003: there is no snapshot\n" +
        "There is snapshot-00000001, snapshot-00000002: correct the path or the name."
    )
    assert.strictEqual(
      await message(2, ["critic"]),
      "/runs/a/snapshot-00000002: there is no critic.safetensors\n" +
        "There is model.safetensors, optimizer.safetensors: correct the path or the name."
    )
    const nowhere = succeed(await MemoryDisk.live(disk, 2, Effect.flip(Snapshot.load("/no/snapshot-00000001"))))
    assert.strictEqual(
      nowhere.message,
      "/no/snapshot-00000001: there is no snapshot\nThere is nothing of the kind: correct the path or the name."
    )
  })
})
