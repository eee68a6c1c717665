import { assert, describe, it } from "@effect/vitest"
import type { Visibility } from "../../src/llama/Visibility.ts"
import { causal, explicit, lengths, segments, visible } from "../../src/llama/Visibility.ts"
import * as T from "../../src/tensor/Tensor.ts"
import type { Tensor } from "../../src/tensor/Tensor.ts"
import { numbers } from "../law/Evaluation.ts"

/** One line per position, one character per source. */
const table = (visibility: Visibility, size: number, order: ReadonlyArray<string>): ReadonlyArray<string> => {
  const digits = numbers(T.real(visible(visibility, size, size).truth as Tensor<string, "truth">), order).join("")
  return digits.match(new RegExp(`.{${size}}`, "g")) ?? []
}

describe("Visibility", () => {
  it("is causal: itself and what stands before", () => {
    assert.deepStrictEqual(table(causal, 4, ["position", "source"]), ["1000", "1100", "1110", "1111"])
    assert.isTrue(visible(causal, 4, 4).everyRowSees)
  })

  it("stops at the length of the example", () => {
    const ragged = lengths(T.ids({ batch: 3 }, [3, 1, 0]))
    assert.deepStrictEqual(table(ragged, 3, ["batch", "position", "source"]), [
      "100", "110", "111",
      "100", "100", "100",
      "000", "000", "000"
    ])
    assert.isFalse(visible(ragged, 3, 3).everyRowSees) // an example of length 0 sees nothing
  })

  it("stays within the segment", () => {
    const packed = segments(T.ids({ batch: 2, position: 4 }, [0, 0, 1, 1, 5, 5, 5, 5]))
    assert.deepStrictEqual(table(packed, 4, ["batch", "position", "source"]), [
      "1000", "1100", "0010", "0011",
      "1000", "1100", "1110", "1111"
    ])
    assert.isTrue(visible(packed, 4, 4).everyRowSees) // every token is of its own segment
  })

  it("is as the table says", () => {
    const own = T.equal(T.ids({ batch: 1, position: 2, source: 3 }, [0, 1, 1, 1, 0, 0]), 1)
    const { everyRowSees, truth } = visible(explicit(own), 2, 3)
    assert.strictEqual(truth, own)
    assert.isFalse(everyRowSees)
  })

  it("is refused where the sizes cannot mean what it says", () => {
    assert.throws(() => visible(causal, 1, 8), `attend: as many sources as positions, where visibility is Causal
  positions  1
  sources    8
  Sources that are kept from earlier runs need an explicit visibility, for nothing else says where they stand.`)
    assert.throws(() => visible(segments(T.ids({ batch: 1, position: 2 }, [0, 0])), 3, 3),
      `attend: every position needs its segment
  segments   [batch: 1, position: 2] id
  positions  3`)
  })
})
