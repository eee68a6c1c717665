/**
 * Laws first: the kept set is that of a direct implementation, log-probabilities are those of the distribution, draws
 * have its frequencies; then cases and messages.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import {
  draw, drawFrom, greedy, inverseOf, type Logits, LogitsError, logProbability, type Options, type Rule, sampling,
  type Scores
} from "../../src/generate/Sampling.ts"
import * as Key from "../../src/random/Key.ts"

/**
 * Rows with ties, excluded tokens and wide ranges. What differs does so by 2⁻¹⁰ at least: whether nearer logits have
 * equal weights is for rounding to say, and with it which of them is kept.
 */
const rows = fc.array(
  fc.oneof(fc.integer({ min: -4, max: 4 }), fc.integer({ min: -30_000, max: 30_000 }).map((x) => x / 1024),
    fc.constant(-0), fc.constant(-Infinity)),
  { minLength: 1, maxLength: 200 }
).filter((row) => row.some(Number.isFinite)).map((row) => Float32Array.from(row))

const options = fc.record<Options>({
  temperature: fc.constantFrom(0.1, 0.6, 1, 2.5),
  topK: fc.oneof(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 250 })),
  topP: fc.constantFrom(0.05, 0.5, 0.9, 0.999, 1)
}, { requiredKeys: ["temperature"] })

/** Probabilities by id, by sorting everything. */
const direct = (row: Float32Array, { temperature, topK = Infinity, topP = 1 }: Options): Map<number, number> => {
  const top = Math.max(...row)
  const weighed = Array.from(row, (logit, id) => ({ id, weight: Math.exp((logit - top) / temperature) }))
    .filter(({ weight }) => weight > 0)
    .sort((a, b) => b.weight - a.weight || a.id - b.id)
    .slice(0, topK)
  const mass = weighed.reduce((total, { weight }) => total + weight, 0)
  let before = 0
  const kept = topP === 1 ? weighed : weighed.filter(({ weight }) => {
    const stays = before <= topP * mass
    before += weight
    return stays
  })
  const total = kept.reduce((sum, { weight }) => sum + weight, 0)
  return new Map(kept.map(({ id, weight }) => [id, weight / total]))
}

const probabilities = (rule: Rule, row: Logits): Map<number, number> => {
  const { ids, total, weights } = rule(row)
  const all = Array.from(ids, (id, i) => [id, weights[i]! / total] as const)
  return new Map(all.filter(([, probability]) => probability > 0))
}

/** The greatest of each run. */
const topsOf = (row: Float32Array, length: number): Float32Array =>
  Float32Array.from({ length: row.length / length }, (_, i) => Math.max(...row.subarray(i * length, (i + 1) * length)))

/** What a program gives of a row: with the masses of its runs, in its precision. */
const scoresOf = (logits: Float32Array, length: number, inverse: number): Scores => {
  const top = Math.max(...logits)
  const runs = new Float32Array(logits.length / length)
  logits.forEach((logit, id) => { runs[Math.floor(id / length)]! += Math.exp((logit - top) * Math.fround(inverse)) })
  return { logits, tops: topsOf(logits, length), masses: { inverse, runs } }
}

/** A length of runs for a row. */
const lengthOf = (row: Float32Array, pick: number): number => {
  const lengths = Array.from(row, (_, i) => i + 1).filter((length) => row.length % length === 0)
  return lengths[pick % lengths.length]!
}

/**
 * What `options` may draw at a place between 0 and 1, ids in their order, to float32: the place falls on the id or
 * near it, and the id is among those that stay, or would with p a little larger or smaller.
 */
const mayDraw = (
  row: Float32Array, options: Options, place: number, { id, logProb }: ReturnType<typeof draw>
): boolean =>
  [0, -1e-6, 1e-6].some((change) => {
    const topP = options.topP === undefined || options.topP === 1 ? {} : { topP: options.topP * (1 + change) }
    const all = direct(row, { ...options, ...topP })
    const before = [...all].reduce((sum, [other, probability]) => other < id ? sum + probability : sum, 0)
    const own = all.get(id) ?? 0
    return own > 0 && Math.abs(logProb - Math.log(own)) < 1e-5 &&
      before - 1e-5 <= place && place <= before + own + 1e-5
  })

const key = Key.make("sampling")

describe("a distribution", () => {
  it("keeps what sorting everything keeps, with the same probabilities", () => {
    fc.assert(fc.property(rows, options, fc.boolean(), (row, chosen, isDouble) => {
      const found = probabilities(sampling(chosen), isDouble ? Float64Array.from(row) : row)
      const expected = direct(row, chosen)
      assert.deepStrictEqual([...found.keys()].sort(), [...expected.keys()].sort())
      for (const [id, probability] of expected) assert.closeTo(found.get(id)!, probability, 1e-12)
    }), { numRuns: 1000 })
  })

  it("keeps the same of many ids, of which many are equal", () => {
    fc.assert(fc.property(fc.nat(), fc.constantFrom(1, 8, 1e9), options, (seed, steps, chosen) => {
      const row = new Float32Array(5000)
      Key.fillNormal(Key.make(seed), row, { mean: 0, deviation: 2 })
      row.forEach((logit, id) => { row[id] = Math.round(logit * steps) / steps })
      const [found, expected] = [probabilities(sampling(chosen), row), direct(row, chosen)]
      assert.strictEqual(found.size, expected.size)
      for (const [id, probability] of expected) assert.closeTo(found.get(id)!, probability, 1e-12)
    }), { numRuns: 30 })
  })

  it("is the same where the tops are known, however long the runs are", () => {
    fc.assert(fc.property(rows, fc.option(options), fc.nat(), (row, chosen, pick) => {
      const tops = topsOf(row, lengthOf(row, pick))
      const rule = chosen === null ? greedy : sampling(chosen)
      const found = structuredClone(rule(row, tops)) // a rule's arrays are filled again
      assert.deepStrictEqual(found, structuredClone(rule(row)))
    }))
  })

  it("gives a draw the log-probability that it has", () => {
    fc.assert(fc.property(rows, options, fc.nat(), (row, chosen, seed) => {
      const distribution = sampling(chosen)(row)
      const { id, logProb } = draw(distribution, Key.make(seed))
      assert.strictEqual(logProb, logProbability(distribution, id))
      assert.closeTo(Math.exp(logProb), direct(row, chosen).get(id)!, 1e-12)
    }))
  })

  it("does not change when a number is added to every logit", () => {
    fc.assert(fc.property(rows, options, (row, chosen) => {
      const shifted = row.map((logit) => Math.round(logit)).map((logit) => logit + 16)
      const [left, right] = [sampling(chosen)(row.map((logit) => Math.round(logit))), sampling(chosen)(shifted)]
      assert.deepStrictEqual(left, right)
    }))
  })

  it("is sharper at a lower temperature: in the limit the greedy one", () => {
    fc.assert(fc.property(fc.uniqueArray(fc.integer({ min: -20, max: 20 }), { minLength: 2 }), (logits) => {
      const row = Float32Array.from(logits)
      const best = greedy(row).ids[0]!
      const probability = (temperature: number) => probabilities(sampling({ temperature }), row).get(best)!
      assert.isAtLeast(probability(0.5), probability(1))
      assert.closeTo(probability(0.01), 1, 1e-12)
    }))
  })
})

describe("a draw by the masses of runs", () => {
  it("is that of the whole distribution to float32, its log-probability too", () => {
    fc.assert(fc.property(rows, options, fc.nat(), fc.nat(), (row, chosen, pick, seed) => {
      const rule = sampling(chosen)
      const drawn = drawFrom(rule, scoresOf(row, lengthOf(row, pick), inverseOf(rule)), Key.make(seed))
      assert.isTrue(mayDraw(row, chosen, Key.uniform(Key.make(seed), 0), drawn))
      if (chosen.topK !== undefined) assert.deepStrictEqual(drawn, draw(rule(row), Key.make(seed)))
    }), { numRuns: 1000 })
  })

  it("is so for many ids, of which many are equal, or a few have nearly all", () => {
    const some = fc.constantFrom<Options>({ temperature: 1 }, { temperature: 0.5, topP: 0.9 }, { temperature: 2 })
    const drawn = fc.tuple(fc.nat(), fc.constantFrom(1, 1e9), fc.constantFrom(0.1, 2, 8), some)
    fc.assert(fc.property(drawn, ([seed, steps, deviation, chosen]) => {
      const row = new Float32Array(5120)
      Key.fillNormal(Key.make(seed), row, { mean: 0, deviation })
      row.forEach((logit, id) => { row[id] = Math.round(logit * steps) / steps })
      const rule = sampling(chosen)
      const scores = scoresOf(row, 128, inverseOf(rule))
      for (let i = 0; i < 10; i++) {
        const own = Key.derive(Key.make(seed), i)
        assert.isTrue(mayDraw(row, chosen, Key.uniform(own, 0), drawFrom(rule, scores, own)))
      }
    }), { numRuns: 20 })
  })

  it("goes by the masses, and never by those of another temperature", () => {
    const row = Float32Array.of(0, 0, 0, 0)
    const masses = (inverse: number): Scores =>
      ({ logits: row, tops: Float32Array.of(0, 0), masses: { inverse, runs: Float32Array.of(0, 2) } })
    const drawn = (rule: Rule, scores: Scores) =>
      new Set(Array.from({ length: 100 }, (_, i) => drawFrom(rule, scores, Key.derive(key, i)).id))
    assert.deepStrictEqual([...drawn(sampling({ temperature: 0.5 }), masses(2))].sort(), [2, 3])
    assert.deepStrictEqual([...drawn(sampling({ temperature: 1 }), masses(2))].sort(), [0, 1, 2, 3])
    const own: Rule = (logits) => sampling({ temperature: 0.5 })(logits)
    assert.deepStrictEqual([...drawn(own, masses(2))].sort(), [0, 1, 2, 3])
  })

  it("is left to the whole distribution where 1 / temperature is beyond a float", () => {
    const rule = sampling({ temperature: 1e-300 })
    const scores = { logits: Float32Array.of(1, 2), tops: Float32Array.of(1, 2) }
    const masses = { inverse: inverseOf(rule), runs: Float32Array.of(0, NaN) } // 0 · ∞
    assert.deepStrictEqual(drawFrom(rule, { ...scores, masses }, key), { id: 1, logProb: 0 })
  })

  it("needs them at 1 / temperature, and for other rules not at all", () => {
    assert.strictEqual(inverseOf(sampling({ temperature: 0.5, topP: 0.9 })), 2)
    for (const rule of [undefined, greedy, sampling({ temperature: 0.5, topK: 3 }), () => assert.fail("used")]) {
      assert.strictEqual(inverseOf(rule), 0)
    }
  })
})

describe("greedy", () => {
  it("takes the greatest, of equal ones the first, and is certain of it", () => {
    fc.assert(fc.property(rows, (row) => {
      assert.deepStrictEqual(draw(greedy(row), key), { id: row.indexOf(Math.max(...row)), logProb: 0 })
    }))
  })
})

describe("draws", () => {
  /** χ² of the counts of many draws is below what it exceeds once in 100 000 times (Wilson & Hilferty 1931). */
  const haveFrequencies = (expected: ReadonlyMap<number, number>, drawn: ReadonlyArray<number>): void => {
    const counts = new Map<number, number>()
    for (const one of drawn) counts.set(one, (counts.get(one) ?? 0) + 1)
    assert.isTrue([...counts.keys()].every((one) => expected.has(one)))
    let found = 0
    for (const [one, probability] of expected) {
      const wanted = drawn.length * probability
      found += ((counts.get(one) ?? 0) - wanted) ** 2 / wanted
    }
    const freedom = expected.size - 1
    assert.isBelow(found, freedom * (1 - 2 / (9 * freedom) + 4.265 * Math.sqrt(2 / (9 * freedom))) ** 3)
  }
  const row = Float32Array.from([0.3, -1, 2, 1.5, -0.2, 1.5, -3, 0.8])

  it.each<readonly [string, Options]>([
    ["a temperature", { temperature: 1.3 }],
    ["the likeliest few", { temperature: 1, topK: 4 }],
    ["a share of the probability", { temperature: 1, topP: 0.8 }],
    ["both", { temperature: 2, topK: 6, topP: 0.7 }]
  ])("have the frequencies of their distribution, by %s", (_, chosen) => {
    const rule = sampling(chosen)
    const distribution = structuredClone(rule(row)) // it is filled again
    const scores = scoresOf(row, 2, inverseOf(rule))
    for (const drawn of [(key: Key.Key) => draw(distribution, key), (key: Key.Key) => drawFrom(rule, scores, key)]) {
      haveFrequencies(direct(row, chosen), Array.from({ length: 20_000 }, (_, i) => drawn(Key.derive(key, i)).id))
    }
  })

  it.each(["seed", "prompt", "candidate", "place"])("know nothing of those of the next %s", (next) => {
    const distribution = sampling({ temperature: 1 })(row)
    const alone = direct(row, { temperature: 1 })
    const together = new Map([...alone].flatMap(([left, p]) =>
      [...alone].map(([right, q]) => [row.length * left + right, p * q] as const)))
    const axis = ["seed", "prompt", "candidate", "place"].indexOf(next)
    haveFrequencies(together, Array.from({ length: 10_000 }, (_, i) => {
      const [left = -1, right = -1] = [0, 1].map((behind) => {
        const [seed, ...path] = [0, 1, 2, 3].map((digit) => {
          const own = Math.floor(i / 10 ** digit) % 10
          return digit === axis ? 2 * own + behind : own
        })
        return draw(distribution, Key.derive(Key.make(seed!), ...path)).id
      })
      return row.length * left + right
    }))
  })
})

describe("top-p", () => {
  it("keeps a token while the mass before it is at most p, as Meta's code does", () => {
    const row = Float32Array.from([0.5, 0.25, 0.125, 0.125], Math.log)
    const kept = (topP: number) => [...sampling({ temperature: 1, topP })(row).ids]
    assert.deepStrictEqual(kept(0.4), [0])
    assert.deepStrictEqual(kept(0.6), [0, 1])
    assert.deepStrictEqual(kept(0.8), [0, 1, 2])
    assert.deepStrictEqual(kept(0.99), [0, 1, 2, 3])
    const equal = sampling({ temperature: 1, topP: 0.5 })(new Float32Array(4))
    assert.deepStrictEqual([...equal.ids], [0, 1, 2]) // 0.5 lies before the third
  })
})

describe("messages", () => {
  const thrown = (run: () => unknown): Error => {
    try {
      run()
    } catch (error) {
      if (error instanceof Error) return error
    }
    return assert.fail("nothing was thrown")
  }

  it("say which logit is not a number", () => {
    for (const rule of [greedy, sampling({ temperature: 1 })]) {
      assert.instanceOf(thrown(() => rule(Float32Array.of(1, NaN))), LogitsError)
      assert.strictEqual(thrown(() => rule(Float32Array.of(1, NaN))).message,
        `sampling: logits must be finite or −∞, one of them finite; id 1 of 2 has NaN
  Usual causes: parameters that a diverged training step made NaN, or a mask that excludes every token.`)
      assert.include(thrown(() => rule(Float32Array.of(1, Infinity))).message, "id 1 of 2 has +∞")
      const { message } = thrown(() => rule(Float32Array.of(-Infinity, -Infinity)))
      assert.include(message, "id 0 of 2 has −∞, as all others")
    }
  })

  it("say it where the tops are known, too", () => {
    for (const rule of [greedy, sampling({ temperature: 1 }), sampling({ temperature: 1, topK: 2 })]) {
      for (const [strange, said] of [[NaN, "id 2 of 4 has NaN"], [Infinity, "id 2 of 4 has +∞"]] as const) {
        for (const length of [1, 2, 4]) {
          const row = Float32Array.of(1, 2, strange, 3)
          const tops = topsOf(row, length)
          assert.include(thrown(() => rule(row, tops)).message, said)
          const masses = { inverse: inverseOf(rule), runs: tops.map(() => 1) } // as if they had overlooked it
          assert.include(thrown(() => drawFrom(rule, { logits: row, tops, masses }, key)).message, said)
        }
      }
      const none = new Float32Array(4).fill(-Infinity)
      assert.include(thrown(() => rule(none, topsOf(none, 2))).message, "id 0 of 4 has −∞, as all others")
    }
  })

  it("name every option that is out of range", () => {
    const { message } = thrown(() => sampling({ temperature: 0, topK: 0.5, topP: 1.5 }))
    assert.include(message,
      "temperature must be greater than 0, got 0; for the likeliest token take the greedy rule")
    assert.include(message, "topK must be a whole number of at least 1, got 0.5; leave it out to keep every token")
    assert.include(message, "topP must be greater than 0 and at most 1, got 1.5; leave it out to keep every token")
  })
})
