/**
 * Cells as tensors of a snapshot, and back: bit for bit.
 *
 * From     Cria's own.
 * Checked  test/recipe/CellSnapshot.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type AnyCell, Backend, type BackendError, type Elements } from "../backend/Backend.ts"
import { isCell, storageOf } from "../backend/HostState.ts"
import type * as Safetensors from "../format/Safetensors.ts"
import { describe } from "../tensor/Node.ts"
import { entries } from "../tensor/Tree.ts"

/** Fails when the tensors of a snapshot are not those of the model; names all differences at once. */
export class TensorMismatchError extends Schema.TaggedError<TensorMismatchError>()("TensorMismatchError", {
  snapshot: Schema.String,
  faults: Schema.Array(Schema.String)
}) {
  override get message() {
    return [
      `${this.snapshot}: its tensors must be those of the model`,
      ...this.faults.map((fault) => `  ${fault}`),
      "It was saved with another configuration, or by another version: resume with the configuration in its manifest."
    ].join("\n")
  }
}

const dtypes = { f32: "F32", f64: "F64", id: "I32", truth: "BOOL", code: "U8" } as const

const dtypeOf = ({ kind, precision }: AnyCell): Safetensors.Dtype => dtypes[storageOf(kind, precision)]

/** The elements of a tensor of one of the types in which cells are saved, as a copy. */
export const elementsOf = (dtype: Safetensors.Dtype, bytes: Uint8Array): Elements => {
  const memory = bytes.slice().buffer
  return dtype === "F32" ? new Float32Array(memory) : dtype === "F64" ? new Float64Array(memory)
    : dtype === "I32" ? new Int32Array(memory) : new Uint8Array(memory)
}

/** The cells of a tree as tensors to be written, each read from the backend when its turn comes. */
export const toTensors = (
  cells: unknown
): Effect.Effect<ReadonlyArray<Safetensors.Source<BackendError>>, never, Backend> =>
  Effect.map(Backend, (backend) => entries(cells, isCell).map(([name, cell]) => ({
    name,
    dtype: dtypeOf(cell),
    shape: Object.values(cell.sizes),
    bytes: Effect.map(backend.read(cell), ({ elements }) =>
      new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength))
  })))

/** Writes the tensors of a snapshot into the cells of a tree. If one does not fit, nothing is written. */
export const fromTensors = Effect.fnUntraced(function*(
  snapshot: string, tensors: ReadonlyArray<Safetensors.Tensor>, cells: unknown
): Effect.fn.Return<void, TensorMismatchError | BackendError, Backend> {
  const backend = yield* Backend
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]))
  const wanted = entries(cells, isCell)
  const known = new Set(wanted.map(([name]) => name))
  const faults = [
    ...wanted.flatMap(([name, cell]) => {
      const tensor = byName.get(name)
      const expected = `${dtypeOf(cell)} ${describe(cell.sizes)}`
      if (tensor === undefined) return [`${name} is missing; the model has ${expected}`]
      const same = tensor.dtype === dtypeOf(cell) && tensor.shape.join() === Object.values(cell.sizes).join()
      return same ? [] : [`${name} is ${tensor.dtype} [${tensor.shape.join(", ")}]; the model has ${expected}`]
    }),
    ...tensors.filter(({ name }) => !known.has(name)).map(({ name }) => `${name} is not in the model`)
  ]
  if (faults.length > 0) return yield* new TensorMismatchError({ snapshot, faults })
  for (const [name, cell] of wanted) {
    const tensor = byName.get(name)
    if (tensor !== undefined) yield* backend.write(cell, elementsOf(tensor.dtype, tensor.bytes))
  }
})
