/**
 * Files of prompts: one on each line, or in each row.
 *
 * Checked  test/cli/GenerateCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
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

const fromLine = (path: string, line: number, text: string): Result.Result<Named, PromptFileError> => {
  if (path.endsWith(".jsonl")) {
    return Result.mapBoth(decodeRow(text), {
      onSuccess: ({ id = line, prompt }) => ({ id, prompt }),
      onFailure: ({ message }) => new PromptFileError({ path, line, issue: message.replaceAll("\n", " ") })
    })
  }
  return text === ""
    ? Result.fail(new PromptFileError({ path, line, issue: "the line is empty: remove it, or give a .jsonl file, " +
      "where a prompt may be empty" }))
    : Result.succeed({ id: line, prompt: text })
}

/** The prompts of a file, read as they are needed, however many; at least one. */
export const fromFile = (path: string): Stream.Stream<Named, PromptFileError | CorpusError, FileSystem.FileSystem> =>
  Stream.suspend(() => {
    let count = 0
    const end = Effect.suspend(() =>
      count > 0 ? Effect.void : Effect.fail(new PromptFileError({ path, line: 1, issue: "the file is empty" })))
    return SourceFile.text(path).pipe(
      Stream.splitLines,
      Stream.mapEffect((text) => Effect.fromResult(fromLine(path, ++count, text))),
      Stream.concat(Stream.fromEffectDrain(end))
    )
  })

/** The first prompt of a file; none of what can be read only once, a pipe. */
export const firstOf = Effect.fnUntraced(function*(path: string) {
  const { stat } = yield* FileSystem.FileSystem
  const isOnce = yield* Effect.match(stat(path), {
    onFailure: () => false, // reading says why
    onSuccess: ({ type }) => type !== "File" && type !== "Directory"
  })
  return isOnce ? [] : yield* Stream.runCollect(Stream.take(fromFile(path), 1))
})
