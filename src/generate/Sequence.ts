/**
 * A sequence while it is generated: draws its next token, and says what became certain and whether it ended.
 *
 * From     Cria's own.
 * Checked  test/generate/Decoder.test.ts (ends, text, messages).
 *
 * @module
 */
import * as Schema from "effect/Schema"
import * as Key from "../random/Key.ts"
import type { StreamDecoder } from "../token/Detokenizer.ts"
import type { Event, Reason, Token } from "./Answer.ts"
import type { Bounds, Place, Prompt } from "./Request.ts"
import { attempt, DistributionError, drawFrom, isRuleError, LogitsError, type Scores } from "./Sampling.ts"
import { pass } from "./StopText.ts"

/** Fails when a token cannot be drawn: of which answer, and at which place. */
export class DrawError extends Schema.TaggedError<DrawError>()("DrawError", {
  item: Schema.Int,
  candidate: Schema.Int,
  position: Schema.Int,
  reason: Schema.Union([LogitsError, DistributionError])
}) {
  override get message() {
    return `generate: item ${this.item}, candidate ${this.candidate}, token ${this.position} of its sequence
  ${this.reason.message}`
  }
}

/** A sequence while it is generated. Its fields change from step to step; it never leaves its stream. */
export interface Sequence extends Place {
  readonly promptLength: number
  /** How many tokens it has, prompt included. */
  length: number
  /** The token that was drawn last; −1 before any was. */
  lastId: number
  /** How often the model was computed for it since its prompt was. */
  passes: number
  isOver: boolean
  /** Turns ids into text; it has read the prompt, so that the answer goes on where that ends. */
  readonly text: StreamDecoder
  /** Text that is held back, for it may begin a stop text. */
  held: string
}

/** A sequence that consists of its prompt, before anything is drawn. */
export const begin = ({ ids, item }: Prompt, candidate: number, { codec }: Bounds): Sequence => {
  const text = codec.streamDecoder()
  // so that the answer keeps its first space, and ends a character that the prompt began
  for (let i = 0; i < ids.length; i++) text.push(ids[i]!)
  const { length } = ids
  return { item, candidate, promptLength: length, length, lastId: -1, passes: 0, isOver: false, text, held: "" }
}

/** How many tokens a sequence may still have. */
export const remaining = ({ length, promptLength }: Sequence, { settings: { maximumTokens } }: Bounds): number =>
  maximumTokens - (length - promptLength)

/**
 * The token that a draft's scores give at `ahead` tokens behind the next, drawn as the sequence will draw; 0 where
 * nothing can be drawn from them: it is a guess.
 */
export const foresee = (
  { candidate, item, length }: Sequence, ahead: number, scores: Scores, { settings: { key, rule } }: Bounds
): number => {
  const drawn = attempt(() => drawFrom(rule, scores, Key.derive(key, item, candidate, length + ahead)))
  return isRuleError(drawn) ? 0 : drawn.id
}

/** Draws the next token of a sequence from its scores, and tells what that makes certain. */
export const advance = (
  sequence: Sequence, scores: Scores, { codec, contextLength, settings }: Bounds
): ReadonlyArray<Event> | DrawError => {
  const { candidate, item, passes } = sequence
  const { key, maximumTokens, rule, stopIds = [codec.eosId], stopTexts = [] } = settings
  const drawn = attempt(() => drawFrom(rule, scores, Key.derive(key, item, candidate, sequence.length)))
  if (isRuleError(drawn)) {
    return new DrawError({ item, candidate, position: sequence.length, reason: drawn })
  }
  const { id, logProb } = drawn
  sequence.lastId = id
  sequence.length++
  const certain = pass(stopTexts, sequence.held, sequence.text.push(id))
  sequence.held = certain.held
  const token: Token = { _tag: "Token", item, candidate, id, text: certain.text, logProb }
  const reason: Reason | undefined = stopIds.includes(id) ? "id" : certain.stop !== undefined ? "text"
    : sequence.length - sequence.promptLength >= maximumTokens ? "maximum"
      : sequence.length >= contextLength ? "context" : undefined
  if (reason === undefined) return [token]
  sequence.isOver = true
  if (certain.stop !== undefined) return [token, { _tag: "End", item, candidate, reason, text: "", passes }]
  const rest = pass(stopTexts, certain.held, sequence.text.end())
  const text = rest.stop === undefined ? rest.text + rest.held : rest.text
  return [token, { _tag: "End", item, candidate, reason, text, passes }]
}
