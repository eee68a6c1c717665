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
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as ByteFile from "./ByteFile.ts"
import * as TensorFile from "./TensorFile.ts"

const format = "GGUF"

/** One typed value of the metadata. The numbers of an array stand in a typed array, its truths as 0 or 1. */
export type Value =
  | { readonly type: "u8" | "i8" | "u16" | "i16" | "u32" | "i32" | "f32" | "f64"; readonly value: number }
  | { readonly type: "u64" | "i64"; readonly value: bigint }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "numbers"; readonly values: TensorFile.Numbers }
  | { readonly type: "bools"; readonly values: Uint8Array }
  | { readonly type: "strings"; readonly values: ReadonlyArray<string> }
  | { readonly type: "arrays"; readonly values: ReadonlyArray<Value> }

/** Typed metadata by key, in the order of the file. */
export type Metadata = ReadonlyMap<string, Value>

/** A GGUF file that is open: a tensor file with the types of its metadata. */
export interface GgufFile extends TensorFile.TensorFile {
  readonly version: 2 | 3
  readonly typed: Metadata
}

/** ggml's numbers of the element types. */
const typeNumbers: { readonly [T in TensorFile.Type]?: number } = {
  F32: 0, F16: 1, Q4_0: 2, Q4_1: 3, Q5_0: 6, Q5_1: 7, Q8_0: 8, Q8_1: 9, Q2_K: 10, Q3_K: 11, Q4_K: 12, Q5_K: 13,
  Q6_K: 14, Q8_K: 15, I8: 24, I16: 25, I32: 26, I64: 27, F64: 28, BF16: 30
}
const typesByNumber = new Map(
  (Object.keys(TensorFile.types) as Array<TensorFile.Type>).map((type) => [typeNumbers[type], type] as const)
)

/** The types of values, each at its number. */
const valueTypes = [
  "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"
] as const
type ValueType = (typeof valueTypes)[number]

/** Typed arrays by the name of the type of their elements. */
const arrayClasses = {
  u8: Uint8Array, i8: Int8Array, u16: Uint16Array, i16: Int16Array, u32: Uint32Array, i32: Int32Array,
  f32: Float32Array, f64: Float64Array, u64: BigUint64Array, i64: BigInt64Array
} as const
type NumberType = keyof typeof arrayClasses
const isNumberType = (type: ValueType): type is NumberType => Object.hasOwn(arrayClasses, type)

const advice = {
  "not GGUF": "this is another format, or the beginning of the file was overwritten: fetch or convert it again",
  "version": "versions 2 and 3, little-endian, are read: convert the model again with a newer llama.cpp",
  "cut short": "the file was cut short, as by an interrupted download, or a length was damaged: fetch it again",
  "metadata": "the metadata were damaged, or written by another program's mistake: convert the model again",
  "duplicate name": "two keys or tensors have one name: rename one of them and save again",
  "unknown type": "the tensor is quantized in a way that is not read: convert the model with F16 or Q8_0 as its type",
  "unfit sizes": "sizes or type were damaged: rows are whole blocks, and there are at most 4 axes",
  "outside the file": "the file was cut short, as by an interrupted download or a full disk: fetch it again",
  "overlap": "the offsets were edited or damaged, for no two tensors share bytes: fetch or convert the file again",
  "unfit name": "a name is well-formed Unicode of at most 63 bytes, a key one of at most 65 535: rename it",
  "unfit tensor": "GGUF has no such type, or the bytes are another tensor's: convert the tensor"
} as const
const problem = TensorFile.problemsOf(advice)

const [startBytes, longestName, longestKey, mostAxes, deepestArray] = [24, 63, 65_535, 4, 8]

/** Reads the bytes of a header in order; `problem` is the first thing that was wrong, after which all values are 0. */
interface Cursor {
  readonly bytes: Uint8Array
  readonly view: DataView
  at: number
  /** Whether the bytes that are there ended where the file does not. */
  isShort: boolean
  problem: TensorFile.Problem | undefined
}

/** Whether all was there and right so far. */
const isWhole = (cursor: Cursor): boolean => cursor.problem === undefined && !cursor.isShort

const fail = (cursor: Cursor, found: TensorFile.Problem): void => {
  cursor.problem ??= found
}

/** The place of the next `length` bytes, which it steps over; −1 where so many are not there. */
const take = (cursor: Cursor, length: number, fileBytes: number, what: string): number => {
  if (!isWhole(cursor)) return -1
  if (cursor.at + length <= cursor.bytes.length) return (cursor.at += length) - length
  if (cursor.at + length <= fileBytes) cursor.isShort = true
  else {
    const left = `${fileBytes - cursor.at} that are left`
    fail(cursor, problem("cut short", null, cursor.at, `${what} within the ${left}`, `${length} bytes`))
  }
  return -1
}

interface Header {
  readonly version: 2 | 3
  readonly metadata: Map<string, Value>
  readonly entries: Array<TensorFile.Entry>
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The header of a file of `fileBytes` bytes from its first ones; a problem, or "short" where more of it is needed. */
const parse = (bytes: Uint8Array, fileBytes: number): Header | TensorFile.Problem | "short" => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const cursor: Cursor = { bytes, view, at: 0, isShort: false, problem: undefined }
  const number32 = (what: string): number => {
    const at = take(cursor, 4, fileBytes, what)
    return at < 0 ? 0 : view.getUint32(at, true)
  }
  /** Beyond 2⁵³ not exact, and larger than any file. */
  const number64 = (what: string): number => {
    const at = take(cursor, 8, fileBytes, what)
    return at < 0 ? 0 : Number(view.getBigUint64(at, true))
  }
  const text = (what: string, longest = Infinity): string => {
    const start = cursor.at
    const length = number64(what)
    if (length > longest) {
      fail(cursor, problem("metadata", null, start, `${what} of at most ${longest} bytes`, `${length}`))
    }
    const from = take(cursor, length, fileBytes, what)
    if (from < 0) return ""
    const part = bytes.subarray(from, from + length)
    const decoded = utf8.decode(part)
    if (decoded.includes("\uFFFD") && Result.isFailure(Result.try(() => strict.decode(part)))) {
      fail(cursor, problem("metadata", null, from, `${what} in UTF-8`, JSON.stringify(decoded.slice(0, 80))))
    }
    return decoded
  }
  /** Steps over `count` elements of at least `width` bytes; false where the file cannot hold so many. */
  const hasRoom = (count: number, width: number, what: string): boolean => {
    if (!isWhole(cursor)) return false
    if (count <= (fileBytes - cursor.at) / width) return true
    const found = `${count} of at least ${width} bytes`
    fail(cursor, problem("cut short", null, cursor.at, `${what} within ${fileBytes - cursor.at} bytes`, found))
    return false
  }
  const valueType = (key: string): ValueType => {
    const start = cursor.at
    const index = number32(`the type of ${key}`)
    const type = valueTypes[index]
    if (type === undefined) fail(cursor, problem("metadata", null, start, `a type of ${key} from 0 to 12`, `${index}`))
    return type ?? "u8"
  }
  const bool = (at: number): boolean => {
    const byte = at < 0 ? 0 : bytes[at]!
    if (byte > 1) fail(cursor, problem("metadata", null, at, "0 or 1 for a truth value", `${byte}`))
    return byte === 1
  }
  const array = (key: string, depth: number): Value => {
    const what = `the array ${key}`
    const type = valueType(key)
    const count = number64(what)
    if (isNumberType(type)) {
      const from = hasRoom(count, arrayClasses[type].BYTES_PER_ELEMENT, what)
        ? take(cursor, count * arrayClasses[type].BYTES_PER_ELEMENT, fileBytes, what)
        : -1
      const part = bytes.slice(Math.max(0, from), from < 0 ? 0 : cursor.at)
      return { type: "numbers", values: new arrayClasses[type](part.buffer) }
    }
    if (type === "bool") {
      const from = hasRoom(count, 1, what) ? take(cursor, count, fileBytes, what) : -1
      const values = bytes.slice(Math.max(0, from), from < 0 ? 0 : cursor.at)
      const wrong = values.findIndex((byte) => byte > 1)
      if (wrong >= 0) bool(from + wrong)
      return { type: "bools", values }
    }
    if (type === "string") {
      const values: Array<string> = []
      hasRoom(count, 8, what)
      for (let i = 0; i < count && isWhole(cursor); i++) values.push(text(what))
      return { type: "strings", values }
    }
    const values: Array<Value> = []
    hasRoom(count, 12, what)
    if (depth === deepestArray) {
      fail(cursor, problem("metadata", null, cursor.at, `arrays in ${key} at most ${deepestArray} deep`, "more"))
    }
    for (let i = 0; i < count && isWhole(cursor); i++) {
      values.push(array(key, depth + 1))
    }
    return { type: "arrays", values }
  }
  const value = (key: string): Value => {
    const type = valueType(key)
    const what = `the value of ${key}`
    if (type === "string") return { type, value: text(what) }
    if (type === "array") return array(key, 1)
    if (type === "bool") return { type, value: bool(take(cursor, 1, fileBytes, what)) }
    const at = take(cursor, arrayClasses[type].BYTES_PER_ELEMENT, fileBytes, what)
    if (type === "u64") return { type, value: at < 0 ? BigInt(0) : view.getBigUint64(at, true) }
    if (type === "i64") return { type, value: at < 0 ? BigInt(0) : view.getBigInt64(at, true) }
    return { type, value: at < 0 ? 0 : getters[type](view, at) }
  }

  const magic = number32("GGUF and a version")
  if (cursor.problem === undefined && magic !== 0x46554747) {
    return problem("not GGUF", null, 0, "the bytes GGUF", `0x${magic.toString(16).padStart(8, "0")}`)
  }
  const version = number32("a version")
  if (cursor.problem === undefined && version !== 2 && version !== 3) {
    return problem("version", null, 4, "version 2 or 3", version > 0xffff ? "a big-endian file" : `${version}`)
  }
  const tensorCount = number64("the number of tensors")
  const keyCount = number64("the number of keys")
  const metadata = new Map<string, Value>()
  hasRoom(keyCount, 13, "the keys")
  for (let i = 0; i < keyCount && isWhole(cursor); i++) {
    const start = cursor.at
    const key = text("a key", longestKey)
    const made = value(JSON.stringify(key))
    if (metadata.has(key)) {
      fail(cursor, problem("duplicate name", null, start, "each key once", `${JSON.stringify(key)} twice`))
    }
    metadata.set(key, made)
  }
  const alignment = alignmentOf(metadata)
  if (alignment === undefined) {
    fail(cursor, problem("metadata", null, startBytes, "an alignment that is a multiple of 8", "general.alignment"))
  }
  const infos: Array<Omit<TensorFile.Entry, "bytes"> & { readonly info: number }> = []
  const names = new Set<string>()
  hasRoom(tensorCount, 24, "the tensors")
  for (let i = 0; i < tensorCount && isWhole(cursor); i++) {
    const info = cursor.at
    const name = text("the name of a tensor", longestKey)
    const axes = number32("a number of axes")
    if (axes > mostAxes) fail(cursor, problem("unfit sizes", name, info, `at most ${mostAxes} axes`, `${axes}`))
    const sizes = Array.from({ length: Math.min(axes, mostAxes) }, () => number64("a size")).toReversed()
    const number = number32("the type of a tensor")
    const offset = number64("the offset of a tensor")
    if (!isWhole(cursor)) break
    if (names.has(name)) fail(cursor, problem("duplicate name", name, info, "each name once", "it twice"))
    names.add(name)
    const type = typesByNumber.get(number)
    if (type === undefined) fail(cursor, problem("unknown type", name, info, "a type that is read", `type ${number}`))
    else infos.push({ name, type, sizes, offset, info, group: TensorFile.types[type].elements })
  }
  if (cursor.problem !== undefined) return cursor.problem
  if (cursor.isShort) return "short"

  const dataStart = Math.ceil(cursor.at / alignment!) * alignment!
  const entries: Array<TensorFile.Entry> = []
  for (const { info, ...entry } of infos) {
    const { name, offset, sizes, type } = entry
    const shown = `${type} [${sizes.join(", ")}]`
    const bytes = TensorFile.byteCount(type, TensorFile.elementCount(sizes), entry.group)
    if (!Number.isSafeInteger(bytes) || (sizes.at(-1) ?? 1) % TensorFile.types[type].elements !== 0) {
      return problem("unfit sizes", name, info, `rows of whole blocks of ${TensorFile.types[type].elements}`, shown)
    }
    if (offset % alignment! !== 0 || dataStart + offset + bytes > fileBytes) {
      const expected = `${bytes} bytes for ${shown} from a multiple of ${alignment}, within ${fileBytes - dataStart}`
      return problem("outside the file", name, info, expected, `offset ${offset}`)
    }
    entries.push({ ...entry, offset: dataStart + offset, bytes })
  }
  entries.sort((left, right) => left.offset - right.offset || left.bytes - right.bytes)
  for (const [index, { name, offset }] of entries.entries()) {
    const before = entries[index - 1]
    if (before === undefined || before.offset + before.bytes <= offset) continue
    const expected = `an offset from ${before.offset + before.bytes}, where ${JSON.stringify(before.name)} ends`
    return problem("overlap", name, offset, expected, `${offset}`)
  }
  return { version: version === 2 ? 2 : 3, metadata, entries }
}

const getters = {
  u8: (view: DataView, at: number) => view.getUint8(at),
  i8: (view: DataView, at: number) => view.getInt8(at),
  u16: (view: DataView, at: number) => view.getUint16(at, true),
  i16: (view: DataView, at: number) => view.getInt16(at, true),
  u32: (view: DataView, at: number) => view.getUint32(at, true),
  i32: (view: DataView, at: number) => view.getInt32(at, true),
  f32: (view: DataView, at: number) => view.getFloat32(at, true),
  f64: (view: DataView, at: number) => view.getFloat64(at, true)
} as const

/** What `general.alignment` says, 32 where it is not there; undefined where it is no alignment. */
const alignmentOf = (metadata: Metadata): number | undefined => {
  const given = metadata.get("general.alignment")
  if (given === undefined) return 32
  return given.type === "u32" && given.value > 0 && given.value % 8 === 0 ? given.value : undefined
}

/** A typed value without its type. */
const untyped = (value: Value): TensorFile.Value =>
  value.type === "arrays" ? value.values.map(untyped) : "values" in value ? value.values : value.value

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

const encoder = new TextEncoder()

const setters = {
  u8: (view: DataView, value: number) => view.setUint8(0, value),
  i8: (view: DataView, value: number) => view.setInt8(0, value),
  u16: (view: DataView, value: number) => view.setUint16(0, value, true),
  i16: (view: DataView, value: number) => view.setInt16(0, value, true),
  u32: (view: DataView, value: number) => view.setUint32(0, value, true),
  i32: (view: DataView, value: number) => view.setInt32(0, value, true),
  f32: (view: DataView, value: number) => view.setFloat32(0, value, true),
  f64: (view: DataView, value: number) => view.setFloat64(0, value, true)
} as const

const encoded32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4)
  setters.u32(new DataView(bytes.buffer), value)
  return bytes
}
const encoded64 = (value: number | bigint): Uint8Array => {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true)
  return bytes
}
const encodedText = (value: string): ReadonlyArray<Uint8Array> => {
  const bytes = encoder.encode(value)
  return [encoded64(bytes.length), bytes]
}
const encodedType = (type: ValueType): Uint8Array => encoded32(valueTypes.indexOf(type))

/** The type of the elements of a typed array. */
const numberTypeOf = (values: TensorFile.Numbers): NumberType =>
  (Object.keys(arrayClasses) as Array<NumberType>).find((type) => values instanceof arrayClasses[type])!

/** A value behind its type. */
const encodedValue = (value: Value): ReadonlyArray<Uint8Array> => {
  switch (value.type) {
    case "string":
      return [encodedType("string"), ...encodedText(value.value)]
    case "bool":
      return [encodedType("bool"), Uint8Array.of(Number(value.value))]
    case "u64":
    case "i64":
      return [encodedType(value.type), encoded64(value.value)]
    case "numbers": {
      const { buffer, byteLength, byteOffset, length } = value.values
      const bytes = new Uint8Array(buffer, byteOffset, byteLength)
      return [encodedType("array"), encodedType(numberTypeOf(value.values)), encoded64(length), bytes]
    }
    case "bools":
      return [encodedType("array"), encodedType("bool"), encoded64(value.values.length), value.values]
    case "strings":
      return [
        encodedType("array"), encodedType("string"), encoded64(value.values.length),
        ...value.values.flatMap(encodedText)
      ]
    case "arrays":
      return [ // each element is an array without the type that says so
        encodedType("array"), encodedType("array"), encoded64(value.values.length),
        ...value.values.flatMap((element) => encodedValue(element).slice(1))
      ]
    default: {
      const bytes = new Uint8Array(arrayClasses[value.type].BYTES_PER_ELEMENT)
      setters[value.type](new DataView(bytes.buffer), value.value)
      return [encodedType(value.type), bytes]
    }
  }
}

/** What a value cannot be written for; undefined where it can. */
const misfit = (value: Value, depth = 0): string | undefined => {
  switch (value.type) {
    case "string":
      return /\p{Surrogate}/u.test(value.value) ? "a text that is not Unicode" : undefined
    case "strings":
      return value.values.some((text) => /\p{Surrogate}/u.test(text)) ? "a text that is not Unicode" : undefined
    case "bools":
      return value.values.every((truth) => truth <= 1) ? undefined : "a truth value that is neither 0 nor 1"
    case "arrays": {
      const isArray = value.values.every(({ type }) =>
        type === "numbers" || type === "bools" || type === "strings" || type === "arrays")
      if (!isArray || depth + 2 > deepestArray) return `arrays of arrays at most ${deepestArray} deep`
      return value.values.map((element) => misfit(element, depth + 1)).find((fault) => fault !== undefined)
    }
    case "u64":
      return BigInt.asUintN(64, value.value) === value.value ? undefined : `${value.value} as u64`
    case "i64":
      return BigInt.asIntN(64, value.value) === value.value ? undefined : `${value.value} as i64`
    case "bool":
    case "numbers":
    case "f64":
    case "f32":
      return undefined
    default: {
      const isHeld = new arrayClasses[value.type]([value.value])[0] === value.value
      return isHeld ? undefined : `${value.value} as ${value.type}`
    }
  }
}

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
