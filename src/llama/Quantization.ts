/**
 * A model whose linear weights are kept in 8 or 4 bits, for running and not for training.
 *
 * Coded is what the model contracts and does nothing else with, over the axes over which it does: the projections of
 * attention and of the feed-forward layer, and the head. The embedding table, of which single rows are read, and the
 * gains of normalization stay as they are. Nothing but the parameters changes: the model computes with the weights that
 * the codes stand for, and a backend that can does so without writing them out.
 *
 * From     Dettmers et al. 2022 (8 bits; rows are §3.1, "vector-wise"); Frantar et al. 2023 §2 (rounding to the nearest
 *          as the baseline for 4).
 * Checked  test/llama/Quantization.test.ts; test/tensor/BlockCodes.test.ts; test/backend/onnx/CodedProduct.test.ts.
 * Departs  Llama 2's paper runs in 16 bits. Every weight has codes: no outliers are kept apart, nothing is calibrated.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type AnyCell, Backend, type BackendError, type Cells, type Elements, type ElementsOf } from
  "../backend/Backend.ts"
import { isCell } from "../backend/HostState.ts"
import * as BlockCodes from "../tensor/BlockCodes.ts"
import { partsOf } from "../tensor/Composite.ts"
import { topological } from "../tensor/Gradient.ts"
import type { Hidden } from "../tensor/Hidden.ts"
import { type Any, fail, make, type Sizes, type Untyped, within } from "../tensor/Node.ts"
import { attempt, type ShapeError } from "../tensor/ShapeError.ts"
import type { AnySpecification, Specifications } from "../tensor/Specification.ts"
import { isSpecification, leaves, zeros } from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import { entries, mapAs, tensors } from "../tensor/Tree.ts"
import type { Pieces } from "./checkpoint/Pieces.ts"
import type { Config } from "./Config.ts"
import type { Transformer } from "./Transformer.ts"
import { causal } from "./Visibility.ts"

/** How many bits a weight has, and, where they are 8, whether a whole row of weights shares a scale. */
export type Width = "8-bit" | "8-bit-rows" | "4-bit"

/**
 * Blocks of 32 weights share a scale: 9 and 5 bits a weight, scales included. In `8-bit-rows` all weights that are
 * summed together do (8 bits and a little): there ONNX Runtime multiplies and sums whole numbers, and also codes what
 * they are multiplied with in one scale for each vector, not for each 32 or 64 of its elements. Products of several
 * vectors, a batch or a prompt, take down to half the time, those of one as long, or a few µs more; both codings are
 * coarser.
 */
export const schemes: Readonly<Record<Width, BlockCodes.Scheme>> = {
  "8-bit": { bits: 8, block: 32 },
  "8-bit-rows": { bits: 8, block: "row" },
  "4-bit": { bits: 4, block: 32 }
}

/**
 * The scheme for a model of some sizes: as above, but where all of them allow it, blocks of 64 weights for 8 bits. That
 * is an eighteenth less memory, and a tenth less of what is packed for products. Throws a `ShapeError` for a width that
 * is none.
 */
export const schemeOf = (width: Width, { embedSize, headCount, headSize, hiddenSize }: Config): BlockCodes.Scheme => {
  if (!Object.hasOwn(schemes, width)) { // whoever writes JavaScript hears it from nobody else
    fail("quantization", `a width is one of ${Object.keys(schemes).join(", ")}`, [["width", String(width)]],
      "Name one of them.")
  }
  return width === "8-bit" && [embedSize, headCount * headSize, hiddenSize].every((size) => size % 64 === 0)
    ? { bits: 8, block: 64 }
    : schemes[width]
}

/** A model over coded weights. */
export interface Quantized extends Transformer<Hidden> {
  /** The parameters that have codes, by path, with the axes over which they are contracted. */
  readonly coded: ReadonlyMap<string, ReadonlyArray<string>>
  readonly scheme: BlockCodes.Scheme
  /** The parameters of the model as it was. */
  readonly leaves: ReadonlyArray<readonly [path: string, leaf: AnySpecification]>
}

/**
 * The same model with its linear weights in codes. A width that the blocks do not divide is a `ShapeError`, which
 * names the parameter.
 *
 * A gradient can be taken with respect to what is added to such a model (a low-rank correction), not to the codes.
 */
export const quantized = <P>(model: Transformer<P>, scheme: BlockCodes.Scheme): Effect.Effect<Quantized, ShapeError> =>
  attempt(() => build(model, scheme))

const build = <P>(model: Transformer<P>, scheme: BlockCodes.Scheme): Quantized => {
  const coded = contracted(model)
  const whole = (parameters: Hidden): P => {
    const byPath = new Map(tensors(parameters))
    return mapAs<P>()(model.specification, isSpecification, ({ sizes }, path) => {
      const over = coded.get(path)
      const [codes, scales] = [byPath.get(`${path}.codes`), byPath.get(`${path}.scales`)]
      if (over === undefined || codes === undefined || scales === undefined) return byPath.get(path)
      const pair = { codes: codes as Untyped, scales: scales as Untyped }
      return BlockCodes.dequantize(pair, chosen(sizes, over), BlockCodes.codingOf(scheme))
    })
  }
  return {
    config: model.config,
    coded,
    scheme,
    leaves: leaves(model.specification),
    specification: mapAs<Specifications<Hidden>>()(model.specification, isSpecification, (leaf, path) => {
      const over = coded.get(path)
      return over === undefined ? zeros(leaf)
        : within(path, () => BlockCodes.specification(leaf.sizes, over, scheme)) // so that an error names it
    }),
    hidden: (parameters, input, options) => model.hidden(whole(parameters), input, options),
    logits: (parameters, hidden) => model.logits(whole(parameters), hidden)
  }
}

const chosen = (sizes: Sizes, axes: ReadonlyArray<string>): Sizes =>
  Object.fromEntries(axes.map((axis) => [axis, sizes[axis] ?? 0]))

/** The parameters of which the model makes nothing but contractions, always over the same axes. */
const contracted = <P>(model: Transformer<P>): ReadonlyMap<string, ReadonlyArray<string>> => {
  const parameters = mapAs<P>()(model.specification, isSpecification, ({ kind, sizes }, path) =>
    make({ _tag: "Leaf", role: "cell", name: path }, [], sizes, kind))
  const ids = T.ids({ batch: 1, position: 1 }, [0])
  const logits = model.logits(parameters, model.hidden(parameters, { ids, visibility: causal }))
  const uses = new Map<string, Set<string>>()
  const visit = (ends: ReadonlyArray<Any>, given: ReadonlySet<Any>): void => {
    for (const node of topological(ends, (node) => given.has(node))) {
      if (given.has(node)) continue
      const { operands, operation } = node
      if (operation._tag === "Composite") {
        visit(partsOf(node), new Set(operands))
        continue
      }
      for (const { operation: { _tag: tag, ...leaf } } of operands) {
        if (tag !== "Leaf" || !("name" in leaf)) continue
        const use = operation._tag === "Contract" ? operation.over.join() : ""
        uses.set(leaf.name, (uses.get(leaf.name) ?? new Set()).add(use))
      }
    }
  }
  visit([logits], new Set())
  return new Map([...uses].flatMap(([path, [over = "", ...others]]) =>
    over === "" || others.length > 0 ? [] : [[path, over.split(",")] as const]))
}

/** Where the parameters come from, one at a time: elements in the order of the sizes. */
export type Source<E = never, R = never> = (path: string, sizes: Sizes) => Effect.Effect<Elements, E, R>

/** The cells of a coded model. */
export type Coded = Cells<Specifications<Hidden>>

/**
 * Fills the cells of a coded model tensor by tensor, and seals them: no more than one tensor is held uncoded, and each
 * cell has memory of its own, so that none grows beyond what one array can hold. What `pieces` has is coded as it is
 * read, and held whole only where no part of it can be coded before all is there.
 */
export const load = <E, R>(
  { coded, leaves: whole, scheme, specification }: Quantized, source: Source<E, R>,
  pieces: (path: string) => Effect.Effect<Pieces<E> | undefined, E, R> = () => Effect.succeed(undefined)
): Effect.Effect<Coded, BackendError | BlockCodes.WeightError | E, Backend | Scope.Scope | R> =>
  Effect.gen(function*() {
    const backend = yield* Backend
    const wanted = new Map(leaves(specification))
    const cells = new Map<string, AnyCell>()
    const put = Effect.fnUntraced(function*(path: string, elements: Elements) {
      for (const [, cell] of entries(yield* backend.allocate({ [path]: wanted.get(path) }), isCell)) {
        yield* backend.write(cell, elements)
        cells.set(path, cell)
      }
    })
    const putCodes = Effect.fnUntraced(function*(path: string, { codes, scales }: BlockCodes.Encoded) {
      yield* put(`${path}.codes`, codes)
      yield* put(`${path}.scales`, scales)
    })
    for (const [path, { sizes }] of whole) {
      const over = coded.get(path)
      const parts = over === undefined ? undefined : yield* pieces(path)
      if (over !== undefined && parts !== undefined) {
        const encoder = BlockCodes.encoder(sizes, over, scheme, parts.lying)
        yield* parts.each(encoder.together, encoder.add)
        yield* putCodes(path, encoder.encoded)
        continue
      }
      const elements = yield* source(path, sizes)
      if (over === undefined || !isReal(elements)) yield* put(path, elements)
      else yield* putCodes(path, yield* Effect.fromResult(BlockCodes.encode(elements, sizes, over, scheme)))
    }
    const all = mapAs<Coded>()(specification, isSpecification, (_, path) => cells.get(path))
    yield* backend.seal(all)
    return all
  })

const isReal = (elements: Elements): elements is ElementsOf["real"] =>
  elements instanceof Float32Array || elements instanceof Float64Array

/** Codes what the cells of a model hold now, in cells that are sealed. */
export const fromCells = (
  quantized: Quantized, parameters: unknown
): Effect.Effect<Coded, BackendError | BlockCodes.WeightError, Backend | Scope.Scope> =>
  Effect.flatMap(Backend, (backend) => {
    const cells = new Map(entries(parameters, isCell))
    return load(quantized, (path) => Effect.map(backend.read({ cell: cells.get(path) }), ({ cell }) =>
      cell?.elements ?? new Float32Array()))
  })
