import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Fs from "node:fs"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as TokenizerConfig from "../../src/token/TokenizerConfig.ts"
import * as TokenizerJson from "../../src/token/TokenizerJson.ts"

/** What Hugging Face's tokenizers library answered; `make/tokenizer_json.py` made it, and says how. */
const folder = new URL("./tokenizer/", import.meta.url)
const read = (path: string): string => Fs.readFileSync(new URL(path, folder), "utf8")
const Ids = Schema.Array(Schema.Int)
const Cases = Schema.Array(Schema.Union([
  Schema.Tuple([Schema.String, Ids]),
  Schema.Tuple([Schema.Array(Schema.String), Ids])
]))
const Fixture = Schema.fromJsonString(Schema.Struct({
  tokenizers: Schema.String,
  transformers: Schema.String,
  cases: Schema.Struct({ "legacy": Cases, "non-legacy": Cases })
}))
const fixture = Schema.decodeUnknownSync(Fixture)(read("tokenizer-json.json"))
const model = Result.getOrThrow(SentencePiece.parse(new Uint8Array(Fs.readFileSync(new URL("llama.model", folder)))))

const segmentOf = (text: string) => text === "<s>" ? Tokenizer.bos : text === "</s>" ? Tokenizer.eos : text
/** Merges as pairs, however they are written; the field that newer versions of the library add; nothing else. */
const canonical = (text: string) => {
  const document = JSON.parse(text)
  document.model.merges = document.model.merges.map((merge: string | Array<string>) =>
    typeof merge === "string" ? merge.split(" ") : merge)
  delete document.model.ignore_merges
  return document
}

const kinds = {
  "legacy": { parse: TokenizerJson.parse, print: TokenizerJson.print, codec: Tokenizer.fromModel },
  "non-legacy": {
    parse: TokenizerJson.parseNonLegacy, print: TokenizerJson.printNonLegacy, codec: Tokenizer.fromModelNonLegacy
  }
} as const

describe.each(["legacy", "non-legacy"] as const)(
  `TokenizerJson, %s, against tokenizers ${fixture.tokenizers} and transformers ${fixture.transformers}`,
  (kind) => {
    const { codec, parse, print } = kinds[kind]
    const text = read(`${kind}/tokenizer.json`)
    const cases = fixture.cases[kind]

    it.each([
      ["the file that transformers wrote", () => Result.getOrThrow(parse(text))],
      ["the tokenizer.model that it was made of", () => model]
    ])(`${cases.length} texts with specials between them get the library's ids, by %s`, (_, from) => {
      const { encode, encodeSegments } = Result.getOrThrow(codec(from()))
      for (const [given, ids] of cases) {
        const found = typeof given === "string" ? encode(given) : encodeSegments(given.map(segmentOf))
        assert.deepStrictEqual([...found], [...ids], JSON.stringify(given))
      }
    })

    it("what is written is what transformers writes", () => {
      assert.deepStrictEqual(canonical(Result.getOrThrow(print(model))), canonical(text))
    })

    it("the configuration that transformers wrote names the same special tokens", () => {
      const config = Result.getOrThrow(TokenizerConfig.parse(read(`${kind}/tokenizer_config.json`)))
      assert.strictEqual(config.legacy, kind === "legacy")
      assert.strictEqual(config.modelMaxLength, 4096)
      assert.include(config.chatTemplate, "{{ bos_token + '[INST] '")
      assert.deepStrictEqual(config.others, { backend: "tokenizers", tokenizer_class: "TokenizersBackend" })
      const named = Result.getOrThrow(TokenizerConfig.named(Result.getOrThrow(parse(text)), config))
      const { bosId, eosId, padId } = Result.getOrThrow(codec(named))
      assert.deepStrictEqual([bosId, eosId, padId], [1, 2, undefined])
    })
  }
)

describe("TokenizerJson, the two kinds", () => {
  it("are different functions", () => {
    const [legacy, other] = [Tokenizer.fromModel, Tokenizer.fromModelNonLegacy].map((make) =>
      Result.getOrThrow(make(model)))
    const [bos, eos] = [Tokenizer.bos, Tokenizer.eos]
    const differ = (segments: ReadonlyArray<string | Tokenizer.Special>) =>
      [...legacy!.encodeSegments(segments)].join() !== [...other!.encodeSegments(segments)].join()
    assert.isFalse(differ(["the llama"]))
    assert.isFalse(differ(["", "the llama", eos]))
    assert.isTrue(differ([" the llama"]))
    assert.isTrue(differ(["\u2581the llama"]))
    assert.isTrue(differ([bos, "the llama"]))
    assert.isTrue(differ(["the", eos, "llama"]))
  })
})
