/**
 * What a GGUF file says before its data: its metadata, and the names, sizes, types and places of its tensors.
 *
 *     "GGUF" · version · tensors · keys · { key · type · value }* · { name · sizes · type · offset }*
 *
 * Every length and every place is checked against the file before anything is allocated or believed.
 *
 * From     ggml's docs/gguf.md (versions 2 and 3) and ggml.h (type numbers, blocks).
 * Checked  test/format/Gguf.test.ts (every field that can lie); test/format/GgufHeader.test.ts (what is not there yet
 *          is no fault); test/soak/Formats.test.ts (damaged files).
 *
 * @module
 */
import * as Result from "effect/Result"
import {
  alignmentOf, arrayClasses, deepestArray, getters, isNumberType, type Metadata, type Value, type ValueType, valueTypes
} from "./GgufValue.ts"
import * as TensorFile from "./TensorFile.ts"

/** ggml's numbers of the element types. */
export const typeNumbers: { readonly [T in TensorFile.Type]?: number } = {
  F32: 0, F16: 1, Q4_0: 2, Q4_1: 3, Q5_0: 6, Q5_1: 7, Q8_0: 8, Q8_1: 9, Q2_K: 10, Q3_K: 11, Q4_K: 12, Q5_K: 13,
  Q6_K: 14, Q8_K: 15, I8: 24, I16: 25, I32: 26, I64: 27, F64: 28, BF16: 30
}
const typesByNumber = new Map(
  (Object.keys(TensorFile.types) as Array<TensorFile.Type>).map((type) => [typeNumbers[type], type] as const)
)

const advice = {
  "not GGUF": "this is another format, or the beginning of the file was overwritten: fetch or convert it again",
  "version": "versions 2 and 3, little-endian, are read: convert the model again with a newer llama.cpp",
  "cut short": "the file was cut short, as by an interrupted download, or a length was damaged: fetch it again",
  "metadata": "the metadata were damaged, or written by another program's mistake: convert the model again",
  "duplicate name": "two keys or tensors have one name: rename one of them and save again",
  "unknown type": "the tensor is quantized in a way that is not read: convert the model to F16, Q8_0 or Q4_0",
  "unfit sizes": "sizes or type were damaged: rows are whole blocks, and there are at most 4 axes",
  "outside the file": "the file was cut short, as by an interrupted download or a full disk: fetch it again",
  "overlap": "the offsets were edited or damaged, for no two tensors share bytes: fetch or convert the file again",
  "unfit name": "a name is well-formed Unicode of at most 63 bytes, a key one of at most 65 535: rename it",
  "unfit tensor": "GGUF has no such type, or the bytes are another tensor's: convert the tensor"
} as const

/** Makes the problems of GGUF files. */
export const problem = TensorFile.problemsOf(advice)

/** The most bytes of a key, and of the name of a tensor that is read. */
export const longestKey = 65_535

/** The most axes of a tensor. */
export const mostAxes = 4

const startBytes = 24

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

/** Notes the first problem; what is not there yet has none. */
const fail = (cursor: Cursor, found: TensorFile.Problem): void => {
  if (isWhole(cursor)) cursor.problem = found
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

/** A header, whose entries lie in the order of their bytes. */
export interface Header {
  readonly version: 2 | 3
  readonly metadata: Metadata
  readonly entries: ReadonlyArray<TensorFile.Entry>
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** What reads the numbers, texts and values of a header, one after another. */
const reader = (bytes: Uint8Array, fileBytes: number) => {
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
  /** Whether the rest of the file can hold `count` elements of at least `width` bytes; a fault where it cannot. */
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

  return { cursor, number32, number64, text, hasRoom, value }
}

/** A tensor as the header tells of it: its offset counts from the beginning of the data. */
interface Told extends Omit<TensorFile.Entry, "bytes"> {
  /** The byte at which the header tells of it. */
  readonly info: number
}

/** The header of a file of `fileBytes` bytes from its first ones; a problem, or "short" where more of it is needed. */
export const parse = (bytes: Uint8Array, fileBytes: number): Header | TensorFile.Problem | "short" => {
  const { cursor, hasRoom, number32, number64, text, value } = reader(bytes, fileBytes)
  const magic = number32("GGUF and a version")
  if (magic !== 0x46554747) {
    fail(cursor, problem("not GGUF", null, 0, "the bytes GGUF", `0x${magic.toString(16).padStart(8, "0")}`))
  }
  const version = number32("a version")
  if (version !== 2 && version !== 3) {
    fail(cursor, problem("version", null, 4, "version 2 or 3", version > 0xffff ? "a big-endian file" : `${version}`))
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
  const told: Array<Told> = []
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
    else told.push({ name, type, sizes, offset, info, group: TensorFile.types[type].elements })
  }
  if (cursor.problem !== undefined) return cursor.problem
  if (cursor.isShort || alignment === undefined) return "short"
  const entries = placed(told, cursor.at, alignment, fileBytes)
  return "kind" in entries ? entries : { version: version === 2 ? 2 : 3, metadata, entries }
}

/** Where the tensors of a header of `headerBytes` bytes lie in the file, or the first that does not lie within it. */
const placed = (
  told: ReadonlyArray<Told>, headerBytes: number, alignment: number, fileBytes: number
): ReadonlyArray<TensorFile.Entry> | TensorFile.Problem => {
  const dataStart = Math.ceil(headerBytes / alignment) * alignment
  const entries: Array<TensorFile.Entry> = []
  for (const { info, ...entry } of told) {
    const { name, offset, sizes, type } = entry
    const shown = `${type} [${sizes.join(", ")}]`
    const bytes = TensorFile.byteCount(type, TensorFile.elementCount(sizes), entry.group)
    if (!Number.isSafeInteger(bytes) || (sizes.at(-1) ?? 1) % TensorFile.types[type].elements !== 0) {
      return problem("unfit sizes", name, info, `rows of whole blocks of ${TensorFile.types[type].elements}`, shown)
    }
    if (offset % alignment !== 0 || dataStart + offset + bytes > fileBytes) {
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
  return entries
}
