/**
 * Cuts a long text into documents of bounded length, at paragraphs where it can; put together, the documents are the
 * text.
 *
 * A document takes as much as fits in `limit` characters and ends after the last blank line in the second half of
 * that; failing one, after the last line there, then after the last space, and at last in the middle of a word, but
 * never of a character.
 *
 * From     the paper is silent on what a document is; a corpus in one file needs some, so that a part of it can be
 *          kept for validation.
 * Checked  test/data/Cut.test.ts (lossless, bounded, blind to how the text arrives).
 *
 * @module
 */

/** Cuts a text that arrives piece by piece. */
export interface Cutter {
  /** Takes more text; gives the documents that are complete. */
  readonly push: (text: string) => ReadonlyArray<string>
  /** Ends the text; gives the last document, if any text is left. */
  readonly end: () => ReadonlyArray<string>
}

/** A cutter into documents of at most `limit` UTF-16 code units (at least 2); a text that fits stays whole. */
export const cutter = (limit: number): Cutter => {
  if (!(Number.isInteger(limit) && limit >= 2)) {
    throw new RangeError(
      `Cut.cutter: the longest document must have a whole number of characters, 2 or more, got ${limit}`)
  }
  let pending = ""
  return {
    push: (text) => {
      pending += text
      const documents: Array<string> = []
      let from = 0
      while (pending.length - from > limit) {
        const to = cutAfter(pending, from, limit)
        documents.push(pending.slice(from, to))
        from = to
      }
      pending = pending.slice(from)
      return documents
    },
    end: () => pending === "" ? [] : [pending]
  }
}

const borders = ["\n\n", "\n\r\n", "\n", " "]

const cutAfter = (text: string, from: number, limit: number): number => {
  const most = from + limit
  for (const border of borders) {
    const at = most - border.length < from ? -1 : text.lastIndexOf(border, most - border.length)
    if (at >= from && at + border.length > from + limit / 2) return at + border.length
  }
  const isPairSplit = (text.charCodeAt(most) & 0xfc00) === 0xdc00 && (text.charCodeAt(most - 1) & 0xfc00) === 0xd800
  return isPairSplit ? most - 1 : most
}
