/**
 * Strict UTF-8 from bytes that arrive in pieces: whole characters come out, and the first byte that is no text is told.
 *
 * A byte-order mark at the very beginning is an encoding's signature, not text, and is left out. A zero byte counts as
 * invalid: it is the surest sign of a binary file.
 *
 * From     The Unicode Standard 15, table 3-7 (well-formed byte sequences), as token/Utf8.ts has it.
 * Checked  test/data/StrictUtf8.test.ts (any cut of any text; agrees with the platform's fatal decoder).
 * Departs  from the platform's decoder, which cannot say where it failed.
 *
 * @module
 */
import * as Utf8 from "../token/Utf8.ts"

/** The first place that is not UTF-8. Without `byte`, the input ended within a character. */
export interface Invalid {
  readonly offset: number
  readonly byte?: number
}

/** Decodes bytes that arrive piece by piece. */
export interface Decoder {
  /** Takes the next bytes; gives the text of all characters that are complete, or the first offence. */
  readonly push: (bytes: Uint8Array) => string | Invalid
  /** Ends the input: an offence if it ended within a character. */
  readonly end: () => Invalid | undefined
}

/** A new decoder at byte 0. */
export const decoder = (): Decoder => {
  let carried = new Uint8Array(0) // the beginning of a character, at most three bytes
  let offset = 0 // of the first carried byte
  return {
    push: (bytes) => {
      const input = carried.length === 0 ? bytes : Uint8Array.from([...carried, ...bytes])
      const complete = completeLength(input)
      if (complete < input.length && !Utf8.isIncomplete(input, complete, input.length)) {
        return { offset: offset + complete, byte: input[complete]! }
      }
      const text = Utf8.validText(input.subarray(0, complete))
      const isSigned = offset === 0 && text.startsWith("\ufeff")
      carried = input.slice(complete)
      offset += complete
      return isSigned ? text.slice(1) : text
    },
    end: () => carried.length === 0 ? undefined : { offset }
  }
}

/** How many bytes from the start are complete, well-formed characters other than NUL. */
const completeLength = (bytes: Uint8Array): number => {
  let at = 0
  while (at < bytes.length && bytes[at] !== 0) {
    const length = Utf8.characterLength(bytes, at, bytes.length)
    if (length === 0) return at
    at += length
  }
  return at
}
