/**
 * `cria inspect`: what a file or folder of tensors holds, and which model it is.
 *
 * Only headers and descriptions are read, whatever the size. What is no model that Cria computes is shown all the
 * same, with the reason why it is none. What is damaged is an error, after everything else has been shown.
 *
 * Checked  test/cli/InspectCommand.test.ts.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Gguf from "../format/Gguf.ts"
import * as Llama2c from "../format/Llama2c.ts"
import * as Onnx from "../format/Onnx.ts"
import * as SafetensorsFile from "../format/SafetensorsFile.ts"
import { elementCount, type Failure, type TensorFile, type Value } from "../format/TensorFile.ts"
import * as TorchFile from "../format/TorchFile.ts"
import * as Checkpoint from "../llama/Checkpoint.ts"
import { CheckpointConfigError, CheckpointFormatError } from "../llama/checkpoint/CheckpointError.ts"
import * as Snapshot from "../store/Snapshot.ts"
import { TokenizerFileError, UnsupportedModelError } from "../token/Tokenizer.ts"
import { TokenizerJsonError } from "../token/TokenizerJson.ts"
import * as CheckpointSource from "./CheckpointSource.ts"
import * as FailureMessage from "./FailureMessage.ts"
import { pathArgument, switched } from "./Flags.ts"
import * as Screen from "./Screen.ts"

type Opened<A> = Effect.Effect<A, Failure, FileSystem.FileSystem | Path.Path | Scope.Scope>

/** How a file of tensors is opened, by its name. */
const openers: ReadonlyArray<{
  readonly ending: string
  readonly open: (path: string) => Opened<TensorFile | Onnx.Model>
}> = [
  { ending: ".safetensors", open: SafetensorsFile.open },
  { ending: ".safetensors.index.json", open: SafetensorsFile.openSharded },
  { ending: ".pth", open: TorchFile.open },
  { ending: ".pt", open: TorchFile.open },
  { ending: ".gguf", open: Gguf.open },
  { ending: ".bin", open: Llama2c.open },
  { ending: ".onnx", open: Onnx.open }
]

/** Opens the file of a path, or all files of tensors of a folder: of a run, those of its newest snapshot. */
const filesOf = Effect.fnUntraced(function*(path: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const paths = yield* Path.Path
  if (!(yield* fileSystem.exists(path))) {
    return yield* new CheckpointFormatError({ path, found: "nothing, for the path does not exist" })
  }
  const isFolder = (yield* fileSystem.stat(path)).type === "Directory"
  const newest = isFolder ? yield* Snapshot.latest(path) : Option.none<Snapshot.Listed>()
  const folder = Option.isSome(newest) ? newest.value.path : path
  const names = isFolder ? (yield* fileSystem.readDirectory(folder)).sort() : [paths.basename(path)]
  const index = names.find((name) => name.endsWith(".safetensors.index.json"))
  const isShard = (name: string): boolean => index !== undefined && name.endsWith(".safetensors")
  const found = names.flatMap((name) => {
    const opener = openers.find(({ ending }) => name.endsWith(ending))
    const isTokenizer = /(^|\.)tokenizer\.bin$/.test(name)
    return opener === undefined || isShard(name) || (isTokenizer && isFolder) ? []
      : [opener.open(isFolder ? paths.join(folder, name) : path)]
  })
  if (found.length > 0) return Arr.separate(yield* Effect.all(found.map(Effect.result)))
  return yield* new CheckpointFormatError({
    path, found: names.length === 0 ? "an empty folder" : names.slice(0, 12).join(", ")
  })
})

const shownNumber = (value: number | bigint | boolean | string | null): string =>
  typeof value === "string" ? JSON.stringify(value) : String(value)

/** A value of the metadata in a line: long texts and lists are cut, and say how long they are. */
const shown = (value: Value): string => {
  if (value === null || typeof value !== "object") {
    const text = shownNumber(value)
    return text.length <= 100 ? text : `${text.slice(0, 100)}… (${text.length} characters)`
  }
  const first = Array.from({ length: Math.min(value.length, 6) }, (_, i) => shown(value[i] ?? null)).join(", ")
  return value.length <= 6 ? `[${first}]` : `[${first}, …] (${value.length})`
}

interface Report {
  readonly path: string
  readonly format: string
  readonly bytes: number
  readonly numbers: number
  readonly metadata: { readonly [key: string]: string }
  readonly tensors: ReadonlyArray<Onnx.Tensor & { readonly group?: number }>
  /** Of a model with its operators. */
  readonly graph?: {
    readonly producer: string
    readonly inputs: ReadonlyArray<Onnx.Port>
    readonly outputs: ReadonlyArray<Onnx.Port>
    readonly opsets: { readonly [domain: string]: number }
    readonly operators: { readonly [name: string]: number }
    readonly unlisted: number
  }
}

/** What a file says of itself and its tensors. */
const reportOf = (file: TensorFile | Onnx.Model): Report => {
  const { metadata, path } = file
  const tensors = "entries" in file
    ? [...file.entries.values()].map(({ bytes, group, name, sizes, type }) => ({
      name, type, sizes, bytes, ...group === 1 ? {} : { group }
    }))
    : file.tensors
  return {
    path,
    format: "entries" in file ? file.format : `ONNX IR v${file.irVersion}`,
    bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
    numbers: tensors.reduce((sum, { sizes }) => sum + elementCount(sizes), 0),
    metadata: Object.fromEntries([...metadata].map(([key, value]) => [key, shown(value)])),
    tensors,
    ..."entries" in file ? {} : { graph: {
      producer: file.producer, inputs: file.inputs, outputs: file.outputs, opsets: Object.fromEntries(file.opsets),
      operators: Object.fromEntries([...file.operators].sort(([, left], [, right]) => right - left)),
      unlisted: file.unlisted
    } }
  }
}

/** What goes into a graph and comes out, and which operators compute. */
const graphLinesOf = (
  { inputs, operators, opsets, outputs, producer, unlisted }: NonNullable<Report["graph"]>
): ReadonlyArray<string> => {
  const ports = [...inputs.map((port) => ({ ...port, way: "input " })),
    ...outputs.map((port) => ({ ...port, way: "output" }))]
  const counts = Object.entries(operators)
  const sum = counts.reduce((sum, [, count]) => sum + count, 0)
  return [
    `  producer ${producer === "" ? "that gave no name" : producer}`,
    `  opsets ${Object.entries(opsets).map(([domain, version]) => `${domain} ${version}`).join(", ") || "none"}`,
    ...ports.map(({ name, sizes, type, way }) =>
      `  ${way} ${type}${sizes === undefined ? "" : ` [${sizes.join(", ")}]`} ${name}`),
    `  ${sum} operators${sum === 0 ? "" : ": "}${counts.map(([name, count]) => `${count} ${name}`).join(", ")}`,
    ...unlisted === 0 ? [] : [`  ${unlisted} tensors besides, which are sparse or stand within operators`]
  ]
}

const linesOf = ({ bytes, format, graph, metadata, numbers, path, tensors }: Report): ReadonlyArray<string> => {
  const rows = tensors.map(({ bytes, sizes, type }) => [type, `[${sizes.join(", ")}]`, Screen.quantity(bytes, "B")])
  const width = (column: number): number => rows.reduce((most, row) => Math.max(most, row[column]!.length), 0)
  const [first, second, third] = [0, 1, 2].map(width)
  return [
    `${path}: ${format}, ${tensors.length} tensors, ${Screen.quantity(numbers)} numbers in ` +
      Screen.quantity(bytes, "B"),
    ...Object.entries(metadata).map(([key, value]) => `  ${key} = ${value}`),
    ...graph === undefined ? [] : graphLinesOf(graph),
    ...rows.map(([type = "", sizes = "", size = ""], i) => {
      const { beside, name } = tensors[i]!
      return `  ${type.padEnd(first!)}  ${sizes.padEnd(second!)}  ${size.padStart(third!)}  ${name}` +
        (beside === undefined ? "" : `, in ${beside.file}`)
    })
  ]
}

/** Whether a tokenizer is sound, and computed by another rule than Cria's. */
const isOtherKind = (error: Error): boolean => {
  const reason = error instanceof TokenizerFileError ? error.reason : error
  return reason instanceof UnsupportedModelError ||
    error instanceof CheckpointConfigError && error.faults.every(({ key }) => key === "tokenizer.ggml.model") ||
    reason instanceof TokenizerJsonError && /^\$\.(normalizer|pre_tokenizer|decoder|model\.type)$/.test(reason.path)
}

/** Which model a path holds, and what of its tokenizer is damaged or of another kind; or why there is none. */
const modelOf = (path: string) =>
  Effect.gen(function*() {
    const checkpoint = yield* Checkpoint.open(path)
    const { config, format, isTied, tokenizer } = checkpoint
    const read = yield* Effect.result(tokenizer)
    const own = Option.flatten(Result.getSuccess(read))
    const pieces = Option.map(own, ({ model }) => model.pieces.length)
    const failure = Result.getFailure(read)
    return {
      damages: Option.toArray(Option.filter(failure, (error) => !isOtherKind(error))),
      noTokenizer: Option.getOrUndefined(Option.filter(failure, isOtherKind)),
      found: Option.getOrUndefined(Option.map(own, ({ model, path }) => ({
        path, isFit: Result.isSuccess(Checkpoint.withVocabulary(checkpoint, model.pieces.length))
      }))),
      model: {
        format, config, isTied, parameters: CheckpointSource.countOf(checkpoint), tokenizer: Option.getOrNull(pieces)
      }
    }
  })

/** Whether a path holds no model of Cria's kind, which is no fault of it. */
const isForeign = (error: Error): boolean =>
  error instanceof CheckpointFormatError ||
  error instanceof CheckpointConfigError && error.faults.every(({ key }) => key !== "the file") // or it is no JSON

/** Says which model it is. */
const showModel = Effect.fnUntraced(function*(
  { damages, found, model, noTokenizer }: Effect.Success<ReturnType<typeof modelOf>>
) {
  const { config, format, tokenizer } = model
  const sizes = Object.entries(config).map(([key, value]) => `${key} ${value}`).join(", ")
  yield* Console.log(`model: ${format}, ${CheckpointSource.sizeOf(model)}`)
  yield* Console.log(`  ${sizes}`)
  const other = tokenizer === null || tokenizer === config.vocabSize ? ""
    : ` in ${found?.path}, and the model knows ${config.vocabSize} tokens: ` + (found?.isFit === true
      ? "those beyond are left out wherever the model is used"
      : "they belong to different models; name another to the command that uses it: --tokenizer PATH")
  const known = tokenizer === null ? "none" : `of ${tokenizer} pieces${other}`
  yield* Console.log(Screen.visible(`  tokenizer ${damages.length > 0 ? "that cannot be read"
    : noTokenizer === undefined ? known
      : `of a kind that Cria does not compute: ${FailureMessage.of(noTokenizer)}`}`))
})

/** The command. */
export const command = Command.make("inspect", {
  path: pathArgument("path").pipe(Argument.withDescription(
    "A .safetensors, .pth, .gguf, .onnx or .bin of llama2.c, or a folder: a run, a snapshot, Hugging Face's, Meta's"
  )),
  json: switched("json", "Print one JSON object, with every tensor and all that is known of the model")
}, Effect.fnUntraced(function*({ json, path }) {
  const [read, unread] = yield* filesOf(path)
  const files = read.map(reportOf)
  const found = yield* Effect.result(modelOf(path))
  const damages: ReadonlyArray<Error> = [
    ...unread, ...Result.isSuccess(found) ? found.success.damages : isForeign(found.failure) ? [] : [found.failure]
  ]
  const none = Option.filter(Result.getFailure(found), isForeign)
  if (json) {
    const said = [...new Set(damages.map((damage) => FailureMessage.of(damage)))]
    const noTokenizer = Result.isSuccess(found) ? found.success.noTokenizer : undefined
    yield* Console.log(JSON.stringify({
      files, ...Result.isSuccess(found) ? { model: found.success.model } : {},
      ...Option.isSome(none) ? { noModel: none.value.message } : {},
      ...noTokenizer === undefined ? {} : { noTokenizer: FailureMessage.of(noTokenizer) },
      ...said.length === 0 ? {} : { damages: said }
    }, null, 2))
  } else {
    for (const file of files) for (const line of linesOf(file)) yield* Console.log(Screen.visible(line))
    if (Option.isSome(none)) yield* Console.log(Screen.visible(`no model: ${none.value.message}`))
    if (Result.isSuccess(found)) yield* showModel(found.success)
  }
  const [first, ...others] = damages.filter(({ message }, i) =>
    damages.findIndex((damage) => damage.message === message) === i)
  for (const other of others) yield* Console.error(`error: ${FailureMessage.of(other)}`)
  if (first !== undefined) return yield* Effect.fail(first)
}, Effect.scoped)).pipe(
  Command.withShortDescription("What a file of tensors holds"),
  Command.withDescription(
    "Shows metadata and tensors (type, sizes, bytes, name) of a file or folder, and which model it is, or why Cria " +
      "computes none of the kind. Only headers are read; of a snapshot of Cria also the checksum. The exit code is 1 " +
      "if anything is damaged, which is told last."
  ),
  Command.withExamples([
    { command: "cria inspect model.gguf", description: "Metadata and tensors of a file" },
    { command: "cria inspect runs/stories", description: "Of the newest snapshot of a run" },
    { command: "cria inspect llama-2-7b-hf --json", description: "For a program" }
  ])
)
