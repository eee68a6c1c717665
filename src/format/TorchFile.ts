/**
 * Files of torch.save, as Meta's `consolidated.NN.pth`: a zip archive of one pickle that describes the tensors, and of
 * one entry a storage.
 *
 *     archive = { prefix/data.pkl, prefix/byteorder, prefix/data/0, prefix/data/1, …, prefix/version }
 *
 * Nested dicts and lists become dotted names ("model.norm.weight", "layers.0"); what is no tensor becomes metadata.
 * Only the pickle is read when a file is opened; it is read by a reader that can build data and nothing else.
 *
 * From     torch/serialization.py of PyTorch 2.13 (the zip format, default since 1.6).
 * Checked  test/format/TorchFile.test.ts (round trips; files that torch wrote, in all its types; hostile pickles);
 *          test/soak/FormatsPeer.test.ts (torch.load with weights_only reads what is written here);
 *          test/soak/Formats.test.ts (damaged files).
 * Departs  tensors that are not contiguous (transposed, expanded, sliced across) are refused by name; files of before
 *          torch 1.6, which are no archives, and big-endian files are refused.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as ByteFile from "./ByteFile.ts"
import * as Pickle from "./Pickle.ts"
import * as TensorFile from "./TensorFile.ts"
import * as Zip from "./Zip.ts"

const format = "torch.save"

const advice = {
  "no pickle": "this archive is not of torch.save, or was packed again by another program: save the file again",
  "byte order": "the file was written on a big-endian machine: load and save it on a little-endian one",
  ...Pickle.advice,
  "not flat": "dicts and lists are read where they nest less than 64 deep, do not hold themselves, and have texts or " +
    "numbers as keys: save {name: tensor}",
  "duplicate name": "two tensors have one dotted name: rename one of them and save again",
  "missing storage": "the archive was cut or edited: fetch or save it again",
  "outside the storage": "the pickle was damaged or made to deceive: fetch or save the file again",
  "not contiguous": "the tensor is a transposed or strided view: call .contiguous() on it before saving it",
  "unfit tensor": "torch.save holds F64, F32, F16, BF16, I64, I32, I16, I8, U8 and BOOL, names are well-formed " +
    "Unicode, and sizes are whole numbers from 0: convert or rename the tensor"
} as const
const problem = TensorFile.problemsOf(advice)

const isScalar = (value: Pickle.Value): value is null | boolean | number | bigint | string =>
  value === null || typeof value !== "object"

/**
 * Tensors and other leaves of what a pickle of so many bytes built, by their dotted names. Values may be shared, so a
 * short pickle can build a tree without end: its names and leaves together may be a few times as long as the pickle.
 */
const flatten = (value: Pickle.Value, bytes: number) => {
  const room = 65_536 + 4 * bytes
  const tensors = new Map<string, Pickle.Tensor>()
  const metadata = new Map<string, TensorFile.Value>()
  const problems: Array<{ readonly kind: keyof typeof advice; readonly name: string; readonly found: string }> = []
  let visited = 0
  const visit = (name: string, value: Pickle.Value, depth: number): void => {
    if (visited > room) return
    visited += 1 + name.length
    if (visited > room || depth > 64) {
      problems.push({ kind: "not flat", name, found: "one that holds itself, or far more than its pickle could" })
      visited = room + 1
      return
    }
    const taken = tensors.has(name) || metadata.has(name)
    const isLeaf = isScalar(value) || value.kind === "tensor" || (value.kind !== "storage" && value.kind !== "global" &&
      value.items.length === 0)
    if (taken && isLeaf) problems.push({ kind: "duplicate name", name, found: "it twice" })
    else if (isScalar(value)) metadata.set(name, value)
    else if (value.kind === "tensor") tensors.set(name, value)
    else if (value.kind === "storage" || value.kind === "global") {
      const found = value.kind === "global" ? `the class ${value.name}` : "a bare storage"
      problems.push({ kind: "refused pickle", name, found })
    } else if (value.kind === "dict") {
      if (value.items.length === 0) metadata.set(name, [])
      for (const [key, item] of value.items) {
        if (typeof key === "string" || typeof key === "number") {
          visit(depth === 0 ? String(key) : `${name}.${key}`, item, depth + 1)
        } else problems.push({ kind: "not flat", name, found: "a key that is neither a text nor a number" })
      }
    } else if (value.items.every(isScalar)) {
      visited += value.items.length
      metadata.set(name, value.items.filter(isScalar))
    } else for (const [index, item] of value.items.entries()) {
      visit(depth === 0 ? String(index) : `${name}.${index}`, item, depth + 1)
    }
  }
  visit("", value, 0)
  return { tensors, metadata, problems }
}

/** Row-major, which the strides of axes of size 1 do not touch, nor those of a tensor without elements. */
const isContiguous = ({ sizes, strides }: Pickle.Tensor): boolean => {
  const expected = Pickle.rowMajor(sizes)
  return sizes.includes(0) || sizes.every((size, axis) => size === 1 || strides[axis] === expected[axis])
}

/** Opens a file of torch.save until the Scope closes; only directory and pickle are read. */
export const open = Effect.fnUntraced(function*(
  path: string
): Effect.fn.Return<TensorFile.TensorFile, TensorFile.Failure, FileSystem.FileSystem | Scope.Scope> {
  const failure = TensorFile.failureOf(format, path)
  const file = yield* TensorFile.openBytes(path, format)
  const archive = yield* Zip.open(file, format)
  const pickles = [...archive.values()].filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name))
  const [pickle] = pickles
  if (pickle === undefined || pickles.length > 1) {
    return yield* failure(problem("no pickle", null, 0, "one entry named …/data.pkl", `${pickles.length}`))
  }
  const prefix = pickle.name.slice(0, -"data.pkl".length)
  const order = archive.get(`${prefix}byteorder`)
  if (order !== undefined) {
    const found = new TextDecoder("latin1").decode(yield* Zip.read(file, format, order))
    if (found !== "little") {
      return yield* failure(problem("byte order", null, order.offset, "little", JSON.stringify(found.slice(0, 20))))
    }
  }
  const bytes = yield* Zip.read(file, format, pickle)
  const value = yield* Effect.fromResult(Result.mapError(Pickle.read(bytes), (error) => {
    const kind = error.refused ? "refused pickle" : "pickle"
    return failure(problem(kind, null, pickle.offset + error.offset, "a pickle of tensors", error.problem))
  }))
  const { metadata, problems: misshapen, tensors } = flatten(value, bytes.length)
  const problems = misshapen.map(({ found, kind, name }) => problem(kind, name, pickle.offset, "plain data", found))

  const entries: Array<TensorFile.Entry> = []
  for (const [name, tensor] of tensors) {
    const { offset, sizes, storage, strides } = tensor
    const type = Pickle.storageTypes[storage.type]
    const width = TensorFile.types[type].bytes
    const entry = archive.get(`${prefix}data/${storage.key}`)
    const shown = `${type} [${sizes.join(", ")}]`
    if (entry === undefined || entry.bytes !== storage.elements * width) {
      const expected = `${storage.elements} elements of ${type} in entry ${JSON.stringify(`data/${storage.key}`)}`
      const found = entry === undefined ? "no such entry" : `${entry.bytes} bytes`
      problems.push(problem("missing storage", name, pickle.offset, expected, found))
      continue
    }
    const elements = TensorFile.elementCount(sizes)
    if (!isContiguous(tensor)) {
      const expected = `strides [${Pickle.rowMajor(sizes).join(", ")}] for ${shown}`
      problems.push(problem("not contiguous", name, entry.offset, expected, `[${strides.join(", ")}]`))
    } else if (offset + elements > storage.elements) {
      const expected = `${shown} within the ${storage.elements} elements of its storage`
      problems.push(problem("outside the storage", name, entry.offset, expected, `${elements} from ${offset}`))
    } else {
      const place = { offset: entry.offset + offset * width, bytes: elements * width }
      entries.push({ name, type, sizes, group: 1, ...place })
    }
  }
  if (problems.length > 0) return yield* failure(...problems)
  return TensorFile.make(format, file, metadata, entries)
})

/** The class of the storage that holds elements of a type, if torch has one. */
const classOf = (type: TensorFile.Type): Pickle.StorageClass | undefined =>
  (Object.keys(Pickle.storageTypes) as Array<Pickle.StorageClass>).find((name) => Pickle.storageTypes[name] === type)

/**
 * Writes a dict from names to tensors as torch.save does, tensor after tensor in the order given, and waits until it
 * is on the disk. On failure a partial file is left: write under a temporary name and rename on success.
 */
export const write = Effect.fnUntraced(function*<E = never, R = never>(
  path: string,
  tensors: ReadonlyArray<TensorFile.Source<E, R>>
): TensorFile.Writing<E, R> {
  const failure = TensorFile.failureOf(format, path)
  const problems: Array<TensorFile.Problem> = []
  const names = new Set<string>()
  const stored = tensors.flatMap(({ name, sizes, type }, index): ReadonlyArray<Pickle.Stored> => {
    const storage = classOf(type)
    const isShape = sizes.every((size) => Number.isSafeInteger(size) && size >= 0)
    const span = TensorFile.elementCount(sizes.map((size) => Math.max(1, size))) // strides step over empty axes too
    const isFit = isShape && Number.isSafeInteger(span * 8) && !/\p{Surrogate}/u.test(name)
    if (names.has(name)) problems.push(problem("duplicate name", name, 0, "each name once", "it twice"))
    names.add(name)
    if (storage !== undefined && isFit) return [{ name, type: storage, key: String(index), sizes }]
    problems.push(problem("unfit tensor", name, 0, "a tensor that torch can hold", `${type} [${sizes.join(", ")}]`))
    return []
  })
  if (problems.length > 0) return yield* failure(...problems)
  const text = (value: string) => new TextEncoder().encode(value)
  return yield* ByteFile.write(path, Effect.fnUntraced(function*(append) {
    const frame = Zip.frame()
    yield* Zip.append(frame, append, "archive/data.pkl", Pickle.encode(stored))
    yield* Zip.append(frame, append, "archive/byteorder", text("little"))
    for (const [index, tensor] of tensors.entries()) {
      const bytes = yield* TensorFile.bytesOf(
        tensor, 1, (expected, found) => failure(problem("unfit tensor", tensor.name, 0, expected, found))
      )
      yield* Zip.append(frame, append, `archive/data/${index}`, bytes)
    }
    yield* Zip.append(frame, append, "archive/version", text("3\n"))
    yield* append(frame.after())
  }))
})
