/**
 * Checkpoints: trained models in files of Cria and of others, opened by path, read parameter by parameter.
 *
 *     run or snapshot of Cria · folder of Hugging Face · folder of Meta · GGUF · llama2.c
 *
 * Opening reads headers and descriptions alone. It says what the model is, and that its tensors are all there with the
 * right sizes; every key of a description is understood or refused by name. A parameter is read when it is asked for,
 * with its axes in Cria's order, so that no more than one is in memory besides those that are kept.
 *
 * From     Cria's own; formats and names are those of llama/checkpoint.
 * Checked  test/llama/Checkpoint.test.ts (every format, every refusal); test/parity/Checkpoint.test.ts (logits of
 *          Hugging Face's Llamas); test/parity/Stories.test.ts (llama2.c's stories).
 * Departs  files that only Python's pickle holds whole (`pytorch_model.bin`) are not read.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type * as Path from "effect/Path"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { Backend, type BackendError } from "../backend/Backend.ts"
import { isCell } from "../backend/HostState.ts"
import * as TensorFile from "../format/TensorFile.ts"
import type * as Snapshot from "../store/Snapshot.ts"
import { describe } from "../tensor/Node.ts"
import { entries } from "../tensor/Tree.ts"
import {
  type CheckpointConfigError, type CheckpointFormatError, CheckpointMemoryError, CheckpointTensorError,
  type MemoryPart, PieceCountError
} from "./checkpoint/CheckpointError.ts"
import * as Folder from "./checkpoint/Folder.ts"
import { joined, type Place, places, type Reals, reordered } from "./checkpoint/Layout.ts"
import { make as piecesOf, type Pieces } from "./checkpoint/Pieces.ts"
import type { Config } from "./Config.ts"

export type { Pieces }

/** The forms of checkpoints. */
export type Format = Folder.Opened["format"]

/** How a parameter is stored. */
export interface Stored {
  readonly name: string
  readonly type: TensorFile.Type
  readonly sizes: ReadonlyArray<number>
  /** In all shards together. */
  readonly bytes: number
}

/** An open checkpoint; it closes with the Scope in which it was opened. */
export interface Checkpoint {
  readonly format: Format
  readonly path: string
  readonly config: Config
  /** The head is the embedding, and stored once. */
  readonly isTied: boolean
  /** How each parameter is stored, by our path, such as `block.3.attention.query`. */
  readonly parameters: ReadonlyMap<string, Stored>
  /** A parameter by our path, in the order of our axes. Fails for unknown paths. */
  readonly read: (path: string) => Effect.Effect<Reals, TensorFile.Failure | CheckpointTensorError>
  /** The same in pieces, in the order of the file; none of what is kept in F64. Fails for unknown paths. */
  readonly pieces: (path: string) => Effect.Effect<Pieces | undefined, CheckpointTensorError>
  /** The tokenizer, where the checkpoint has one, and which function of it is meant. */
  readonly tokenizer: Folder.Opened["tokenizer"]
  /**
   * How text is generated, where the checkpoint says it: folders of Hugging Face do, and of Cria that were made of
   * them. Read and judged when it is run; keys that are decided otherwise are neither judged nor given.
   */
  readonly generation: Folder.Opened["generation"]
  /** The `generation_config.json` that says the same beside a copy of the model. */
  readonly generationConfig: Folder.Opened["generationConfig"]
}

/** Why a checkpoint cannot be opened. */
export type OpenError =
  | CheckpointFormatError | CheckpointConfigError | CheckpointTensorError | TensorFile.TensorFileError
  | Snapshot.LoadError | Folder.TokenizerError

const shown = (sizes: ReadonlyArray<number>): string => `[${sizes.join(", ")}]`

/** What a shard of a file's tensor should measure. */
const shardSizes = ({ cut, sizes }: Place, shards: number): ReadonlyArray<number> =>
  sizes.map((size, axis) => axis === cut ? size / shards : size)

/** Everything in which the tensors are not those of the model. */
const requireTensors = (
  { computed, path, shards }: Folder.Opened, wanted: ReadonlyArray<Place>
): Effect.Effect<void, CheckpointTensorError> => {
  const known = new Set(wanted.map(({ name }) => name))
  const [missing, misfits] = [new Set<string>(), new Set<string>()]
  for (const file of shards) {
    for (const place of wanted) {
      const where = shards.length === 1 ? place.name : `${place.name} in ${file.path}`
      const entry = file.entries.get(place.name)
      const expected = shown(shardSizes(place, shards.length))
      if (entry === undefined) missing.add(`${where} ${expected}`)
      else if (shown(entry.sizes) !== expected) misfits.add(`${where} is ${shown(entry.sizes)}, not ${expected}`)
      else if (entry.type !== "F64" && TensorFile.types[entry.type].read === "bytes") {
        misfits.add(`${where} is ${entry.type}, which is not read: convert it to F32, F16, BF16, Q8_0 or Q4_0`)
      }
    }
  }
  const unknown = new Set(shards.flatMap((file) =>
    [...file.entries.keys()].filter((name) => !known.has(name) && !computed.test(name))))
  return missing.size + misfits.size + unknown.size === 0 ? Effect.void : Effect.fail(new CheckpointTensorError({
    path, missing: [...missing], unknown: [...unknown], misfits: [...misfits]
  }))
}

const tensorsOfBlock = 9

const readReals = (file: TensorFile.TensorFile, name: string): Effect.Effect<Reals, TensorFile.Failure> =>
  file.entries.get(name)?.type === "F64"
    ? Effect.map(file.readBytes(name), ({ buffer }) => new Float64Array(buffer))
    : file.read(name)

/**
 * Opens what stands at a path: the folder of a run of Cria (its newest snapshot), a snapshot, a Hugging Face folder, a
 * Meta folder, a `.gguf` or a `.bin` of llama2.c. A snapshot's checksums are verified; of others, headers are read.
 */
export const open = Effect.fnUntraced(function*(
  path: string, options: Folder.Options = {}
): Effect.fn.Return<Checkpoint, OpenError, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const opened: Folder.Opened = yield* Folder.open(path, options)
  const { config, format, generation, generationConfig, isTied, naming, shards, tokenizer } = opened
  const held = Math.max(...shards.map(({ entries }) => entries.size))
  const asked = config.layerCount * tensorsOfBlock
  if (asked > 1000 + 4 * held) { // a number that lies must not become a list
    const missing = [`${config.layerCount} blocks take at least ${asked} tensors, and there are ${held}`]
    return yield* new CheckpointTensorError({ path: opened.path, missing, unknown: [], misfits: [] })
  }
  const wanted = places(config, naming).map((place): Place =>
    isTied && place.path === "head" ? { ...place, name: naming?.names.embedding ?? "embedding", cut: 1 } : place)
  yield* requireTensors(opened, wanted)
  const byPath = new Map(wanted.map((place) => [place.path, place]))
  const parameters = new Map(wanted.map(({ name, path, sizes }): readonly [string, Stored] => {
    const parts = shards.flatMap(({ entries }) => entries.get(name) ?? [])
    const bytes = parts.reduce((sum, { bytes }) => sum + bytes, 0)
    return [path, { name, sizes, type: parts[0]?.type ?? "F32", bytes }]
  }))
  const unknown = (parameter: string): CheckpointTensorError =>
    new CheckpointTensorError({ path: opened.path, missing: [parameter], unknown: [], misfits: [] })
  const read: Checkpoint["read"] = Effect.fnUntraced(function*(parameter) {
    const place = byPath.get(parameter)
    const [first, ...others] = place?.cut === undefined ? shards.slice(0, 1) : shards
    if (place === undefined || first === undefined) return yield* unknown(parameter)
    const whole = joined([
      yield* readReals(first, place.name), ...yield* Effect.forEach(others, (file) => readReals(file, place.name))
    ], place.sizes, place.cut ?? 0)
    return reordered(whole, place.theirs, place.ours)
  })
  const pieces: Checkpoint["pieces"] = (parameter) => {
    const place = byPath.get(parameter)
    if (place === undefined) return Effect.fail(unknown(parameter))
    const isSingle = shards.every(({ entries }) => entries.get(place.name)?.type !== "F64")
    return Effect.succeed(isSingle ? piecesOf(shards, place) : undefined)
  }
  return {
    format, path: opened.path, config, isTied, parameters, read, pieces, tokenizer, generation, generationConfig
  }
})

/** Something with the parameters of a model, as checkpoints have them. */
export type Readable = Pick<Checkpoint, "config" | "path" | "read"> & Partial<Pick<Checkpoint, "pieces">>

/**
 * The model of a checkpoint over the first `pieces` of its tokens alone, as its tokenizer has them: where its
 * vocabulary was filled up beyond them, the rest gets no score, is never drawn, and takes no probability from others.
 * So everything that is done with the model holds for the smaller one. Fails where they belong to different models:
 * with more pieces than tokens, or with fewer than three for four of them; the error names the file of the tokenizer,
 * if it is given. `config` and `read` are of the smaller model; `parameters` still tells what the files hold.
 */
export const withVocabulary = <C extends Readable>(
  checkpoint: C, pieces: number, tokenizer?: string
): Result.Result<C, PieceCountError> => {
  const { config, path, pieces: whole, read } = checkpoint
  const { embedSize, vocabSize } = config
  if (pieces === vocabSize) return Result.succeed(checkpoint)
  if (pieces > vocabSize || 4 * pieces < 3 * vocabSize) {
    return Result.fail(new PieceCountError({
      path, pieces, vocabSize, ...tokenizer === undefined ? {} : { tokenizer }
    }))
  }
  const first = (parameter: string, elements: Reals): Reals => {
    if (parameter !== "embedding" && parameter !== "head") return elements
    const kept = elements.slice(0, pieces * embedSize)
    if (parameter === "embedding") return kept
    for (let row = 0; row < embedSize; row++) {
      kept.set(elements.subarray(row * vocabSize, row * vocabSize + pieces), row * pieces)
    }
    return kept
  }
  return Result.succeed({
    ...checkpoint, config: { ...config, vocabSize: pieces },
    read: (parameter: string) => Effect.map(read(parameter), (elements) => first(parameter, elements)),
    ...whole === undefined ? {} : {
      pieces: (parameter: string) =>
        parameter === "embedding" || parameter === "head" ? Effect.succeed(undefined) : whole(parameter)
    }
  })
}

/**
 * Fails if so many bytes of memory cannot hold some parts together: the weights of a checkpoint and what is needed
 * beside them. Nothing is read. For weights in float32 the part is
 * `{ bytes: 4 * parameterCount(checkpoint.config), what: "of weights in float32" }`. The error names the parts, and
 * what to take instead.
 */
export const requireMemory = (
  { path }: Pick<Checkpoint, "path">, parts: ReadonlyArray<MemoryPart>, memoryBytes: number,
  remedies: ReadonlyArray<string> = ["weights in fewer bits", "a smaller model"]
): Effect.Effect<void, CheckpointMemoryError> =>
  parts.reduce((sum, { bytes }) => sum + bytes, 0) <= memoryBytes ? Effect.void
    : Effect.fail(new CheckpointMemoryError({ path, parts, memoryBytes, remedies }))

/**
 * Writes the parameters of a checkpoint into the cells of a tree with the same paths and sizes, one by one: besides the
 * cells, one parameter is in memory. All that does not fit is told before anything is read.
 */
export const load = Effect.fnUntraced(function*(
  { config, parameters, path, read }: Omit<Checkpoint, "tokenizer">, cells: unknown
): Effect.fn.Return<void, CheckpointTensorError | TensorFile.Failure | BackendError, Backend> {
  const backend = yield* Backend
  const wanted = entries(cells, isCell)
  const ours = new Map(places(config).map((place) => [place.path, place]))
  const misfits = wanted.flatMap(([name, { sizes }]) => {
    const place = ours.get(name)
    return place === undefined || describe(place.ours) === describe(sizes) ? []
      : [`${name} is ${describe(place.ours)}; the cell has ${describe(sizes)}`]
  })
  const missing = wanted.flatMap(([name]) => parameters.has(name) ? [] : [name])
  const names = new Set(wanted.map(([name]) => name))
  const unknown = [...parameters.keys()].filter((name) => !names.has(name))
  if (missing.length + misfits.length + unknown.length > 0) {
    return yield* new CheckpointTensorError({ path, missing, unknown, misfits })
  }
  for (const [name, cell] of wanted) yield* backend.write(cell, yield* read(name))
})
