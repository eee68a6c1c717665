import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { createHash } from "node:crypto"
import * as Fs from "node:fs"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as Trainer from "../../src/token/Trainer.ts"

/** What the SentencePiece library answered; `make/tokenizer.py` made it, and says how. */
const folder = new URL("./tokenizer/", import.meta.url)
const Case = Schema.Union([
  Schema.Tuple([Schema.Literal("e"), Schema.String, Schema.Array(Schema.Int)]),
  Schema.Tuple([Schema.Literal("d"), Schema.Array(Schema.Int), Schema.String])
])
const Fixture = Schema.fromJsonString(Schema.Struct({
  sentencepiece: Schema.String,
  models: Schema.Record(Schema.String, Schema.Array(Case)),
  corpora: Schema.Struct({ mixed: Schema.String, letters: Schema.String }),
  training: Schema.Array(Schema.Struct({
    corpus: Schema.String,
    options: Schema.String,
    vocabSize: Schema.Int,
    sha256: Schema.String
  }))
}))
const fixture = Schema.decodeUnknownSync(Fixture)(Fs.readFileSync(new URL("cases.json", folder), "utf8"))

const options: Record<string, Partial<Trainer.Options>> = {
  "llama": {},
  "digits and no bytes": { splitDigits: false, byteFallback: false },
  "across scripts": { splitByUnicodeScript: false, allowWhitespaceOnlyPieces: false },
  "short, rare characters left out": { maxPieceLength: 4, characterCoverage: 0.98 },
  "symbols": {
    userDefinedSymbols: ["llama", "the llama", "\u2581under", "a+b*"],
    controlSymbols: ["<ctl>"],
    requiredCharacters: "1b",
    characterCoverage: 0.98
  }
}
const corpora: Record<string, string> = {
  ...fixture.corpora,
  english: fixture.corpora.mixed.split("\n").filter((line) => /^[\0-\x7f]*$/.test(line)).join("\n")
}

describe(`Tokenizer, against SentencePiece ${fixture.sentencepiece}`, () => {
  for (const [name, cases] of Object.entries(fixture.models)) {
    const bytes = new Uint8Array(Fs.readFileSync(new URL(`${name}.model`, folder)))
    const model = Result.getOrThrow(SentencePiece.parse(bytes))
    const codec = Result.getOrThrow(Tokenizer.fromModel(model))

    it(`${name}: ${cases.length} cases, both ways`, () => {
      for (const given of cases) {
        if (given[0] === "e") {
          const input = new Uint8Array(Buffer.from(given[1], "base64"))
          assert.deepStrictEqual([...codec.encodeBytes(input)], given[2], `encode ${JSON.stringify(given)}`)
        } else {
          assert.strictEqual(codec.decode(given[1]), given[2], `decode ${given[1].join(" ")}`)
          const decoder = codec.streamDecoder()
          assert.strictEqual(
            given[1].map(decoder.push).join("") + decoder.end(),
            given[2],
            `stream ${given[1].join(" ")}`
          )
        }
      }
    })

    it(`${name}: the file is rebuilt byte for byte`, () => {
      assert.deepStrictEqual(Result.getOrThrow(SentencePiece.withPieces(model, model.pieces)).bytes, bytes)
    })
  }

  it.each(fixture.training)("the same $vocabSize pieces from $corpus, $options", (training) => {
    const { model } = Result.getOrThrow(Trainer.trainSync([corpora[training.corpus]!], {
      ...Trainer.llama(training.vocabSize),
      ...options[training.options]
    }))
    const pieces = model.pieces.map((piece) => piece.text).join("\n")
    assert.strictEqual(createHash("sha256").update(pieces).digest("hex"), training.sha256)
  })
})
