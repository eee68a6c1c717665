/**
 * Text in pieces ends where the text as a whole does.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { pass } from "../../src/generate/StopText.ts"

type Ended = readonly [text: string, stop: string | undefined]

/** All text that is passed on of some pieces, and the stop that ended it. */
const stream = (stops: ReadonlyArray<string>, pieces: ReadonlyArray<string>): Ended => {
  let [text, held] = ["", ""]
  for (const piece of pieces) {
    const passed = pass(stops, held, piece)
    text += passed.text
    held = passed.held
    if (passed.stop !== undefined) return [text, passed.stop]
  }
  return [text + held, undefined]
}

/** Letter by letter: the text ends as soon as it ends with a stop; of several, the longest. */
const direct = (stops: ReadonlyArray<string>, text: string): Ended => {
  for (let end = 1; end <= text.length; end++) {
    const [stop] = stops.filter((candidate) => text.slice(0, end).endsWith(candidate))
      .sort((a, b) => b.length - a.length)
    if (stop !== undefined) return [text.slice(0, end - stop.length), stop]
  }
  return [text, undefined]
}

/** Few letters, so that stops occur, overlap and begin without ending. */
const letters = (constraints: fc.StringConstraints) =>
  fc.string({ unit: fc.constantFrom("a", "b", "\n"), ...constraints })

describe("stop texts", () => {
  it("end pieces of any length where they end the whole", () => {
    fc.assert(fc.property(
      fc.array(letters({ minLength: 1, maxLength: 4 }), { maxLength: 3 }), fc.array(letters({ maxLength: 5 })),
      (stops, pieces) => assert.deepStrictEqual(stream(stops, pieces), direct(stops, pieces.join("")))
    ), { numRuns: 2000 })
  })

  it("hold back no more than may be their beginning", () => {
    assert.deepStrictEqual(pass(["\nUser:"], "", "well\nUse"), { text: "well", stop: undefined, held: "\nUse" })
    assert.deepStrictEqual(pass(["\nUser:"], "\nUse", "less"), { text: "\nUseless", stop: undefined, held: "" })
    assert.deepStrictEqual(pass([], "", "text"), { text: "text", stop: undefined, held: "" })
  })
})
