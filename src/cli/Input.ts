/**
 * Text that a command is given: as an argument, in a file, or on standard input.
 *
 * Checked  test/cli/TokenizerCommand.test.ts, test/cli/GenerateCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as SourceFile from "../data/SourceFile.ts"
import { FlagConflictError } from "./Flags.ts"

/**
 * The argument, or for none and for - what standard input gives, "" where that is a terminal; undefined where a file is
 * named instead.
 */
export const unlessFile = Effect.fnUntraced(function*(
  argument: Option.Option<string>, file: Option.Option<string>, flag: string
) {
  if (Option.isSome(argument) && Option.isSome(file)) {
    return yield* new FlagConflictError({ flags: ["the argument", flag] })
  }
  if (Option.isSome(argument) && argument.value !== "-") return argument.value
  if (Option.isSome(file)) return undefined
  const stdio = yield* Stdio.Stdio
  return (yield* stdio.stdinIsTerminal) ? ""
    : yield* Stream.mkString(SourceFile.decoded("standard input", stdio.stdin))
})

/** The argument, or what stands in the file, or what standard input gives, "" where that is a terminal. */
export const read = Effect.fnUntraced(function*(argument: Option.Option<string>, file: Option.Option<string>) {
  const given = yield* unlessFile(argument, file, "--file")
  return given ?? (yield* Stream.mkString(SourceFile.text(Option.getOrElse(file, () => ""))))
})

/** Lines without their ends; a last line without an end counts, nothing after a last end does not. */
export const lines = (text: string): ReadonlyArray<string> => {
  const parts = text.split(/\r?\n/)
  return parts.at(-1) === "" ? parts.slice(0, -1) : parts
}
