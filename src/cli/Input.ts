/**
 * Text that a command is given: as an argument, in a file, or on standard input.
 *
 * Checked  test/cli/TokenizerCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { FlagConflictError } from "./Flags.ts"

/** The argument, or the file, or what standard input gives; undefined where that is a terminal. */
export const read = Effect.fnUntraced(function*(argument: Option.Option<string>, file: Option.Option<string>) {
  if (Option.isSome(argument) && Option.isSome(file)) {
    return yield* new FlagConflictError({ flags: ["the argument", "--file"] })
  }
  if (Option.isSome(argument)) return argument.value
  if (Option.isSome(file)) return yield* (yield* FileSystem.FileSystem).readFileString(file.value)
  const stdio = yield* Stdio.Stdio
  return (yield* stdio.stdinIsTerminal) ? undefined : yield* Stream.mkString(Stream.decodeText(stdio.stdin))
})

/** Lines without their ends; a last line without an end counts, nothing after a last end does not. */
export const lines = (text: string): ReadonlyArray<string> => {
  const parts = text.split(/\r?\n/)
  return parts.at(-1) === "" ? parts.slice(0, -1) : parts
}
