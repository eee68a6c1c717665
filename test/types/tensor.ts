/**
 * Axes and kinds that the compiler checks. Lines without a directive must be accepted, without a cast.
 */
import * as T from "../../src/tensor/Tensor.ts"
import type { Tensor } from "../../src/tensor/Tensor.ts"

declare const logits: Tensor<"batch" | "position" | "vocab">
declare const targets: Tensor<"batch" | "position", "id">
declare const perToken: Tensor<"batch" | "position">
declare const visible: Tensor<"batch" | "position", "truth">
declare const residual: Tensor<"batch" | "position" | "embed">
declare const weight: Tensor<"embed" | "hidden">
declare const gain: Tensor<"embed">

// Reductions take away an axis that is there.
export const total: Tensor<"batch" | "position"> = T.sum(logits, "vocab")
export const totalInPipe: Tensor<"batch" | "position"> = logits.pipe(T.sum("vocab"))
export const most: T.Scalar = T.max(logits, ["batch", "position", "vocab"])
// @ts-expect-error "vocb"
T.sum(logits, "vocb")
// @ts-expect-error "vocb"
logits.pipe(T.sum("vocb"))
// @ts-expect-error "embed"
logits.pipe(T.mean("embed"))
// @ts-expect-error '"position"' is not assignable to type '"batch"'
export const tooFew: Tensor<"batch"> = T.sum(logits, "vocab")
// @ts-expect-error "position"
export const tooFewInPipe: Tensor<"batch"> = logits.pipe(T.sum("vocab"))

// Elementwise operations have the union of the axes; axes are invariant.
export const normalized: Tensor<"batch" | "position" | "embed"> = T.multiply(residual, gain)
export const shifted: Tensor<"embed"> = gain.pipe(T.square, T.add(1), T.rsqrt)
// @ts-expect-error "embed"
export const notBroadcast: Tensor<"batch" | "position"> = T.multiply(perToken, gain)
// @ts-expect-error "position"
export const notThere: Tensor<"batch" | "position" | "embed"> = gain

// Contraction names an axis of both.
export const projected: Tensor<"batch" | "position" | "hidden"> = T.contract(residual, weight, "embed")
// @ts-expect-error "hidden"
T.contract(residual, weight, "hidden")
// @ts-expect-error "width"
T.contract(residual, weight, "width")

// A rename that is forgotten shows where the result is used.
export const keys: Tensor<"batch" | "source" | "embed"> = residual.pipe(T.rename("position", "source"))
// @ts-expect-error "position"
export const forgotten: Tensor<"batch" | "source" | "embed"> = residual
// @ts-expect-error "positon"
T.rename(residual, "positon", "source")

// Kinds do not mix.
export const chosen: Tensor<"batch" | "position"> = T.select(visible, perToken, 0)
// @ts-expect-error "truth"
T.select(perToken, perToken, 0)
// @ts-expect-error "id"
T.add(perToken, targets)
// @ts-expect-error "id"
T.exp(targets)
// @ts-expect-error "real"
T.take(logits, "vocab", perToken)

// Choosing by ids: shared axes go together.
export const picked: Tensor<"batch" | "position"> = T.take(logits, "vocab", targets)
export const best: Tensor<"batch" | "position" | "rank", "id"> = T.topK(logits, "vocab", "rank", 4).ids
// @ts-expect-error "vocb"
T.take(logits, "vocb", targets)
// @ts-expect-error "position"
T.put(logits, "vocab", targets, T.fill({ batch: 2 }, 1), "add")
// @ts-expect-error "heads"
T.merge(logits, ["batch", "heads"], "row")
// @ts-expect-error "heads"
T.split(logits, "heads", { kvHead: 2, group: 3 })

// Functions that are generic in their leading axes keep them.
const meanOver = <A extends string>(x: Tensor<A | "vocab">, ids: Tensor<A, "id">): Tensor<A> =>
  T.subtract(x.pipe(T.logSumExp("vocab")), T.pick("vocab")(x, ids))
export const losses: Tensor<"batch" | "position"> = meanOver(logits, targets)
// @ts-expect-error "id"
meanOver(logits, perToken)
// @ts-expect-error "position"
meanOver(logits, T.ids({ batch: 1 }, [0]))

// Gradients are taken of one number, with respect to trees of tensors.
interface Parameters {
  readonly gain: Tensor<"embed">
  readonly blocks: ReadonlyArray<{ readonly weight: Tensor<"embed" | "hidden"> }>
}
declare const parameters: Parameters
declare const loss: T.Scalar
export const slopes: Parameters = T.gradient(loss, parameters)
// @ts-expect-error number
T.gradient(loss, { rate: 1 })
// @ts-expect-error "batch"
T.gradient(perToken, parameters)

// A loss of one's own is fed what it names, and nothing else.
const squaredError = <A extends string>(x: Tensor<A>, y: Tensor<A>): Tensor<A> => T.square(T.subtract(x, y))
export const errors: Tensor<"batch" | "position"> = squaredError(perToken, T.mean(logits, "vocab"))
// @ts-expect-error "vocab"
squaredError(perToken, logits)
// @ts-expect-error "batch"
squaredError(T.mean(perToken, "batch"), perToken)

// Attention: the sources must be renamed, or there is nothing to attend over.
declare const query: Tensor<"batch" | "position" | "head" | "plane">
export const scores: Tensor<"batch" | "position" | "source" | "head"> =
  T.contract(query, T.rename(query, "position", "source"), "plane")
// @ts-expect-error "source"
export const unrenamed: Tensor<"batch" | "position" | "source" | "head"> = T.contract(query, query, "plane")
declare const mask: Tensor<"position" | "source", "truth">
export const weights: Tensor<"batch" | "position" | "source" | "head"> = T.softmaxWhere(scores, mask, "source")
// @ts-expect-error "sources"
T.softmaxWhere(scores, mask, "sources")
// @ts-expect-error "source"
T.softmaxWhere(perToken, mask, "source")
// @ts-expect-error "positon"
scores.pipe(T.rename("positon", "source"))
// @ts-expect-error "vocab"
scores.pipe(T.softmax("vocab"))

// Comparisons are between one kind; ids are counted, not measured.
export const same: Tensor<"batch" | "position", "truth"> = T.equal(targets, targets)
export const first: Tensor<"batch" | "position", "truth"> = T.less(targets, 1)
// @ts-expect-error "real"
T.equal(perToken, targets)
// @ts-expect-error "truth"
T.less(visible, visible)
// @ts-expect-error "truth"
T.and(visible, perToken)
// @ts-expect-error "real"
T.addIds(targets, perToken)
// @ts-expect-error "id"
T.sum(targets, "batch")
