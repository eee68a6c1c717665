/**
 * Memory for machine code: on which processors, that its code runs, when it can be written and executed, and what
 * happens where the system refuses.
 */
import { assert, describe, it } from "@effect/vitest"
import koffi from "koffi"
import { readFileSync } from "node:fs"
import { assemble, end, set } from "../../../src/backend/machine/Assembler.ts"
import { knowsVectors, make } from "../../../src/backend/onnx/CodeMemory.ts"

describe("a processor", () => {
  const cpuInfo = (flags: string) =>
    `processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: avx512f\nflags\t\t: ${flags}\nbugs\t\t: spectre_v1\n\n`

  it("knows the vectors that its flags name", () => {
    for (const flags of ["avx512f", "fpu vme avx2 avx512f avx512dq", "fpu avx512f", "avx512f fpu"]) {
      assert.isTrue(knowsVectors(cpuInfo(flags)), flags)
      assert.isTrue(knowsVectors(cpuInfo(flags) + cpuInfo(flags)), flags)
    }
  })

  it("knows none that they do not", () => {
    for (const flags of ["", "fpu vme avx2", "avx512f_fake", "fpu xavx512f avx", "avx512fp16 avx512", "AVX512F"]) {
      assert.isFalse(knowsVectors(cpuInfo(flags)), flags)
    }
  })

  it("knows none where there are no flags, or others", () => {
    assert.isFalse(knowsVectors(""))
    assert.isFalse(knowsVectors("processor\t: 0\nFeatures\t: fp asimd avx512f\n"))
    assert.isFalse(knowsVectors("processor\t: 0\nvmx flags\t: avx512f\n"))
    assert.isFalse(knowsVectors("flags avx512f\n"))
  })
})

const memory = make(koffi)

describe.skipIf(memory === undefined)("memory for code (needs Linux on x64 with AVX-512)", () => {
  const prototype = koffi.proto("int64_t", [])

  const run = (address: number): number => {
    const pointer: unknown = koffi.decode(Buffer.from(BigUint64Array.of(BigInt(address)).buffer), "void *")
    return Number(koffi.decode(pointer, prototype)())
  }

  /** What the process may do with the memory at an address, as Linux writes it: r-xp. */
  const allowed = (address: number): string | undefined =>
    readFileSync("/proc/self/maps", "latin1").split("\n").map((line) => /^(\w+)-(\w+) (\S+)/.exec(line)).find((found) =>
      found !== null && parseInt(found[1]!, 16) <= address && address < parseInt(found[2]!, 16))?.[3]

  it("runs the code written to it, until it is freed", () => {
    const code = assemble([set("rax", 42), end])
    const mapping = memory!.map(code.length, () => code)
    assert.strictEqual(run(mapping.address), 42)
    assert.strictEqual(allowed(mapping.address), "r-xp")
    mapping.free()
    assert.notStrictEqual(allowed(mapping.address), "r-xp")
  })

  it("tells its address to who writes it, and is written or executed, never both", () => {
    let [told, whileWritten] = [0, allowed(0)]
    const mapping = memory!.map(3 * 4096 - 5, (address) => {
      told = address
      whileWritten = allowed(address)
      return assemble([set("rax", address + 7), end])
    })
    assert.deepStrictEqual([told, whileWritten], [mapping.address, "rw-p"])
    assert.strictEqual(run(mapping.address), mapping.address + 7)
    for (const page of [0, 1, 2]) assert.strictEqual(allowed(mapping.address + page * 4096), "r-xp")
    mapping.free()
    for (const page of [0, 1, 2]) assert.notStrictEqual(allowed(mapping.address + page * 4096), "r-xp")
  })

  it("keeps codes apart", () => {
    const mappings = [1, 2, 3].map((value) => memory!.map(11, () => assemble([set("rax", value), end])))
    assert.deepStrictEqual(mappings.map(({ address }) => run(address)), [1, 2, 3])
    mappings[1]!.free()
    assert.deepStrictEqual([run(mappings[0]!.address), run(mappings[2]!.address)], [1, 3])
    mappings[0]!.free()
    mappings[2]!.free()
  })

  /** A system that answers so, call by call, and the calls made. */
  const system = (answers: { readonly mmap: Array<number>; readonly mprotect: Array<number> }) => {
    const calls: Array<string> = []
    const given = new Map(Object.entries(answers))
    const load = () => ({
      func: (name: string) => (...values: ReadonlyArray<unknown>): number => {
        calls.push(`${name} ${values.filter((value) => typeof value === "number").join(" ")}`)
        return given.get(name)?.shift() ?? 0
      }
    })
    return { calls, memory: make({ load }) }
  }

  it("is none where the system has no such call, no memory, or does not let it be executed", () => {
    assert.isUndefined(make({ load: () => { throw new Error("no libc.so.6") } }))
    const full = system({ mmap: [-1], mprotect: [] })
    assert.deepStrictEqual([full.memory, full.calls], [undefined, ["mmap 0 4096 3 34 -1 0"]])
    const strict = system({ mmap: [8192], mprotect: [-1] })
    assert.deepStrictEqual([strict.memory, strict.calls],
      [undefined, ["mmap 0 4096 3 34 -1 0", "memcpy 8192 1", "mprotect 8192 4096 5", "munmap 8192 4096"]])
  })

  it("says what the system refused later, and gives back what it got", () => {
    const full = system({ mmap: [8192, -1], mprotect: [0] })
    assert.throws(() => full.memory!.map(4097, () => new Uint8Array(1)),
      Error, "the system gave no memory of 8192 bytes for code")
    const strict = system({ mmap: [8192, 16384], mprotect: [0, -1] })
    assert.throws(() => strict.memory!.map(1, () => new Uint8Array(1)),
      Error, "the system does not let memory be executed that was written")
    assert.strictEqual(strict.calls.at(-1), "munmap 16384 4096")
  })
})
