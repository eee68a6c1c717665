/**
 * Answers: what happens while they are generated, token by token, and whole ones.
 *
 * From     Cria's own.
 * Checked  test/generate/Answer.test.ts, test/generate/Decoder.test.ts.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Place } from "./Request.ts"

/** A token was drawn. */
export interface Token extends Place {
  readonly _tag: "Token"
  readonly id: number
  /** The text that is certain with it; "" while more is needed to know. */
  readonly text: string
  /** The log-probability of the token in exactly the distribution that it was drawn from. */
  readonly logProb: number
}

/** Why an answer ended: a stop id, a stop text, `maximumTokens`, or the end of the context. */
export type Reason = "id" | "text" | "maximum" | "context"

/** An answer ended. */
export interface End extends Place {
  readonly _tag: "End"
  readonly reason: Reason
  /** Text that was held back and belongs to the answer after all. */
  readonly text: string
  /**
   * How often the model was computed for the answer, behind the prompt, which gave its first token: once for each
   * other, and less often where a draft guesses (see `generate/Drafting`).
   */
  readonly passes: number
}

/** What happens while answers are generated. */
export type Event = Token | End

/** A whole answer. */
export interface Answer extends Place {
  /**
   * All tokens that were drawn: the id that ended it too, and those of the stop text. Of an answer that ended with
   * `maximum` or `context` they are those of its text, of `id` too: a control token that ended it has none. A stop text
   * may begin within a token, so that no number of them is exactly the text: whoever needs ids of that encodes it with
   * its prompt.
   */
  readonly ids: ReadonlyArray<number>
  /** The log-probability of each token in exactly the distribution that it was drawn from. */
  readonly logProbs: ReadonlyArray<number>
  /** What was written, without the stop text: the texts of its events joined. */
  readonly text: string
  readonly reason: Reason
  /** How often the model was computed for it, behind the prompt, which gave its first token. */
  readonly passes: number
}

interface Begun {
  readonly ids: Array<number>
  readonly logProbs: Array<number>
  text: string
}

/** Whole answers, each as it ends. Only those that have not ended are held. */
export const answers = <E, R>(events: Stream.Stream<Event, E, R>): Stream.Stream<Answer, E, R> =>
  Stream.suspend(() => {
    const begun = new Map<string, Begun>()
    return Stream.flattenIterable(Stream.map(events, (event) => gathered(begun, event)))
  })

/** All answers, in the order in which they end. */
export const collect = <E, R>(events: Stream.Stream<Event, E, R>): Effect.Effect<ReadonlyArray<Answer>, E, R> =>
  Stream.runCollect(answers(events))

const gathered = (begun: Map<string, Begun>, event: Event): ReadonlyArray<Answer> => {
  const { candidate, item } = event
  const name = `${item} ${candidate}`
  const answer = begun.get(name) ?? { ids: [], logProbs: [], text: "" }
  begun.set(name, answer)
  answer.text += event.text
  if (event._tag === "Token") {
    answer.ids.push(event.id)
    answer.logProbs.push(event.logProb)
    return []
  }
  begun.delete(name)
  return [{ item, candidate, ...answer, reason: event.reason, passes: event.passes }]
}
