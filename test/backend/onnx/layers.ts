import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Engine from "../../../src/backend/onnx/Engine.ts"
import * as OnnxRuntime from "../../../src/backend/onnx/OnnxRuntime.ts"

/** The two ways into ONNX Runtime. */
export const engines = {
  koffi: Layer.orDie(Engine.layerKoffi({ threads: 2 })),
  node: Layer.orDie(Engine.layerNode({ threads: 2 }))
}

const backendOver = <E>(engine: Layer.Layer<Engine.Engine, E>) => Layer.provide(OnnxRuntime.layerNoDeps, engine)

/** The backend over each of them. */
export const backends = Object.entries(engines).map(([name, engine]) => [name, backendOver(engine)] as const)

/** Halves what a run has written of numbers. */
const halve = (outputs: Engine.Buffers["outputs"]) => Effect.sync(() => {
  for (const output of Object.values(outputs)) {
    if ("data" in output && output.data instanceof Float32Array) output.data.set(output.data.map((x) => x / 2))
  }
})

/** An engine that is wrong wherever it sums products of matrices of bytes, as on processors on which these saturate. */
const wrongOfBytes = Layer.effect(Engine.Engine, Effect.map(Engine.Engine, (engine) => Engine.Engine.of({
  ...engine,
  createSession: (model, options) => Effect.map(engine.createSession(model, options), (session) =>
    !Buffer.from(model).includes("MatMulIntegerToFloat") ? session : {
      ...session,
      bind: (buffers) => Effect.map(session.bind(buffers), ({ run }) => ({
        run: Effect.tap(run, () => halve(buffers.outputs)),
        attempt: () => undefined,
        runSync: () => { throw new TypeError("no program with such products runs at once") }
      }))
    })
}))).pipe(Layer.provide(engines.koffi))

/** The backend over that one: it computes right if it never sums them. */
export const saturating = ["an engine whose sums of bytes are wrong", backendOver(wrongOfBytes)] as const
