/**
 * Continuing prompts with the model of a checkpoint: its weights loaded as wide as is wanted, and a decoder over them.
 *
 * Checked  test/cli/GenerateCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { Backend } from "../backend/Backend.ts"
import * as Decoder from "../generate/Decoder.ts"
import type { Rule } from "../generate/Sampling.ts"
import * as Checkpoint from "../llama/Checkpoint.ts"
import { parameterCount } from "../llama/Config.ts"
import * as Quantization from "../llama/Quantization.ts"
import * as Transformer from "../llama/Transformer.ts"
import * as Key from "../random/Key.ts"
import * as Specification from "../tensor/Specification.ts"
import * as Tokenizer from "../token/Tokenizer.ts"
import * as Host from "./Host.ts"

/** How wide weights are kept. */
export const widths = ["f32", "8-bit", "4-bit"] as const

/** How a checkpoint is loaded. */
export interface Loading {
  readonly weights: typeof widths[number]
  readonly slots: number
  /** The longest sequence; the model's own where it is absent. */
  readonly contextLength?: number
}

/** Bytes for each weight: codes of 32 weights share a scale. */
const bytesOf = (weights: Loading["weights"], precisions: ReadonlyArray<string>): number =>
  weights === "8-bit" ? 9 / 8 : weights === "4-bit" ? 5 / 8 : precisions.includes("f32") ? 4 : 8

/** Programs hold copies of parameters of at most so many bytes: quicker, where it costs little. */
const frozenBytes = 2 ** 28

/** A decoder over the weights of a checkpoint. Refused where they would not fit into memory, before any is read. */
export const decoderOf = Effect.fnUntraced(function*(
  checkpoint: Checkpoint.Checkpoint, { weights, ...options }: Loading
) {
  const backend = yield* Backend
  const bytes = bytesOf(weights, backend.capabilities.precisions)
  yield* Checkpoint.requireMemory(checkpoint, bytes, Host.memory())
  const model = yield* Transformer.make(checkpoint.config)
  if (weights === "f32") {
    const parameters = yield* backend.allocate(Specification.zeros(model.specification))
    yield* Checkpoint.load(checkpoint, parameters)
    const frozen = parameterCount(checkpoint.config) * bytes <= frozenBytes
    return yield* Decoder.make({ model, parameters, frozen, ...options })
  }
  const coded = yield* Quantization.quantized(model, Quantization.schemes[weights])
  const parameters = yield* Quantization.load(coded, checkpoint.read)
  return yield* Decoder.make({ model: coded, parameters, ...options })
})

/** The ids of a prompt: the beginning of a document, and its text. */
export const idsOf = (tokenizer: Tokenizer.Codec, prompt: string): Int32Array =>
  tokenizer.encodeSegments(prompt === "" ? [Tokenizer.bos] : [Tokenizer.bos, prompt])

/** How an answer is drawn. */
export interface Options {
  readonly maximumTokens: number
  readonly rule: Rule
  readonly seed: number
}

/** How answers are drawn and end. A document ends where the next would begin, and at the end of the context. */
export const settingsOf = (tokenizer: Tokenizer.Codec, { maximumTokens, rule, seed }: Options) => ({
  maximumTokens, rule, key: Key.derive(Key.make(seed), "generate"),
  stopIds: [tokenizer.eosId, tokenizer.bosId], atContextEnd: "end" as const
})

/** What the model of a snapshot writes after a prompt. */
export const continuation = (path: string, { prompt, ...options }: Options & { readonly prompt: string }) =>
  Stream.unwrap(Effect.gen(function*() {
    const tokenizer = yield* Tokenizer.Tokenizer
    const decoder = yield* decoderOf(yield* Checkpoint.open(path), { weights: "f32", slots: 1 })
    return decoder.generate({ ...settingsOf(tokenizer, options), prompts: [idsOf(tokenizer, prompt)] })
  }))
