/**
 * Slots: the caches of sequences that decode together, and the programs that compute a prompt and a step.
 *
 *     prompt ──blocks──▶ a cache of its own ──copied──▶ slot, slot, …   then steps: one position of every slot
 *
 * A prompt is computed once, alone, in blocks of few lengths, whatever waits beside it; any number of slots then start
 * from it. So neither the other sequences nor the slot can change what a sequence is computed from.
 *
 * From     Kwon et al. 2023 (one prompt, many answers), without pages: a slot's cache is one piece.
 * Checked  test/generate/Slots.test.ts (blocks cover a prompt, within the context); test/generate/Filling.test.ts.
 * Departs  with a single slot, the prompt is computed where it decodes: later places of a cache are not seen, so that a
 *          second answer begins without a copy.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type AnyCell, Backend, type BackendError, type Bound, type Cells, type Results } from "../backend/Backend.ts"
import { isCell } from "../backend/HostState.ts"
import * as KeyValueCache from "../llama/KeyValueCache.ts"
import type { Transformer } from "../llama/Transformer.ts"
import * as Program from "../tensor/Program.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import * as Specification from "../tensor/Specification.ts"
import type { Specifications } from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import { entries } from "../tensor/Tree.ts"
import { requireCounts } from "./Request.ts"
import type { Logits, Scores } from "./Sampling.ts"

/** What slots are made of. */
export interface Options<P> {
  readonly model: Transformer<P>
  readonly parameters: Cells<Specifications<P>>
  /** How many sequences decode together; 1 by default. */
  readonly slots?: number
  /** The longest sequence, prompt included, and so the size of each cache; the model's context by default. */
  readonly contextLength?: number
  /**
   * How many positions of a prompt may run together: a program is compiled for each. A prompt is cut into the longest
   * that it fills, and its rest is padded to one of them. 16 and 128 by default, as far as the context allows.
   */
  readonly blockLengths?: ReadonlyArray<number>
  /**
   * Has the programs hold the parameters as constants, with the values of now: faster. Of cells that are not sealed
   * each program takes a copy.
   */
  readonly frozen?: boolean
}

/** A part of a prompt: the tokens from `start`, computed by the program of `size` positions. */
export interface Block {
  readonly start: number
  readonly size: number
}

/**
 * The blocks of a prompt: the longest that it fills, then shorter ones; a rest of more than half a block takes a whole
 * one, padded. A block that would pass the end of the context begins earlier, and computes some tokens again to the
 * same values. `sizes` ascend, and none is longer than `contextLength`.
 */
export const blocks = (length: number, sizes: ReadonlyArray<number>, contextLength: number): ReadonlyArray<Block> => {
  const found: Array<Block> = []
  for (let start = 0; start < length;) {
    const rest = length - start
    const whole = sizes.find((size) => size >= rest)
    const shorter = sizes.findLast((size) => size < rest)
    const size = whole !== undefined && 2 * rest > whole ? whole : shorter ?? whole ?? rest
    found.push({ start: Math.min(start, contextLength - size), size })
    start += size
  }
  return found
}

/** Slots with caches of their own, over compiled programs. Whoever holds them uses them one call at a time. */
export interface Slots {
  readonly count: number
  /** Computes a prompt, to be kept until the next: the scores of the token after it. */
  readonly prefill: (ids: ArrayLike<number>) => Effect.Effect<Scores, BackendError>
  /** Lets a slot begin where the prompt that was computed last ends. */
  readonly seat: (slot: number) => Effect.Effect<void, BackendError>
  /**
   * Computes one token of every slot, each at its place, and hands on the scores of the tokens after them, slot by
   * slot, which hold until `use` has ended; `use` takes no further step. A slot that nobody uses is given any token at
   * place 0, which it overwrites when it is seated.
   */
  readonly step: <A, E, R>(
    ids: Int32Array, places: Int32Array, use: (scores: Scores) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | BackendError, R>
}

/** Compiled programs, from which slots are made as often as wanted. */
export interface Machine {
  readonly slots: number
  readonly contextLength: number
  readonly allocate: Effect.Effect<Slots, BackendError, Scope.Scope>
}

const defaultLengths = [16, 128]

/** Compiles the programs: one for each length of a block of a prompt, and one for a step. */
export const make = Effect.fnUntraced(function*<P>(
  { blockLengths = defaultLengths, contextLength, frozen = false, model, parameters, slots = 1 }: Options<P>
): Effect.fn.Return<Machine, BackendError | ShapeError, Backend | Scope.Scope> {
  const backend = yield* Backend
  const source = contextLength ?? model.config.contextLength
  yield* requireCounts("decoder", { slots, contextLength: source, blockLengths })
  const lengths = [...new Set(blockLengths.map((length) => Math.min(length, source)))].sort((a, b) => a - b)
  const constants = frozen ? frozenParameters(parameters) : new Map<string, AnyCell>()
  const compiled = (name: string, sizes: Sizes) =>
    Effect.flatMap(program(name, model, sizes), (closed) => backend.compile(closed, { constants }))
  const prompt = yield* Effect.forEach(lengths, (position) => compiled("prefill", { batch: 1, position, source }))
  const step = yield* compiled("decode", { batch: slots, position: 1, source })
  const allocate = Effect.gen(function*() {
    const cacheOf = (batch: number) =>
      backend.allocate(KeyValueCache.specification(model.config, { batch, source }))
    const cache = yield* cacheOf(slots)
    const nursery = slots === 1 ? cache : yield* cacheOf(1)
    const programs = yield* Effect.forEach(prompt, (executable, i) =>
      Effect.map(executable.bind({ parameters, cache: nursery }), (bound) => [lengths[i] ?? 0, bound] as const))
    const stepper = yield* step.bind({ parameters, cache })
    const partsOf = (tree: unknown, index: number) =>
      Effect.forEach(entries(tree, isCell), ([, cell]) => backend.view(cell, index))
    const computed = yield* partsOf(nursery, 0)
    const seats = yield* Effect.forEach(Array.from({ length: slots }), (_, slot) => partsOf(cache, slot))
    return {
      count: slots,
      prefill: (ids) => prefill(new Map(programs), lengths, source, ids),
      seat: slots === 1 ? () => Effect.void : (slot) => seat(backend, computed, seats[slot] ?? []),
      step: (ids, places, use) =>
        stepper.runWith({ ids, starts: places, lengths: 1 }, (results) => use(scoresOf(results)))
    } satisfies Slots
  })
  return { slots, contextLength: source, allocate }
})

/** The cells of parameters as constants of a program whose state holds them as `parameters`. */
export const frozenParameters = (parameters: unknown): ReadonlyMap<string, AnyCell> =>
  new Map(entries(parameters, isCell).map(([path, cell]) => [`parameters.${path}`, cell]))

/** Copies a cache cell by cell; the event loop has its turn between two, as caches may be large. */
const seat = (
  backend: Backend["Service"], from: ReadonlyArray<AnyCell>, to: ReadonlyArray<AnyCell>
): Effect.Effect<void, BackendError> =>
  Effect.forEach(from, (cell, i) => Effect.andThen(backend.copy([cell], [to[i] ?? cell]), Effect.yieldNow),
    { discard: true })

/** Sizes of a program over a cache: sequences, positions of each that run together, places that a cache has. */
export interface Sizes {
  readonly batch: number
  readonly position: number
  readonly source: number
}

/** The cells of a program over a cache. */
export const cellsOf = <P>(model: Transformer<P>, sizes: Sizes) =>
  ({ parameters: model.specification, cache: KeyValueCache.specification(model.config, sizes) })

/** What a program over a cache makes of a block: its hidden states, the cache with it, and the typed parameters. */
export const extended = <P>(
  model: Transformer<P>, { cache, parameters: cells }: Specification.Tensors<ReturnType<typeof cellsOf<P>>>,
  block: KeyValueCache.Input
) => {
  const parameters = cells as P // the same tree, which the compiler cannot see for a P unknown
  return { parameters, ...KeyValueCache.extend(model, parameters, cache, block) }
}

interface Inputs {
  readonly ids: Specification.Specification<"batch" | "position", "id">
  readonly starts: Specification.Specification<"batch", "id">
  readonly lengths: Specification.Specification<"batch", "id">
}

interface Outputs {
  readonly logits: Tensor<"batch" | "vocab">
  readonly tops: ReadonlyArray<Tensor<"batch" | "run">>
}

/**
 * The greatest of each run of scores; none where the vocabulary is no multiple of a useful length, and none of a single
 * sequence, whose scores are gone through as soon.
 */
const topsOf = (logits: Outputs["logits"]): Outputs["tops"] => {
  const vocabSize = T.size(logits, "vocab")
  if (T.size(logits, "batch") === 1) return []
  for (let id = 128; id >= 16; id--) {
    if (vocabSize % id === 0) return [T.max(T.split(logits, "vocab", { run: vocabSize / id, id }), "id")]
  }
  return []
}

/** One block of every sequence: the scores of the token after the last real one. */
const program = <P>(name: string, model: Transformer<P>, sizes: Sizes) => {
  const { batch, position } = sizes
  const inputs: Inputs = {
    ids: Specification.ids({ batch, position }), starts: Specification.ids({ batch }),
    lengths: Specification.ids({ batch })
  }
  const specification = { inputs, state: cellsOf(model, sizes) }
  return Program.makeGeneric(name, specification, ({ ids, lengths, starts }, state) => {
    const { cache, hidden, parameters } = extended(model, state, { ids, starts })
    const last = position === 1 ? hidden : KeyValueCache.at(hidden, T.subtractIds(lengths, 1))
    const logits = T.merge(model.logits(parameters, last), ["batch", "position"], "batch")
    const outputs: Outputs = { logits, tops: topsOf(logits) }
    return { outputs, state: { cache } }
  })
}

const scoresOf = ({ logits, tops: [tops] }: Results<Outputs>): Scores => ({
  logits: logits.elements as Logits, // they are real numbers
  ...tops === undefined ? {} : { tops: tops.elements as Logits }
})

const prefill = (
  programs: ReadonlyMap<number, Bound<Inputs, Outputs>>, lengths: ReadonlyArray<number>, contextLength: number,
  prompt: ArrayLike<number>
): Effect.Effect<Scores, BackendError> =>
  Effect.reduce(blocks(prompt.length, lengths, contextLength), (): Scores => ({ logits: new Float32Array(0) }),
    (scores, { size, start }) => {
      const bound = programs.get(size)
      if (bound === undefined) return Effect.succeed(scores)
      const ids = new Int32Array(size)
      const count = Math.min(size, prompt.length - start)
      for (let i = 0; i < count; i++) ids[i] = prompt[start + i]!
      return Effect.map(bound.run({ ids, starts: start, lengths: count }), scoresOf)
    })
