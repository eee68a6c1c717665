/**
 * A disk in memory that can be killed before any operation, filled to the brim, or lose its power: a POSIX file
 * system as pessimistic as the standard allows. What was written counts as safe only once its file, and the folder
 * that names it, were synced.
 */
import { ByteSize, Effect, FileSystem, Option, Path, PlatformError } from "effect"
import type { Exit, Scope } from "effect"
import * as Lock from "../../src/store/Lock.ts"

interface FileNode {
  readonly kind: "file"
  bytes: Uint8Array
  synced: Uint8Array
}

interface FolderNode {
  readonly kind: "folder"
  entries: Map<string, Node>
  synced: Map<string, Node>
}

type Node = FileNode | FolderNode

const folderNode = (): FolderNode => ({ kind: "folder", entries: new Map(), synced: new Map() })

export interface MemoryDisk {
  readonly fileSystem: FileSystem.FileSystem
  /** Operations so far that changed the disk, or made a change safe. */
  readonly operations: () => number
  /** The process dies before its n-th operation, counted from now: it and all later ones, reads too, fail. */
  readonly killAfter: (operations: number) => void
  /** Writes fail with ENOSPC once all files together hold so many bytes. */
  readonly fillAt: (bytes: number) => void
  /** A new process finds what the killed one had written. */
  readonly revive: () => void
  /**
   * The machine stops: of what was not synced, `survives` says for every file and folder whether it reached the disk.
   */
  readonly cutPower: (survives: () => boolean) => void
  /** All files by path. */
  readonly files: () => Map<string, Uint8Array>
  /** Puts a file there, whole and safe, whatever was there before: a given beginning, or the work of a failing disk. */
  readonly put: (path: string, bytes: Uint8Array) => void
}

export const make = (): MemoryDisk => {
  const root = folderNode()
  let [count, dieAt, capacity, isDead, names] = [0, Infinity, Infinity, false, 0]

  const systemError = (tag: PlatformError.SystemErrorTag, method: string, path: string, text: string, code: string) =>
    PlatformError.systemError({
      _tag: tag,
      module: "FileSystem",
      method,
      pathOrDescriptor: path,
      cause: Object.assign(new Error(text), { code })
    })
  const killed = systemError("Unknown", "any", "", "the process was killed", "KILLED")
  const missing = (method: string, path: string) =>
    systemError("NotFound", method, path, `ENOENT: no such file or directory, '${path}'`, "ENOENT")
  const full = systemError("Unknown", "write", "", "ENOSPC: no space left on device, write", "ENOSPC")

  const alive = <A>(effect: () => Effect.Effect<A, PlatformError.PlatformError>) =>
    Effect.suspend(() => count >= dieAt ? Effect.fail(killed) : effect())
  const operation = <A>(effect: () => Effect.Effect<A, PlatformError.PlatformError>) =>
    Effect.suspend(() => {
      isDead ||= count >= dieAt
      if (isDead) return Effect.fail(killed)
      count++
      return effect()
    })

  const parts = (path: string): Array<string> => path.split("/").filter((part) => part !== "" && part !== ".")
  const find = (path: string): Node | undefined => {
    let node: Node | undefined = root
    for (const part of parts(path)) node = node?.kind === "folder" ? node.entries.get(part) : undefined
    return node
  }
  const parent = (path: string): FolderNode | undefined => {
    const node = find(parts(path).slice(0, -1).join("/"))
    return node?.kind === "folder" ? node : undefined
  }
  const nameOf = (path: string): string => parts(path).at(-1) ?? ""
  const walk = (node: Node, path: string, visit: (node: Node, path: string) => void): void => {
    visit(node, path)
    if (node.kind === "folder") for (const [name, child] of node.entries) walk(child, `${path}/${name}`, visit)
  }
  const files = (): Map<string, Uint8Array> => {
    const found = new Map<string, Uint8Array>()
    walk(root, "", (node, path) => node.kind === "file" && found.set(path, node.bytes))
    return found
  }
  const used = (): number => [...files().values()].reduce((sum, bytes) => sum + bytes.length, 0)
  const info = (node: Node): FileSystem.File.Info => ({
    type: node.kind === "file" ? "File" : "Directory",
    mtime: Option.none(),
    atime: Option.none(),
    birthtime: Option.none(),
    dev: 1n,
    ino: Option.none(),
    mode: 0o644,
    nlink: Option.none(),
    uid: Option.none(),
    gid: Option.none(),
    rdev: Option.none(),
    size: ByteSize.bytes(node.kind === "file" ? node.bytes.length : 4096),
    blksize: Option.none(),
    blocks: Option.none()
  })

  const makeFile = (node: Node, path: string, appends: boolean): FileSystem.File => {
    let position = 0
    const bytes = (method: string, run: (file: FileNode) => Effect.Effect<number, PlatformError.PlatformError>) =>
      node.kind === "file"
        ? run(node)
        : Effect.fail(systemError("BadResource", method, path, "EISDIR: illegal operation on a directory", "EISDIR"))
    const store = (file: FileNode, data: Uint8Array): number => {
      const at = appends ? file.bytes.length : position
      const fits = Math.max(0, Math.min(data.length, capacity - used()))
      const next = new Uint8Array(Math.max(file.bytes.length, at + fits))
      next.set(file.bytes)
      next.set(data.subarray(0, fits), at)
      file.bytes = next
      position = at + fits
      return fits
    }
    const write = (data: Uint8Array) =>
      Effect.suspend(() => bytes("write", (file) => {
        if (count >= dieAt && !isDead) store(file, data.subarray(0, data.length >> 1)) // the kill tears this write
        return operation(() => {
          const written = store(file, data)
          return written < data.length ? Effect.fail(full) : Effect.succeed(written)
        })
      }))
    return {
      [FileSystem.FileTypeId]: FileSystem.FileTypeId,
      stat: alive(() => Effect.succeed(info(node))),
      sync: operation(() => Effect.sync(() => {
        if (node.kind === "file") node.synced = node.bytes.slice()
        else node.synced = new Map(node.entries)
      })),
      seek: (offset) => Effect.sync(() => BigInt(position = Number(offset))),
      read: (buffer, options) => alive(() => bytes("read", (file) => Effect.sync(() => {
        const at = options?.position === undefined ? position : Number(options.position)
        const data = file.bytes.subarray(at, at + buffer.length)
        buffer.set(data)
        if (options?.position === undefined) position = at + data.length
        return data.length
      }))),
      readAlloc: () => Effect.die("unused"),
      truncate: (length) => operation(() => bytes("truncate", (file) => Effect.sync(() => {
        file.bytes = file.bytes.slice(0, length ?? 0)
        return 0
      })).pipe(Effect.asVoid)),
      write,
      writeAll: (data) => write(data).pipe(Effect.asVoid)
    }
  }

  const noop = FileSystem.makeNoop({})
  const fileSystem = FileSystem.make({
    ...noop,
    access: (path) => alive(() => find(path) === undefined ? Effect.fail(missing("access", path)) : Effect.void),
    stat: (path) => alive(() => {
      const node = find(path)
      return node === undefined ? Effect.fail(missing("stat", path)) : Effect.succeed(info(node))
    }),
    makeDirectory: (path, options) => operation(() => {
      let folder: FolderNode = root
      const names = parts(path)
      for (const [index, name] of names.entries()) {
        let child = folder.entries.get(name)
        const last = index === names.length - 1
        if (child !== undefined && last && options?.recursive !== true) {
          return Effect.fail(systemError("AlreadyExists", "makeDirectory", path, "EEXIST: file exists", "EEXIST"))
        }
        if (child === undefined) {
          if (!last && options?.recursive !== true) return Effect.fail(missing("makeDirectory", path))
          folder.entries.set(name, child = folderNode())
        }
        if (child.kind === "file") return Effect.fail(missing("makeDirectory", path))
        folder = child
      }
      return Effect.void
    }),
    open: (path, options) => alive(() => {
      const flag = options?.flag ?? "r"
      const node = find(path)
      if (flag.startsWith("r")) {
        return node === undefined ? Effect.fail(missing("open", path)) : Effect.succeed(makeFile(node, path, false))
      }
      return operation(() => {
        const folder = parent(path)
        if (folder === undefined || node?.kind === "folder") return Effect.fail(missing("open", path))
        const file: FileNode = node ?? { kind: "file", bytes: new Uint8Array(0), synced: new Uint8Array(0) }
        if (flag.startsWith("w")) file.bytes = new Uint8Array(0)
        folder.entries.set(nameOf(path), file)
        return Effect.succeed(makeFile(file, path, flag.startsWith("a")))
      })
    }),
    makeTempDirectory: (options) => Effect.suspend(() => {
      const path = `${options?.directory ?? ""}/${options?.prefix ?? ""}${(names++).toString().padStart(6, "0")}`
      return Effect.as(fileSystem.makeDirectory(path), path)
    }),
    readDirectory: (path) => alive(() => {
      const node = find(path)
      if (node?.kind !== "folder") return Effect.fail(missing("readDirectory", path))
      return Effect.succeed([...node.entries.keys()])
    }),
    readFile: (path) => alive(() => {
      const node = find(path)
      return node?.kind === "file" ? Effect.succeed(node.bytes.slice()) : Effect.fail(missing("readFile", path))
    }),
    rename: (from, to) => operation(() => {
      const [source, target] = [find(from), find(to)]
      const [left, entered] = [parent(from), parent(to)]
      if (source === undefined || left === undefined) return Effect.fail(missing("rename", from))
      if (entered === undefined) return Effect.fail(missing("rename", to))
      if (target?.kind === "folder" && target.entries.size > 0) {
        return Effect.fail(systemError("Unknown", "rename", from, "ENOTEMPTY: directory not empty", "ENOTEMPTY"))
      }
      left.entries.delete(nameOf(from))
      entered.entries.set(nameOf(to), source)
      return Effect.void
    }),
    remove: (path, options) => alive(() => {
      const node = find(path)
      const folder = parent(path)
      if (node === undefined || folder === undefined) {
        return options?.force === true ? Effect.void : Effect.fail(missing("remove", path))
      }
      const inner = node.kind === "folder" ? [...node.entries.keys()] : []
      if (inner.length > 0 && options?.recursive !== true) return Effect.fail(missing("remove", path))
      return Effect.forEach(inner, (name) => fileSystem.remove(`${path}/${name}`, options), { discard: true }).pipe(
        Effect.andThen(operation(() => Effect.sync(() => void folder.entries.delete(nameOf(path)))))
      )
    })
  })

  const restore = (node: Node, survives: () => boolean): void => {
    const survived = survives()
    if (node.kind === "file") {
      if (!survived) node.bytes = node.synced.slice()
      node.synced = node.bytes.slice()
    } else {
      if (!survived) node.entries = new Map(node.synced)
      node.synced = new Map(node.entries)
      for (const child of node.entries.values()) restore(child, survives)
    }
  }
  const revive = (): void => {
    [dieAt, isDead] = [Infinity, false]
  }
  return {
    fileSystem,
    operations: () => count,
    killAfter: (operations) => void (dieAt = count + operations),
    fillAt: (bytes) => void (capacity = bytes),
    revive,
    cutPower: (survives) => {
      revive()
      restore(root, survives)
    },
    files,
    put: (path, bytes) => {
      const folder = parent(path)
      if (folder === undefined) throw new Error(`no folder for ${path}`)
      const file: FileNode = { kind: "file", bytes: bytes.slice(), synced: bytes.slice() }
      folder.entries.set(nameOf(path), file)
      folder.synced.set(nameOf(path), file)
    }
  }
}

/** Runs an Effect on this disk as a process of a machine on which it alone is alive, and closes its Scope. */
export const live = <A, E>(
  disk: MemoryDisk,
  process: number,
  effect: Effect.Effect<A, E, FileSystem.FileSystem | Path.Path | Scope.Scope>
): Promise<Exit.Exit<A, E>> =>
  Effect.scoped(effect).pipe(
    Effect.provideService(FileSystem.FileSystem, disk.fileSystem),
    Effect.provide(Path.layer),
    Effect.provideService(Lock.Processes, {
      self: Effect.succeed({ host: "here", process, started: `life ${process}` }),
      exists: (other) => Effect.succeed(other === process),
      started: (other) => Effect.succeed(`life ${other}`)
    }),
    Effect.runPromiseExit
  )
