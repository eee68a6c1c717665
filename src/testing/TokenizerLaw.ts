/**
 * The laws of tokenizers, for any `Tokenizer` layer that loses nothing.
 *
 *     decode(encode(t)) = t̂          Σ byteLength(encode(t)) = |p| + |t̂|          encode(t) ∩ specials = ∅
 *     push(i₁) ‥ push(iₙ) end() = decode(i₁ ‥ iₙ)          decode(encode(a) encode(b)) = â p b̂
 *
 * t any text · t̂ the text as the tokenizer reads it · p what it puts in front of a text · i ids · |·| bytes of UTF-8
 *
 * From     Cria's own; Llama 2 §2.2 for single digits and bytes; the specification of SentencePiece for the rest.
 * Checked  test/law/TokenizerLaw.test.ts (each law fails for a tokenizer that breaks it), test/token/Tokenizer.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as fc from "fast-check"
import type * as SentencePiece from "../token/SentencePiece.ts"
import { bos, type Codec, eos, Tokenizer } from "../token/Tokenizer.ts"
import * as Trainer from "../token/Trainer.ts"
import { LawError } from "./LawError.ts"
import * as TextArbitrary from "./TextArbitrary.ts"

/** What a tokenizer does to a text by its own rules, before any piece is looked up. */
export interface Reading {
  /** What it puts in front of a text that is not empty: one space in SentencePiece's models, or nothing. */
  readonly prefix: "" | " "
  /** Well-formed text as it comes back from its ids. */
  readonly read: (text: string) => string
}

/** Models in SentencePiece's manner, Llama's among them: a space in front, U+2581 reads as a space. */
export const sentencePiece: Reading = { prefix: " ", read: (text) => text.replaceAll("\u2581", " ") }

/** Tokenizers that change nothing, as that of bytes. */
export const plain: Reading = { prefix: "", read: (text) => text }

/** A law of one tokenizer. */
export interface Law {
  /** The law as a sentence. */
  readonly name: string
  /** Tries it on drawn texts; throws a {@link LawError} with the smallest counterexample where it does not hold. */
  readonly check: (codec: Codec, parameters?: { readonly numRuns?: number; readonly seed?: number }) => void
}

const equal = (expected: unknown, found: unknown): void => {
  const [a, b] = [JSON.stringify(expected), JSON.stringify(found)]
  if (a !== b) throw new Error(`expected ${a}, found ${b}`)
}

const law = <A>(name: string, drawn: fc.Arbitrary<A>, holds: (codec: Codec, drawn: A) => void): Law => ({
  name,
  check: (codec, parameters = {}) => {
    const { counterexample, errorInstance, failed, seed } = fc.check(
      fc.property(drawn, (one) => holds(codec, one)), parameters
    )
    if (!failed) return
    const detail = errorInstance instanceof Error ? errorInstance.message : String(errorInstance)
    throw new LawError({ law: name, detail: `for ${fc.stringify(counterexample?.[0])}, ${detail} (seed ${seed})` })
  }
})

const bytesOf = (text: string): number => new TextEncoder().encode(text).length

/** Any ids, as shares of the vocabulary, and after them those of a text. */
interface AnyIds {
  readonly shares: ReadonlyArray<number>
  readonly text: string
}

const anyIds: fc.Arbitrary<AnyIds> = fc.record({
  shares: fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { maxLength: 40 }),
  text: TextArbitrary.text
})

const idsOf = ({ shares, text }: AnyIds, codec: Codec): ReadonlyArray<number> =>
  [...shares.map((share) => Math.floor(share * codec.vocabSize)), ...codec.encode(text)]

/** The laws of a tokenizer that reads text as `reading` says. */
export const laws = ({ prefix, read }: Reading): ReadonlyArray<Law> => {
  const seen = (text: string): string => read(TextArbitrary.wellFormed(text))
  return [
    law("decoding undoes encoding", TextArbitrary.text, ({ decode, encode }, text) =>
      equal(seen(text), decode(encode(text)))),
    law("encoding what was decoded gives the same ids", TextArbitrary.text, ({ decode, encode }, text) => {
      const ids = encode(text)
      equal([...ids], [...encode(decode(ids))])
    }),
    law("ids are whole numbers below the size of the vocabulary", TextArbitrary.text, ({ encode, vocabSize }, text) =>
      equal([], [...encode(text)].filter((id) => id >= vocabSize || id < 0))),
    law("the bytes of the ids are the bytes of the text", TextArbitrary.text, ({ byteLength, encode }, text) =>
      equal(
        text === "" ? 0 : prefix.length + bytesOf(seen(text)),
        encode(text).reduce((sum, id) => sum + byteLength(id), 0)
      )),
    law("no text becomes a special id", TextArbitrary.text, ({ bosId, encode, eosId, padId, unkId }, text) =>
      equal([], [...encode(text)].filter((id) => [bosId, eosId, padId, unkId].includes(id)))),
    law("ASCII digits are single", fc.stringMatching(/^[0-9]{1,20}$/), ({ decode, encode }, digits) => {
      const ids = encode(digits)
      if (ids.length > digits.length + prefix.length) throw new Error(`there are ${ids.length} ids`)
      equal([...digits], Array.from(ids.slice(ids.length - digits.length), (id) => decode([id]).trim()))
    }),
    law("the bytes of a text encode as the text", TextArbitrary.text, ({ encode, encodeBytes }, text) =>
      equal([...encode(text)], [...encodeBytes(new TextEncoder().encode(text))])),
    law("bytes that are no text read as some text, once and for all", TextArbitrary.bytes, (codec, bytes) => {
      const ids = codec.encodeBytes(bytes)
      equal([...ids], [...codec.encode(codec.decode(ids))])
    }),
    law("decoding id by id gives the same text", anyIds, (codec, drawn) => {
      const ids = idsOf(drawn, codec)
      const { end, push } = codec.streamDecoder()
      equal(codec.decode(ids), [...ids.map(push), end()].join(""))
    }),
    law("what a stream gave is never taken back, and never half a character", anyIds, (codec, drawn) => {
      const ids = idsOf(drawn, codec)
      const given = ids.map(codec.streamDecoder().push)
      for (const part of given) equal(TextArbitrary.wellFormed(part), part)
      equal(codec.decode(ids).slice(0, given.join("").length), given.join(""))
    }),
    law("texts put together by their ids are put together", fc.tuple(TextArbitrary.text, TextArbitrary.text),
      ({ decode, encode }, [a, b]) => equal(
        a === "" || b === "" ? seen(a) + seen(b) : seen(a) + prefix + seen(b),
        decode([...encode(a), ...encode(b)])
      )),
    law("segments are encoded each by itself", fc.tuple(TextArbitrary.text, TextArbitrary.text),
      ({ bosId, encode, encodeSegments, eosId }, [a, b]) => equal(
        [bosId, ...encode(a), ...encode(b), eosId], [...encodeSegments([bos, a, b, eos])]
      )),
    law("special ids are silent", fc.tuple(TextArbitrary.text, TextArbitrary.text),
      ({ decode, encode, encodeSegments }, [a, b]) => equal(
        decode([...encode(a), ...encode(b)]), decode(encodeSegments([a, eos, bos, b]))
      ))
  ]
}

/** Every law tried on the tokenizer that is provided; fails with the first that does not hold. */
export const holds = (
  reading: Reading, parameters: { readonly numRuns?: number; readonly seed?: number } = {}
): Effect.Effect<void, LawError, Tokenizer> =>
  Effect.flatMap(Tokenizer, (codec) =>
    Effect.forEach(laws(reading), ({ check, name }) => Effect.try({
      try: () => check(codec, parameters),
      catch: (error) => error instanceof LawError ? error : new LawError({ law: name, detail: String(error) })
    }), { discard: true }))

/**
 * Training is a function of the text alone: the same texts give the same model, byte for byte, and so do the same texts
 * in another order. `train` is the trainer, Cria's own by default.
 */
export const trainingIsDetermined = (
  texts: ReadonlyArray<string>,
  train: (texts: ReadonlyArray<string>) => Result.Result<SentencePiece.Model, unknown> = (given) =>
    Result.map(Trainer.trainSync(given, Trainer.llama(300)), ({ model }) => model)
): void => {
  const bytes = (given: ReadonlyArray<string>): string =>
    Result.match(train(given), { onSuccess: (model) => [...model.bytes].join(), onFailure: String })
  const once = bytes(texts)
  for (const [how, again] of [["again", texts], ["in reverse order", texts.toReversed()]] as const) {
    if (bytes(again) === once) continue
    throw new LawError({ law: "training is determined by its texts", detail: `the same texts ${how} train otherwise` })
  }
}
