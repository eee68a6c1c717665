/**
 * The machine that a command runs on, and the engine that computes for it: what manifests record and `doctor` prints.
 *
 * An edge: processor and threads are asked of Node, and instruction sets of Linux's /proc where it is there.
 *
 * Checked  test/cli/Host.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { createRequire } from "node:module"
import * as Os from "node:os"
import { Backend } from "../backend/Backend.ts"
import type { Environment } from "../store/Manifest.ts"

/** Instruction sets that decide how numbers are computed; the rest of /proc/cpuinfo's list does not. */
const isArithmetic = /^(sse|ssse|avx|fma|f16c|amx|neon|asimd|sve|sme(?!p)|i8mm|bf16|fphp|altivec|vsx|rvv)/

/** The instruction sets for arithmetic that the text of /proc/cpuinfo names. */
export const features = (cpuinfo: string): ReadonlyArray<string> => {
  const line = /^(?:flags|Features)\s*:(.*)$/m.exec(cpuinfo)?.[1] ?? ""
  return line.split(/\s+/).filter((feature) => isArithmetic.test(feature)).sort()
}

/** The processor: its name, its cores, and its instruction sets (none are known beyond Linux). */
export const processor = Effect.gen(function*() {
  const fileSystem = yield* FileSystem.FileSystem
  const cpuinfo = yield* Effect.orElseSucceed(fileSystem.readFileString("/proc/cpuinfo"), () => "")
  const cpus = Os.cpus()
  return { model: cpus[0]?.model.trim() ?? "unknown", cores: cpus.length, features: features(cpuinfo) }
})

/** An engine's name and version, the name once. */
export const named = ({ name, version }: Environment["engine"]): string =>
  version.startsWith(name) ? version : `${name} ${version}`

/** What decides the last bits of a run's numbers. */
export const environment: Effect.Effect<Environment, never, Backend | FileSystem.FileSystem> = Effect.gen(function*() {
  const { capabilities, name, version } = yield* Backend
  const { features, model } = yield* processor
  const { threads: threadCount } = capabilities
  return { engine: { name, version }, cpu: { model, features }, threadCount, node: process.version }
})

/** The packages that decide what a command does. */
export const packages = ["effect", "onnxruntime-node", "koffi"] as const

const resolve = createRequire(import.meta.url)

/** The version of an installed package, or "not installed". */
export const versionOf = (name: (typeof packages)[number] | "cria"): string => {
  try { // Node throws for a package that is not there, which is an answer
    const { version }: { readonly version: string } = resolve(`${name}/package.json`)
    return version
  } catch {
    return "not installed"
  }
}

/** Cores that this process may use. */
export const cores = (): number => Os.availableParallelism()

/** Bytes of memory that this machine has, or the part of them that this process may use. */
export const memory = (): number => {
  const limit = process.constrainedMemory() ?? 0 // 0, or beyond all memory, where there is no limit
  return limit > 0 ? Math.min(limit, Os.totalmem()) : Os.totalmem()
}
