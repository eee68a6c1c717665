import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as TokenizerConfig from "../../src/token/TokenizerConfig.ts"
import { codecOf, modelOf } from "./vocabularies.ts"

const parsed = (document: unknown) => Result.getOrThrow(TokenizerConfig.parse(JSON.stringify(document)))
const problem = (text: string) => Result.getOrThrow(Result.flip(TokenizerConfig.parse(text))).message

const config: fc.Arbitrary<TokenizerConfig.TokenizerConfig> = fc.record({
  addBos: fc.boolean(),
  addEos: fc.boolean(),
  legacy: fc.option(fc.boolean(), { nil: undefined }),
  unkToken: fc.option(fc.string(), { nil: undefined }),
  bosToken: fc.option(fc.string(), { nil: undefined }),
  eosToken: fc.option(fc.string(), { nil: undefined }),
  padToken: fc.option(fc.string(), { nil: undefined }),
  modelMaxLength: fc.option(fc.integer({ min: 1 }), { nil: undefined }),
  chatTemplate: fc.option(fc.string(), { nil: undefined }),
  others: fc.dictionary(fc.constantFrom("tokenizer_class", "x", "sp_model_kwargs"), fc.jsonValue())
    .map((fields) => JSON.parse(JSON.stringify(fields)))
})

const model = modelOf([{ text: "<pad>", score: 0, type: "control" }, { text: "a", score: 0, type: "normal" }], true)

describe("TokenizerConfig", () => {
  it("there and back, with fields that Cria does not know", () => {
    fc.assert(fc.property(config, (config) => {
      assert.deepStrictEqual(Result.getOrThrow(TokenizerConfig.parse(TokenizerConfig.print(config))), config)
    }))
  })

  it("reads what Llama 2's file says: tokens with flags, no limit of length", () => {
    const token = (content: string) =>
      ({ __type: "AddedToken", content, lstrip: false, normalized: false, rstrip: false, single_word: false })
    const text = JSON.stringify({
      add_bos_token: true, add_eos_token: false, bos_token: token("<s>"), eos_token: token("</s>"),
      unk_token: token("<unk>"), pad_token: null, legacy: false, padding_side: "right",
      model_max_length: 1e30, sp_model_kwargs: {}, tokenizer_class: "LlamaTokenizer", chat_template: "{{ messages }}"
    }).replace("1e+30", "1000000000000000019884624838656")
    assert.deepStrictEqual(Result.getOrThrow(TokenizerConfig.parse(text)), {
      addBos: true, addEos: false, bosToken: "<s>", eosToken: "</s>", unkToken: "<unk>", padToken: undefined,
      legacy: false, modelMaxLength: undefined, chatTemplate: "{{ messages }}",
      others: { padding_side: "right", sp_model_kwargs: {}, tokenizer_class: "LlamaTokenizer" }
    })
  })

  it("of a model: its special tokens, framed as Llama's", () => {
    const made = TokenizerConfig.ofModel(model, true)
    assert.deepStrictEqual(
      [made.bosToken, made.eosToken, made.padToken, made.unkToken, made.addBos, made.addEos, made.legacy],
      ["<s>", "</s>", "<pad>", "<unk>", true, false, true]
    )
    assert.deepStrictEqual(Result.getOrThrow(TokenizerConfig.named(model, made)).trainer.padId, 259)
  })

  it("names the special tokens of a model", () => {
    const swapped = parsed({ bos_token: "</s>", eos_token: "<s>", pad_token: "<pad>", unk_token: "<unk>" })
    const named = Result.getOrThrow(TokenizerConfig.named(model, swapped))
    const { bosId, eosId, padId } = codecOf(named)
    assert.deepStrictEqual([bosId, eosId, padId], [2, 1, 259])
    const reread = Result.getOrThrow(Tokenizer.fromModel(named))
    assert.deepStrictEqual([reread.bosId, reread.eosId], [2, 1])
    const unkPadded = Result.getOrThrow(TokenizerConfig.named(modelOf([], true), parsed({ pad_token: "<unk>" })))
    assert.isUndefined(codecOf(unkPadded).padId)
  })

  it("says what it cannot use, and where", () => {
    assert.include(problem("["), "tokenizer_config.json, at $: not JSON: ")
    assert.include(problem("[]"), "tokenizer_config.json, at $: Expected object\n")
    assert.include(problem(`{ "add_bos_token": "yes" }`), "at $.add_bos_token: Expected boolean | null\n")
    assert.include(problem(`{ "model_max_length": -1 }`), "at $.model_max_length: Expected a value greater than 0\n")
    assert.strictEqual(
      problem(`{ "chat_template": [{ "name": "default", "template": "" }] }`),
      "tokenizer_config.json, at $.chat_template: 1 named templates, where one is a text; " +
        "keep the one to use as a string\n  " +
        "Cria reads the file that stands beside a Llama tokenizer.json; take both from one checkpoint"
    )
    const refusal = (document: unknown) =>
      Result.getOrThrow(Result.flip(TokenizerConfig.named(model, parsed(document)))).message
    assert.include(refusal({ eos_token: "<eot>" }), "at $.eos_token: \"<eot>\" is not in the vocabulary")
    assert.include(refusal({ bos_token: "a" }), "at $.bos_token: \"a\" is piece 260, of type normal, not control")
    assert.include(refusal({ unk_token: "<s>" }), "at $.unk_token: \"<s>\" is piece 1, of type control, not unknown")
  })
})
