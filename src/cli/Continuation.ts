/**
 * Continuing prompts with the model of a checkpoint: its weights loaded as wide as is wanted, and a decoder over them.
 *
 * Checked  test/cli/Continuation.test.ts (ids of prompts, against the library tokenizers),
 *          test/cli/GenerateCommand.test.ts.
 *
 * @module
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { Backend } from "../backend/Backend.ts"
import * as Decoder from "../generate/Decoder.ts"
import type { Rule } from "../generate/Sampling.ts"
import * as Slots from "../generate/Slots.ts"
import * as Checkpoint from "../llama/Checkpoint.ts"
import type { Config } from "../llama/Config.ts"
import * as KeyValueCache from "../llama/KeyValueCache.ts"
import * as Key from "../random/Key.ts"
import { count as countOf } from "../tensor/Node.ts"
import { leaves } from "../tensor/Specification.ts"
import * as Tokenizer from "../token/Tokenizer.ts"
import * as Weights from "./Weights.ts"

/** How tokens are drawn where neither a flag nor the model's folder says. */
export const drawing = { temperature: 0.8, topP: 0.95 } as const

/** How a checkpoint is loaded. */
export interface Loading {
  readonly weights: Weights.Width
  readonly slots: number
  /** How wide the weights are that guess tokens ahead; none do where it is absent. */
  readonly draft?: Weights.Coded
  /** The longest sequence; the model's own where it is absent. */
  readonly contextLength?: number
  /** The tokens of every prompt, where that is known: no program is compiled for prompts of other lengths. */
  readonly promptLength?: number
}

/** What a decoder holds beside the weights: a cache and the scores of a token for each slot, and its draft. */
export const cachesOf = (
  config: Config, { contextLength = config.contextLength, draft, slots }: Omit<Loading, "weights">
): Weights.Beside => {
  const cache = leaves(KeyValueCache.specification(config, { batch: 1, source: contextLength }))
    .reduce((sum, [, { sizes }]) => sum + countOf(sizes), 0)
  const [each, fewer] = slots === 1 ? ["a cache", ""] : [`${slots} caches (--slots)`, "fewer --slots, "]
  const guessing = draft === undefined ? 0 : Weights.frozenBytes(config, draft) / 4
  return {
    what: `${each} for ${contextLength} tokens${draft === undefined ? "" : ` and a draft in ${draft} (--draft)`}`,
    count: slots * (cache + config.vocabSize) + guessing,
    remedy: `${fewer}${draft === undefined ? "" : "no --draft, "}a shorter --context-length`,
    ...draft === undefined ? {} : { without: "--draft" }
  }
}

/** A decoder over the weights of a checkpoint. */
export const decoderOf = Effect.fnUntraced(function*(checkpoint: Weights.Source, loading: Loading) {
  const { draft, promptLength, weights, ...options } = loading
  const { capabilities, name } = yield* Backend
  const warning = draft === undefined ? undefined : Weights.draftWarning(draft, name, capabilities)
  if (warning !== undefined) yield* Console.error(warning)
  return yield* Weights.load(checkpoint, weights, cachesOf(checkpoint.config, loading), (loaded) =>
    Effect.gen(function*() {
      const guessing = draft === undefined ? undefined : yield* Weights.draftOf(checkpoint, loaded, draft)
      const { contextLength = checkpoint.config.contextLength } = options
      return yield* Decoder.make({
        ...loaded, ...options, ...guessing === undefined ? {} : { draft: guessing },
        ...promptLength === undefined ? {} : { blockLengths: Slots.lengthsFor(promptLength, contextLength) }
      })
    }))
})

/** The ids of a prompt: the beginning of a document, and the prompt as its first text. */
export const idsOf = ({ bosId, encode }: Tokenizer.Codec, prompt: string): Int32Array =>
  Int32Array.from([bosId, ...encode(prompt)])

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
    const ids = idsOf(tokenizer, prompt)
    const checkpoint = yield* Checkpoint.open(path)
    const decoder = yield* decoderOf(checkpoint, { weights: "f32", slots: 1, promptLength: ids.length })
    return decoder.generate({ ...settingsOf(tokenizer, options), prompts: [ids] })
  }))
