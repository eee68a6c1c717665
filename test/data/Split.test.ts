import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Document from "../../src/data/Document.ts"
import * as Split from "../../src/data/Split.ts"

const documentOf = (text: string) => Document.make(text, { file: "here", line: 1 })
const share = fc.double({ min: 0, max: 1, noNaN: true })

describe("Split", () => {
  it("depends on the text alone: copies from anywhere share a part", () => {
    fc.assert(fc.property(fc.string(), fc.string(), fc.nat(), share, (text, file, line, validationShare) => {
      const copy = Document.make(text, { file, line })
      assert.strictEqual(Split.part(copy, validationShare), Split.part(documentOf(text), validationShare))
    }))
  })

  it("a larger share only adds to the validation part", () => {
    fc.assert(fc.property(fc.string(), share, share, (text, a, b) => {
      if (Split.part(documentOf(text), Math.min(a, b)) === "validation") {
        assert.strictEqual(Split.part(documentOf(text), Math.max(a, b)), "validation")
      }
    }))
  })

  it("everything trains at share 0 and everything measures at share 1", () => {
    fc.assert(fc.property(fc.string(), (text) => {
      assert.strictEqual(Split.part(documentOf(text), 0), "train")
      assert.strictEqual(Split.part(documentOf(text), 1), "validation")
    }))
  })

  it("keeps about the share that was asked for", () => {
    const count = 20000
    for (const validationShare of [0.01, 0.1, 0.5]) {
      let kept = 0
      for (let i = 0; i < count; i++) if (Split.part(documentOf(`text ${i}`), validationShare) === "validation") kept++
      const deviation = Math.sqrt(count * validationShare * (1 - validationShare))
      assert.closeTo(kept, count * validationShare, 6 * deviation)
    }
  })

  it("believes a document that states its part", () => {
    for (const part of ["train", "validation"] as const) {
      const stated = Document.make("stated", { file: "here", line: 1 }, part)
      assert.deepStrictEqual([Split.part(stated, 0), Split.part(stated, 1)], [part, part])
    }
  })
})
