/**
 * Functions, comparisons and choices element by element, and the broadcasts that they need.
 *
 * What an engine does other than the reference is composed of kernels that do as it does:
 *
 * - cpu, wasm, webgpu: the sign of NaN is 0, so sign is made of comparisons;
 * - wasm: the larger of a number and NaN is the number;
 * - webgpu: sine and cosine are good to three digits, a negative power of 0 is 0, the sigmoid of NaN is 0.
 *
 * From     Cria's own; TensorFlow.js 4.22, as measured.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts (every primitive, on every engine that starts, against the
 *          reference).
 *
 * @module
 */
import type { BinaryFunction, Relation, UnaryFunction } from "../../tensor/Node.ts"
import type { Elements } from "../Backend.ts"
import { chain, type Map1, type Map2, most, type Operand, type Pieces, reshaped, type Step } from "./Piece.ts"
import { broadcasting, same, type Shape, total } from "./Shape.ts"

/** Kernels of functions of one operand. */
export const unaries: Record<UnaryFunction, string> = {
  exp: "Exp", log: "Log", sqrt: "Sqrt", rsqrt: "Rsqrt", reciprocal: "Reciprocal", sin: "Sin", cos: "Cos",
  tanh: "Tanh", sigmoid: "Sigmoid", abs: "Abs", sign: "Sign", floor: "Floor", negate: "Neg", square: "Square"
}

/** Kernels of functions of two operands. */
export const binaries: Record<BinaryFunction, string> = {
  add: "Add", subtract: "Sub", multiply: "Multiply", divide: "RealDiv", maximum: "Maximum", minimum: "Minimum",
  power: "Pow"
}

/** Kernels of relations. */
export const relations: Record<Relation, string> = { equal: "Equal", less: "Less", lessEqual: "LessEqual" }

/** A function of one operand. */
export const unary = (p: Pieces, name: UnaryFunction): Map1 => {
  const { engine, join, map, number, select } = p
  const plain = map(unaries[name])
  const isGpu = engine.name === "webgpu"
  if (name === "sign" && !engine.name.startsWith("node")) {
    const [zero, cast, less, greater] = [number(0), map("Cast", { dtype: "float32" }), join("Less"), join("Greater")]
    const [subtract, equal] = [join("Sub"), join("Equal")]
    return (x) => engine.tidy(() =>
      select(equal(x, x), subtract(cast(greater(x, zero)), cast(less(x, zero))), x))
  }
  if (name === "sigmoid" && isGpu) {
    const [one, negate, exp, add, reciprocal] = [number(1), map("Neg"), map("Exp"), join("Add"), map("Reciprocal")]
    return (x) => engine.tidy(() => reciprocal(add(exp(negate(x)), one)))
  }
  return (name === "sin" || name === "cos") && isGpu ? circular(p, name) : plain
}

/**
 * Sine and cosine of what any float32 of moderate size holds, with π in three parts; a short range, and a short series.
 *
 *     sin x = (−1)ⁿ sin r    cos x = (−1)ⁿ cos r    r = x − nπ    n = ⌊x/π + ½⌋
 */
const circular = ({ engine, join, map, number }: Pieces, name: "sin" | "cos"): Map1 => {
  const [add, subtract, multiply, floor] = [join("Add"), join("Sub"), join("Multiply"), map("Floor")]
  const [part, ...parts] = [3.140625, 9.670257568359375e-4, 6.277114152908325e-7].map(number)
  const [first, ...rest] = series[name].map(number)
  const [inverse, half, two, one] = [number(1 / Math.PI), number(0.5), number(2), number(1)]
  if (part === undefined || first === undefined) throw new TypeError("π has parts, and a series has terms")
  return (x) => engine.tidy(() => {
    const turns = floor(add(multiply(x, inverse), half))
    const r = parts.reduce((left, part) => subtract(left, multiply(turns, part)), subtract(x, multiply(turns, part)))
    const square = multiply(r, r)
    const odd = subtract(turns, multiply(floor(multiply(turns, half)), two)) // 0 or 1
    const sign = subtract(one, multiply(odd, two))
    const [second, ...others] = rest
    if (second === undefined) return sign
    const sum = others.reduce((sum, term) => add(multiply(sum, square), term), add(multiply(square, first), second))
    return multiply(name === "sin" ? multiply(sum, r) : sum, sign)
  })
}

/** ∓1/n!, the highest power first. */
const series = {
  sin: [1 / 6227020800, -1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1],
  cos: [1 / 479001600, -1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1]
}

const isNumber = (operand: Operand | undefined): boolean => operand?.fill !== undefined && !Number.isNaN(operand.fill)

/** A function of two operands of the same or broadcast shapes. */
export const binary = (p: Pieces, name: BinaryFunction, x: Operand | undefined, y: Operand | undefined): Map2 => {
  const { engine, join, map, number, select } = p
  const plain = join(binaries[name])
  if (name === "power" && engine.name === "webgpu") {
    const [less, abs, reciprocal, add] = [join("Less"), map("Abs"), map("Reciprocal"), join("Add")]
    const zero = number(0)
    return (a, b) => engine.tidy(() => {
      const power = plain(a, abs(b))
      const isInverse = less(add(b, engine.run("ZerosLike", { x: power })), zero)
      return select(isInverse, reciprocal(power), power)
    })
  }
  if (engine.name !== "wasm" || x?.kind !== "real" || (name !== "maximum" && name !== "minimum")) return plain
  if (isNumber(y)) return plain // NaN is lost where it is the second operand
  if (isNumber(x)) return (a, b) => plain(b, a)
  const [equal, add] = [join("Equal"), join("Add")]
  return (a, b) => engine.tidy(() => {
    const larger = plain(a, b)
    const right = add(b, engine.run("ZerosLike", { x: larger }))
    return select(equal(right, right), larger, right)
  })
}

/** A function of two operands that broadcast, over as few axes as can be. */
export const broadcast = (p: Pieces, f: Map2, [x, y]: readonly [Operand, Operand], output: Shape): Map2 => {
  if (output.length <= most) return f
  const few = broadcasting([x.shape, y.shape], output)
  const fits = few.output.length <= most
  const flat = fits ? few.output : [total(output)]
  const [left, right] = [x, y].map(({ shape }, i) => chain(p, fits
    ? reshaped(p, shape, few.operands[i] ?? [])
    : [expand(p, shape, output), p.reshape(flat)]))
  const back = p.reshape(output)
  if (left === undefined || right === undefined) return f
  return (a, b) => p.engine.tidy(() => back(f(left(a), right(b))))
}

/** Repeats along the axes of size 1 (or missing ones) that are longer in the output. */
export const expand = (p: Pieces, from: Shape, to: Shape): Map1 => {
  const { operands: [few = []], output } = broadcasting([from], to)
  if (same(few, output)) return chain(p, reshaped(p, from, to))
  if (p.engine.name === "cpu" || p.engine.name === "wasm") return repeat(p, few, output, to)
  if (output.length <= most) {
    return chain(p, [
      ...reshaped(p, from, few), p.map("Tile", { reps: output.map((size, axis) => few[axis] === 1 ? size : 1) }),
      ...reshaped(p, output, to)
    ])
  }
  const steps = output.flatMap((size, axis): ReadonlyArray<Map1> => {
    if (few[axis] !== 1) return []
    const [outer, inner] = [total(output.slice(0, axis)), total(few.slice(axis + 1))]
    return [p.reshape([outer, 1, inner]), p.map("Tile", { reps: [1, size, 1] })]
  })
  return chain(p, [...steps, p.reshape(to)])
}

/** The same by the host, on the engines that share its memory: their kernel finds each element on its own. */
const repeat = ({ engine }: Pieces, few: Shape, output: Shape, to: Shape): Map1 => {
  const steps = output.flatMap((size, axis) =>
    few[axis] === 1 ? [{ size, outer: total(few.slice(0, axis)), inner: total(output.slice(axis + 1)) }] : []).reverse()
  return (x) => engine.upload(
    steps.reduce((elements, { inner, outer, size }) => {
      const wider = emptyLike(elements, outer * size * inner)
      for (let i = 0; i < outer; i++) {
        if (inner === 1) {
          wider.fill(elements[i] ?? 0, i * size, (i + 1) * size)
          continue
        }
        const row = elements.subarray(i * inner, (i + 1) * inner)
        for (let k = 0; k < size; k++) wider.set(row, (i * size + k) * inner)
      }
      return wider
    }, x.dataSync()), to, x.dtype
  )
}

const emptyLike = (elements: Elements, length: number): Elements =>
  elements instanceof Float32Array
    ? new Float32Array(length)
    : elements instanceof Int32Array ? new Int32Array(length) : new Uint8Array(length)

/** A choice between two operands, element by element. */
export const select = (p: Pieces, operands: ReadonlyArray<Operand>, output: Shape): Step => {
  const flat = output.length <= most ? output : [total(output)]
  const wide = operands.map(({ fill, shape }): Map1 | undefined => {
    if (fill !== undefined && shape.length === 0 && output.length > 0) {
      const whole = p.constant(fill, flat, "float32")
      return () => whole
    }
    return same(shape, flat) ? undefined : chain(p, same(shape, output)
      ? [p.reshape(flat)]
      : [expand(p, shape, output), ...reshaped(p, output, flat)])
  })
  const back = same(flat, output) ? undefined : p.reshape(output)
  const isPlain = back === undefined && wide.every((each) => each === undefined)
  return ([a, b, c]) => {
    if (a === undefined || b === undefined || c === undefined) return []
    if (isPlain) return [p.select(a, b, c)]
    return [p.engine.tidy(() => {
      const chosen = p.select(wide[0]?.(a) ?? a, wide[1]?.(b) ?? b, wide[2]?.(c) ?? c)
      return back === undefined ? chosen : back(chosen)
    })]
  }
}
