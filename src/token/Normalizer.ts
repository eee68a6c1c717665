/**
 * Text as the pieces see it: SentencePiece's normalization.
 *
 *     identity (Llama):  "" → "",  otherwise  x → ␣ x        where ␣ is a space, written U+2581 in the pieces
 *
 * From     google/sentencepiece, `src/normalizer.cc`; the compiled rules are a Darts-clone double array (Yata,
 *          `darts-clone`). Hugging Face's `Metaspace` with the scheme "first".
 * Checked  test/token/Normalizer.test.ts (all flags), test/parity/Tokenizer.test.ts (a model with NFKC rules
 *          against the library).
 * Departs  offsets into the original text are not kept.
 *
 * @module
 */
import * as Result from "effect/Result"
import * as PieceTable from "./PieceTable.ts"
import type { NormalizerSpecification } from "./SentencePiece.ts"
import * as Utf8 from "./Utf8.ts"

/** From text, or from bytes that may not be valid UTF-8, to the text that `BytePair` encodes. */
export interface Normalize {
  readonly text: (text: string) => string
  readonly bytes: (bytes: Uint8Array) => string
}

/** The normalizer of a model, or what is wrong with its compiled rules; user-defined pieces are left as they are. */
export const make = (
  specification: NormalizerSpecification,
  treatWhitespaceAsSuffix: boolean,
  table: PieceTable.PieceTable
): Result.Result<Normalize, string> => {
  const { addDummyPrefix, charsmap, removeExtraWhitespaces } = specification
  if (charsmap.length === 0 && !removeExtraWhitespaces && !treatWhitespaceAsSuffix) {
    const text = (text: string) => text === "" || !addDummyPrefix ? text : " " + text
    return Result.succeed({ text, bytes: (bytes) => text(Utf8.lenientText(bytes)) })
  }
  return Result.map(rules(charsmap), (rule) => {
    const userDefined = PieceTable.idsOfType(table, "user-defined")
      .map((id) => encoder.encode(PieceTable.text(table, id)))
      .sort((a, b) => b.length - a.length)
    const bytes = (input: Uint8Array) => normalized(input, specification, treatWhitespaceAsSuffix, userDefined, rule)
    return { text: (text) => bytes(encoder.encode(text)), bytes }
  })
}

/**
 * The rule of Hugging Face's `legacy = false` for the beginning of a sequence: a space in front of text that begins
 * with none (U+2581 is one).
 */
export const nonLegacyFirst: Normalize = {
  text: (text) => text === "" || text.startsWith(" ") || text.startsWith("\u2581") ? text : " " + text,
  bytes: (bytes) => nonLegacyFirst.text(Utf8.lenientText(bytes))
}

/** The rule of Hugging Face's `legacy = false` for text after anything else: none. */
export const nonLegacyLater: Normalize = { text: (text) => text, bytes: Utf8.lenientText }

const encoder = new TextEncoder()
const spaceByte = 0x20
const replacementCharacter = Uint8Array.of(0xef, 0xbf, 0xbd)

/** The longest rule that matches at `at`: how many bytes it takes, and what it puts there. */
type Rule = (bytes: Uint8Array, at: number) => { readonly length: number; readonly replacement: Uint8Array } | undefined

const normalized = (
  input: Uint8Array,
  { addDummyPrefix, escapeWhitespaces, removeExtraWhitespaces }: NormalizerSpecification,
  treatWhitespaceAsSuffix: boolean,
  userDefined: ReadonlyArray<Uint8Array>,
  rule: Rule
): string => {
  const next = (at: number): { readonly length: number; readonly replacement: Uint8Array } => {
    const symbol = userDefined.find((candidate) => candidate.every((byte, i) => input[at + i] === byte))
    if (symbol !== undefined) return { length: symbol.length, replacement: symbol }
    const match = rule(input, at)
    if (match !== undefined) return match
    const length = Utf8.characterLength(input, at, input.length)
    return length === 0 ? { length: 1, replacement: replacementCharacter } : {
      length,
      replacement: input.subarray(at, at + length)
    }
  }
  let at = 0
  if (removeExtraWhitespaces) {
    while (at < input.length) {
      const { length, replacement } = next(at)
      if (replacement.length !== 1 || replacement[0] !== spaceByte) break
      at += length
    }
  }
  if (at === input.length) return ""
  const output: Array<number> = []
  if (addDummyPrefix && !treatWhitespaceAsSuffix) output.push(spaceByte)
  let afterSpace = removeExtraWhitespaces
  while (at < input.length) {
    const { length, replacement } = next(at)
    let from = 0
    if (afterSpace) while (replacement[from] === spaceByte) from++
    for (let i = from; i < replacement.length; i++) output.push(replacement[i]!)
    if (from < replacement.length) afterSpace = removeExtraWhitespaces && replacement.at(-1) === spaceByte
    at += length
  }
  let text = Utf8.validText(Uint8Array.from(output))
  // Spaces were only written, never escaped, so far; text may hold U+2581 of its own, which counts as a space once
  // escaped.
  if (escapeWhitespaces) text = text.replaceAll(" ", "\u2581")
  const space = escapeWhitespaces ? "\u2581" : " "
  if (removeExtraWhitespaces) while (text.endsWith(space)) text = text.slice(0, -1)
  return addDummyPrefix && treatWhitespaceAsSuffix ? text + space : text
}

/**
 * Reads the compiled rules: a little-endian trie length, the trie's 32-bit units, then replacements that end with a
 * zero byte.
 */
const rules = (charsmap: Uint8Array): Result.Result<Rule, string> => {
  if (charsmap.length === 0) return Result.succeed(() => undefined)
  const view = new DataView(charsmap.buffer, charsmap.byteOffset, charsmap.length)
  const trieBytes = charsmap.length > 4 ? view.getUint32(0, true) : -1
  if (trieBytes < 4 || trieBytes % 4 !== 0 || trieBytes + 4 > charsmap.length) {
    return Result.fail(`precompiled_charsmap of ${charsmap.length} bytes claims a trie of ${trieBytes} bytes`)
  }
  const units = Uint32Array.from({ length: trieBytes / 4 }, (_, i) => view.getUint32(4 + 4 * i, true))
  const replacements = charsmap.subarray(4 + trieBytes)
  const offset = (unit: number) => (unit >>> 10) << ((unit & 0x200) >>> 6)
  return Result.succeed((bytes, at) => {
    let length = 0
    let value = 0
    let node = offset(units[0]!)
    for (let i = at; i < bytes.length; i++) {
      node ^= bytes[i]!
      const unit = units[node]
      if (unit === undefined || (unit & 0x800000ff) !== bytes[i]) break
      node ^= offset(unit)
      if ((unit & 0x100) !== 0) {
        length = i + 1 - at
        value = (units[node] ?? 0) & 0x7fffffff
      }
    }
    if (length === 0) return undefined
    const end = replacements.indexOf(0, value)
    return { length, replacement: replacements.subarray(value, end < 0 ? replacements.length : end) }
  })
}
