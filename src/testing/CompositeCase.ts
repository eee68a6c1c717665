/**
 * The composites of the model, which backends may run as one kernel: each alone, and together as a block and a loss.
 *
 * From     Llama 2 §2.2: the parts of a block.
 * Checked  test/law/BackendLaws.test.ts, test/backend/Backend.test.ts.
 *
 * @module
 */
import { attend } from "../llama/Attention.ts"
import { swiGlu } from "../llama/FeedForward.ts"
import { attendKept } from "../llama/KeyValueCache.ts"
import { rmsNorm } from "../llama/RmsNorm.ts"
import { angles, rotate } from "../llama/Rope.ts"
import { causal } from "../llama/Visibility.ts"
import { tokenCrossEntropy } from "../loss/CrossEntropy.ts"
import { dequantize } from "../tensor/BlockCodes.ts"
import { type Any, count, type Sizes, type Untyped } from "../tensor/Node.ts"
import * as T from "../tensor/Tensor.ts"
import * as Arbitrary from "./Arbitrary.ts"
import type { Computation, Given } from "./Computation.ts"

const size = { batch: 2, position: 5, embed: 8, hidden: 12, kvHead: 2, group: 1, plane: 2, part: 2, vocab: 11 } as const

const sizesOf = (...axes: ReadonlyArray<keyof typeof size>): Sizes =>
  Object.fromEntries(axes.map((axis) => [axis, size[axis]]))

const real = (name: string, sizes: Sizes): Given =>
  ({ name, kind: "real", sizes, elements: Arbitrary.reals(name, count(sizes)) })

const tokens = sizesOf("batch", "position")

const targets: Given =
  { name: "targets", kind: "id", sizes: tokens, elements: Arbitrary.idsBelow("targets", count(tokens), size.vocab) }

const of = (
  given: ReadonlyArray<Given>, build: (...leaves: ReadonlyArray<Untyped>) => Any | ReadonlyArray<Any>
): Computation => ({
  given, build: (leaves) => [build(...given.flatMap(({ name }) => leaves[name] ?? []))].flat()
})

const heads = sizesOf("batch", "position", "kvHead", "group", "plane", "part")
const keys = { batch: size.batch, source: size.position, ...sizesOf("kvHead", "plane", "part") }

const fresh = sizesOf("batch", "position", "kvHead", "plane", "part")
const kept = { ...keys, source: 7 }

const starts: Given = { name: "starts", kind: "id", sizes: sizesOf("batch"), elements: Int32Array.of(0, 2) }

/** A product with weights in codes: two blocks of each row. Engines with a kernel for it have it for some lengths. */
const coded = (bits: 4 | 8, block: number): Computation =>
  product({ hidden: size.hidden, block: 2, byte: block * bits / 8 }, 2 * block, bits)

/** A product with weights in codes that lie in some order. */
const product = (codes: Sizes, embed: number, coding: 4 | 8 | "row"): Computation => {
  const { byte: _, ...scales } = codes
  return of([
    real("x", { ...sizesOf("batch"), embed }),
    {
      name: "codes", kind: "code", sizes: codes,
      elements: Uint8Array.from(Arbitrary.idsBelow("codes", count(codes), 256))
    },
    real("scales", scales)
  ], (...all) => {
    const at = operands(all)
    const weights: Untyped = dequantize({ codes: at(1), scales: at(2) }, { embed }, coding)
    return T.contract(at(0), weights, "embed")
  })
}

const turned = (x: Untyped): Untyped => rotate(x, angles(T.positions("position", size.position), {
  headSize: size.plane * size.part, theta: 1e4
}))

const missing: Untyped = T.fill<string>({}, NaN)

const operands = (leaves: ReadonlyArray<Untyped>) => (index: number): Untyped => leaves[index] ?? missing

/** The composites by name. Each is tried with its gradient. */
export const composites: Readonly<Record<string, Computation>> = {
  softmax: of([real("x", sizesOf("position", "vocab"))], (...all) => T.softmax("vocab")(operands(all)(0))),
  silu: of([real("x", sizesOf("position", "hidden"))], (...all) => T.silu(operands(all)(0))),
  rmsNorm: of([real("x", sizesOf("batch", "position", "embed")), real("gain", sizesOf("embed"))], (...all) =>
    rmsNorm(operands(all)(0), operands(all)(1), 1e-5)),
  rotate: of([real("x", heads)], (...all) => turned(operands(all)(0))),
  attend: of([real("query", heads), real("key", keys), real("value", keys)], (...all) => {
    const at = operands(all)
    return attend(at(0), at(1), at(2), causal)
  }),
  attendKept: of([
    real("query", heads), real("key", fresh), real("value", fresh), real("kept", kept), real("keptToo", kept), starts
  ], (...all) => {
    const at = operands(all)
    const { kept, mixed } = attendKept(at(0), { key: at(1), value: at(2) }, { key: at(3), value: at(4) }, at(5))
    return [mixed, kept.key, kept.value]
  }),
  "contractCodes, 8 bits, blocks of 4": coded(8, 4),
  "contractCodes, 8 bits, blocks of 32": coded(8, 32),
  "contractCodes, 4 bits, blocks of 4": coded(4, 4),
  "contractCodes, 4 bits, blocks of 32": coded(4, 32),
  contractRows: product({ block: 1, byte: 24, hidden: size.hidden }, 24, "row"),
  tokenCrossEntropy: of([real("logits", sizesOf("batch", "position", "vocab")), targets], (...all) =>
    tokenCrossEntropy(operands(all)(0), operands(all)(1))),
  block: of([
    real("x", sizesOf("batch", "position", "embed")), real("gain", sizesOf("embed")),
    real("query", sizesOf("embed", "kvHead", "group", "plane", "part")),
    ...["key", "value"].map((name) => real(name, sizesOf("embed", "kvHead", "plane", "part"))),
    real("output", sizesOf("kvHead", "group", "plane", "part", "embed")),
    real("gate", sizesOf("embed", "hidden")), real("up", sizesOf("embed", "hidden")),
    real("down", sizesOf("hidden", "embed")), real("head", sizesOf("embed", "vocab")), targets
  ], (...all) => {
    const at = operands(all)
    const x: Untyped = rmsNorm(at(0), at(1), 1e-5)
    const query: Untyped = turned(T.contract(x, at(2), "embed"))
    const key: Untyped = T.rename(turned(T.contract(x, at(3), "embed")), "position", "source")
    const value: Untyped = T.rename(T.contract(x, at(4), "embed"), "position", "source")
    const mixed: Untyped = attend(query, key, value, causal)
    const residual: Untyped = T.add(at(0), T.contract(mixed, at(5), ["kvHead", "group", "plane", "part"]))
    const gates = { gate: at(6), up: at(7), down: at(8) }
    const end: Untyped = T.add(residual, swiGlu(gates, rmsNorm(residual, at(1), 1e-5)))
    return tokenCrossEntropy(T.contract(end, at(9), "embed"), at(10))
  })
}
