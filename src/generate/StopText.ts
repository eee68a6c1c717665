/**
 * Stop texts: passes text on as it comes, and ends it before the first of some texts, however it is cut into pieces.
 *
 * What may turn out to be the beginning of a stop text is held back until that is known. Of several stop texts the one
 * that is complete first ends the text; of those that are complete together, the longest.
 *
 * From     Cria's own.
 * Checked  test/generate/StopText.test.ts (pieces of any length = all at once).
 *
 * @module
 */

/** What is certain after a piece of text. */
export interface Passed {
  readonly text: string
  /** The stop text that has been found; whatever follows is to be dropped. */
  readonly stop: string | undefined
  /** What is held back. */
  readonly held: string
}

/** Passes on a piece of text, behind what was held back before it. */
export const pass = (stops: ReadonlyArray<string>, held: string, piece: string): Passed => {
  const text = held + piece
  const found = stops.map((stop) => ({ stop, start: text.indexOf(stop) })).filter(({ start }) => start >= 0)
    .sort((a, b) => a.start + a.stop.length - b.start - b.stop.length || a.start - b.start)[0]
  if (found !== undefined) return { text: text.slice(0, found.start), stop: found.stop, held: "" }
  const longest = Math.max(0, ...stops.map((stop) => stop.length - 1))
  for (let start = Math.max(0, text.length - longest); start < text.length; start++) {
    if (stops.some((stop) => stop.startsWith(text.slice(start)))) {
      return { text: text.slice(0, start), stop: undefined, held: text.slice(start) }
    }
  }
  return { text, stop: undefined, held: "" }
}
