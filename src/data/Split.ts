/**
 * Which part of a corpus a document belongs to, decided by its content alone.
 *
 *     validation ⇔ h / 2⁵² < s
 *
 * h the first 52 bits of the document's content hash · s `validationShare`
 *
 * Adding, removing or reordering documents moves no other document, copies of a text always stay together (so a text
 * that is trained on never measures), and a larger share only adds documents to the validation part.
 *
 * From     Llama 2 says nothing of its validation data; hashing the content is the custom of deduplicated corpora.
 * Checked  test/data/Split.test.ts (stability, monotonicity, share within chance).
 * Departs  documents that state their part themselves are believed.
 *
 * @module
 */
import type { Document, Part } from "./Document.ts"

/**
 * The part that a document belongs to, where the share `validationShare` of all documents (0 … 1) is kept for
 * validation.
 */
export const part = (document: Document, validationShare: number): Part =>
  document.part ?? (Number.parseInt(document.id.slice(0, 13), 16) * 2 ** -52 < validationShare ? "validation" : "train")
