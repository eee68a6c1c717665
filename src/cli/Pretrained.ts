/**
 * A checkpoint that a new run begins from: its sizes as settings, its tokenizer, its parameters.
 *
 * Checked  test/cli/Pretrained.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Checkpoint from "../llama/Checkpoint.ts"
import type { Origin } from "../recipe/Pretrain.ts"
import { flagOf, type Settings } from "./Settings.ts"

/** A checkpoint that a run cannot begin from. */
export class PretrainedError extends Schema.TaggedError<PretrainedError>()("PretrainedError", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `${this.path}: a run cannot begin from it: ${this.problem}`
  }
}

/** Sizes that are asked of a run which has those of a checkpoint. */
export class SizesConflictError extends Schema.TaggedError<SizesConflictError>()("SizesConflictError", {
  path: Schema.String,
  flags: Schema.Array(Schema.String)
}) {
  override get message() {
    return `--from ${this.path} decides the sizes of the model, and ${this.flags.join(", ")} cannot change them\n` +
      "  Leave --from out for a model of other sizes, or the sizes for this one."
  }
}

const sizes = [
  "vocabSize", "embedSize", "layerCount", "headCount", "kvHeadCount", "headSize", "hiddenSize", "contextLength"
] as const

/**
 * Settings with the sizes of the checkpoint that they name, if they name one. Its own sizes may be given too, as the
 * configuration of a run that began from it gives them.
 */
export const withSizes = Effect.fnUntraced(function*(settings: Settings) {
  const { from } = settings
  if (from === undefined) return settings
  const { config } = yield* Effect.scoped(Checkpoint.open(from))
  const isSized = sizes.every((key) => settings[key] !== undefined) // then a preset decides nothing
  const given = [
    ...settings.preset === undefined || isSized ? [] : ["preset"],
    ...sizes.filter((key) => settings[key] !== undefined && settings[key] !== config[key])
  ]
  if (given.length > 0) return yield* new SizesConflictError({ path: from, flags: given.map(flagOf) })
  if (config.epsilon !== 1e-5 || config.theta !== 10_000) return yield* new PretrainedError({
    path: from, problem: `its epsilon is ${config.epsilon} and its theta ${config.theta}; runs have 0.00001 and 10000`
  })
  yield* Effect.scoped(tokenizerOf(from)) // what it cannot give is told before any text is read
  return { ...settings, ...Object.fromEntries(sizes.map((key) => [key, config[key]])) }
})

/** The tokenizer of the checkpoint. */
export const tokenizerOf = Effect.fnUntraced(function*(path: string) {
  const { config: { vocabSize }, format, tokenizer } = yield* Checkpoint.open(path)
  const found = Option.getOrUndefined(yield* tokenizer)
  const count = found?.model.pieces.length
  const problem = found === undefined ? "it has no tokenizer"
    : !found.isLegacy ? "its tokenizer.json was saved with legacy = false, which a run cannot keep"
      : count !== vocabSize ? `the model knows ${vocabSize} tokens, and its tokenizer in ${found.path} ${count}`
        : undefined
  if (found !== undefined && problem === undefined) return found.model
  if (format === "cria" && found === undefined) return yield* new PretrainedError({
    path, problem: `${problem}\n  Put the tokenizer.model that it learned with into it.`
  })
  return yield* new PretrainedError({
    path, problem: `${problem}\n  Make it a folder of Cria's own first: cria import ${path} --out runs/NAME` + (
      count !== undefined && count < vocabSize && found?.isLegacy === true
        ? ", which leaves out the tokens that the tokenizer does not have" : " --tokenizer PATH, with the one it " +
          "learned with") + ". Then give that with --from."
  })
})

/** What fills the parameters of a run that begins, or is replayed, from the checkpoint that its settings name. */
export const initialOf = ({ from }: Pick<Settings, "from">) =>
  Effect.map(Effect.context<FileSystem.FileSystem | Path.Path>(), (context): Pick<Origin, "initial"> =>
    from === undefined ? {} : {
      initial: (cells) => Checkpoint.open(from).pipe(
        Effect.flatMap((checkpoint) => Checkpoint.load(checkpoint, cells)), Effect.scoped, Effect.provide(context)
      )
    })
