/**
 * The pickles in which torch.save keeps tensors, read without executing anything.
 *
 *     pickle = { opcode · argument }* · STOP         tensor = _rebuild_tensor_v2(storage, offset, sizes, strides, …)
 *
 * A pickle is a program for a stack machine. Of its language only what builds data and describes tensors is understood:
 * None, truth values, numbers, texts, tuples, lists, dicts, collections.OrderedDict, torch's storages by persistent id,
 * and torch._utils._rebuild_tensor_v2. Any other opcode or global is an error that names it; nothing is imported,
 * called or looked up.
 *
 * From     Python's pickletools (opcodes of protocols 2 to 5); torch/serialization.py and torch/_utils.py of PyTorch.
 * Checked  test/format/Pickle.test.ts (what Python writes, foreign opcodes and globals, floods);
 *          test/format/TorchFile.test.ts (files that torch wrote); test/soak/FormatsPeer.test.ts (torch loads ours with
 *          weights_only).
 * Departs  what torch's own weights_only reader also takes (parameters, sizes, sets, bytes, devices) is refused here;
 *          attributes that BUILD hangs on an OrderedDict (versions of modules) are read and dropped.
 *
 * @module
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as ByteFile from "./ByteFile.ts"

/** The element types of torch's storages, by the name of their class. */
export const storageTypes = {
  DoubleStorage: "F64",
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL"
} as const

/** The class of a torch storage. */
export type StorageClass = keyof typeof storageTypes

/** A flat array of `elements` numbers, which lies in the archive under `key`. */
export interface Storage {
  readonly kind: "storage"
  readonly type: StorageClass
  readonly key: string
  readonly elements: number
}

/** A view of a storage: sizes and strides from the outermost axis to the innermost, in elements. */
export interface Tensor {
  readonly kind: "tensor"
  readonly storage: Storage
  readonly offset: number
  readonly sizes: ReadonlyArray<number>
  readonly strides: ReadonlyArray<number>
}

/** A tuple or a list. */
export interface Sequence {
  readonly kind: "tuple" | "list"
  readonly items: ReadonlyArray<Value>
}

/** A dict or an OrderedDict: its items in the order in which they were set, a key that was set again twice. */
export interface Dict {
  readonly kind: "dict"
  readonly items: ReadonlyArray<readonly [key: Value, value: Value]>
}

/** A class or function that the pickle names; it is only a name here. */
export interface Global {
  readonly kind: "global"
  readonly name: string
}

/** What a pickle builds. Values may be shared, and a list or dict may hold itself. */
export type Value = null | boolean | number | bigint | string | Sequence | Dict | Global | Storage | Tensor

/** What to do about a pickle that is damaged, and about one that asks for more than data. */
export const advice = {
  "pickle": "the pickle is truncated or corrupted: check where the file comes from and its checksum",
  "refused pickle": "a pickle can run any program, so only numbers, texts, dicts, lists and plain tensors are read: " +
    "save {name: tensor} with torch.save, or convert the file to safetensors where you trust it"
} as const

/** A pickle that is damaged, or asks for more than data; `offset` counts from its first byte. */
export class PickleError extends Schema.TaggedError<PickleError>()("PickleError", {
  offset: Schema.Int,
  problem: Schema.String,
  refused: Schema.Boolean
}) {
  override get message() {
    return `pickle, byte ${this.offset}: ${this.problem}\n  ${advice[this.refused ? "refused pickle" : "pickle"]}`
  }
}

const rebuildTensor = "torch._utils._rebuild_tensor_v2"
const orderedDict = "collections.OrderedDict"
const isStorageClass = (name: string): name is StorageClass => Object.hasOwn(storageTypes, name)

/** A list or dict under construction; readers see it as read-only. */
type Growing =
  | { readonly kind: "list"; readonly items: Array<Value> }
  | { readonly kind: "dict"; readonly items: Array<readonly [Value, Value]> }

const isCount = (value: Value | undefined): value is number => Number.isSafeInteger(value) && Number(value) >= 0
const isObject = (value: Value | undefined): value is Exclude<Value, null | boolean | number | bigint | string> =>
  typeof value === "object" && value !== null
const isTuple = (value: Value | undefined): value is Sequence => isObject(value) && value.kind === "tuple"

/** The numbers of a tuple of sizes or strides, of which torch has at most 64. */
const counts = (value: Value | undefined): ReadonlyArray<number> | undefined => {
  if (!isTuple(value) || value.items.length > 64) return undefined
  const numbers = value.items.filter(isCount)
  return numbers.length === value.items.length ? numbers : undefined
}

/** The storage that a persistent id stands for: ("storage", class, key, device, elements). */
const storageOf = (value: Value | undefined): Storage | undefined => {
  const [tag, type, key, device, elements] = isTuple(value) && value.items.length === 5 ? value.items : []
  const isStorage = tag === "storage" && isObject(type) && type.kind === "global" && typeof key === "string" &&
    typeof device === "string" && isCount(elements)
  const name = isStorage ? type.name.slice("torch.".length) : ""
  return isStorage && isStorageClass(name) ? { kind: "storage", type: name, key, elements } : undefined
}

/** The tensor that _rebuild_tensor_v2 makes of its arguments. */
const tensorOf = (value: Value | undefined): Tensor | undefined => {
  const [storage, offset, sizeTuple, strideTuple, requiresGradient, hooks] =
    isTuple(value) && value.items.length === 6 ? value.items : []
  const [sizes, strides] = [counts(sizeTuple), counts(strideTuple)]
  const isTensor = isObject(storage) && storage.kind === "storage" && isCount(offset) && sizes !== undefined &&
    strides?.length === sizes.length && typeof requiresGradient === "boolean" && isObject(hooks) &&
    hooks.kind === "dict" && hooks.items.length === 0
  return isTensor ? { kind: "tensor", storage, offset, sizes, strides } : undefined
}

/** The value that a pickle of protocol 2 to 5 builds. */
export const read = (bytes: Uint8Array): Result.Result<Value, PickleError> => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
  const stack: Array<Value> = []
  const marks: Array<number> = []
  const memo = new Map<number, Value>()
  const growing = new Map<Value, Growing>()
  let [at, opcodeAt] = [0, 0]
  let error: PickleError | undefined

  const fail = (problem: string, refused = false): undefined => {
    error ??= new PickleError({ offset: opcodeAt, problem, refused })
    return undefined
  }
  /** The place of the next `length` bytes, which it steps over. */
  const take = (length: number): number => {
    if (at + length > bytes.length) {
      fail(`an argument of ${length} bytes, ${bytes.length - at} are left`)
      return 0
    }
    at += length
    return at - length
  }
  const unsigned = (width: 1 | 2 | 4): number => {
    const from = take(width)
    if (error !== undefined) return 0
    return width === 1 ? view.getUint8(from) : width === 2 ? view.getUint16(from, true) : view.getUint32(from, true)
  }
  const text = (length: number): string => {
    const from = take(length)
    const part = bytes.subarray(from, error === undefined ? from + length : from)
    const result = Result.try(() => strict.decode(part))
    if (Result.isSuccess(result)) return result.success
    fail("a text that is not UTF-8")
    return ""
  }
  const line = (): string => {
    const end = bytes.indexOf(0x0a, at)
    if (end < 0) fail("a line without an end")
    const from = take(end < 0 ? 0 : end + 1 - at)
    return utf8.decode(bytes.subarray(from, Math.max(from, end)))
  }
  const pop = (): Value | undefined => {
    const floor = marks.at(-1) ?? 0
    return stack.length > floor ? stack.pop() : fail("fewer values on the stack than it takes")
  }
  const popMark = (): ReadonlyArray<Value> => {
    const mark = marks.pop()
    if (mark === undefined) fail("no mark on the stack")
    return stack.splice(mark ?? stack.length)
  }
  const push = (value: Value | undefined): void => {
    if (value !== undefined) stack.push(value)
  }
  const grow = (made: Growing): void => {
    growing.set(made, made)
    stack.push(made)
  }
  /** The list or dict below, to which an opcode adds. */
  const target = (kind: Growing["kind"]): Growing | undefined => {
    const value = stack.length > (marks.at(-1) ?? 0) ? stack.at(-1) : undefined
    const found = value === undefined ? undefined : growing.get(value)
    return found?.kind === kind ? found : fail(`no ${kind} on the stack to add to`)
  }
  const append = (values: ReadonlyArray<Value | undefined>): void => {
    const list = target("list")
    if (list?.kind === "list") for (const value of values) if (value !== undefined) list.items.push(value)
  }
  const setItems = (values: ReadonlyArray<Value | undefined>): void => {
    const dict = target("dict")
    if (values.length % 2 !== 0) fail("a key without a value")
    if (dict?.kind !== "dict") return
    for (let i = 0; i + 1 < values.length; i += 2) {
      const [key, value] = [values[i], values[i + 1]]
      if (key !== undefined && value !== undefined) dict.items.push([key, value])
    }
  }
  const tuple = (items: ReadonlyArray<Value | undefined>): void => {
    if (error === undefined) stack.push({ kind: "tuple", items: items.filter((item) => item !== undefined) })
  }
  const named = (module: string, name: string): void => {
    const full = `${module}.${name}`
    const isKnown = full === rebuildTensor || full === orderedDict || (module === "torch" && isStorageClass(name))
    if (isKnown) stack.push({ kind: "global", name: full })
    else if (error === undefined) fail(`the global ${JSON.stringify(full)}, which is not one of those understood`, true)
  }
  const called = (): void => {
    const [given, callee] = [pop(), pop()]
    if (error !== undefined) return
    const name = isObject(callee) && callee.kind === "global" ? callee.name : undefined
    if (name === orderedDict && isTuple(given) && given.items.length === 0) return grow({ kind: "dict", items: [] })
    const tensor = name === rebuildTensor ? tensorOf(given) : undefined
    if (tensor !== undefined) return push(tensor)
    fail(name === undefined ? "a call of a value" : `a call of ${name} with arguments that it does not take`, true)
  }
  const long = (length: number): void => {
    const from = take(length)
    if (error !== undefined) return
    if (length > 16) return fail(`a number of ${length} bytes`, true)
    let value = BigInt(0)
    for (let i = from + length - 1; i >= from; i--) value = (value << BigInt(8)) | BigInt(bytes[i]!)
    const signed = BigInt.asIntN(8 * length, value)
    stack.push(Number.isSafeInteger(Number(signed)) ? Number(signed) : signed)
  }
  const memoize = (index: number): void => {
    const value = stack.at(-1)
    if (value === undefined) return fail("nothing on the stack to remember")
    memo.set(index, value)
  }
  const recall = (index: number): void => {
    if (error !== undefined) return
    const value = memo.get(index)
    if (value === undefined) return fail(`memory ${index} is empty`)
    stack.push(value)
  }

  /** Steps over one opcode and its argument, and does what it says. */
  const step = (opcode: number): void => {
    switch (opcode) {
      case 0x80: { // PROTO
        const protocol = unsigned(1)
        if (protocol < 2 || protocol > 5) fail(`protocol ${protocol}, where 2 to 5 are read`, true)
        return
      }
      case 0x95: // FRAME: a hint how many bytes to read at once
        take(8)
        return
      case 0x28: // MARK
        marks.push(stack.length)
        return
      case 0x4e: // NONE
        return push(null)
      case 0x88: // NEWTRUE
        return push(true)
      case 0x89: // NEWFALSE
        return push(false)
      case 0x4a: { // BININT
        const value = unsigned(4)
        return push(value | 0)
      }
      case 0x4b: // BININT1
        return push(unsigned(1))
      case 0x4d: // BININT2
        return push(unsigned(2))
      case 0x8a: // LONG1
        return long(unsigned(1))
      case 0x47: { // BINFLOAT
        const from = take(8)
        return error === undefined ? push(view.getFloat64(from, false)) : undefined
      }
      case 0x58: // BINUNICODE
        return push(text(unsigned(4)))
      case 0x8c: // SHORT_BINUNICODE
        return push(text(unsigned(1)))
      case 0x7d: // EMPTY_DICT
        return grow({ kind: "dict", items: [] })
      case 0x5d: // EMPTY_LIST
        return grow({ kind: "list", items: [] })
      case 0x29: // EMPTY_TUPLE
        return tuple([])
      case 0x85: // TUPLE1
        return tuple([pop()])
      case 0x86: // TUPLE2
        return tuple([pop(), pop()].toReversed())
      case 0x87: // TUPLE3
        return tuple([pop(), pop(), pop()].toReversed())
      case 0x74: // TUPLE
        return tuple(popMark())
      case 0x61: // APPEND
        return append([pop()])
      case 0x65: // APPENDS
        return append(popMark())
      case 0x73: // SETITEM
        return setItems([pop(), pop()].toReversed())
      case 0x75: // SETITEMS
        return setItems(popMark())
      case 0x71: // BINPUT
        return memoize(unsigned(1))
      case 0x72: // LONG_BINPUT
        return memoize(unsigned(4))
      case 0x94: // MEMOIZE
        return memoize(memo.size)
      case 0x68: // BINGET
        return recall(unsigned(1))
      case 0x6a: // LONG_BINGET
        return recall(unsigned(4))
      case 0x63: { // GLOBAL
        const module = line()
        return named(module, line())
      }
      case 0x93: { // STACK_GLOBAL
        const [name, module] = [pop(), pop()]
        const areTexts = typeof name === "string" && typeof module === "string"
        return areTexts ? named(module, name) : fail("a global whose name is no text")
      }
      case 0x52: // REDUCE
        return called()
      case 0x51: { // BINPERSID
        const id = pop()
        if (error === undefined) push(storageOf(id) ?? fail("a persistent id that is no storage of a known type", true))
        return
      }
      case 0x62: { // BUILD
        const state = pop()
        target("dict")
        if (!isObject(state) || state.kind !== "dict") fail("a state that is no dict", true)
        return
      }
      default:
        return fail(`the opcode 0x${opcode.toString(16).padStart(2, "0")}, which is not one of those understood`, true)
    }
  }

  /** Does what the next opcode says; false at the STOP, and after an error. */
  const goOn = (): boolean => {
    opcodeAt = at
    if (at === bytes.length) fail("the end of the pickle, before its STOP")
    else if (at === 0 && bytes[0] !== 0x80) fail("a first byte that does not tell the protocol")
    else {
      const opcode = bytes[at++]!
      if (opcode === 0x2e) return false
      step(opcode)
    }
    return error === undefined
  }
  let isRunning = true
  while (isRunning) isRunning = goOn()
  const isOne = stack.length === 1 && marks.length === 0
  if (error === undefined && at !== bytes.length) fail(`${bytes.length - at} bytes after the STOP`)
  if (error === undefined && !isOne) fail(`${stack.length} values at the STOP, not one`)
  return error === undefined ? Result.succeed(stack[0]!) : Result.fail(error)
}

/** A tensor to be pickled, whose elements are the whole of the storage under `key`, in row-major order. */
export interface Stored {
  readonly name: string
  readonly type: StorageClass
  readonly key: string
  readonly sizes: ReadonlyArray<number>
}

/** The strides of row-major elements: each axis steps over all that the axes after it hold. */
export const rowMajor = (sizes: ReadonlyArray<number>): ReadonlyArray<number> =>
  sizes.map((_, axis) => sizes.slice(axis + 1).reduce((product, size) => product * Math.max(1, size), 1))

/** The pickle (protocol 2) of a dict from names to tensors. Sizes, their product and strides are safe integers. */
export const encode = (tensors: ReadonlyArray<Stored>): Uint8Array => {
  const parts: Array<Uint8Array> = []
  const encoder = new TextEncoder()
  const opcodes = (...bytes: ReadonlyArray<number>) => parts.push(Uint8Array.from(bytes))
  const text = (value: string) => {
    const encoded = encoder.encode(value)
    opcodes(0x58, encoded.length & 255, encoded.length >> 8 & 255, encoded.length >> 16 & 255, encoded.length >>> 24)
    parts.push(encoded)
  }
  const global = (module: string, name: string) => parts.push(encoder.encode(`c${module}\n${name}\n`))
  const number = (value: number) => {
    if (value < 256) return opcodes(0x4b, value)
    const bytes = new Uint8Array(10)
    bytes.set([0x8a, 8])
    new DataView(bytes.buffer).setBigInt64(2, BigInt(value), true)
    return parts.push(bytes)
  }
  const numbers = (values: ReadonlyArray<number>) => {
    opcodes(0x28)
    for (const value of values) number(value)
    opcodes(0x74)
  }
  opcodes(0x80, 2, 0x7d, 0x28) // PROTO 2, EMPTY_DICT, MARK
  for (const { key, name, sizes, type } of tensors) {
    text(name)
    global("torch._utils", "_rebuild_tensor_v2")
    opcodes(0x28, 0x28) // MARK, MARK
    text("storage")
    global("torch", type)
    text(key)
    text("cpu")
    number(sizes.reduce((product, size) => product * size, 1))
    opcodes(0x74, 0x51) // TUPLE, BINPERSID
    number(0)
    numbers(sizes)
    numbers(rowMajor(sizes))
    opcodes(0x89) // NEWFALSE
    global("collections", "OrderedDict")
    opcodes(0x29, 0x52, 0x74, 0x52) // EMPTY_TUPLE, REDUCE, TUPLE, REDUCE
  }
  opcodes(0x75, 0x2e) // SETITEMS, STOP
  return ByteFile.concat(parts)
}
