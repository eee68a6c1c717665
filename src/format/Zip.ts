/**
 * Zip archives whose entries are stored as they are: found through the central directory, checked, read and written.
 *
 *     archive = { local header · name · extra · data }* · central directory · end record (with its zip64 form)
 *
 * From     PKWARE's APPNOTE.TXT 6.3.9, §4.3–4.5 (zip64 included).
 * Checked  test/format/Zip.test.ts (round trips, sizes beyond 4 GiB, every field that can lie);
 *          test/soak/FormatsPeer.test.ts (Python's zipfile reads what is written here).
 * Departs  compressed, encrypted and split archives are refused, and so are archives with anything before the first
 *          entry's header or whose entries overlap; a checksum is verified when an entry is read whole.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { PlatformError } from "effect/PlatformError"
import { crc32 } from "node:zlib"
import * as ByteFile from "./ByteFile.ts"
import * as TensorFile from "./TensorFile.ts"

/** An entry: `bytes` of data from byte `offset` of the archive, and their checksum. */
export interface Entry {
  readonly name: string
  readonly offset: number
  readonly bytes: number
  readonly crc32: number
}

const advice = {
  "no archive": "this is no zip archive, or its end was cut off: fetch or save it again (files that torch wrote " +
    "before 1.6 are no archives: load and save them with a newer torch)",
  "directory": "the archive was damaged or edited, or an attacker made it: fetch or save it again",
  "compressed": "only entries stored as they are can be read in place: unpack the archive and pack it uncompressed",
  "entry": "the directory and the entry contradict each other: the archive was damaged or made to deceive",
  "checksum": "the bytes were damaged after they were written: fetch or save the file again"
} as const
const problem = TensorFile.problemsOf(advice)

const [localSignature, centralSignature, endSignature] = [0x04034b50, 0x02014b50, 0x06054b50]
const [end64Signature, locatorSignature] = [0x06064b50, 0x07064b50]
const [localLength, centralLength, endLength, end64Length, locatorLength] = [30, 46, 22, 56, 20]
const most32 = 0xffffffff // in a field of 32 bits: the number stands in the zip64 record
const [descriptorFlag, utf8Flag] = [0x0008, 0x0800]

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
/** A field of 64 bits; beyond 2⁵³ the number is not exact, and larger than any file. */
const long = (view: DataView, at: number): number => Number(view.getBigUint64(at, true))

interface Directory {
  readonly count: number
  readonly offset: number
  readonly bytes: number
  /** Where the end record, or its zip64 form, begins. */
  readonly end: number
}

/** The directory that the end of the archive announces, from its last bytes, which begin at byte `from`. */
const findDirectory = (tail: Uint8Array, from: number): Directory | TensorFile.Problem => {
  const view = viewOf(tail)
  let at = tail.length - endLength
  while (at >= 0 && !(view.getUint32(at, true) === endSignature && at + endLength + view.getUint16(at + 20, true) ===
    tail.length)) at--
  if (at < 0) {
    return problem("no archive", null, from, "an end record in the last 65 557 bytes", `${tail.length} bytes without`)
  }
  const [disk, directoryDisk] = [view.getUint16(at + 4, true), view.getUint16(at + 6, true)]
  const [here, count] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)]
  const [bytes, offset] = [view.getUint32(at + 12, true), view.getUint32(at + 16, true)]
  const locator = at - locatorLength
  const hasLocator = locator >= 0 && view.getUint32(locator, true) === locatorSignature
  if (!hasLocator) {
    if (disk !== 0 || directoryDisk !== 0 || here !== count) {
      return problem("directory", null, from + at, "an archive in one part", `parts ${disk} and ${directoryDisk}`)
    }
    return { count, offset, bytes, end: from + at }
  }
  const place = long(view, locator + 8)
  const record = place - from
  const isRecord = record >= 0 && record + end64Length <= locator && view.getUint32(record, true) === end64Signature &&
    record + 12 + long(view, record + 4) === locator
  if (!isRecord) {
    return problem("directory", null, from + locator, "the zip64 end record just before its locator", `byte ${place}`)
  }
  const announced = {
    count: long(view, record + 32), offset: long(view, record + 48), bytes: long(view, record + 40), end: place
  }
  const agrees = (short: number, most: number, long: number) => short === most || short === long
  const isSame = view.getUint32(record + 16, true) === 0 && view.getUint32(record + 20, true) === 0 &&
    long(view, record + 24) === announced.count && agrees(count, 0xffff, announced.count) &&
    agrees(bytes, most32, announced.bytes) && agrees(offset, most32, announced.offset)
  return isSame
    ? announced
    : problem("directory", null, place, "end records that agree", `${count}, ${bytes}, ${offset} and others in zip64`)
}

/** What the central directory says of an entry; `header` is where its local header begins. */
interface Announced {
  readonly name: string
  readonly nameBytes: Uint8Array
  readonly flags: number
  readonly header: number
  readonly bytes: number
  readonly crc32: number
}

/** The numbers of 64 bits that stand in an extra field for those that 32 bits could not hold, in their order. */
const zip64 = (view: DataView, from: number, to: number): { readonly at: number; readonly end: number } | undefined => {
  for (let at = from; at + 4 <= to;) {
    const end = at + 4 + view.getUint16(at + 2, true)
    if (end > to) return undefined
    if (view.getUint16(at, true) === 1) return { at: at + 4, end }
    at = end
  }
  return undefined
}

/** All entries of the central directory, or what is wrong with it. */
const parseDirectory = (
  bytes: Uint8Array,
  { count, offset }: Directory
): ReadonlyArray<Announced> | TensorFile.Problem => {
  const view = viewOf(bytes)
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })
  const entries: Array<Announced> = []
  let at = 0
  for (let index = 0; index < count; index++) {
    const wrong = (kind: keyof typeof advice, expected: string, found: string) =>
      problem(kind, null, offset + at, `entry ${index} of the directory: ${expected}`, found)
    if (at + centralLength > bytes.length || view.getUint32(at, true) !== centralSignature) {
      return wrong("directory", `one of ${count} entries in ${bytes.length} bytes`, "something else")
    }
    const [flags, method] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)]
    const nameEnd = at + centralLength + view.getUint16(at + 28, true)
    const extraEnd = nameEnd + view.getUint16(at + 30, true)
    const end = extraEnd + view.getUint16(at + 32, true)
    if (end > bytes.length) return wrong("directory", `an end at most ${bytes.length}`, `${end}`)
    const nameBytes = bytes.subarray(at + centralLength, nameEnd)
    const name = utf8.decode(nameBytes)
    if (method !== 0) return wrong("compressed", "method 0 (stored)", `${JSON.stringify(name)} by method ${method}`)
    if ((flags & ~(descriptorFlag | utf8Flag)) !== 0 || view.getUint16(at + 34, true) !== 0) {
      return wrong("entry", "one that is not encrypted nor split", `${JSON.stringify(name)} with flags ${flags}`)
    }
    const extra = zip64(view, nameEnd, extraEnd)
    let next = extra?.at ?? 0
    let isWhole = true
    const field = (place: number): number => {
      const short = view.getUint32(place, true)
      if (short !== most32) return short
      isWhole &&= extra !== undefined && next + 8 <= extra.end
      return isWhole ? long(view, (next += 8) - 8) : 0
    }
    const [size, stored, header] = [field(at + 24), field(at + 20), field(at + 42)]
    if (!isWhole) return wrong("entry", "the zip64 numbers that it announces", `${JSON.stringify(name)} without`)
    if (size !== stored) return wrong("entry", "as many bytes stored as there are", `${stored} for ${size}`)
    entries.push({ name, nameBytes, flags, header, bytes: size, crc32: view.getUint32(at + 16, true) })
    at = end
  }
  return at === bytes.length
    ? entries
    : problem("directory", null, offset + at, `the end of the directory after ${count} entries`, "more bytes")
}

/**
 * The entries of an archive, in the order of their data. All is checked before any is given: that directory, headers
 * and entries agree, that names differ, and that no two entries share a byte.
 */
export const open = Effect.fnUntraced(function*(
  file: ByteFile.ByteFile<TensorFile.TensorFileError>,
  format: string
): Effect.fn.Return<ReadonlyMap<string, Entry>, TensorFile.Failure> {
  const { path } = file
  const failure = TensorFile.failureOf(format, path)
  const from = Math.max(0, file.length - endLength - 0xffff)
  const found = findDirectory(yield* file.bytesAt(from, file.length - from, null), from)
  if ("kind" in found) return yield* failure(found)
  if (found.offset + found.bytes !== found.end || found.count * centralLength > found.bytes) {
    const expected = `a directory that ends at byte ${found.end}`
    const announced = `${found.count} entries in ${found.bytes} bytes from byte ${found.offset}`
    return yield* failure(problem("directory", null, found.end, expected, announced))
  }
  const announced = parseDirectory(yield* file.bytesAt(found.offset, found.bytes, null), found)
  if ("kind" in announced) return yield* failure(announced)

  const entries = new Map<string, Entry>()
  let covered = 0
  for (const entry of announced.toSorted((left, right) => left.header - right.header)) {
    const { bytes, crc32, flags, header, name, nameBytes } = entry
    const wrong = (expected: string, found: string) =>
      failure(problem("entry", null, header, `entry ${JSON.stringify(name)}: ${expected}`, found))
    if (entries.has(name)) return yield* wrong("each name once", "it twice")
    if (header < covered || (covered === 0 && header > 0)) {
      return yield* wrong(`a header from byte ${covered}, where the entry before it ends`, `byte ${header}`)
    }
    if (header + localLength + nameBytes.length + bytes > found.offset) {
      return yield* wrong(`data that end before the directory at byte ${found.offset}`, `${bytes} bytes`)
    }
    const local = yield* file.bytesAt(header, localLength + nameBytes.length, null)
    const view = viewOf(local)
    const isLater = (flags & descriptorFlag) !== 0 // checksum and sizes may stand after the data
    const agrees = (at: number, value: number) => {
      const here = view.getUint32(at, true)
      return here === value || (isLater && here === 0) || (at !== 14 && here === most32)
    }
    const hasSameName = view.getUint16(26, true) === nameBytes.length &&
      nameBytes.every((byte, index) => byte === local[localLength + index])
    if (
      view.getUint32(0, true) !== localSignature || view.getUint16(6, true) !== flags ||
      view.getUint16(8, true) !== 0 || !hasSameName || !agrees(14, crc32) || !agrees(18, bytes) || !agrees(22, bytes)
    ) return yield* wrong("a local header that says what the directory says", "another")
    const offset = header + local.length + view.getUint16(28, true)
    covered = offset + bytes
    if (covered > found.offset) {
      return yield* wrong(`data that end before the directory at byte ${found.offset}`, `byte ${covered}`)
    }
    entries.set(name, { name, offset, bytes, crc32 })
  }
  return entries
})

/** The bytes of an entry, whose checksum is verified. */
export const read = Effect.fnUntraced(function*(
  file: ByteFile.ByteFile<TensorFile.TensorFileError>,
  format: string,
  entry: Entry
): Effect.fn.Return<Uint8Array<ArrayBuffer>, TensorFile.Failure> {
  const bytes = yield* file.bytesAt(entry.offset, entry.bytes, null)
  const found = crc32(bytes)
  if (found === entry.crc32) return bytes
  const expected = `checksum ${entry.crc32} of entry ${JSON.stringify(entry.name)}`
  return yield* TensorFile.failureOf(format, file.path)(problem("checksum", null, entry.offset, expected, `${found}`))
})

const alignment = 64 // as torch writes: an element of any type may be used where it lies in a mapped file

/** The fields that local header and directory share, from the flags on. */
const sharedFields = (view: DataView, at: number, { bytes, crc32 }: Entry, nameLength: number): void => {
  const isLarge = bytes >= most32
  view.setUint16(at, utf8Flag, true)
  view.setUint16(at + 4, 0, true) // no time of day
  view.setUint16(at + 6, 0x21, true) // 1 January 1980, the first day there is
  view.setUint32(at + 8, crc32, true)
  view.setUint32(at + 12, isLarge ? most32 : bytes, true)
  view.setUint32(at + 16, isLarge ? most32 : bytes, true)
  view.setUint16(at + 20, nameLength, true)
}

/** The local header of an entry, its name and a padding after which the data begins at `entry.offset`. */
const localHeader = (entry: Entry, name: Uint8Array, header: number): Uint8Array => {
  const bytes = new Uint8Array(entry.offset - header)
  const view = viewOf(bytes)
  view.setUint32(0, localSignature, true)
  view.setUint16(4, 45, true) // the version of the format that knows zip64
  sharedFields(view, 6, entry, name.length)
  bytes.set(name, localLength)
  let at = localLength + name.length
  view.setUint16(28, bytes.length - at, true)
  if (entry.bytes >= most32) {
    view.setUint16(at, 1, true)
    view.setUint16(at + 2, 16, true)
    view.setBigUint64(at + 4, BigInt(entry.bytes), true)
    view.setBigUint64(at + 12, BigInt(entry.bytes), true)
    at += 20
  }
  view.setUint16(at, 0x4246, true) // "FB", as torch names its padding
  view.setUint16(at + 2, bytes.length - at - 4, true)
  return bytes
}

const centralHeader = (entry: Entry, name: Uint8Array, header: number): Uint8Array => {
  const longs = [...entry.bytes >= most32 ? [entry.bytes, entry.bytes] : [], ...header >= most32 ? [header] : []]
  const extra = longs.length === 0 ? 0 : 4 + 8 * longs.length
  const bytes = new Uint8Array(centralLength + name.length + extra)
  const view = viewOf(bytes)
  view.setUint32(0, centralSignature, true)
  view.setUint16(4, 45, true)
  view.setUint16(6, 45, true)
  sharedFields(view, 8, entry, name.length)
  view.setUint16(30, extra, true)
  view.setUint32(42, Math.min(header, most32), true)
  bytes.set(name, centralLength)
  if (extra > 0) {
    const at = centralLength + name.length
    view.setUint16(at, 1, true)
    view.setUint16(at + 2, extra - 4, true)
    for (const [index, value] of longs.entries()) view.setBigUint64(at + 4 + 8 * index, BigInt(value), true)
  }
  return bytes
}

/** The end of an archive: zip64 record and locator, which every reader of zip64 accepts for small archives too. */
const endRecords = (count: number, offset: number, directory: number): Uint8Array => {
  const bytes = new Uint8Array(end64Length + locatorLength + endLength)
  const view = viewOf(bytes)
  view.setUint32(0, end64Signature, true)
  view.setBigUint64(4, BigInt(end64Length - 12), true)
  view.setUint16(12, 45, true)
  view.setUint16(14, 45, true)
  for (const at of [24, 32]) view.setBigUint64(at, BigInt(count), true)
  view.setBigUint64(40, BigInt(directory), true)
  view.setBigUint64(48, BigInt(offset), true)
  view.setUint32(end64Length, locatorSignature, true)
  view.setBigUint64(end64Length + 8, BigInt(offset + directory), true)
  view.setUint32(end64Length + 16, 1, true)
  const at = end64Length + locatorLength
  view.setUint32(at, endSignature, true)
  for (const field of [8, 10]) view.setUint16(at + field, Math.min(count, 0xffff), true)
  view.setUint32(at + 12, Math.min(directory, most32), true)
  view.setUint32(at + 16, Math.min(offset, most32), true)
  return bytes
}

/** Headers and end of an archive of entries whose data come in the order given, without the data. */
export interface Frame {
  /** What stands before the data of the next entry. */
  readonly before: (name: string, bytes: number, crc32: number) => Uint8Array
  /** What stands after the data of the last. */
  readonly after: () => Uint8Array
}

/** The {@link Frame} of a new archive; names differ and have at most 65 535 bytes of UTF-8, as the caller sees to. */
export const frame = (): Frame => {
  const central: Array<Uint8Array> = []
  let position = 0
  return {
    before: (text, bytes, crc32) => {
      const name = new TextEncoder().encode(text)
      const least = position + localLength + name.length + (bytes >= most32 ? 20 : 0) + 4
      const entry = { name: text, offset: Math.ceil(least / alignment) * alignment, bytes, crc32 }
      central.push(centralHeader(entry, name, position))
      const header = localHeader(entry, name, position)
      position = entry.offset + bytes
      return header
    },
    after: () => {
      const directory = central.reduce((sum, { length }) => sum + length, 0)
      return ByteFile.concat([...central, endRecords(central.length, position, directory)])
    }
  }
}

/** Appends one entry to the archive whose frame this is. */
export const append = (
  frame: Frame,
  append: ByteFile.Append,
  name: string,
  bytes: Uint8Array
): Effect.Effect<void, PlatformError> =>
  Effect.suspend(() => Effect.andThen(append(frame.before(name, bytes.length, crc32(bytes))), append(bytes)))
