/**
 * The decoder: continues prompts token by token, several at once, as a stream of tokens with their text.
 *
 * A token is drawn with a key of its item, candidate and place in its sequence: which sequences run beside it, in which
 * slot, and when it began change no draw. Computed text is certain: characters of several bytes and possible stop texts
 * are held back.
 *
 * From     Llama 2 (Meta's generation code decodes batches of prompts with a cache); the stream is Cria's own.
 * Checked  test/generate/Decoder.test.ts (cache = whole sequence, batch = each alone, ends, messages);
 *          test/backend/onnx/Decoder.test.ts (the same on ONNX Runtime).
 * Departs  prompts of a batch are not forced token by token: each has been computed whole before any token is drawn.
 *          A sequence that reaches the end of its context is a typed error unless asked for.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Backend, BackendError } from "../backend/Backend.ts"
import * as Quantization from "../llama/Quantization.ts"
import type { WeightError } from "../tensor/BlockCodes.ts"
import { attempt, type ShapeError } from "../tensor/ShapeError.ts"
import { Tokenizer } from "../token/Tokenizer.ts"
import type { Event } from "./Answer.ts"
import type { Draft } from "./Drafting.ts"
import { fill, type FillingError } from "./Filling.ts"
import { check, type Prompt, type Request, type Settings } from "./Request.ts"
import * as Slots from "./Slots.ts"

/** What a decoder is made of. */
export interface Options<P> extends Omit<Slots.Options<P>, "draft"> {
  /**
   * Keeps linear weights in 8 or 4 bits, coded from what the cells hold now: less to read for each token. Whoever has
   * coded them already, or loads them so, gives the coded model and its cells instead (see `llama/Quantization`).
   */
  readonly weights?: Quantization.Width
  /**
   * Has the same weights in 8 or 4 bits guess tokens ahead, coded from what the cells hold now or given in codes: the
   * same answers sooner, where there is one slot and reading the weights is what takes the time (see
   * `generate/Drafting`).
   */
  readonly draft?: Quantization.Width | Draft
}

/** Fails when the model and the tokenizer have different numbers of tokens. */
export class VocabularyError extends Schema.TaggedError<VocabularyError>()("VocabularyError", {
  model: Schema.Int,
  tokenizer: Schema.Int
}) {
  override get message() {
    return `decoder: the model has ${this.model} tokens, the tokenizer ${this.tokenizer}
  They must be equal, or ids would be read as other text than they were trained on. Does it belong to another model?
  Where the model's vocabulary was filled up beyond its tokenizer, Checkpoint.withVocabulary leaves the rest out.`
  }
}

/** A decoder. Streams have caches of their own: they may run at once, and then take turns. */
export interface Decoder {
  readonly contextLength: number
  /** How many sequences decode together. */
  readonly slots: number
  /** Answers to some prompts, whose items are their indices. Everything is checked before anything is computed. */
  readonly generate: (request: Request) => Stream.Stream<Event, FillingError>
  /**
   * Answers to prompts as they come, however many: each is pulled when there is a slot for it, and no more is held than
   * runs. Fails with the first prompt that cannot be answered, once those before it are.
   */
  readonly generateFrom: <E, R>(
    prompts: Stream.Stream<Prompt, E, R>, settings: Settings
  ) => Stream.Stream<Event, Pull.ExcludeDone<E> | FillingError, R>
}

/** Why a decoder cannot be made. */
export type MakeError = BackendError | ShapeError | VocabularyError | WeightError

/** Makes a decoder: compiles the programs for the blocks of a prompt and the one for a step. */
export const make = Effect.fnUntraced(function*<P>(
  { draft, weights, ...options }: Options<P>
): Effect.fn.Return<Decoder, MakeError, Backend | Tokenizer | Scope.Scope> {
  const codec = yield* Tokenizer
  const { vocabSize } = options.model.config
  if (codec.vocabSize !== vocabSize) return yield* new VocabularyError({ model: vocabSize, tokenizer: codec.vocabSize })
  const guessing = typeof draft === "string" ? yield* coded(options, draft) : draft
  const given = { ...options, ...guessing === undefined ? {} : { draft: guessing } }
  const { allocate, contextLength, slots } = yield* weights === undefined ? Slots.make(given)
    : Slots.make({ ...given, ...yield* coded(options, weights) })
  const generateFrom: Decoder["generateFrom"] = (prompts, settings) => {
    const bounds = { codec, contextLength, settings }
    return Stream.unwrap(Effect.andThen(
      check([], bounds), Effect.map(allocate(settings.rule), (own) => fill(prompts, own, bounds))))
  }
  const generate: Decoder["generate"] = ({ prompts, ...settings }) => {
    const all = prompts.map((ids, item): Prompt => ({ item, ids }))
    return Stream.unwrap(Effect.map(check(all, { codec, contextLength, settings }), () =>
      generateFrom(Stream.fromIterable(all), settings)))
  }
  return { contextLength, slots, generate, generateFrom }
})

/** The same weights in codes. */
const coded = Effect.fnUntraced(function*<P>({ model, parameters }: Slots.Options<P>, width: Quantization.Width) {
  const scheme = yield* attempt(() => Quantization.schemeOf(width, model.config))
  const narrow = yield* Quantization.quantized(model, scheme)
  return { model: narrow, parameters: yield* Quantization.fromCells(narrow, parameters) }
})
