/**
 * The store of a run's snapshots, which this process alone writes: a good one survives whatever happens.
 *
 *     write .partial-snapshot-N · wait for the disk · rename to snapshot-N · wait · remove those no longer kept
 *
 * A snapshot that can be seen is whole, for it is renamed only once all its files, and their names, are on the disk.
 * One that is removed is renamed first, so it is never seen half removed, and only after the newer one is safe. What a
 * snapshot says of itself is replaced in three steps, between which it is whole: the checksums of the old and the new
 * manifest, the manifest, the checksum of the new one.
 *
 * From     the durable replacement of files on POSIX: write, sync, rename, sync the folder.
 * Checked  test/store/SnapshotStore.test.ts (killed, cut off from power or out of space at any point: the last
 *          snapshot that was saved loads, and nothing is half visible).
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as Safetensors from "../format/Safetensors.ts"
import * as Durable from "./Durable.ts"
import * as Lock from "./Lock.ts"
import * as Manifest from "./Manifest.ts"
import * as Snapshot from "./Snapshot.ts"

/** What to save: the manifest but for its checksums, and the tensors of each file, such as `model` and `optimizer`. */
export interface Request<E = never> extends Omit<Manifest.Manifest, "formatVersion" | "files"> {
  readonly tensors: { readonly [file: string]: ReadonlyArray<Safetensors.Source<E>> }
}

/** What was saved, how long it took, and which older snapshots were removed for it. */
export interface Saved extends Snapshot.Listed {
  readonly bytes: number
  readonly seconds: number
  readonly removed: ReadonlyArray<string>
}

/** Fails when a snapshot could not be written or amended, or one that is no longer kept could not be removed. */
export class SnapshotWriteError extends Schema.TaggedError<SnapshotWriteError>()("SnapshotWriteError", {
  path: Schema.String,
  stage: Schema.Literals(["write", "amend", "remove"]),
  reason: Schema.String,
  isDiskFull: Schema.Boolean,
  leftover: Schema.NullOr(Schema.String),
  newest: Schema.NullOr(Schema.String)
}) {
  override get message(): string {
    const { isDiskFull, leftover, newest, path, reason, stage } = this
    const title = {
      write: `${path} could not be saved: ${reason}`,
      amend: `${path} is whole, but what was measured since could not be noted: ${reason}`,
      remove: `${path} is no longer kept, but could not be removed: ${reason}`
    }[stage]
    const kept = stage === "amend" ? "What is missing is measured again when the run goes on from there."
      : newest === null ? "There is no other snapshot." : `The others are untouched; ${newest} is the newest.`
    const rest = leftover === null ? "" : ` What remains of it in ${leftover} is cleared when the run is next opened.`
    const remedy = isDiskFull ? "Free space on this disk" : "See that this folder can be written"
    return `${title}\n${kept}${rest} ${remedy}, then resume the run.`
  }
}

/** Fails when a snapshot would be saved at a step that is not after those of the run. */
export class SnapshotOrderError extends Schema.TaggedError<SnapshotOrderError>()("SnapshotOrderError", {
  step: Schema.Number,
  newest: Schema.String
}) {
  override get message(): string {
    return `snapshot of step ${this.step}: the run already has ${this.newest}\n` +
      "Snapshots are saved in the order of their steps. A run that resumes from an earlier one first discards those " +
      "after it (discardAfter); one that begins anew takes another folder."
  }
}

type SaveError = SnapshotWriteError | SnapshotOrderError | Manifest.ManifestError | Safetensors.SafetensorsError

/**
 * The snapshots of one run, locked for this process. The functions of `Snapshot` read those of any run, without a
 * lock.
 */
export class SnapshotStore extends Context.Service<SnapshotStore, {
  readonly folder: string
  /** What a killed run had left half written or half removed, cleared away when the store was opened. */
  readonly cleared: ReadonlyArray<string>
  /**
   * Saves a snapshot; once it is safe, removes those that are no longer kept. A save that began is not interrupted. The
   * tensors must not change before it ends; the journal's offsets are to be taken before it begins.
   */
  readonly save: <E>(request: Request<E>) => Effect.Effect<Saved, SaveError | E>
  /**
   * Replaces what the newest snapshot says of its journal and its metrics, once more is known of its step; all else
   * stays, its tensors and the environment that made them too. Fails where the step is not that of the newest.
   */
  readonly amend: (
    fields: Pick<Request, "step" | "journal" | "metrics" | "unfinished">
  ) => Effect.Effect<void, SnapshotWriteError | SnapshotOrderError | Manifest.ManifestError | Snapshot.LoadError>
  /** Removes the snapshots after a step, newest first, for a run that resumes from that one; gives what was removed. */
  readonly discardAfter: (step: number) => Effect.Effect<ReadonlyArray<string>, SnapshotWriteError | PlatformError>
  readonly list: Effect.Effect<ReadonlyArray<Snapshot.Listed>, PlatformError>
  readonly latest: Effect.Effect<Option.Option<Snapshot.Listed>, PlatformError>
  readonly latestIntact: Effect.Effect<Snapshot.Intact, PlatformError>
  readonly best: Effect.Effect<Option.Option<Snapshot.Known>, Snapshot.SnapshotDamagedError | PlatformError>
  readonly load: (
    step: number,
    files?: ReadonlyArray<string>
  ) => Effect.Effect<Snapshot.Loaded, Snapshot.LoadError | PlatformError>
}>()("cria/store/SnapshotStore") {}

const removedPrefix = ".removed-"

/** Removes what killed processes left in a run's folder under the names of work in progress. */
const clear = Effect.fnUntraced(function*(folder: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = (yield* fileSystem.readDirectory(folder)).filter((name) =>
    [Durable.partialPrefix, removedPrefix, Lock.temporaryPrefix].some((prefix) => name.startsWith(prefix))
  )
  const paths = names.sort().map((name) => path.join(folder, name))
  yield* Effect.forEach(paths, (path) => fileSystem.remove(path, { recursive: true, force: true }))
  return paths
})

/** Writes all files of a snapshot into a folder of its own and waits until they, and their names, are on the disk. */
const write = Effect.fnUntraced(function*<E>(partial: string, { tensors, ...fields }: Request<E>) {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const manifest = (files: Manifest.Manifest["files"]) =>
    Effect.fromResult(Manifest.encode({ formatVersion: Manifest.formatVersion, ...fields, files }))
  yield* manifest({}) // before anything is written
  yield* fileSystem.remove(partial, { recursive: true, force: true })
  yield* fileSystem.makeDirectory(partial)
  const files: Array<readonly [string, Manifest.FileRecord]> = []
  for (const [name, sources] of Object.entries(tensors)) {
    const file = Snapshot.fileName(name)
    files.push([file, yield* Safetensors.write(path.join(partial, file), sources)])
  }
  const { checksum, json } = yield* manifest(Object.fromEntries(files))
  yield* Durable.writeFile(path.join(partial, Manifest.fileName), json)
  yield* Durable.writeFile(path.join(partial, Manifest.checksumName), checksum)
  yield* Durable.syncFolder(partial)
  return files.reduce((sum, [, { bytes }]) => sum + bytes, json.length + checksum.length)
})

/** The error of an Effect that was given to us to run, told from those of our own. */
interface Given<E> {
  readonly _tag: "Given"
  readonly error: E
}

const markErrors = <E>(request: Request<E>): Request<Given<E>> => {
  const mark = (source: Safetensors.Source<E>): Safetensors.Source<Given<E>> => {
    const { bytes } = source
    if (bytes instanceof Uint8Array) return { ...source, bytes }
    return { ...source, bytes: Effect.mapError(bytes, (error) => ({ _tag: "Given", error })) }
  }
  const tensors = Object.entries(request.tensors).map(([file, sources]) => [file, sources.map(mark)])
  return { ...request, tensors: Object.fromEntries(tensors) }
}

const make = Effect.fnUntraced(function*({ folder, keepLast }: { readonly folder: string; readonly keepLast: number }) {
  if (!(Number.isInteger(keepLast) && keepLast >= 1)) {
    const message = `snapshot store: keepLast is ${keepLast}, but a run keeps at least 1 snapshot`
    return yield* Effect.die(new RangeError(message))
  }
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  yield* Durable.makeFolder(folder)
  yield* Lock.acquire(folder)
  const cleared = yield* clear(folder)
  const context = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
  const single = yield* Semaphore.make(1)
  const provided = Effect.provide(context)

  const writeFailure = Effect.fnUntraced(function*(
    stage: SnapshotWriteError["stage"],
    target: string,
    error: PlatformError,
    leftover: string | null
  ) {
    const all = yield* Effect.orElseSucceed(Snapshot.list(folder), () => [])
    const newest = all.filter(({ path }) => stage === "amend" || path !== target).at(-1)?.path ?? null
    const remains = leftover !== null && (yield* Effect.orElseSucceed(fileSystem.exists(leftover), () => true))
    return yield* new SnapshotWriteError({
      path: target,
      stage,
      reason: Durable.reason(error),
      isDiskFull: Durable.isDiskFull(error),
      leftover: remains ? leftover : null,
      newest
    })
  })

  const remove = Effect.fnUntraced(function*({ path: snapshot }: Snapshot.Listed) {
    const removed = path.join(folder, `${removedPrefix}${path.basename(snapshot)}`)
    yield* fileSystem.remove(removed, { recursive: true, force: true }).pipe(
      Effect.andThen(fileSystem.rename(snapshot, removed)),
      Effect.andThen(Durable.syncFolder(folder)),
      Effect.andThen(fileSystem.remove(removed, { recursive: true })),
      Effect.catch((error) => writeFailure("remove", snapshot, error, removed))
    )
    return snapshot
  })

  /** Removes all but the last and the best. One whose manifest cannot be read is left for a person to look at. */
  const prune = Effect.fnUntraced(function*(all: ReadonlyArray<Snapshot.Listed>) {
    const known = yield* Effect.forEach(all, (snapshot) =>
      Manifest.read(snapshot.path).pipe(
        Effect.map((manifest) => Result.isSuccess(manifest) ? [{ ...snapshot, manifest: manifest.success }] : []),
        Effect.orElseSucceed(() => [])
      ))
    const readable = known.flat()
    const best = Snapshot.lowestLoss(readable)
    return yield* Effect.forEach(readable.slice(0, -keepLast).filter((snapshot) => snapshot !== best), remove)
  })

  const save = <E>(request: Request<E>): Effect.Effect<Saved, SaveError | E> =>
    Effect.gen(function*() {
      const began = yield* Clock.monotonicTimeNanos
      const { step } = request
      const target = path.join(folder, Snapshot.nameOf(step))
      const partial = path.join(folder, `${Durable.partialPrefix}${Snapshot.nameOf(step)}`)
      const bytes = yield* Effect.gen(function*() {
        const newest = (yield* Snapshot.list(folder)).at(-1)
        if (newest !== undefined && newest.step >= step) {
          return yield* new SnapshotOrderError({ step, newest: newest.path })
        }
        const bytes = yield* write(partial, markErrors(request))
        yield* fileSystem.rename(partial, target)
        yield* Durable.syncFolder(folder)
        return bytes
      }).pipe(
        Effect.onError(() => Effect.ignore(fileSystem.remove(partial, { recursive: true, force: true }))),
        Effect.catch(Effect.fnUntraced(function*(error) {
          if (error._tag === "Given") return yield* Effect.fail(error.error)
          if (error._tag === "PlatformError") return yield* writeFailure("write", target, error, partial)
          return yield* error
        }))
      )
      const removed = yield* Snapshot.list(folder).pipe(
        Effect.catch((error) => writeFailure("remove", folder, error, folder)),
        Effect.flatMap(prune)
      )
      const seconds = Number((yield* Clock.monotonicTimeNanos) - began) / 1e9
      return { step, path: target, bytes, seconds, removed }
    }).pipe(Effect.uninterruptible, single.withPermits(1), provided)

  const amend: SnapshotStore["Service"]["amend"] = ({ journal, metrics, step, unfinished }) => {
    const target = path.join(folder, Snapshot.nameOf(step))
    const [sum, file] = [path.join(target, Manifest.checksumName), path.join(target, Manifest.fileName)]
    const clearPartials = Effect.forEach([Manifest.checksumName, Manifest.fileName], (name) =>
      fileSystem.remove(path.join(target, `${Durable.partialPrefix}${name}`), { force: true }), { discard: true })
    return Effect.gen(function*() {
      const newest = (yield* Snapshot.list(folder)).at(-1)
      if (newest?.step !== step) return yield* new SnapshotOrderError({ step, newest: newest?.path ?? "nothing" })
      yield* clearPartials
      const { unfinished: _, ...kept } = yield* Snapshot.verify(target, [])
      const before = yield* fileSystem.readFileString(sum)
      const { checksum, json } = yield* Effect.fromResult(Manifest.encode({
        ...kept, formatVersion: Manifest.formatVersion, journal, metrics,
        ...unfinished === undefined ? {} : { unfinished }
      }))
      yield* Durable.replaceFile(sum, new TextEncoder().encode(before + new TextDecoder().decode(checksum)))
      yield* Durable.replaceFile(file, json)
      yield* Durable.replaceFile(sum, checksum)
    }).pipe(
      Effect.onError(() => Effect.ignore(clearPartials)),
      Effect.catchTag("PlatformError", (error) => writeFailure("amend", target, error, null)),
      Effect.uninterruptible, single.withPermits(1), provided
    )
  }

  const discardAfter = (step: number) =>
    Snapshot.list(folder).pipe(
      Effect.map((all) => all.filter((snapshot) => snapshot.step > step).reverse()),
      Effect.flatMap((later) => Effect.forEach(later, remove)),
      Effect.uninterruptible,
      single.withPermits(1),
      provided
    )

  return SnapshotStore.of({
    folder,
    cleared,
    save,
    amend,
    discardAfter,
    list: provided(Snapshot.list(folder)),
    latest: provided(Snapshot.latest(folder)),
    latestIntact: provided(Snapshot.latestIntact(folder)),
    best: provided(Snapshot.best(folder)),
    load: (step, files) => provided(Snapshot.load(path.join(folder, Snapshot.nameOf(step)), files))
  })
})

/**
 * Layer with the store of a run's folder, made if it is missing and locked until the layer's Scope closes. Of its
 * snapshots the last `keepLast` (at least 1) and the one with the lowest validation loss are kept.
 */
export const layer = (options: {
  readonly folder: string
  readonly keepLast: number
}): Layer.Layer<SnapshotStore, Lock.RunLockedError | PlatformError, FileSystem.FileSystem | Path.Path> =>
  Layer.effect(SnapshotStore, make(options))
