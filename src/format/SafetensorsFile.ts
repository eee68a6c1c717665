/**
 * Safetensors files as tensor files: one file, or the shards that a `model.safetensors.index.json` names.
 *
 *     index = { "metadata": { "total_size": N, … }, "weight_map": { tensor: file beside the index, … } }
 *
 * From     the format description of safetensors; the index as Hugging Face's `save_pretrained` writes it.
 * Checked  test/format/SafetensorsFile.test.ts (shards = one file; paths that leave the folder, missing shards, tensors
 *          in the wrong shard; Hugging Face's own shards); test/soak/Formats.test.ts (damaged files).
 * Departs  a shard that holds a tensor which the index does not place there is an error (Hugging Face ignores it);
 *          `total_size` is handed on as metadata and not checked, for programs disagree on how to count tied tensors.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Safetensors from "./Safetensors.ts"
import * as TensorFile from "./TensorFile.ts"

/** Opens one safetensors file until the Scope closes; only its header is read. */
export const open = Effect.fnUntraced(function*(
  path: string
): Effect.fn.Return<TensorFile.TensorFile, TensorFile.Failure, FileSystem.FileSystem | Scope.Scope> {
  const format = "safetensors"
  const file = yield* TensorFile.openBytes(path, format)
  const header = yield* Safetensors.readHeader(file, (result) =>
    Effect.fromResult(Result.mapError(result, ({ problems }) =>
      new TensorFile.TensorFileError({
        format,
        path,
        problems: problems.map((problem) => ({ ...problem, advice: Safetensors.advice[problem.kind] }))
      }))))
  const entries = header.entries.map(({ begin, dtype, end, name, shape }): TensorFile.Entry => (
    { name, type: dtype, sizes: shape, group: 1, offset: header.dataStart + begin, bytes: end - begin }
  ))
  return TensorFile.make(format, file, new Map(Object.entries(header.metadata)), entries)
})

const Index = Schema.Struct({
  metadata: Schema.optionalKey(
    Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Finite, Schema.Boolean]))
  ),
  weight_map: Schema.Record(Schema.String, Schema.String)
})

const advice = {
  "index": "the index was cut short or edited, or is another file: fetch or save it again with its shards",
  "shard name": "a shard stands beside its index and its name has no folder in it; an index that names other files " +
    "of this machine is damaged or hostile: do not use it",
  "missing shard": "the download was not finished, or a file was renamed: fetch the shard into the folder of the index",
  "wrong shard": "index and shards are of different savings: fetch or save all of them again"
} as const

/** A name of a file beside the index: on no system a path that leaves the folder, or a device. */
const isPlainName = (name: string): boolean =>
  name.endsWith(".safetensors") && !/[/\\:\p{Cc}]/u.test(name) && !name.startsWith(".")

/**
 * Opens the shards that an index names, until the Scope closes; only headers are read. All that disagrees between the
 * index and the shards is one error.
 */
export const openSharded = Effect.fnUntraced(function*(
  path: string
): Effect.fn.Return<
  TensorFile.TensorFile,
  TensorFile.Failure,
  FileSystem.FileSystem | Path.Path | Scope.Scope
> {
  const format = "sharded safetensors"
  const problem = (kind: keyof typeof advice, tensor: string | null, expected: string, found: string) =>
    TensorFile.problemsOf(advice)(kind, tensor, 0, expected, found)
  const failure = TensorFile.failureOf(format, path)
  const paths = yield* Path.Path

  const text = yield* Effect.scoped(Effect.gen(function*() {
    const file = yield* TensorFile.openBytes(path, format)
    const bytes = yield* file.bytesAt(0, file.length, null)
    return yield* Effect.try({
      try: () => new TextDecoder("utf-8", { fatal: true }).decode(bytes),
      catch: (reason) => failure(problem("index", null, "UTF-8", String(reason)))
    })
  }))
  const index = yield* Effect.mapError(
    Schema.decodeUnknownEffect(Schema.fromJsonString(Index))(text),
    (reason) => failure(problem("index", null, "an object with a weight_map from tensors to files", reason.message))
  )
  const problems: Array<TensorFile.Problem> = Safetensors.duplicateNames(text).map((path) =>
    problem("index", path.at(-1) ?? null, "each name once", "it twice")
  )
  const placed = new Map(Object.entries(index.weight_map))
  const names = [...new Set(placed.values())]
  for (const name of names.filter((name) => !isPlainName(name))) {
    problems.push(problem("shard name", null, "the name of a .safetensors file beside the index", JSON.stringify(name)))
  }
  if (problems.length > 0) return yield* failure(...problems)

  const shards = yield* Effect.forEach(names, (name) =>
    open(paths.join(paths.dirname(path), name)).pipe(
      Effect.map((file) => ({ name, file })),
      Effect.catchTag("PlatformError", (error) => {
        if (error.reason._tag !== "NotFound") return Effect.fail(error)
        problems.push(problem("missing shard", null, `the file ${name} beside the index`, "no such file"))
        return Effect.succeed({ name, file: undefined })
      })
    ))
  for (const { file, name } of shards) {
    for (const tensor of file?.entries.keys() ?? []) {
      const place = placed.get(tensor)
      if (place === name) continue
      const expected = place === undefined ? "no shard to hold it, as the index says" : `it in ${place}`
      problems.push(problem("wrong shard", tensor, expected, `it in ${name}`))
    }
  }
  const files = new Map(shards.map(({ file, name }) => [name, file]))
  for (const [tensor, name] of placed) {
    const file = files.get(name)
    if (file !== undefined && !file.entries.has(tensor)) {
      problems.push(problem("wrong shard", tensor, `it in ${name}`, "it is not there"))
    }
  }
  if (problems.length > 0) return yield* failure(...problems)
  const opened = shards.flatMap(({ file }) => file === undefined ? [] : [file])
  return TensorFile.join(format, path, new Map(Object.entries(index.metadata ?? {})), opened)
})
