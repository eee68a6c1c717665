import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, FileSystem, Layer, Option } from "effect"
import * as fc from "fast-check"
import * as Durable from "../../src/store/Durable.ts"
import * as Journal from "../../src/store/Journal.ts"
import type * as Manifest from "../../src/store/Manifest.ts"
import * as SnapshotStore from "../../src/store/SnapshotStore.ts"
import * as MemoryDisk from "./MemoryDisk.ts"

const folder = "/runs/a"
const [journalPath, timingPath] = [`${folder}/journal.jsonl`, `${folder}/timing.jsonl`]
const text = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes)
const bits = (value: number): string => Buffer.from(Float64Array.of(value).buffer).toString("hex")

/** The journal of a run that a store has locked; of the store it takes the folder alone. */
const opened = (options: Parameters<typeof Journal.layer>[0] = {}) =>
  Journal.layer(options).pipe(Layer.provide(Layer.mock(SnapshotStore.SnapshotStore, {
    folder, cleared: []
  })), Layer.provide(Layer.effectDiscard(Durable.makeFolder(folder))))

const use = <A, E>(
  run: (journal: Journal.Journal["Service"]) => Effect.Effect<A, E>
) => Effect.scoped(Effect.flatMap(Journal.Journal, run).pipe(Effect.provide(opened())))

/** What a run reports at a step; `again` is the part that differs when the same step is run once more. */
const entry = (step: number, again = 0): Journal.Entry => ({
  step,
  values: { loss: 10 / (step + 3), grad_norm: Math.sqrt(step), tokens_per_second: 1000.5 + again }
})
const start = { journal: 0, timing: 0 }

const succeed = <A, E>(exit: Exit.Exit<A, E>): A => {
  if (Exit.isSuccess(exit)) return exit.value
  throw new Error(String(exit.cause))
}

describe("Journal laws", () => {
  it("every number is read back to the same bits", () =>
    fc.assert(fc.asyncProperty(
      fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 20 }),
      async (values) => {
        const disk = MemoryDisk.make()
        const { entries, torn } = succeed(await MemoryDisk.live(disk, 1, Effect.gen(function*() {
          yield* use((journal) => Effect.forEach(values, (loss, step) => journal.append({ step, values: { loss } })))
          return yield* Journal.read(journalPath)
        })))
        assert.strictEqual(torn, 0)
        assert.deepStrictEqual(entries.map(({ step }) => step), values.map((_, step) => step))
        assert.deepStrictEqual(entries.map(({ values }) => bits(values["loss"] ?? NaN)), values.map(bits))
      }
    ), { numRuns: 50, examples: [[[-0, 0, 5e-324, -Number.MAX_VALUE, 0.1, 1e21, 2 ** 53 + 2]]] }))

  it("a run killed at any point and resumed from its snapshot writes the journal of one never stopped", async () => {
    const [last, saveAt] = [6, 3]
    const never = MemoryDisk.make()
    succeed(await MemoryDisk.live(never, 1, use((journal) =>
      Effect.forEach([1, 2, 3, 4, 5, 6], (step) => journal.append(entry(step))))))
    for (let n = 0, isKilled = true; isKilled; n++) {
      const disk = MemoryDisk.make()
      let saved = Option.none<readonly [number, Manifest.Offsets]>()
      const run = (process: number) => use(Effect.fnUntraced(function*(journal) {
        const [from, offsets] = Option.getOrElse(saved, () => [0, start] as const)
        yield* journal.truncate(offsets)
        for (let step = from + 1; step <= last; step++) {
          yield* journal.append(entry(step, process))
          if (step === saveAt) saved = Option.some([step, yield* journal.offsets])
        }
      }))
      disk.killAfter(n)
      isKilled = Exit.isFailure(await MemoryDisk.live(disk, 1, run(1)))
      disk.revive()
      succeed(await MemoryDisk.live(disk, 2, run(2)))
      assert.strictEqual(text(disk.files().get(journalPath)), text(never.files().get(journalPath)), `killed after ${n}`)
      const { entries } = succeed(await MemoryDisk.live(disk, 3, Journal.read(timingPath)))
      assert.deepStrictEqual(entries.map(({ step }) => step), [1, 2, 3, 4, 5, 6])
      assert.isTrue(n > 8 || isKilled)
    }
  })

  it("a file torn anywhere keeps its whole lines, and what is written next begins a line", async () => {
    const disk = MemoryDisk.make()
    const write = (...steps: ReadonlyArray<number>) =>
      use((journal) => Effect.forEach(steps, (step) => journal.append(entry(step))))
    succeed(await MemoryDisk.live(disk, 1, write(1, 2, 3)))
    const whole = disk.files().get(journalPath)!
    const read = Journal.read(journalPath)
    for (let length = 0; length <= whole.length; length++) {
      disk.put(journalPath, whole.subarray(0, length))
      const kept = text(whole.subarray(0, length)).split("\n").slice(0, -1).map((line) => `${line}\n`)
      const torn = succeed(await MemoryDisk.live(disk, 1, read))
      assert.deepStrictEqual([torn.entries.length, torn.torn], [kept.length, length - kept.join("").length])
      succeed(await MemoryDisk.live(disk, 1, write(9)))
      assert.deepStrictEqual(
        succeed(await MemoryDisk.live(disk, 1, read)).entries.map(({ step }) => step),
        [...[1, 2, 3].slice(0, kept.length), 9]
      )
    }
  })

  it("what `offsets` answered for survives a power cut", () =>
    fc.assert(fc.asyncProperty(fc.nat(3), fc.infiniteStream(fc.boolean()), async (more, survives) => {
      const disk = MemoryDisk.make()
      const { offsets } = succeed(await MemoryDisk.live(disk, 1, use(Effect.fnUntraced(function*(journal) {
        yield* journal.append(entry(1))
        const offsets = yield* journal.offsets
        for (let step = 2; step < 2 + more; step++) yield* journal.append(entry(step))
        return { offsets }
      }))))
      disk.cutPower(() => survives.next().value)
      succeed(await MemoryDisk.live(disk, 2, use((journal) => journal.truncate(offsets))))
      assert.strictEqual(text(disk.files().get(journalPath)), `{"step":1,"loss":2.5,"grad_norm":1}\n`)
      assert.strictEqual(text(disk.files().get(timingPath)), `{"step":1,"tokens_per_second":1000.5}\n`)
    }), { numRuns: 40 }))

  it("on a disk that is full from any byte on, an entry fails, and the files stay whole", async () => {
    for (let room = 0; room < 120; room += 3) {
      const disk = MemoryDisk.make()
      const [outcomes, after] = succeed(await MemoryDisk.live(disk, 1, use(Effect.fnUntraced(function*(journal) {
        disk.fillAt(room)
        const outcomes = yield* Effect.forEach([1, 2, 3], (step) => Effect.exit(journal.append(entry(step))))
        disk.fillAt(Infinity)
        return [outcomes, yield* Effect.exit(journal.append(entry(4)))] as const
      }))))
      assert.isTrue(Exit.isSuccess(after))
      assert.isTrue(outcomes.some(Exit.isFailure))
      const { entries, torn } = succeed(await MemoryDisk.live(disk, 1, Journal.read(journalPath)))
      const steps = entries.map(({ step }) => step)
      assert.deepStrictEqual([steps.at(-1), torn], [4, 0], `room for ${room} bytes`)
      for (const [index, exit] of outcomes.entries()) {
        if (Exit.isSuccess(exit)) assert.include(steps, index + 1)
      }
    }
  })
})

describe("Journal cases", () => {
  it("sends each value to its file, in the order given, and writes no empty lines", async () => {
    const disk = MemoryDisk.make()
    succeed(await MemoryDisk.live(disk, 1, use((journal) =>
      Effect.forEach([
        { step: 1, values: { num_tokens: 64, loss: 2.5, mfu: 0.5 } },
        { step: 2, values: { "val/loss": -0 } },
        { step: 3, values: { mfu: 0.25 } },
        { step: 4, values: {} }
      ], journal.append))))
    assert.strictEqual(
      text(disk.files().get(journalPath)),
      `{"step":1,"num_tokens":64,"loss":2.5}\n{"step":2,"val/loss":-0}\n`
    )
    assert.strictEqual(text(disk.files().get(timingPath)), `{"step":1,"mfu":0.5}\n{"step":3,"mfu":0.25}\n`)
  })

  it("takes a registry of its own", async () => {
    const definition = "how often the model rhymes"
    const registry = [{ name: "rhymes", unit: "1", reduction: "mean", definition, file: "journal" }] as const
    const disk = MemoryDisk.make()
    succeed(await MemoryDisk.live(disk, 1, Effect.flatMap(Journal.Journal, (journal) =>
      journal.append({ step: 1, values: { rhymes: 0.5 } })).pipe(Effect.provide(opened({ registry })))))
    assert.strictEqual(text(disk.files().get(journalPath)), `{"step":1,"rhymes":0.5}\n`)
  })

  it("lines longer than the block that is searched for a newline are found, and cut, too", async () => {
    const disk = MemoryDisk.make()
    Effect.runSync(disk.fileSystem.makeDirectory(folder, { recursive: true }))
    const [line, torn] = [`{"step":1,"loss":${"1".repeat(200)}}\n`, `{"step":2,"loss":${"1".repeat(200_000)}`]
    disk.put(journalPath, new TextEncoder().encode(line + torn))
    succeed(await MemoryDisk.live(disk, 1, use(() => Effect.void)))
    assert.strictEqual(text(disk.files().get(journalPath)), line)
  })

  it("entries given at once are written one after the other, though a disk is slow", async () => {
    const disk = MemoryDisk.make()
    const steps = Array.from({ length: 20 }, (_, step) => step)
    let writes = 0
    const slow: FileSystem.FileSystem = {
      ...disk.fileSystem,
      open: (path, options) => Effect.map(disk.fileSystem.open(path, options), (file) => ({
        ...file,
        writeAll: (bytes) => Effect.yieldNow.pipe(
          Effect.repeat({ times: 40 - writes++ }), // the earlier, the slower
          Effect.andThen(file.writeAll(bytes))
        )
      }))
    }
    const appendAll = use((journal) =>
      Effect.forEach(steps, (step) => journal.append(entry(step)), { concurrency: "unbounded" })).pipe(
      Effect.provideService(FileSystem.FileSystem, slow)
    )
    for (const path of [journalPath, timingPath]) {
      writes = 0
      const reading = Effect.andThen(appendAll, Journal.read(path))
      const { entries } = succeed(await MemoryDisk.live(disk, 1, reading))
      assert.deepStrictEqual(entries.map(({ step }) => step), path === journalPath ? steps : [...steps, ...steps])
    }
  })
})

describe("Journal messages", () => {
  const message = async <E extends { readonly message: string }>(
    run: (journal: Journal.Journal["Service"], disk: MemoryDisk.MemoryDisk) => Effect.Effect<unknown, E>
  ): Promise<string> => {
    const disk = MemoryDisk.make()
    const exit = await MemoryDisk.live(disk, 1, use((journal) =>
      Effect.andThen(journal.append(entry(1)), Effect.flip(Effect.suspend(() => run(journal, disk))))))
    return succeed(exit).message
  }

  it("an entry that cannot be written", async () => {
    assert.strictEqual(
      await message((journal) => journal.append({ step: 7, values: { los: 1, loss: NaN, grad_norm: -Infinity } })),
      [
        "journal, step 7: this entry was not written",
        "  no such metric: los. The registry has num_tokens, loss, val/loss, val/bpb, grad_norm, learning_rate, " +
          "tokens_per_second, mfu: correct the name, or describe the metric there",
        "  not finite: loss = NaN, grad_norm = -Infinity. The run diverged or its data are broken: look at the batch " +
          "of this step, or resume from the last snapshot with a lower learning rate"
      ].join("\n")
    )
  })

  it("a full disk", async () => {
    assert.strictEqual(
      await message((journal, disk) => {
        disk.fillAt(80)
        return journal.append(entry(2))
      }),
      "/runs/a/journal.jsonl: the lines after byte 36 could not be written: ENOSPC: no space left on device, write\n" +
        "Every line before is intact. Free space on this disk, then resume the run."
    )
  })

  it("a journal that is not the snapshot's", async () => {
    assert.strictEqual(
      await message((journal) => journal.truncate({ journal: 99, timing: 0 })),
      "/runs/a/journal.jsonl: a snapshot was saved when this file held 99 bytes; it now holds 36 bytes\n" +
        "Lines were removed since: restore the file, or begin a new run."
    )
    assert.strictEqual(
      await message((journal) => journal.truncate({ journal: 36, timing: 5 })),
      "/runs/a/timing.jsonl: byte 5, at which a snapshot resumes, is not the end of a line: " +
        "the byte before it is 101, not a newline\n" +
        "The file was edited since, or belongs to another run: restore it, or begin a new run."
    )
  })

  it("a refused truncation cuts neither file", async () => {
    const disk = MemoryDisk.make()
    succeed(await MemoryDisk.live(disk, 1, use((journal) =>
      Effect.andThen(journal.append(entry(1)), Effect.flip(journal.truncate({ journal: 0, timing: 99 }))))))
    assert.strictEqual(text(disk.files().get(journalPath)), `{"step":1,"loss":2.5,"grad_norm":1}\n`)
  })

  it("a malformed line", async () => {
    for (const line of ["{", "[1]", "null", `{"loss":1}`, `{"step":1,"loss":"1"}`, `{"step":1,"loss":null}`]) {
      const disk = MemoryDisk.make()
      disk.put("/journal.jsonl", new TextEncoder().encode(`{"step":1,"loss":2}\n${line}\n`))
      const error = succeed(await MemoryDisk.live(disk, 1, Effect.flip(Journal.read("/journal.jsonl"))))
      assert.isTrue(error._tag === "JournalError" && error.offset === 20, line)
      if (line === `{"loss":1}`) {
        assert.strictEqual(
          error.message,
          `/journal.jsonl: the line at byte 20 is not { "step": number, name: number, … }: {"loss":1}\n` +
            "The file was edited or its disk is failing: remove the line, or resume from a snapshot before it."
        )
      }
    }
  })
})
