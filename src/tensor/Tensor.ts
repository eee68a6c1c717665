/**
 * Tensors with named axes: the whole vocabulary of computations, as plain functions.
 *
 * Say `import { Tensor as T } from "cria"` and write the mathematics: `x.pipe(T.square, T.mean("embed"), T.add(ε),
 * T.rsqrt)`. Nothing is computed while an expression is built; `Program.make` closes it and a `Backend` runs it. Every
 * function checks kinds, axes and sizes when it is called, and throws a `ShapeError` where they do not fit.
 *
 * From     Cria's own.
 * Checked  test/tensor/*.test.ts; test/types/tensor.ts.
 *
 * @module
 */
export {
  abs, add, addIds, and, type Binary, type Comparison, constant, cos, divide, equal, exp, fill, floor, idConstant,
  label, less, lessEqual,
  log, maximum, minimum, multiply, negate, not, or, power, real, reciprocal, rsqrt, select, sigmoid, sign, sin, sqrt,
  square,
  stopGradient, subtract, subtractIds, tanh, toIds
} from "./Elementwise.ts"
export { at, ids, oneHot, pick, positions, put, take, topK, values } from "./Indexing.ts"
export {
  type Any, describe, isTensor, type Kind, type Scalar, size, type Sizes, type Tensor, within, type Untyped
} from "./Node.ts"
export { gradient, recompute } from "./Gradient.ts"
export { contract, cumulativeSum, logSumExp, max, mean, type Reduction, sum } from "./Reduction.ts"
export { concat, merge, pad, type Rename, rename, slice, split, spread, stack } from "./Structure.ts"
export { silu, softmax, softmaxWhere } from "./Softmax.ts"
