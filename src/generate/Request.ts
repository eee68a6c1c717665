/**
 * Requests to a decoder: which prompts to continue, how, how far; and why that cannot be.
 *
 * From     Cria's own.
 * Checked  test/generate/Decoder.test.ts (ends, messages).
 * Departs  where prompt and answer may not fit into the context the request is refused before anything is computed;
 *          Meta's code cuts the answer short.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Key from "../random/Key.ts"
import { ShapeError } from "../tensor/ShapeError.ts"
import { foreignAt } from "../token/Detokenizer.ts"
import type { Codec } from "../token/Tokenizer.ts"
import type { Rule } from "./Sampling.ts"

/** How answers are generated. */
export interface Settings {
  /** How many answers each prompt gets; 1 by default. */
  readonly candidates?: number
  /** How many tokens an answer has at most. */
  readonly maximumTokens: number
  /** How a token is chosen. */
  readonly rule: Rule
  /** From it the key of every draw is derived, by item, candidate and place. */
  readonly key: Key.Key
  /** Ids that end an answer; the end of sequence by default. */
  readonly stopIds?: ReadonlyArray<number>
  /** Texts that end an answer, and do not belong to it; none by default. */
  readonly stopTexts?: ReadonlyArray<string>
  /** Where an answer may not fit into the context: refuse the prompt (the default), or end the answer there. */
  readonly atContextEnd?: "refuse" | "end"
}

/** What is to be generated. */
export interface Request extends Settings {
  /** Ids of each prompt, beginning of sequence included: see `Codec.encodeSegments`. */
  readonly prompts: ReadonlyArray<ArrayLike<number>>
}

/** One prompt of many. */
export interface Prompt {
  /** Its number: its answers are told by it, and their draws derived from it. Two that run together cannot share it. */
  readonly item: number
  /** Its ids, beginning of sequence included. */
  readonly ids: ArrayLike<number>
}

/** Which answer to which prompt. */
export interface Place {
  /** The index of its prompt. */
  readonly item: number
  /** Which answer to it. */
  readonly candidate: number
}

/** Fails when a request cannot be fulfilled; names all its faults. */
export class RequestError extends Schema.TaggedError<RequestError>()("RequestError", {
  faults: Schema.Array(Schema.String)
}) {
  override get message() {
    return `generate: the request cannot be fulfilled\n  ${this.faults.join("\n  ")}`
  }
}

/** Fails when the answers to some prompts may not fit into the context; names all those prompts. */
export class ContextFullError extends Schema.TaggedError<ContextFullError>()("ContextFullError", {
  contextLength: Schema.Int,
  maximumTokens: Schema.Int,
  prompts: Schema.Array(Schema.Struct({ item: Schema.Int, length: Schema.Int }))
}) {
  override get message() {
    const room = this.contextLength - Math.max(...this.prompts.map(({ length }) => length))
    return [
      `generate: prompt and answer must fit into a context of ${this.contextLength} tokens`,
      ...this.prompts.map(({ item, length }) =>
        `prompt ${item} has ${length} tokens, and its answer may have ${this.maximumTokens}`),
      room > 0
        ? `Ask for at most ${room} tokens, or let answers end with the context (atContextEnd: "end").`
        : "Cut the prompt: an answer needs room for one token at least."
    ].join("\n  ")
  }
}

/** What a request is checked against. */
export interface Bounds {
  readonly codec: Codec
  readonly contextLength: number
  readonly settings: Settings
}

/** Fails with every fault of the settings and the prompts, or with all prompts that leave too little room. */
export const check = (
  prompts: ReadonlyArray<Prompt>, bounds: Bounds
): Effect.Effect<void, RequestError | ContextFullError> => {
  const { codec, contextLength, settings } = bounds
  const { atContextEnd = "refuse", maximumTokens } = settings
  const faults = [...settingFaults(settings, codec), ...prompts.flatMap((prompt) => promptFaults(prompt, codec))]
  if (faults.length > 0) return Effect.fail(new RequestError({ faults }))
  const room = atContextEnd === "end" ? 1 : maximumTokens
  const long = prompts.flatMap(({ ids, item }) =>
    ids.length + room > contextLength ? [{ item, length: ids.length }] : [])
  return long.length > 0
    ? Effect.fail(new ContextFullError({ contextLength, maximumTokens, prompts: long }))
    : Effect.void
}

const settingFaults = (
  { candidates = 1, maximumTokens, stopIds = [], stopTexts = [] }: Settings, { vocabSize }: Codec
) => [
  ...isCount(maximumTokens) ? [] : [`maximumTokens must be a whole number of at least 1, got ${maximumTokens}`],
  ...isCount(candidates) ? [] : [`candidates must be a whole number of at least 1, got ${candidates}`],
  ...stopIds.flatMap((id, i) =>
    foreignAt([id], vocabSize) < 0 ? [] : [`stopIds has ${id} at ${i}; ids are 0 to ${vocabSize - 1}`]),
  ...stopTexts.includes("") ? [`an empty stop text would end every answer before it began`] : []
]

const promptFaults = ({ ids, item }: Prompt, { bosId, vocabSize }: Codec) => {
  const place = Number.isSafeInteger(item) ? [] : [`the number of a prompt must be a whole number, got ${item}`]
  if (ids.length === 0) {
    return [...place, `prompt ${item} is empty; begin it with the beginning of sequence, id ${bosId}`]
  }
  return [...place, ...idFaults(`prompt ${item}`, ids, vocabSize)]
}

/** What is wrong with some ids for a model of so many tokens: the first that it does not have. */
export const idFaults = (name: string, ids: ArrayLike<number>, vocabSize: number): ReadonlyArray<string> => {
  const at = foreignAt(ids, vocabSize)
  return at < 0 ? []
    : [`${name} has the id ${ids[at]} at ${at}; ids are 0 to ${vocabSize - 1}: is it of another tokenizer?`]
}

/** Is this a whole number of at least 1? */
const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 1

/** Fails where a context is longer than that of the model. */
export const requireContext = (
  operation: string, contextLength: number, model: number
): Effect.Effect<void, ShapeError> => contextLength <= model ? Effect.void : Effect.fail(new ShapeError({
  operation, place: "", invariant: "contextLength must be at most that of the model",
  values: [[operation, String(contextLength)], ["model", String(model)]],
  remedy: "Positions that were never trained give nonsense: ask for fewer, or leave contextLength out."
}))

/** Fails where one of the sizes is no whole number of at least 1. */
export const requireCounts = (
  operation: string, sizes: Readonly<Record<string, number | ReadonlyArray<number>>>
): Effect.Effect<void, ShapeError> => {
  const names = Object.keys(sizes)
  const isRight = Object.values(sizes).map((size) => [size].flat()).every((all) => all.length > 0 && all.every(isCount))
  return isRight ? Effect.void : Effect.fail(new ShapeError({
    operation, place: "",
    invariant: `${names.slice(0, -1).join(", ")} and ${names.at(-1)} must be whole numbers of at least 1`,
    values: Object.entries(sizes).map(([name, size]) => [name, JSON.stringify(size)] as const)
  }))
}
