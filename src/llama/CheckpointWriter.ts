/**
 * Writing a model in the forms of others: a folder of Hugging Face or Meta, a file of llama2.c or GGUF, a folder of
 * Cria's own.
 *
 * Parameters are read one by one, brought into the order of the form, narrowed to its numbers, and written as a
 * stream. Everything is written under a temporary name beside its place, and renamed once it is on the disk: what can
 * be seen is whole. What is there already is never touched, nor what another writer of the same name writes.
 *
 * A head that equals the embedding bit for bit is stored once, as tied models are.
 *
 * From     Cria's own; formats and names are those of llama/checkpoint.
 * Checked  test/llama/CheckpointWriter.test.ts (there and back, bit for bit where the form holds the bits; every
 *          refusal; nothing is left of a write that failed); test/parity/Stories.test.ts (the same greedy text).
 * Departs  float64 parameters are rounded to float32, which all forms hold. Of Q8_0, gains are F32, and matrices whose
 *          rows are no blocks of 32 are F16, as in llama.cpp's own converter.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Result from "effect/Result"
import { Backend, type BackendError } from "../backend/Backend.ts"
import { isCell } from "../backend/HostState.ts"
import * as Float16 from "../format/Float16.ts"
import * as Gguf from "../format/Gguf.ts"
import * as Llama2c from "../format/Llama2c.ts"
import * as Quantize from "../format/Quantize.ts"
import * as Safetensors from "../format/Safetensors.ts"
import { elementCount, type Source as TensorSource } from "../format/TensorFile.ts"
import * as TorchFile from "../format/TorchFile.ts"
import * as Hash from "../random/Hash.ts"
import * as Durable from "../store/Durable.ts"
import type * as Manifest from "../store/Manifest.ts"
import * as SnapshotStore from "../store/SnapshotStore.ts"
import { entries } from "../tensor/Tree.ts"
import type { Model } from "../token/SentencePiece.ts"
import * as Tokenizer from "../token/Tokenizer.ts"
import * as TokenizerBin from "../token/TokenizerBin.ts"
import * as TokenizerConfig from "../token/TokenizerConfig.ts"
import * as TokenizerJson from "../token/TokenizerJson.ts"
import { CheckpointExistsError, CheckpointUnfitError } from "./checkpoint/CheckpointError.ts"
import * as GgufModel from "./checkpoint/GgufModel.ts"
import * as HuggingFaceModel from "./checkpoint/HuggingFaceModel.ts"
import * as Keys from "./checkpoint/Keys.ts"
import { type Naming, type Place, places, type Reals, reordered } from "./checkpoint/Layout.ts"
import * as Llama2cModel from "./checkpoint/Llama2cModel.ts"
import * as MetaModel from "./checkpoint/MetaModel.ts"
import type { Config } from "./Config.ts"

/** What is written: a checkpoint that was opened, or the cells of a model. */
export interface Source<E = never, R = never> {
  readonly config: Config
  /** A parameter by our path, in the order of our axes. */
  readonly read: (path: string) => Effect.Effect<Reals, E, R>
  readonly tokenizer: Model | undefined
  /** The text of its `generation_config.json`, which folders of Hugging Face and of Cria keep; none by default. */
  readonly generationConfig?: Effect.Effect<string | undefined, E | PlatformError, R> | undefined
}

/** The cells of a model as a source. Fails, when it is read, for a parameter that has no cell. */
export const fromCells = (
  config: Config, cells: unknown, tokenizer: Model | undefined
): Source<BackendError | CheckpointUnfitError, Backend> => {
  const byPath = new Map(entries(cells, isCell))
  return {
    config,
    tokenizer,
    read: Effect.fnUntraced(function*(path) {
      const cell = byPath.get(path)
      if (cell === undefined) return yield* missing(path)
      const { elements } = yield* (yield* Backend).read(cell)
      if (elements instanceof Float32Array || elements instanceof Float64Array) return elements.slice()
      return yield* missing(path)
    })
  }
}

const missing = (path: string) =>
  new CheckpointUnfitError({ format: "a Llama", reasons: [`the model has no parameter ${path} of real numbers`] })

/** Narrowed numbers that a file holds. */
type Type = HuggingFaceModel.Dtype

/** The greatest number of each type, and the float32 from which on rounding gives infinity. */
const limits: { readonly [T in Type]: { readonly most: number; readonly infinite: number; readonly advice: string } } =
  {
    F32: { most: (2 - 2 ** -23) * 2 ** 127, infinite: Infinity, advice: "look for where the weights diverged" },
    F16: { most: 65_504, infinite: 65_520, advice: "write BF16 or F32" },
    BF16: { most: (2 - 2 ** -7) * 2 ** 127, infinite: (2 - 2 ** -8) * 2 ** 127, advice: "write F32" }
  }

/** Little-endian bytes of numbers in another width. Fails where a number would become infinite. */
const narrowed = (
  path: string, format: string, type: Type, elements: Reals
): Result.Result<Uint8Array<ArrayBuffer>, CheckpointUnfitError> => {
  const singles = elements instanceof Float32Array ? elements : Float32Array.from(elements)
  const bytesOf = ({ buffer, byteLength, byteOffset }: Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>) =>
    Result.succeed(new Uint8Array(buffer, byteOffset, byteLength))
  const { advice, infinite, most } = limits[type]
  const at = singles === elements && type === "F32" ? -1
    : singles.findIndex((value, i) => Math.abs(value) >= infinite && Number.isFinite(elements[i]))
  if (at >= 0) return Result.fail(new CheckpointUnfitError({
    format, reasons: [`${path} has ${elements[at]} at ${at}, and ${type} ends at ${most}: ${advice}`]
  }))
  return type === "F32" ? bytesOf(singles)
    : bytesOf(new Uint16Array((type === "F16" ? Float16.narrowF16 : Float16.narrowBF16)(singles)))
}

const sameBits = (left: Reals, right: Reals): boolean => {
  const bits = ({ buffer, byteLength, byteOffset }: Reals) => new Uint32Array(buffer, byteOffset, byteLength / 4)
  const [here, there] = [bits(left), bits(right)]
  return here.length === there.length && here.every((word, i) => word === there[i])
}

/** Whether the head is the embedding. */
const isTied = Effect.fnUntraced(function*<E, R>({ config, read }: Source<E, R>) {
  const { embedSize: embed, vocabSize: vocab } = config
  const head = reordered(yield* read("head"), { embed, vocab }, { vocab, embed })
  return sameBits(yield* read("embedding"), head)
})

/** The tensors of a form, each read when its turn comes. `typeOf` chooses how it is stored. */
const tensorsOf = <E, R>(
  { config, read }: Source<E, R>, naming: Naming | undefined, tied: boolean, format: string,
  typeOf: (place: Place) => Type
) =>
  places(config, naming).filter(({ path }) => !(tied && path === "head")).map((place) => {
    const { name, ours, path, sizes, theirs } = place
    const type = typeOf(place)
    const reals = Effect.map(read(path), (elements) => reordered(elements, ours, theirs))
    return {
      name, sizes, type, reals,
      bytes: Effect.flatMap(reals, (elements) => Effect.fromResult(narrowed(path, format, type, elements)))
    }
  })

/**
 * Writes at a temporary place beside the target, and renames it to the target once it is whole. Fails if something
 * stands there; on failure nothing is left.
 */
export const whole = Effect.fnUntraced(function*<A, E, R>(
  target: string, write: (partial: string) => Effect.Effect<A, E, R>
) {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  if (yield* fileSystem.exists(target)) return yield* new CheckpointExistsError({ path: target })
  const above = path.dirname(target)
  yield* Durable.makeFolder(above)
  // a folder of its own, so that two writers of one name do not mix; what a killed one leaves is rubbish
  const prefix = `${Durable.partialPrefix}${path.basename(target)}-`
  return yield* Effect.acquireUseRelease(
    fileSystem.makeTempDirectory({ directory: above, prefix }),
    (room) => Effect.gen(function*() {
      const partial = path.join(room, path.basename(target))
      const written = yield* write(partial)
      if (yield* fileSystem.exists(target)) return yield* new CheckpointExistsError({ path: target }) // by now
      yield* fileSystem.rename(partial, target)
      yield* Durable.syncFolder(above)
      return written
    }),
    (room) => Effect.ignore(fileSystem.remove(room, { recursive: true, force: true }))
  )
})

const text = (content: string): Uint8Array => new TextEncoder().encode(content)

/** Writes small files into a new folder, after `tensors` has written the large ones. */
const folder = Effect.fnUntraced(function*<A, E, R>(
  partial: string, tensors: Effect.Effect<A, E, R>, files: ReadonlyArray<readonly [name: string, Uint8Array]>
) {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  yield* fileSystem.makeDirectory(partial, { recursive: true })
  yield* tensors
  for (const [name, bytes] of files) yield* Durable.writeFile(path.join(partial, name), bytes)
  yield* Durable.syncFolder(partial)
})

/** The files by which Hugging Face knows a tokenizer. */
const tokenizerFiles = Effect.fnUntraced(function*(model: Model, contextLength: number) {
  const codec = yield* Effect.fromResult(Tokenizer.fromModel(model))
  const { bosPiece, eosPiece, padPiece, unkPiece } = model.trainer
  const names = {
    bos_token: bosPiece, eos_token: eosPiece, unk_token: unkPiece,
    ...codec.padId === undefined ? {} : { pad_token: padPiece }
  }
  const config = { ...TokenizerConfig.ofModel(model, true), modelMaxLength: contextLength }
  const json = yield* Effect.fromResult(TokenizerJson.print(model, config))
  return {
    codec,
    files: [
      ["tokenizer.model", model.bytes],
      ["tokenizer.json", text(json)],
      ["special_tokens_map.json", text(Keys.print(names))],
      ["tokenizer_config.json", text(TokenizerConfig.print(config))]
    ] as const
  }
})

/** How to write a folder of Hugging Face. */
export interface HuggingFaceOptions {
  /** F32 by default. */
  readonly dtype?: HuggingFaceModel.Dtype
  /** More bytes of tensors than this go to several files; 5 · 10⁹ by default, as Hugging Face writes them. */
  readonly shardBytes?: number
  /** How tokens are drawn, which `generation_config.json` says where the source has none; nothing by default. */
  readonly drawing?: HuggingFaceModel.Drawing
}

const bytesPerNumber = { F32: 4, F16: 2, BF16: 2 } as const

/** Lists of tensors whose bytes fit together. */
const shardsOf = <T extends { readonly sizes: ReadonlyArray<number> }>(
  tensors: ReadonlyArray<T>, width: number, most: number
): ReadonlyArray<ReadonlyArray<T>> => {
  const shards: Array<Array<T>> = []
  let room = -1
  for (const tensor of tensors) {
    const bytes = width * elementCount(tensor.sizes)
    if (bytes > room) {
      shards.push([])
      room = most
    }
    shards.at(-1)?.push(tensor)
    room -= bytes
  }
  return shards
}

/**
 * Writes a folder that transformers loads: weights in one file or several, `config.json`, and, where there is a
 * tokenizer, its files. `generation_config.json` is that of the source, or else says what the tokenizer does, and
 * `drawing`.
 */
export const huggingFace = Effect.fnUntraced(function*<E, R>(
  target: string, source: Source<E, R>, { drawing, dtype = "F32", shardBytes = 5e9 }: HuggingFaceOptions = {}
) {
  const { config, generationConfig = Effect.undefined, tokenizer } = source
  const known = tokenizer === undefined ? undefined : yield* tokenizerFiles(tokenizer, config.contextLength)
  const path = yield* Path.Path
  return yield* whole(target, Effect.fnUntraced(function*(partial) {
    const tied = yield* isTied(source)
    const tensors = tensorsOf(source, HuggingFaceModel.naming, tied, "Hugging Face's folder", () => dtype)
      .map(({ bytes, name, sizes, type }) => ({ name, dtype: type, shape: sizes, sizes, bytes }))
    const shards = shardsOf(tensors, bytesPerNumber[dtype], shardBytes)
    const number = (n: number): string => String(n).padStart(5, "0")
    const named = shards.map((shard, i) => [
      shards.length === 1 ? "model.safetensors" : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`,
      shard
    ] as const)
    const bytes = tensors.map(({ sizes }) => bytesPerNumber[dtype] * elementCount(sizes))
    const index = shards.length === 1 ? [] : [["model.safetensors.index.json", text(Keys.print({
      metadata: { total_size: bytes.reduce((sum, count) => sum + count, 0) },
      weight_map: Object.fromEntries(named.flatMap(([file, shard]) => shard.map(({ name }) => [name, file])))
    }))] as const]
    const special = known?.codec
    const generation = (yield* generationConfig) ??
      (special === undefined && drawing === undefined ? undefined : HuggingFaceModel.printGeneration(special, drawing))
    yield* folder(
      partial,
      Effect.forEach(named, ([file, shard]) => Safetensors.write(path.join(partial, file), shard, { format: "pt" })),
      [
        ...index, ["config.json", text(HuggingFaceModel.print({ config, isTied: tied }, dtype, special))],
        ...generation === undefined ? [] : [["generation_config.json", text(generation)] as const],
        ...known?.files ?? []
      ]
    )
  }))
})

/** Writes a folder as Meta's: `params.json`, `consolidated.00.pth`, and the tokenizer where there is one. */
export const meta = Effect.fnUntraced(function*<E, R>(
  target: string, source: Source<E, R>, { dtype = "F32" }: { readonly dtype?: HuggingFaceModel.Dtype } = {}
) {
  const { config, tokenizer } = source
  const description = yield* Effect.fromResult(MetaModel.print(config))
  const path = yield* Path.Path
  return yield* whole(target, (partial) =>
    folder(
      partial,
      TorchFile.write(path.join(partial, "consolidated.00.pth"),
        tensorsOf(source, MetaModel.naming, false, "Meta's folder", () => dtype)),
      [
        ["params.json", text(description)],
        ...tokenizer === undefined ? [] : [["tokenizer.model", tokenizer.bytes] as const]
      ]
    ))
})

/** Quantizes; a number that is not finite has no code. */
const quantized = (name: string, quantize: () => Uint8Array): Effect.Effect<Uint8Array, CheckpointUnfitError> =>
  Effect.try({
    try: quantize,
    catch: (reason) => new CheckpointUnfitError({ format: "8 bit", reasons: [`${name}: ${String(reason)}`] })
  })

/**
 * The largest group of at most 64 numbers that divides the rows of all matrices: `runq` codes what it multiplies rows
 * with in the same groups, and passes over a rest. llama2.c's own export looks at embedSize alone.
 */
const groupSizeOf = ({ embedSize, hiddenSize }: Config): number => {
  let group = 64
  while (embedSize % group !== 0 || hiddenSize % group !== 0) group /= 2
  return group
}

/**
 * Writes a `.bin` of llama2.c: version 0 (what `run` reads), 1 (the same numbers behind a better header) or 2 (8 bit,
 * what `runq` reads). The tokenizer is a file of its own: see {@link llama2cTokenizer}.
 */
export const llama2c = Effect.fnUntraced(function*<E, R>(
  target: string, source: Source<E, R>, { version = 0 }: { readonly version?: Llama2c.Header["version"] } = {}
) {
  const { config } = source
  const group = version === 2 ? groupSizeOf(config) : 1
  yield* Effect.fromResult(Llama2cModel.headerOf(config, true, version, group)) // before anything is read
  return yield* whole(target, Effect.fnUntraced(function*(partial) {
    const tied = yield* isTied(source)
    const header = yield* Effect.fromResult(Llama2cModel.headerOf(config, tied, version, group))
    const tensors = tensorsOf(source, Llama2cModel.naming, tied, "llama2.c's .bin", () => "F32")
      .map(({ bytes, name, reals, sizes, type }): TensorSource<E | CheckpointUnfitError, R> =>
        version < 2 || sizes.length === 1 ? { name, sizes, type, bytes } : {
          name, sizes, type: "I8_GROUPS", bytes: Effect.flatMap(reals, (elements) =>
            quantized(name, () => Quantize.groupBytes(Quantize.inGroups(Float32Array.from(elements), group))))
        })
    const { cos, sin } = Llama2cModel.rotation(config)
    const tables = version > 0 ? [] : ([["freqs_cos", cos], ["freqs_sin", sin]] as const).map(([name, table]) => ({
      name, type: "F32" as const, sizes: [config.contextLength, config.headSize / 2],
      bytes: new Uint8Array(table.buffer)
    }))
    return yield* Llama2c.write(partial, header, [...tensors, ...tables])
  }))
})

/** Writes a tokenizer as the `tokenizer.bin` of llama2.c. */
export const llama2cTokenizer = Effect.fnUntraced(function*(target: string, model: Model) {
  const bytes = yield* Effect.fromResult(TokenizerBin.print(model))
  return yield* whole(target, (partial) => Durable.writeFile(partial, bytes))
})

/** Writes a GGUF file that llama.cpp loads, with the vocabulary where there is a tokenizer. */
export const gguf = Effect.fnUntraced(function*<E, R>(
  target: string, source: Source<E, R>, { type = "F32" }: { readonly type?: keyof typeof GgufModel.fileTypes } = {}
) {
  const { config, tokenizer } = source
  const vocabulary = tokenizer === undefined ? []
    : yield* Effect.fromResult(GgufModel.vocabularyMetadata(tokenizer))
  return yield* whole(target, Effect.fnUntraced(function*(partial) {
    const tied = yield* isTied(source)
    const isMatrix = ({ sizes }: { readonly sizes: ReadonlyArray<number> }): boolean => sizes.length > 1
    const tensors = tensorsOf(source, GgufModel.naming, tied, "GGUF", (place) =>
      isMatrix(place) && type !== "F32" ? "F16" : "F32")
      .map((tensor): TensorSource<E | CheckpointUnfitError, R> => {
        const { bytes, name, reals, sizes, type: plain } = tensor
        return type === "Q8_0" && isMatrix(tensor) && (sizes[1] ?? 0) % 32 === 0
          ? { name, sizes, type, bytes: Effect.flatMap(reals, (elements) =>
            quantized(name, () => Quantize.blocksOfQ8(Float32Array.from(elements)))) }
          : { name, sizes, type: plain, bytes }
      })
    return yield* Gguf.write(partial, new Map([...GgufModel.metadataOf(config, type), ...vocabulary]), tensors)
  }))
})

/**
 * Writes a folder of Cria's own, as a run leaves it: a snapshot of step 0, the tokenizer, and what the source says of
 * generation. `from` is kept in its manifest, as what the model was made from.
 */
export const cria = Effect.fnUntraced(function*<E, R>(
  target: string, source: Source<E, R>,
  { environment, from }: { readonly environment: Manifest.Environment; readonly from: string }
) {
  const { config, generationConfig = Effect.undefined, tokenizer } = source
  const generation = yield* generationConfig
  const context = yield* Effect.context<R>() // of a tensor's bytes the store asks nothing
  const tensors = tensorsOf(source, undefined, false, "Cria's folder", () => "F32")
    .map(({ bytes, name, sizes, type }) => ({ name, dtype: type, shape: sizes, bytes: Effect.provide(bytes, context) }))
  return yield* whole(target, (partial) =>
    folder(
      partial,
      SnapshotStore.SnapshotStore.pipe(
        Effect.flatMap(({ save }) => save({
          step: 0, configuration: { from, model: { ...config } }, dataCursor: null, randomKeys: null,
          journal: { journal: 0, timing: 0 }, environment, dataHash: "",
          tokenizerHash: tokenizer === undefined ? "" : Hash.toHex(Hash.ofBytes(tokenizer.bytes)), metrics: {},
          tensors: { model: tensors }
        })),
        Effect.provide(SnapshotStore.layer({ folder: partial, keepLast: 1 })), Effect.scoped
      ),
      [
        ...tokenizer === undefined ? [] : [["tokenizer.model", tokenizer.bytes] as const],
        ...generation === undefined ? [] : [["generation_config.json", text(generation)] as const]
      ]
    ))
})
