/**
 * The lock of a run folder: one process writes a run; what a dead one left locked is taken over.
 *
 *     run.lock / host,process,started,unique
 *
 * The lock is a folder, `run.lock`, that holds one file, whose name is its owner. It is made under another name and
 * renamed, which is atomic and fails while a lock exists, on every file system: a lock is never seen half made, and
 * never without an owner. To take over the lock of a dead owner its file is renamed, which is atomic too and fails once
 * the owner is another: of any number of processes in any order one wins, and no lock is ever moved but by its owner.
 *
 * From     rename of POSIX, which replaces no folder that holds something, and of two renames of a file lets one win.
 * Checked  test/store/Lock.test.ts (three processes in any order of their operations, kill before every operation,
 *          stale and foreign owners).
 * Departs  from a plain lock file: a process killed between making the file and writing its number into it would lock
 *          the run for ever; and between reading a dead owner and removing its lock another could have taken it over.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Os from "node:os"
import * as Durable from "./Durable.ts"

/**
 * Schema for who holds a lock: a process of a machine. `started` tells it from a later process with the same number,
 * where the system says when a process began (Linux does); null elsewhere.
 */
export const Owner = Schema.Struct({
  host: Schema.String,
  process: Schema.Int,
  started: Schema.NullOr(Schema.String)
})

/** Who holds a lock. */
export interface Owner extends Schema.Schema.Type<typeof Owner> {}

/** Fails when another process, or this one a second time, writes the run. */
export class RunLockedError extends Schema.TaggedError<RunLockedError>()("RunLockedError", {
  folder: Schema.String,
  lock: Schema.String,
  owner: Schema.NullOr(Owner),
  isOurs: Schema.Boolean,
  isForeign: Schema.Boolean
}) {
  override get message(): string {
    const process = this.owner === null
      ? `by whom, ${this.lock} does not say`
      : `by process ${this.owner.process} on ${this.owner.host}${this.isOurs ? ", this very process" : ""}`
    const title = `${this.folder} is being written already, ${process}. Two writers would mix two runs in one folder.`
    if (this.isOurs) return `${title}\nClose the first store of this run before opening a second.`
    return this.isForeign || this.owner === null
      ? `${title}\nWhether it still runs cannot be seen from here: if it does not, remove ${this.lock}.`
      : `${title}\nLet it finish, or stop it, or give this run a folder of its own.`
  }
}

/** The beginning of the names of locks being made or discarded; a killed process may leave some, which are rubbish. */
export const temporaryPrefix = ".run.lock-"

/** The name of an owner's file; a comma parts what can hold none. */
const nameOf = ({ host, process, started }: Owner, unique: string): string =>
  [encodeURIComponent(host), process, encodeURIComponent(started ?? ""), unique].join(",")

/** The owner of a lock that holds files of these names; none if that is no lock of ours. */
const ownerOf = Option.liftThrowable((names: ReadonlyArray<string>): Owner => {
  const parts = /^([^,]+),(\d+),([^,]*),[^,]+$/.exec(names.join())
  if (parts === null) throw new TypeError("not an owner")
  const [, host = "", process, started = ""] = parts
  const since = started === "" ? null : decodeURIComponent(started)
  return { host: decodeURIComponent(host), process: Number(process), started: since }
})

/** How the operating system is asked about processes. */
export interface Processes {
  readonly self: Effect.Effect<Owner, never, FileSystem.FileSystem>
  /** Whether such a process exists on this machine. */
  readonly exists: (process: number) => Effect.Effect<boolean>
  /** When a process of this machine began, in a form that no other process of that number shares; null if unknown. */
  readonly started: (process: number) => Effect.Effect<string | null, never, FileSystem.FileSystem>
}

/** The time since boot at which a process began, with the number of the boot, from Linux's /proc. */
const started = (process: number): Effect.Effect<string | null, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const boot = yield* fileSystem.readFileString("/proc/sys/kernel/random/boot_id")
    const status = yield* fileSystem.readFileString(`/proc/${process}/stat`)
    const fields = status.slice(status.lastIndexOf(")") + 2).split(" ") // the name, in brackets, may hold spaces
    const isOver = fields[0] === "Z" || fields[0] === "X" // killed, and not yet cleared away by its parent
    return isOver ? null : `${boot.trim()} ${fields[19]}`
  }).pipe(Effect.orElseSucceed(() => null)) // no such files beyond Linux

/** Whether a process exists: signal 0 asks, and sends nothing. An edge, for Effect has no service of processes. */
const exists = (number: number): Effect.Effect<boolean> =>
  Effect.try({
    try: () => process.kill(number, 0),
    catch: (error) => Predicate.hasProperty(error, "code") && error.code === "EPERM" // it does, as another user's
  }).pipe(Effect.catch(Effect.succeed))

/** The processes of this machine; tests put others in their place. */
export const Processes = Context.Reference<Processes>("cria/store/Lock/Processes", {
  defaultValue: () => ({
    self: Effect.map(started(process.pid), (started) => ({ host: Os.hostname(), process: process.pid, started })),
    exists,
    started
  })
})

interface Lock {
  readonly path: string
  readonly discarded: string
}

/**
 * Locks a run folder, which must exist, until the Scope closes. A lock whose owner is dead is taken over; a live
 * owner, or one on another machine, is an error.
 */
export const acquire = (
  folder: string
): Effect.Effect<void, RunLockedError | PlatformError, FileSystem.FileSystem | Path.Path | Scope.Scope> =>
  Effect.acquireRelease(take(folder), (lock) => discard(lock).pipe(Effect.ignore)) // left behind, it is a dead owner's

const take = Effect.fnUntraced(function*(
  folder: string
): Effect.fn.Return<Lock, RunLockedError | PlatformError, FileSystem.FileSystem | Path.Path> {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const processes = yield* Processes
  const self = yield* processes.self
  const lock = path.join(folder, "run.lock")
  const ours = yield* fileSystem.makeTempDirectory({ directory: folder, prefix: temporaryPrefix })
  const name = nameOf(self, path.basename(ours).slice(temporaryPrefix.length))
  const removeOurs = fileSystem.remove(ours, { recursive: true, force: true })

  const locked = (owner: Owner | null): RunLockedError => {
    const isForeign = owner !== null && owner.host !== self.host
    return new RunLockedError({ folder, lock, owner, isOurs: !isForeign && owner?.process === self.process, isForeign })
  }
  const isDead = Effect.fnUntraced(function*(owner: Owner) {
    if (owner.host !== self.host) return false
    if (!(yield* processes.exists(owner.process))) return true
    return owner.started !== null && owner.started !== (yield* processes.started(owner.process))
  })
  const claim = (attempts: number): Effect.Effect<void, RunLockedError | PlatformError, FileSystem.FileSystem> =>
    Effect.catch(fileSystem.rename(ours, lock), (refusal) => takeOver(refusal, attempts))
  const takeOver = Effect.fnUntraced(function*(refusal: PlatformError, attempts: number) {
    // where the lock was let go, or taken over by another, in the meantime, all begins anew; unless it happens so often
    // that the refusal must have another reason
    const again = attempts > 0 ? claim(attempts - 1) : Effect.fail(refusal)
    const names = yield* Effect.orElseSucceed(fileSystem.readDirectory(lock), () => [])
    if (names.length === 0) return yield* again
    const owner = ownerOf(names)
    if (Option.isNone(owner) || !(yield* isDead(owner.value))) return yield* locked(Option.getOrNull(owner))
    yield* fileSystem.rename(path.join(lock, names.join()), path.join(lock, name)).pipe(
      Effect.andThen(removeOurs),
      Effect.catchReason("PlatformError", "NotFound", () => again)
    )
  })
  yield* Durable.writeFile(path.join(ours, name), new Uint8Array()).pipe(
    Effect.andThen(Durable.syncFolder(ours)),
    Effect.andThen(claim(100)),
    Effect.onError(() => Effect.ignore(removeOurs))
  )
  return { path: lock, discarded: `${ours}-discarded` }
})

/** Removes the lock at once for all who look: it is renamed before its owner's name is removed. */
const discard = Effect.fnUntraced(function*(lock: Lock) {
  const fileSystem = yield* FileSystem.FileSystem
  yield* fileSystem.rename(lock.path, lock.discarded)
  yield* fileSystem.remove(lock.discarded, { recursive: true })
})
