/**
 * The weights of a checkpoint in memory, as wide as is wanted: float32, or codes of 8 or 4 bits.
 *
 * Programs hold them as constants, which ONNX Runtime packs once for all, beside the cells: float32 where three
 * quarters of the memory hold both and what else is needed; codes always, for it unpacks those that are no constants
 * anew for every token, which takes a hundred times as long.
 *
 * Checked  test/cli/GenerateCommand.test.ts, test/cli/EvaluateCommand.test.ts,
 *          test/cli/Weights.test.ts (what memory they take, which are frozen, which are refused or said to be slow,
 *          as weights or as a draft).
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Flag from "effect/cli/Flag"
import { Backend, type BackendError, type Capabilities, type Cells } from "../backend/Backend.ts"
import type { Draft } from "../generate/Drafting.ts"
import * as Checkpoint from "../llama/Checkpoint.ts"
import type { CheckpointMemoryError } from "../llama/checkpoint/CheckpointError.ts"
import { type Config, parameterCount } from "../llama/Config.ts"
import * as Quantization from "../llama/Quantization.ts"
import * as Transformer from "../llama/Transformer.ts"
import type * as BlockCodes from "../tensor/BlockCodes.ts"
import * as Specification from "../tensor/Specification.ts"
import * as Host from "./Host.ts"
import { bar, duration } from "./Screen.ts"

/** How wide weights are kept. */
export const widths = ["f32", "8-bit", "8-bit-rows", "4-bit"] as const

/** How wide weights are kept. */
export type Width = typeof widths[number]

/** The flag that has tokens guessed ahead. */
export const draftFlag = Flag.Literals("draft", ["8-bit", "8-bit-rows", "4-bit"]).pipe(
  Flag.withMetavar("WIDTH"), Flag.optional,
  Flag.withDescription("Guess tokens ahead with the same weights in fewer bits, 8-bit as a rule: the same answers of " +
    "large models sooner, one at a time, for more memory")
)

/** The flag that says how wide. */
export const flag = Flag.Literals("weights", widths).pipe(
  Flag.withMetavar("WIDTH"), Flag.withDefault("f32"),
  Flag.withDescription("How wide weights are kept; 8-bit and 4-bit take less memory and are faster; 8-bit-rows is " +
    "coarser than 8-bit, and faster with several --slots or long texts; f32 by default")
)

/** Weights that cannot be kept in so few bits. */
export class WidthUnfitError extends Schema.TaggedError<WidthUnfitError>()("WidthUnfitError", {
  path: Schema.String,
  width: Schema.String,
  /** What asked for it. */
  flag: Schema.Literals(["--weights", "--draft"]),
  /** The first parameter that does not fit, and its sizes. */
  parameter: Schema.String,
  sizes: Schema.String
}) {
  override get message() {
    return `${this.path} cannot be kept in ${this.width}: 32 weights share a scale, and ` +
      `${this.parameter} ${this.sizes} cannot be cut into so many\n  ` +
      `Take 8-bit-rows, which fits all sizes, or leave ${this.flag} out.`
  }
}

/** What is in memory beside weights: how many real numbers of what, and how there could be fewer. */
export interface Beside {
  readonly what: string
  readonly count: number
  readonly remedy: string
  /** The flag that is left out where narrower weights are taken. */
  readonly without?: string
}

/** Widths of codes. */
export type Coded = Exclude<Width, "f32">

/** A checkpoint whose weights are wanted. */
export type Source = Omit<Checkpoint.Checkpoint, "tokenizer">

/** A model with its weights. */
export interface Loaded<P> {
  readonly model: Transformer.Transformer<P>
  readonly parameters: Cells<Specification.Specifications<P>>
  /** Whether programs are to hold the weights as constants. */
  readonly frozen: boolean
}

/** Bytes of the weights: codes of a block share a scale, and the embedding table, whose rows are read, has none. */
const bytesOf = (config: Config, width: Width, whole: number): number => {
  if (width === "f32") return whole * parameterCount(config)
  const { bits, block } = Quantization.schemeOf(width, config)
  const table = config.vocabSize * config.embedSize
  return (parameterCount(config) - table) * (bits / 8 + whole / sharing(block, config)) + table * whole
}

/** How many weights share a scale, at least. */
const sharing = (block: BlockCodes.Scheme["block"], { embedSize, headCount, headSize, hiddenSize }: Config): number =>
  block === "row" ? Math.min(embedSize, headCount * headSize, hiddenSize) : block

/** Bytes that ONNX Runtime packs for products, at least: beside codes, two numbers for each block, or one for a row. */
const packedOf = (config: Config, width: Width): number => {
  const count = parameterCount(config) - config.vocabSize * config.embedSize
  if (width === "f32") return 4 * count
  const { bits, block } = Quantization.schemeOf(width, config)
  return count * (bits / 8 + (block === "row" ? 4 : 8) / sharing(block, config))
}

/** Bytes of weights that are constants of programs, and of what is packed of them. */
export const frozenBytes = (config: Config, width: Width): number =>
  bytesOf(config, width, 4) + packedOf(config, width)

/** What the engine packs in fewer bits; where its products of bytes are not exact, rows become float32. */
const packedWidth = (width: Width, kernels: ReadonlyArray<string>): Width =>
  width === "8-bit-rows" && !kernels.includes("contractRows") ? "f32" : width

/** How many programs a decoder has, each of which packs rows that become float32. */
const programCount = 3

/** What a backend takes weights for. */
export interface Plan {
  /** Bytes of their cells. */
  readonly bytes: number
  /** Whether programs hold them as constants, and the bytes that the engine packs of them then. */
  readonly frozen: boolean
  readonly packedBytes: number
  /** What is said of weights that are slow to compute with. */
  readonly warning?: string
}

/** The share of memory beyond which weights are not packed that need not be. */
const packedShare = 0.75

/** What is made of weights on a backend, where so many bytes of memory are there for them and for what is beside. */
export const plan = (
  config: Config, width: Width, { constantBytes = Infinity, kernels, precisions }: Capabilities, memory: number,
  besideBytes = 0
): Plan => {
  const bytes = bytesOf(config, width, precisions.includes("f32") ? 4 : 8)
  const packs = kernels.includes("contractCodes")
  const packed = packedWidth(width, kernels)
  const packedBytes = packs ? packedOf(config, packed) * (packed === width ? 1 : programCount) : 0
  const isCheap = packs ? bytes + packedBytes + besideBytes <= packedShare * memory
    : bytes < 2 ** 28 // each program of TensorFlow's engines takes a copy
  const frozen = bytes < constantBytes && (width !== "f32" || isCheap)
  if (frozen) return { bytes, frozen, packedBytes }
  if (width === "f32" || !packs) return { bytes, frozen, packedBytes: 0 }
  const size = (count: number): string => `${(count / 1e9).toPrecision(2)} GB`
  return {
    bytes, frozen, packedBytes: 0,
    warning: `${width} weights of ${size(bytes)} are not built into the programs, which hold ${size(constantBytes)} ` +
      "here: ONNX Runtime unpacks them anew for every token, which takes long"
  }
}

/** What is said of a draft where products with its codes are slower than those with the weights themselves. */
export const draftWarning = (width: Coded, name: string, { kernels }: Capabilities): string | undefined =>
  kernels.includes(width === "8-bit-rows" ? "contractRows" : "contractCodes") ? undefined
    : `${name} has no quick product with weights in ${width}: answers come sooner without --draft`

/** What is made of weights on a backend; fails if memory cannot hold them together with what is beside them. */
export const fitting = (
  { config, path }: Pick<Source, "config" | "path">, width: Width, { count, remedy, what, without }: Beside,
  capabilities: Capabilities, memoryBytes: number
): Effect.Effect<Plan, CheckpointMemoryError> => {
  const besideBytes = count * (capabilities.precisions.includes("f32") ? 4 : 8)
  const planned = plan(config, width, capabilities, memoryBytes, besideBytes)
  const { bytes, packedBytes } = planned
  const narrower = widths.slice(widths.indexOf(width) + 1).filter((each) => each !== "8-bit-rows") // hardly less
  return Effect.as(Checkpoint.requireMemory({ path }, [
    { bytes, what: `of ${width} weights` },
    ...packedBytes === 0 ? [] : [{ bytes: packedBytes, what: "packed of them for products" }],
    { bytes: besideBytes, what: `of ${what}` }
  ], memoryBytes, [
    ...besideBytes > memoryBytes || narrower.length === 0 ? []
      : [`--weights ${narrower.join(" or ")}${without === undefined ? "" : ` without ${without}`}`],
    bytes + packedBytes > memoryBytes ? "a smaller model" : remedy
  ]), planned)
}

const toldOf = (pieces: Source["pieces"], tell: Effect.Effect<void>): Source["pieces"] => (parameter) =>
  Effect.map(pieces(parameter), (found) =>
    found && { ...found, each: (together, use) => Effect.tap(found.each(together, use), () => tell) })

/** The same source, which tells on stderr every ten seconds how much has been read; nothing where it is read sooner. */
export const telling = <S extends Pick<Source, "parameters" | "read"> & Partial<Pick<Source, "pieces">>>(
  source: S
): Effect.Effect<S> =>
  Effect.map(Clock.currentTimeMillis, (began) => {
    const { size } = source.parameters
    let [count, told] = [0, began]
    const tell = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      count++
      const isDone = count === size && told > began
      if (now - told < 10_000 && !isDone) return Effect.void
      told = now
      return Console.error(`weights     ${bar(count / size, 20)} ${count} of ${size} tensors, ` +
        `${duration((now - began) / 1000)}${isDone ? "; building the programs" : ""}`)
    })
    return {
      ...source,
      read: (parameter: string) => Effect.tap(source.read(parameter), () => tell),
      ...source.pieces === undefined ? {} : { pieces: toldOf(source.pieces, tell) }
    }
  })

/** What is asked of a checkpoint for its model in codes. */
type Named = Pick<Source, "config" | "path">

/** The model with weights of so many bits; fails by name where its sizes do not allow it. */
const quantized = <P>(
  { config, path }: Named, model: Transformer.Transformer<P>, width: Coded, flag: WidthUnfitError["flag"]
) =>
  Effect.mapError(Quantization.quantized(model, Quantization.schemeOf(width, config)), ({ place, values }) =>
    new WidthUnfitError({ path, width, flag, parameter: place, sizes: values[0]?.[1] ?? "a size" }))

/** The same weights in codes, to guess with. */
export const draftOf = Effect.fnUntraced(function*<P>(
  checkpoint: Named, { model, parameters }: Loaded<P>, width: Coded
): Effect.fn.Return<Draft, BackendError | BlockCodes.WeightError | WidthUnfitError, Backend | Scope.Scope> {
  const coded = yield* quantized(checkpoint, model, width, "--draft")
  return { model: coded, parameters: yield* Quantization.fromCells(coded, parameters) }
})

/**
 * Loads weights for whatever is done with them. Refused where memory would not hold them and what is beside them,
 * before any is read.
 */
export const load = <A, E, R>(
  checkpoint: Source, width: Width, beside: Beside, use: <P>(loaded: Loaded<P>) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function*() {
    const { config } = checkpoint
    const backend = yield* Backend
    const { frozen, warning } = yield* fitting(checkpoint, width, beside, backend.capabilities, Host.memory())
    const model = yield* Transformer.make(config)
    if (warning !== undefined) yield* Console.error(warning)
    const source = yield* telling(checkpoint)
    if (width === "f32") {
      const parameters = yield* backend.allocate(Specification.zeros(model.specification))
      yield* Checkpoint.load(source, parameters)
      yield* backend.seal(parameters)
      return yield* use({ model, parameters, frozen })
    }
    const coded = yield* quantized(checkpoint, model, width, "--weights")
    return yield* use({ model: coded, parameters: yield* Quantization.load(coded, source.read, source.pieces), frozen })
  })
