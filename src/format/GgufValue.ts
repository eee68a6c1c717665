/**
 * The typed values of GGUF's metadata: their types, how they are written, and what keeps one from being written.
 *
 *     value = type as u32 · its bytes      text = length as u64 · UTF-8      array = type · count as u64 · elements
 *
 * From     ggml's docs/gguf.md; numbers are little-endian.
 * Checked  test/format/Gguf.test.ts (round trips of all types; files of Python's gguf package, byte for byte).
 *
 * @module
 */
import type * as TensorFile from "./TensorFile.ts"

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

/** The types of values, each at its number. */
export const valueTypes = [
  "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"
] as const

/** The type of a value. */
export type ValueType = (typeof valueTypes)[number]

/** Typed arrays by the name of the type of their elements. */
export const arrayClasses = {
  u8: Uint8Array, i8: Int8Array, u16: Uint16Array, i16: Int16Array, u32: Uint32Array, i32: Int32Array,
  f32: Float32Array, f64: Float64Array, u64: BigUint64Array, i64: BigInt64Array
} as const

/** The type of a number that a typed array can hold. */
export type NumberType = keyof typeof arrayClasses

/** Is this the type of a number that a typed array can hold? */
export const isNumberType = (type: ValueType): type is NumberType => Object.hasOwn(arrayClasses, type)

/** How a number of a type is read at a byte. */
export const getters = {
  u8: (view: DataView, at: number) => view.getUint8(at),
  i8: (view: DataView, at: number) => view.getInt8(at),
  u16: (view: DataView, at: number) => view.getUint16(at, true),
  i16: (view: DataView, at: number) => view.getInt16(at, true),
  u32: (view: DataView, at: number) => view.getUint32(at, true),
  i32: (view: DataView, at: number) => view.getInt32(at, true),
  f32: (view: DataView, at: number) => view.getFloat32(at, true),
  f64: (view: DataView, at: number) => view.getFloat64(at, true)
} as const

/** How deep arrays of metadata may lie in arrays. */
export const deepestArray = 8

/** What `general.alignment` says, 32 where it is not there; undefined where it is no alignment. */
export const alignmentOf = (metadata: Metadata): number | undefined => {
  const given = metadata.get("general.alignment")
  if (given === undefined) return 32
  return given.type === "u32" && given.value > 0 && given.value % 8 === 0 ? given.value : undefined
}

/** A typed value without its type. */
export const untyped = (value: Value): TensorFile.Value =>
  value.type === "arrays" ? value.values.map(untyped) : "values" in value ? value.values : value.value

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

/** A number as u32. */
export const encoded32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4)
  setters.u32(new DataView(bytes.buffer), value)
  return bytes
}
/** A number as u64, or as i64. */
export const encoded64 = (value: number | bigint): Uint8Array => {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true)
  return bytes
}
/** A text behind its length. */
export const encodedText = (value: string): ReadonlyArray<Uint8Array> => {
  const bytes = encoder.encode(value)
  return [encoded64(bytes.length), bytes]
}
const encodedType = (type: ValueType): Uint8Array => encoded32(valueTypes.indexOf(type))

/** The type of the elements of a typed array. */
const numberTypeOf = (values: TensorFile.Numbers): NumberType =>
  (Object.keys(arrayClasses) as Array<NumberType>).find((type) => values instanceof arrayClasses[type])!

/** A value behind its type. */
export const encodedValue = (value: Value): ReadonlyArray<Uint8Array> => {
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

/** What keeps a value from being written; undefined where nothing does. */
export const misfit = (value: Value, depth = 0): string | undefined => {
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
