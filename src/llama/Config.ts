/**
 * The sizes of a Llama: what is given, what follows from it, the released models, and what each costs.
 *
 *     F = m ⌈⌊x ⌊8 d / 3⌋⌋ / m⌉
 *     N = 2 V d + L (2 d + 2 d H D + 2 d K D + 3 d F) + d
 *     FLOPs of a training token = 6 (N − V d − norms) + 12 L H D T
 *
 * N parameters · V `vocabSize` · d `embedSize` · L `layerCount` · H `headCount` · K `kvHeadCount` · D `headSize` ·
 * F `hiddenSize`, where it is not given · x `multiplier` · m `multipleOf` · T the length of the sequences
 *
 * From     Llama 2 §2.2, table 1; widths of the released models from Meta's code; FLOPs as in Chowdhery et al. 2022
 *          (PaLM), appendix B: every position is counted as if it attended to all T.
 * Checked  test/llama/Config.test.ts (parameter counts of the released models, widths, messages).
 * Departs  the 34B model was never released: its shape is that of Code Llama 34B.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

const Given = Schema.Struct({
  /** Pieces of the tokenizer. */
  vocabSize: Schema.Finite,
  /** Width of the residual stream. */
  embedSize: Schema.Finite,
  /** Number of blocks. */
  layerCount: Schema.Finite,
  /** Query heads. */
  headCount: Schema.Finite,
  /** Key and value heads, each shared by headCount / kvHeadCount query heads; headCount by default. */
  kvHeadCount: Schema.optionalKey(Schema.Finite),
  /** Width of a head; embedSize / headCount by default. */
  headSize: Schema.optionalKey(Schema.Finite),
  /** Width of the feed-forward layer; by default it follows from embedSize, multiplier and multipleOf. */
  hiddenSize: Schema.optionalKey(Schema.Finite),
  /** The feed-forward width is rounded up to a multiple of this; 256 by default. */
  multipleOf: Schema.optionalKey(Schema.Finite),
  /** Widens the feed-forward layer; 1 by default. */
  multiplier: Schema.optionalKey(Schema.Finite),
  /** What RMSNorm adds to the mean square; 10⁻⁵ by default. */
  epsilon: Schema.optionalKey(Schema.Finite),
  /** The base of the rotation frequencies; 10 000 by default. */
  theta: Schema.optionalKey(Schema.Finite),
  /** The longest sequence; 4 096 by default. */
  contextLength: Schema.optionalKey(Schema.Finite)
}).annotate({ identifier: "LlamaOptions" })

/** The options from which a configuration is made: those that are absent follow from the others. */
export interface Options extends Schema.Schema.Type<typeof Given> {}
/** Schema of the options, which are checked together. */
export const Options = Given.check(Schema.makeFilter((options: Options) => faults(options)))

const Resolved = Schema.Struct({
  vocabSize: Schema.Finite,
  embedSize: Schema.Finite,
  layerCount: Schema.Finite,
  headCount: Schema.Finite,
  kvHeadCount: Schema.Finite,
  headSize: Schema.Finite,
  hiddenSize: Schema.Finite,
  epsilon: Schema.Finite,
  theta: Schema.Finite,
  contextLength: Schema.Finite
})

/** A complete configuration. See {@link Options} for each of its fields. */
export interface Config extends Schema.Schema.Type<typeof Resolved> {}

/** Schema of a configuration: reads {@link Options}, checks them together and completes them. */
export const Config = Options.pipe(
  Schema.decodeTo(Resolved, SchemaTransformation.transform<Config, Options>({
    decode: (options) => complete(options),
    encode: (config) => config
  }))
)

/**
 * Completes options to a configuration. Throws a SchemaError that names every fault at once, unknown keys among them.
 */
export const make = (options: Options): Config =>
  Schema.decodeSync(Config, { errors: "all", onExcessProperty: "error" })(options)

const complete = (options: Options): Config => {
  const { embedSize, headCount, layerCount, vocabSize } = options
  return {
    vocabSize,
    embedSize,
    layerCount,
    headCount,
    kvHeadCount: options.kvHeadCount ?? headCount,
    headSize: options.headSize ?? embedSize / headCount,
    hiddenSize: options.hiddenSize ?? feedForwardSize(embedSize, options),
    epsilon: options.epsilon ?? 1e-5,
    theta: options.theta ?? 10_000,
    contextLength: options.contextLength ?? 4096
  }
}

/**
 * The width of the feed-forward layer that follows from `embedSize`: two thirds of 4 · embedSize, times `multiplier`,
 * rounded up to a multiple of `multipleOf`.
 */
export const feedForwardSize = (
  embedSize: number, rule: { readonly multipleOf?: number; readonly multiplier?: number }
): number => {
  const { multipleOf = 256, multiplier = 1 } = rule
  const width = Math.floor(multiplier * Math.floor(8 * embedSize / 3))
  return multipleOf * Math.ceil(width / multipleOf)
}

const counts = [
  "vocabSize", "embedSize", "layerCount", "headCount", "kvHeadCount", "headSize", "hiddenSize", "multipleOf",
  "contextLength"
] as const

const faults = (options: Options): ReadonlyArray<{ readonly path: ReadonlyArray<string>; readonly issue: string }> => {
  const found: Array<{ readonly path: ReadonlyArray<string>; readonly issue: string }> = []
  const fault = (key: keyof Options, issue: string): void => {
    found.push({ path: [key], issue })
  }
  for (const key of counts) {
    const value = options[key]
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1)) {
      fault(key, `${key} must be a whole number of at least 1, got ${value}`)
    }
  }
  for (const key of ["epsilon", "theta", "multiplier"] as const) {
    const value = options[key]
    if (value !== undefined && value <= 0) fault(key, `${key} must be greater than 0, got ${value}`)
  }
  if (options.hiddenSize !== undefined) {
    for (const key of ["multipleOf", "multiplier"] as const) {
      if (options[key] !== undefined) {
        fault(key, `${key} (${options[key]}) belongs to the rule that finds hiddenSize, and hiddenSize is given ` +
          `(${options.hiddenSize}): leave one of them out`)
      }
    }
  }
  if (found.length > 0) return found // the rest divides these numbers
  const { embedSize, headCount, kvHeadCount = headCount } = options
  if (headCount % kvHeadCount !== 0) {
    fault("kvHeadCount", `headCount must be a multiple of kvHeadCount: ${headCount} query heads cannot share ` +
      `${kvHeadCount} key and value heads equally`)
  }
  if (options.headSize === undefined && embedSize % headCount !== 0) {
    fault("headCount", `embedSize must be a multiple of headCount: ${embedSize} / ${headCount} is not whole; choose ` +
      "another headCount, or give headSize")
  } else {
    const headSize = options.headSize ?? embedSize / headCount
    if (headSize % 2 !== 0) {
      fault("headSize", `headSize must be even, got ${headSize}` +
        (options.headSize === undefined ? ` (embedSize ${embedSize} / headCount ${headCount})` : "") +
        ": rotary position encoding turns coordinates in pairs")
    }
  }
  return found
}

const llama2 = (options: Omit<Options, "vocabSize">): Config => make({ vocabSize: 32_000, ...options })

/**
 * Named configurations: the four of the paper, llama2.c's story models, and two small ones.
 *
 * `1M` has 1,066,112 parameters at its vocabulary of 1 024. `24M` has the shape of llama2.c's `stories15M`, whose head
 * is its embedding table: here, as in Llama 2, they are two, so that the story models have vocabSize · embedSize more
 * parameters than their names say.
 */
export const presets = {
  "1M": make({
    vocabSize: 1024, embedSize: 128, layerCount: 4, headCount: 4, multipleOf: 32, contextLength: 256
  }),
  "24M": llama2({ embedSize: 288, layerCount: 6, headCount: 6, multipleOf: 32, contextLength: 256 }),
  stories260K: make({
    vocabSize: 512, embedSize: 64, layerCount: 5, headCount: 8, kvHeadCount: 4, multipleOf: 4, contextLength: 512
  }),
  stories42M: llama2({ embedSize: 512, layerCount: 8, headCount: 8, multipleOf: 32, contextLength: 1024 }),
  stories110M: llama2({ embedSize: 768, layerCount: 12, headCount: 12, multipleOf: 32, contextLength: 1024 }),
  "7B": llama2({ embedSize: 4096, layerCount: 32, headCount: 32 }),
  "13B": llama2({ embedSize: 5120, layerCount: 40, headCount: 40 }),
  "34B": llama2({ embedSize: 8192, layerCount: 48, headCount: 64, kvHeadCount: 8 }),
  "70B": llama2({
    embedSize: 8192, layerCount: 80, headCount: 64, kvHeadCount: 8, multipleOf: 4096, multiplier: 1.3
  })
} as const

/** Parameters in contractions, which is where the time goes: all but the embedding table and the gains. */
const contractedCount = (config: Config): number => {
  const { embedSize, headCount, headSize, hiddenSize, kvHeadCount, layerCount, vocabSize } = config
  const attention = 2 * embedSize * headSize * (headCount + kvHeadCount)
  return layerCount * (attention + 3 * embedSize * hiddenSize) + embedSize * vocabSize
}

/** The number of parameters, computed from the sizes: nothing is allocated. */
export const parameterCount = (config: Config): number =>
  contractedCount(config) + config.vocabSize * config.embedSize + (2 * config.layerCount + 1) * config.embedSize

/** The bytes of the state that training with AdamW keeps. What a step computes in between comes on top. */
export const trainingBytes = (config: Config, bytesPerNumber: number): {
  readonly parameters: number
  readonly gradients: number
  readonly moments: number
} => {
  const parameters = bytesPerNumber * parameterCount(config)
  return { parameters, gradients: parameters, moments: 2 * parameters }
}

/**
 * Floating-point operations that the mathematics of one training token takes, forward and backward, in sequences of
 * `length` tokens. What a backend computes twice (activation checkpointing) does not count.
 */
export const flopsPerToken = (config: Config, length: number): number =>
  6 * contractedCount(config) + 12 * config.layerCount * config.headCount * config.headSize * length
