/**
 * `cria pretrain --verify-resume`: replays a run between its last two snapshots and says whether every bit is the same.
 *
 * Checked  test/cli/PretrainCommand.test.ts, test/cli/Pretrained.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Transformer from "../llama/Transformer.ts"
import * as ResumeVerification from "../recipe/ResumeVerification.ts"
import * as Host from "./Host.ts"
import * as Pretrained from "./Pretrained.ts"
import type * as Screen from "./Screen.ts"
import * as Training from "./Training.ts"

/** A replay that is not the run. */
export class ReplayDiffersError extends Schema.TaggedError<ReplayDiffersError>()("ReplayDiffersError", {
  folder: Schema.String,
  from: Schema.Int,
  to: Schema.Int,
  place: Schema.String,
  saved: Schema.String,
  replayed: Schema.String
}) {
  override get message() {
    return `${this.folder}: replayed from step ${this.from} to ${this.to}, and the first difference is at ` +
      `${this.place}\n  saved ${this.saved}, replayed ${this.replayed}\n` +
      "  The same bits need the same engine, processor and number of threads as the run had; if those are the same, " +
      "a file of the run was changed."
  }
}

/** Replays and reports; fails if anything differs. */
export const show = Effect.fnUntraced(function*(screen: Screen.Screen, options: Training.Options) {
  const { config, folder } = options
  const { codec, model } = yield* Training.tokenizerOf(screen, { ...options, resume: "latest" })
  const data = yield* Training.tokensOf(screen, { codec, model }, options.settings.validationShare)
  const environment = yield* Host.environment
  yield* screen.status("replaying …")
  const { divergence, from, lineCount, tensorCount, to } = yield* ResumeVerification.verify(folder, config, {
    data, environment, tokenizerHash: Training.hashOf(model), ...yield* Pretrained.initialOf(options.settings)
  })
  if (Option.isSome(divergence)) return yield* new ReplayDiffersError({ folder, from, to, ...divergence.value })
  yield* screen.print(
    `equal      steps ${from} to ${to}: ${tensorCount} tensors and ${lineCount} journal lines, bit for bit`
  )
}, Effect.provide(Transformer.layer))
