/** The command line in this process: what it prints, and how it ends. */
import * as NodePath from "@effect/platform-node/NodePath"
import { Console, Effect, type Exit, Fiber, FileSystem, Layer, Stdio, Stream, Terminal } from "effect"
import { ChildProcessSpawner } from "effect/process"
import * as CommandLine from "../../src/cli/CommandLine.ts"
import * as Stories from "../../src/data/Stories.ts"
import * as Lock from "../../src/store/Lock.ts"
import type { MemoryDisk } from "../store/MemoryDisk.ts"

export interface Outcome {
  readonly exit: Exit.Exit<void, unknown>
  /** Standard output, lines and text in order. */
  readonly output: string
  readonly errors: string
}

/** A machine on which no other process lives: whoever locked a run is dead. */
export const alone = Layer.succeed(Lock.Processes, {
  self: Effect.succeed({ host: "here", process: 1, started: "life 1" }),
  exists: () => Effect.succeed(false), started: () => Effect.succeed(null)
})

/** Runs `cria` on a disk in memory; nothing of the world but its clock is used. */
export const cria = (
  disk: MemoryDisk, args: ReadonlyArray<string>,
  options: {
    readonly input?: string | Uint8Array
    readonly isTerminal?: boolean
    /** Sees what was printed, each time something is; may press Ctrl-C. */
    readonly watch?: (output: string, interrupt: () => void) => void
  } = {}
): Effect.Effect<Outcome> =>
  Effect.gen(function*() {
    let [output, errors] = ["", ""]
    let interrupt = (): void => {}
    const { input = "" } = options
    const print = (text: string): void => {
      output += text
      options.watch?.(output, interrupt)
    }
    const display = (text: string) => Effect.sync(() => print(text))
    const console = Object.assign(Object.create(globalThis.console), {
      log: (...texts: ReadonlyArray<string>) => print(`${texts.join(" ")}\n`),
      error: (...texts: ReadonlyArray<string>) => { errors += `${texts.join(" ")}\n` }
    })
    const layers = Layer.mergeAll(
      NodePath.layer,
      Layer.succeed(FileSystem.FileSystem, {
        ...disk.fileSystem, stream: (path) => Stream.fromEffect(disk.fileSystem.readFile(path))
      }),
      Stdio.layerTest({
        stdinIsTerminal: Effect.succeed(options.input === undefined),
        stdoutIsTerminal: Effect.succeed(options.isTerminal === true),
        stdin: Stream.make(typeof input === "string" ? new TextEncoder().encode(input) : input)
      }),
      Layer.succeed(Terminal.Terminal, Terminal.make({
        columns: Effect.succeed(100), rows: Effect.succeed(30), size: Effect.die("unused"),
        readInput: Effect.die("unused"), readLine: Effect.die("unused"), display
      })),
      Layer.succeed(ChildProcessSpawner.ChildProcessSpawner, ChildProcessSpawner.make(() => Effect.die("unused"))),
      alone
    )
    const fiber = yield* CommandLine.run("0.0.0", args).pipe(
      Effect.provideService(Console.Console, console), Effect.provide(layers), Effect.forkChild
    )
    interrupt = () => fiber.interruptUnsafe()
    const exit = yield* Fiber.await(fiber)
    return { exit, output, errors }
  })

/** The flags of a model so small that the reference trains it at once, some of them changed. */
export const tiny = (changed: Readonly<Record<string, string>> = {}): ReadonlyArray<string> =>
  Object.entries({
    "--backend": "reference", "--embed-size": "8", "--layer-count": "1", "--head-count": "2", "--hidden-size": "8",
    "--context-length": "32", "--sequence-length": "16", "--batch-size": "2", "--vocab-size": "320", "--steps": "4",
    "--warmup": "1", "--evaluate-every": "4", "--snapshot-every": "2", "--validation-share": "0.2", ...changed
  }).flat()

/** Forty short documents as JSON lines: enough for both parts. */
export const rows = Array.from({ length: 40 }, (_, i) =>
  JSON.stringify({ text: Stories.story(7, "train", i).slice(0, 60) })).join("\n")

/** The bytes of a text. */
export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

/** A disk with files. */
export const withFiles = (disk: MemoryDisk, files: Readonly<Record<string, string | Uint8Array>>) =>
  Effect.forEach(Object.entries(files), ([path, content]) =>
    disk.fileSystem.makeDirectory(path.slice(0, path.lastIndexOf("/")) || "/", { recursive: true }).pipe(
      Effect.ignore,
      Effect.andThen(Effect.sync(() => disk.put(path, typeof content === "string" ? bytes(content) : content)))
    ), { discard: true })
