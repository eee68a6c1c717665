import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as Fs from "node:fs"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as TokenizerBin from "../../src/token/TokenizerBin.ts"
import * as TokenizerConfig from "../../src/token/TokenizerConfig.ts"
import * as TokenizerJson from "../../src/token/TokenizerJson.ts"

const read = (name: string) =>
  new Uint8Array(Fs.readFileSync(new URL(`../parity/tokenizer/${name}.model`, import.meta.url)))
const llama = Result.getOrThrow(SentencePiece.parse(read("llama")))

/** Changes a file as accidents do: bytes flipped, stretches cut out, repeated or zeroed, the end lost. */
const damage = fc.array(
  fc.record({
    kind: fc.constantFrom("flip", "cut", "repeat", "zero", "end"),
    at: fc.nat(1 << 20),
    size: fc.nat(64),
    value: fc.nat(255)
  }),
  { minLength: 1, maxLength: 4 }
)
type Damage = typeof damage extends fc.Arbitrary<infer A> ? A : never

const damaged = (file: Uint8Array, changes: Damage): Uint8Array =>
  changes.reduce((bytes: Uint8Array, { at, kind, size, value }) => {
    const from = at % (bytes.length + 1)
    const end = Math.min(bytes.length, from + size)
    if (kind === "flip") return Uint8Array.from(bytes, (byte, i) => i === from ? value : byte)
    if (kind === "zero") return Uint8Array.from(bytes, (byte, i) => i >= from && i < end ? 0 : byte)
    if (kind === "end") return bytes.slice(0, from)
    const middle = kind === "repeat" ? bytes.slice(from, end) : []
    return Uint8Array.from([...bytes.slice(0, kind === "repeat" ? end : from), ...middle, ...bytes.slice(end)])
  }, file)

/** 2 500 damaged files of each kind, 15 000 in all, are read or refused; what is read still encodes and decodes. */
const survives = <E extends { readonly message: string }>(
  file: Uint8Array,
  parse: (bytes: Uint8Array) => Result.Result<SentencePiece.Model, E>,
  codecOf: typeof Tokenizer.fromModel = Tokenizer.fromModel
): void => {
  let refused = 0
  fc.assert(fc.property(damage, (changes) => {
    const result = parse(damaged(file, changes))
    if (Result.isFailure(result)) {
      refused++
      assert.isAbove(result.failure.message.length, 20)
      return
    }
    const codec = codecOf(result.success)
    if (Result.isFailure(codec)) return assert.isAbove(codec.failure.message.length, 20)
    const ids = codec.success.encode("the llama  sleeps 🦙 12:30\n")
    assert.isAtLeast(codec.success.decode(ids).length, 0)
  }), { numRuns: 2500 })
  assert.isAbove(refused, 250)
}

describe("Damaged tokenizer files", () => {
  it(".model", () => survives(read("llama"), SentencePiece.parse))
  it(".model with compiled rules", () => survives(read("rules"), SentencePiece.parse))
  it("tokenizer.bin", () => survives(Result.getOrThrow(TokenizerBin.print(llama)), TokenizerBin.parse))
  it("tokenizer.json saved with legacy = false", () => {
    const text = Result.getOrThrow(TokenizerJson.printNonLegacy(llama))
    const decoder = new TextDecoder()
    survives(
      new TextEncoder().encode(text),
      (bytes) => TokenizerJson.parseNonLegacy(decoder.decode(bytes)),
      Tokenizer.fromModelNonLegacy
    )
  })
  it("tokenizer_config.json", () => {
    const text = TokenizerConfig.print({ ...TokenizerConfig.ofModel(llama, true), chatTemplate: "{{ bos_token }}" })
    const decoder = new TextDecoder()
    survives(new TextEncoder().encode(text), (bytes) =>
      Result.flatMap(TokenizerConfig.parse(decoder.decode(bytes)), (config) => TokenizerConfig.named(llama, config)))
  })
  it("tokenizer.json", () => {
    const text = Result.getOrThrow(TokenizerJson.print(llama))
    const decoder = new TextDecoder()
    survives(new TextEncoder().encode(text), (bytes) => TokenizerJson.parse(decoder.decode(bytes)))
  })
})
