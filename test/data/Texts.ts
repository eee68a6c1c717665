/**
 * A toy encoder and the stores made with it, for the tests of this folder: one token per UTF-16 code unit modulo 30,
 * BOS 30.
 */
import * as fc from "fast-check"
import * as TokenStore from "../../src/data/TokenStore.ts"

export const encoder: TokenStore.Encoder = {
  encode: (text) => Array.from({ length: text.length }, (_, i) => text.charCodeAt(i) % 30),
  bosId: 30,
  vocabSize: 31
}

export const texts = fc.array(fc.string({ maxLength: 40 }), { minLength: 1, maxLength: 30 })
  .filter((list) => list.length > 1 || list[0] !== "")

export const store = texts.map((list) => TokenStore.fromTexts(list, encoder))
