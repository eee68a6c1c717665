/**
 * The product with packed panels against the sums that define it, part by part: exact on whole numbers, within the
 * rounding of its sums on others, nothing written or needed beyond its matrices, and what is not finite stays where it
 * belongs.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import koffi from "koffi"
import {
  assemble, call, end, jumpIfNotEqual, place, pop, push, set, subtract
} from "../../../src/backend/machine/Assembler.ts"
import {
  packPanels, panelCount, panelProduct, panelWidth, type Sizes
} from "../../../src/backend/machine/PanelProduct.ts"
import { make } from "../../../src/backend/onnx/CodeMemory.ts"

const sizes = fc.record({
  rows: fc.integer({ min: 1, max: 40 }),
  summed: fc.integer({ min: 1, max: 40 }),
  columns: fc.integer({ min: 1, max: 70 })
})

/** Numbers in [0, 1) from a seed (mulberry32). */
const randomOf = (seed: number) => {
  let state = seed
  return (): number => {
    state = state + 0x6d2b79f5 | 0
    let bits = Math.imul(state ^ state >>> 15, state | 1)
    bits ^= bits + Math.imul(bits ^ bits >>> 7, bits | 61)
    return ((bits ^ bits >>> 14) >>> 0) / 2 ** 32
  }
}

const inPanels = (weights: Float32Array, size: Sizes, isTransposed: boolean): Float32Array => {
  const panels = new Float32Array(panelCount(size.columns) * panelWidth * size.summed)
  packPanels(weights, size, isTransposed, panels)
  return panels
}

describe("panels", () => {
  it("have each weight in its place, and zeros behind the last column", () => {
    fc.assert(fc.property(sizes, fc.boolean(), (size, isTransposed) => {
      const { columns, summed } = size
      const weights = Float32Array.from({ length: summed * columns }, (_, index) => index + 1)
      const expected = Array.from({ length: Math.ceil(columns / 16) * summed * 16 }, (_, index) => {
        const column = Math.floor(index / (16 * summed)) * 16 + index % 16
        const k = Math.floor(index / 16) % summed
        return column >= columns ? 0 : (isTransposed ? column * summed + k : k * columns + column) + 1
      })
      assert.deepStrictEqual([...inPanels(weights, size, isTransposed)], expected)
    }), { numRuns: 40 })
  })

  it("are one for each 16 columns, the last perhaps not full", () => {
    assert.deepStrictEqual([1, 15, 16, 17, 32, 33].map(panelCount), [1, 1, 1, 2, 2, 3])
  })
})

const memory = make(koffi)

describe.skipIf(memory === undefined)("the product in machine code (needs Linux on x64 with AVX-512)", () => {
  const prototype = koffi.proto("void", ["void *", "size_t"])

  /** What stands before and behind y; no sum of these tests is it. */
  const guard = 12345.5
  const margin = 64

  /** Numbers between others, which are not read or written, and the address of the first. */
  const between = (values: Float32Array, around: number) => {
    const all = new Float32Array(values.length + 2 * margin).fill(around)
    all.set(values, margin)
    return { all, address: BigInt(koffi.address(all)) + BigInt(4 * margin) }
  }

  /** x W, each part computed alone: it must write its own columns and nothing else. */
  const product = (x: Float32Array, panels: Float32Array, size: Sizes, panelsOfPart: number): Float32Array => {
    const { columns, rows } = size
    const code = panelProduct(size, panelsOfPart)
    const mapping = memory!.map(code.length, () => code)
    const pointer: unknown = koffi.decode(Buffer.from(BigUint64Array.of(BigInt(mapping.address)).buffer), "void *")
    const call = koffi.decode(pointer, prototype) as (frame: BigUint64Array, part: number) => void
    const [left, right] = [between(x, NaN), between(panels, NaN)]
    const y = new Float32Array(rows * columns)
    const frame = new BigUint64Array(64)
    const parts = Math.ceil(panelCount(columns) / panelsOfPart)
    for (let part = parts - 1; part >= 0; part--) {
      const written = between(new Float32Array(rows * columns).fill(guard), guard)
      frame.set([left.address, right.address, written.address])
      call(frame, part)
      const first = part * panelsOfPart * panelWidth
      const last = first + panelsOfPart * panelWidth
      for (const [index, value] of written.all.entries()) {
        const offset = index - margin
        const column = (offset + columns) % columns
        const isOwn = offset >= 0 && offset < y.length && column >= first && column < last
        if (isOwn) y[offset] = value
        if (isOwn === (value === guard)) {
          assert.fail(`part ${part} ${isOwn ? "leaves out" : "writes"} ${offset} of ${y.length}, column ${column}`)
        }
      }
    }
    mapping.free()
    assert.deepStrictEqual(left.all.subarray(margin, margin + x.length), x)
    assert.deepStrictEqual(right.all.subarray(margin, margin + panels.length), panels)
    return y
  }

  const drawn = fc.record({
    size: sizes,
    panelsOfPart: fc.integer({ min: 1, max: 4 }),
    isTransposed: fc.boolean(),
    seed: fc.integer()
  })

  const forAll = (law: (draw: typeof drawn extends fc.Arbitrary<infer A> ? A : never) => void) =>
    fc.assert(fc.property(drawn, law), { numRuns: 60 })

  /** Σ_k term(x[r, k], W[k, n]) of all r and n, in float64. */
  const sumsOf = (
    x: Float32Array, weights: Float32Array, { columns, rows, summed }: Sizes, isTransposed: boolean,
    term: (x: number, weight: number) => number
  ): Array<number> =>
    Array.from({ length: rows * columns }, (_, place) => {
      const [row, column] = [Math.floor(place / columns), place % columns]
      return Array.from({ length: summed }, (_, k) =>
        term(x[row * summed + k]!, weights[isTransposed ? column * summed + k : k * columns + column]!)
      ).reduce((sum, value) => sum + value, 0)
    })

  const times = (x: number, weight: number): number => x * weight

  /** Both matrices, of values made from random numbers. */
  const matrices = ({ columns, rows, summed }: Sizes, seed: number, valueOf: (random: number) => number) => {
    const random = randomOf(seed)
    return [rows * summed, summed * columns].map((length) =>
      new Float32Array(length).map(() => valueOf(random()))) as [Float32Array, Float32Array]
  }

  it("is exact on small whole numbers", () => {
    forAll(({ isTransposed, panelsOfPart, seed, size }) => {
      const [x, weights] = matrices(size, seed, (random) => Math.floor(random * 17) - 8)
      const y = product(x, inPanels(weights, size, isTransposed), size, panelsOfPart)
      assert.deepStrictEqual([...y], sumsOf(x, weights, size, isTransposed, times))
    })
  })

  it("is within the rounding of its sums", () => {
    forAll(({ isTransposed, panelsOfPart, seed, size }) => {
      const [x, weights] = matrices(size, seed, (random) => (random - 0.5) * 3)
      const y = product(x, inPanels(weights, size, isTransposed), size, panelsOfPart)
      const expected = sumsOf(x, weights, size, isTransposed, times)
      const magnitudes = sumsOf(x, weights, size, isTransposed, (x, weight) => Math.abs(x * weight))
      // A sum of float32 in any order: at most one rounding, of 2^-24, of all magnitudes for each term, and one more.
      for (const [place, value] of y.entries()) {
        const bound = (size.summed + 1) * 2 ** -24 * 1.001 * magnitudes[place]! + 2 ** -120
        assert.isAtMost(Math.abs(value - expected[place]!), bound, `place ${place}`)
      }
    })
  })

  it("is no number in the row of x that has NaN, and in no other", () => {
    forAll(({ isTransposed, panelsOfPart, seed, size }) => {
      const { columns, rows, summed } = size
      const [x, weights] = matrices(size, seed, (random) => Math.floor(random * 17) - 8)
      const place = (seed >>> 0) % (rows * summed)
      x[place] = NaN
      const y = product(x, inPanels(weights, size, isTransposed), size, panelsOfPart)
      assert.deepStrictEqual([...y], sumsOf(x, weights, size, isTransposed, times))
      const row = Math.floor(place / summed)
      for (const [index, value] of y.entries()) {
        assert.strictEqual(Number.isNaN(value), Math.floor(index / columns) === row, `place ${index}`)
      }
    })
  })

  it("is infinite in the column of an infinite weight, with the signs of x, and finite in all others", () => {
    forAll(({ isTransposed, panelsOfPart, seed, size }) => {
      const { columns, rows, summed } = size
      const [x, weights] = matrices(size, seed, (random) => Math.floor(random * 8) + (random < 0.5 ? -9 : 1))
      const [k, column] = [(seed >>> 0) % summed, (seed >>> 8) % columns]
      weights[isTransposed ? column * summed + k : k * columns + column] = Infinity
      const y = product(x, inPanels(weights, size, isTransposed), size, panelsOfPart)
      assert.deepStrictEqual([...y], sumsOf(x, weights, size, isTransposed, times))
      for (let row = 0; row < rows; row++) {
        assert.strictEqual(y[row * columns + column], x[row * summed + k]! < 0 ? -Infinity : Infinity, `row ${row}`)
      }
      assert.strictEqual(y.filter((value) => !Number.isFinite(value)).length, rows)
    })
  })

  it("is the same for every height of a block, and for rows in several", () => {
    const [summed, columns] = [19, 21]
    for (const rows of [...Array.from({ length: 18 }, (_, index) => index + 1), 31, 32, 33, 49, 128]) {
      const size = { rows, summed, columns }
      const [x, weights] = matrices(size, rows, (random) => Math.floor(random * 17) - 8)
      const y = product(x, inPanels(weights, size, false), size, 1)
      assert.deepStrictEqual([...y], sumsOf(x, weights, size, false, times), `${rows} rows`)
    }
  })

  it("keeps the registers that a function must", () => {
    const kept = ["rbx", "rbp", "r12", "r13", "r14", "r15"] as const
    for (const columns of [16, 21]) {
      const size = { rows: 3, summed: 9, columns }
      const code = panelProduct(size, 1)
      const mapping = memory!.map(code.length, () => code)
      const isDone = place("done")
      const caller = assemble([
        ...kept.map(push), ...kept.map((register, index) => set(register, 2 ** 40 + index)),
        set("rax", mapping.address), call("rax"), set("rax", 0),
        ...kept.flatMap((register, index) =>
          [set("rcx", 2 ** 40 + index), subtract("rcx", register), jumpIfNotEqual(isDone)]),
        set("rax", 1), isDone, ...kept.toReversed().map(pop), end
      ])
      const callerMapping = memory!.map(caller.length, () => caller)
      const pointer: unknown = koffi.decode(
        Buffer.from(BigUint64Array.of(BigInt(callerMapping.address)).buffer), "void *"
      )
      const areKept = koffi.decode(pointer, koffi.proto("int64_t", ["void *", "size_t"]))
      const [x, weights] = matrices(size, 1, (random) => random)
      const panels = inPanels(weights, size, false)
      const [left, right, y] = [x, panels, new Float32Array(3 * columns)].map((values) => between(values, 0))
      const frame = new BigUint64Array(64)
      frame.set([left!.address, right!.address, y!.address])
      assert.strictEqual(Number(areKept(frame, 0)), 1, `${columns} columns`)
      assert.isAbove(y!.all[margin]!, 0)
      mapping.free()
      callerMapping.free()
    }
  })

  it("takes sizes whose distances pass the short ones", () => {
    const size = { rows: 3, summed: 700, columns: 90 }
    const [x, weights] = matrices(size, 1, (random) => Math.floor(random * 17) - 8)
    assert.deepStrictEqual([...product(x, inPanels(weights, size, true), size, 4)],
      sumsOf(x, weights, size, true, times))
  })
})

describe("code of a product", () => {
  it("does not pretend that sizes fit which do not", () => {
    assert.throws(() => panelProduct({ rows: 1, summed: 2 ** 20, columns: 2 ** 12 }, 2 ** 5),
      RangeError, "2147483648 is no whole number of 32 bits")
  })
})
