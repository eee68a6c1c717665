import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import * as Reference from "../../src/backend/Reference.ts"
import * as Host from "../../src/cli/Host.ts"

const x86 = "model name\t: A\nflags\t\t: fpu sse4_2 avx2 avx512f smep fma f16c amx_tile aes\nbugs : x\n\nflags : x\n"
const arm = "processor\t: 0\nFeatures\t: fp asimd fphp sve i8mm bf16 sme2 crc32\n"

const environment = (cpuinfo: Effect.Effect<string>) =>
  Host.environment.pipe(
    Effect.provide(Reference.layer),
    Effect.provideService(FileSystem.FileSystem, FileSystem.makeNoop({ readFileString: () => cpuinfo }))
  )

describe("Host", () => {
  it("finds the instruction sets for arithmetic, of x86 and of ARM", () => {
    assert.deepStrictEqual(Host.features(x86), ["amx_tile", "avx2", "avx512f", "f16c", "fma", "sse4_2"])
    assert.deepStrictEqual(Host.features(arm), ["asimd", "bf16", "fphp", "i8mm", "sme2", "sve"])
    assert.deepStrictEqual(Host.features(""), [])
  })
  it.effect("tells the engine, the processor, the threads, and Node", () =>
    Effect.gen(function*() {
      const { cpu, engine, node, threadCount } = yield* environment(Effect.succeed(x86))
      assert.strictEqual(node, process.version)
      assert.deepStrictEqual({ engine, threadCount }, { engine: { name: "reference", version: "1" }, threadCount: 1 })
      assert.strictEqual(cpu.features.length, 6)
      assert.isNotEmpty(cpu.model)
    }))
  it.effect("knows no instruction sets where there is no /proc", () =>
    Effect.gen(function*() {
      const noFile = FileSystem.makeNoop({})
      const { cpu } = yield* Effect.provideService(
        Effect.provide(Host.environment, Reference.layer), FileSystem.FileSystem, noFile
      )
      assert.deepStrictEqual(cpu.features, [])
    }))
  it("names an engine once, and finds versions of packages", () => {
    assert.strictEqual(Host.named({ name: "reference", version: "1" }), "reference 1")
    assert.strictEqual(Host.named({ name: "onnxruntime", version: "onnxruntime 1.30.0" }), "onnxruntime 1.30.0")
    assert.match(Host.versionOf("effect"), /^4\./)
    assert.match(Host.versionOf("cria"), /^\d+\.\d+\.\d+/)
  })
})
