/**
 * A document: one text of a corpus, named by its content, with the place it came from.
 *
 * Checked  test/data/Corpus.test.ts, test/data/Split.test.ts (equal texts have equal names wherever they come from).
 *
 * @module
 */
import * as Hash from "../random/Hash.ts"

/** The two parts of a corpus: what is trained on, and what only measures. */
export type Part = "train" | "validation"

/** One text. Shapes and units: `id` 32 hexadecimal digits, `source.line` counted from 1. */
export interface Document {
  /** The hash of the text: equal texts have equal ids. */
  readonly id: string
  readonly text: string
  /** The file (or the generator) and the line at which the text begins. */
  readonly source: { readonly file: string; readonly line: number }
  /**
   * Given by corpora that know their own split (the stories with held-out facts); else the content decides: see Split.
   */
  readonly part?: Part
}

/** The document of a text. */
export const make = (text: string, source: Document["source"], part?: Part): Document => {
  const id = Hash.toHex(Hash.ofText(text))
  return part === undefined ? { id, text, source } : { id, text, source, part }
}
