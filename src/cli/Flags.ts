/**
 * Flags as commands declare them: those that may be absent, and switches.
 *
 * Checked  test/cli/CommandLine.test.ts.
 *
 * @module
 */
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import { backendNames } from "./Settings.ts"

const named = [(path: string): boolean => path !== "", () =>
  "a path (a variable of the shell that is not set gives an empty one)"] as const

/** A flag that names a file or folder. */
export const pathFlag = (name: string): Flag.Flag<string> => Flag.filter(Flag.String(name), ...named)

/** An argument that names a file or folder. */
export const pathArgument = (name: string): Argument.Argument<string> =>
  Argument.filter(Argument.String(name), ...named)

const readable = [(text: string): boolean => !text.includes("\uFFFD"), () =>
  "text in UTF-8 (� stands where bytes are not: convert them, for instance with iconv -f LATIN1 -t UTF-8)"] as const

/** A flag that is text. Node puts U+FFFD where bytes of a line are not UTF-8: that is refused, not taken as meant. */
export const textFlag = (name: string): Flag.Flag<string> => Flag.filter(Flag.String(name), ...readable)

/** An argument that is text, with the same refusal. */
export const textArgument = (name: string): Argument.Argument<string> =>
  Argument.filter(Argument.String(name), ...readable)

/** A flag that may be absent. */
export const given = <A>(flag: Flag.Flag<A>, metavar: string, description: string): Flag.Flag<Option.Option<A>> =>
  flag.pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

/** A whole number that may be absent. */
export const count = (name: string, description: string): Flag.Flag<Option.Option<number>> =>
  given(Flag.Int(name), "COUNT", description)

/** Who computes, the same in every command. */
export const backend = (unasked: string): Flag.Flag<Option.Option<typeof backendNames[number]>> =>
  given(Flag.Literals("backend", backendNames), "NAME", `Who computes, one that \`cria doctor\` finds; ${unasked}`)

/** A flag that is there or not. */
export const switched = (name: string, description: string): Flag.Flag<boolean> =>
  Flag.Boolean(name).pipe(Flag.withoutNegation, Flag.withDefault(false), Flag.withDescription(description))

/** Flags that ask for different things at once. */
export class FlagConflictError extends Schema.TaggedError<FlagConflictError>()("FlagConflictError", {
  flags: Schema.Array(Schema.String)
}) {
  override get message() {
    return `${this.flags.join(" and ")} ask for different things: give one of them`
  }
}
