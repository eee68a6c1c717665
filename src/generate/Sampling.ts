/**
 * Sampling: from the scores of the next token to the distribution that it is drawn from, and the draw.
 *
 *     wᵢ = exp((xᵢ − max x) / T),   kept: the k heaviest;  of these, while the mass of heavier ones ≤ p
 *     P(i) = wᵢ / Σ w of the kept
 *
 * x a row of logits · T `temperature` · k `topK` · p `topP`
 *
 * A rule makes the whole distribution, so that the log-probability of a draw is that of exactly what it was drawn from.
 *
 * From     Meta's generation code (temperature, top-p: a token stays while the mass before it is at most p; temperature
 *          0 is the greatest logit); Fan et al. 2018 (top-k); Holtzman et al. 2020 (top-p).
 * Checked  test/generate/Sampling.test.ts (against a direct implementation, frequencies by chi-square, messages).
 * Departs  exactly k tokens are kept where several tie for the last place, the lowest ids first; with both, p counts of
 *          the mass that the k have, as in Hugging Face's library. Greedy choice is a rule of its own.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import * as Key from "../random/Key.ts"

/** The scores of one next token, by id. −∞ excludes a token. */
export type Logits = Float32Array | Float64Array

/** What a token is drawn from: `ids[i]` has the probability `weights[i] / total`; every other id has none. */
export interface Distribution {
  readonly ids: Int32Array
  readonly weights: Float64Array
  /** The sum of the weights, which is positive. */
  readonly total: number
}

/** How logits become a distribution. Throws {@link LogitsError}. */
export type Rule = (logits: Logits) => Distribution

/** A drawn token and the natural logarithm of the probability that it had. */
export interface Draw {
  readonly id: number
  readonly logProb: number
}

/** Logits from which nothing can be drawn: a NaN, +∞, or −∞ everywhere. Thrown by rules. */
export class LogitsError extends Schema.TaggedError<LogitsError>()("LogitsError", {
  id: Schema.Int,
  value: Schema.String,
  count: Schema.Int
}) {
  override get message() {
    return `sampling: logits must be finite or −∞, and one of them finite; id ${this.id} of ${this.count} has ${this.value}
  Usual causes: parameters that a diverged training step made NaN, or a mask that excludes every token.`
  }
}

const SamplingOptions = Schema.Struct({
  /** Divides the logits: below 1 sharper, above 1 flatter. */
  temperature: Schema.Finite,
  /** Keep so many tokens at most. */
  topK: Schema.optionalKey(Schema.Finite),
  /** Keep the fewest tokens that have more than this share of the probability. */
  topP: Schema.optionalKey(Schema.Finite)
}).annotate({ identifier: "SamplingOptions" })

/** What {@link sampling} is told. */
export interface Options extends Schema.Schema.Type<typeof SamplingOptions> {}
/** Schema of what {@link sampling} is told. */
export const Options = SamplingOptions.check(Schema.makeFilter((options: Options) => faults(options)))

const faults = ({ temperature, topK, topP }: Options) => [
  ...temperature > 0 ? [] : [{
    path: ["temperature"],
    issue: `temperature must be greater than 0, got ${temperature}; to take the likeliest token each time, use the greedy rule`
  }],
  ...topK === undefined || Number.isSafeInteger(topK) && topK >= 1 ? [] : [{
    path: ["topK"], issue: `topK must be a whole number of at least 1, got ${topK}; leave it out to keep every token`
  }],
  ...topP === undefined || topP > 0 && topP <= 1 ? [] : [{
    path: ["topP"], issue: `topP must be greater than 0 and at most 1, got ${topP}; leave it out to keep every token`
  }]
]

const check = Schema.decodeSync(Options, { errors: "all", onExcessProperty: "error" })

/** The likeliest token, always; the one with the lowest id where several are. */
export const greedy: Rule = (logits) => ({ ids: Int32Array.of(likeliest(logits)), weights: Float64Array.of(1), total: 1 })

/** Draws by temperature, of the topK likeliest tokens, of the topP of the probability. Throws a SchemaError for options out of range. */
export const sampling = (options: Options): Rule => {
  const { temperature, topK, topP = 1 } = check(options)
  return (logits) => {
    const weights = weightsOf(logits, temperature)
    if (topK === undefined && topP === 1) return { ids: Int32Array.from(weights.keys()), weights, total: sum(weights) }
    const ids = topK === undefined ? nucleus(weights, topP) : heaviest(weights, candidatesOf(weights, 0), (count) => count < topK)
    const kept = Float64Array.from(ids, (id) => weights[id]!)
    const length = topK === undefined || topP === 1 ? ids.length : lengthWithin(kept, topP * sum(kept))
    const stayed = kept.subarray(0, length)
    return { ids: ids.subarray(0, length), weights: stayed, total: sum(stayed) }
  }
}

/** Draws one token with a key that is used for nothing else. */
export const draw = ({ ids, total, weights }: Distribution, key: Key.Key): Draw => {
  const aim = Key.uniform(key, 0) * total
  let reached = 0
  let chosen = -1
  for (let i = 0; i < weights.length && (chosen < 0 || reached <= aim); i++) {
    if (weights[i]! > 0) chosen = i // an aim that was rounded up to the total falls on the last possible token
    reached += weights[i]!
  }
  return { id: ids[chosen]!, logProb: Math.log(weights[chosen]!) - Math.log(total) }
}

/** The log-probability of an id; −∞ for one that cannot be drawn. */
export const logProbability = ({ ids, total, weights }: Distribution, id: number): number => {
  const found = ids.indexOf(id)
  return found < 0 ? -Infinity : Math.log(weights[found]!) - Math.log(total)
}

const sum = (values: Float64Array): number => {
  let total = 0
  for (let i = 0; i < values.length; i++) total += values[i]!
  return total
}

const likeliest = (logits: Logits): number => {
  let best = 0
  let top = -Infinity
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id]!
    if (logit > top) {
      top = logit
      best = id
    } else if (logit !== logit) throw new LogitsError({ id, value: "NaN", count: logits.length })
  }
  if (!Number.isFinite(top)) throw new LogitsError({ id: best, value: top > 0 ? "+∞" : "−∞, as all others", count: logits.length })
  return best
}

const weightsOf = (logits: Logits, temperature: number): Float64Array => {
  const top = logits[likeliest(logits)]!
  const weights = new Float64Array(logits.length)
  for (let id = 0; id < weights.length; id++) weights[id] = Math.exp((logits[id]! - top) / temperature)
  return weights
}

/** The ids whose weight is greater than a bound. */
const candidatesOf = (weights: Float64Array, bound: number): Int32Array => {
  const ids = new Int32Array(weights.length)
  let count = 0
  for (let id = 0; id < weights.length; id++) if (weights[id]! > bound) ids[count++] = id
  return ids.subarray(0, count)
}

/**
 * The heaviest ids, while the mass before each is at most the share p.
 *
 * Those that weigh less than (1 − p) / n each hold less than 1 − p together, so that more than p lies before them: none
 * can stay, and they need not be sorted.
 */
const nucleus = (weights: Float64Array, p: number): Int32Array => {
  const total = sum(weights)
  const bound = (1 - p) * total / weights.length
  return heaviest(weights, candidatesOf(weights, bound * (1 - 1e-9)), (_, mass) => mass <= p * total)
}

/** How many weights stay while the mass before each is within a bound; the first always does. */
const lengthWithin = (weights: Float64Array, bound: number): number => {
  let mass = 0
  let length = 0
  while (length < weights.length && mass <= bound) mass += weights[length++]!
  return length
}

/** Ids from the heaviest down, of equal ones the lowest first, while `goesOn` accepts the count and the mass of those before. */
const heaviest = (weights: Float64Array, ids: Int32Array, goesOn: (count: number, mass: number) => boolean): Int32Array => {
  const heap = ids // candidates are the caller's own copy
  const isBefore = (a: number, b: number): boolean => weights[a]! > weights[b]! || (weights[a]! === weights[b]! && a < b)
  const sink = (start: number, length: number): void => {
    const id = heap[start]!
    let at = start
    for (let child = 2 * at + 1; child < length; child = 2 * at + 1) {
      if (child + 1 < length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, id)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = id
  }
  for (let start = (heap.length >> 1) - 1; start >= 0; start--) sink(start, heap.length)
  const taken: Array<number> = []
  let mass = 0
  for (let length = heap.length; length > 0 && goesOn(taken.length, mass);) {
    const id = heap[0]!
    taken.push(id)
    mass += weights[id]!
    heap[0] = heap[--length]!
    sink(0, length)
  }
  return Int32Array.from(taken)
}
