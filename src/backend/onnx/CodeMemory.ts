/**
 * Memory that holds machine code: written first, then made executable, and never both at once.
 *
 * From     mmap(2), mprotect(2); proc(5), cpuinfo.
 * Checked  test/backend/onnx/CodeMemory.test.ts.
 *
 * @module
 */
import * as Result from "effect/Result"
import { readFileSync } from "node:fs"

/** What of koffi is used. */
interface Koffi {
  readonly load: (path: string) => {
    readonly func: (name: string, result: string, parameters: Array<string>) => (...given: Array<unknown>) => unknown
  }
}

/** Gives out memory for code. */
export interface CodeMemory {
  /** Memory of so many bytes; `write` says, from its address, what it holds. Throws where the system refuses. */
  readonly map: (byteLength: number, write: (address: number) => Uint8Array) => Mapping
}

/** Code in memory. */
export interface Mapping {
  readonly address: number
  readonly free: () => void
}

/** What the processor has to know for the code of the folder machine. */
const features = ["avx512f"]

/** Whether the flags of a processor, as Linux writes them, have all that code of Cria's needs. */
export const knowsVectors = (cpuInfo: string): boolean => {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(cpuInfo)?.[1]?.split(" "))
  return features.every((feature) => flags.has(feature))
}

const pageSize = 4096

// What sys/mman.h calls PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC, and MAP_PRIVATE | MAP_ANONYMOUS.
const [readWrite, readExecute, anonymous] = [3, 5, 0x22]

/** Finds out how to ask the system; `undefined` where code cannot run: another processor or system, or a refusal. */
export const make = (koffi: Koffi): CodeMemory | undefined => {
  if (process.platform !== "linux" || process.arch !== "x64") return undefined
  const made = Result.try(() => {
    if (!knowsVectors(readFileSync("/proc/cpuinfo", "latin1"))) return undefined
    const library = koffi.load("libc.so.6")
    const mmap = library.func("mmap", "intptr_t", ["uintptr_t", "size_t", "int", "int", "int", "int64_t"])
    const mprotect = library.func("mprotect", "int", ["uintptr_t", "size_t", "int"])
    const munmap = library.func("munmap", "int", ["uintptr_t", "size_t"])
    const memcpy = library.func("memcpy", "uintptr_t", ["uintptr_t", "void *", "size_t"])
    const map: CodeMemory["map"] = (byteLength, write) => {
      const length = Math.ceil(byteLength / pageSize) * pageSize
      const address = Number(mmap(0, length, readWrite, anonymous, -1, 0))
      if (address === -1) throw new Error(`the system gave no memory of ${length} bytes for code`)
      const bytes = write(address)
      memcpy(address, bytes, bytes.length)
      if (mprotect(address, length, readExecute) !== 0) {
        munmap(address, length)
        throw new Error("the system does not let memory be executed that was written")
      }
      return { address, free: () => void munmap(address, length) }
    }
    map(1, () => Uint8Array.of(0xc3)).free()
    return { map }
  })
  return Result.getOrUndefined(made)
}
