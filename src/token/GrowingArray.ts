/**
 * Flat arrays that grow: when one is full, a larger one takes its place.
 *
 * From     Cria's own; whoever doubles each time copies each element about once.
 * Checked  test/token/Agenda.test.ts, test/token/Merges.test.ts, test/token/WordCounts.test.ts.
 *
 * @module
 */

/** The larger array, filled from its beginning with the elements of the smaller: `ids = grown(new …(2 · n), ids)`. */
export const grown = <A extends Float64Array | Int32Array | Uint8Array | Uint16Array>(larger: A, smaller: A): A => {
  larger.set(smaller)
  return larger
}
