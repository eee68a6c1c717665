/**
 * ONNX models to be looked at: which tensors they hold and where, what goes in and out, and which operators compute.
 *
 *     model = { IR version · producer · opsets · metadata · graph }      graph = { nodes · tensors · inputs · outputs }
 *
 * Only the descriptions are read, in one walk; the numbers of tensors are jumped over, and of a file that holds them
 * beside the model no more than its length is asked for.
 *
 * From     onnx.proto3 of ONNX (onnx 1.23, `TensorProto.DataType` to 26); ONNX's ExternalData.md.
 * Checked  test/format/Onnx.test.ts (what `Export` writes, a model of Python's onnx package, every field that can lie;
 *          messages); test/soak/Formats.test.ts (damaged files).
 * Departs  no numbers are read, and no operators judged. Tensors within operators or functions, and sparse ones, are
 *          counted and not listed. Values that stand as numbers of protocol buffers are not counted one by one: only
 *          that their bytes can be so many.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as Scope from "effect/Scope"
import { type Kind, type Message, messagesOf, numberOf, numbersOf, problem, textOf, walk } from "./OnnxMessage.ts"
import * as TensorFile from "./TensorFile.ts"

const format = "ONNX"

/** The element types by their numbers: names of {@link TensorFile} where it has them, and the bits of an element. */
const types: { readonly [code: number]: readonly [name: string, bits: number] } = {
  1: ["F32", 32], 2: ["U8", 8], 3: ["I8", 8], 4: ["U16", 16], 5: ["I16", 16], 6: ["I32", 32], 7: ["I64", 64],
  8: ["STRING", 0], 9: ["BOOL", 8], 10: ["F16", 16], 11: ["F64", 64], 12: ["U32", 32], 13: ["U64", 64],
  14: ["C64", 64], 15: ["C128", 128], 16: ["BF16", 16], 17: ["F8_E4M3", 8], 18: ["F8_E4M3FNUZ", 8],
  19: ["F8_E5M2", 8], 20: ["F8_E5M2FNUZ", 8], 21: ["U4", 4], 22: ["I4", 4], 23: ["F4_E2M1", 4], 24: ["F8_E8M0", 8],
  25: ["U2", 2], 26: ["I2", 2]
}

/** A tensor of the graph (an "initializer"), without its elements. */
export interface Tensor {
  readonly name: string
  /** A type of `TensorFile.types`, or STRING, C128, F4_E2M1, or U or I with 2 or 4 bits. */
  readonly type: string
  /** From the outermost axis to the innermost; `[]` for a scalar. */
  readonly sizes: ReadonlyArray<number>
  /** What its elements take, without padding; of STRING, those of all texts. */
  readonly bytes: number
  /** The name of the file beside the model that holds them, and where they begin there; absent where the model does. */
  readonly beside?: { readonly file: string; readonly offset: number }
}

/** An input or output of the graph. */
export interface Port {
  readonly name: string
  /** As of a tensor, or "sequence", "map", "optional", "opaque" or "unknown". */
  readonly type: string
  /** A name stands for a size that is not fixed, and "?" for one without a name; absent where nothing is said. */
  readonly sizes?: ReadonlyArray<number | string>
}

/** What an ONNX model says of itself. */
export interface Model {
  readonly path: string
  readonly irVersion: number
  /** The name and version of the program that wrote it. */
  readonly producer: string
  /** The version of each set of operators, by its domain; that of ONNX itself is "ai.onnx". */
  readonly opsets: ReadonlyMap<string, number>
  readonly metadata: ReadonlyMap<string, string>
  readonly inputs: ReadonlyArray<Port>
  readonly outputs: ReadonlyArray<Port>
  /** How often each operator stands in the graph, graphs within it and functions; by its domain, a dot and its name. */
  readonly operators: ReadonlyMap<string, number>
  /** In the order of the file. */
  readonly tensors: ReadonlyArray<Tensor>
  /** How many tensors there are besides: within operators or functions, and sparse. */
  readonly unlisted: number
}

/** Reads what an ONNX model says of itself, and that the files beside it are there and long enough for its tensors. */
export const open = Effect.fnUntraced(function*(
  path: string
): Effect.fn.Return<Model, TensorFile.Failure, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const failure = TensorFile.failureOf(format, path)
  const file = yield* TensorFile.openBytes(path, format)
  const [opsets, metadata, operators] = [
    new Map<string, number>(), new Map<string, string>(), new Map<string, number>()
  ]
  const [inputs, outputs]: [Array<Port>, Array<Port>] = [[], []]
  const tensors = new Map<string, Tensor>()
  const starts = new Map<string, number>() // of the tensors beside
  let [unlisted, graphs] = [0, 0]
  let model: Message | undefined

  const ended = (message: Message, field: number, parent: Kind | undefined): TensorFile.Problem | "kept" | "used" => {
    switch (message.kind) {
      case "node": {
        const name = textOf(message, 4)
        if (name === "") return problem("missing name", null, message.start, "the name of an operator", "none")
        const domain = textOf(message, 7)
        const full = domain === "" || domain === "ai.onnx" ? name : `${domain}.${name}`
        operators.set(full, (operators.get(full) ?? 0) + 1)
        return "used"
      }
      case "unlisted":
        unlisted++
        return "used"
      case "tensor": {
        const tensor = tensorOf(message)
        if ("kind" in tensor) return tensor
        if (tensors.has(tensor.name)) {
          return problem("duplicate name", tensor.name, message.start, "each name once", "it twice")
        }
        tensors.set(tensor.name, tensor)
        if (tensor.beside !== undefined) starts.set(tensor.name, message.start)
        return "used"
      }
      case "value": {
        const port = portOf(message)
        if ("kind" in port) return port
        const ports = field === 11 ? inputs : outputs
        ports.push(port)
        return "used"
      }
      case "opset": {
        const domain = textOf(message, 1) || "ai.onnx"
        if (opsets.has(domain)) return twice(message, domain)
        opsets.set(domain, numberOf(message, 2) ?? 0)
        return "used"
      }
      case "entry": {
        if (parent !== "model") return "kept"
        const key = textOf(message, 1)
        if (metadata.has(key)) return twice(message, key)
        metadata.set(key, textOf(message, 2))
        return "used"
      }
      case "graph":
        graphs++
        return "used"
      case "model":
        model = message
        return "used"
      case "inner": case "function": case "attribute":
        return "used"
      default:
        return "kept"
    }
  }

  const wrong = yield* walk(file, ended)
  if (wrong !== undefined) return yield* failure(wrong)
  const irVersion = model === undefined ? 0 : numberOf(model, 1) ?? 0
  if (model === undefined || graphs !== 1 || irVersion < 1) {
    const found = `${graphs} graphs, IR version ${irVersion}`
    return yield* failure(problem("not ONNX", null, 0, "one graph and an IR version from 1", found))
  }
  const problems = yield* besides(path, [...tensors.values()], starts)
  if (problems.length > 0) return yield* failure(...problems)
  const producer = [textOf(model, 2), textOf(model, 3)].filter((part) => part !== "").join(" ")
  return {
    path, irVersion, producer, opsets, metadata, inputs, outputs, operators, tensors: [...tensors.values()], unlisted
  }
})

const twice = ({ start }: Message, name: string) =>
  problem("duplicate name", null, start, "each name once", `${JSON.stringify(name)} twice`)

/** Fields of a tensor that hold numbers of protocol buffers, with the bytes of one; 0 where that depends on it. */
const typed = [[4, 4], [5, 0], [7, 0], [10, 8], [11, 0]] as const

/** What a message says of a tensor, or what is wrong with it. */
const tensorOf = (message: Message): Tensor | TensorFile.Problem => {
  const { start } = message
  const name = textOf(message, 8)
  if (name === "") return problem("missing name", null, start, "the name of a tensor", "none")
  const code = numberOf(message, 2) ?? 0
  const found = types[code]
  if (found === undefined) return problem("unknown type", name, start, "a type from 1 to 26", `${code}`)
  const [type, bits] = found
  const sizes = numbersOf(message, 1)
  const shown = `${type} [${sizes.join(", ")}]`
  const elements = TensorFile.elementCount(sizes)
  const bytes = type === "STRING" ? numberOf(message, 6) ?? 0 : Math.ceil(elements * bits / 8)
  const isShape = sizes.every((size) => size >= 0 && Number.isSafeInteger(size)) && Number.isSafeInteger(elements)
  if (!isShape || !Number.isSafeInteger(bytes)) {
    return problem("unfit sizes", name, start, "sizes of at least 0, of fewer than 2^53 bytes in all", shown)
  }
  if (numberOf(message, 14) === 1) {
    const beside = besideOf(message, name, bytes)
    return "kind" in beside ? beside : { name, type, sizes, bytes, beside }
  }
  const raw = numberOf(message, 9)
  if (raw !== undefined && type !== "STRING" && raw !== bytes) {
    return problem("unfit sizes", name, start, `${bytes} bytes for ${shown}`, `${raw} bytes`)
  }
  if (raw === undefined && type !== "STRING") {
    const least = bits < 8 ? bytes : elements // a number of at least one byte for each
    const each = typed.reduce((sum, [field, width]) =>
      sum + (numberOf(message, field) ?? 0) / (width === 0 ? 1 : width), 0)
    const most = bits === 64 || bits === 128 ? 20 * elements : 10 * elements
    if (each < least || each > most) {
      return problem("unfit sizes", name, start, `numbers for ${shown}`, `${each} at most`)
    }
  }
  return { name, type, sizes, bytes }
}

/** Where the bytes of a tensor stand beside the model, or what is wrong with what is said of it. */
const besideOf = (message: Message, name: string, bytes: number) => {
  const said = new Map(messagesOf(message, 13).map((entry) => [textOf(entry, 1), textOf(entry, 2)]))
  const file = said.get("location") ?? ""
  const parts = file.split("/")
  const isWithin = !/[\\:\p{Cc}]/u.test(file) && parts.every((part) => part !== "" && part !== "." && part !== "..")
  if (!isWithin) {
    const expected = "a location that is a file in the folder of the model"
    return problem("external data", name, message.start, expected, JSON.stringify(file.slice(0, 80)))
  }
  const [offset = "0", length = String(bytes)] = [said.get("offset"), said.get("length")]
  if (!/^\d{1,15}$/.test(offset) || length !== String(bytes)) {
    const found = `offset ${JSON.stringify(offset.slice(0, 40))}, length ${JSON.stringify(length.slice(0, 40))}`
    return problem("external data", name, message.start, `a whole offset and length ${bytes}`, found)
  }
  return { file, offset: Number(offset) }
}

/** What a message says of an input or output, or what is wrong with it. */
const portOf = (message: Message): Port | TensorFile.Problem => {
  const name = textOf(message, 1)
  if (name === "") return problem("missing name", null, message.start, "the name of an input or output", "none")
  const said = messagesOf(message, 2).at(-1)
  const other = ([[4, "sequence"], [5, "map"], [7, "opaque"], [9, "optional"]] as const)
    .find(([field]) => said?.held.has(field) === true)
  const tensor = said === undefined ? undefined : [...messagesOf(said, 1), ...messagesOf(said, 8)].at(-1)
  if (tensor === undefined) return { name, type: other?.[1] ?? "unknown" }
  const code = numberOf(tensor, 1) ?? 0
  const type = code === 0 ? "unknown" : types[code]?.[0]
  if (type === undefined) {
    return problem("unknown type", null, message.start, `a type from 1 to 26 of ${JSON.stringify(name)}`, `${code}`)
  }
  const shape = messagesOf(tensor, 2).at(-1)
  if (shape === undefined) return { name, type }
  return {
    name, type, sizes: messagesOf(shape, 1).map((size) => numberOf(size, 1) ?? (textOf(size, 2) || "?"))
  }
}

/** What is wrong with the files beside a model: each is there, and long enough for its tensors. */
const besides = Effect.fnUntraced(function*(
  path: string, tensors: ReadonlyArray<Tensor>, starts: ReadonlyMap<string, number>
) {
  const paths = yield* Path.Path
  const problems: Array<TensorFile.Problem> = []
  const lengths = new Map<string, number | undefined>()
  for (const { beside, bytes, name } of tensors) {
    if (beside === undefined) continue
    const { file, offset } = beside
    const start = starts.get(name) ?? 0
    if (!lengths.has(file)) {
      const length = yield* TensorFile.openBytes(paths.join(paths.dirname(path), file), format).pipe(
        Effect.map(({ length }) => length),
        Effect.scoped,
        Effect.catchTag("PlatformError", (error) =>
          error.reason._tag === "NotFound" ? Effect.void : Effect.fail(error))
      )
      lengths.set(file, length ?? undefined)
      if (length === undefined) {
        problems.push(problem("missing data", name, start, `the file ${file} beside the model`, "no such file"))
      }
    }
    const length = lengths.get(file)
    if (length !== undefined && offset + bytes > length) {
      const expected = `${bytes} bytes from byte ${offset} of ${file}`
      problems.push(problem("outside the file", name, start, expected, `${length} bytes in all`))
    }
  }
  return problems
})
