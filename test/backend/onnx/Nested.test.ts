import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Backend } from "../../../src/backend/Backend.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/index.ts"

it.effect("a backend that is provided inside another is itself", () => Effect.gen(function*() {
  const version = Effect.map(Backend, (backend) => backend.version)
  const node = OnnxRuntime.layerNoDeps.pipe(Layer.provide(OnnxRuntime.layerNode()))
  const inner = yield* Effect.provide(version, node)
  assert.match(yield* version, /\(koffi\)$/)
  assert.match(inner, /\(node\)$/)
}).pipe(Effect.provide(OnnxRuntime.layer())))
