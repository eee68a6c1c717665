/**
 * The error of a computation that cannot be written down: sizes that do not agree, an axis that is missing or there
 * twice.
 *
 * Thrown while a tensor expression is built (the place is the line at fault), and turned into a typed failure where a
 * program is closed. The message names the operation and its place, the invariant, every value, and what to do.
 *
 * From     Cria's own; the message recipe follows docs/guide/reading-errors.md.
 * Checked  test/message/ShapeError.test.ts.
 *
 * @module
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"

/** What a `ShapeError` says; every field is a part of its message. */
export interface Report {
  /** The operation, e.g. `contract`. */
  readonly operation: string
  /** Where it was built, e.g. `block.3.attention`; empty outside every `within`. */
  readonly place: string
  /** What must hold, e.g. `axis "embed" must agree`. */
  readonly invariant: string
  /** All values involved, each with a label. */
  readonly values: ReadonlyArray<readonly [label: string, value: string]>
  /** The likely cause and what to do about it. */
  readonly remedy?: string
}

/**
 * Thrown when sizes or axes do not fit while a tensor expression is built. A defect of the program, not of its data; as
 * an Effect it can also be yielded.
 */
export class ShapeError extends Data.TaggedError("ShapeError")<Report> {
  override get message() {
    return render(this)
  }
}

/**
 * Runs `build`. A `ShapeError` that it throws becomes the failure of the Effect; whatever else it throws is a defect.
 */
export const attempt = <A>(build: () => A): Effect.Effect<A, ShapeError> =>
  Effect.suspend(() => {
    try { // the edge where a defect of building becomes a failure
      return Effect.succeed(build())
    } catch (error) {
      return error instanceof ShapeError ? Effect.fail(error) : Effect.die(error)
    }
  })

const render = ({ invariant, operation, place, remedy, values }: Report): string => {
  const width = Math.max(0, ...values.map(([label]) => label.length))
  const lines = values.map(([label, value]) => `  ${label.padEnd(width)}  ${value}`)
  const head = `${operation}${place === "" ? "" : `, in ${place}`}: ${invariant}`
  return [head, ...lines, ...(remedy === undefined ? [] : [`  ${remedy}`])].join("\n")
}
