/**
 * Each primitive as kernels of TensorFlow.js: a closure over tensors, made once when a program is compiled.
 *
 * Shapes are merged to few axes before they reach a kernel. What an engine has no kernel for, or has one that departs
 * from the reference, is composed of kernels that it has: see the modules that this one gathers.
 *
 * From     Cria's own; TensorFlow.js 4.22, as measured.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts (every primitive, on every engine that starts, against the
 *          reference).
 * Departs  reals that fit no 32-bit integer become some id, where the reference faults.
 *
 * @module
 */
import type { Primitive } from "../../tensor/Instruction.ts"
import type { Kind } from "../../tensor/Node.ts"
import { gather, scatter } from "./Indexing.ts"
import { concat, transpose } from "./Movement.ts"
import {
  chain, type Device, inOne, inTwo, type Map1, type Operand, type Pieces, pieces, reshaped, type Step, typeOf
} from "./Piece.ts"
import { binary, broadcast, expand, relations, select, unary } from "./Pointwise.ts"
import { matmul } from "./Product.ts"
import { reduce } from "./Reduction.ts"
import { around, total } from "./Shape.ts"

/** On webgpu a cast to real numbers keeps the integers, under another name, at which later kernels stumble. */
const convert = (p: Pieces, to: Kind): Map1 => {
  const cast = p.map("Cast", { dtype: typeOf(to) })
  if (p.engine.name !== "webgpu" || to !== "real") return cast
  const [multiply, one] = [p.join("Multiply"), p.number(1)]
  return chain(p, [cast, (x) => multiply(x, one)])
}

/** The step of a primitive, for operands of known shapes, none of them and no output without elements. */
export const step = (
  device: Device, primitive: Primitive, operands: ReadonlyArray<Operand>, outputs: ReadonlyArray<Operand>
): Step => {
  const p = pieces(device)
  const [x, y] = operands
  const [output] = outputs
  if (output === undefined) throw new TypeError(`${primitive._tag} gives nothing`)
  const operand = (index: number): Operand => {
    const found = operands[index]
    if (found === undefined) throw new TypeError(`${primitive._tag} lacks operand ${index}`)
    return found
  }
  switch (primitive._tag) {
    case "unary":
      return inOne(unary(p, primitive.function))
    case "binary":
      return inTwo(broadcast(p, binary(p, primitive.function, x, y), [operand(0), operand(1)], output.shape))
    case "compare":
      return inTwo(broadcast(p, p.join(relations[primitive.relation]), [operand(0), operand(1)], output.shape))
    case "logic":
      return primitive.function === "not"
        ? inOne(p.map("LogicalNot"))
        : inTwo(broadcast(p, p.join(primitive.function === "and" ? "LogicalAnd" : "LogicalOr"),
          [operand(0), operand(1)], output.shape))
    case "select":
      return select(p, operands, output.shape)
    case "convert":
      return inOne(convert(p, primitive.to))
    case "reduce":
      return inOne(reduce(p, primitive.function === "sum" ? "Sum" : "Max", operand(0).shape, primitive.axes,
        output.shape))
    case "matmul":
      return matmul(p, primitive, operand(0), operand(1), output)
    case "transpose":
      return inOne(transpose(p, operand(0), primitive.permutation, output.shape))
    case "reshape":
      return inOne(p.reshape(output.shape))
    case "barrier":
      return inOne(p.map("Identity"))
    case "expand":
      return inOne(expand(p, operand(0).shape, output.shape))
    case "slice": {
      const [outer, size, inner] = around(operand(0).shape, primitive.axis)
      const begin = [0, primitive.start * inner]
      return inOne(chain(p, [
        ...reshaped(p, operand(0).shape, [outer, size * inner]),
        p.map("Slice", { begin, size: [outer, (primitive.end - primitive.start) * inner] }),
        ...reshaped(p, [outer, (primitive.end - primitive.start) * inner], output.shape)
      ]))
    }
    case "pad": {
      const [outer, size, inner] = around(operand(0).shape, primitive.axis)
      const paddings = [[0, 0], [primitive.before * inner, primitive.after * inner]]
      const widened = [outer, (primitive.before + size + primitive.after) * inner]
      return inOne(chain(p, [
        ...reshaped(p, operand(0).shape, [outer, size * inner]),
        p.map("PadV2", { paddings, constantValue: 0 }),
        ...reshaped(p, widened, output.shape)
      ]))
    }
    case "concat":
      return concat(p, primitive.axis, operands, output)
    case "gather":
      return gather(p, primitive, operand(0), operand(1), output)
    case "scatter":
      return scatter(p, primitive, operand(0), operand(1), output)
    case "topK": {
      const rows = [total(output.shape) / primitive.count, operand(0).shape.at(-1) ?? 1]
      return ([a]) => {
        if (a === undefined) return []
        const flat = p.engine.run("Reshape", { x: a }, { shape: rows })
        const parts = p.engine.split("TopK", { x: flat }, { k: primitive.count, sorted: true })
        flat.dispose()
        return parts.map((part) => {
          const shaped = p.engine.run("Reshape", { x: part }, { shape: output.shape })
          part.dispose()
          return shaped
        })
      }
    }
    case "cumulativeSum": {
      const rows = around(operand(0).shape, primitive.axis)
      // the webgpu kernel sums from the end as far as the first such axis that it met was long
      const turn = primitive.reverse && p.engine.name === "webgpu" ? [p.map("Reverse", { dims: [1] })] : []
      const reverse = primitive.reverse && turn.length === 0
      return inOne(chain(p, [
        ...reshaped(p, operand(0).shape, rows), ...turn,
        p.map("Cumsum", { axis: 1, exclusive: false, reverse }),
        ...turn, ...reshaped(p, rows, output.shape)
      ]))
    }
    case "constant":
    case "composite":
      throw new TypeError(`${primitive._tag} is no kernel`)
  }
}
