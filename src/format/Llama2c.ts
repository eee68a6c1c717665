/**
 * Checkpoints of llama2.c (`.bin`): a header of sizes, then the tensors of a Llama in an order that the version fixes.
 *
 *     v0 = 7 sizes as i32 · f32 tensors, the tables of rotation among them     (vocabulary < 0: the head is its own)
 *     v1 = "ak42" as u32 · version · 7 sizes · shared as u8, padded to 256 bytes · f32 tensors, norms first
 *     v2 = the same header with the group size as i32 after `shared` · f32 norms · for each other tensor codes, scales
 *
 * Tensors have the names that Meta gives them; where the head is shared there is no `output.weight`.
 *
 * From     export.py and run.c of llama2.c.
 * Checked  test/format/Llama2c.test.ts (round trips of all versions; files that export.py wrote, byte for byte;
 *          stories260K); test/soak/Formats.test.ts (damaged files).
 * Departs  a file that is longer or shorter than its header says is refused (run.c ignores what follows).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type * as Scope from "effect/Scope"
import * as ByteFile from "./ByteFile.ts"
import * as TensorFile from "./TensorFile.ts"

const format = "llama2.c"

/** The header, in the words of llama2.c. */
export interface Header {
  readonly version: 0 | 1 | 2
  readonly dim: number
  readonly hidden_dim: number
  readonly n_layers: number
  readonly n_heads: number
  readonly n_kv_heads: number
  readonly vocab_size: number
  readonly max_seq_len: number
  /** Whether the head is the table of embeddings. */
  readonly shared_classifier: boolean
  /** Successive elements that share a scale, in version 2; 1 in the others, which have no scales. */
  readonly group_size: number
}

const sizeNames = ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len"] as const

const advice = {
  "header": "this is no file of llama2.c, or its beginning was overwritten: fetch or export it again",
  "version": "versions 0, 1 and 2 are read: export it again with one of them",
  "length": "the file was cut short, as by an interrupted download, or bytes were added: fetch or export it again",
  "groups": "the group size divides the elements of every tensor but the norms: take a smaller power of two",
  "missing tensor": "llama2.c holds all tensors of a Llama and no others: compare the names and the sizes",
  "unfit tensor": "versions 0 and 1 hold F32, version 2 holds I8_GROUPS beside F32 norms: convert the tensor"
} as const
const problem = TensorFile.problemsOf(advice)

const magic = 0x616b3432
const [headerBytes, legacyHeaderBytes, groupAt] = [256, 28, 37]

/** A tensor by name and sizes, and whether version 2 leaves it unquantized. */
type Placed = readonly [name: string, sizes: ReadonlyArray<number>, isPlain: boolean]

/** The tensors in the order of a version. */
const tensorsOf = (header: Header): ReadonlyArray<Placed> => {
  const { dim, hidden_dim: hidden, max_seq_len, n_heads, n_kv_heads, n_layers, shared_classifier, version } = header
  const headSize = dim / n_heads
  const keys = headSize * n_kv_heads
  const each = (name: string, sizes: ReadonlyArray<number>, isPlain = false): ReadonlyArray<Placed> =>
    Array.from({ length: n_layers }, (_, layer) => [`layers.${layer}.${name}.weight`, sizes, isPlain])
  const embeddings = ["tok_embeddings.weight", [header.vocab_size, dim], false] as const
  const attentionNorms = each("attention_norm", [dim], true)
  const feedForwardNorms = each("ffn_norm", [dim], true)
  const norm = ["norm.weight", [dim], true] as const
  const attention = [
    ...each("attention.wq", [dim, dim]), ...each("attention.wk", [keys, dim]), ...each("attention.wv", [keys, dim]),
    ...each("attention.wo", [dim, dim])
  ]
  const feedForward = [
    ...each("feed_forward.w1", [hidden, dim]), ...each("feed_forward.w2", [dim, hidden]),
    ...each("feed_forward.w3", [hidden, dim])
  ]
  const rotation = ["freqs_cos", "freqs_sin"].map((name) => [name, [max_seq_len, headSize / 2], true] as const)
  const head = shared_classifier ? [] : [["output.weight", embeddings[1], false] as const]
  return version === 0
    ? [embeddings, ...attentionNorms, ...attention, ...feedForwardNorms, ...feedForward, norm, ...rotation, ...head]
    : [...attentionNorms, ...feedForwardNorms, norm, embeddings, ...attention, ...feedForward, ...head]
}

/** What sizes break, in words; nothing where they fit. */
const misfit = (header: Header): string | undefined => {
  const { dim, n_heads, n_kv_heads } = header
  for (const name of sizeNames) {
    if (!Number.isSafeInteger(header[name]) || header[name] < 1 || header[name] > 0x7fffffff) {
      return `${name} from 1 to 2147483647, not ${header[name]}`
    }
  }
  const isEven = dim % n_heads === 0 && dim / n_heads % 2 === 0
  if (!isEven) return `heads of one even size in dim ${dim}, not ${n_heads} heads`
  return n_heads % n_kv_heads === 0 ? undefined : `n_kv_heads that divide ${n_heads} heads, not ${n_kv_heads}`
}

/** The bytes after the header, without making a list as long as n_layers; Infinity or inexact where they are many. */
const dataBytes = (header: Header): number => {
  const { dim, hidden_dim, max_seq_len, n_heads, n_kv_heads, n_layers, vocab_size, version } = header
  const norms = dim * (2 * n_layers + 1)
  const products = n_layers * (2 * dim * dim + 2 * dim * (dim / n_heads * n_kv_heads) + 3 * dim * hidden_dim) +
    vocab_size * dim * (header.shared_classifier ? 1 : 2)
  if (version === 0) return 4 * (norms + products + max_seq_len * dim / n_heads)
  return 4 * norms + (version === 1 ? 4 * products : products + products / header.group_size * 4)
}

/** Where the tensors stand, one after another behind the header. */
const entriesOf = (header: Header): ReadonlyArray<TensorFile.Entry> => {
  let offset = header.version === 0 ? legacyHeaderBytes : headerBytes
  return tensorsOf(header).map(([name, sizes, isPlain]) => {
    const type = header.version === 2 && !isPlain ? "I8_GROUPS" : "F32"
    const group = type === "F32" ? 1 : header.group_size
    const bytes = TensorFile.byteCount(type, TensorFile.elementCount(sizes), group)
    offset += bytes
    return { name, type, sizes, group, offset: offset - bytes, bytes }
  })
}

/** The tensors that a group size does not divide. */
const ungrouped = (header: Header, entries: ReadonlyArray<TensorFile.Entry>): ReadonlyArray<TensorFile.Problem> =>
  entries.filter(({ group, sizes }) => TensorFile.elementCount(sizes) % group !== 0).map(({ name, offset, sizes }) =>
    problem("groups", name, offset, `groups of ${header.group_size}`, `sizes [${sizes.join(", ")}]`)
  )

/** The header in the first bytes of a file, or what is wrong with it. */
const parse = (start: Uint8Array): Header | TensorFile.Problem => {
  const view = new DataView(start.buffer, start.byteOffset, start.length)
  const isLegacy = start.length < 4 || view.getUint32(0, true) !== magic
  const needed = isLegacy ? legacyHeaderBytes : headerBytes
  if (start.length < needed) {
    return problem("header", null, 0, `a header of ${needed} bytes`, `a file of ${start.length}`)
  }
  const version = isLegacy ? 0 : view.getInt32(4, true)
  if (version !== 0 && version !== 1 && version !== 2 || (version === 0 && !isLegacy)) {
    return problem("version", null, 4, "version 1 or 2 behind the magic", `${version}`)
  }
  const size = (index: number) => view.getInt32((isLegacy ? 0 : 8) + 4 * index, true)
  const vocabulary = size(5)
  const shared = isLegacy ? Number(vocabulary > 0) : view.getUint8(36)
  const header: Header = {
    version,
    dim: size(0),
    hidden_dim: size(1),
    n_layers: size(2),
    n_heads: size(3),
    n_kv_heads: size(4),
    vocab_size: isLegacy ? Math.abs(vocabulary) : vocabulary,
    max_seq_len: size(6),
    shared_classifier: shared === 1,
    group_size: version === 2 ? view.getInt32(groupAt, true) : 1
  }
  const fault = misfit(header)
  if (fault !== undefined) return problem("header", null, isLegacy ? 0 : 8, fault, "a header with it")
  if (shared > 1) return problem("header", null, 36, "0 or 1, whether the head is shared", `${shared}`)
  if (header.group_size < 1) return problem("header", null, groupAt, "a group size from 1", `${header.group_size}`)
  const padding = version === 2 ? groupAt + 4 : groupAt
  const at = isLegacy ? -1 : start.findIndex((byte, index) => index >= padding && byte !== 0)
  return at < 0 ? header : problem("header", null, at, "zeros up to byte 256", `${start[at]}`)
}

/** Opens a checkpoint of llama2.c until the Scope closes; only its header is read. */
export const open = Effect.fnUntraced(function*(
  path: string
): Effect.fn.Return<TensorFile.TensorFile, TensorFile.Failure, FileSystem.FileSystem | Scope.Scope> {
  const failure = TensorFile.failureOf(format, path)
  const file = yield* TensorFile.openBytes(path, format)
  const header = parse(yield* file.bytesAt(0, Math.min(file.length, headerBytes), null))
  if ("kind" in header) return yield* failure(header)
  const length = (header.version === 0 ? legacyHeaderBytes : headerBytes) + dataBytes(header)
  if (length !== file.length) {
    const sizes = sizeNames.map((name) => `${name} ${header[name]}`).join(", ")
    return yield* failure(problem("length", null, file.length, `${length} bytes for ${sizes}`, `${file.length} bytes`))
  }
  const entries = entriesOf(header)
  const problems = ungrouped(header, entries)
  if (problems.length > 0) return yield* failure(...problems)
  return TensorFile.make(`${format} v${header.version}`, file, new Map(Object.entries(header)), entries)
})

/**
 * Writes a checkpoint and waits until it is on the disk; the tensors may be given in any order, and must be those of
 * the header, in F32, or in I8_GROUPS (codes, then scales) where version 2 quantizes. On failure a partial file is
 * left: write under a temporary name and rename on success.
 */
export const write = Effect.fnUntraced(function*<E = never, R = never>(
  path: string,
  header: Header,
  tensors: ReadonlyArray<TensorFile.Source<E, R>>
): TensorFile.Writing<E, R> {
  const failure = TensorFile.failureOf(format, path)
  const isGroup = header.version === 2 ? Number.isSafeInteger(header.group_size) && header.group_size > 0 : true
  const layers = tensors.length >= header.n_layers ? undefined : `tensors for ${header.n_layers} layers`
  const fault = misfit(header) ?? (isGroup ? layers : `a group size from 1, not ${header.group_size}`)
  if (fault !== undefined) return yield* failure(problem("header", null, 0, fault, "a header with it"))
  const entries = entriesOf(header)
  const problems = [...ungrouped(header, entries)]
  const sources = new Map(tensors.map((tensor) => [tensor.name, tensor]))
  const known = new Set(entries.map(({ name }) => name))
  for (const { name, sizes, type } of tensors) {
    if (known.delete(name)) continue // so that a second one is not known
    problems.push(problem("missing tensor", name, 0, "each of the tensors once", `${type} [${sizes.join(", ")}]`))
  }
  for (const { name, offset, sizes, type } of entries) {
    const shown = `${type} [${sizes.join(", ")}]`
    const given = sources.get(name)
    if (given === undefined) problems.push(problem("missing tensor", name, offset, shown, "none"))
    else if (given.type !== type || given.sizes.join() !== sizes.join()) {
      problems.push(problem("unfit tensor", name, offset, shown, `${given.type} [${given.sizes.join(", ")}]`))
    }
  }
  if (problems.length > 0) return yield* failure(...problems)

  const start = new Uint8Array(header.version === 0 ? legacyHeaderBytes : headerBytes)
  const view = new DataView(start.buffer)
  const first = header.version === 0 ? 0 : 8
  for (const [index, name] of sizeNames.entries()) view.setInt32(first + 4 * index, header[name], true)
  if (header.version === 0 && !header.shared_classifier) view.setInt32(20, -header.vocab_size, true)
  if (header.version > 0) {
    view.setUint32(0, magic, true)
    view.setInt32(4, header.version, true)
    view.setUint8(36, Number(header.shared_classifier))
  }
  if (header.version === 2) view.setInt32(groupAt, header.group_size, true)
  return yield* ByteFile.write(path, Effect.fnUntraced(function*(append) {
    yield* append(start)
    for (const { group, name, offset } of entries) {
      const misfit = (expected: string, found: string) =>
        failure(problem("unfit tensor", name, offset, expected, found))
      yield* append(yield* TensorFile.bytesOf(sources.get(name)!, group, misfit))
    }
  }))
})
