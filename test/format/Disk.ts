/** A disk in memory for the tests of formats, that can count what is asked of it. */
import { Effect, FileSystem, Path } from "effect"
import type { Scope } from "effect"
import * as MemoryDisk from "../store/MemoryDisk.ts"

/** What {@link run} saw: bytes read in all, and the largest buffer that bytes were read into. */
export interface Traffic {
  bytes: number
  largest: number
}

/** Runs with files of these contents, by path; their scope closes at the end. */
export const run = <A, E>(
  files: Readonly<Record<string, Uint8Array>>,
  effect: Effect.Effect<A, E, FileSystem.FileSystem | Path.Path | Scope.Scope>,
  traffic: Traffic = { bytes: 0, largest: 0 }
): Promise<A> => Effect.runPromise(provided(files, effect, traffic).effect)

/** Like {@link run}, and gives all files that are there at the end. */
export const written = async (
  effect: Effect.Effect<unknown, unknown, FileSystem.FileSystem | Path.Path | Scope.Scope>
): Promise<Map<string, Uint8Array>> => {
  const { disk, effect: runnable } = provided({}, effect, { bytes: 0, largest: 0 })
  await Effect.runPromise(runnable)
  return disk.files()
}

const provided = <A, E>(
  files: Readonly<Record<string, Uint8Array>>,
  effect: Effect.Effect<A, E, FileSystem.FileSystem | Path.Path | Scope.Scope>,
  traffic: Traffic
) => {
  const disk = MemoryDisk.make()
  for (const [path, bytes] of Object.entries(files)) {
    const folder = path.slice(0, path.lastIndexOf("/"))
    if (folder !== "") Effect.runSync(disk.fileSystem.makeDirectory(folder, { recursive: true }))
    disk.put(path, bytes)
  }
  const fileSystem: FileSystem.FileSystem = {
    ...disk.fileSystem,
    open: (path, options) => Effect.map(disk.fileSystem.open(path, options), (file) => ({
      ...file,
      read: (buffer, at) => Effect.suspend(() => {
        traffic.bytes += buffer.length
        traffic.largest = Math.max(traffic.largest, buffer.buffer.byteLength)
        return file.read(buffer, at)
      })
    }))
  }
  return {
    disk,
    effect: effect.pipe(
      Effect.scoped,
      Effect.provideService(FileSystem.FileSystem, fileSystem),
      Effect.provide(Path.layer)
    )
  }
}
