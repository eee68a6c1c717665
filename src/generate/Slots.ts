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
import { type AnyCell, Backend, type BackendError, type Bound, type Cells } from "../backend/Backend.ts"
import { isCell } from "../backend/HostState.ts"
import * as KeyValueCache from "../llama/KeyValueCache.ts"
import type { Transformer } from "../llama/Transformer.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import type { Specifications } from "../tensor/Specification.ts"
import { entries } from "../tensor/Tree.ts"
import { frozenParameters, type Inputs, type Outputs, program, scoresOf, type Sizes } from "./CachedProgram.ts"
import * as Drafting from "./Drafting.ts"
import * as Masses from "./Masses.ts"
import { requireContext, requireCounts } from "./Request.ts"
import type { Rule, Scores } from "./Sampling.ts"

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
  /** What guesses tokens ahead, where there is one slot. */
  readonly draft?: Drafting.Draft
}

/** A part of a prompt: the tokens from `start`, computed by the program of `size` positions. */
export interface Block {
  readonly start: number
  readonly size: number
}

/**
 * The blocks of a prompt: the longest that it fills, then shorter ones; a rest of more than half a block takes a whole
 * one, padded. A block that would pass the end of the context begins earlier, and computes some tokens again to the
 * same values. `sizes` ascend from at least 1, and none is longer than `contextLength`.
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

const defaultLengths = [16, 128]

/** The lengths of blocks within a context, the shortest first. */
const ascending = (lengths: ReadonlyArray<number>, contextLength: number): ReadonlyArray<number> =>
  [...new Set(lengths.map((length) => Math.min(length, contextLength)))].sort((a, b) => a - b)

/**
 * The lengths of the blocks, among those by default, that a prompt of some length is cut into, in a context of at least
 * one token. Where no other prompt comes, no program need be compiled for others.
 */
export const lengthsFor = (length: number, contextLength: number): ReadonlyArray<number> =>
  [...new Set(blocks(length, ascending(defaultLengths, contextLength), contextLength).map(({ size }) => size))]

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
  /** Several tokens at a time, where there is a draft. */
  readonly ahead?: Drafting.Ahead
}

/** Compiled programs, from which slots are made as often as wanted. */
export interface Machine {
  readonly slots: number
  readonly contextLength: number
  /** Slots whose scores come with what makes a draw by this rule quick; another may draw from them as well. */
  readonly allocate: (rule?: Rule) => Effect.Effect<Slots, BackendError, Scope.Scope>
}

/** Compiles the programs: one for each length of a block of a prompt, and one for a step. */
export const make = Effect.fnUntraced(function*<P>(
  { blockLengths = defaultLengths, contextLength, draft, frozen = false, model, parameters, slots = 1 }: Options<P>
): Effect.fn.Return<Machine, BackendError | ShapeError, Backend | Scope.Scope> {
  const backend = yield* Backend
  const source = contextLength ?? model.config.contextLength
  yield* requireCounts("decoder", { slots, contextLength: source, blockLengths })
  yield* requireContext("decoder", source, model.config.contextLength)
  const lengths = ascending(blockLengths, source)
  const constants = frozen ? frozenParameters(parameters) : new Map<string, AnyCell>()
  const compiled = (name: string, sizes: Sizes) =>
    Effect.flatMap(program(name, model, sizes), (closed) => backend.compile(closed, { constants }))
  const prompt = yield* Effect.forEach(lengths, (position) => compiled("prefill", { batch: 1, position, source }))
  const step = yield* compiled("decode", { batch: slots, position: 1, source })
  const weighing = yield* Masses.make(slots, model.config.vocabSize)
  const drafting = draft === undefined ? undefined
    : yield* Drafting.make(draft, { model, parameters, slots, source, constants, weighing })
  const allocate = Effect.fnUntraced(function*(rule?: Rule) {
    const cacheOf = (batch: number) =>
      backend.allocate(KeyValueCache.specification(model.config, { batch, source }))
    const cache = yield* cacheOf(slots)
    const nursery = slots === 1 ? cache : yield* cacheOf(1)
    const programs = yield* Effect.forEach(prompt, (executable, i) =>
      Effect.map(executable.bind({ parameters, cache: nursery }), (bound) => [lengths[i] ?? 0, bound] as const))
    const stepper = yield* step.bind({ parameters, cache })
    const weigh = yield* weighing(rule)
    const ahead = yield* drafting?.(cache, rule) ?? Effect.undefined
    const partsOf = (tree: unknown, index: number) =>
      Effect.forEach(entries(tree, isCell), ([, cell]) => backend.view(cell, index))
    const computed = yield* partsOf(nursery, 0)
    const seats = yield* Effect.forEach(Array.from({ length: slots }), (_, slot) => partsOf(cache, slot))
    return {
      count: slots,
      prefill: (ids) => prefill(new Map(programs), lengths, source, ids),
      seat: slots === 1 ? () => Effect.void : (slot) => seat(backend, computed, seats[slot] ?? []),
      step: (ids, places, use) =>
        stepper.runWith({ ids, starts: places, lengths: 1 }, (results) => weigh(scoresOf(results), use)),
      ...ahead === undefined ? {} : { ahead }
    } satisfies Slots
  })
  return { slots, contextLength: source, allocate }
})

/** Copies a cache cell by cell; the event loop has its turn between two, as caches may be large. */
const seat = (
  backend: Backend["Service"], from: ReadonlyArray<AnyCell>, to: ReadonlyArray<AnyCell>
): Effect.Effect<void, BackendError> =>
  Effect.forEach(from, (cell, i) => Effect.andThen(backend.copy([cell], [to[i] ?? cell]), Effect.yieldNow),
    { discard: true })

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
