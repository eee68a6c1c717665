import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as fc from "fast-check"
import * as Key from "../../src/random/Key.ts"

const key = fc.integer().map(Key.make)
const word = fc.oneof(fc.maxSafeInteger(), fc.string())

/** Chi-square of counts that should be equal; mean `counts.length − 1`, variance twice that. */
const chiSquare = (counts: ArrayLike<number>): number => {
  const list = Array.from(counts)
  const expected = list.reduce((sum, count) => sum + count, 0) / list.length
  return list.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
}

/**
 * Asserts that a chi-square lies within six standard deviations of what chance gives: a false alarm is out of the
 * question.
 */
const isLikely = (statistic: number, freedom: number) =>
  assert.isBelow(Math.abs(statistic - freedom) / Math.sqrt(2 * freedom), 6, `chi-square ${statistic} of ${freedom}`)

describe("Key", () => {
  it("draws pinned values, so that no release changes the runs of the past", () => {
    const pinned = Key.derive(Key.make(7), "rollout", 3)
    assert.strictEqual(Key.toHex(pinned), "c63e4172b857787de05464a11b2d1740")
    assert.strictEqual(Key.uniform(pinned, 0), 0.036156091256664635)
    assert.strictEqual(Key.normal(pinned, 5), 0.2942487469246641)
    assert.strictEqual(Key.below(pinned, 2, 1000), 30)
    assert.deepStrictEqual([0, 1, 2, 3, 4].map((i) => Key.permuted(pinned, 5, i)), [4, 3, 1, 2, 0])
    assert.strictEqual(Key.toHex(Key.make("a seed of text")), "6d7fbd8372742f0f6cf85e3f7d397db4")
  })

  describe("derive", () => {
    it("goes step by step, and each step changes the key", () => {
      fc.assert(fc.property(key, word, word, (k, a, b) => {
        assert.deepStrictEqual(Key.derive(k, a, b), Key.derive(Key.derive(k, a), b))
        assert.notDeepEqual(Key.derive(k, a), k)
      }))
    })

    it("different paths give different keys", () => {
      const seen = new Set<string>()
      let paths = 0
      const add = (k: Key.Key) => { seen.add(Key.toHex(k)), paths++ }
      for (const seed of [0, 1, -1, 2 ** 32, -(2 ** 32), 2 ** 53 - 1, "0", "", "\0"]) {
        for (let item = 0; item < 40; item++) {
          const k = Key.derive(Key.make(seed), item)
          add(k)
          for (let candidate = 0; candidate < 20; candidate++) {
            add(Key.derive(k, candidate))
            add(Key.derive(k, String(candidate)))
          }
          for (const text of ["a", "ab", "b", "a\0", "aa", "a".repeat(8), "a".repeat(9)]) add(Key.derive(k, text))
          add(Key.derive(k, "a", "b"))
        }
      }
      assert.strictEqual(seen.size, paths)
    })

    it("refuses numbers that are not safe integers, by message", () => {
      assert.throws(() => Key.make(0.5),
        "Key: a seed or a number in a derivation must be a safe integer, got 0.5; name other things by text")
      assert.throws(() => Key.derive(Key.make(0), 2 ** 53), "got 9007199254740992")
      assert.throws(() => Key.uniform(Key.make(0), -1),
        "Key: the index of a draw must be a whole number from 0 to 9007199254740991, got -1")
    })
  })

  it("survives as hexadecimal text", () => {
    fc.assert(fc.property(key, (k) => {
      assert.deepStrictEqual(Schema.decodeSync(Key.KeyFromHex)(Key.toHex(k)), k)
      assert.strictEqual(Schema.encodeSync(Key.KeyFromHex)(k), Key.toHex(k))
    }))
    assert.throws(() => Schema.decodeUnknownSync(Key.KeyFromHex)("zz"))
  })

  describe("uniform", () => {
    it("filling gives the draws one by one, whatever the length (order and batch change nothing)", () => {
      fc.assert(fc.property(key, fc.oneof(fc.nat(20), fc.constantFrom(2047, 2048, 2049, 4097)), (k, length) => {
        const double = new Float64Array(length)
        const single = new Float32Array(length)
        Key.fillUniform(k, double)
        Key.fillUniform(k, single)
        for (let i = length - 1; i >= 0; i -= Math.max(1, length >> 4)) {
          assert.strictEqual(double[i], Key.uniform(k, i))
          assert.strictEqual(single[i], Math.floor(Key.uniform(k, i) * 2 ** 24) / 2 ** 24)
        }
      }), { numRuns: 30 })
    })

    it("spreads evenly, alone and in neighbouring pairs, over keys and over indices", () => {
      const alone = new Uint32Array(64)
      const pairs = new Uint32Array(64)
      const out = new Float64Array(1 << 16)
      Key.fillUniform(Key.make(1), out)
      let sum = 0
      for (let i = 0; i < out.length; i += 2) {
        alone[Math.floor(64 * out[i]!)]!++
        pairs[8 * Math.floor(8 * out[i]!) + Math.floor(8 * out[i + 1]!)]!++
        sum += out[i]! + out[i + 1]!
      }
      isLikely(chiSquare(alone), 63)
      isLikely(chiSquare(pairs), 63)
      assert.closeTo(sum / out.length, 0.5, 6 * Math.sqrt(1 / 12 / out.length))
      const seeds = new Uint32Array(64)
      for (let seed = 0; seed < 6400; seed++) seeds[Math.floor(64 * Key.uniform(Key.make(seed), 0))]!++
      isLikely(chiSquare(seeds), 63)
    })

    it("reaches beyond 2^32 indices", () => {
      assert.notStrictEqual(Key.uniform(Key.make(1), 2 ** 33), Key.uniform(Key.make(1), 0))
      assert.notStrictEqual(Key.normal(Key.make(1), 2 ** 52), Key.normal(Key.make(1), 0))
    })
  })

  describe("normal", () => {
    it("filling gives the draws one by one, scaled", () => {
      fc.assert(fc.property(key, fc.oneof(fc.nat(20), fc.constantFrom(4095, 4096, 4099)), (k, length) => {
        const out = new Float64Array(length)
        Key.fillNormal(k, out, { mean: 2, deviation: 3 })
        for (let i = length - 1; i >= 0; i -= Math.max(1, length >> 4)) {
          assert.strictEqual(out[i], 2 + 3 * Key.normal(k, i))
        }
      }), { numRuns: 30 })
    })

    it("has the moments and the quantiles of a normal distribution", () => {
      const count = 1 << 18
      const out = new Float32Array(count)
      Key.fillNormal(Key.make("moments"), out, { mean: 0, deviation: 1 })
      const moment = (power: number) => out.reduce((sum, z) => sum + z ** power, 0) / count
      const near = (power: number, expected: number, variance: number) =>
        assert.closeTo(moment(power), expected, 6 * Math.sqrt(variance / count), `moment ${power}`)
      near(1, 0, 1), near(2, 1, 2), near(3, 0, 15), near(4, 3, 96) // Var zᵏ = E z²ᵏ − (E zᵏ)²
      const octiles = [-1.1503493804, -0.6744897502, -0.3186393640, 0, 0.3186393640, 0.6744897502, 1.1503493804]
      const counts = new Uint32Array(8)
      for (const z of out) counts[octiles.filter((octile) => octile < z).length]!++
      isLikely(chiSquare(counts), 7)
      const lag = out.reduce((sum, z, i) => sum + z * (out[i + 1] ?? 0), 0) / count
      assert.closeTo(lag, 0, 6 / Math.sqrt(count))
    })
  })

  describe("below", () => {
    it("stays below the count, and is 0 for a count of one", () => {
      fc.assert(fc.property(key, fc.nat(), fc.integer({ min: 1, max: 2 ** 53 }), (k, index, count) => {
        assert.isBelow(Key.below(k, index, count), count)
        assert.strictEqual(Key.below(k, index, 1), 0)
      }))
    })

    it("favours nobody, even where the count does not divide the range", () => {
      const sixths = new Uint32Array(6)
      const thirds = new Uint32Array(3)
      for (let i = 0; i < 12000; i++) {
        sixths[Key.below(Key.make(3), i, 6)]!++
        // a plain remainder would favour the first third 2 : 1
        thirds[Math.floor(Key.below(Key.make(4), i, 3 * 2 ** 51) / 2 ** 51)]!++
      }
      isLikely(chiSquare(sixths), 5)
      isLikely(chiSquare(thirds), 2)
    })

    it("refuses an impossible count, by message", () => {
      assert.throws(() => Key.below(Key.make(0), 0, 0),
        "Key.below: the count must be a whole number from 1 to 9007199254740992, got 0")
    })
  })

  describe("permutations", () => {
    it("both kinds are bijections for every key and count", () => {
      fc.assert(fc.property(key, fc.integer({ min: 1, max: 300 }), (k, count) => {
        const all = Array.from({ length: count }, (_, i) => i)
        const sorted = (order: ArrayLike<number>) => Array.from(order).sort((a, b) => a - b)
        assert.deepStrictEqual(sorted(Key.permutation(k, count)), all)
        assert.deepStrictEqual(sorted(all.map((i) => Key.permuted(k, count, i))), all)
      }))
    })

    it("all orders of four are equally likely under `permutation`", () => {
      const counts = new Map<string, number>()
      for (let seed = 0; seed < 4800; seed++) {
        const order = Key.permutation(Key.make(seed), 4).join("")
        counts.set(order, (counts.get(order) ?? 0) + 1)
      }
      assert.strictEqual(counts.size, 24)
      isLikely(chiSquare([...counts.values()]), 23)
    })

    it("under `permuted` every index goes everywhere equally often, and neighbours part", () => {
      for (const count of [3, 7, 16, 100]) {
        const places = Array.from({ length: count }, () => new Uint32Array(count))
        const gaps = new Uint32Array(count - 1)
        const seeds = 40 * count
        for (let seed = 0; seed < seeds; seed++) {
          const k = Key.make(seed)
          const first = Key.permuted(k, count, 0)
          places[0]![first]!++
          places[count - 1]![Key.permuted(k, count, count - 1)]!++
          gaps[(Key.permuted(k, count, 1) - first + count) % count - 1]!++
        }
        isLikely(chiSquare(places[0]!), count - 1)
        isLikely(chiSquare(places[count - 1]!), count - 1)
        if (count >= 100) isLikely(chiSquare(gaps), count - 2)
      }
    })

    it("serves orders too long to hold", () => {
      const count = 2 ** 45 + 12345
      const seen = new Set(Array.from({ length: 1000 }, (_, i) => Key.permuted(Key.make(9), count, i)))
      assert.strictEqual(seen.size, 1000)
      for (const place of seen) assert.isBelow(place, count)
    })

    it("refuses an index outside the order, by message", () => {
      assert.throws(() => Key.permuted(Key.make(0), 5, 5),
        "Key.permuted: the index must be a whole number from 0 to 4, got 5")
      assert.throws(() => Key.permutation(Key.make(0), -1),
        "Key.permutation: the count must be a whole number from 0 to 4294967295, got -1")
    })
  })
})
