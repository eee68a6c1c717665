/**
 * A file of named tensors, whatever its format: what it holds is known when it is open, and a tensor, or some rows of
 * it, is read when asked for, by its own bytes and no others.
 *
 *     real = the f32, f16 or bf16 that stands there            quantized: real = code · scale of its group
 *
 * Elements are in row-major order: the last axis is contiguous, `sizes` go from the outermost axis to the innermost.
 *
 * From     what safetensors, torch.save, GGUF and llama2.c files have in common; ggml's block formats.
 * Checked  test/format/TensorFile.test.ts (rows of rows, all types, bounds, messages) and the tests of each format.
 * Departs  f64 and whole numbers are not read as reals, for f32 would round them: `readBytes` gives their bits.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import * as Schema from "effect/Schema"
import * as ByteFile from "./ByteFile.ts"
import * as Float16 from "./Float16.ts"
import { fields, message, oneOf } from "./Problem.ts"

/**
 * The element types of all formats. A block of `elements` takes `bytes`; `read` says what {@link TensorFile} makes of
 * it: reals, codes with scales, or bytes alone. `I8_GROUPS` is llama2.c's: all codes, then one f32 scale a group.
 */
export const types = {
  F64: { elements: 1, bytes: 8, read: "bytes" },
  F32: { elements: 1, bytes: 4, read: "reals" },
  F16: { elements: 1, bytes: 2, read: "reals" },
  BF16: { elements: 1, bytes: 2, read: "reals" },
  C64: { elements: 1, bytes: 8, read: "bytes" },
  I64: { elements: 1, bytes: 8, read: "bytes" },
  U64: { elements: 1, bytes: 8, read: "bytes" },
  I32: { elements: 1, bytes: 4, read: "bytes" },
  U32: { elements: 1, bytes: 4, read: "bytes" },
  I16: { elements: 1, bytes: 2, read: "bytes" },
  U16: { elements: 1, bytes: 2, read: "bytes" },
  I8: { elements: 1, bytes: 1, read: "bytes" },
  U8: { elements: 1, bytes: 1, read: "bytes" },
  BOOL: { elements: 1, bytes: 1, read: "bytes" },
  F8_E5M2: { elements: 1, bytes: 1, read: "bytes" },
  F8_E4M3: { elements: 1, bytes: 1, read: "bytes" },
  F8_E5M2FNUZ: { elements: 1, bytes: 1, read: "bytes" },
  F8_E4M3FNUZ: { elements: 1, bytes: 1, read: "bytes" },
  F8_E8M0: { elements: 1, bytes: 1, read: "bytes" },
  Q4_0: { elements: 32, bytes: 18, read: "codes" },
  Q4_1: { elements: 32, bytes: 20, read: "bytes" },
  Q5_0: { elements: 32, bytes: 22, read: "bytes" },
  Q5_1: { elements: 32, bytes: 24, read: "bytes" },
  Q8_0: { elements: 32, bytes: 34, read: "codes" },
  Q8_1: { elements: 32, bytes: 36, read: "bytes" },
  Q2_K: { elements: 256, bytes: 84, read: "bytes" },
  Q3_K: { elements: 256, bytes: 110, read: "bytes" },
  Q4_K: { elements: 256, bytes: 144, read: "bytes" },
  Q5_K: { elements: 256, bytes: 176, read: "bytes" },
  Q6_K: { elements: 256, bytes: 210, read: "bytes" },
  Q8_K: { elements: 256, bytes: 292, read: "bytes" },
  I8_GROUPS: { elements: 1, bytes: 1, read: "codes" }
} as const satisfies {
  readonly [name: string]: {
    readonly elements: number
    readonly bytes: number
    readonly read: "reals" | "codes" | "bytes"
  }
}

/** An element type: a letter for the kind and the width in bits, or ggml's name of a block format. */
export type Type = keyof typeof types

/** A tensor in a file, without its elements. */
export interface Entry {
  readonly name: string
  readonly type: Type
  /** From the outermost axis to the innermost; `[]` for a scalar. */
  readonly sizes: ReadonlyArray<number>
  /** How many successive elements share a scale; 1 where no scale is stored. */
  readonly group: number
  /** The byte of its file at which it begins. */
  readonly offset: number
  /** The bytes that it takes there. */
  readonly bytes: number
}

/** Numbers of one width, as GGUF keeps them in its metadata. */
export type Numbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array

/** What a file says beside its tensors. */
export type Value = null | string | number | bigint | boolean | ReadonlyArray<Value> | Numbers

/** Some rows of a tensor: from index `from` of its outermost axis up to, and without, `to`. */
export interface Rows {
  readonly from: number
  readonly to: number
}

/** Elements as codes, each to be multiplied by the scale of its group of `group` successive ones. */
export interface Quantized {
  readonly codes: Int8Array
  readonly scales: Float32Array
  readonly group: number
}

/** An open file of tensors; it closes with the Scope in which it was opened. */
export interface TensorFile {
  /** The name of the format, for people: "safetensors", "GGUF v3", … */
  readonly format: string
  readonly path: string
  readonly metadata: ReadonlyMap<string, Value>
  /** In the order of the file. */
  readonly entries: ReadonlyMap<string, Entry>
  /**
   * The elements, or those of some rows, as f32: exactly where the type is F32, F16 or BF16; dequantized in f32 where
   * it is `codes`. Fails for types that are only `bytes`, unknown names, rows that are not there. They are put at the
   * beginning of `into`, if it is given, which has room for them.
   */
  readonly read: (
    name: string, rows?: Rows, into?: Float32Array<ArrayBuffer>
  ) => Effect.Effect<Float32Array<ArrayBuffer>, Failure>
  /** Codes and scales as they stand; fails for types other than `codes`, and for rows that cut a group. */
  readonly readQuantized: (name: string, rows?: Rows) => Effect.Effect<Quantized, Failure>
  /**
   * The bytes as they stand, little-endian, to be copied bit for bit. Fails for rows that cut a block; of I8_GROUPS,
   * whose codes and scales stand apart, only the whole can be had.
   */
  readonly readBytes: (name: string, rows?: Rows) => Effect.Effect<Uint8Array<ArrayBuffer>, Failure>
}

/** A tensor to be written: its bytes, or an Effect that gives them when their turn comes, one tensor at a time. */
export interface Source<E = never, R = never> {
  readonly name: string
  readonly type: Type
  readonly sizes: ReadonlyArray<number>
  readonly bytes: Uint8Array | Effect.Effect<Uint8Array, E, R>
}

/** The bytes of a source, which must be as many as type and sizes say; `misfit` makes the error when they are not. */
export const bytesOf = <E, R, F>(
  { bytes, sizes, type }: Source<E, R>,
  group: number,
  misfit: (expected: string, found: string) => F
): Effect.Effect<Uint8Array, E | F, R> =>
  Effect.flatMap(bytes instanceof Uint8Array ? Effect.succeed(bytes) : bytes, (bytes) => {
    const expected = byteCount(type, elementCount(sizes), group)
    if (bytes.length === expected) return Effect.succeed(bytes)
    return Effect.fail(misfit(`${expected} bytes for ${type} [${sizes.join(", ")}]`, `${bytes.length} bytes`))
  })

/** How reading fails: the file breaks its format or lacks what was asked for, or the operating system refuses. */
export type Failure = TensorFileError | PlatformError

/** Schema for one thing wrong with a file: where, what was expected and found there, the likely cause and a remedy. */
export const Problem = Schema.Struct({
  kind: Schema.String,
  ...fields,
  advice: Schema.String
})

/** One thing wrong with a file. */
export interface Problem extends Schema.Schema.Type<typeof Problem> {}

/** Makes problems of the kinds for which a format has advice; `tensor` is null where the place is no tensor's. */
export const problemsOf = <K extends string>(advice: { readonly [kind in K]: string }) =>
  (kind: K, tensor: string | null, offset: number, expected: string, found: string): Problem => (
    { kind, tensor, offset, expected, found, advice: advice[kind] }
  )

/**
 * Fails when a file, or bytes in memory (`path` null), break their format or do not hold what was asked for; carries
 * all that is wrong.
 */
export class TensorFileError extends Schema.TaggedError<TensorFileError>()("TensorFileError", {
  format: Schema.String,
  path: Schema.NullOr(Schema.String),
  problems: Schema.Array(Problem)
}) {
  override get message(): string {
    const title = `${this.path ?? "in memory"}: cannot read this as ${this.format}`
    return message(title, this.problems, ({ advice }) => advice)
  }
}

/** Makes the error of the file at a path from its problems. */
export const failureOf = (format: string, path: string) => (...problems: ReadonlyArray<Problem>): TensorFileError =>
  new TensorFileError({ format, path, problems })

/** What writing a file of tensors returns or fails with; `E` and `R` are those of the tensors' bytes. */
export type Writing<E, R> = Effect.fn.Return<
  ByteFile.Written, TensorFileError | PlatformError | E, FileSystem.FileSystem | R
>

const advice = {
  ...ByteFile.advice,
  "unknown tensor": "the name is misspelt, or the file holds another model: compare with the names it does hold",
  "unfit rows": "rows are counted from 0 along the outermost axis: compare with the sizes of the tensor",
  "rows cut a group": "a group of elements has one scale: ask for rows whose elements are whole groups, or for all",
  "not reals": "f32 cannot hold these exactly, or no rule reads them: " +
    "convert the tensor to F32, F16, BF16, Q8_0 or Q4_0",
  "not quantized": "the tensor has no codes and scales: read it as reals"
} as const

/** The error of one problem, for which this module has the advice. */
const problem = (
  file: { readonly format: string; readonly path: string },
  ...problem: Parameters<typeof known>
): TensorFileError => new TensorFileError({ ...file, problems: [known(...problem)] })
const known = problemsOf(advice)

/** Opens the bytes of a file whose errors are {@link TensorFileError}s of a format. */
export const openBytes = (path: string, format: string) =>
  ByteFile.open(path, ({ expected, found, kind, offset, tensor }) =>
    problem({ format, path }, kind, tensor, offset, expected, found))

/** How many elements there are; Infinity where they overflow, but 0 when any size is. */
export const elementCount = (sizes: ReadonlyArray<number>): number =>
  sizes.includes(0) ? 0 : sizes.reduce((product, size) => product * size, 1)

/** The bytes of so many elements of a type, if they are whole blocks; those of `I8_GROUPS` with their scales. */
export const byteCount = (type: Type, elements: number, group: number): number =>
  type === "I8_GROUPS" ? elements + elements / group * 4 : elements / types[type].elements * types[type].bytes

/** The unknown name beside those that are there. */
const unknown = ({ entries, format, path }: TensorFile, name: string): TensorFileError =>
  problem({ format, path }, "unknown tensor", name, 0, oneOf(entries), "no such name")

/** The codes and f16 scales of whole blocks of Q8_0 or Q4_0, as ggml lays them out. */
const unpack = (type: "Q8_0" | "Q4_0", bytes: Uint8Array, codes: Int8Array, scales: Float32Array): void => {
  const width = types[type].bytes
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length)
  const halves = new Uint16Array(scales.length)
  for (let block = 0; block < scales.length; block++) {
    const [at, to] = [block * width, block * 32]
    halves[block] = bytes[at]! | bytes[at + 1]! << 8
    if (type === "Q8_0") codes.set(signed.subarray(at + 2, at + width), to)
    else {
      for (let i = 0; i < 16; i++) { // a byte holds the elements i and i + 16
        codes[to + i] = (bytes[at + 2 + i]! & 15) - 8
        codes[to + 16 + i] = (bytes[at + 2 + i]! >> 4) - 8
      }
    }
  }
  Float16.widenF16(halves, scales)
}

/**
 * A {@link TensorFile} over the bytes of one open file. The format's reader vouches that every entry lies within the
 * file, that its bytes are those of its sizes, and that groups divide its elements.
 */
export const make = (
  format: string,
  file: ByteFile.ByteFile<TensorFileError>,
  metadata: ReadonlyMap<string, Value>,
  list: ReadonlyArray<Entry>
): TensorFile => {
  const place = { format, path: file.path }
  const entries = new Map(list.map((entry) => [entry.name, entry]))
  const sized = ({ name, sizes, type }: Entry): string => `${JSON.stringify(name)} of ${type} [${sizes.join(", ")}]`

  /** The elements of some rows, as a range of flat positions. */
  const range = Effect.fnUntraced(function*(name: string, rows: Rows | undefined) {
    const found = entries.get(name)
    if (found === undefined) return yield* unknown(tensorFile, name)
    const elements = elementCount(found.sizes)
    if (rows === undefined) return { entry: found, from: 0, to: elements, elements }
    const outermost = found.sizes[0] ?? 0
    const isRange = Number.isSafeInteger(rows.from) && Number.isSafeInteger(rows.to)
    if (!isRange || rows.from < 0 || rows.to < rows.from || rows.to > outermost) {
      const expected = `rows of ${sized(found)}, from 0 to ${outermost}`
      return yield* problem(place, "unfit rows", name, found.offset, expected, `from ${rows.from} to ${rows.to}`)
    }
    const row = elementCount(found.sizes.slice(1))
    return { entry: found, from: rows.from * row, to: rows.to * row, elements }
  })

  const allocate = <A>(make: () => A, { name, offset }: Entry, bytes: number) =>
    ByteFile.allocate(make, bytes, offset, name, ({ expected, found, kind, offset, tensor }) =>
      problem(place, kind, tensor, offset, expected, found))

  /** Codes and scales of the whole groups from flat position `from` to `to`. */
  const groups = Effect.fnUntraced(function*(entry: Entry, from: number, to: number, elements: number) {
    const { group, name, offset, type } = entry
    const count = (to - from) / group
    if (type === "Q8_0" || type === "Q4_0") {
      const codes = yield* allocate(() => new Int8Array(to - from), entry, to - from)
      const scales = yield* allocate(() => new Float32Array(count), entry, count * 4)
      const width = types[type].bytes
      const most = Math.floor(ByteFile.chunkBytes / width)
      for (let block = 0; block < count; block += most) {
        const end = Math.min(count, block + most)
        const bytes = yield* file.bytesAt(offset + (from / 32 + block) * width, (end - block) * width, name)
        unpack(type, bytes, codes.subarray(block * 32, end * 32), scales.subarray(block, end))
      }
      return { codes, scales, group }
    }
    const codes = yield* file.bytesAt(offset + from, to - from, name)
    const scales = yield* file.bytesAt(offset + elements + from / group * 4, count * 4, name)
    return { codes: new Int8Array(codes.buffer), scales: new Float32Array(scales.buffer), group }
  })

  const read: TensorFile["read"] = Effect.fnUntraced(function*(name, rows, into) {
    const { elements, entry, from, to } = yield* range(name, rows)
    const { group, offset, type } = entry
    if (types[type].read === "bytes") {
      return yield* problem(place, "not reals", name, offset, "F32, F16, BF16, Q8_0, Q4_0 or I8_GROUPS", sized(entry))
    }
    const length = to - from
    const reals = into?.subarray(0, length) ?? (yield* allocate(() => new Float32Array(length), entry, length * 4))
    if (type === "F32") {
      yield* file.fill(new Uint8Array(reals.buffer, reals.byteOffset, length * 4), offset + from * 4, name)
    } else if (type === "F16" || type === "BF16") {
      const widen = type === "F16" ? Float16.widenF16 : Float16.widenBF16
      const halves = new Uint16Array(reals.buffer, reals.byteOffset + length * 2, length) // widened where they lie
      const most = ByteFile.chunkBytes / 2
      for (let at = 0; at < length; at += most) {
        const part = halves.subarray(at, at + most)
        yield* file.fill(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), offset + (from + at) * 2, name)
        widen(part, reals.subarray(at, at + most))
      }
    } else {
      const most = Math.ceil(ByteFile.chunkBytes / group) * group
      for (let at = Math.floor(from / group) * group; at < to; at += most) {
        const end = Math.min(Math.ceil(to / group) * group, at + most)
        const { codes, scales } = yield* groups(entry, at, end, elements)
        for (let start = at; start < end; start += group) {
          const scale = scales[(start - at) / group]!
          const [first, last] = [Math.max(start, from), Math.min(start + group, to)]
          for (let i = first; i < last; i++) reals[i - from] = codes[i - at]! * scale
        }
      }
    }
    return reals
  })

  const readQuantized = Effect.fnUntraced(function*(name: string, rows?: Rows) {
    const { elements, entry, from, to } = yield* range(name, rows)
    const { group, offset, type } = entry
    if (types[type].read !== "codes") {
      return yield* problem(place, "not quantized", name, offset, "Q8_0, Q4_0 or I8_GROUPS", sized(entry))
    }
    if (from % group !== 0 || to % group !== 0) {
      const expected = `rows of ${sized(entry)} that are whole groups of ${group}`
      return yield* problem(place, "rows cut a group", name, offset, expected, `elements from ${from} to ${to}`)
    }
    return yield* groups(entry, from, to, elements)
  })

  const readBytes = Effect.fnUntraced(function*(name: string, rows?: Rows) {
    const { elements, entry, from, to } = yield* range(name, rows)
    const { group, offset, type } = entry
    if (to - from === elements) return yield* file.bytesAt(offset, entry.bytes, name)
    const block = type === "I8_GROUPS" ? elements : types[type].elements
    if (from % block !== 0 || to % block !== 0) {
      const expected = `rows of ${sized(entry)} that are whole blocks of ${block}`
      return yield* problem(place, "rows cut a group", name, offset, expected, `elements from ${from} to ${to}`)
    }
    return yield* file.bytesAt(offset + byteCount(type, from, group), byteCount(type, to - from, group), name)
  })

  const tensorFile: TensorFile = { format, path: file.path, metadata, entries, read, readQuantized, readBytes }
  return tensorFile
}

/** Several files as one, under the path and with the metadata given; the caller has seen to it that names differ. */
export const join = (
  format: string,
  path: string,
  metadata: ReadonlyMap<string, Value>,
  files: ReadonlyArray<TensorFile>
): TensorFile => {
  const owner = new Map(files.flatMap((file) => [...file.entries.keys()].map((name) => [name, file] as const)))
  const entries = new Map(files.flatMap((file) => [...file.entries]))
  const of = (name: string): Effect.Effect<TensorFile, TensorFileError> => {
    const file = owner.get(name)
    return file === undefined ? Effect.fail(unknown(joined, name)) : Effect.succeed(file)
  }
  const joined: TensorFile = {
    format,
    path,
    metadata,
    entries,
    read: (name, rows, into) => Effect.flatMap(of(name), (file) => file.read(name, rows, into)),
    readQuantized: (name, rows) => Effect.flatMap(of(name), (file) => file.readQuantized(name, rows)),
    readBytes: (name, rows) => Effect.flatMap(of(name), (file) => file.readBytes(name, rows))
  }
  return joined
}
