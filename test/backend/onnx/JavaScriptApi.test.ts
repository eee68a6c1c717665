import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Engine from "../../../src/backend/onnx/Engine.ts"
import { encodeModel } from "../../../src/backend/onnx/ModelProto.ts"

// A process of its own, in which the JavaScript API makes ONNX Runtime's one environment.

const model = encodeModel({
  nodes: [{ op: "Neg", inputs: ["x"], outputs: ["y"] }],
  inputs: [{ name: "x", type: "f32", sizes: [2] }],
  outputs: [{ name: "y", type: "f32", sizes: [2] }],
  initializers: []
})
const createSession = Engine.Engine.use(({ createSession }) => Effect.scoped(createSession(model)))

describe("layerNode", () => {
  it.effect("leaves no thread pool for the C library, which says so", () =>
    Effect.gen(function*() {
      yield* createSession.pipe(Effect.provide(Engine.layerNode({ threads: 1 })))
      const error = yield* Effect.flip(createSession.pipe(Effect.provide(Engine.layerKoffi({ threads: 1 }))))
      assert.strictEqual(error.reason, "ThreadsPinned")
      assert.include(error.message, "CreateEnvWithGlobalThreadPools")
    }))
})
