/**
 * What a command shows: lines that stay, and on a terminal one line that is written over.
 *
 * Elsewhere (a file, a pipe) there is no such line: what is worth keeping is printed as lines.
 *
 * Checked  test/cli/Screen.test.ts (a line that stays is never mixed with one that does not).
 *
 * @module
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stdio from "effect/Stdio"
import * as Terminal from "effect/Terminal"

/** Where a command shows what happens. */
export interface Screen {
  readonly isTerminal: boolean
  readonly columns: number
  /** Prints a line that stays. */
  readonly print: (text: string) => Effect.Effect<void>
  /** Replaces the line that moves; does nothing where there is no terminal. */
  readonly status: (text: string) => Effect.Effect<void>
  /** Prints text without a line break, its control characters made visible. */
  readonly write: (text: string) => Effect.Effect<void>
}

const clear = "\r\u001B[2K"

/** The screen of this process; the line that moves is cleared when the Scope closes. */
export const make = Effect.gen(function*() {
  const stdio = yield* Stdio.Stdio
  const terminal = yield* Terminal.Terminal
  const isTerminal = yield* stdio.stdoutIsTerminal
  const width = isTerminal ? yield* terminal.columns : 0
  const columns = width > 0 ? width : 80 // some terminals do not know theirs
  let moving = false
  const display = (text: string) => Effect.ignore(terminal.display(text)) // main.ts sees a reader that left
  const settle = Effect.suspend(() => {
    const isShown = moving
    moving = false
    return isShown ? display(clear) : Effect.void
  })
  yield* Effect.addFinalizer(() => settle)
  return {
    isTerminal,
    columns,
    print: (text) => Effect.andThen(settle, Console.log(text)),
    status: (text) => {
      if (!isTerminal) return Effect.void
      moving = true
      return display(`${clear}${Array.from(text).slice(0, Math.max(1, columns - 1)).join("")}`)
    },
    write: (text) => Effect.andThen(settle, display(visible(text)))
  } satisfies Screen
})

/** Text with its control characters shown as pictures, so that what a model writes cannot move the cursor. */
export const visible = (text: string): string =>
  text.replace(/[\p{Cc}]/gu, (character) => {
    const code = character.charCodeAt(0)
    return character === "\n" || character === "\t" ? character
      : code < 32 ? String.fromCharCode(0x2400 + code) : code === 127 ? "\u2421" : "\uFFFD"
  })

/** A share as a bar of a width. */
export const bar = (share: number, width: number): string => {
  const filled = Math.round(Math.min(1, Math.max(0, share)) * width)
  return "█".repeat(filled) + "░".repeat(width - filled)
}

/** Seconds as a person says them: 45 s, 3 min 20 s, 2 h 05 min. */
export const duration = (seconds: number): string => {
  const whole = Math.round(seconds)
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole % 3600 / 60)]
  const padded = (value: number): string => String(value).padStart(2, "0")
  return hours > 0 ? `${hours} h ${padded(minutes)} min`
    : minutes > 0 ? `${minutes} min ${padded(whole % 60)} s` : `${whole} s`
}

const scales = [["G", 1e9], ["M", 1e6], ["k", 1e3]] as const

/** A number in three digits with G, M or k, and its unit if it has one: 1.07 M, 12.3 MB, 33 B. */
export const quantity = (value: number, unit = ""): string => {
  const scale = Option.fromNullishOr(scales.find(([, factor]) => value >= factor))
  const [letter, factor] = Option.getOrElse(scale, () => ["", 1] as const)
  const scaled = value / factor
  const digits = scaled >= 100 || letter === "" ? 0 : scaled >= 10 ? 1 : 2
  return `${scaled.toFixed(digits)} ${letter}${unit}`.trimEnd()
}
