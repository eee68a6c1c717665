import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Normalizer from "../../src/token/Normalizer.ts"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import { modelOf } from "./vocabularies.ts"

const llama = SentencePiece.identityNormalizer
const normalize = (
  text: string,
  changes: Partial<SentencePiece.NormalizerSpecification> = {},
  treatWhitespaceAsSuffix = false,
  userDefined: ReadonlyArray<string> = []
): string => {
  const { table } = modelOf(userDefined.map((text) => ({ text, score: 0, type: "user-defined" })), false)
  return Result.getOrThrow(Normalizer.make({ ...llama, ...changes }, treatWhitespaceAsSuffix, table)).text(text)
}
const { table } = modelOf([], false)

/** Rules compiled by hand: a trie of 32-bit units for "a" alone, which becomes "XY". */
const rules = (() => {
  const bytes = new Uint8Array(4 + 4 * 0x200 + 3)
  const view = new DataView(bytes.buffer)
  const unit = (at: number, value: number) => view.setUint32(4 + 4 * at, value >>> 0, true)
  view.setUint32(0, 4 * 0x200, true)
  unit(0, 0x80 << 10)
  unit(0x80 ^ 0x61, (1 << 10) | 0x100 | 0x61)
  unit(0x80 ^ 0x61 ^ 1, 0x80000000)
  bytes.set([0x58, 0x59, 0], 4 + 4 * 0x200)
  return bytes
})()

describe("Normalizer", () => {
  it("of Llama puts a space in front of any text, and nothing else", () => {
    assert.strictEqual(normalize(""), "")
    assert.strictEqual(normalize(" a  b "), "  a  b ")
    assert.strictEqual(normalize("ﬁ\u3000\t"), " ﬁ\u3000\t")
    assert.strictEqual(normalize("a", { addDummyPrefix: false }), "a")
  })

  it("removes extra spaces where the model says so", () => {
    const removing = { removeExtraWhitespaces: true }
    assert.strictEqual(normalize("  a   b  ", removing), "\u2581a\u2581b")
    assert.strictEqual(normalize("   ", removing), "")
    assert.strictEqual(normalize("a\u2581 ", removing), "\u2581a")
    assert.strictEqual(normalize(" a  b ", { ...removing, escapeWhitespaces: false }), " a b")
  })

  it("puts the space behind where the model says so", () => {
    assert.strictEqual(normalize("a b", {}, true), "a\u2581b\u2581")
    assert.strictEqual(normalize("a b ", { removeExtraWhitespaces: true }, true), "a\u2581b\u2581")
  })

  it("follows compiled rules, but inside user-defined pieces", () => {
    assert.strictEqual(normalize("bab", { charsmap: rules }), "\u2581bXYb")
    assert.strictEqual(normalize("bab a", { charsmap: rules }, false, ["ab"]), "\u2581bab\u2581XY")
  })

  it("reads malformed bytes as U+FFFD, without rules for them", () => {
    const { bytes } = Result.getOrThrow(Normalizer.make({ ...llama, charsmap: rules }, false, table))
    assert.strictEqual(bytes(Uint8Array.of(0xff, 0x61, 0xe4, 0xbd)), "\u2581\ufffdXY\ufffd\ufffd")
  })

  it("refuses rules that are cut off", () => {
    const refused = (charsmap: Uint8Array) => Result.getOrThrow(
      Result.flip(Normalizer.make({ ...llama, charsmap }, false, table))
    )
    assert.strictEqual(refused(rules.subarray(0, 100)), "precompiled_charsmap of 100 bytes claims a trie of 2048 bytes")
    assert.strictEqual(refused(rules.subarray(0, 3)), "precompiled_charsmap of 3 bytes claims a trie of -1 bytes")
  })
})
