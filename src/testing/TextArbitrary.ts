/**
 * Arbitraries of text and of bytes that want to be text: what a tokenizer will meet, and what it should never have.
 *
 * Every plane of Unicode, marks that combine, spaces of all kinds, digits of many scripts, U+2581 (the sign that
 * SentencePiece writes for a space), names of control pieces, surrogates without their other half, bytes that are no
 * UTF-8. Strings shrink to fewer and plainer characters.
 *
 * From     Cria's own; the kinds are those that tokenizers were seen to get wrong.
 * Checked  test/law/TextArbitrary.test.ts (every kind is drawn), test/law/TokenizerLaw.test.ts.
 *
 * @module
 */
import * as fc from "fast-check"

/** ASCII digits and digits of other scripts and shapes, one at a time. */
export const digit: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom(..."0123456789"),
  fc.constantFrom("\uff11", "\u0663", "\u096b", "\u00b2", "\u2167", "\u{1d7d8}")
)

/** Spaces: of ASCII, without width, without a break, ideographic, the ends of lines, and U+2581. */
export const space: fc.Arbitrary<string> = fc.constantFrom(
  " ", " ", "  ", "\n", "\r\n", "\t", "\v", "\f", "\u0085", "\u00a0", "\u1680", "\u2003", "\u200b", "\u2028", "\u202f",
  "\u2060", "\u3000", "\ufeff", "\u2581"
)

/** First and last code point of scripts, signs and planes that text is made of, or that it seldom is. */
const blocks: ReadonlyArray<readonly [number, number]> = [
  [0x20, 0x7e], [0x00, 0x1f], [0xa1, 0x24f], [0x300, 0x36f], [0x370, 0x3ff], [0x400, 0x4ff], [0x5d0, 0x5ea],
  [0x620, 0x6ff], [0x900, 0x97f], [0xe01, 0xe5b], [0x1100, 0x11ff], [0x2000, 0x206f], [0x20d0, 0x20f0],
  [0x3040, 0x30ff], [0x4e00, 0x9fff], [0xac00, 0xd7a3], [0xe000, 0xf8ff], [0xfb00, 0xfb06], [0xfe00, 0xfe0f],
  [0xff01, 0xff5e], [0xfff9, 0xffff], [0x1d400, 0x1d7ff], [0x1f1e6, 0x1f1ff], [0x1f300, 0x1f6ff], [0x20000, 0x2a6df],
  [0xe0020, 0xe007f], [0xf0000, 0xffffd], [0x10fff0, 0x10ffff]
]

/** One character of a script or sign in use, of a private or special block, or of any plane at all. */
export const character: fc.Arbitrary<string> = fc.oneof(
  ...blocks.map(([min, max]) => fc.integer({ min, max })),
  fc.integer({ min: 0, max: 0xd7ff }),
  fc.integer({ min: 0xe000, max: 0x10ffff })
).map((codePoint) => String.fromCodePoint(codePoint))

/** Characters that are written with several code points. */
const cluster = fc.constantFrom(
  "e\u0301", "A\u030a", "a\u0308\u0323", "\u1100\u1161\u11a8", "\u0e1b\u0e35", "\u{1f44d}\u{1f3fd}",
  "\u{1f469}\u200d\u{1f680}", "\u{1f1f5}\u{1f1ea}", "1\ufe0f\u20e3"
)

/** Words, so that pieces of a vocabulary occur. */
const word = fc.constantFrom(
  "the", " the", " and", "ing", "Hello", "I'm", " naïve", "été", "你好", "さん", "Привет", "שלום", "for (let i = 0;"
)

/** What control, unknown and byte pieces are called, as plain text. */
const forgery = fc.constantFrom("<s>", "</s>", "<unk>", "<pad>", "<0x0A>", "<0x00>", "[INST]", "<|endoftext|>")

/** Half of a surrogate pair: no character, but a JavaScript string may hold it. */
const surrogate = fc.integer({ min: 0xd800, max: 0xdfff }).map((unit) => String.fromCharCode(unit))

/** Text of every kind in one string, surrogates without their other half among it. */
export const text: fc.Arbitrary<string> = fc.string({
  unit: fc.oneof(
    { weight: 4, arbitrary: word },
    { weight: 4, arbitrary: space },
    { weight: 4, arbitrary: character },
    { weight: 2, arbitrary: digit },
    { weight: 2, arbitrary: fc.string({ maxLength: 4 }) },
    { weight: 1, arbitrary: cluster },
    { weight: 1, arbitrary: forgery },
    { weight: 1, arbitrary: surrogate },
    { weight: 1, arbitrary: fc.tuple(fc.constantFrom(" ", "a", "\u{1f999}"), fc.integer({ min: 2, max: 40 }))
      .map(([unit, times]) => unit.repeat(times)) }
  ),
  maxLength: 60
})

/** Bytes: valid UTF-8 with other bytes put in and bytes left out. */
export const bytes: fc.Arbitrary<Uint8Array> = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: text.map((drawn) => [...new TextEncoder().encode(drawn)]) },
    { weight: 2, arbitrary: fc.array(fc.integer({ min: 0x80, max: 0xff }), { maxLength: 4 }) },
    { weight: 2, arbitrary: character.map((drawn) => [...new TextEncoder().encode(drawn)].slice(0, -1)) },
    { weight: 1, arbitrary: fc.array(fc.integer({ min: 0, max: 0xff }), { maxLength: 8 }) }
  ),
  { maxLength: 6 }
).map((parts) => Uint8Array.from(parts.flat()))

/** The text that a tokenizer of UTF-8 can see: each half of a surrogate pair that stands alone is U+FFFD. */
export const wellFormed = (drawn: string): string => drawn.replace(/\p{Surrogate}/gu, "\ufffd")
