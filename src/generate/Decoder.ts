/**
 * The decoder: continues prompts token by token, several at once, as a stream of tokens with their text.
 *
 * Prompts run through the model in blocks of one length, then each step runs one position of every sequence. A token is
 * drawn with a key of its item, candidate and place in its sequence: which sequences share a batch, and in which slot,
 * changes no draw. Computed text is certain: characters of several bytes and possible stop texts are held back.
 *
 * From     Llama 2 (Meta's generation code decodes batches of prompts with a cache); the stream is Cria's own.
 * Checked  test/generate/Decoder.test.ts (cache = whole sequence, batch = each alone, ends, messages);
 *          test/backend/onnx/Decoder.test.ts (the same on ONNX Runtime).
 * Departs  prompts of a batch are not forced token by token: each has been computed whole before any token is drawn.
 *          A sequence that reaches the end of its context is a typed error unless asked for.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Backend, type BackendError, type Bound, type Cells, type Results } from "../backend/Backend.ts"
import { isCell } from "../backend/HostState.ts"
import * as KeyValueCache from "../llama/KeyValueCache.ts"
import type { Transformer } from "../llama/Transformer.ts"
import * as Key from "../random/Key.ts"
import * as Program from "../tensor/Program.ts"
import { ShapeError } from "../tensor/ShapeError.ts"
import * as Specification from "../tensor/Specification.ts"
import type { Specifications } from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import { entries } from "../tensor/Tree.ts"
import type { StreamDecoder } from "../token/Detokenizer.ts"
import { type Codec, Tokenizer } from "../token/Tokenizer.ts"
import { check, type ContextFullError, isCount, type Place, type Request, type RequestError } from "./Request.ts"
import { draw, type Logits, LogitsError } from "./Sampling.ts"
import { pass } from "./StopText.ts"

/** What a decoder is made of. */
export interface Options<P> {
  readonly model: Transformer<P>
  readonly parameters: Cells<Specifications<P>>
  /** How many sequences run together; 1 by default. */
  readonly slots?: number
  /** The longest sequence, prompt included, and so the size of the cache; the model's context by default. */
  readonly contextLength?: number
  /** How many positions of a prompt run together; 64 by default, or the context where that is shorter. */
  readonly blockLength?: number
  /**
   * Builds the parameters as they are now into the programs: faster, at the price of copies of them. What the cells
   * hold later is not seen.
   */
  readonly frozen?: boolean
}

/** A token was drawn. */
export interface Token extends Place {
  readonly _tag: "Token"
  readonly id: number
  /** The text that is certain with it; "" while more is needed to know. */
  readonly text: string
  /** The log-probability of the token in exactly the distribution that it was drawn from. */
  readonly logProb: number
}

/** Why an answer ended: a stop id, a stop text, `maximumTokens`, or the end of the context. */
export type Reason = "id" | "text" | "maximum" | "context"

/** An answer ended. */
export interface End extends Place {
  readonly _tag: "End"
  readonly reason: Reason
  /** Text that was held back and belongs to the answer after all. */
  readonly text: string
}

/** What happens while answers are generated. */
export type Event = Token | End

/** A whole answer. */
export interface Answer extends Place {
  readonly ids: ReadonlyArray<number>
  readonly logProbs: ReadonlyArray<number>
  readonly text: string
  readonly reason: Reason
}

/** A model whose tokens are not those of the tokenizer. */
export class VocabularyError extends Schema.TaggedError<VocabularyError>()("VocabularyError", {
  model: Schema.Int,
  tokenizer: Schema.Int
}) {
  override get message() {
    return `decoder: the model has ${this.model} tokens, the tokenizer ${this.tokenizer}
  They must be equal, or ids would be read as other text than they were trained on. Does it belong to another model?`
  }
}

/** A token that could not be drawn. */
export class DrawError extends Schema.TaggedError<DrawError>()("DrawError", {
  item: Schema.Int,
  candidate: Schema.Int,
  position: Schema.Int,
  reason: LogitsError
}) {
  override get message() {
    return `generate: item ${this.item}, candidate ${this.candidate}, token ${this.position} of its sequence
  ${this.reason.message}`
  }
}

/** Why a stream of tokens can fail. */
export type GenerateError = RequestError | ContextFullError | DrawError | BackendError

/** A decoder. Streams have caches of their own: they may run at once, and then take turns. */
export interface Decoder {
  readonly contextLength: number
  /** Tokens as they are drawn, in the order of prompts and candidates as far as they run together. */
  readonly generate: (request: Request) => Stream.Stream<Event, GenerateError>
}

/** Makes a decoder: compiles the program for a block of a prompt and the one for a step. */
export const make = Effect.fnUntraced(function*<P>(
  { blockLength, contextLength, frozen = false, model, parameters, slots = 1 }: Options<P>
): Effect.fn.Return<Decoder, BackendError | ShapeError | VocabularyError, Backend | Tokenizer | Scope.Scope> {
  const backend = yield* Backend
  const codec = yield* Tokenizer
  if (codec.vocabSize !== model.config.vocabSize) {
    return yield* new VocabularyError({ model: model.config.vocabSize, tokenizer: codec.vocabSize })
  }
  const source = contextLength ?? model.config.contextLength
  const length = Math.min(blockLength ?? 64, source)
  if (![slots, source, length].every(isCount)) {
    return yield* Effect.fail(new ShapeError({
      operation: "decoder", place: "",
      invariant: "slots, contextLength and blockLength must be whole numbers of at least 1",
      values: [
        ["slots", String(slots)], ["contextLength", String(source)], ["blockLength", String(blockLength ?? length)]
      ]
    }))
  }
  const cells = frozen ? entries(parameters, isCell) : []
  const constants = new Map(cells.map(([path, cell]) => [`parameters.${path}`, cell] as const))
  const compiled = (position: number) =>
    Effect.flatMap(program(model, { batch: slots, position, source }), (closed) =>
      backend.compile(closed, { constants }))
  const block = yield* compiled(length)
  const step = yield* compiled(1)
  const begin = Effect.gen(function*() {
    const cache = yield* backend.allocate(KeyValueCache.specification(model.config, { batch: slots, source }))
    return {
      slots, length, vocabSize: codec.vocabSize,
      block: yield* block.bind({ parameters, cache }),
      step: yield* step.bind({ parameters, cache })
    }
  })
  const generate: Decoder["generate"] = (request) =>
    Stream.unwrap(Effect.gen(function*() {
      yield* check(request, codec, source)
      const engine = yield* begin
      return Stream.fromIterable(batches(request, slots)).pipe(
        Stream.flatMap((places) => answers(engine, request, codec, source, places)))
    }))
  return { contextLength: source, generate }
})

/** Collects a stream into whole answers, in the order in which they end. */
export const collect = <E, R>(events: Stream.Stream<Event, E, R>): Effect.Effect<ReadonlyArray<Answer>, E, R> =>
  Effect.map(Stream.runCollect(events), (all) => {
    const tokens = new Map<string, Array<Token>>()
    return all.flatMap((event) => {
      const { candidate, item } = event
      const own = tokens.get(`${item} ${candidate}`) ?? []
      if (event._tag === "Token") {
        own.push(event)
        tokens.set(`${item} ${candidate}`, own)
        return []
      }
      const text = own.map((token) => token.text).join("") + event.text
      const [ids, logProbs] = [own.map(({ id }) => id), own.map(({ logProb }) => logProb)]
      return [{ item, candidate, ids, logProbs, text, reason: event.reason }]
    })
  })

interface Sizes {
  readonly batch: number
  readonly position: number
  readonly source: number
}

interface Inputs {
  readonly ids: Specification.Specification<"batch" | "position", "id">
  readonly starts: Specification.Specification<"batch", "id">
  readonly lengths: Specification.Specification<"batch", "id">
}

interface Outputs {
  readonly logits: Tensor<"batch" | "vocab">
}

const inputsOf = ({ batch, position }: Sizes): Inputs => ({
  ids: Specification.ids({ batch, position }),
  starts: Specification.ids({ batch }),
  lengths: Specification.ids({ batch })
})

/** One block of every slot: the scores of the token after the last real one. */
const program = <P>(model: Transformer<P>, sizes: Sizes) =>
  Program.makeGeneric(sizes.position === 1 ? "decode" : "prefill", {
    inputs: inputsOf(sizes),
    state: { parameters: model.specification, cache: KeyValueCache.specification(model.config, sizes) }
  }, ({ ids, lengths, starts }, state): { readonly outputs: Outputs; readonly state: unknown } => {
    const parameters = state.parameters as P // the same tree, which the compiler cannot see for a P unknown
    const { cache, hidden } = KeyValueCache.extend(model, parameters, state.cache, { ids, starts })
    const last = KeyValueCache.at(hidden, T.subtractIds(lengths, 1))
    const logits = T.merge(model.logits(parameters, last), ["batch", "position"], "batch")
    return { outputs: { logits }, state: { cache } }
  })

/** Both programs, bound to one cache. */
interface Engine {
  readonly slots: number
  readonly length: number
  readonly vocabSize: number
  readonly block: Bound<Inputs, Outputs>
  readonly step: Bound<Inputs, Outputs>
}

const batches = ({ candidates = 1, prompts }: Request, slots: number): ReadonlyArray<ReadonlyArray<Place>> => {
  const places = prompts.flatMap((_, item) =>
    Array.from({ length: candidates }, (__, candidate) => ({ item, candidate })))
  return Array.from({ length: Math.ceil(places.length / slots) }, (_, i) => places.slice(i * slots, (i + 1) * slots))
}

/** A sequence while it is generated. Its fields change from step to step; they never leave its stream. */
interface Sequence extends Place {
  /** Prompt and answer so far. */
  readonly ids: Array<number>
  readonly promptLength: number
  readonly text: StreamDecoder
  held: string
  isOver: boolean
}

type Phase = "prompts" | "step"

/** The answers of the sequences that run together. */
const answers = (
  engine: Engine, request: Request, codec: Codec, contextLength: number, places: ReadonlyArray<Place>
): Stream.Stream<Event, BackendError | DrawError> =>
  Stream.suspend(() => {
    const sequences = places.map((place): Sequence => {
      const ids = Array.from(request.prompts[place.item] ?? [])
      const text = codec.streamDecoder()
      ids.forEach(text.push) // so that the answer keeps its first space, and ends a character that the prompt began
      return { ...place, ids, promptLength: ids.length, text, held: "", isOver: false }
    })
    const advance = ({ logits }: Results<Outputs>) =>
      Effect.gen(function*() {
        const events: Array<Event> = []
        for (const [slot, sequence] of sequences.entries()) {
          if (sequence.isOver) continue
          const { vocabSize } = engine
          const row = logits.elements.subarray(slot * vocabSize, (slot + 1) * vocabSize)
          events.push(...yield* next(sequence, row as Logits, request, codec, contextLength))
        }
        const areOver = sequences.every(({ isOver }) => isOver)
        return [events, areOver ? Option.none<Phase>() : Option.some<Phase>("step")] as const
      })
    return Stream.paginate<Phase, Event, BackendError | DrawError>("prompts", (phase) =>
      Effect.flatMap(
        phase === "prompts" ? prefill(engine, sequences) : engine.step.run(stepOf(engine, sequences)), advance
      ))
  })

/** Runs the prompts block by block; every sequence's last token is in the last block. */
const prefill = (engine: Engine, sequences: ReadonlyArray<Sequence>): Effect.Effect<Results<Outputs>, BackendError> => {
  const { block, length, slots } = engine
  const count = Math.ceil(Math.max(...sequences.map(({ ids }) => ids.length)) / length)
  const run = (index: number): Effect.Effect<Results<Outputs>, BackendError> => {
    const ids = new Int32Array(slots * length)
    const inputs = { ids, starts: new Int32Array(slots), lengths: new Int32Array(slots).fill(1) }
    sequences.forEach(({ ids: all }, slot) => {
      // a shorter prompt's last block is computed again, to the same values, until the longest is done
      const start = Math.min(index * length, Math.max(0, all.length - length))
      const part = all.slice(start, start + length)
      ids.set(part, slot * length)
      inputs.starts[slot] = start
      inputs.lengths[slot] = part.length
    })
    const done = block.run(inputs)
    return index + 1 < count ? Effect.flatMap(done, () => run(index + 1)) : done
  }
  return run(0)
}

/** The last token of every sequence. One that is over repeats its last place, which nobody reads. */
const stepOf = ({ slots }: Engine, sequences: ReadonlyArray<Sequence>) => {
  const inputs = { ids: new Int32Array(slots), starts: new Int32Array(slots), lengths: new Int32Array(slots).fill(1) }
  sequences.forEach(({ ids }, slot) => {
    inputs.ids[slot] = ids.at(-1) ?? 0
    inputs.starts[slot] = ids.length - 1
  })
  return inputs
}

/** Draws the next token of a sequence. */
const next = (
  sequence: Sequence, logits: Logits, request: Request, codec: Codec, contextLength: number
): Effect.Effect<ReadonlyArray<Event>, DrawError> => {
  const { candidate, ids, item, promptLength } = sequence
  const { key, maximumTokens, rule, stopIds = [codec.eosId], stopTexts = [] } = request
  return Effect.map(attempt({ item, candidate, position: ids.length }, () =>
    draw(rule(logits), Key.derive(key, item, candidate, ids.length))), ({ id, logProb }) => {
    ids.push(id)
    const certain = pass(stopTexts, sequence.held, sequence.text.push(id))
    sequence.held = certain.held
    const token: Token = { _tag: "Token", item, candidate, id, text: certain.text, logProb }
    const reason = stopIds.includes(id) ? "id" : certain.stop !== undefined ? "text"
      : ids.length - promptLength >= maximumTokens ? "maximum" : ids.length >= contextLength ? "context" : undefined
    if (reason === undefined) return [token]
    sequence.isOver = true
    if (certain.stop !== undefined) return [token, { _tag: "End", item, candidate, reason, text: "" }]
    const rest = pass(stopTexts, certain.held, sequence.text.end())
    const text = rest.stop === undefined ? rest.text + rest.held : rest.text
    return [token, { _tag: "End", item, candidate, reason, text }]
  })
}

const attempt = <A>(place: Place & { readonly position: number }, f: () => A): Effect.Effect<A, DrawError> =>
  Effect.suspend(() => {
    try { // the edge where what a rule throws becomes a failure
      return Effect.succeed(f())
    } catch (error) {
      return error instanceof LogitsError ? Effect.fail(new DrawError({ ...place, reason: error })) : Effect.die(error)
    }
  })
