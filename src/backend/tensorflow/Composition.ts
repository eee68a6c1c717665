/**
 * How many kernels of an engine each primitive takes: what `capabilities.primitives` says, found by running the table
 * of kernels itself over tensors that hold nothing, on an engine that computes nothing and counts.
 *
 * A few cases of each primitive are tried; the one that takes the most decides. Reshapes move nothing and do not count.
 *
 * From     Cria's own.
 * Checked  test/backend/tensorflow/Composition.test.ts (against every case on which the laws try primitives).
 *
 * @module
 */
import type { Primitive } from "../../tensor/Instruction.ts"
import type { BinaryFunction, Kind, Relation, UnaryFunction } from "../../tensor/Node.ts"
import type { DataType, Engine, Name, Tensor } from "./Engine.ts"
import { step } from "./Kernel.ts"
import type { Operand } from "./Piece.ts"
import { binaries, relations, unaries } from "./Pointwise.ts"
import type { Shape } from "./Shape.ts"

/** What a step did: kernels that it ran, and tensors that the host made for it. */
export interface Work {
  readonly kernels: number
  readonly uploads: number
}

/** How a primitive is run. */
export type Way = "native" | "composed" | "fallback"

/** What work is called: what the host made without any kernel is its own. */
export const wayOf = ({ kernels, uploads }: Work): Way =>
  kernels === 0 && uploads > 0 ? "fallback" : kernels + uploads > 1 ? "composed" : "native"

/** A tensor that holds nothing. */
const blank = (shape: Shape, dtype: DataType): Tensor => ({
  dataId: {}, shape, dtype, data: () => Promise.resolve(new Float32Array(0)), dataSync: () => new Float32Array(0),
  dispose: () => {}
})

/** What the step of a primitive does on an engine; constants are uploaded when a program is compiled, and free. */
export const workOf = (
  name: Name, primitive: Primitive, operands: ReadonlyArray<Operand>, outputs: ReadonlyArray<Operand>
): Work => {
  let [kernels, uploads] = [0, 0]
  const one = (kernel: string): Tensor => {
    if (kernel !== "Reshape") kernels++
    return blank([], "float32")
  }
  const engine: Engine = {
    name, version: "", threads: 1, device: undefined, isSynchronous: true, activate: () => {}, run: one, join: one,
    split: (kernel) => [one(kernel), ...outputs.slice(1).map(() => blank([], "int32"))],
    upload: (_, shape, type) => {
      uploads++
      return blank(shape, type)
    },
    tidy: (body) => body(), memory: () => ({ numTensors: 0, numDataBuffers: 0 }), complaints: () => []
  }
  const run = step({ engine, constant: (_, shape, type) => blank(shape, type) }, primitive, operands, outputs)
  run(operands.map(({ shape }) => blank(shape, "float32")))
  return { kernels, uploads }
}

/** A case: a primitive, what it takes and what it gives. */
type Case = readonly [primitive: Primitive, operands: ReadonlyArray<Operand>, outputs: ReadonlyArray<Operand>]

const of = (kind: Kind) => (...shape: ReadonlyArray<number>): Operand => ({ kind, shape })
const [real, id, truth] = [of("real"), of("id"), of("truth")]

const [matrix, cube] = [real(3, 2), real(2, 3, 4)]

/** Keys of a record, as it has them. */
const keys = <K extends string>(record: Readonly<Record<K, unknown>>): ReadonlyArray<K> => {
  const has = (key: string): key is K => key in record
  return Object.keys(record).filter(has)
}

const functions: ReadonlyArray<readonly [name: string, cases: ReadonlyArray<Case>]> = [
  ...keys<UnaryFunction>(unaries).map((name) =>
    [`unary ${name}`, [[{ _tag: "unary", function: name }, [matrix], [matrix]]]] as const),
  ...keys<BinaryFunction>(binaries).map((name) =>
    [`binary ${name}`, [[{ _tag: "binary", function: name }, [matrix, matrix], [matrix]]]] as const),
  ...keys<Relation>(relations).map((relation) =>
    [`compare ${relation}`, [[{ _tag: "compare", relation }, [matrix, matrix], [truth(3, 2)]]]] as const),
  ...(["and", "or", "not"] as const).map((name) =>
    [`logic ${name}`, [[{ _tag: "logic", function: name }, [truth(2), truth(2)], [truth(2)]]]] as const)
]

const product = { _tag: "matmul", transposeLeft: false, transposeRight: false } as const

/** The cases of every primitive: the plainest, and those whose kernels are others. */
const cases: ReadonlyArray<readonly [name: string, cases: ReadonlyArray<Case>]> = [
  ...functions,
  ["select", [[{ _tag: "select" }, [truth(3, 1), matrix, matrix], [matrix]]]],
  ["convert", [
    [{ _tag: "convert", to: "real" }, [id(2)], [real(2)]], [{ _tag: "convert", to: "id" }, [real(2)], [id(2)]]
  ]],
  ...(["sum", "max"] as const).map((name) => [`reduce ${name}`, [
    [{ _tag: "reduce", function: name, axes: [0, 2] }, [cube], [real(3)]],
    [{ _tag: "reduce", function: name, axes: [0] }, [real(1000)], [real()]]
  ]] as const),
  ["matmul", [[{ ...product, scale: 2 }, [real(2, 40, 40), real(2, 40, 40)], [real(2, 40, 40)]]]],
  ["transpose", [
    [{ _tag: "transpose", permutation: [1, 0] }, [matrix], [real(2, 3)]],
    [{ _tag: "transpose", permutation: [1, 0] }, [id(3, 2)], [id(2, 3)]]
  ]],
  ["reshape", [[{ _tag: "reshape" }, [matrix], [real(6)]]]],
  ["expand", [[{ _tag: "expand" }, [real(3, 1)], [matrix]]]],
  ["slice", [[{ _tag: "slice", axis: 1, start: 0, end: 1 }, [matrix], [real(3, 1)]]]],
  ["pad", [[{ _tag: "pad", axis: 1, before: 1, after: 0 }, [matrix], [real(3, 3)]]]],
  ["concat", [[{ _tag: "concat", axis: 1 }, [matrix, matrix], [real(3, 4)]]]],
  ["gather", [
    [{ _tag: "gather", batch: 0, axis: 0 }, [matrix, id(4)], [real(4, 2)]],
    [{ _tag: "gather", batch: 1, axis: 1 }, [matrix, id(3, 4)], [real(3, 4)]]
  ]],
  ...(["set", "add"] as const).map((mode) => [`scatter ${mode}`, [
    [{ _tag: "scatter", batch: 0, axis: 0, mode }, [matrix, id(4), real(4, 2)], [matrix]],
    [{ _tag: "scatter", batch: 1, axis: 1, mode }, [matrix, id(3, 4), real(3, 4)], [matrix]]
  ]] as const),
  ["topK", [[{ _tag: "topK", count: 1 }, [matrix], [real(3, 1), id(3, 1)]]]],
  ["cumulativeSum", [[{ _tag: "cumulativeSum", axis: 1, reverse: true }, [matrix], [matrix]]]],
  ["barrier", [[{ _tag: "barrier" }, [matrix, matrix], [matrix]]]]
]

/** The primitives that are not one kernel of an engine, by name. */
export const primitives = (engine: Name): Readonly<Record<string, "composed" | "fallback">> =>
  Object.fromEntries(cases.flatMap(([name, tried]): ReadonlyArray<readonly [string, "composed" | "fallback"]> => {
    const ways = tried.map((each) => wayOf(workOf(engine, ...each)))
    if (ways.includes("fallback")) return [[name, "fallback"]]
    return ways.includes("composed") ? [[name, "composed"]] : []
  }))
