/**
 * The glossary of axes: every name that the library's own tensors use, in one line each.
 *
 * An axis is a name and its size is another thing: `T.size(x, "embed")`, or a field of a configuration that ends in
 * `Size` or `Count`. Nothing forbids other names; a variant of one's own brings its own.
 *
 * From     Cria's own; the idea of a glossary of axis names is Penzai's.
 * Checked  test/tensor/Axis.test.ts (docs/glossary.md has the same lines).
 *
 * @module
 */

/** What each axis is. */
export const glossary = {
  batch: "independent examples",
  position: "tokens being computed",
  source: "tokens being looked at",
  embed: "width of the residual stream",
  hidden: "width inside the feed-forward layer",
  kvHead: "key and value heads",
  group: "query heads that share one key and value head",
  plane: "the planes in which rotary position encoding rotates",
  part: "the two coordinates in a plane",
  vocab: "pieces of the vocabulary",
  layer: "blocks of the transformer",
  comparison: "pairs of preferred and rejected answers",
  candidate: "samples for one prompt",
  block: "blocks of weights that share a scale; one, where a whole row does",
  byte: "bytes in which the codes of a block lie"
} as const

/** An axis of the glossary. */
export type Axis = keyof typeof glossary
