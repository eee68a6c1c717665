import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as TokenizerJson from "../../src/token/TokenizerJson.ts"

/** A Python with transformers and tokenizers, which reads what is written here, and writes what is read here. */
const python = process.env["CRIA_PEER_PYTHON"]
const data = process.env["CRIA_TEST_DATA"]
const script = fileURLToPath(new URL("../parity/make/tokenizer_json.py", import.meta.url))
const committed = fileURLToPath(new URL("../parity/tokenizer/llama.model", import.meta.url))
const run = (...parameters: ReadonlyArray<string>) =>
  execFileSync(python!, [script, ...parameters], { maxBuffer: 2 ** 30 })

const Ids = Schema.Array(Schema.Int)
const decodeCase = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Union([
  Schema.Tuple([Schema.String, Ids]),
  Schema.Tuple([Schema.Array(Schema.String), Ids])
])))
const segmentOf = (text: string) => text === "<s>" ? Tokenizer.bos : text === "</s>" ? Tokenizer.eos : text

const agrees = (codec: Tokenizer.Codec, path: string, count: number): void => {
  const lines = run("cases", path, String(count), "5").toString("utf8").trimEnd().split("\n")
  assert.strictEqual(lines.length, count)
  for (const line of lines) {
    const [given, ids] = decodeCase(line)
    const found = typeof given === "string" ? codec.encode(given) : codec.encodeSegments(given.map(segmentOf))
    assert.deepStrictEqual([...found], [...ids], line)
  }
}

describe.skipIf(python === undefined)("TokenizerJson, in the library's hands (needs CRIA_PEER_PYTHON)", () => {
  const there = (path: string, count: number) => {
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "cria-"))
    const model = Result.getOrThrow(SentencePiece.parse(new Uint8Array(Fs.readFileSync(path))))
    for (const legacy of [true, false]) {
      const codec = Result.getOrThrow((legacy ? Tokenizer.fromModel : Tokenizer.fromModelNonLegacy)(model))
      const file = Path.join(folder, `${legacy}.json`)
      Fs.writeFileSync(file, Result.getOrThrow((legacy ? TokenizerJson.print : TokenizerJson.printNonLegacy)(model)))
      agrees(codec, file, count)
      run("convert", path, Path.join(folder, `${legacy}`), String(legacy))
      const written = Fs.readFileSync(Path.join(folder, `${legacy}`, "tokenizer.json"), "utf8")
      const again = Result.getOrThrow((legacy ? TokenizerJson.parse : TokenizerJson.parseNonLegacy)(written))
      const read = Result.getOrThrow((legacy ? Tokenizer.fromModel : Tokenizer.fromModelNonLegacy)(again))
      agrees(read, file, count)
    }
    Fs.rmSync(folder, { recursive: true })
  }
  it("the committed model, written here and written there, both kinds: 5 000 cases each", () => there(committed, 5000))
  it.skipIf(data === undefined)("Llama 2, both kinds, 5 000 cases each (needs CRIA_TEST_DATA)", () =>
    there(Path.join(data!, "tokenizer.model"), 5000))
})
