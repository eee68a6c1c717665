/**
 * Files of prompts: one on each line, or in each row; `-` is standard input, and `-.jsonl` is standard input with rows.
 *
 * Checked  test/cli/GenerateCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import type { CorpusError } from "../data/CorpusError.ts"
import * as SourceFile from "../data/SourceFile.ts"

/** A prompt with the name by which its answers are told: its own, or the number of its line. */
export interface Named {
  readonly id: string | number
  readonly prompt: string
}

/** A line of a file of prompts that holds none. */
export class PromptFileError extends Schema.TaggedError<PromptFileError>()("PromptFileError", {
  path: Schema.String,
  line: Schema.Int,
  issue: Schema.String
}) {
  override get message() {
    return `${this.path}, line ${this.line}: ${this.issue}\n` +
      "  A .jsonl file has a row for each prompt, {\"prompt\": \"One day\", \"id\": 7}, of which id may be absent;\n" +
      "  every other file a prompt on each line."
  }
}

const decodeRow = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Struct({
  prompt: Schema.String,
  id: Schema.optionalKey(Schema.Union([Schema.String, Schema.Finite]))
})), { errors: "all", onExcessProperty: "error" })

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** What is wrong with a row: all of it in one line. */
const issueOf = ({ issue }: Schema.SchemaError): string =>
  format(issue).issues.map(({ message, path = [] }) => {
    const expected = message.replace(/^Expected /, "expected ")
    if (path.length === 0) return expected
    const key = JSON.stringify(path.map(String).join("."))
    return message.startsWith("Missing key") ? `${key} is missing`
      : message.startsWith("Expected no excess property") ? `${key} is no key of a row`
        : `${key}: ${expected}`
  }).join("; ")

const isRows = (path: string): boolean => /\.jsonl(\.gz)?$/.test(path)

const isStandardInput = (path: string): boolean => path === "-" || path === "-.jsonl"

const nameOf = (path: string): string => isStandardInput(path) ? "standard input" : path

const fromLine = (path: string, line: number, text: string): Result.Result<Named, PromptFileError> => {
  if (isRows(path) && text.trim() === "") {
    return Result.fail(new PromptFileError({ path: nameOf(path), line, issue: "the line is empty: remove it" }))
  }
  if (isRows(path)) {
    return Result.mapBoth(decodeRow(text), {
      onSuccess: ({ id = line, prompt }) => ({ id, prompt }),
      onFailure: (error) => new PromptFileError({ path: nameOf(path), line, issue: issueOf(error) })
    })
  }
  return text === ""
    ? Result.fail(new PromptFileError({ path: nameOf(path), line, issue: "the line is empty: remove it, or give " +
      `${isStandardInput(path) ? "rows, --prompt-file=-.jsonl" : "a .jsonl file"}, where a prompt may be empty` }))
    : Result.succeed({ id: line, prompt: text })
}

const textOf = (
  path: string
): Stream.Stream<string, CorpusError | PlatformError.PlatformError, FileSystem.FileSystem | Stdio.Stdio> =>
  !isStandardInput(path) ? SourceFile.text(path)
    : Stream.unwrap(Effect.map(Stdio.Stdio, ({ stdin }) => SourceFile.decoded(nameOf(path), stdin)))

/**
 * The prompts of a file, read as they are needed, however many; at least one. No two have the same id, also where one
 * has it for its line: which answer is whose would be unknown.
 */
export const fromFile = (path: string): Stream.Stream<
  Named, PromptFileError | CorpusError | PlatformError.PlatformError, FileSystem.FileSystem | Stdio.Stdio
> =>
  Stream.suspend(() => {
    let count = 0
    const lines = new Map<string | number, number>() // by the ids read so far
    const named = (text: string): Result.Result<Named, PromptFileError> =>
      Result.flatMap(fromLine(path, ++count, text), (prompt) => {
        if (!isRows(path)) return Result.succeed(prompt) // all are numbers of lines
        const first = lines.get(prompt.id)
        lines.set(prompt.id, count)
        return first === undefined ? Result.succeed(prompt) : Result.fail(new PromptFileError({
          path: nameOf(path), line: count, issue: `its id, ${JSON.stringify(prompt.id)}, is that of line ${first} ` +
            "already (a row without one has the number of its line)"
        }))
      })
    const end = Effect.suspend(() =>
      count > 0 ? Effect.void : Effect.fail(new PromptFileError({ path: nameOf(path), line: 1, issue: "it is empty" })))
    return textOf(path).pipe(
      Stream.splitLines,
      Stream.mapEffect((text) => Effect.fromResult(named(text))),
      Stream.concat(Stream.fromEffectDrain(end))
    )
  })

/** The first prompt of a file; none of what can be read only once, a pipe. */
export const firstOf = Effect.fnUntraced(function*(path: string) {
  if (isStandardInput(path)) return []
  const { stat } = yield* FileSystem.FileSystem
  const isOnce = yield* Effect.match(stat(path), {
    onFailure: () => false, // reading says why
    onSuccess: ({ type }) => type !== "File" && type !== "Directory"
  })
  return isOnce ? [] : yield* Stream.runCollect(Stream.take(fromFile(path), 1))
})
