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
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Schema from "effect/Schema"
import * as Durable from "../store/Durable.ts"
import type { Model } from "../token/SentencePiece.ts"
import type { Settings } from "./Settings.ts"

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
      `  ${present}: name a run's folder with --out, or begin one with cria pretrain.`
  }
}

/** The name that runs on a text have: that of its first file or folder, or "stories". */
export const nameOf = (text: ReadonlyArray<string>): Effect.Effect<string, never, Path.Path> =>
  Effect.map(Path.Path, (path) => {
    const [first] = text
    if (first === undefined) return "stories"
    const name = path.basename(path.resolve(first)).replace(/(\.(txt|md|jsonl|gz))+$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "-")
    return /[\p{L}\p{N}]/u.test(name) ? name : "text"
  })

/** Whether a folder holds a run, or what is left of one. */
const isTaken = (folder: string): Stored<boolean> =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    return (yield* fileSystem.exists(folder)) && (yield* fileSystem.readDirectory(folder)).length > 0
  })

const numbered = (name: string, number: number): string => number === 1 ? name : `${name}-${number}`

/** The first free folder for runs of a name, and the last that is taken. */
export const find = (name: string): Stored<{ readonly free: string; readonly last: string | undefined }> =>
  Effect.gen(function*() {
    const path = yield* Path.Path
    const folder = (number: number): string => path.join("runs", numbered(name, number))
    let number = 1
    while (yield* isTaken(folder(number))) number++
    return { free: folder(number), last: number === 1 ? undefined : folder(number - 1) }
  })

/** Writes what a run is told and its tokenizer, before its first step. */
export const write = (folder: string, settings: Settings, tokenizer: Model): Stored<void> =>
  Effect.gen(function*() {
    const path = yield* Path.Path
    const json = new TextEncoder().encode(`${JSON.stringify(settings, null, 2)}\n`)
    yield* Durable.writeFile(path.join(folder, configurationName), json)
    yield* Durable.writeFile(path.join(folder, tokenizerName), tokenizer.bytes)
    yield* Durable.syncFolder(folder)
  })

/** Fails unless a folder holds a run. */
export const require = (folder: string): Stored<void, RunMissingError> =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    if (yield* fileSystem.exists(path.join(folder, configurationName))) return
    const parent = path.dirname(folder)
    const beside = yield* Effect.orElseSucceed(fileSystem.readDirectory(parent), () => [])
    const isRun = (name: string) => fileSystem.exists(path.join(parent, name, configurationName))
    const present = (yield* Effect.filter(beside.sort(), isRun)).map((name) => path.join(parent, name))
    return yield* new RunMissingError({ folder, present })
  })
