/**
 * Gather and scatter. No engine has them over batches, nor adds to a base: ids are moved to rows of one table.
 *
 * From     Cria's own; TensorFlow.js 4.22, as measured.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts (every primitive, on every engine that starts, against the
 *          reference).
 *
 * @module
 */
import type { Tensor } from "./Engine.ts"
import { inTwo, type Map1, type Of, type Operand, type Pieces, type Step } from "./Piece.ts"
import { around, total } from "./Shape.ts"

/** With batches, rows of one table: the id of a row counts from the start of its batch and outer index. */
export const gather = (
  p: Pieces, { axis, batch }: Of<"gather">, table: Operand, ids: Operand, output: Operand
): Step => {
  const { engine, join, reshape } = p
  const batches = total(table.shape.slice(0, batch))
  const outer = total(table.shape.slice(batch, axis))
  const [, size, rest] = around(table.shape, axis)
  const count = total(ids.shape) / batches
  const back = reshape(output.shape)
  const attributes = { axis: batches === 1 && outer > 1 ? 1 : 0, batchDims: 0 }
  const [turn, turnIds] = batches > 1
    ? [reshape([batches * outer * size, rest]), reshape([batches, 1, count])]
    : [reshape(outer > 1 ? [outer, size, rest] : [size, rest]), reshape([count])]
  if (batches === 1) {
    return inTwo((x, ids) => engine.tidy(() =>
      back(engine.run("GatherV2", { x: turn(x), indices: turnIds(ids) }, attributes))))
  }
  const [offsets, add, asRows] = [rowStarts(p, batches, outer, size), join("Add"), reshape([batches * outer * count])]
  return inTwo((x, ids) => engine.tidy(() =>
    back(engine.run("GatherV2", { x: turn(x), indices: asRows(add(turnIds(ids), offsets)) }, attributes))))
}

/** Where the rows of each batch and outer index start, in one table of them all. */
const rowStarts = (p: Pieces, batches: number, outer: number, size: number): Tensor =>
  p.constant(Int32Array.from({ length: batches * outer }, (_, i) => i * size), [batches, outer, 1], "int32")

/** Rows of one table [batch · outer · k, rest]: the id of a row counts from the start of its batch and outer index. */
export const scatter = (
  p: Pieces, { axis, batch, mode }: Of<"scatter">, base: Operand, ids: Operand, output: Operand
): Step => {
  const { engine, join, reshape } = p
  const batches = total(output.shape.slice(0, batch)) // the base may have come without axes
  const outer = total(output.shape.slice(batch, axis))
  const [, size, rest] = around(output.shape, axis)
  const count = total(ids.shape) / batches
  const rows = [batches * outer * size, rest]
  const [asTable, asRows] = [reshape(rows), reshape([batches * outer * count, rest])]
  const [asIds, asIndices] = [reshape([batches, 1, count]), reshape([batches * outer * count, 1])]
  const offsets = batches * outer > 1 ? rowStarts(p, batches, outer, size) : undefined
  const [add, back] = [join("Add"), reshape(output.shape)]
  const isBare = base.fill === 0 && mode === "add"
  // the kernel of the cpu engine writes into the tensor that it is given
  const [copy, one] = [join("Multiply"), p.number(1)]
  const fresh: Map1 = engine.name === "cpu" ? (tensor) => copy(tensor, one) : (tensor) => tensor
  return ([x, indices, values]) => {
    if (x === undefined || indices === undefined || values === undefined) return []
    return [engine.tidy(() => {
      const places = asIndices(offsets === undefined ? indices : add(asIds(indices), offsets))
      const updates = asRows(values)
      if (mode === "set") {
        const table = asTable(fresh(x))
        return back(engine.run("TensorScatterUpdate", { tensor: table, indices: places, updates }))
      }
      const sums = back(engine.run("ScatterNd", { indices: places, updates }, { shape: rows }))
      return isBare ? sums : add(x, sums)
    })]
  }
}
