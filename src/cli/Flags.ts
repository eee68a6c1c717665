/**
 * Flags as commands declare them: those that may be absent, and switches.
 *
 * Checked  test/cli/CommandLine.test.ts.
 *
 * @module
 */
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Flag from "effect/cli/Flag"
import { backendNames } from "./Settings.ts"

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
