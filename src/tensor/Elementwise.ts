/**
 * Elementwise operations: arithmetic, comparison, choice. Operands broadcast by name, the result has the union of their
 * axes.
 *
 * From     Cria's own.
 * Checked  test/tensor/Primitive.test.ts (every primitive against plain loops); test/tensor/Gradient.test.ts (its
 *          gradient against central differences).
 * Departs  comparisons with NaN are false, as in IEEE 754; `sign` of zero is zero.
 *
 * @module
 */
import { dual } from "effect/Function"
import type { Any, BinaryFunction, Kind, Relation, Scalar, Tensor, UnaryFunction, Untyped } from "./Node.ts"
import { isTensor, make, requireIds, requireKind, requireSizes, unite } from "./Node.ts"

/** A function of two real tensors; either may be a number. */
export interface Binary {
  <B extends string>(y: Tensor<B>): <A extends string>(x: Tensor<A>) => Tensor<NoInfer<A> | NoInfer<B>>
  (y: number): <A extends string>(x: Tensor<A>) => Tensor<A>
  <A extends string, B extends string>(x: Tensor<A>, y: Tensor<B>): Tensor<NoInfer<A> | NoInfer<B>>
  <A extends string>(x: Tensor<A>, y: number): Tensor<NoInfer<A>>
}

/** A comparison of two tensors of one kind, real or id. */
export interface Comparison {
  <A extends string, B extends string, K extends "real" | "id">(
    x: Tensor<A, K>, y: Tensor<B, NoInfer<K>>
  ): Tensor<NoInfer<A> | NoInfer<B>, "truth">
  <A extends string, K extends "real" | "id">(x: Tensor<A, K>, y: number): Tensor<NoInfer<A>, "truth">
}

/** One real number, as a tensor without axes. */
export const constant = (value: number): Scalar => make({ _tag: "Fill", value }, [], {}, "real")

/** One id, as a tensor without axes. */
export const idConstant = (value: number): Tensor<never, "id"> => {
  requireIds("id", [value])
  return make({ _tag: "Fill", value }, [], {}, "id")
}

/** A real tensor of the given sizes, every element `value`. */
export const fill = <const A extends string>(sizes: Readonly<Record<A, number>>, value: number): Tensor<A> => {
  requireSizes("fill", sizes)
  return make({ _tag: "Fill", value }, [], sizes, "real")
}

const operand = (y: Any | number, kind: Kind): Any =>
  isTensor(y) ? y : kind === "id" ? idConstant(y) : make({ _tag: "Fill", value: y }, [], {}, kind)

const isFill = (x: Any, value: number): boolean => x.operation._tag === "Fill" && x.operation.value === value

/** Builds a binary node over operands of one kind. Multiplying by 1 and adding 0 build nothing where the sizes stay. */
const binaryNode = (fn: BinaryFunction, x: Any, second: Any | number): Untyped => {
  const y = operand(second, x.kind)
  requireKind(fn, [x, y], x.kind === "id" ? ["id"] : ["real"])
  const sizes = unite(fn, [["left", x], ["right", y]])
  const neutral = fn === "add" || fn === "subtract" ? 0 : fn === "multiply" || fn === "divide" ? 1 : undefined
  const rank = Object.keys(sizes).length
  if (neutral !== undefined && isFill(y, neutral) && axisCount(x) === rank) return x as Untyped
  if ((fn === "add" || fn === "multiply") && neutral !== undefined && isFill(x, neutral) && axisCount(y) === rank) {
    return y as Untyped
  }
  return make({ _tag: "Binary", function: fn }, [x, y], sizes, x.kind)
}

/** (x · a) · b = x · (a b) for numbers a, b. */
export const multiplyScalars = (node: Any): Any => {
  const [x, y] = node.operands
  for (const [outer, inner] of [[y, x], [x, y]]) {
    if (outer?.operation._tag !== "Fill" || axisCount(outer) > 0) continue
    if (inner?.operation._tag !== "Binary" || inner.operation.function !== "multiply") continue
    for (const [factor, rest] of [inner.operands, [...inner.operands].reverse()]) {
      if (factor?.operation._tag === "Fill" && axisCount(factor) === 0 && rest !== undefined) {
        return binaryNode("multiply", rest, factor.operation.value * outer.operation.value)
      }
    }
  }
  return node
}

const axisCount = (x: Any): number => Object.keys(x.sizes).length

const isDataFirst = (args: IArguments): boolean => args.length >= 2

const binary = (fn: BinaryFunction): Binary =>
  dual(isDataFirst, (x: Any, y: Any | number): Untyped => {
    requireKind(fn, isTensor(y) ? [x, y] : [x], ["real"])
    return binaryNode(fn, x, y)
  })

/** x + y. */
export const add: Binary = binary("add")
/** x − y. */
export const subtract: Binary = binary("subtract")
/** x · y. */
export const multiply: Binary = binary("multiply")
/** x / y. */
export const divide: Binary = binary("divide")
/** The larger of the two; at a tie the gradient goes to x. */
export const maximum: Binary = binary("maximum")
/** The smaller of the two; at a tie the gradient goes to x. */
export const minimum: Binary = binary("minimum")
/** x to the power y, for x > 0 wherever y is not a whole number. */
export const power: Binary = binary("power")

/** x + y of ids. */
export const addIds = <A extends string, B extends string = never>(
  x: Tensor<A, "id">, y: Tensor<B, "id"> | number
): Tensor<NoInfer<A> | NoInfer<B>, "id"> => binaryNode("add", x, y)

/** x − y of ids. */
export const subtractIds = <A extends string, B extends string = never>(
  x: Tensor<A, "id">, y: Tensor<B, "id"> | number
): Tensor<NoInfer<A> | NoInfer<B>, "id"> => binaryNode("subtract", x, y)

const unary = (fn: UnaryFunction) => <A extends string>(x: Tensor<A>): Tensor<A> => {
  requireKind(fn, [x], ["real"])
  return make({ _tag: "Unary", function: fn }, [x], x.sizes, "real")
}

/** eˣ. */
export const exp = unary("exp")
/** The natural logarithm; −∞ at 0, NaN below. */
export const log = unary("log")
/** √x. */
export const sqrt = unary("sqrt")
/** 1 / √x. */
export const rsqrt = unary("rsqrt")
/** 1 / x. */
export const reciprocal = unary("reciprocal")
/** sin x, x in radians. */
export const sin = unary("sin")
/** cos x, x in radians. */
export const cos = unary("cos")
/** The hyperbolic tangent. */
export const tanh = unary("tanh")
/** σ(x) = 1 / (1 + e⁻ˣ), without overflow on either side. */
export const sigmoid = unary("sigmoid")
/** |x|; the gradient at 0 is 0. */
export const abs = unary("abs")
/** −1, 0 or 1; its gradient is 0. */
export const sign = unary("sign")
/** The largest whole number ≤ x; its gradient is 0. */
export const floor = unary("floor")
/** −x. */
export const negate = unary("negate")
/** x². */
export const square = unary("square")

const comparison = (relation: Relation): Comparison => (x: Any, second: Any | number): Untyped => {
  const y = operand(second, x.kind)
  requireKind(relation, [x, y], x.kind === "id" ? ["id"] : ["real"])
  return make({ _tag: "Compare", relation }, [x, y], unite(relation, [["left", x], ["right", y]]), "truth")
}

/** x = y. */
export const equal: Comparison = comparison("equal")
/** x < y. */
export const less: Comparison = comparison("less")
/** x ≤ y. */
export const lessEqual: Comparison = comparison("lessEqual")

const logic = (fn: "and" | "or") => <A extends string, B extends string>(
  x: Tensor<A, "truth">, y: Tensor<B, "truth">
): Tensor<NoInfer<A> | NoInfer<B>, "truth"> => {
  requireKind(fn, [x, y], ["truth"])
  return make({ _tag: "Logic", function: fn }, [x, y], unite(fn, [["left", x], ["right", y]]), "truth")
}

/** Both hold. */
export const and = logic("and")
/** One or both hold. */
export const or = logic("or")

/** It does not hold. */
export const not = <A extends string>(x: Tensor<A, "truth">): Tensor<A, "truth"> => {
  requireKind("not", [x], ["truth"])
  return make({ _tag: "Logic", function: "not" }, [x], x.sizes, "truth")
}

/**
 * `x` where the condition holds, `y` elsewhere.
 *
 * Gradients flow through the chosen branch only; but 0 · ∞ is NaN, so guard the *input* of a branch that can overflow.
 */
export const select = <C extends string, A extends string = never, B extends string = never>(
  condition: Tensor<C, "truth">, x: Tensor<A> | number, y: Tensor<B> | number
): Tensor<NoInfer<A> | NoInfer<B> | NoInfer<C>> => {
  const branches = [operand(x, "real"), operand(y, "real")] as const
  requireKind("select", [condition], ["truth"])
  requireKind("select", branches, ["real"])
  const sizes = unite("select", [["condition", condition], ["then", branches[0]], ["else", branches[1]]])
  return make({ _tag: "Select" }, [condition, ...branches], sizes, "real")
}

/**
 * As real numbers: truths as 0 and 1, ids (exact up to 2²⁴ in float32), and codes. No gradient flows through any of
 * these. A real tensor is returned as it is.
 */
export const real = <A extends string>(x: Tensor<A, Kind>): Tensor<A> =>
  x.kind === "real" ? x as Untyped : make({ _tag: "Convert" }, [x], x.sizes, "real")

/** Real numbers as ids: the fraction is cut off, towards zero. No gradient flows through it. */
export const toIds = <A extends string>(x: Tensor<A>): Tensor<A, "id"> => {
  requireKind("toIds", [x], ["real"])
  return make({ _tag: "Convert" }, [x], x.sizes, "id")
}

/** The same value, through which no gradient flows. */
export const stopGradient = <A extends string>(x: Tensor<A>): Tensor<A> =>
  make({ _tag: "StopGradient" }, [x], x.sizes, "real")

/**
 * The same value under a name, which a program can be compiled to `watch`; the full name is the place and this name.
 *
 * A label costs nothing unless it is watched. Different values of one full name are told apart by numbers (`x`, `x·2`).
 */
export const label = (name: string) => <A extends string, K extends Kind>(x: Tensor<A, K>): Tensor<A, K> =>
  make({ _tag: "Label", name: x.place === "" ? name : `${x.place}.${name}` }, [x], x.sizes, x.kind)
