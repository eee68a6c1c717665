/**
 * The messages of an ONNX model, one after another as they stand in a file of any size.
 *
 *     model > graph > node, tensor, value > type > shape > dimension          (nested, each with its length before it)
 *
 * The file is read through a window that jumps over payloads nobody asks for: numbers of tensors, above all. Every
 * message lies within the one around it, and nothing is kept that the file has no bytes for.
 *
 * From     onnx.proto3 of ONNX (onnx 1.23); Protocol Buffers documentation, "Encoding".
 * Checked  test/format/Onnx.test.ts (against a writer of its own; every length that can lie); test/soak/Formats.test.ts
 *          (damaged files).
 * Departs  fields that are not asked for are passed over whatever they say; of a field that may stand once, the last
 *          counts, as in all protocol buffers. Groups are refused.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { PlatformError } from "effect/PlatformError"
import * as Result from "effect/Result"
import type * as ByteFile from "./ByteFile.ts"
import * as Protobuf from "./Protobuf.ts"
import * as TensorFile from "./TensorFile.ts"

/** What is kept of a field: whole numbers, a text, the bytes of its payloads in all, or a message of a kind. */
type Wanted = "int" | "ints" | "text" | "bytes" | Kind

/** The messages that are entered. Of a tensor that is none of the graph's own, `unlisted`, nothing is kept. */
export type Kind =
  | "model" | "opset" | "entry" | "graph" | "inner" | "function" | "node" | "attribute" | "tensor" | "unlisted"
  | "value" | "type" | "tensorType" | "shape" | "dimension"

/** The fields of each message by their numbers. */
const fields: { readonly [K in Kind]: { readonly [number: number]: Wanted } } = {
  model: { 1: "int", 2: "text", 3: "text", 7: "graph", 8: "opset", 14: "entry", 25: "function" },
  opset: { 1: "text", 2: "int" },
  entry: { 1: "text", 2: "text" },
  graph: { 1: "node", 5: "tensor", 11: "value", 12: "value", 15: "unlisted" },
  inner: { 1: "node", 5: "unlisted", 15: "unlisted" },
  function: { 7: "node", 11: "attribute" },
  node: { 4: "text", 5: "attribute", 7: "text" },
  attribute: { 5: "unlisted", 6: "inner", 10: "unlisted", 11: "inner", 22: "unlisted", 23: "unlisted" },
  tensor: {
    1: "ints", 2: "int", 4: "bytes", 5: "bytes", 6: "bytes", 7: "bytes", 8: "text", 9: "bytes", 10: "bytes",
    11: "bytes", 13: "entry", 14: "int"
  },
  unlisted: {},
  value: { 1: "text", 2: "type" },
  type: { 1: "tensorType", 4: "bytes", 5: "bytes", 7: "bytes", 8: "tensorType", 9: "bytes" },
  tensorType: { 1: "int", 2: "shape" },
  shape: { 1: "dimension" },
  dimension: { 1: "int", 2: "text" }
}

/** A message that has ended: what was kept of each field, in the order of the file. */
export interface Message {
  readonly kind: Kind
  /** The byte at which its payload begins. */
  readonly start: number
  readonly end: number
  /** By the number of the field: whole numbers, texts, or messages. */
  readonly held: ReadonlyMap<number, ReadonlyArray<number | string | Message>>
}

/** A message that is being read. */
interface Frame extends Message {
  /** The number of its field in the message around it. */
  readonly field: number
  readonly held: Map<number, Array<number | string | Message>>
}

const advice = {
  "not ONNX": "this is another format, or the beginning of the file was overwritten: fetch or export it again",
  "wire format": "the file was cut short, as by an interrupted download, or bytes were damaged: fetch it again",
  "text": "names and descriptions are UTF-8 of at most 16 MiB: the file was damaged, fetch or export it again",
  "too many": "a tensor has at most 64 axes, and graphs stand in each other at most 32 deep: the file was damaged",
  "missing name": "every operator, tensor, input and output has a name: the file was damaged, or written by mistake",
  "duplicate name": "two tensors or keys have one name: rename one of them and save again",
  "unknown type": "the file was damaged, or is of a newer ONNX: check the model, or convert it to opset 23",
  "unfit sizes": "sizes, type or bytes were damaged, for they do not fit together: fetch or export it again",
  "external data": "the file beside the model is named with its place and length; one that leaves the folder is " +
    "damaged or hostile: do not use it",
  "missing data": "the download was not finished, or a file was renamed: fetch it into the folder of the model",
  "outside the file": "the file beside was cut short or is another model's: fetch both again"
} as const

/** Makes the problems of ONNX files. */
export const problem = TensorFile.problemsOf(advice)

/** The numbers that stand in a field. */
export const numbersOf = ({ held }: Message, field: number): ReadonlyArray<number> =>
  (held.get(field) ?? []).filter((value) => typeof value === "number")

/** The last number of a field. */
export const numberOf = (message: Message, field: number): number | undefined => numbersOf(message, field).at(-1)

/** The last text of a field, which is empty where there is none. */
export const textOf = ({ held }: Message, field: number): string =>
  (held.get(field) ?? []).findLast((value) => typeof value === "string") ?? ""

/** The messages of a field. */
export const messagesOf = ({ held }: Message, field: number): ReadonlyArray<Message> =>
  (held.get(field) ?? []).filter((value) => typeof value === "object")

const windowBytes = 16_384
const longestHead = 20 // a key and a varint
const longestText = 2 ** 24
const mostRepeated = 64
const mostNested = 3 * 32 // a graph in an attribute of a node of a graph

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })
const strict = new TextDecoder("utf-8", { fatal: true })

/**
 * Walks the messages of a file. Each that ends is told of together with its parent's kind and the number of its field
 * there; `ended` answers with a problem, with whether its parent keeps it, and is told of the model last.
 */
export const walk = Effect.fnUntraced(function*(
  file: ByteFile.ByteFile<TensorFile.TensorFileError>,
  ended: (message: Message, field: number, parent: Kind | undefined) => TensorFile.Problem | "kept" | "used"
): Effect.fn.Return<TensorFile.Problem | undefined, TensorFile.TensorFileError | PlatformError> {
  const parents: Array<Frame> = []
  let frame: Frame = { kind: "model", field: 0, start: 0, end: file.length, held: new Map() }
  let at = 0
  let windowAt = 0
  let window = new Uint8Array(0)
  const wrong = (offset: number, expected: string, found: string) =>
    problem("wire format", null, offset, `${expected} in a ${frame.kind}`, found)
  /** Keeps a value: of those that may be many, so many as any model has. */
  const keep = (field: number, value: number | string | Message, isRepeated: boolean): boolean => {
    const list = frame.held.get(field)
    if (list === undefined) frame.held.set(field, [value])
    else if (!isRepeated) list[0] = value
    else if (list.push(value) > mostRepeated) return false
    return true
  }
  const tooMany = (field: number) =>
    problem("too many", null, frame.start, `at most ${mostRepeated} in field ${field} of a ${frame.kind}`, "more")
  for (;;) {
    if (at === frame.end) {
      const parent = parents.pop()
      const answer = ended(frame, frame.field, parent?.kind)
      if (typeof answer === "object") return answer
      if (parent === undefined) return undefined
      const message = frame
      frame = parent
      if (answer === "kept" && !keep(message.field, message, true)) return tooMany(message.field)
      continue
    }
    const ahead = Math.min(frame.end, at + longestHead)
    if (at < windowAt || ahead > windowAt + window.length) {
      windowAt = at
      window = yield* file.bytesAt(at, Math.min(windowBytes, file.length - at), null)
    }
    const [from, to] = [at - windowAt, ahead - windowAt]
    const keyEnd = Protobuf.varintEnd(window, from, to)
    if (keyEnd < 0) return wrong(at, "the key of a field", `none that ends (${Protobuf.unended(keyEnd)})`)
    const key = Protobuf.varintNumber(window, from, keyEnd)
    const [number, wire] = [Math.floor(key / 8), key % 8]
    if (number < 1 || number > 536_870_911) return wrong(at, "a field number from 1 to 536870911", `${number}`)
    const valueEnd = wire === 0 || wire === 2 ? Protobuf.varintEnd(window, keyEnd, to) : keyEnd
    if (valueEnd < 0) {
      return wrong(windowAt + keyEnd, `field ${number}`, `none that ends (${Protobuf.unended(valueEnd)})`)
    }
    if (wire === 3 || wire === 4 || wire > 5) return wrong(at, "wire type 0, 1, 2 or 5", `${wire}, of field ${number}`)
    const start = windowAt + valueEnd // of the payload
    const length = wire === 2 ? Protobuf.varintNumber(window, keyEnd, valueEnd) : wire === 1 ? 8 : wire === 5 ? 4 : 0
    const end = start + length
    if (end > frame.end) return wrong(start, `field ${number} of at most ${frame.end - start} bytes`, `${length} bytes`)
    const offset = at
    at = end
    const wanted = fields[frame.kind][number]
    if (wanted === undefined) continue
    if (wanted === "bytes") {
      const had = numberOf(frame, number) ?? 0
      keep(number, had + (wire === 0 ? valueEnd - keyEnd : length), false)
    } else if (wanted === "int" || wanted === "ints") {
      if (wire === 0) {
        if (!keep(number, numberAt(window, keyEnd, valueEnd), wanted === "ints")) return tooMany(number)
      } else if (wire === 2 && wanted === "ints") { // packed: all in one payload
        if (length > 10 * mostRepeated) return tooMany(number)
        const packed = yield* file.bytesAt(start, length, null)
        for (let i = 0; i < length;) {
          const next = Protobuf.varintEnd(packed, i, length)
          if (next < 0) return wrong(start + i, `numbers in field ${number}`, `one that does not end`)
          if (!keep(number, numberAt(packed, i, next), true)) return tooMany(number)
          i = next
        }
      } else return wrong(offset, `a number in field ${number}`, `wire type ${wire}`)
    } else if (wire !== 2) {
      return wrong(offset, `a length in field ${number}`, `wire type ${wire}`)
    } else if (wanted === "text") {
      if (length > longestText) return problem("text", null, start, `at most ${longestText} bytes`, `${length}`)
      const isThere = end <= windowAt + window.length
      const text = decoded(
        isThere ? window.subarray(valueEnd, valueEnd + length) : yield* file.bytesAt(start, length, null), start
      )
      if (typeof text === "object") return text
      keep(number, text, false)
    } else {
      if (parents.length === mostNested) {
        return problem("too many", null, start, "graphs at most 32 deep", `a ${wanted} in ${mostNested} others`)
      }
      parents.push(frame)
      frame = { kind: wanted, field: number, start, end, held: new Map() }
      at = start
    }
  }
})

/** A varint as the int64 that it is: exact below 2⁵³, and beyond still far from all that is meant. */
const numberAt = (bytes: Uint8Array, from: number, end: number): number =>
  end - from < 8 ? Protobuf.varintNumber(bytes, from, end)
    : Number(Protobuf.int64(bytes, { number: 1, wire: 0, start: from, from, end }))

/** The text of bytes that begin at a byte of the file, or what is wrong with it. */
const decoded = (bytes: Uint8Array, start: number): string | TensorFile.Problem => {
  const text = utf8.decode(bytes)
  if (!text.includes("\uFFFD") || Result.isSuccess(Result.try(() => strict.decode(bytes)))) return text
  return problem("text", null, start, "UTF-8", JSON.stringify(text.slice(0, 80)))
}
