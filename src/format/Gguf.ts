/**
 * GGUF files, those of llama.cpp: typed metadata and named tensors, plain or in ggml's quantized blocks.
 *
 *     file = "GGUF" · version · tensors · keys · { key · type · value }* · { name · sizes · type · offset }* · data
 *
 * Numbers are little-endian; a text is its length as u64 and its UTF-8. Offsets count from the beginning of the data;
 * the data and each tensor begin at a multiple of `general.alignment` (32 where the file does not say). Sizes stand
 * innermost first in the file, and outermost first here, as everywhere in this library.
 *
 * From     ggml's docs/gguf.md (versions 2 and 3) and ggml.h (type numbers, blocks).
 * Checked  test/format/Gguf.test.ts (round trips of all types of metadata and tensors; files of Python's gguf package,
 *          byte for byte; every field that can lie); test/soak/FormatsPeer.test.ts (the package reads ours);
 *          test/soak/Formats.test.ts (damaged files).
 * Departs  version 1, big-endian files and types beyond those of `TensorFile.types` (IQ and ternary) are refused;
 *          overlapping tensors are an error, holes between tensors are not.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type * as Scope from "effect/Scope"
import * as ByteFile from "./ByteFile.ts"
import { longestKey, mostAxes, parse, problem, typeNumbers } from "./GgufHeader.ts"
import { alignmentOf, encoded32, encoded64, encodedText, encodedValue, type Metadata, misfit, untyped } from
  "./GgufValue.ts"
import * as TensorFile from "./TensorFile.ts"

export type { Metadata, Value } from "./GgufValue.ts"

const format = "GGUF"
const longestName = 63 // of a tensor that is written, as in ggml
const encoder = new TextEncoder()

/** A GGUF file that is open: a tensor file with the types of its metadata. */
export interface GgufFile extends TensorFile.TensorFile {
  readonly version: 2 | 3
  readonly typed: Metadata
}

/** Opens a GGUF file until the Scope closes; only its header is read. */
export const open = Effect.fnUntraced(function*(
  path: string
): Effect.fn.Return<GgufFile, TensorFile.Failure, FileSystem.FileSystem | Scope.Scope> {
  const file = yield* TensorFile.openBytes(path, format)
  let length = Math.min(file.length, 1024 * 1024) // a header tells nowhere how long it is
  let header = parse(yield* file.bytesAt(0, length, null), file.length)
  while (header === "short") {
    length = Math.min(file.length, length * 4)
    header = parse(yield* file.bytesAt(0, length, null), file.length)
  }
  if ("kind" in header) return yield* TensorFile.failureOf(format, path)(header)
  const { entries, metadata, version } = header
  const plain = new Map([...metadata].map(([key, value]) => [key, untyped(value)] as const))
  return { ...TensorFile.make(`${format} v${version}`, file, plain, entries), version, typed: metadata }
})

/**
 * Writes a GGUF file of version 3, tensor after tensor in the order given, and waits until it is on the disk. Tensors
 * may have any type that GGUF knows; their bytes are those of ggml. On failure a partial file is left: write under a
 * temporary name and rename on success.
 */
export const write = Effect.fnUntraced(function*<E = never, R = never>(
  path: string,
  metadata: Metadata,
  tensors: ReadonlyArray<TensorFile.Source<E, R>>
): TensorFile.Writing<E, R> {
  const failure = TensorFile.failureOf(format, path)
  const problems: Array<TensorFile.Problem> = []
  const alignment = alignmentOf(metadata)
  if (alignment === undefined) {
    const found = JSON.stringify(metadata.get("general.alignment"), (_, value) =>
      typeof value === "bigint" ? String(value) : value)
    problems.push(problem("metadata", null, 0, "general.alignment as a u32 that is a multiple of 8", found))
  }
  for (const [key, value] of metadata) {
    const fault = misfit(value)
    if (fault !== undefined) problems.push(problem("metadata", null, 0, `a value of ${key} that GGUF can hold`, fault))
    if (/\p{Surrogate}/u.test(key) || encoder.encode(key).length > longestKey) {
      problems.push(problem("unfit name", null, 0, "a key that GGUF can hold", JSON.stringify(key.slice(0, 80))))
    }
  }
  const names = new Set<string>()
  const step = alignment ?? 32
  const aligned = (bytes: number) => Math.ceil(bytes / step) * step
  const infos: Array<Uint8Array> = []
  let offset = 0
  for (const { name, sizes, type } of tensors) {
    const shown = `${type} [${sizes.join(", ")}]`
    const number = typeNumbers[type]
    const bytes = TensorFile.byteCount(type, TensorFile.elementCount(sizes), 1)
    const isShape = sizes.length <= mostAxes && sizes.every((size) => Number.isSafeInteger(size) && size >= 0) &&
      (sizes.at(-1) ?? 1) % TensorFile.types[type].elements === 0 && Number.isSafeInteger(bytes)
    if (names.has(name)) problems.push(problem("duplicate name", name, 0, "each name once", "it twice"))
    names.add(name)
    if (/\p{Surrogate}/u.test(name) || encoder.encode(name).length > longestName) {
      problems.push(problem("unfit name", name, 0, "a name that GGUF can hold", `${encoder.encode(name).length} bytes`))
    }
    if (number === undefined) problems.push(problem("unfit tensor", name, 0, "a type that GGUF knows", shown))
    else if (!isShape) problems.push(problem("unfit sizes", name, 0, `at most ${mostAxes} axes of whole blocks`, shown))
    else {
      const axes = sizes.toReversed().map(encoded64)
      infos.push(...encodedText(name), encoded32(sizes.length), ...axes, encoded32(number), encoded64(offset))
      offset += aligned(bytes)
    }
  }
  if (problems.length > 0) return yield* failure(...problems)
  const keys = [...metadata].flatMap(([key, value]) => [...encodedText(key), ...encodedValue(value)])
  const start = ByteFile.concat([
    encoder.encode("GGUF"), encoded32(3), encoded64(tensors.length), encoded64(metadata.size), ...keys, ...infos
  ])
  return yield* ByteFile.write(path, Effect.fnUntraced(function*(append) {
    yield* append(start)
    yield* append(new Uint8Array(aligned(start.length) - start.length))
    for (const tensor of tensors) {
      const bytes = yield* TensorFile.bytesOf(
        tensor, 1, (expected, found) => failure(problem("unfit tensor", tensor.name, 0, expected, found))
      )
      yield* append(bytes)
      yield* append(new Uint8Array(aligned(bytes.length) - bytes.length))
    }
  }))
})
