/**
 * A uniform sample of the lines of a corpus of any length, in memory for the sample alone.
 *
 *     line i takes place j ~ uniform{0 ‥ i}; it is kept where j < n          (Vitter's algorithm R)
 *
 * n lines wanted · i lines before this one
 *
 * From     SentencePiece's `input_sentence_size` with `shuffle_input_sentence`, which samples so too.
 * Checked  test/token/LineSample.test.ts.
 * Departs  draws come from a random key, so a sample is the same everywhere, and not that of SentencePiece.
 *
 * @module
 */
import * as Key from "../random/Key.ts"

/** How many lines, and by which draws. */
export interface Options {
  /** Lines wanted, 1 or more; a corpus of fewer is kept whole. */
  readonly lines: number
  readonly key: Key.Key
}

/** A growing sample. */
export interface LineSample {
  /** Considers the lines of a document that are not empty. */
  readonly add: (document: string) => void
  /** The lines kept; in their order where all were. */
  readonly kept: () => ReadonlyArray<string>
  /** How many lines were considered. */
  readonly count: () => number
}

/** Begins a sample. */
export const make = ({ key, lines }: Options): LineSample => {
  const kept: Array<string> = []
  let count = 0
  const add = (document: string): void => {
    for (const line of document.split("\n")) {
      if (line === "") continue
      const place = count < lines ? count : Key.below(key, count, count + 1)
      if (place < lines) kept[place] = line
      count++
    }
  }
  return { add, kept: () => kept, count: () => count }
}
