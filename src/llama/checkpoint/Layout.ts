/**
 * Where the parameters of a Llama stand in the files of others: names, axes, and the order of a rotary plane's parts.
 *
 *     theirs: matrix [outputs, inputs]                          ours: the axes of the specification, inputs first
 *     a head's rows: part, plane ("halves") or plane, part ("interleaved")
 *
 * Queries and keys alone are rotated, so theirs alone is the order of a head's rows; values and outputs keep theirs.
 *
 * From     huggingface/transformers `convert_llama_weights_to_hf.py`: the permutation of wq and wk, and over which
 *          axis Meta's shards are cut; docs/decision/0009 and 0010.
 * Checked  test/llama/CheckpointLayout.test.ts (there and back, any sizes; against the permutation written out);
 *          test/parity/Checkpoint.test.ts.
 *
 * @module
 */
import type { Sizes } from "../../tensor/Node.ts"
import { count } from "../../tensor/Node.ts"
import { leaves } from "../../tensor/Specification.ts"
import type { Config } from "../Config.ts"
import * as Transformer from "../Transformer.ts"

/** A parameter of a block, or one of the three outside, without the number of the block. */
export type Leaf =
  | "embedding" | "norm.gain" | "head"
  | "attentionNorm.gain" | "attention.query" | "attention.key" | "attention.value" | "attention.output"
  | "feedForwardNorm.gain" | "feedForward.gate" | "feedForward.up" | "feedForward.down"

/** How a format names parameters, and in which order it keeps the parts of a rotary plane. */
export interface Naming {
  readonly rotary: "halves" | "interleaved"
  /** Names; `{}` stands for the number of the block. */
  readonly names: { readonly [K in Leaf]: string }
  /** Names of tensors that follow from the configuration, and need not be read. */
  readonly computed: RegExp
}

const head = ["kvHead", "part", "plane"] as const
const heads = ["kvHead", "group", "part", "plane"] as const

/** Axes of a file's tensor, outermost first; those in one list are one axis of the file. */
const axes: { readonly [K in Leaf]: ReadonlyArray<ReadonlyArray<string>> } = {
  "embedding": [["vocab"], ["embed"]],
  "norm.gain": [["embed"]],
  "head": [["vocab"], ["embed"]],
  "attentionNorm.gain": [["embed"]],
  "attention.query": [heads, ["embed"]],
  "attention.key": [head, ["embed"]],
  "attention.value": [head, ["embed"]],
  "attention.output": [["embed"], heads],
  "feedForwardNorm.gain": [["embed"]],
  "feedForward.gate": [["hidden"], ["embed"]],
  "feedForward.up": [["hidden"], ["embed"]],
  "feedForward.down": [["embed"], ["hidden"]]
}

/** The axis of a file's tensor over which Meta's shards are cut; gains are in each shard whole. */
const cut: { readonly [K in Leaf]: number | undefined } = {
  "embedding": 1,
  "norm.gain": undefined,
  "head": 0,
  "attentionNorm.gain": undefined,
  "attention.query": 0,
  "attention.key": 0,
  "attention.value": 0,
  "attention.output": 1,
  "feedForwardNorm.gain": undefined,
  "feedForward.gate": 0,
  "feedForward.up": 0,
  "feedForward.down": 1
}

/** A parameter, here and in a file. */
export interface Place {
  /** Our path, such as `block.3.attention.query`. */
  readonly path: string
  /** Our axes, in the order in which they lie in memory. */
  readonly ours: Sizes
  /** The name in the file. */
  readonly name: string
  /** The same axes, in the order of the file. */
  readonly theirs: Sizes
  /** The sizes of the file's tensor. */
  readonly sizes: ReadonlyArray<number>
  /** The axis of the file's tensor over which shards are cut. */
  readonly cut: number | undefined
}

const isLeaf = (text: string): text is Leaf => Object.hasOwn(axes, text)

/** The parameters of a Llama, in the order of its specification, as a format keeps them; without one, as Cria does. */
export const places = (config: Config, naming?: Naming): ReadonlyArray<Place> =>
  leaves(Transformer.llama(config).specification).map(([path, { sizes: ours }]) => {
    if (naming === undefined) {
      return { path, ours, name: path, theirs: ours, sizes: Object.values(ours), cut: undefined }
    }
    const [, block = "", leaf = path] = /^block\.(\d+)\.(.*)$/.exec(path) ?? []
    if (!isLeaf(leaf)) throw new TypeError(`checkpoint: no format has a name for the parameter ${path}`)
    const { names, rotary } = naming
    const isTurned = rotary === "interleaved" && (leaf === "attention.query" || leaf === "attention.key")
    const groups = axes[leaf].map((group) => isTurned ? interleaved(group) : group)
    return {
      path, ours, name: names[leaf].replace("{}", block), cut: cut[leaf],
      theirs: Object.fromEntries(groups.flat().map((axis) => [axis, sizeOf(ours, axis)])),
      sizes: groups.map((group) => group.reduce((product, axis) => product * sizeOf(ours, axis), 1))
    }
  })

const interleaved = (group: ReadonlyArray<string>): ReadonlyArray<string> =>
  group.map((axis) => axis === "part" ? "plane" : axis === "plane" ? "part" : axis)

const sizeOf = (sizes: Sizes, axis: string): number => sizes[axis] ?? 1

/** A run of axes that are neighbours in both orders, as one: its size, and its stride here and there. */
interface Run {
  readonly size: number
  readonly from: number
  readonly to: number
}

const stridesOf = (sizes: Sizes): Map<string, number> => {
  let stride = 1
  return new Map(Object.entries(sizes).reverse().map(([axis, size]) => {
    const pair = [axis, stride] as const
    stride *= size
    return pair
  }))
}

/** The axes of `to`, outermost first, with those joined that are neighbours in `from` as well. */
const runsOf = (from: Sizes, to: Sizes): ReadonlyArray<Run> => {
  const [here, there] = [stridesOf(from), stridesOf(to)]
  const runs: Array<Run> = []
  for (const [axis, size] of Object.entries(to)) {
    if (size === 1) continue
    const run = { size, from: here.get(axis) ?? 0, to: there.get(axis) ?? 0 }
    const last = runs.at(-1)
    if (last !== undefined && last.from === run.from * size) runs[runs.length - 1] = { ...run, size: last.size * size }
    else runs.push(run)
  }
  return runs
}

const tile = 64 // so many rows of so many elements, read and written, stay in the first cache

/** Real numbers as a file or a backend holds them. */
export type Reals = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>

const likewise = (elements: Reals, length: number): Reals =>
  elements instanceof Float32Array ? new Float32Array(length) : new Float64Array(length)

/** The same elements with their axes in another order: those of `from`, in the order of `to`. */
export const reordered = (elements: Reals, from: Sizes, to: Sizes): Reals => {
  const runs = runsOf(from, to)
  if (runs.length < 2) return elements
  const result = likewise(elements, count(to))
  const inner = runs.at(-1)!
  const across = runs.find((run) => run.from === 1) ?? inner // contiguous in `elements`
  const outer = runs.filter((run) => run !== inner && run !== across)
  const rows = across === inner ? { size: 1, from: 0, to: 0 } : across
  const block = (source: number, target: number): void => {
    for (let row = 0; row < rows.size; row += tile) {
      const rowEnd = Math.min(rows.size, row + tile)
      for (let column = 0; column < inner.size; column += tile) {
        const columnEnd = Math.min(inner.size, column + tile)
        for (let i = row; i < rowEnd; i++) {
          const [read, write] = [source + i * rows.from, target + i * rows.to]
          for (let j = column; j < columnEnd; j++) result[write + j] = elements[read + j * inner.from]!
        }
      }
    }
  }
  const visit = (depth: number, source: number, target: number): void => {
    const run = outer[depth]
    if (run === undefined) return block(source, target)
    for (let i = 0; i < run.size; i++) visit(depth + 1, source + i * run.from, target + i * run.to)
  }
  visit(0, 0, 0)
  return result
}

/** Shards as one tensor of two axes: joined over the axis that they were cut over. */
export const joined = (
  shards: readonly [Reals, ...ReadonlyArray<Reals>], sizes: ReadonlyArray<number>, axis: number
): Reals => {
  const [first] = shards
  if (shards.length === 1) return first
  const result = likewise(first, shards.reduce((sum, { length }) => sum + length, 0))
  const rows = axis === 0 ? 1 : sizes[0] ?? 1
  const width = result.length / rows
  let start = 0
  for (const shard of shards) {
    const part = shard.length / rows
    for (let row = 0; row < rows; row++) result.set(shard.subarray(row * part, (row + 1) * part), row * width + start)
    start += part
  }
  return result
}
