/**
 * Continuous filling: answers of a stream of prompts of any length, with a fixed number of slots that never wait.
 *
 * A slot whose answer ended begins with the next candidate, or the next prompt, before the next step. A prompt is
 * pulled when there is a slot for it, so that a slow reader holds up the whole, and no more is in memory than runs;
 * where prompts are slow to come, those that run go on meanwhile.
 *
 * From     Yu et al. 2022 (Orca: scheduling by iteration).
 * Checked  test/generate/Filling.test.ts (filling and forking change nothing; order, bounds, slow prompts, failures).
 * Departs  a prompt is computed between two steps, not beside them.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { BackendError } from "../backend/Backend.ts"
import type { Event } from "./Answer.ts"
import { type Ahead, leap } from "./Drafting.ts"
import { type Bounds, check, type ContextFullError, type Prompt, RequestError } from "./Request.ts"
import { rowOf, type Scores } from "./Sampling.ts"
import { advance, begin, DrawError, foresee, remaining, type Sequence } from "./Sequence.ts"
import type { Slots } from "./Slots.ts"

/** Why answers can fail. */
export type FillingError = RequestError | ContextFullError | DrawError | BackendError

/** What happens while slots are filled and refilled from a stream of prompts. */
export const fill = <E, R>(
  prompts: Stream.Stream<Prompt, E, R>, slots: Slots, bounds: Bounds
): Stream.Stream<Event, Pull.ExcludeDone<E> | FillingError, R> =>
  Stream.unwrap(Effect.gen(function*() {
    const pull = yield* Stream.toPull(prompts)
    const next = source(Pull.catchDone(pull, () => Effect.succeed(undefined)), yield* Effect.scope)
    const turn = turns(next, slots, bounds)
    return Stream.paginate(undefined, () =>
      Effect.map(turn, (events) =>
        [events ?? [], events === undefined ? Option.none() : Option.some(undefined)] as const))
  }))

/** The next prompt, `undefined` at the end; "later" where it would have to be waited for and need not be. */
type Next<E, R> = (mayWait: boolean) => Effect.Effect<Prompt | "later" | undefined, E, R>

/** Gives prompts one by one of a pull of several, `undefined` at its end. */
const source = <E, R>(
  pull: Effect.Effect<ReadonlyArray<Prompt> | undefined, E, R>, scope: Scope.Scope
): Next<E, R> => {
  let ready: ReadonlyArray<Prompt> | undefined = []
  let taken = 0
  let pulling: Fiber.Fiber<ReadonlyArray<Prompt> | undefined, E> | undefined
  return Effect.fnUntraced(function*(mayWait: boolean) {
    while (ready !== undefined && taken === ready.length) {
      pulling ??= yield* Effect.forkIn(pull, scope, { startImmediately: true })
      const exit = pulling.pollUnsafe() ?? (mayWait ? yield* Fiber.await(pulling) : undefined)
      if (exit === undefined) return "later"
      pulling = undefined
      ready = yield* exit
      taken = 0
    }
    return ready?.[taken++]
  })
}

/** A prompt that has been computed, and how many of its answers have begun. */
interface Computed {
  readonly prompt: Prompt
  readonly scores: Scores
  begun: number
}

/** One turn: fills empty slots, or where there are none takes a step. `undefined` when all is done. */
const turns = <E, R>(
  next: Next<E, R>, slots: Slots, bounds: Bounds
): Effect.Effect<ReadonlyArray<Event> | undefined, E | FillingError, R> => {
  const { candidates = 1 } = bounds.settings
  const seats = Array.from({ length: slots.count }, (): Sequence | undefined => undefined)
  const ids = new Int32Array(slots.count)
  const places = new Int32Array(slots.count)
  let computed: Computed | undefined
  let failed: DrawError | undefined // behind tokens that are to be told first
  /** Why no more prompts come; answers that have begun are to end first. */
  let refused: { readonly why: E | RequestError | ContextFullError } | undefined

  /** The prompt whose answers are beginning; `undefined` where there is none at present. */
  const current = Effect.fnUntraced(function*(mayWait: boolean) {
    if (computed !== undefined && computed.begun < candidates) return computed
    if (refused !== undefined) return undefined
    const pulled = yield* Effect.result(next(mayWait))
    if (Result.isFailure(pulled)) {
      refused = { why: pulled.failure }
      return undefined
    }
    const { success: prompt } = pulled
    if (prompt === undefined || prompt === "later") return undefined
    const checked = yield* Effect.result(check([prompt], bounds))
    if (Result.isFailure(checked)) refused = { why: checked.failure }
    else if (seats.some((sequence) => sequence?.item === prompt.item)) {
      const fault = `prompt ${prompt.item} came while answers to another prompt ${prompt.item} run: two that run ` +
        "together need numbers of their own, or their answers could not be told apart"
      refused = { why: new RequestError({ faults: [fault] }) }
    }
    if (refused !== undefined) return undefined
    computed = { prompt, scores: yield* slots.prefill(prompt.ids), begun: 0 }
    return computed
  })

  /** Begins one answer; it takes the slot unless its first token ends it. */
  const start = Effect.fnUntraced(function*(slot: number, from: Computed) {
    const sequence = begin(from.prompt, from.begun++, bounds)
    const events = advance(sequence, from.scores, bounds)
    if (events instanceof DrawError) return yield* events
    if (!sequence.isOver) {
      yield* slots.seat(slot)
      seats[slot] = sequence
    }
    return events
  })

  /** Draws the next token of each sequence. */
  const draw = Effect.fnUntraced(function*(scores: Scores) {
    const events: Array<Event> = []
    for (const [slot, sequence] of seats.entries()) {
      if (sequence === undefined) continue
      sequence.passes++
      const own = advance(sequence, rowOf(scores, slot, slots.count), bounds)
      if (own instanceof DrawError) return yield* own
      events.push(...own)
      if (sequence.isOver) seats[slot] = undefined
      if (slot % rowsAtOnce === rowsAtOnce - 1) yield* Effect.yieldNow
    }
    return events
  })

  /** Draws as many tokens of the one sequence as its draft guesses right, and one more. */
  const ahead = Effect.fnUntraced(function*(sequence: Sequence, drafting: Ahead) {
    const events: Array<Event> = []
    const { lastId, length } = sequence
    sequence.passes++
    const guess = (scores: Scores, index: number) => foresee(sequence, index, scores, bounds)
    yield* leap(drafting, lastId, length - 1, remaining(sequence, bounds), guess, (scores) => Effect.sync(() => {
      const own = advance(sequence, scores, bounds)
      if (own instanceof DrawError) {
        failed = own
        return undefined
      }
      events.push(...own)
      return sequence.isOver ? undefined : sequence.lastId
    }))
    if (sequence.isOver) seats.fill(undefined)
    return failed === undefined || events.length > 0 ? events : yield* failed // what was drawn before it comes first
  })

  const step = Effect.suspend((): Effect.Effect<ReadonlyArray<Event> | undefined, E | FillingError> => {
    if (seats.every((sequence) => sequence === undefined)) {
      return refused === undefined ? Effect.undefined : Effect.fail(refused.why)
    }
    if (failed !== undefined) return Effect.fail(failed)
    const [only] = seats
    const { ahead: drafting } = slots
    const hasRoom = only !== undefined && remaining(only, bounds) > 1
    if (hasRoom && drafting !== undefined && only.length + drafting.count <= bounds.contextLength) {
      return ahead(only, drafting)
    }
    seats.forEach((sequence, slot) => {
      ids[slot] = sequence?.lastId ?? 0
      places[slot] = sequence === undefined ? 0 : sequence.length - 1
    })
    return slots.step(ids, places, draw)
  })

  return Effect.gen(function*() {
    const events: Array<Event> = []
    while (events.length < 2 * slots.count) { // answers of a single token fill no slot, and must not pile up
      const slot = seats.indexOf(undefined)
      if (slot < 0) break
      const isIdle = events.length === 0 && seats.every((sequence) => sequence === undefined)
      const from: Computed | undefined = yield* current(isIdle)
      if (from === undefined) break
      events.push(...yield* start(slot, from))
    }
    return events.length > 0 ? events : yield* step
  })
}

/** After so many draws the event loop has its turn. */
const rowsAtOnce = 8
