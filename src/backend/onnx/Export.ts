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
import { lower, type Program } from "../../tensor/Program.ts"
import { cellName, emit, inputName, outputName } from "./Emit.ts"
import { elementCount, encodeModel, type External, type Graph } from "./ModelProto.ts"

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
  readonly cells: ReadonlyArray<External & { readonly path: string }>
}

/** The bytes of the model, and where its cells go in the file of data. */
const encode = <I, S, O>(program: Program<I, S, O>): Exported => {
  const lowered = lower(program, { hasKernel: () => false, watch: [] })
  const { graph } = emit(lowered, "f32", new Map())
  const paths = new Map(lowered.cells.map((port) => [cellName(port), port.name]))
  const names = new Map([
    ...lowered.inputs.map((port) => [inputName(port), port.name] as const),
    ...lowered.outputs.map((port) => [outputName(port), port.name] as const), ...paths
  ])
  const inner = new Set(graph.nodes.flatMap(({ outputs }) => outputs))
  const named = (name: string): string => {
    const own = names.get(name)
    return own === undefined ? name : inner.has(own) ? `_${own}` : own // a name that the graph has made for itself
  }
  let end = 0
  const cells = graph.inputs.flatMap((value) => {
    const path = paths.get(value.name)
    if (path === undefined) return []
    const offset = Math.ceil(end / alignment) * alignment
    const length = 4 * elementCount(value.sizes)
    end = offset + length
    return [{ ...value, name: named(value.name), path, location: dataName, offset, length }]
  })
  const inputs = graph.inputs.filter(({ name }) => !paths.has(name))
  return {
    cells,
    model: encodeModel({ ...renamed({ ...graph, inputs }, named), externals: cells })
  }
}

/** A graph whose values have other names. */
const renamed = (graph: Graph, named: (name: string) => string): Graph => ({
  ...graph,
  nodes: graph.nodes.map((node) => ({
    ...node,
    inputs: node.inputs.map(named),
    outputs: node.outputs.map(named),
    attributes: Object.fromEntries(Object.entries(node.attributes ?? {}).map(([key, attribute]) =>
      [key, "graph" in attribute ? { graph: renamed(attribute.graph, named) } : attribute]))
  })),
  inputs: graph.inputs.map((value) => ({ ...value, name: named(value.name) })),
  outputs: graph.outputs.map((value) => ({ ...value, name: named(value.name) }))
})

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
