/**
 * Which form of checkpoint stands at a path, and what it is made of: description, files of tensors, tokenizer.
 *
 *     manifest.json | snapshot-N/          a run of Cria, its newest snapshot
 *     config.json + *.safetensors          Hugging Face
 *     params.json + consolidated.NN.pth    Meta
 *     NAME.gguf · NAME.bin                 GGUF · llama2.c
 *
 * The form is found by the names of files, never by trying: the order of the numbers in a query is a fact of the form.
 *
 * From     Cria's own.
 * Checked  test/llama/Checkpoint.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Gguf from "../../format/Gguf.ts"
import * as Llama2c from "../../format/Llama2c.ts"
import * as SafetensorsFile from "../../format/SafetensorsFile.ts"
import type { TensorFile } from "../../format/TensorFile.ts"
import * as TorchFile from "../../format/TorchFile.ts"
import * as Snapshot from "../../store/Snapshot.ts"
import { TokenizerFileError } from "../../token/Tokenizer.ts"
import * as TokenizerFormat from "../../token/TokenizerFormat.ts"
import * as Llama from "../Config.ts"
import { CheckpointConfigError, CheckpointFormatError, type GenerationConfigError } from "./CheckpointError.ts"
import * as GgufModel from "./GgufModel.ts"
import * as HuggingFaceModel from "./HuggingFaceModel.ts"
import type { Naming } from "./Layout.ts"
import * as Llama2cModel from "./Llama2cModel.ts"
import * as MetaModel from "./MetaModel.ts"

/** How to open. */
export interface Options {
  /** The longest sequence, for Meta's folders, which do not say it; 4 096 by default. */
  readonly contextLength?: number
}

/** Why a tokenizer cannot be read. */
export type TokenizerError = TokenizerFileError | CheckpointConfigError | PlatformError

/** The tokenizer of a checkpoint, and the file that it was found in. */
export interface FoundTokenizer extends TokenizerFormat.Read {
  readonly path: string
}

/** What a checkpoint is made of. */
export interface Opened {
  readonly format: "cria" | "huggingface" | "meta" | "llama2c" | "gguf"
  /** Of the folder or file that holds the model. */
  readonly path: string
  readonly config: Llama.Config
  readonly isTied: boolean
  /** Files that hold the tensors: one, or the shards that each hold a part of each. */
  readonly shards: ReadonlyArray<TensorFile>
  /** How the files name parameters; undefined for Cria's own. */
  readonly naming: Naming | undefined
  /** Names of tensors that are there and are not read. */
  readonly computed: RegExp
  readonly tokenizer: Effect.Effect<Option.Option<FoundTokenizer>, TokenizerError, FileSystem.FileSystem>
  /**
   * How text is generated, where the checkpoint says it; read and judged only when it is asked for. Keys that are
   * decided otherwise are neither judged nor given.
   */
  readonly generation?: (
    decided?: ReadonlyArray<HuggingFaceModel.DrawingKey>
  ) => Effect.Effect<HuggingFaceModel.Generation, GenerationConfigError | PlatformError>
  /** The `generation_config.json` that says the same beside a copy of the model. */
  readonly generationConfig?: Effect.Effect<string | undefined, PlatformError>
}

const nothing = /^(?!)/

/**
 * The first of some tokenizer files that is there; of those of one folder, the first with as many pieces as the model
 * has tokens, or else with the most that it has tokens for: pieces that were added later stand in `tokenizer.json`
 * alone. Of the others, one that cannot be read does not fit.
 */
const tokenizerAt = (paths: ReadonlyArray<string>, vocabSize?: number): Opened["tokenizer"] =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const there = yield* Effect.filter(paths, (path) => fileSystem.exists(path))
    const open = (path: string) =>
      Effect.map(TokenizerFormat.open(path), (read): FoundTokenizer => ({ path, ...read }))
    const first = yield* Effect.forEach(there.slice(0, 1), open)
    const isUnfit = first.some(({ model: { pieces } }) => vocabSize !== undefined && pieces.length !== vocabSize)
    const others = isUnfit ? there.slice(1) : []
    const read = yield* Effect.forEach(others, (path) => Effect.option(open(path)))
    const fitting = [...first, ...read.flatMap(Option.toArray)]
      .filter(({ model }) => vocabSize === undefined || model.pieces.length <= vocabSize)
      .reduce((most: FoundTokenizer | undefined, one) =>
        most === undefined || one.model.pieces.length > most.model.pieces.length ? one : most, undefined)
    return Option.fromNullishOr(fitting ?? first[0])
  })

const generationName = "generation_config.json"

/** What the `generation_config.json` at a place says, if there is one; `endIds` are those of the model's own file. */
const generationAt = Effect.fnUntraced(function*(told: string, endIds: ReadonlyArray<number>) {
  const fileSystem = yield* FileSystem.FileSystem
  const text = Effect.flatMap(fileSystem.exists(told), (isThere) =>
    isThere ? fileSystem.readFileString(told) : Effect.undefined)
  return {
    generation: (decided = []) =>
      Effect.flatMap(text, (content): Effect.Effect<HuggingFaceModel.Generation, GenerationConfigError> =>
        content === undefined
          ? Effect.succeed({ endIds, unused: [], isDrawn: false })
          : Effect.fromResult(HuggingFaceModel.parseGeneration(told, content, endIds, decided))),
    generationConfig: Effect.map(text, (content) => HuggingFaceModel.keptGeneration(content, endIds))
  } satisfies Pick<Opened, "generation" | "generationConfig">
})

const decodeModel = Schema.decodeUnknownResult(Schema.Struct({ model: Llama.Config }), { errors: "all" })

const openCria = Effect.fnUntraced(function*(snapshot: string) {
  const path = yield* Path.Path
  const { configuration } = yield* Snapshot.verify(snapshot, ["model"])
  const { model: config } = yield* Effect.fromResult(Result.mapError(decodeModel(configuration), ({ message }) =>
    new CheckpointConfigError({
      path: path.join(snapshot, "manifest.json"),
      faults: [{ key: "configuration", value: JSON.stringify(configuration), expected: message }]
    })))
  const file = yield* SafetensorsFile.open(path.join(snapshot, Snapshot.fileName("model")))
  const run = path.join(snapshot, "..")
  const tokenizer = tokenizerAt([snapshot, run].map((folder) => path.join(folder, "tokenizer.model")))
  const generation = yield* generationAt(path.join(run, generationName), []) // as import leaves it
  return {
    format: "cria", path: snapshot, config, isTied: false, shards: [file], naming: undefined, computed: nothing,
    tokenizer, ...generation
  } satisfies Opened
})

const index = "model.safetensors.index.json"

const openHuggingFace = Effect.fnUntraced(function*(folder: string, names: ReadonlyArray<string>) {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(folder, "config.json")
  const description = yield* Effect.fromResult(
    HuggingFaceModel.parse(file, yield* fileSystem.readFileString(file)))
  const { naming } = HuggingFaceModel
  const tensors = names.includes("model.safetensors")
    ? yield* SafetensorsFile.open(path.join(folder, "model.safetensors"))
    : yield* SafetensorsFile.openSharded(path.join(folder, index))
  const { config, endIds, isTied } = description
  const tokenizer = tokenizerAt(
    ["tokenizer.model", "tokenizer.json"].map((name) => path.join(folder, name)), config.vocabSize)
  const generation = yield* generationAt(path.join(folder, generationName), endIds)
  return {
    format: "huggingface", path: folder, config, isTied, shards: [tensors], naming, computed: naming.computed,
    tokenizer, ...generation
  } satisfies Opened
})

const openMeta = Effect.fnUntraced(function*(
  folder: string, names: ReadonlyArray<string>, { contextLength }: Options
) {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const shards = names.filter((name) => /^consolidated\.\d+\.pth$/.test(name)).sort()
  const odd = shards.findIndex((name, i) => name !== `consolidated.${String(i).padStart(2, "0")}.pth`)
  if (odd >= 0) return yield* new CheckpointFormatError({
    path: folder, found: `${shards.join(", ")}: shards are numbered from 00 without a gap`
  })
  // Meta's download keeps one tokenizer above the folders of all sizes
  const tokenizer = tokenizerAt([folder, path.dirname(path.resolve(folder))].map((above) =>
    path.join(above, "tokenizer.model")))
  const file = path.join(folder, "params.json")
  const text = yield* fileSystem.readFileString(file)
  const found = text.includes("-1") ? Option.getOrUndefined(yield* tokenizer) : undefined
  const config = yield* Effect.fromResult(MetaModel.parse(file, text, {
    ...found === undefined ? {} : { vocabSize: found.model.pieces.length },
    ...contextLength === undefined ? {} : { contextLength }
  }))
  const { naming } = MetaModel
  return {
    format: "meta", path: folder, config, isTied: false,
    shards: yield* Effect.forEach(shards, (name) => TorchFile.open(path.join(folder, name))),
    naming, computed: naming.computed, tokenizer
  } satisfies Opened
})

/** Fails where frequencies of the rotation are divided by anything but 1. */
const requirePlainRotation = Effect.fnUntraced(function*(file: TensorFile, { headSize }: Llama.Config) {
  const key = GgufModel.divisors
  const sizes = file.entries.get(key)?.sizes
  if (sizes === undefined) return
  const isFit = sizes.join() === String(headSize / 2) // what is read is no larger than that
  const read = isFit ? yield* file.read(key) : []
  const at = read.findIndex((divisor) => divisor !== 1)
  if (isFit && at < 0) return
  const value = isFit ? `${read[at]} at ${at}` : `a tensor of [${sizes.join(", ")}]`
  const expected = `1 for each of ${headSize / 2} planes (Llama 2 scales no positions), or no such tensor`
  return yield* new CheckpointConfigError({ path: file.path, faults: [{ key, value, expected }] })
})

const openGguf = Effect.fnUntraced(function*(path: string) {
  const file = yield* Gguf.open(path)
  const { naming } = GgufModel
  const rows = file.entries.get(naming.names.embedding)?.sizes[0] ?? 1
  const config = yield* Effect.fromResult(GgufModel.configOf(path, file.metadata, rows))
  yield* requirePlainRotation(file, config)
  const tokenizer = Effect.flatMap(Effect.fromResult(GgufModel.vocabularyOf(path, file.metadata)), (model) =>
    model === undefined ? Effect.succeedNone
      : Effect.map(Effect.fromResult(TokenizerFormat.ofModel(model)), (read) => Option.some({ path, ...read }))).pipe(
    Effect.mapError((reason) => reason instanceof CheckpointConfigError ? reason
      : new TokenizerFileError({ path, reason })))
  return {
    format: "gguf", path, config, isTied: !file.entries.has(naming.names.head), shards: [file], naming,
    computed: naming.computed, tokenizer
  } satisfies Opened
})

const openLlama2c = Effect.fnUntraced(function*(path: string) {
  const paths = yield* Path.Path
  const file = yield* Llama2c.open(path)
  const description = yield* Effect.fromResult(Llama2cModel.configOf(path, file.metadata))
  const own = `${paths.basename(path, ".bin")}.tokenizer.bin` // as export writes it
  const tokenizer = tokenizerAt([own, "tokenizer.bin", "tokenizer.model"].map((name) =>
    paths.join(paths.dirname(path), name)))
  const { naming } = Llama2cModel
  return {
    format: "llama2c", path, ...description, shards: [file], naming, computed: naming.computed, tokenizer
  } satisfies Opened
})

const listing = (names: ReadonlyArray<string>): string =>
  names.length === 0 ? "an empty folder" : `${names.slice(0, 12).join(", ")}${names.length > 12 ? ", …" : ""}`

/** Opens what stands at a path, by the names of its files. */
export const open = Effect.fnUntraced(function*(path: string, options: Options) {
  const fileSystem = yield* FileSystem.FileSystem
  const paths = yield* Path.Path
  if (!(yield* fileSystem.exists(path))) {
    return yield* new CheckpointFormatError({ path, found: "nothing, for the path does not exist" })
  }
  const { type } = yield* fileSystem.stat(path)
  if (type !== "Directory") {
    if (path.endsWith(".gguf")) return yield* openGguf(path)
    if (path.endsWith(".bin")) return yield* openLlama2c(path)
    return yield* new CheckpointFormatError({ path, found: "a file of another name" })
  }
  const names = (yield* fileSystem.readDirectory(path)).sort()
  if (names.includes("manifest.json")) return yield* openCria(path)
  const newest = yield* Snapshot.latest(path)
  if (Option.isSome(newest)) return yield* openCria(newest.value.path)
  if (names.includes("config.json") && (names.includes("model.safetensors") || names.includes(index))) {
    return yield* openHuggingFace(path, names)
  }
  if (names.includes("params.json") && names.some((name) => /^consolidated\..*\.pth$/.test(name))) {
    return yield* openMeta(path, names, options)
  }
  const [only, ...others] = names.filter((name) => name.endsWith(".gguf"))
  if (only !== undefined && others.length === 0) return yield* openGguf(paths.join(path, only))
  return yield* new CheckpointFormatError({ path, found: listing(names) })
})
