/**
 * Checks that resuming is exact: replays a run from one of its snapshots to its newest, and compares bit for bit.
 *
 * The recipe runs unchanged; the journal and the store that it is given keep what it writes, and compare.
 *
 * From     Cria's own; llm.c compares a reloaded run's losses in the same manner.
 * Checked  test/recipe/ResumeVerification.test.ts (equal runs are equal; one changed bit, one changed line is named).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Safetensors from "../format/Safetensors.ts"
import * as Journal from "../store/Journal.ts"
import * as Metric from "../store/Metric.ts"
import * as Snapshot from "../store/Snapshot.ts"
import * as SnapshotStore from "../store/SnapshotStore.ts"
import { elementsOf } from "./CellSnapshot.ts"
import * as Pretrain from "./Pretrain.ts"

/** The first thing in which a replay differs from the run. */
export interface Divergence {
  /** `journal step 7, loss`, or `model block.0.attention.query, element 12`. */
  readonly place: string
  readonly saved: string
  readonly replayed: string
}

/** What was replayed, and the first difference if there is one. */
export interface Report {
  /** 0 is the beginning of the run. */
  readonly from: number
  readonly to: number
  readonly tensorCount: number
  readonly lineCount: number
  readonly divergence: Option.Option<Divergence>
}

/** Fails when a run has no snapshot that a replay could reach. */
export class NothingToVerifyError extends Schema.TaggedError<NothingToVerifyError>()("NothingToVerifyError", {
  folder: Schema.String
}) {
  override get message() {
    return `${this.folder} has no snapshot yet, so there is nothing to replay to\n  Let the run save one first.`
  }
}

const files = new Map<string, Metric.File>(Metric.registry.map(({ file, name }) => [name, file]))

const lineOf = ({ step, values }: Journal.Entry): Journal.Entry => ({
  step, values: Object.fromEntries(Object.entries(values).filter(([name]) => files.get(name) === "journal"))
})

/** The first difference of two journals. */
const different = (
  saved: ReadonlyArray<Journal.Entry>, replayed: ReadonlyArray<Journal.Entry>
): Option.Option<Divergence> => {
  const steps = [...new Set([...saved, ...replayed].map(({ step }) => step))].sort((left, right) => left - right)
  for (const step of steps) {
    const find = (entries: typeof saved) => entries.find((entry) => entry.step === step)?.values ?? {}
    const [before, now] = [find(saved), find(replayed)]
    const names = [...new Set([...Object.keys(before), ...Object.keys(now)])]
    const name = names.find((name) => !Object.is(before[name], now[name]))
    if (name !== undefined) {
      const text = (value: number | undefined): string => value === undefined ? "nothing" : String(value)
      const place = `journal step ${step}, ${name}`
      return Option.some({ place, saved: text(before[name]), replayed: text(now[name]) })
    }
  }
  return Option.none()
}

const compare = (
  file: string, saved: Safetensors.Tensor | undefined, replayed: Safetensors.Tensor
): Option.Option<Divergence> => {
  const place = `${file} ${replayed.name}`
  if (saved === undefined) return Option.some({ place, saved: "nothing", replayed: "a tensor" })
  const at = replayed.bytes.findIndex((byte, i) => byte !== saved.bytes[i])
  if (at < 0 && saved.bytes.length === replayed.bytes.length) return Option.none()
  const index = Math.floor(at / Safetensors.bytesPerElement[replayed.dtype])
  const element = ({ bytes, dtype }: Safetensors.Tensor): string => String(elementsOf(dtype, bytes)[index])
  return Option.some(at < 0
    ? { place, saved: `${saved.bytes.length} bytes`, replayed: `${replayed.bytes.length} bytes` }
    : { place: `${place}, element ${index}`, saved: element(saved), replayed: element(replayed) })
}

/**
 * Replays the run of a folder from its last snapshot but one (from its beginning if there is none) to its last, and
 * compares parameters, moments and journal. Nothing is written. The environment must be that of the run.
 */
export const verify = Effect.fnUntraced(function*(
  folder: string, config: Pretrain.Config, origin: Omit<Pretrain.Origin, "resume">
): Effect.fn.Return<
  Report, Pretrain.PretrainError | Snapshot.LoadError | NothingToVerifyError | PlatformError,
  FileSystem.FileSystem | Path.Path | Exclude<Pretrain.Services, Journal.Journal | SnapshotStore.SnapshotStore>
> {
  const path = yield* Path.Path
  const context = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
  const all = yield* Snapshot.list(folder)
  const [earlier, later] = [all.at(-2), all.at(-1)]
  if (later === undefined) return yield* new NothingToVerifyError({ folder })
  const [from, to] = [earlier?.step ?? 0, later.step]
  const saved = yield* Snapshot.load(later.path)
  const { entries } = yield* Journal.read(path.join(folder, "journal.jsonl"))
  const lines: Array<Journal.Entry> = []
  const found: Array<Option.Option<Divergence>> = []

  const journal = Journal.Journal.of({
    append: (entry) => Effect.sync(() => { lines.push(lineOf(entry)) }),
    offsets: Effect.succeed({ journal: 0, timing: 0 }),
    truncate: () => Effect.void
  })
  const newest = Option.fromNullishOr(earlier)
  const store = SnapshotStore.SnapshotStore.of({
    folder,
    cleared: [],
    list: Effect.succeed(Option.toArray(newest)),
    latest: Effect.succeed(newest),
    latestIntact: Effect.succeed({ snapshot: newest, passedOver: [] }),
    best: Effect.succeed(Option.none()),
    discardAfter: () => Effect.succeed([]),
    amend: () => Effect.void,
    load: (step, names) => Effect.provide(Snapshot.load(path.join(folder, Snapshot.nameOf(step)), names), context),
    save: Effect.fnUntraced(function*(request) {
      for (const [file, sources] of request.step === to ? Object.entries(request.tensors) : []) {
        const before = new Map((saved.tensors[file] ?? []).map((tensor) => [tensor.name, tensor]))
        for (const { bytes, ...source } of sources) {
          const replayed = { ...source, bytes: bytes instanceof Uint8Array ? bytes : yield* bytes }
          found.push(compare(file, before.get(source.name), replayed))
        }
      }
      return { step: request.step, path: later.path, bytes: 0, seconds: 0, removed: [] }
    })
  })
  yield* Pretrain.pretrain(config, { ...origin, resume: "latest" }).pipe(
    Stream.takeUntil((event) => event._tag === "Stepped" && event.step >= to),
    Stream.runDrain,
    Effect.provideService(Journal.Journal, journal),
    Effect.provideService(SnapshotStore.SnapshotStore, store)
  )
  // a run that is interrupted in a step saves its snapshot before the line of the step, and writes that when it goes on
  const first = lines[0]?.step ?? from + 1
  const last = saved.manifest.unfinished === undefined ? to : to - 1
  const between = (all: ReadonlyArray<Journal.Entry>) => all.filter(({ step }) => step >= first && step <= last)
  const divergence = Option.orElse(different(between(entries), between(lines)), () => Option.firstSomeOf(found))
  return { from, to, tensorCount: found.length, lineCount: between(lines).length, divergence }
})
