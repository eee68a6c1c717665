import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, References } from "effect"
import { createRequire } from "node:module"
import * as Engine from "../../../src/backend/onnx/Engine.ts"
import { encodeModel } from "../../../src/backend/onnx/ModelProto.ts"

// A process of its own, where something else has used koffi first with its small default stacks.

describe("layer", () => {
  it.effect("falls back to the JavaScript API and says why", () =>
    Effect.gen(function*() {
      const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi")
      koffi.load(null).func("int abs(int)")(-1)
      const error = yield* Effect.flip(Effect.scoped(Layer.build(Engine.layerKoffi())))
      assert.strictEqual(
        error.message,
        `ONNX Runtime, in its C library: native code needs stacks of 8 MiB, set before koffi loads its first library
  sync 1048576 bytes, async 131072 bytes
  Cannot change Koffi configuration once a library has been loaded
  Something else in this process used koffi first: provide this layer before it, or have it call `
          + "koffi.config({ sync_stack_size: 8 << 20, async_stack_size: 8 << 20 })."
      )
      const lines: Array<string> = []
      const logger = Logger.layer([Logger.make(({ message }) => lines.push(String(message)))])
      const name = yield* Effect.map(Engine.Engine, ({ name }) => name).pipe(
        Effect.provide(Engine.layer({ threads: 1 })),
        Effect.provide(logger),
        Effect.provideService(References.MinimumLogLevel, "Debug")
      )
      assert.strictEqual(name, "node")
      assert.match(lines.join("\n"), /^using the JavaScript API[^]*stacks of 8 MiB[^]*1\.30\.0 through node, 1 th/)
    }))

  it.effect("runs there", () =>
    Effect.gen(function*() {
      const engine = yield* Engine.Engine
      const session = yield* engine.createSession(encodeModel({
        nodes: [{ op: "Neg", inputs: ["x"], outputs: ["y"] }],
        inputs: [{ name: "x", type: "f64", sizes: [] }],
        outputs: [{ name: "y", type: "f64", sizes: [] }],
        initializers: []
      }))
      const x = yield* engine.allocate("f64", [])
      x.data[0] = 2
      const bound = yield* session.bind({ inputs: { x }, outputs: { y: x } })
      bound.runSync()
      assert.strictEqual(x.data[0], -2)
    }).pipe(Effect.provide(Engine.layer())))
})
