/**
 * Safetensors files: named tensors as raw bytes behind a JSON header, read and written as streams of any size.
 *
 *     file = N as u64 · header of N bytes · data     header = { name: { dtype, shape, data_offsets: [begin, end] }, … }
 *
 * N header bytes · begin, end positions in the data, in bytes · numbers are little-endian, the last axis is contiguous;
 * the header may hold `__metadata__`, a record of texts, and may end in spaces.
 *
 * From     the format description and the Rust library of Hugging Face's safetensors (0.8.0).
 * Checked  test/format/Safetensors.test.ts (bit-exact round trip, damage is an error, bytes equal to the Rust
 *          library's).
 * Departs  a name that stands twice in the header and an entry with an unknown field are errors here (the Rust library
 *          takes the last such name and skips the field); dtypes narrower than a byte (F4, F6) are not read.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as ByteFile from "./ByteFile.ts"
import { fields, message, oneOf } from "./Problem.ts"

/** Schema for the element types, in the order in which the Rust library lays tensors out: widest first. */
export const Dtype = Schema.Literals([
  "U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16",
  "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"
])

/** The element type of a tensor: a letter for the kind, then the width in bits. */
export type Dtype = typeof Dtype.Type

/** Bytes of one element of each dtype. */
export const bytesPerElement: { readonly [D in Dtype]: number } = {
  U64: 8, I64: 8, F64: 8, C64: 8, F32: 4, U32: 4, I32: 4, BF16: 2, F16: 2, U16: 2, I16: 2,
  F8_E5M2FNUZ: 1, F8_E4M3FNUZ: 1, F8_E8M0: 1, F8_E4M3: 1, F8_E5M2: 1, I8: 1, U8: 1, BOOL: 1
}

/** What a tensor is, without its bytes; `shape` is `[]` for a scalar. */
export interface Specification {
  readonly name: string
  readonly dtype: Dtype
  readonly shape: ReadonlyArray<number>
}

/** A tensor in memory: its little-endian bytes, which own their buffer when they were read from a file. */
export interface Tensor extends Specification {
  readonly bytes: Uint8Array
}

/** A tensor to be written: its bytes, or an Effect that gives them when their turn comes, one tensor at a time. */
export interface Source<E = never, R = never> extends Specification {
  readonly bytes: Uint8Array | Effect.Effect<Uint8Array, E, R>
}

/** Where a tensor stands in a file: `begin` and `end` count bytes from the beginning of the data. */
export interface Entry extends Specification {
  readonly begin: number
  readonly end: number
}

/** The texts that a file carries beside its tensors. */
export type Metadata = { readonly [key: string]: string }

/** A header: entries in the order of their bytes, and the byte of the file at which the data begins. */
export interface Header {
  readonly entries: ReadonlyArray<Entry>
  readonly metadata: Metadata
  readonly dataStart: number
}

const Kind = Schema.Literals([
  "header length", "header text", "header entry", "duplicate name", "unknown dtype", "byte count", "outside the file",
  "overlap", "hole", "unfit name", "unfit shape", "unknown tensor", "too large", "cut while reading"
])

/** What to do about each kind of problem. */
export const advice: { readonly [K in typeof Kind.Type]: string } = {
  "header length": "this is no safetensors file, or it was cut short or overwritten: fetch or save it again",
  "header text": "this is no safetensors file, or its beginning was overwritten: fetch or save it again",
  "header entry": "the header was edited, or follows another format: save the file again with a safetensors library",
  "duplicate name": "two tensors were given one name: rename one of them and save again",
  "unknown dtype": `convert the tensor before saving it; these are read: ${Dtype.literals.join(", ")}`,
  "byte count": "dtype or shape was changed, or the bytes are another tensor's: save it again from its source",
  "outside the file": "the file was cut short, as by an interrupted download or a full disk: fetch or save it again",
  "overlap": "the offsets were edited or damaged, for no two tensors share bytes: fetch or save the file again",
  "hole": "offsets were edited or bytes appended, for every byte is a tensor's: fetch or save the file again",
  "unfit name": "a name is well-formed Unicode other than __metadata__: rename the tensor",
  "unfit shape": "sizes are whole numbers from 0, and a file is shorter than 2^53 bytes: correct the shape",
  "unknown tensor": "the name is misspelt, or the file holds another model: compare with the names it does hold",
  ...ByteFile.advice
}

/** Schema for one thing wrong with a file: the tensor, the byte that shows it, what was expected and found there. */
export const Problem = Schema.Struct({
  kind: Kind,
  ...fields
})

/** One thing wrong with a file. */
export interface Problem extends Schema.Schema.Type<typeof Problem> {}

/**
 * Fails when a file, or bytes in memory (`path` null), break the format; carries all that is wrong, not only the
 * first.
 */
export class SafetensorsError extends Schema.TaggedError<SafetensorsError>()("SafetensorsError", {
  path: Schema.NullOr(Schema.String),
  problems: Schema.Array(Problem)
}) {
  override get message(): string {
    const title = `${this.path ?? "in memory"}: this breaks the safetensors format`
    return message(title, this.problems, ({ kind }) => advice[kind])
  }
}

const problem = (
  kind: Problem["kind"],
  tensor: string | null,
  offset: number,
  expected: string,
  found: string
): Problem => ({ kind, tensor, offset, expected, found })

const failure = (...problems: ReadonlyArray<Problem>): Result.Result<never, SafetensorsError> =>
  Result.fail(new SafetensorsError({ path: null, problems }))

/** The result as an Effect whose error names the file. */
const inFile = <A>(path: string, result: Result.Result<A, SafetensorsError>): Effect.Effect<A, SafetensorsError> =>
  Effect.fromResult(Result.mapError(result, ({ problems }) => new SafetensorsError({ path, problems })))

const lengthBytes = 8
const headerLimit = 100_000_000 // the Rust library's: a longer header is damage, or an attack on the reader's memory

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0
const isShape = (value: unknown): value is ReadonlyArray<number> => Array.isArray(value) && value.every(isCount)
const isRange = (value: unknown): value is readonly [number, number] => isShape(value) && value.length === 2
const isObject = (value: unknown): value is { readonly [name: string]: unknown } =>
  value !== null && typeof value === "object" && !Array.isArray(value)

/** The bytes of such a tensor; Infinity where they overflow, but 0 when any size is. */
const byteCount = (dtype: Dtype, shape: ReadonlyArray<number>): number =>
  shape.includes(0) ? 0 : shape.reduce((product, size) => product * size, bytesPerElement[dtype])

const excerpt = (value: unknown): string => {
  const text = String(JSON.stringify(value))
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}

/**
 * The number of header bytes that the first eight bytes of a file announce; an error unless the file, of `fileBytes`
 * bytes, can hold them. A reader asks this before it allocates anything.
 */
const headerLength = (start: Uint8Array, fileBytes: number): Result.Result<number, SafetensorsError> => {
  if (start.length < lengthBytes) {
    return failure(problem("header length", null, 0, "8 bytes of length", `a file of ${fileBytes} bytes`))
  }
  const announced = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true)
  const room = Math.min(fileBytes - lengthBytes, headerLimit)
  const expected = `from 2 to ${room} header bytes in a file of ${fileBytes} bytes`
  return announced >= 2 && announced <= room
    ? Result.succeed(Number(announced))
    : failure(problem("header length", null, 0, expected, `${announced}`))
}

/** The order of UTF-8 bytes, in which Rust sorts texts; that of UTF-16 differs beyond the basic plane. */
const compareCodePoints = (left: string, right: string): number => {
  const [a, b] = [[...left], [...right]]
  const at = a.findIndex((character, index) => character !== b[index])
  return at === -1 ? a.length - b.length : a[at]!.codePointAt(0)! - (b[at]?.codePointAt(0) ?? -1)
}

/** The order of tensors in a file: widest dtype first, then by name. */
const compare = (left: Specification, right: Specification): number =>
  Dtype.literals.indexOf(left.dtype) - Dtype.literals.indexOf(right.dtype) || compareCodePoints(left.name, right.name)

/** The names that stand twice in one object of a valid JSON text, each after the names that lead to that object. */
export const duplicateNames = (json: string): ReadonlyArray<ReadonlyArray<string>> => {
  const duplicates: Array<ReadonlyArray<string>> = []
  const open: Array<{ readonly names: Set<string>; readonly path: ReadonlyArray<string> }> = []
  let last = ""
  for (let at = 0; at < json.length; at++) {
    const [character, object] = [json[at], open.at(-1)]
    if (character === "{") {
      open.push({ names: new Set(), path: object === undefined ? [] : [...object.path, last] })
    } else if (character === "}") {
      open.pop()
    } else if (character === ":") { // outside a text, a colon follows a name, and only a name
      if (object?.names.has(last)) duplicates.push([...object.path, last])
      object?.names.add(last)
    } else if (character === '"') {
      const from = at
      for (at++; json[at] !== '"'; at++) if (json[at] === "\\") at++
      last = String(JSON.parse(json.slice(from, at + 1))) // so that "a" and "\u0061" are one name
    }
  }
  return duplicates
}

const parseEntry = (
  name: string,
  value: unknown,
  dataStart: number,
  dataBytes: number
): Result.Result<Entry, SafetensorsError> => {
  const { data_offsets: range, dtype, shape } = isObject(value) ? value : {}
  const hasOnlyThese = isObject(value) && Object.keys(value).length === 3
  if (!hasOnlyThese || typeof dtype !== "string" || !isShape(shape) || !isRange(range)) {
    const expected = `"dtype", "shape" and "data_offsets" [begin, end], with whole numbers from 0, and nothing else`
    return failure(problem("header entry", name, lengthBytes, expected, excerpt(value)))
  }
  if (!Schema.is(Dtype)(dtype)) {
    return failure(problem("unknown dtype", name, lengthBytes, "a known dtype", excerpt(dtype)))
  }
  const [begin, end] = range
  const bytes = byteCount(dtype, shape)
  if (end > dataBytes) {
    const [expected, found] = [`an end within the ${dataBytes} bytes of data`, `data_offsets [${begin}, ${end}]`]
    return failure(problem("outside the file", name, dataStart + begin, expected, found))
  }
  if (end - begin !== bytes) {
    const expected = `${bytes} bytes for ${dtype} [${shape.join(", ")}]`
    const found = `${end - begin}, data_offsets [${begin}, ${end}]`
    return failure(problem("byte count", name, dataStart + begin, expected, found))
  }
  return Result.succeed({ name, dtype, shape, begin, end })
}

/** What is wrong with the way in which entries, sorted by position, cover the data. */
const layoutProblems = (
  entries: ReadonlyArray<Entry>,
  dataStart: number,
  dataBytes: number
): ReadonlyArray<Problem> => {
  const problems: Array<Problem> = []
  let [covered, before] = [0, "the header"]
  for (const { begin, end, name } of entries) {
    if (begin !== covered) {
      const [expected, found] = [`data_offsets from ${covered}, where ${before} ends`, `[${begin}, ${end}]`]
      problems.push(problem(begin < covered ? "overlap" : "hole", name, dataStart + begin, expected, found))
    }
    if (end >= covered) [covered, before] = [end, JSON.stringify(name)]
  }
  if (covered !== dataBytes) {
    const found = `${dataBytes - covered} bytes of no tensor`
    problems.push(problem("hole", null, dataStart + covered, `the end of the file, where ${before} ends`, found))
  }
  return problems
}

/**
 * The header of a file of `fileBytes` bytes, from its first bytes: length and header; more may follow. All is
 * checked: text, names, dtypes, shapes against bytes, and that the tensors cover the data with no overlap and no
 * hole.
 */
export const parseHeader = (start: Uint8Array, fileBytes: number): Result.Result<Header, SafetensorsError> =>
  Result.gen(function*() {
    const length = yield* headerLength(start, fileBytes)
    const [dataStart, dataBytes] = [lengthBytes + length, fileBytes - lengthBytes - length]
    const misread = (expected: string) => (found: unknown) => {
      const problems = [problem("header text", null, lengthBytes, expected, String(found))]
      return new SafetensorsError({ path: null, problems })
    }
    const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
    const text = yield* Result.try({
      try: () => utf8.decode(start.subarray(lengthBytes, dataStart)),
      catch: misread(`${length} bytes of UTF-8`)
    })
    if (!text.startsWith("{")) return yield* Result.fail(misread("a first {")(excerpt(text.slice(0, 8))))
    const json: unknown = yield* Result.try({ try: () => JSON.parse(text), catch: misread("one JSON object") })

    const problems = duplicateNames(text).map((path) => {
      const found = `${path.map((name) => JSON.stringify(name)).join(" › ")} twice`
      return problem("duplicate name", path[0] ?? null, lengthBytes, "each name once", found)
    })
    const { __metadata__: metadata = {}, ...rest } = isObject(json) ? json : {} // text that begins with { is one
    const texts = isObject(metadata) ? Object.entries(metadata) : []
    if (!isObject(metadata) || !texts.every(([, value]) => typeof value === "string")) {
      problems.push(problem("header entry", "__metadata__", lengthBytes, "an object of texts", excerpt(metadata)))
    }
    const entries: Array<Entry> = []
    for (const [name, value] of Object.entries(rest)) {
      const entry = parseEntry(name, value, dataStart, dataBytes)
      if (Result.isSuccess(entry)) entries.push(entry.success)
      else problems.push(...entry.failure.problems)
    }
    entries.sort((left, right) => left.begin - right.begin || left.end - right.end || compare(left, right))
    if (problems.length === 0) problems.push(...layoutProblems(entries, dataStart, dataBytes))
    if (problems.length > 0) return yield* failure(...problems)
    return { entries, metadata: Object.fromEntries(texts.map(([key, value]) => [key, String(value)])), dataStart }
  })

/**
 * The first bytes of a file of such tensors, length and header, and the header as a value. The tensors' bytes follow
 * in the order of its entries: by dtype, widest first, so that every element is aligned, then by name. The data
 * begins at a multiple of eight, for which the header ends in spaces.
 */
export const encodeHeader = (
  tensors: ReadonlyArray<Specification>,
  metadata: Metadata = {}
): Result.Result<{ readonly bytes: Uint8Array; readonly header: Header }, SafetensorsError> => {
  const problems: Array<Problem> = []
  const names = new Set<string>()
  let end = 0
  const entries = [...tensors].sort(compare).map(({ dtype, name, shape }): Entry => {
    const begin = end
    if (names.has(name)) problems.push(problem("duplicate name", name, begin, "each name once", "it twice"))
    names.add(name)
    if (name === "__metadata__" || /\p{Surrogate}/u.test(name)) {
      problems.push(problem("unfit name", name, begin, "a name that a header can hold", JSON.stringify(name)))
    }
    const after = begin + byteCount(dtype, shape)
    if (isShape(shape) && isCount(after)) end = after
    else problems.push(problem("unfit shape", name, begin, "sizes that a file can hold", `[${shape.join(", ")}]`))
    return { name, dtype, shape, begin, end }
  })
  const texts = Object.keys(metadata).length === 0 ? [] : [`"__metadata__":${JSON.stringify(metadata)}`]
  const fields = entries.map(({ begin, dtype, end, name, shape }) =>
    `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(",")}],"data_offsets":[${begin},${end}]}`
  )
  const text = new TextEncoder().encode(`{${[...texts, ...fields].join(",")}}`)
  const length = Math.ceil(text.length / 8) * 8
  if (length > headerLimit) {
    problems.push(problem("header length", null, 0, `at most ${headerLimit} header bytes`, `${length}`))
  }
  if (problems.length > 0) return failure(...problems)
  const bytes = new Uint8Array(lengthBytes + length).fill(0x20)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true)
  bytes.set(text, lengthBytes)
  return Result.succeed({ bytes, header: { entries, metadata, dataStart: bytes.length } })
}

/** What stands on the disk after `write`: the length of the file and the SHA-256 of all its bytes, in hexadecimal. */
export type Written = ByteFile.Written

const misfit = (header: Header, entry: Entry, bytes: Uint8Array): ReadonlyArray<Problem> => {
  const expected = `${entry.end - entry.begin} bytes for ${entry.dtype} [${entry.shape.join(", ")}]`
  return bytes.length === entry.end - entry.begin
    ? []
    : [problem("byte count", entry.name, header.dataStart + entry.begin, expected, `${bytes.length} bytes`)]
}

/**
 * Writes a file, tensor after tensor in chunks, and waits until it is on the disk. The header is made before any
 * tensor is asked for its bytes. On failure a partial file is left: write under a temporary name and rename on
 * success, as the store does.
 */
export const write = Effect.fnUntraced(function*<E = never, R = never>(
  path: string,
  tensors: ReadonlyArray<Source<E, R>>,
  metadata: Metadata = {}
): Effect.fn.Return<Written, SafetensorsError | PlatformError | E, FileSystem.FileSystem | R> {
  const { bytes: start, header } = yield* inFile(path, encodeHeader(tensors, metadata))
  const sources = new Map(tensors.map((tensor) => [tensor.name, tensor.bytes]))
  const given = header.entries.flatMap((entry) => {
    const bytes = sources.get(entry.name)
    return bytes instanceof Uint8Array ? misfit(header, entry, bytes) : []
  })
  if (given.length > 0) return yield* new SafetensorsError({ path, problems: given })

  return yield* ByteFile.write(path, Effect.fnUntraced(function*(append) {
    yield* append(start)
    for (const entry of header.entries) {
      const source = sources.get(entry.name)!
      const bytes = source instanceof Uint8Array ? source : yield* source
      const problems = misfit(header, entry, bytes)
      if (problems.length > 0) return yield* new SafetensorsError({ path, problems })
      yield* append(bytes)
    }
  }))
})

/** An open file: its header, checked, and its tensors on demand. */
export interface Reader {
  readonly header: Header
  readonly read: (name: string) => Effect.Effect<Tensor, SafetensorsError | PlatformError>
}

/** Reads and checks the header of an open file; `named` makes the opener's error of what the header breaks. */
export const readHeader = Effect.fnUntraced(function*<E>(
  file: ByteFile.ByteFile<E>,
  named: <A>(result: Result.Result<A, SafetensorsError>) => Effect.Effect<A, E>
): Effect.fn.Return<Header, E | PlatformError> {
  const start = yield* file.bytesAt(0, Math.min(file.length, lengthBytes), null)
  const length = yield* named(headerLength(start, file.length))
  return yield* named(parseHeader(yield* file.bytesAt(0, lengthBytes + length, null), file.length))
})

/** Opens a file of any size until the Scope closes. Only the header is read; `read` then reads one tensor. */
export const open = Effect.fnUntraced(function*(
  path: string
): Effect.fn.Return<Reader, SafetensorsError | PlatformError, FileSystem.FileSystem | Scope.Scope> {
  const file = yield* ByteFile.open(
    path,
    ({ expected, found, kind, offset, tensor }) =>
      new SafetensorsError({ path, problems: [problem(kind, tensor, offset, expected, found)] })
  )
  const header = yield* readHeader(file, (result) => inFile(path, result))
  const entries = new Map(header.entries.map((entry) => [entry.name, entry]))

  const read = Effect.fnUntraced(function*(name: string) {
    const entry = entries.get(name)
    if (entry === undefined) {
      const problems = [problem("unknown tensor", name, lengthBytes, oneOf(entries), "no such name")]
      return yield* new SafetensorsError({ path, problems })
    }
    const bytes = yield* file.bytesAt(header.dataStart + entry.begin, entry.end - entry.begin, name)
    return { name, dtype: entry.dtype, shape: entry.shape, bytes }
  })
  return { header, read }
})

/** Reads every tensor of a file, in the order of their bytes. */
export const read = (
  path: string
): Effect.Effect<
  { readonly tensors: ReadonlyArray<Tensor>; readonly metadata: Metadata },
  SafetensorsError | PlatformError,
  FileSystem.FileSystem
> =>
  Effect.scoped(Effect.gen(function*() {
    const { header, read } = yield* open(path)
    const tensors = yield* Effect.forEach(header.entries, (entry) => read(entry.name))
    return { tensors, metadata: header.metadata }
  }))
