/**
 * `cria doctor`: what this machine has, what Cria can use of it, and how fast that is.
 *
 * Checked  test/cli/DoctorCommand.test.ts.
 *
 * @module
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Command from "effect/cli/Command"
import { bandwidth, matmulRate } from "../backend/MatmulRate.ts"
import { Engine, type EngineError, layerKoffi, layerNode, layerNoDeps } from "../backend/onnx/index.ts"
import * as Host from "./Host.ts"
import { quantity } from "./Screen.ts"

/** A machine on which the default backend cannot run. */
export class NoEngineError extends Schema.TaggedError<NoEngineError>()("NoEngineError", {
  reasons: Schema.Array(Schema.String)
}) {
  override get message() {
    return `no engine loads, so only --backend reference works here, which is slow\n${this.reasons.join("\n")}`
  }
}

const indented = (text: string): string => text.replaceAll("\n", "\n              ")

/** An engine, or why it is not one. */
const found = (name: string, layer: Layer.Layer<Engine, EngineError>) =>
  Effect.gen(function*() {
    const engine = yield* Effect.result(Effect.provide(Engine, layer))
    yield* Console.log(Result.isSuccess(engine)
      ? `${name.padEnd(13)} ONNX Runtime ${engine.success.version}, ${engine.success.threads} threads`
      : `${name.padEnd(13)} ${indented(engine.failure.message)}`)
    return Result.map(engine, () => layer)
  })

/** The command. */
export const command = Command.make("doctor", {}, Effect.fnUntraced(function*() {
  const { cores, features, model } = yield* Host.processor
  yield* Console.log(`cria          ${Host.versionOf("cria")}`)
  yield* Console.log(`node          ${process.version} on ${process.platform} ${process.arch}`)
  yield* Console.log(`packages      ${Host.packages.map((name) => `${name} ${Host.versionOf(name)}`).join(", ")}`)
  yield* Console.log(`processor     ${model}, ${cores} cores${features.length === 0 ? "" : `, ${features.join(" ")}`}`)
  yield* Console.log(`memory        ${quantity(Host.memory())}B`)
  const koffi = yield* found("through koffi", layerKoffi())
  const node = yield* found("through node", layerNode())
  const usable = Result.isSuccess(koffi) ? koffi : node
  if (Result.isFailure(usable)) {
    const reasons = [koffi, node].flatMap((one) => Result.isFailure(one) ? [one.failure.message] : [])
    return yield* new NoEngineError({ reasons })
  }
  yield* Effect.gen(function*() {
    const rate = yield* matmulRate({ size: 1024, seconds: 1 })
    yield* Console.log(`matmul        ${quantity(rate)}FLOP/s, float32, 1024 × 1024, for a second`)
    const bytes = yield* bandwidth({ size: 1 << 24, seconds: 0.5 })
    yield* Console.log(`bandwidth     ${quantity(bytes)}B/s, read and written, for half a second`)
  }).pipe(Effect.provide(layerNoDeps.pipe(Layer.provide(usable.success))))
})).pipe(
  Command.withShortDescription("See what this machine can do"),
  Command.withDescription(
    "Prints Node, the packages, the processor, the engines that load (and why others do not), and how fast the " +
      "default one multiplies matrices and moves memory."
  ),
  Command.withExamples([{ command: "cria doctor", description: "See what this machine can do" }])
)
