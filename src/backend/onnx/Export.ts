/**
 * A program as an ONNX model on disk, for any program that runs ONNX Runtime: operators in one file, cells in another.
 *
 *     folder / model.onnx · model.onnx.data          each cell at a multiple of 4 096 bytes of the data
 *
 * Cells become constants. They are read one by one when they are written, so that a model of any size can be exported.
 *
 * From     onnx.proto3 of ONNX: external data of a TensorProto.
 * Checked  test/backend/onnx/Export.test.ts (ONNX Runtime runs it as the backend does; message).
 * Departs  sizes are fixed, those of the program's inputs; composites are written as their decompositions, of which
 *          some products are com.microsoft's FusedMatMul.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Schema from "effect/Schema"
import * as ByteFile from "../../format/ByteFile.ts"
import type { Lowered, Port } from "../../tensor/Instruction.ts"
import { lower, type Program } from "../../tensor/Program.ts"
import { cellName, emit, inputName, outputName } from "./Emit.ts"
import { elementCount, encodeModel, type External, type Graph, type Node, type Value } from "./ModelProto.ts"

/** A program that is no function of its inputs: it replaces cells. */
export class ExportError extends Schema.TaggedError<ExportError>()("ExportError", {
  program: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `${this.program} cannot be exported: ${this.problem}\n  Export a program that reads cells and gives outputs.`
  }
}

/** Names of the files in the folder. */
export const [modelName, dataName] = ["model.onnx", "model.onnx.data"]

const alignment = 4096

interface Exported {
  readonly model: Uint8Array
  readonly cells: ReadonlyArray<Required<External> & { readonly path: string }>
}

/** The bytes of the model, and where its cells go in the file of data. */
const encode = <I, S, O>(program: Program<I, S, O>): Exported => {
  const lowered = lower(program, { hasKernel: () => false, watch: [] })
  const { graph } = emit(lowered, "f32", new Map(), "any") // some providers know no branches
  const paths = new Map(lowered.cells.map((port) => [cellName(port), port.name]))
  let end = 0
  const cells = graph.inputs.flatMap((value) => {
    const path = paths.get(value.name)
    if (path === undefined) return []
    const offset = Math.ceil(end / alignment) * alignment
    const length = 4 * elementCount(value.sizes)
    end = offset + length
    return [{ ...value, path, location: dataName, offset, length }]
  })
  const inputs = graph.inputs.filter(({ name }) => !paths.has(name))
  return { cells, model: encodeModel({ ...withPorts({ ...graph, inputs }, lowered), externals: cells }) }
}

/**
 * A graph whose inputs and outputs have the names and sizes of the program; inside they may lie in other shapes. A name
 * that the graph has made for itself gets a colon.
 */
const withPorts = (graph: Graph, lowered: Lowered): Graph => {
  const inner = new Set(graph.nodes.flatMap(({ outputs }) => outputs))
  const outer = (port: Port): string => inner.has(port.name) ? `${port.name}:` : port.name
  const shape = (name: string, sizes: ReadonlyArray<number>) => ({
    name: `${name}:shape`, type: "i64" as const, sizes: [sizes.length],
    bytes: new Uint8Array(BigInt64Array.from(sizes, BigInt).buffer)
  })
  const reshaped = (from: string, to: string): Node => ({ op: "Reshape", inputs: [from, `${to}:shape`], outputs: [to] })
  const given = graph.inputs.flatMap((value) =>
    lowered.inputs.filter((port) => inputName(port) === value.name).map((port) => ({ value, port })))
  const results = graph.outputs.flatMap((value) =>
    lowered.outputs.filter((port) => outputName(port) === value.name).map((port) => ({ value, port })))
  const sized = ({ port, value }: { readonly port: Port; readonly value: Value }): Value =>
    ({ ...value, name: outer(port), sizes: Object.values(port.sizes) })
  return {
    ...graph,
    inputs: given.map(sized),
    outputs: results.map(sized),
    nodes: [
      ...given.map(({ port, value }) => reshaped(outer(port), value.name)), ...graph.nodes,
      ...results.map(({ port, value }) => reshaped(value.name, outer(port)))
    ],
    initializers: [
      ...graph.initializers, ...given.map(({ value }) => shape(value.name, value.sizes)),
      ...results.map(({ port }) => shape(outer(port), Object.values(port.sizes)))
    ]
  }
}

/**
 * Writes a program into a folder that exists. `read` gives the elements of a cell by its path. On failure partial files
 * are left: write into a folder under a temporary name.
 */
export const write = Effect.fnUntraced(function*<I, S, O, E, R>(
  folder: string,
  program: Program<I, S, O>,
  read: (path: string) => Effect.Effect<Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>, E, R>
): Effect.fn.Return<void, ExportError | PlatformError | E, FileSystem.FileSystem | Path.Path | R> {
  const path = yield* Path.Path
  if (program.writes.length > 0) return yield* new ExportError({
    program: program.name, problem: `it replaces the cells ${program.writes.map(([name]) => name).join(", ")}`
  })
  const { cells, model } = encode(program)
  yield* ByteFile.write(path.join(folder, dataName), Effect.fnUntraced(function*(append) {
    let end = 0
    for (const { length, offset, path } of cells) {
      yield* append(new Uint8Array(offset - end))
      const elements = yield* read(path)
      const { buffer, byteLength, byteOffset } =
        elements instanceof Float32Array ? elements : Float32Array.from(elements)
      if (byteLength !== length) return yield* new ExportError({
        program: program.name, problem: `cell ${path} has ${length / 4} numbers, and ${byteLength / 4} were given`
      })
      yield* append(new Uint8Array(buffer, byteOffset, byteLength))
      end = offset + length
    }
  }))
  yield* ByteFile.write(path.join(folder, modelName), (append) => append(model))
})
