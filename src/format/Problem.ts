/**
 * What is wrong with a file, told in the same way whatever its format: where, what was expected and what was found
 * there, the likely cause, and what to do.
 *
 *     title / kind: tensor, byte: expected …; found … / Likely cause, and what to do: / kind: advice
 *
 * From     Cria's own.
 * Checked  test/format/Safetensors.test.ts; test/format/TensorFile.test.ts (messages, as text).
 *
 * @module
 */
import * as Schema from "effect/Schema"

/** The fields that a problem of any format has, beside its kind. */
export const fields = {
  /** Null where the place is no tensor's. */
  tensor: Schema.NullOr(Schema.String),
  /** The byte of the file that shows it. */
  offset: Schema.Number,
  expected: Schema.String,
  found: Schema.String
}

/** A problem of a kind, without the advice. */
export interface Problem extends Schema.Schema.Type<Schema.Struct<typeof fields>> {
  readonly kind: string
}

const listed = 12 // a damaged file may have thousands of problems: the message lists so many, the error has all

/** The message of an error: its title, the first problems, and once for each kind what to do about it. */
export const message = <P extends Problem>(
  title: string, problems: ReadonlyArray<P>, adviceOn: (problem: P) => string
): string => {
  const lines = problems.slice(0, listed).map(({ expected, found, kind, offset, tensor }) => {
    const place = tensor === null ? "" : `tensor ${JSON.stringify(tensor)}, `
    return `  ${kind}: ${place}byte ${offset}: expected ${expected}; found ${found}`
  })
  const rest = problems.length > listed ? [`  … and ${problems.length - listed} more`] : []
  const causes = new Set(problems.map((problem) => `  ${problem.kind}: ${adviceOn(problem)}`))
  return [title, ...lines, ...rest, "Likely cause, and what to do:", ...causes].join("\n")
}

/** What was expected where a name is not among those of a file, which may be many. */
export const oneOf = (names: ReadonlyMap<string, unknown>): string => {
  const shown = [...names.keys()].slice(0, listed).map((name) => JSON.stringify(name)).join(", ")
  return `one of ${names.size} names: ${shown}${names.size > listed ? ", …" : ""}`
}
