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

/**
 * The greatest of each of equally many logits in a row, NaN or ∞ where one of them is: what a rule would else go
 * through all logits for. A program that computes logits can give them for little.
 */
export type Tops = Float32Array | Float64Array

/** The scores of one next token, or of several row by row, as a program gives them. */
export interface Scores {
  readonly logits: Logits
  readonly tops?: Tops
  readonly masses?: Masses
}

/** The sum of exp(inverse · (logit − the greatest of the row)) over each run, of which there are as many as tops. */
export interface Masses {
  readonly inverse: number
  readonly runs: Float32Array | Float64Array
}

/**
 * What a token is drawn from: `ids[i]` has the probability `weights[i] / total`; every other id has none. The arrays
 * belong to the rule that made them and hold until it is used again: copy what must last longer.
 */
export interface Distribution {
  readonly ids: Int32Array
  readonly weights: Float64Array
  /** The sum of the weights, which is positive. */
  readonly total: number
}

/** One of several rows of scores. */
export const rowOf = ({ logits, masses, tops }: Scores, row: number, count: number): Scores => {
  const own = (all: Logits): Logits => all.subarray(row * all.length / count, (row + 1) * all.length / count)
  return {
    logits: own(logits), ...tops === undefined ? {} : { tops: own(tops) },
    ...masses === undefined ? {} : { masses: { inverse: masses.inverse, runs: own(masses.runs) } }
  }
}

/**
 * How logits become a distribution, the same with their tops and without; asked for what a draft guesses, too. Throws
 * {@link LogitsError}. What a rule of your own makes is checked before anything is drawn from it: see
 * {@link DistributionError}.
 */
export type Rule = (logits: Logits, tops?: Tops) => Distribution

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

/** A rule made what no distribution is: nothing can be drawn from it. Names all its faults. */
export class DistributionError extends Schema.TaggedError<DistributionError>()("DistributionError", {
  faults: Schema.Array(Schema.String)
}) {
  override get message() {
    return `sampling: the rule made no distribution
  ${this.faults.join("\n  ")}
  ids[i] is drawn with the probability weights[i] / total: one weight for each id, and total their sum.`
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

/** The options of {@link sampling}. */
export interface Options extends Schema.Schema.Type<typeof SamplingOptions> {}
/** Schema of the options of {@link sampling}, which are checked together. */
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

/** A draw by the masses of runs at an inverse temperature; `undefined` where they are none. */
interface Shortcut {
  readonly inverse: number
  readonly draw: (logits: Logits, tops: Tops, runs: Masses["runs"], key: Key.Key) => Draw | undefined
}

/** The rules of this module: what they make needs no check. */
const ownRules = new WeakMap<Rule, Shortcut | undefined>()

const known = (rule: Rule, shortcut?: Shortcut): Rule => {
  ownRules.set(rule, shortcut)
  return rule
}

/** At which inverse temperature masses of runs make a draw by a rule quick; 0 where they do not. */
export const inverseOf = (rule: Rule | undefined): number =>
  rule === undefined ? 0 : ownRules.get(rule)?.inverse ?? 0

/**
 * Draws one token of scores with a key that is used for nothing else: what {@link draw} draws of the whole
 * distribution, but for the rounding of the masses, if there are any. Throws what {@link distribution} throws.
 */
export const drawFrom = (rule: Rule, scores: Scores, key: Key.Key): Draw => {
  const { logits, masses, tops } = scores
  const shortcut = ownRules.get(rule)
  const drawn = shortcut === undefined || tops === undefined || masses?.inverse !== shortcut.inverse ? undefined
    : shortcut.draw(logits, tops, masses.runs, key)
  return drawn ?? draw(distribution(rule, scores), key)
}

/** What a rule makes of scores. Throws {@link LogitsError} and, of rules of others, {@link DistributionError}. */
export const distribution = (rule: Rule, { logits, tops }: Scores): Distribution => {
  const made = rule(logits, tops)
  const faults = ownRules.has(rule) ? [] : distributionFaults(made, logits.length)
  if (faults.length > 0) throw new DistributionError({ faults })
  return made
}

/** The first place where an id stands again; −1 where none does. Ids that ascend need no memory of those before. */
const repeated = (ids: Int32Array, count: number): number => {
  let i = 1
  while (i < ids.length && ids[i - 1]! < ids[i]!) i++
  if (i >= ids.length) return -1
  const seen = new Uint8Array(count)
  return ids.findIndex((id) => id >= 0 && id < count && ++seen[id]! > 1)
}

const distributionFaults = ({ ids, total, weights }: Distribution, count: number): ReadonlyArray<string> => {
  const strangeId = ids.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id < count))
  const again = repeated(ids, count)
  const strangeWeight = weights.findIndex((weight) => !(weight >= 0 && weight < Infinity))
  const sum = weights.reduce((before, weight) => before + weight, 0)
  return [
    ...ids.length > 0 ? [] : ["it has no ids"],
    ...ids.length === weights.length ? [] : [`it has ${ids.length} ids and ${weights.length} weights`],
    ...strangeId < 0 ? [] : [`ids[${strangeId}] is ${ids[strangeId]}; ids are 0 to ${count - 1}`],
    ...again < 0 ? [] : [`ids[${again}] is ${ids[again]} again, as ids[${ids.indexOf(ids[again]!)}] is`],
    ...strangeWeight < 0 ? []
      : [`weights[${strangeWeight}] is ${weights[strangeWeight]}; weights are finite and not negative`],
    ...total > 0 && Math.abs(total - sum) <= 1e-6 * sum ? []
      : [`total is ${total}, the sum of the weights ${sum}; they must be equal and positive`]
  ]
}

/** The likeliest token, always; the one with the lowest id where several are. */
export const greedy: Rule = known((logits, tops) => ({
  ids: Int32Array.of(tops === undefined ? likeliest(logits) : likeliestUnder(tops, logits)),
  weights: Float64Array.of(1), total: 1
}))

/**
 * The rule that draws by temperature, among the `topK` likeliest tokens, and among the likeliest that share `topP` of
 * the probability. Throws a SchemaError that names every option out of range.
 */
export const sampling = (options: Options): Rule => {
  const { temperature, topK, topP = 1 } = check(options)
  const inverse = Math.min(1 / temperature, Number.MAX_VALUE)
  let kept = roomOf(0)
  const roomFor = (count: number): Room => kept.ids.length === count ? kept : kept = roomOf(count)
  const rule: Rule = (logits, given) => {
    const room = roomFor(logits.length)
    const tops = given === undefined ? blockTops(logits) : new Float64Array(given) // a copy, which is sorted below
    const top = topOf(tops, logits)
    if (topK !== undefined) {
      const bound = boundOf(tops, topK)
      const slack = 1e-12 * Math.max(Math.abs(bound), Math.abs(top), temperature) // logits so close weigh the same
      const ids = atLeast(logits, bound - slack, room.some)
      const candidates = taken(logits, ids, room.heavy)
      weigh(candidates, top, inverse, candidates)
      const likeliest = heaviest(ids, candidates, "count", topK - 1, room)
      return topP === 1 ? likeliest : heaviest(likeliest.ids, likeliest.weights, "mass", topP * likeliest.total, room)
    }
    const total = weigh(logits, top, inverse, room.weights)
    if (topP === 1) return { ids: room.ids, weights: room.weights, total }
    const ids = atLeast(room.weights, leastThatStays(topP, total, logits.length) * (1 - 1e-9), room.some)
    return heaviest(ids, taken(room.weights, ids, room.heavy), "mass", topP * total, room)
  }
  return topK !== undefined ? known(rule) : known(rule, {
    inverse,
    draw: (logits, tops, runs, key) => {
      const top = topOf(tops, logits)
      const mass = sumOf(runs, runs.length)
      if (!(mass > 0.5)) return undefined // the greatest alone weighs 1, unless 1 / temperature is beyond a float
      const room = roomFor(logits.length)
      return topP === 1 ? drawByRuns(logits, inverse, runs, mass, key, room)
        : draw(nucleusByRuns(logits, tops, top, inverse, mass, topP, room), key)
    }
  })
}

/** Those that weigh less than (1 − p) / n hold less than 1 − p together: more than p lies before them, none stays. */
const leastThatStays = (topP: number, total: number, count: number): number => (1 - topP) * total / count

const sumOf = (values: Logits, count: number): number => {
  let sum = 0
  for (let i = 0; i < count; i++) sum += values[i]!
  return sum
}

/** The run by its mass, the id by its weight in the run. */
const drawByRuns = (
  logits: Logits, inverse: number, runs: Masses["runs"], mass: number, key: Key.Key, { weights }: Room
): Draw => {
  const aim = Key.uniform(key, 0) * mass
  const run = reachedBy(aim, runs, 0, runs.length)
  const length = logits.length / runs.length
  const [from, to] = [run * length, (run + 1) * length]
  const before = sumOf(runs, run)
  let top = -Infinity
  for (let id = from; id < to; id++) if (logits[id]! > top) top = logits[id]!
  const total = weigh(logits, top, inverse, weights, from, to) // by the greatest of the run, which may weigh little
  const id = reachedBy((aim - before) / runs[run]! * total, weights, from, to)
  return { id, logProb: Math.log(runs[run]! / mass) + Math.log(weights[id]!) - Math.log(total) }
}

/** What `topP` keeps, from the sum of all weights; runs whose greatest is too light to stay are not gone through. */
const nucleusByRuns = (
  logits: Logits, tops: Tops, top: number, inverse: number, total: number, topP: number, room: Room
): Distribution => {
  const length = logits.length / tops.length
  const bound = leastThatStays(topP, total, logits.length) * (1 - 1e-5)
  const least = Math.log(bound) - 1e-9
  let count = 0
  for (let run = 0; run < tops.length; run++) {
    if ((tops[run]! - top) * inverse < least) continue
    const [from, to] = [run * length, (run + 1) * length]
    weigh(logits, top, inverse, room.weights, from, to)
    for (let id = from; id < to; id++) {
      const weight = room.weights[id]!
      room.some[count] = id
      room.heavy[count] = weight
      count += weight >= bound ? 1 : 0
    }
  }
  return heaviest(room.some.subarray(0, count), room.heavy.subarray(0, count), "mass", topP * total, room)
}

/** Memory that a rule fills again for each row, as megabytes for each step would keep the garbage collector busy. */
const roomOf = (count: number) => {
  const floats = new Float32Array(count)
  return {
    ids: Int32Array.from({ length: count }, (_, id) => id), weights: new Float64Array(count),
    some: new Int32Array(count), kept: new Int32Array(count), heavy: new Float64Array(count),
    floats, digits: new Int32Array(floats.buffer), open: new Int32Array(count), amounts: new Float64Array(4 * binCount)
  }
}

type Room = ReturnType<typeof roomOf>

/** Draws one token with a key that is used for nothing else. */
export const draw = ({ ids, total, weights }: Distribution, key: Key.Key): Draw => {
  const chosen = reachedBy(Key.uniform(key, 0) * total, weights, 0, weights.length)
  return { id: ids[chosen]!, logProb: Math.log(weights[chosen]!) - Math.log(total) }
}

/** The place at which weights from `from` on add up to more than `aim`; of those that weigh anything. */
const reachedBy = (aim: number, weights: Logits, from: number, to: number): number => {
  let reached = 0
  let chosen = -1
  for (let i = from; i < to && (chosen < 0 || reached <= aim); i++) {
    if (weights[i]! > 0) chosen = i // an aim that was rounded up to the total falls on the last possible token
    reached += weights[i]!
  }
  return chosen
}

/** Why a rule gives no distribution. */
export type RuleError = LogitsError | DistributionError

/** What a computation with rules gives, or why a rule gave nothing to draw from. */
export const attempt = <A>(compute: () => A): A | RuleError => {
  try { // the edge where what a rule throws becomes a value
    return compute()
  } catch (error) {
    if (isRuleError(error)) return error
    throw error
  }
}

/** Is it why a rule gives no distribution? */
export const isRuleError = (value: unknown): value is RuleError =>
  value instanceof LogitsError || value instanceof DistributionError

/** The log-probability of an id; −∞ for one that cannot be drawn. */
export const logProbability = ({ ids, total, weights }: Distribution, id: number): number => {
  const found = ids.indexOf(id)
  return found < 0 ? -Infinity : Math.log(weights[found]!) - Math.log(total)
}

/** Eight at once: few of them pass the largest so far, and one branch for all of them takes half the time. */
const likeliest = (x: Logits, all: Logits = x): number => {
  let best = -1
  let top = -Infinity
  for (let start = 0; start < x.length; start += 8) {
    const end = start + 8
    if (end <= x.length && x[start]! <= top && x[start + 1]! <= top && x[start + 2]! <= top && x[start + 3]! <= top &&
      x[start + 4]! <= top && x[start + 5]! <= top && x[start + 6]! <= top && x[start + 7]! <= top) continue
    for (let id = start; id < end && id < x.length; id++) {
      const logit = x[id]!
      if (logit <= top) continue
      if (logit !== logit) throw unusable(all)
      top = logit
      best = id
    }
  }
  if (best < 0 || top === Infinity) throw unusable(all)
  return best
}

const likeliestUnder = (tops: Tops, logits: Logits): number => {
  const count = logits.length / tops.length
  const at = likeliest(tops, logits) * count
  return at + likeliest(logits.subarray(at, at + count), logits)
}

/** Names the first logit beside which nothing can be drawn. */
const unusable = (logits: Logits): LogitsError => {
  const strange = logits.findIndex((logit) => !(logit < Infinity))
  const value = strange < 0 ? "−∞, as all others" : logits[strange] === Infinity ? "+∞" : "NaN"
  return new LogitsError({ id: Math.max(0, strange), value, count: logits.length })
}

const blockLength = 64

/** The greatest logit of each block of ids. */
const blockTops = (logits: Logits): Float64Array => {
  const tops = new Float64Array(Math.ceil(logits.length / blockLength))
  for (let block = 0; block < tops.length; block++) {
    const end = Math.min(logits.length, (block + 1) * blockLength)
    let top = -Infinity
    for (let id = block * blockLength; id < end; id++) {
      const logit = logits[id]!
      if (logit <= top) continue
      if (logit !== logit) throw unusable(logits)
      top = logit
    }
    tops[block] = top
  }
  return tops
}

const topOf = (tops: Tops, logits: Logits): number => {
  let top = -Infinity
  for (let block = 0; block < tops.length; block++) {
    if (tops[block]! > top || tops[block] !== tops[block]) top = tops[block]! // a NaN stays
  }
  if (!Number.isFinite(top)) throw unusable(logits)
  return top
}

/** A logit that `count` ids have at least, and not many more: of the greatest of each block, the one at that rank. */
const boundOf = (tops: Float64Array, count: number): number =>
  count > tops.length ? -Infinity : tops.sort()[tops.length - count]!

const atLeast = (values: Logits, bound: number, room: Int32Array): Int32Array => {
  let count = 0
  for (let id = 0; id < values.length; id++) {
    room[count] = id
    count += values[id]! >= bound ? 1 : 0 // no branch, which a processor would guess wrong
  }
  return room.subarray(0, count)
}

const taken = (values: Logits, ids: Int32Array, room: Float64Array): Float64Array => {
  for (let i = 0; i < ids.length; i++) room[i] = values[ids[i]!]!
  return room.subarray(0, ids.length)
}

const parts = 2048
const powers = Float64Array.from({ length: parts }, (_, i) => 2 ** (i / parts))
const halvings = Float64Array.from({ length: 1024 }, (_, i) => 2 ** -i)
const partsOfNat = parts / Math.LN2
const part = Math.LN2 / parts

/**
 * Weighs logits, and gives the sum: e^z by 2^(k / 2048) from a table and a cubic for the rest, which is within
 * 10⁻¹³ of it and a third of the time of `Math.exp`; 0 below e^−708.
 */
const weigh = (
  logits: Logits, top: number, inverse: number, weights: Float64Array, from = 0, to = weights.length
): number => {
  let total = 0
  for (let i = from; i < to; i++) {
    const z = (logits[i]! - top) * inverse
    let weight = 0
    if (z > -708) {
      const k = (z * partsOfNat) | 0
      const rest = z - k * part
      weight = powers[k & (parts - 1)]! * halvings[-(k >> 11)]! * (1 + rest * (1 + rest * (0.5 + rest * (1 / 6))))
    }
    weights[i] = weight
    total += weight
  }
  return total
}

/**
 * Of some ids, heaviest first and of equal ones the lowest first, those before which the count or the mass is at most
 * `bound`; given back in the order of ids, so that small errors of the logits move no draw far.
 *
 * None is sorted: ids are counted into bins by the digits of their weights, the one bin in which the last that stays
 * lies into finer ones, and in that it is found as quickselect finds a median.
 */
const heaviest = (
  ids: Int32Array, weights: Float64Array, measure: "count" | "mass", bound: number, room: Room
): Distribution => {
  room.floats.set(weights)
  const digits = room.digits.subarray(0, ids.length) // of numbers that are not negative, in their order
  const { amounts } = room // four a bin, so that no addition waits for the one before it
  let reached = 0
  let prefix = 0
  for (const { kept, shift } of levels) {
    amounts.fill(0)
    for (let i = 0; i < digits.length; i++) {
      if (digits[i]! >> kept !== prefix) continue
      amounts[4 * ((digits[i]! >> shift) & (binCount - 1)) + (i & 3)]! += measure === "count" ? 1 : weights[i]!
    }
    let bin = binCount
    let amount = 0
    do {
      reached += amount
      bin--
      amount = amounts[4 * bin]! + amounts[4 * bin + 1]! + amounts[4 * bin + 2]! + amounts[4 * bin + 3]!
    } while (bin > 0 && reached + amount <= bound)
    prefix = prefix * binCount + bin
  }
  const open = inBin(digits, prefix, room.open)
  return keptFrom(ids, weights, lastThatStays(weights, open, measure, bound, reached), room)
}

/** Digits of a float: 12 of exponent and mantissa, whose highest is that of the sign, then 11 of the mantissa. */
const levels = [{ kept: 31, shift: 20 }, { kept: 20, shift: 9 }]

const binCount = 2048

const inBin = (digits: Int32Array, prefix: number, room: Int32Array): Int32Array => {
  let count = 0
  for (let i = 0; i < digits.length; i++) if (digits[i]! >> 9 === prefix) room[count++] = i
  return room.subarray(0, count)
}

/** Of some places, the last in order of weight before which the measure is at most `bound`; −1 where none is. */
const lastThatStays = (
  weights: Float64Array, open: Int32Array, measure: "count" | "mass", bound: number, before: number
): number => {
  let [from, to, last, reached] = [0, open.length, -1, before]
  while (from < to) {
    const at = (from + to) >> 1
    const pivot = open[at]!
    const pivotWeight = weights[pivot]!
    open[at] = open[from]!
    let middle = from
    let passed = reached
    for (let k = from + 1; k < to; k++) {
      const i = open[k]!
      const weight = weights[i]!
      if (weight < pivotWeight || (weight === pivotWeight && i > pivot)) continue
      open[k] = open[++middle]!
      open[middle] = i
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
  return last
}

/** Those that weigh more than the last, or as much and come no later; all where there is no last. */
const keptFrom = (ids: Int32Array, weights: Float64Array, last: number, { heavy, kept }: Room): Distribution => {
  const lightest = last < 0 ? 0 : weights[last]!
  const lastId = last < 0 ? Infinity : ids[last]!
  let stayed = 0
  for (let i = 0; i < ids.length; i++) { // no branch here either; ties behind the last fall away below
    const weight = weights[i]! // read before it is written over: what is kept may lie where it was
    kept[stayed] = ids[i]!
    heavy[stayed] = weight
    stayed += weight >= lightest ? 1 : 0
  }
  let [count, total] = [0, 0]
  for (let i = 0; i < stayed; i++) {
    if (heavy[i] === lightest && kept[i]! > lastId) continue
    kept[count] = kept[i]!
    heavy[count] = heavy[i]!
    total += heavy[count++]!
  }
  return { ids: kept.subarray(0, count), weights: heavy.subarray(0, count), total }
}
