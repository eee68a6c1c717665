import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import * as Engine from "../../../src/backend/onnx/Engine.ts"

// These tests share one process and its one environment, so their order matters: failures first, then the one success.

const build = (options: Parameters<typeof Engine.layerKoffi>[0]) =>
  Effect.scoped(Layer.build(Engine.layerKoffi(options)))
describe("libraryPath", () => {
  it("follows the package's folders, and is nothing where the package has no build", () => {
    const path = (platform: string, architecture: string) => Engine.libraryPath(platform, architecture, "root")
    assert.strictEqual(path("linux", "x64"), "root/bin/napi-v6/linux/x64/libonnxruntime.so.1")
    assert.strictEqual(path("linux", "arm64"), "root/bin/napi-v6/linux/arm64/libonnxruntime.so.1")
    assert.strictEqual(path("darwin", "arm64"), "root/bin/napi-v6/darwin/arm64/libonnxruntime.1.dylib")
    assert.strictEqual(path("win32", "x64"), "root\\bin\\napi-v6\\win32\\x64\\onnxruntime.dll")
    assert.strictEqual(path("win32", "arm64"), "root\\bin\\napi-v6\\win32\\arm64\\onnxruntime.dll")
    for (const [platform, architecture] of [["darwin", "x64"], ["freebsd", "x64"], ["linux", "riscv64"]] as const) {
      assert.isUndefined(path(platform, architecture))
    }
  })

  it("points at files that are in the installed package", () => {
    const root = dirname(createRequire(import.meta.url).resolve("onnxruntime-node/package.json"))
    for (const platform of ["linux", "darwin", "win32"]) {
      for (const architecture of readdirSync(join(root, "bin/napi-v6", platform))) {
        const path = Engine.libraryPath(platform, architecture, root)!.replaceAll("\\", "/")
        assert.include(readdirSync(dirname(path)), path.slice(path.lastIndexOf("/") + 1))
      }
    }
  })
})

describe("layerKoffi", () => {
  it("loads nothing native until it is built", () => {
    const loaded = (process.report!.getReport() as unknown as { sharedObjects: Array<string> }).sharedObjects
    assert.isFalse(loaded.some((path) => /onnxruntime|koffi/.test(path)))
  })

  it.effect("says what to install where the library is missing", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(build({ library: "/nowhere/libonnxruntime.so.1" }))
      assert.strictEqual(error.message.split("\n").filter((_, line) => line !== 2).join("\n"), // the system's own words
        `ONNX Runtime, in its C library: its native library must load
  /nowhere/libonnxruntime.so.1
  Install it with \`npm install onnxruntime-node@1.30.0 koffi\` (ignore-scripts=true in .npmrc skips a CUDA download `
          + "that is not needed), or name a libonnxruntime of version 1.23 or later in the option `library`.")
      assert.include(error.values[1], "Failed to load shared library")
    }))

  it.effect("says so where the file is no library, or another one", () =>
    Effect.gen(function*() {
      const folder = mkdtempSync(join(tmpdir(), "cria-"))
      const text = join(folder, "libonnxruntime.so.1")
      writeFileSync(text, "not a library\n".repeat(1000))
      const textError = yield* Effect.flip(build({ library: text }))
      rmSync(folder, { recursive: true })
      assert.deepStrictEqual([textError.reason, textError.values[0]], ["MissingLibrary", text])
      assert.include(textError.message, "invalid ELF header")
      const other = yield* Effect.flip(build({ library: "libm.so.6" }))
      assert.include(other.message, "OrtGetApiBase")
    }).pipe((test) => process.platform === "linux" ? test : Effect.void))

  it.effect("does not replace a library that was asked for by name", () =>
    Effect.gen(function*() {
      const fallback = Effect.scoped(Layer.build(Engine.layer({ library: "/nowhere/libonnxruntime.so.1" })))
      assert.strictEqual((yield* Effect.flip(fallback)).reason, "MissingLibrary")
    }))

  it.effect("refuses thread counts that are none", () =>
    Effect.gen(function*() {
      for (const threads of [0, -1, 1.5, NaN]) {
        for (const layer of [Engine.layerKoffi({ threads }), Engine.layerNode({ threads })]) {
          const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
          assert.match(
            error.message,
            /^ONNX Runtime, in its (C l|J)[\w ]+: `threads` must be a whole number of at least 1\n {2}threads/
          )
        }
      }
    }))

  it.effect("pins the threads of the process to those of the first layer", () =>
    Effect.gen(function*() {
      const read = Effect.map(Engine.Engine, ({ name, threads }) => [name, threads])
      assert.deepStrictEqual(yield* read.pipe(Effect.provide(Engine.layerKoffi({ threads: 2 }))), ["koffi", 2])
      assert.deepStrictEqual(yield* read.pipe(Effect.provide(Engine.layer())), ["koffi", 2])
      assert.strictEqual(process.env["ORT_DISABLE_TELEMETRY"], "1")
      const error = yield* Effect.flip(build({ threads: 3, spin: false, library: "/elsewhere.so" }))
      assert.strictEqual(
        error.message.replace(/library: .* is/, "library: … is"),
        "ONNX Runtime, in its C library: a process has one thread pool, made by the first layer and kept until the "
          + `process ends
  threads: 2 are running, 3 were asked for
  spin: it is true, false was asked for
  library: … is loaded, not /elsewhere.so
  Ask for the same everywhere, leave the options out to share what is there, or start another process.`
      )
      const shared = yield* Effect.flip(Effect.scoped(Layer.build(Engine.layer({ threads: 3 }))))
      assert.strictEqual(shared.reason, "ThreadsPinned")
    }))
})
