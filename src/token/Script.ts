/**
 * The writing system of a character, as far as a tokenizer cares: no piece mixes two of them.
 *
 * From     Unicode Standard Annex 24 (the Script property). google/sentencepiece, `src/trainer_interface.cc`, counts
 *          Hiragana, Katakana and U+30FC as Han, and a combining mark (Inherited) as whatever precedes it.
 * Checked  test/token/Script.test.ts (what is grouped, and what counts as Common);
 *          test/parity/Tokenizer.test.ts (training on text of many scripts).
 * Departs  the table is the JavaScript engine's, of a newer Unicode than SentencePiece's own. Of the 128 237 characters
 *          in that one, four have moved since (U+0589, U+061C, U+0953, U+0954); characters that it lacks count there as
 *          Common.
 *
 * @module
 */

/** A script as a small number. */
export type Script = number

/** No script of its own: combining marks go with whatever precedes them. */
export const anyScript: Script = 0

/** Digits, punctuation, symbols, and whatever belongs to no script. */
export const commonScript: Script = 1

/** Han, Hiragana and Katakana together. */
export const hanScript: Script = 2

/** The scripts of Unicode 9, common ones first; text in one added since counts as Common, as in SentencePiece. */
const names = `
  Latin Cyrillic Greek Arabic Hebrew Devanagari Thai Hangul Bengali Tamil Armenian Georgian Adlam Ahom
  Anatolian_Hieroglyphs Avestan Balinese Bamum Bassa_Vah Batak Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid
  Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Coptic Cuneiform Cypriot Deseret Duployan
  Egyptian_Hieroglyphs Elbasan Ethiopic Glagolitic Gothic Grantha Gujarati Gurmukhi Hanunoo Hatran Imperial_Aramaic
  Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada Kayah_Li Kharoshthi Khmer Khojki Khudawadi
  Lao Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Malayalam Mandaic Manichaean Marchen Meetei_Mayek
  Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani Myanmar Nabataean New_Tai_Lue
  Newa Nko Ogham Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_South_Arabian
  Old_Turkic Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang
  Runic Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sora_Sompeng Sundanese Syloti_Nagri Syriac
  Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tangut Telugu Thaana Tibetan Tifinagh Tirhuta Ugaritic Vai
  Warang_Citi Yi
`.trim().split(/\s+/)

const tests: ReadonlyArray<readonly [RegExp, Script]> = [
  [/\p{Script=Common}/u, commonScript],
  [/\p{Script=Inherited}/u, anyScript],
  [/\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}/u, hanScript],
  ...names.map((name, i): readonly [RegExp, Script] => [new RegExp(`\\p{Script=${name}}`, "u"), hanScript + 1 + i])
]

const untried = 255
const known = new Uint8Array(0x10000).fill(untried)
const knownAstral = new Map<number, Script>()

/** The script of a code point; asked of the engine's table once, then remembered. */
export const scriptOf = (codePoint: number): Script => {
  if (codePoint > 0xffff) {
    const script = knownAstral.get(codePoint) ?? findScript(codePoint)
    knownAstral.set(codePoint, script)
    return script
  }
  if (known[codePoint] === untried) known[codePoint] = findScript(codePoint)
  return known[codePoint]!
}

const findScript = (codePoint: number): Script => {
  if (codePoint === 0x30fc) return hanScript
  const character = String.fromCodePoint(codePoint)
  return tests.find(([test]) => test.test(character))?.[1] ?? commonScript
}

/** Whether SentencePiece's option to split digits means this character: ASCII and full-width digits, no others. */
export const isDigit = (codePoint: number): boolean =>
  (codePoint >= 0x30 && codePoint <= 0x39) || (codePoint >= 0xff10 && codePoint <= 0xff19)
