/**
 * A tree of tensors whose form only its maker knows: the parameters of a component behind a service, the memory of an
 * optimizer.
 *
 * It can be carried about, allocated, differentiated with respect to, saved and copied as any tree, but not looked
 * into: so that a variant may keep trees of another form.
 *
 * From     Cria's own.
 * Checked  test/llama/Transformer.test.ts; test/optimize/Optimizer.test.ts.
 *
 * @module
 */
import type { Scalar } from "./Node.ts"

declare const Inside: unique symbol

/** A tree of tensors of hidden form. */
export interface Hidden {
  readonly [Inside]: Scalar
}
