/**
 * The folder of a run: which one a command means, and what stands in it besides the store's own files.
 *
 *     runs/stories/ = configuration.json · tokenizer.model · journal.jsonl · timing.jsonl · snapshot-00000400/ …
 *
 * Without `--out` a new run takes the first free name of `runs/stories`, `runs/stories-2`, …, so a run is never in the
 * way of the next; a command that goes on with a run takes the last that is there.
 *
 * Checked  test/cli/RunFolder.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Schema from "effect/Schema"
import * as Durable from "../store/Durable.ts"
import * as Snapshot from "../store/Snapshot.ts"
import type { Model } from "../token/SentencePiece.ts"
import { keys, type Settings } from "./Settings.ts"

type Stored<A, E = never> = Effect.Effect<A, E | PlatformError, FileSystem.FileSystem | Path.Path>

/** The name of the file with the settings of a run; `--config` reads it too. */
export const configurationName = "configuration.json"

/** The name of the file with the tokenizer of a run. */
export const tokenizerName = "tokenizer.model"

/** A folder that was to hold a run and does not. */
export class RunMissingError extends Schema.TaggedError<RunMissingError>()("RunMissingError", {
  folder: Schema.String,
  present: Schema.Array(Schema.String)
}) {
  override get message() {
    const present = this.present.length === 0 ? "There is no run beside it" : `There are ${this.present.join(", ")}`
    return `${this.folder} holds no run: it has no ${configurationName}\n` +
      `  ${present}: name the folder of a run, or begin one with cria pretrain.`
  }
}

/** A command that means the run that trained last, where none has. */
export class NoRunError extends Schema.TaggedError<NoRunError>()("NoRunError", {
  folder: Schema.String,
  /** Runs that have not trained: imported ones, and those that ended before their first step. */
  present: Schema.Array(Schema.String)
}) {
  override get message() {
    const present = this.present.length === 0 ? "" : `; there are ${this.present.join(", ")}, which did not`
    return `no run in ${this.folder}/ has trained${present}\n` +
      "  Begin one with cria pretrain, or name a model: --model PATH (to cria tokenizer: --tokenizer PATH)."
  }
}

/** The name that runs on a text have: that of its first file or folder, or "stories". */
export const nameOf = (text: ReadonlyArray<string>): Effect.Effect<string, never, Path.Path> =>
  Effect.map(Path.Path, (path) => {
    const [first] = text
    if (first === undefined) return "stories"
    const bare = path.basename(path.resolve(first)).replace(/(\.(txt|md|jsonl|gz))+$/, "")
    const name = bare.replace(/[^\p{L}\p{N}._-]+/gu, "-")
    return /[\p{L}\p{N}]/u.test(name) ? name : "text"
  })

/** A new run in the folder of another. */
export class FolderTakenError extends Schema.TaggedError<FolderTakenError>()("FolderTakenError", {
  folder: Schema.String
}) {
  override get message() {
    return `${this.folder} holds a run already\n` +
      `  Go on with it: --resume --out ${this.folder}. Or begin a new one in another folder: --out FOLDER.`
  }
}

/** A file where the folder of a run should be. */
export class NotAFolderError extends Schema.TaggedError<NotAFolderError>()("NotAFolderError", {
  path: Schema.String
}) {
  override get message() {
    return `${this.path} is a file, and a run needs a folder\n  Name another: --out FOLDER.`
  }
}

/** Whether a folder holds a run, if only one that was stopped before its first step; a file holds none. */
const holdsRun = (folder: string): Stored<boolean> =>
  Effect.gen(function*() {
    if (yield* isRun(folder)) return true
    const snapshots = Snapshot.list(folder)
    return (yield* Effect.orElseSucceed(snapshots, () => [])).length > 0
  })

/** Whether a folder has the mark of a run; a file has none. */
const isRun = (folder: string): Stored<boolean> =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    return yield* Effect.orElseSucceed(fileSystem.exists(path.join(folder, configurationName)), () => false)
  })

/** Fails if a folder holds a run, or cannot be one because it, or a folder above it, is a file. */
export const requireFree = (folder: string): Stored<void, FolderTakenError | NotAFolderError> =>
  Effect.gen(function*() {
    if (yield* holdsRun(folder)) return yield* new FolderTakenError({ folder })
    const fileSystem = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const kindOf = (place: string) => // none of what is not there, or lies below a file
      fileSystem.stat(place).pipe(Effect.map(({ type }) => type), Effect.orElseSucceed(() => undefined))
    let place = folder
    while ((yield* kindOf(place)) === undefined && path.dirname(place) !== place) place = path.dirname(place)
    if ((yield* kindOf(place)) === "File") return yield* new NotAFolderError({ path: place })
  })

/**
 * Does what makes the folder of a run. Where it fails, or is stopped, before anything is written, the folder goes
 * again; those above it stay, for another run may stand there by then.
 */
export const leavingNothingEmpty = (folder: string) =>
  <A, E, R>(run: Effect.Effect<A, E, R>): Effect.Effect<A, E | PlatformError, R | FileSystem.FileSystem> =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      if (yield* fileSystem.exists(folder)) return yield* run
      const clear = Effect.flatMap(fileSystem.readDirectory(folder), (names) =>
        names.length > 0 ? Effect.void : fileSystem.remove(folder, { recursive: true }))
      return yield* Effect.onError(run, () => Effect.ignore(clear))
    })

const parent = "runs"

const numbered = (name: string, number: number): string => number === 1 ? name : `${name}-${number}`

/** The first free folder for runs of a name, and the last that is taken. */
export const find = (name: string): Stored<{ readonly free: string; readonly last: string | undefined }> =>
  Effect.gen(function*() {
    const path = yield* Path.Path
    const folder = (number: number): string => path.join(parent, numbered(name, number))
    let number = 1
    while (yield* holdsRun(folder(number))) number++
    return { free: folder(number), last: number === 1 ? undefined : folder(number - 1) }
  })

/** The run in `runs` whose journal was written last; fails if there is none. */
export const latest: Stored<string, NoRunError> = Effect.gen(function*() {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = yield* Effect.orElseSucceed(fileSystem.readDirectory(parent), () => [])
  const runs = yield* Effect.forEach(names.sort(), (name) => {
    const folder = path.join(parent, name)
    return fileSystem.stat(path.join(folder, "journal.jsonl")).pipe(
      Effect.map(({ mtime }) => [{ folder, time: Option.match(mtime, { onNone: () => 0, onSome: Number }) }]),
      Effect.orElseSucceed(() => []) // no run
    )
  })
  const last = runs.flat().reduce((newest, run) => run.time > newest.time ? run : newest, { folder: "", time: -1 })
  if (last.time >= 0) return last.folder
  const present = yield* Effect.filter(names.map((name) => path.join(parent, name)), holdsRun)
  return yield* new NoRunError({ folder: parent, present })
})

/** Writes what a run is told and its tokenizer, before its first step. */
export const write = (folder: string, settings: Settings, tokenizer: Model): Stored<void> =>
  Effect.gen(function*() {
    const path = yield* Path.Path
    const json = new TextEncoder().encode(`${JSON.stringify(settings, [...keys], 2)}\n`)
    yield* Durable.replaceFile(path.join(folder, tokenizerName), tokenizer.bytes)
    // the mark of a run comes last, so that what has it has all that it needs
    yield* Durable.replaceFile(path.join(folder, configurationName), json)
  })

/** Fails unless a folder holds a run. */
export const require = (folder: string): Stored<void, RunMissingError> =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    if (yield* isRun(folder)) return
    const above = path.dirname(folder)
    const beside = yield* Effect.orElseSucceed(fileSystem.readDirectory(above), () => [])
    const present = yield* Effect.filter(beside.sort().map((name) => path.join(above, name)), isRun)
    return yield* new RunMissingError({ folder, present })
  })
