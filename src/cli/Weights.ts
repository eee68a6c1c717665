/**
 * The weights of a checkpoint in memory, as wide as is wanted: float32, or codes of 8 or 4 bits.
 *
 * Codes are frozen as far as memory goes, for each program takes a copy: ONNX Runtime multiplies by codes that it has
 * seen before a run, and unpacks all others anew for every token, which takes it a hundred times as long.
 *
 * Checked  test/cli/GenerateCommand.test.ts, test/cli/EvaluateCommand.test.ts,
 *          test/cli/Weights.test.ts (which weights are said to be slow).
 *
 * @module
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Flag from "effect/cli/Flag"
import { Backend, type Cells } from "../backend/Backend.ts"
import * as Checkpoint from "../llama/Checkpoint.ts"
import { type Config, parameterCount } from "../llama/Config.ts"
import * as Quantization from "../llama/Quantization.ts"
import * as Transformer from "../llama/Transformer.ts"
import * as Specification from "../tensor/Specification.ts"
import * as Host from "./Host.ts"

/** How wide weights are kept. */
export const widths = ["f32", "8-bit", "4-bit"] as const

/** How wide weights are kept. */
export type Width = typeof widths[number]

/** The flag that says how wide. */
export const flag = Flag.Literals("weights", widths).pipe(
  Flag.withMetavar("WIDTH"), Flag.withDefault("f32"),
  Flag.withDescription("How wide weights are kept; 8-bit and 4-bit take less memory and are faster; f32 by default")
)

/** Weights that cannot be kept in so few bits. */
export class WidthUnfitError extends Schema.TaggedError<WidthUnfitError>()("WidthUnfitError", {
  path: Schema.String,
  width: Schema.String,
  sizes: Schema.String
}) {
  override get message() {
    return `${this.path} cannot be kept in ${this.width}: 32 weights share a scale, and ${this.sizes} cannot be cut ` +
      "into so many\n  Leave --weights out: then they are kept in f32."
  }
}

/** A checkpoint whose weights are wanted. */
export type Source = Omit<Checkpoint.Checkpoint, "tokenizer">

/** A model with its weights. */
export interface Loaded<P> {
  readonly model: Transformer.Transformer<P>
  readonly parameters: Cells<Specification.Specifications<P>>
  /** Whether programs are to hold the weights as constants. */
  readonly frozen: boolean
}

/** Bytes of the weights: codes of 32 weights share a scale, and the embedding table, whose rows are read, has none. */
const bytesOf = (config: Config, width: Width, precisions: ReadonlyArray<string>): number => {
  const whole = precisions.includes("f32") ? 4 : 8
  if (width === "f32") return whole * parameterCount(config)
  const table = config.vocabSize * config.embedSize
  return (parameterCount(config) - table) * (width === "8-bit" ? 9 / 8 : 5 / 8) + table * whole
}

/** Whether weights of so many bytes are frozen: plain ones where copies cost little, codes where three can be had. */
const isFrozen = (width: Width, bytes: number): boolean =>
  bytes < (width === "f32" ? 2 ** 28 : 2 ** 31 - 2 ** 25)

/** What is said of weights that are slow to compute with. */
export const warning = (config: Config, width: Width): string | undefined => {
  const bytes = bytesOf(config, width, ["f32"])
  return width === "f32" || isFrozen(width, bytes) ? undefined
    : `${width} weights of ${(bytes / 1e9).toPrecision(2)} GB are not built into the programs, each of which would ` +
      "take a copy: ONNX Runtime unpacks them anew for every token, which takes long"
}

/** Loads weights for whatever is done with them. Refused where they would not fit into memory, before any is read. */
export const load = <A, E, R>(
  checkpoint: Source, width: Width, use: <P>(loaded: Loaded<P>) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function*() {
    const { config } = checkpoint
    const backend = yield* Backend
    const bytes = bytesOf(config, width, backend.capabilities.precisions)
    yield* Checkpoint.requireMemory(checkpoint, bytes / parameterCount(config), Host.memory())
    const model = yield* Transformer.make(config)
    const frozen = isFrozen(width, bytes)
    const slow = backend.capabilities.kernels.includes("contractCodes") ? warning(config, width) : undefined
    if (slow !== undefined) yield* Console.error(slow)
    if (width === "f32") {
      const parameters = yield* backend.allocate(Specification.zeros(model.specification))
      yield* Checkpoint.load(checkpoint, parameters)
      return yield* use({ model, parameters, frozen })
    }
    const coded = yield* Effect.mapError(
      Quantization.quantized(model, Quantization.schemes[width]),
      ({ values }) => new WidthUnfitError({ path: checkpoint.path, width, sizes: values[0]?.[1] ?? "a size" })
    )
    return yield* use({ model: coded, parameters: yield* Quantization.load(coded, checkpoint.read), frozen })
  })
