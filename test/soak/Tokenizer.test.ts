import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import * as Key from "../../src/random/Key.ts"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as Trainer from "../../src/token/Trainer.ts"

/** A Python with the SentencePiece library, which answers fresh cases by the thousand. */
const python = process.env["CRIA_PEER_PYTHON"]
const data = process.env["CRIA_TEST_DATA"]
const script = fileURLToPath(new URL("../parity/make/tokenizer.py", import.meta.url))
const fixture = (name: string) => fileURLToPath(new URL(`../parity/tokenizer/${name}.model`, import.meta.url))

const Case = Schema.fromJsonString(Schema.Union([
  Schema.Tuple([Schema.Literal("e"), Schema.String, Schema.Array(Schema.Int)]),
  Schema.Tuple([Schema.Literal("d"), Schema.Array(Schema.Int), Schema.String])
]))
const decodeCase = Schema.decodeUnknownSync(Case)
const decodeDropout = Schema.decodeUnknownSync(
  Schema.fromJsonString(Schema.Tuple([Schema.String, Schema.Record(Schema.String, Schema.Int)]))
)

const agrees = (path: string, count: number, seed: number): void => {
  const model = Result.getOrThrow(SentencePiece.parse(new Uint8Array(Fs.readFileSync(path))))
  const codec = Result.getOrThrow(Tokenizer.fromModel(model))
  const output = execFileSync(python!, [script, "cases", path, String(count), String(seed)], { maxBuffer: 2 ** 30 })
  const lines = output.toString("utf8").trimEnd().split("\n")
  assert.strictEqual(lines.length, count)
  for (const line of lines) {
    const given = decodeCase(line)
    if (given[0] === "d") {
      assert.strictEqual(codec.decode(given[1]), given[2], line)
      continue
    }
    const ids = codec.encodeBytes(new Uint8Array(Buffer.from(given[1], "base64")))
    if (ids.join() !== given[2].join()) assert.deepStrictEqual([...ids], given[2], line)
  }
}

describe.skipIf(python === undefined)("Tokenizer, fresh cases from the library (needs CRIA_PEER_PYTHON)", () => {
  for (const name of ["llama", "plain", "symbols", "rules", "infix", "unused", "suffix"]) {
    it(`${name}: 20 000 cases`, () => agrees(fixture(name), 20_000, 7))
  }

  it.skipIf(data === undefined)("Llama 2: 105 000 texts and 35 000 rows of ids (needs CRIA_TEST_DATA)", () =>
    agrees(Path.join(data!, "tokenizer.model"), 140_000, 8))

  it.each(["llama", "unused"])("%s: dropout gives each way to write a text as often", (name) => {
    const model = Result.getOrThrow(SentencePiece.parse(new Uint8Array(Fs.readFileSync(fixture(name)))))
    const codec = Result.getOrThrow(Tokenizer.fromModel(model))
    const count = 20_000
    const output = execFileSync(python!, [script, "dropout", fixture(name), String(count), "0.25"])
    for (const line of output.toString("utf8").trimEnd().split("\n")) {
      const [text, theirs] = decodeDropout(line)
      const ours: Record<string, number> = {}
      for (let i = 0; i < count; i++) {
        const key = Key.derive(Key.make("soak"), text, i)
        const ids = codec.encodeWithDropout(text, { rate: 0.25, key }).join(" ")
        ours[ids] = (ours[ids] ?? 0) + 1
      }
      // Two samples of one size: Σ (a − b)² / (a + b), rare outcomes taken together.
      const rare = [0, 0] as [number, number]
      const terms: Array<readonly [number, number]> = []
      for (const ids of new Set([...Object.keys(ours), ...Object.keys(theirs)])) {
        const pair = [ours[ids] ?? 0, theirs[ids] ?? 0] as const
        if (pair[0] + pair[1] >= 20) terms.push(pair)
        else for (const side of [0, 1] as const) rare[side] += pair[side]
      }
      if (rare[0] + rare[1] > 0) terms.push(rare)
      const chiSquare = terms.reduce((sum, [a, b]) => sum + (a - b) ** 2 / (a + b), 0)
      const freedom = Math.max(1, terms.length - 1)
      assert.isBelow(chiSquare, freedom + 5 * Math.sqrt(2 * freedom), `${text}: ${terms.length} ways`)
    }
  })

  it("a model that was trained here, in the library's hands", () => {
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "cria-"))
    const corpus = Fs.readFileSync(script, "utf8")
    const options = { ...Trainer.llama(700), userDefinedSymbols: ["lambda", "▁for ▁"], controlSymbols: ["<ctl>"] }
    const { model } = Result.getOrThrow(Trainer.trainSync([corpus], options))
    const path = Path.join(folder, "trained.model")
    Fs.writeFileSync(path, model.bytes)
    agrees(path, 20_000, 9)
    Fs.rmSync(folder, { recursive: true })
  })
})
