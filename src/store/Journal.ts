/**
 * What a run reports, line by line: `journal.jsonl` for what the seed decides, `timing.jsonl` for what the clock
 * decides.
 *
 *     line = { "step": step, name: value, … } and a newline; nothing without its newline is a line
 *
 * From     JSON lines; a double is written in the fewest digits that read back to the same bits (negative zero as -0).
 * Checked  test/store/Journal.test.ts (values read back to the bit, kill before every operation, a resumed journal is
 *          the one never stopped).
 *
 * @module
 */
import * as ByteSize from "effect/ByteSize"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Durable from "./Durable.ts"
import type * as Manifest from "./Manifest.ts"
import * as Metric from "./Metric.ts"
import { SnapshotStore } from "./SnapshotStore.ts"

/** What a step reports, by the names of the registry; the recipe's own metrics are checked by `satisfies Values`. */
export interface Entry {
  readonly step: number
  readonly values: { readonly [name: string]: number }
}

/** The values of this library's metrics, each if it was measured: `values satisfies Values` finds a misspelt name. */
export type Values = { readonly [N in Exclude<Metric.Name, "step">]?: number }

const Kind = Schema.Literals(["unwritable", "shorter than its snapshot", "cut inside a line", "malformed line"])

/** Fails when a journal cannot be written, or does not hold what a snapshot or a reader must rely on. */
export class JournalError extends Schema.TaggedError<JournalError>()("JournalError", {
  kind: Kind,
  path: Schema.String,
  offset: Schema.Int,
  found: Schema.String,
  isDiskFull: Schema.Boolean
}) {
  override get message(): string {
    const { found, isDiskFull, kind, offset, path } = this
    switch (kind) {
      case "unwritable":
        return `${path}: the lines after byte ${offset} could not be written: ${found}\nEvery line before is intact. ` +
          `${isDiskFull ? "Free space on this disk" : "Look at this file and its disk"}, then resume the run.`
      case "shorter than its snapshot":
        return `${path}: a snapshot was saved when this file held ${offset} bytes; it now holds ${found}\n` +
          "Lines were removed since: restore the file, or begin a new run."
      case "cut inside a line":
        return `${path}: byte ${offset}, at which a snapshot resumes, is not the end of a line: ${found}\n` +
          "The file was edited since, or belongs to another run: restore it, or begin a new run."
      case "malformed line":
        return `${path}: the line at byte ${offset} is not { "step": number, name: number, … }: ${found}\n` +
          "The file was edited or its disk is failing: remove the line, or resume from a snapshot before it."
    }
  }
}

/** Fails when an entry cannot be journalled: a name that the registry lacks, or a number that is none. */
export class EntryError extends Schema.TaggedError<EntryError>()("EntryError", {
  step: Schema.Number,
  unknown: Schema.Array(Schema.String),
  nonFinite: Schema.Array(Schema.Struct({ name: Schema.String, value: Schema.String })),
  known: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const unknown = this.unknown.length === 0 ? [] : [
      `  no such metric: ${this.unknown.join(", ")}. The registry has ${this.known.join(", ")}: correct the name, or ` +
        "describe the metric there"
    ]
    const values = this.nonFinite.map(({ name, value }) => `${name} = ${value}`).join(", ")
    const nonFinite = this.nonFinite.length === 0 ? [] : [
      `  not finite: ${values}. The run diverged or its data are broken: look at the batch of this step, or resume ` +
        "from the last snapshot with a lower learning rate"
    ]
    return [`journal, step ${this.step}: this entry was not written`, ...unknown, ...nonFinite].join("\n")
  }
}

/** A number as JSON that reads back to the same bits; JSON itself would drop the sign of zero. */
const numeral = (value: number): string => Object.is(value, -0) ? "-0" : String(value)

const newline = 10

/** One append-only file, its torn end cut off. */
interface LineFile {
  readonly append: (line: string) => Effect.Effect<void, JournalError>
  readonly sync: Effect.Effect<number, JournalError>
  readonly requireLine: (offset: number) => Effect.Effect<void, JournalError>
  readonly truncate: (offset: number) => Effect.Effect<void, JournalError>
}

/** The number of bytes up to and with the last newline of a file; what follows was torn by a crash. */
const completeBytes = Effect.fnUntraced(function*(file: FileSystem.File) {
  const buffer = new Uint8Array(64 * 1024)
  let end = ByteSize.toNumberUnsafe((yield* file.stat).size)
  while (end > 0) {
    const from = Math.max(0, end - buffer.length)
    const block = buffer.subarray(0, end - from)
    for (let read = 0; read < block.length;) {
      const count = yield* file.read(block.subarray(read), { position: BigInt(from + read) })
      if (count === 0) return 0 // it shrank meanwhile, which the lock of the run excludes
      read += count
    }
    const at = block.lastIndexOf(newline)
    if (at >= 0) return from + at + 1
    end = from
  }
  return 0
})

const openLines = Effect.fnUntraced(function*(
  path: string
): Effect.fn.Return<LineFile, JournalError | PlatformError, FileSystem.FileSystem | Scope.Scope> {
  const fileSystem = yield* FileSystem.FileSystem
  const file = yield* fileSystem.open(path, { flag: "a+" })
  let length = yield* completeBytes(file)
  yield* file.truncate(length)
  let isTorn = false // whether the file may end in a part of a line that could not be written whole

  const unwritable = (error: PlatformError) => {
    const [found, isDiskFull] = [Durable.reason(error), Durable.isDiskFull(error)]
    return new JournalError({ kind: "unwritable", path, offset: length, found, isDiskFull })
  }
  const mend = Effect.suspend(() => isTorn ? file.truncate(length) : Effect.void)
  const append = Effect.fnUntraced(function*(line: string) {
    const bytes = new TextEncoder().encode(line)
    yield* mend
    isTorn = true
    yield* file.writeAll(bytes).pipe(Effect.tapError(() => Effect.ignore(mend)))
    isTorn = false
    length += bytes.length
  }, Effect.mapError(unwritable), Effect.uninterruptible)

  const sync = mend.pipe(
    Effect.andThen(file.sync),
    Effect.map(() => length),
    Effect.mapError(unwritable),
    Effect.uninterruptible
  )
  const requireLine = Effect.fnUntraced(function*(offset: number) {
    if (offset > length) {
      const kind = "shorter than its snapshot"
      return yield* new JournalError({ kind, path, offset, found: `${length} bytes`, isDiskFull: false })
    }
    const last = new Uint8Array(1)
    if (offset > 0) yield* Effect.mapError(file.read(last, { position: BigInt(offset - 1) }), unwritable)
    if (offset > 0 && last[0] !== newline) {
      const found = `the byte before it is ${last[0]}, not a newline`
      return yield* new JournalError({ kind: "cut inside a line", path, offset, found, isDiskFull: false })
    }
  })
  const truncate = Effect.fnUntraced(function*(offset: number) {
    yield* file.truncate(offset)
    yield* file.sync
    length = offset
  }, Effect.mapError(unwritable), Effect.uninterruptible)
  return { append, sync, requireLine, truncate }
})

/** Where a run reports its metrics. */
export class Journal extends Context.Service<Journal, {
  /**
   * Writes an entry, each value to its file; after this it survives the end of the process, though not yet a power
   * cut.
   */
  readonly append: (entry: Entry) => Effect.Effect<void, JournalError | EntryError>
  /** Waits until all entries are on the disk and gives the lengths of the files, for the manifest of a snapshot. */
  readonly offsets: Effect.Effect<Manifest.Offsets, JournalError>
  /** Goes back to the offsets of the snapshot from which the run resumes. A new run goes back to zero. */
  readonly truncate: (offsets: Manifest.Offsets) => Effect.Effect<void, JournalError>
}>()("cria/store/Journal") {}

const make = Effect.fnUntraced(function*(registry: Metric.Registry) {
  const path = yield* Path.Path
  const { folder } = yield* SnapshotStore
  const journal = yield* openLines(path.join(folder, "journal.jsonl"))
  const timing = yield* openLines(path.join(folder, "timing.jsonl"))
  yield* Durable.syncFolder(folder)
  const files = new Map(registry.filter(({ name }) => name !== "step").map(({ file, name }) => [name, file]))
  const single = yield* Semaphore.make(1)

  const append = Effect.fnUntraced(function*({ step, values }: Entry) {
    const all = Object.entries(values)
    const unknown = all.filter(([name]) => !files.has(name)).map(([name]) => name)
    const nonFinite = [["step", step] as const, ...all].filter(([, value]) => !Number.isFinite(value))
      .map(([name, value]) => ({ name, value: String(value) }))
    if (unknown.length > 0 || nonFinite.length > 0) {
      return yield* new EntryError({ step, unknown, nonFinite, known: [...files.keys()] })
    }
    for (const [file, lines] of [["journal", journal], ["timing", timing]] as const) {
      const fields = all.filter(([name]) => files.get(name) === file)
      const texts = fields.map(([name, value]) => `,${JSON.stringify(name)}:${numeral(value)}`)
      if (fields.length > 0) yield* lines.append(`{"step":${numeral(step)}${texts.join("")}}\n`)
    }
  }, single.withPermits(1))

  const offsets = Effect.all({ journal: journal.sync, timing: timing.sync }).pipe(single.withPermits(1))
  const truncate = Effect.fnUntraced(function*(offsets: Manifest.Offsets) {
    yield* journal.requireLine(offsets.journal)
    yield* timing.requireLine(offsets.timing)
    yield* journal.truncate(offsets.journal)
    yield* timing.truncate(offsets.timing)
  }, single.withPermits(1))
  return Journal.of({ append, offsets, truncate })
})

/**
 * Layer with the journal of the run whose snapshots the store keeps: the store has locked their folder. The torn last
 * line of a killed run is cut off. `registry` is this library's unless given.
 */
export const layer = ({ registry = Metric.registry }: { readonly registry?: Metric.Registry } = {}): Layer.Layer<
  Journal, JournalError | PlatformError, SnapshotStore | FileSystem.FileSystem | Path.Path
> => Layer.effect(Journal, make(registry))

const parseLine = (text: string): Result.Result<Entry, string> =>
  Result.gen(function*() {
    const json: unknown = yield* Result.try({ try: () => JSON.parse(text), catch: String })
    const fields = json !== null && typeof json === "object" ? Object.entries(json) : []
    const values = fields.filter(([name]) => name !== "step")
    const step = fields.find(([name]) => name === "step")?.[1]
    const isEntry = values.length === fields.length - 1 && fields.every(([, value]) => Number.isFinite(value))
    return isEntry ? { step, values: Object.fromEntries(values) } : yield* Result.fail(text)
  })

/**
 * Reads the entries of one file of a run, `journal.jsonl` or `timing.jsonl`, also while it is being written. What
 * follows the last newline is no entry yet: `torn` is its length in bytes.
 */
export const read = Effect.fnUntraced(function*(
  path: string
): Effect.fn.Return<
  { readonly entries: ReadonlyArray<Entry>; readonly torn: number },
  JournalError | PlatformError,
  FileSystem.FileSystem
> {
  const fileSystem = yield* FileSystem.FileSystem
  const bytes = yield* fileSystem.readFile(path)
  const entries: Array<Entry> = []
  let from = 0
  for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, from)) {
    const entry = parseLine(new TextDecoder().decode(bytes.subarray(from, end)))
    if (Result.isFailure(entry)) {
      const [kind, found] = ["malformed line" as const, entry.failure.slice(0, 200)]
      return yield* new JournalError({ kind, path, offset: from, found, isDiskFull: false })
    }
    entries.push(entry.success)
    from = end + 1
  }
  return { entries, torn: bytes.length - from }
})
