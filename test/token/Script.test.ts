import { assert, describe, it } from "@effect/vitest"
import { anyScript, commonScript, hanScript, scriptOf } from "../../src/token/Script.ts"

const of = (character: string) => scriptOf(character.codePointAt(0)!)

describe("Script", () => {
  it("tells scripts apart, and groups what SentencePiece groups", () => {
    for (const character of "漢ひカー") assert.strictEqual(of(character), hanScript, character)
    for (const character of "1!€ \u2581🦙") assert.strictEqual(of(character), commonScript, character)
    assert.strictEqual(of("\u0301"), anyScript)
    assert.strictEqual(of("a"), of("É"))
    assert.strictEqual(new Set([..."aаαا"].map(of)).size, 4)
    assert.strictEqual(of("𝄞"), commonScript)
    assert.strictEqual(of("\u{10400}"), of("\u{10401}"))
    assert.notStrictEqual(of("\u{10400}"), of("\u{12000}"))
  })

  it("counts text in a script that SentencePiece does not know as Common", () => {
    assert.strictEqual(of("\u{16d40}"), commonScript)
    assert.strictEqual(of("\u0378"), commonScript)
  })
})
