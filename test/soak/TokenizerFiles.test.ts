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

/** Damaged files of each of six formats; `CRIA_FORMAT_RUNS=2500` makes them 15 000 in all. */
const runs = Number(process.env["CRIA_FORMAT_RUNS"] ?? 200)

/**
 * Changes a file as accidents do, and worse: bytes flipped, stretches cut out, repeated or zeroed, the end lost, a
 * large number where a length may stand.
 */
const damage = fc.array(
  fc.record({
    kind: fc.constantFrom("flip", "cut", "repeat", "zero", "end", "length"),
    at: fc.nat(1 << 20),
    size: fc.nat(64),
    value: fc.nat(255)
  }),
  { minLength: 1, maxLength: 4 }
)
/** 2³¹ − 1 as a varint; as bytes of an int32 it is about as large. */
const largeNumber = [0xff, 0xff, 0xff, 0xff, 0x07]
type Damage = typeof damage extends fc.Arbitrary<infer A> ? A : never

const damaged = (file: Uint8Array, changes: Damage): Uint8Array =>
  changes.reduce((bytes: Uint8Array, { at, kind, size, value }) => {
    const from = at % (bytes.length + 1)
    const end = Math.min(bytes.length, from + size)
    if (kind === "flip") return Uint8Array.from(bytes, (byte, i) => i === from ? value : byte)
    if (kind === "zero") return Uint8Array.from(bytes, (byte, i) => i >= from && i < end ? 0 : byte)
    if (kind === "end") return bytes.slice(0, from)
    if (kind === "length") return Uint8Array.from(bytes, (byte, i) => largeNumber[i - from] ?? byte)
    const middle = kind === "repeat" ? bytes.slice(from, end) : []
    return Uint8Array.from([...bytes.slice(0, kind === "repeat" ? end : from), ...middle, ...bytes.slice(end)])
  }, file)

/** What this thread has taken so far and not given back: what is freed in between is missing, nothing is added. */
const taken = (): number => {
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return arrayBuffers + heapUsed
}
/** Room that reading takes whatever the file: code that is compiled, errors with their stacks. */
const ANY_FILE = 2e6
/** Room that compiling a vocabulary takes whatever its size: tables of all code units and of pairs of ASCII. */
const ANY_VOCABULARY = 4e6

/**
 * Damaged files are read or refused; what is read still encodes and decodes. Whatever lengths a file claims, reading it
 * takes at most `most` bytes for each that it has.
 */
const survives = <E extends { readonly message: string }>(
  file: Uint8Array,
  parse: (bytes: Uint8Array) => Result.Result<SentencePiece.Model, E>,
  most: number,
  codecOf: typeof Tokenizer.fromModel = Tokenizer.fromModel
): void => {
  let refused = 0
  fc.assert(fc.property(damage, (changes) => {
    const bytes = damaged(file, changes)
    const before = taken()
    const result = parse(bytes)
    const spent = taken() - before
    assert.isAtMost(spent, ANY_FILE + most * bytes.length, `bytes taken for a file of ${bytes.length}`)
    if (Result.isFailure(result)) {
      refused++
      assert.isAbove(result.failure.message.length, 20)
      return
    }
    const start = taken()
    const codec = codecOf(result.success)
    assert.isAtMost(taken() - start, ANY_VOCABULARY + most * bytes.length, "bytes taken for its tables")
    if (Result.isFailure(codec)) return assert.isAbove(codec.failure.message.length, 20)
    const ids = codec.success.encode("the llama  sleeps 🦙 12:30\n")
    assert.isAtLeast(codec.success.decode(ids).length, 0)
  }), { numRuns: runs })
  assert.isAbove(refused, runs / 20)
}

describe("Damaged tokenizer files", () => {
  it(".model", () => survives(read("llama"), SentencePiece.parse, 100))
  it(".model with compiled rules", () => survives(read("rules"), SentencePiece.parse, 100))
  it("tokenizer.bin", () => survives(Result.getOrThrow(TokenizerBin.print(llama)), TokenizerBin.parse, 100))
  it("tokenizer.json saved with legacy = false", () => {
    const text = Result.getOrThrow(TokenizerJson.printNonLegacy(llama))
    const decoder = new TextDecoder()
    survives(
      new TextEncoder().encode(text),
      (bytes) => TokenizerJson.parseNonLegacy(decoder.decode(bytes)),
      300,
      Tokenizer.fromModelNonLegacy
    )
  })
  it("tokenizer_config.json", () => {
    const text = TokenizerConfig.print({ ...TokenizerConfig.ofModel(llama, true), chatTemplate: "{{ bos_token }}" })
    const decoder = new TextDecoder()
    const parse = (bytes: Uint8Array) =>
      Result.flatMap(TokenizerConfig.parse(decoder.decode(bytes)), (config) => TokenizerConfig.named(llama, config))
    survives(new TextEncoder().encode(text), parse, 300)
  })
  it("tokenizer.json", () => {
    const text = Result.getOrThrow(TokenizerJson.print(llama))
    const decoder = new TextDecoder()
    survives(new TextEncoder().encode(text), (bytes) => TokenizerJson.parse(decoder.decode(bytes)), 300)
  })
})
