/**
 * JSON text to values, and where in them something is not as it should be.
 *
 *     $ = the document        $.a = its field "a"        $.a[0] = the first of that
 *
 * Checked  test/token/TokenizerJson.test.ts, test/token/TokenizerConfig.test.ts.
 *
 * @module
 */
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"

/** What is wrong, and where. */
export interface Problem {
  readonly path: string
  readonly problem: string
}

/** The value that a text spells; else what the engine says, mostly with the position in the text. */
export const parse = (text: string): Result.Result<unknown, Problem> =>
  Result.try({
    try: (): unknown => JSON.parse(text),
    catch: (error) => ({ path: "$", problem: `not JSON: ${error instanceof Error ? error.message : String(error)}` })
  })

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** The first thing that a schema found. */
export const problemOf = ({ issue }: Schema.SchemaError): Problem => {
  const [first] = format(issue).issues
  const keys = (first?.path ?? []).map((part) => typeof part === "object" ? part.key : part)
  const path = keys.map((key) =>
    typeof key === "number" ? `[${key}]` : /^\w+$/.test(String(key)) ? `.${String(key)}` : `[${JSON.stringify(key)}]`)
  return { path: `$${path.join("")}`, problem: first?.message ?? issue.toString() }
}
