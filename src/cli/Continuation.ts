/**
 * Continuing a prompt with the model of a snapshot: snapshot, tokenizer, decoder, stream of text.
 *
 * Checked  test/cli/GenerateCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Backend } from "../backend/Backend.ts"
import * as Decoder from "../generate/Decoder.ts"
import type { Rule } from "../generate/Sampling.ts"
import * as Transformer from "../llama/Transformer.ts"
import * as Key from "../random/Key.ts"
import { fromTensors } from "../recipe/CellSnapshot.ts"
import * as Pretrain from "../recipe/Pretrain.ts"
import * as Snapshot from "../store/Snapshot.ts"
import * as Specification from "../tensor/Specification.ts"
import * as Tokenizer from "../token/Tokenizer.ts"

/** How to go on. */
export interface Options {
  readonly prompt: string
  readonly maximumTokens: number
  readonly rule: Rule
  readonly seed: number
}

/** A snapshot whose configuration is none that this version knows. */
export class ConfigurationError extends Schema.TaggedError<ConfigurationError>()("ConfigurationError", {
  snapshot: Schema.String,
  issue: Schema.String
}) {
  override get message() {
    return `${this.snapshot}: its manifest holds no configuration of a pretraining run: ${this.issue}\n` +
      "  It was saved by another recipe or another version of cria: use the one that saved it."
  }
}

const decodeConfig = Schema.decodeUnknownEffect(Pretrain.Config, { errors: "all" })

/** What the model of a snapshot writes after a prompt. A document ends where the next would begin. */
export const continuation = (snapshot: string, { maximumTokens, prompt, rule, seed }: Options) =>
  Stream.unwrap(Effect.gen(function*() {
    const { manifest, tensors } = yield* Snapshot.load(snapshot, ["model"])
    const { model: sizes } = yield* Effect.mapError(
      decodeConfig(manifest.configuration),
      ({ message }) => new ConfigurationError({ snapshot, issue: message })
    )
    const backend = yield* Backend
    const tokenizer = yield* Tokenizer.Tokenizer
    const model = yield* Transformer.make(sizes)
    const parameters = yield* backend.allocate(Specification.zeros(model.specification))
    yield* fromTensors(snapshot, tensors["model"] ?? [], parameters)
    const decoder = yield* Decoder.make({ model, parameters })
    return decoder.generate({
      prompts: [tokenizer.encodeSegments(prompt === "" ? [Tokenizer.bos] : [Tokenizer.bos, prompt])],
      maximumTokens, rule, key: Key.derive(Key.make(seed), "generate"),
      stopIds: [tokenizer.eosId, tokenizer.bosId], atContextEnd: "end"
    })
  }))
