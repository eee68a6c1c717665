/**
 * The error of a law that does not hold.
 *
 * From     Cria's own.
 * Checked  test/law/*.test.ts.
 *
 * @module
 */
import * as Schema from "effect/Schema"

/** A law was tried and does not hold; thrown by pure laws, so that any property-based test library sees it. */
export class LawError extends Schema.TaggedError<LawError>()("LawError", {
  /** The law, as a sentence about what it was tried on. */
  law: Schema.String,
  /** What was expected and what was found. */
  detail: Schema.String
}) {
  override get message() {
    return `${this.law}: ${this.detail}`
  }
}
