/**
 * Visibility: which sources each position may look at, as a description.
 *
 *     causal    s ≤ p            lengths   s ≤ p and s < n            segments   s ≤ p and g(s) = g(p)
 *
 * s the source · p the position · n the length of the example · g the segment of a token
 *
 * A description and not a table, so that a fused kernel can see what it means; the table is made in one function.
 *
 * From     Llama 2 §2.2 (causal); the other three serve ragged batches, packed documents and one's own.
 * Checked  test/llama/Visibility.test.ts.
 *
 * @module
 */
import type { Any } from "../tensor/Node.ts"
import { fail, show } from "../tensor/Node.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"

/** Which sources each position may look at. */
export type Visibility =
  /** Itself and what stands before it. */
  | { readonly _tag: "Causal" }
  /** Causal, within the first so many tokens of each example; the rest is padding. */
  | { readonly _tag: "Lengths"; readonly lengths: Tensor<"batch", "id"> }
  /** Causal, within tokens of the same segment number: the documents of a pack do not see one another. */
  | { readonly _tag: "Segments"; readonly segments: Tensor<"batch" | "position", "id"> }
  /** As the table says. */
  | {
    readonly _tag: "Explicit"
    readonly visible: Tensor<"batch" | "position" | "source", "truth">
    readonly everyRowSees: boolean
  }

/** Each position sees itself and what stands before it. */
export const causal: Visibility = { _tag: "Causal" }

/** Causal, within the first `lengths` tokens of each example. */
export const lengths = (lengths: Tensor<"batch", "id">): Visibility => ({ _tag: "Lengths", lengths })

/** Causal, within a segment. */
export const segments = (segments: Tensor<"batch" | "position", "id">): Visibility => ({ _tag: "Segments", segments })

/**
 * What a table of truths says. `everyRowSees` promises that each position sees something, which saves a backend work.
 */
export const explicit = (
  visible: Tensor<"batch" | "position" | "source", "truth">, options?: { readonly everyRowSees?: boolean }
): Visibility => ({ _tag: "Explicit", visible, everyRowSees: options?.everyRowSees ?? false })

/**
 * The table of a description, over `position` and `source`, and `batch` where examples differ.
 *
 * `everyRowSees` where each position is known to see something. All but the explicit table number sources as positions,
 * so their counts must be equal.
 */
export const visible = (visibility: Visibility, positionCount: number, sourceCount: number): {
  readonly truth: Any
  readonly everyRowSees: boolean
} => {
  if (visibility._tag === "Explicit") {
    return { truth: visibility.visible, everyRowSees: visibility.everyRowSees }
  }
  if (positionCount !== sourceCount) {
    fail("attend", `as many sources as positions, where visibility is ${visibility._tag}`, [
      ["positions", String(positionCount)], ["sources", String(sourceCount)]
    ], "Sources that are kept from earlier runs need an explicit visibility, for nothing else says where they stand.")
  }
  const sources = T.positions("source", sourceCount)
  const before = T.lessEqual(sources, T.positions("position", positionCount))
  switch (visibility._tag) {
    case "Causal":
      return { truth: before, everyRowSees: true }
    case "Lengths":
      return { truth: T.and(before, T.less(sources, visibility.lengths)), everyRowSees: false }
    case "Segments": {
      const { segments } = visibility
      if (T.size(segments, "position") !== positionCount) {
        fail("attend", "every position needs its segment", [
          ["segments", show(segments)], ["positions", String(positionCount)]
        ], "Segments are packed along with the ids: one number for each position.")
      }
      return { truth: T.and(before, T.equal(T.rename(segments, "position", "source"), segments)), everyRowSees: true }
    }
  }
}
