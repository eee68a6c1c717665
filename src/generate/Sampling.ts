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
    return `sampling: logits must be finite or −∞, one of them finite; id ${this.id} of ${this.count} has ${this.value}
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
    issue: `temperature must be greater than 0, got ${temperature}; for the likeliest token take the greedy rule`
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
export const greedy: Rule = (logits) => ({
  ids: Int32Array.of(likeliest(logits)), weights: Float64Array.of(1), total: 1
})

/**
 * Draws by temperature, of the topK likeliest tokens, of the topP of the probability. Throws a SchemaError that names
 * every option out of range.
 */
export const sampling = (options: Options): Rule => {
  const { temperature, topK, topP = 1 } = check(options)
  return (logits) => {
    const weights = weightsOf(logits, temperature)
    const ids = keptIds(weights, topK, topP)
    const kept = ids.length === weights.length ? weights : take(weights, ids)
    return { ids, weights: kept, total: sum(kept) }
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
  if (!Number.isFinite(top)) {
    throw new LogitsError({ id: best, value: top > 0 ? "+∞" : "−∞, as all others", count: logits.length })
  }
  return best
}

const weightsOf = (logits: Logits, temperature: number): Float64Array => {
  const top = logits[likeliest(logits)]!
  const weights = new Float64Array(logits.length)
  for (let id = 0; id < weights.length; id++) weights[id] = Math.exp((logits[id]! - top) / temperature)
  return weights
}

const keptIds = (weights: Float64Array, topK: number | undefined, topP: number): Int32Array => {
  if (topK === undefined && topP === 1) return atLeast(weights, 0)
  if (topK === undefined) {
    // those that weigh less than (1 − p) / n hold less than 1 − p together: more than p lies before them, none stays
    const total = sum(weights)
    return heaviest(weights, atLeast(weights, (1 - topP) * total / weights.length * (1 - 1e-9)), "mass", topP * total)
  }
  const likeliest = heaviest(weights, atLeast(weights, boundOf(weights, topK)), "count", topK - 1)
  const total = sum(take(weights, likeliest))
  return topP === 1 ? likeliest : heaviest(weights, likeliest, "mass", topP * total)
}

const take = (weights: Float64Array, ids: Int32Array): Float64Array => {
  const taken = new Float64Array(ids.length)
  for (let i = 0; i < taken.length; i++) taken[i] = weights[ids[i]!]!
  return taken
}

const atLeast = (weights: Float64Array, bound: number): Int32Array => {
  const ids = new Int32Array(weights.length)
  let count = 0
  for (let id = 0; id < ids.length; id++) if (weights[id]! >= bound) ids[count++] = id
  return ids.subarray(0, count)
}

/** A weight that `count` ids have at least, and not many more: of the heaviest of each 32 ids, the one at that rank. */
const boundOf = (weights: Float64Array, count: number): number => {
  const tops = new Float64Array(Math.ceil(weights.length / 32))
  for (let id = 0; id < weights.length; id++) if (weights[id]! > tops[id >> 5]!) tops[id >> 5] = weights[id]!
  return count > tops.length ? 0 : tops.sort()[tops.length - count]!
}

/**
 * Of some ids, heaviest first and of equal ones the lowest first, those before which the count or the mass is at most
 * `bound`; given back in the order of ids, so that small errors of the logits move no draw far.
 *
 * Found as quickselect finds a median: a pivot splits the ids, and only the side in which the last that stays lies is
 * split again; in time proportional to their number, as none needs to be sorted.
 */
const heaviest = (weights: Float64Array, ids: Int32Array, measure: "count" | "mass", bound: number): Int32Array => {
  const open = ids.slice()
  let [from, to, reached, last] = [0, open.length, 0, 0]
  while (from < to) {
    const at = (from + to) >> 1
    const pivot = open[at]!
    const pivotWeight = weights[pivot]!
    open[at] = open[from]!
    let middle = from
    let passed = reached
    for (let i = from + 1; i < to; i++) {
      const id = open[i]!
      const weight = weights[id]!
      if (weight < pivotWeight || (weight === pivotWeight && id > pivot)) continue
      open[i] = open[++middle]!
      open[middle] = id
      passed += measure === "count" ? 1 : weight
    }
    if (passed > bound) { // the pivot and all behind it fall away
      from++
      to = middle + 1
    } else {
      last = pivot
      reached = passed + (measure === "count" ? 1 : pivotWeight)
      from = middle + 1
    }
  }
  const lightest = weights[last]!
  return ids.filter((id) => weights[id]! > lightest || (weights[id] === lightest && id <= last))
}
