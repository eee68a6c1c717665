import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import * as Document from "../../src/data/Document.ts"
import * as Split from "../../src/data/Split.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { filledUp, printed } from "./checkpoints.ts"
import { cria, rows, tiny, withFiles } from "./Cria.ts"

const isHeldOut = (row: string): boolean => {
  const { text }: { readonly text: string } = JSON.parse(row)
  return Split.part(Document.make(text, { file: "a", line: 1 }), 0.2) === "validation"
}

/** The documents that the run measured itself with. */
const heldOut = rows.split("\n").filter(isHeldOut).join("\n")

/** Trains once; every test reads the same run. */
const trained = Effect.runSync(Effect.cached(Effect.gen(function*() {
  const disk = MemoryDisk.make()
  yield* withFiles(disk, {
    "/texts/a.jsonl": rows, "/texts/held-out.jsonl": heldOut, "/texts/novel.txt": "It was\n\na day. It was — a day.\n",
    "/texts/empty.txt": "", "/texts/one.txt": "a", "/texts/other.jsonl": `{"story": "A day."}`
  })
  yield* cria(disk, ["pretrain", "--text", "/texts/a.jsonl", "--out", "/runs/a", ...tiny()])
  return disk
})))

const evaluate = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(trained, (disk) => {
    const model = args.includes("--model") ? [] : ["--model", "/runs/a"]
    return cria(disk, ["evaluate", "perplexity", ...model, ...args])
  })

const json = (...args: ReadonlyArray<string>) =>
  Effect.map(evaluate("--json", ...args), ({ errors, exit, output }) => {
    assert.isTrue(Exit.isSuccess(exit), errors)
    assert.match(output, /^\{.*\}\n$/)
    const result: Readonly<Record<string, number | string>> = JSON.parse(output)
    return result
  })

const fails = (...args: ReadonlyArray<string>) =>
  Effect.map(evaluate(...args), ({ errors, exit, output }) => {
    assert.isTrue(Exit.isFailure(exit), `it did not fail: ${output}`)
    return errors
  })

describe("cria evaluate perplexity", () => {
  it.live("measures on the held-out part what the run itself had measured there", () =>
    Effect.gen(function*() {
      const journal = Buffer.from((yield* trained).files().get("/runs/a/journal.jsonl") ?? []).toString()
      const last: Readonly<Record<string, number>> = JSON.parse(journal.trimEnd().split("\n").at(-1) ?? "")
      const found = yield* json("--text", "/texts/held-out.jsonl", "--window", "16", "--stride", "16")
      assert.closeTo(Number(found["loss"]), last["val/loss"] ?? NaN, 1e-12)
      assert.closeTo(Number(found["bitsPerByte"]), last["val/bpb"] ?? NaN, 1e-12)
      assert.strictEqual(found["perplexity"], Math.exp(Number(found["loss"])))
    }))

  it.live("tells model, text, windows and result, in words or as JSON", () =>
    Effect.gen(function*() {
      const { output } = yield* evaluate("--text", "/texts/novel.txt")
      const found = yield* json("--text", "/texts/novel.txt")
      const { loss, perplexity, tokenCount } = found
      assert.strictEqual(output, [
        "model       /runs/a/snapshot-00000004, 5.59 k parameters, on reference",
        `text        /texts/novel.txt: 1 document, 33 B, ${Number(tokenCount) + 1} tokens`,
        "windows     one of 32 tokens holds the whole text",
        `loss        ${Number(loss).toFixed(4)} nats a token, over ${tokenCount} tokens`,
        `perplexity  ${Number(perplexity).toFixed(3)}`,
        `bits/byte   ${Number(found["bitsPerByte"]).toFixed(4)}, which does not depend on the tokenizer`, ""
      ].join("\n"))
      const cut = (yield* evaluate("--text", "/texts/novel.txt", "--window", "8", "--stride", "3")).output
      assert.include(cut, `\nwindows     ${1 + Math.ceil((Number(tokenCount) - 8) / 3)} of 8 tokens, 3 apart: a ` +
        "token sees at least 5 before it, or all that there are\n")
      assert.include((yield* evaluate("--text", "/texts/one.txt")).output, " nats a token, over 1 token\n")
      const { errors } = yield* evaluate("--text", "/texts/other.jsonl")
      assert.match(errors, /\n {2}repair or remove the row; rename the field that holds the text\n$/)
      assert.deepStrictEqual(Object.keys(found), ["model", "format", "weights", "text", "window", "stride",
        "batchSize", "tokenCount", "byteCount", "loss", "perplexity", "bitsPerByte"])
      assert.strictEqual(found["byteCount"], Buffer.byteLength("It was\n\na day. It was — a day.\n"))
    }))

  it.live("takes a snapshot, and the run that trained last where no model is named", () =>
    Effect.gen(function*() {
      const early = yield* json("--text", "/texts/novel.txt", "--model", "/runs/a/snapshot-00000002")
      const late = yield* json("--text", "/texts/novel.txt")
      assert.notStrictEqual(early["loss"], late["loss"])
      const disk = yield* trained
      const named = ["--tokenizer", "/runs/a", "--backend", "reference", "--json"] // this disk knows no present folder
      const { errors, output } = yield* cria(disk, ["evaluate", "perplexity", "--text", "/texts/novel.txt", ...named])
      assert.strictEqual(errors, "")
      assert.deepStrictEqual(JSON.parse(output), { ...late, model: "runs/a/snapshot-00000004" })
    }))

  it.live("gives each token more context with a shorter stride, and the same in any batch", () =>
    Effect.gen(function*() {
      const at = (...args: ReadonlyArray<string>) =>
        Effect.map(json("--text", "/texts/novel.txt", "--window", "8", ...args), ({ loss, tokenCount }) => {
          assert.strictEqual(tokenCount, tokens)
          return Number(loss)
        })
      const tokens = (yield* json("--text", "/texts/novel.txt"))["tokenCount"]
      const [chunks, one] = [yield* at("--stride", "8"), yield* at("--stride", "8", "--batch-size", "1")]
      assert.closeTo(one, chunks, 1e-12)
      assert.notStrictEqual(yield* at("--stride", "1"), chunks)
    }))

  it.live("runs no more windows together than there are, unless it is told to", () =>
    Effect.gen(function*() {
      const sizeOf = (...args: ReadonlyArray<string>) =>
        Effect.map(json("--text", "/texts/novel.txt", ...args), ({ batchSize }) => Number(batchSize))
      const tokens = Number((yield* json("--text", "/texts/novel.txt"))["tokenCount"])
      const windows = (window: number, stride: number) => 1 + Math.ceil(Math.max(0, tokens - window) / stride)
      assert.strictEqual(yield* sizeOf(), windows(32, 16))
      assert.isBelow(windows(32, 16), 1024 / 32)
      assert.strictEqual(yield* sizeOf("--window", "8", "--stride", "8"), windows(8, 8))
      assert.strictEqual(yield* sizeOf("--window", "32", "--batch-size", "5"), 5)
    }))

  it.live("takes the context of a folder of Meta's, which does not say it, and tells what it takes", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, Object.fromEntries((yield* trained).files()))
      assert.include((yield* cria(disk, ["export", "/runs/a", "--to", "meta", "--out", "/meta"])).output,
        "meta has no place for the longest sequence: where it is read, --context-length 32 says it\n")
      const measured = (...args: ReadonlyArray<string>) =>
        cria(disk, ["evaluate", "perplexity", "--text", "/texts/novel.txt", "--json", ...args])
      const lossOf = ({ output }: { readonly output: string }) => Number(JSON.parse(output).loss)
      const own = lossOf(yield* measured("--model", "/runs/a"))
      const asked = yield* measured("--model", "/meta", "--context-length", "32")
      assert.closeTo(lossOf(asked), own, 1e-6)
      assert.notInclude(asked.errors, "does not say")
      const assumed = yield* measured("--model", "/meta", "--window", "32")
      assert.closeTo(lossOf(assumed), own, 1e-6)
      assert.include(assumed.errors, "/meta does not say the longest sequence, as no folder of Meta's does: 4096 is " +
        "taken (--context-length N says another)\n")
      const { errors } = yield* measured("--model", "/runs/a", "--context-length", "16")
      assert.include(errors, "says itself that its longest sequence has 32 tokens")
    }))

  it.live("shows how far it has come on a terminal, and nothing of it stays", () =>
    Effect.gen(function*() {
      const args = ["evaluate", "perplexity", "--model", "/runs/a", "--text", "/texts/novel.txt"]
      const { output } = yield* cria(yield* trained, args, { isTerminal: true })
      const visible = output.replaceAll("\r\u001B[2K", "<clear>")
      assert.match(visible, /whole text\n<clear>█{20} \d+ tokens, perplexity \d+\.\d\d<clear>loss {8}/)
    }))

  it.live("says what is wrong", () =>
    Effect.gen(function*() {
      const text = ["--text", "/texts/novel.txt"]
      assert.match(yield* fails(), /Missing required flag.*--text|text/i)
      assert.match(yield* fails("--text", "/texts/none.txt"), /^error: cannot read \/texts\/none\.txt: /)
      assert.match(yield* fails("--text", "/texts/empty.txt"), /^error: \/texts\/empty\.txt is empty: /)
      assert.strictEqual(yield* fails(...text, "--window", "64", "--stride", "65"), [
        "error: perplexity: a text cannot be cut like this",
        "  --window must be a whole number between 1 and the model's context, 32, got 64",
        "  --stride must be a whole number between 1 and the window, 64, got 65: a longer one skips tokens", ""
      ].join("\n"))
      for (const none of ["0", "-1"]) assert.match(yield* fails(...text, "--window", none), /cut like this\n.*\n$/)
      assert.match(yield* fails(...text, "--batch-size", "9999999999"), new RegExp("^error: .* takes at least \\d+ " +
        "GB of memory here, .*\n.* \\d+ GB of scores of 9999999999 windows \\(--batch-size\\), each 32 tokens\n" +
        " {2}Take a smaller --batch-size, a shorter --window, or a machine with more memory\\.\n$"))
      assert.match(yield* fails(...text, "--model", "/runs/none"), /^error: \/runs\/none/)
      assert.strictEqual(yield* fails(...text, "--tokenizer", "/other/none.model"),
        "error: /other/none.model is no tokenizer: ENOENT: no such file or directory, '/other/none.model'\n  Name a " +
          ".model (SentencePiece), .json (Hugging Face) or .bin (llama2.c) file, or a folder that holds " +
          "tokenizer.model, tokenizer.json or tokenizer.bin.\n")
    }))

  it.live("measures the weights that generation would use, in fewer bits", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, { "/texts/a.jsonl": rows, "/texts/novel.txt": "It was a day." })
      const sizes = { "--embed-size": "32", "--hidden-size": "32" }
      yield* cria(disk, ["pretrain", "--text", "/texts/a.jsonl", ...tiny(sizes)])
      const small = ["--text", "/texts/novel.txt", "--window", "8", "--batch-size", "1"]
      const lossOf = (...args: ReadonlyArray<string>) =>
        Effect.map(cria(disk, ["evaluate", "perplexity", ...small, "--json", ...args]),
          ({ errors, output }): number => {
            assert.strictEqual(errors, "")
            const { loss }: { readonly loss: number } = JSON.parse(output)
            return loss
          })
      const [whole, eight, four] = [yield* lossOf(), yield* lossOf("--weights", "8-bit"),
        yield* lossOf("--weights", "4-bit")]
      assert.closeTo(yield* lossOf("--weights", "8-bit-rows"), whole, 0.03)
      assert.notStrictEqual(eight, whole)
      assert.notStrictEqual(four, eight)
      assert.closeTo(eight, whole, 0.01)
      assert.closeTo(four, whole, 0.3)
      const said = yield* cria(disk, ["evaluate", "perplexity", ...small, "--weights", "4-bit"])
      assert.include(said.output, "parameters, 4-bit, on reference\n")
    }))

  it.live("refuses a model without a tokenizer, and a tokenizer with more or fewer pieces than the model", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      const files = [...(yield* trained).files()].filter(([path]) => path.startsWith("/runs/a/snapshot-00000004/"))
      yield* withFiles(disk, {
        ...Object.fromEntries(files.map(([path, content]) => [path.replace("/runs/a", "/bare"), content])),
        "/texts/novel.txt": "It was", "/tokenizer.model": (yield* trained).files().get("/runs/a/tokenizer.model") ?? ""
      })
      const args = ["evaluate", "perplexity", "--text", "/texts/novel.txt", "--model", "/bare/snapshot-00000004"]
      const bare = yield* cria(disk, args)
      assert.strictEqual(bare.errors, "error: /bare/snapshot-00000004 has no tokenizer beside it, and its tokens are " +
        "no text without the one it learned with\n  Name that: --tokenizer PATH.\n")
      const named = yield* cria(disk, [...args, "--tokenizer", "/tokenizer.model", "--backend", "reference"])
      assert.isTrue(Exit.isSuccess(named.exit), named.errors)
      const other = ["pretrain", "--text", "/texts/a.jsonl", "--out", "/runs/b"]
      yield* cria(yield* trained, [...other, ...tiny({ "--vocab-size": "340", "--steps": "1", "--warmup": "0" })])
      assert.strictEqual(yield* fails("--text", "/texts/novel.txt", "--tokenizer", "/runs/b"),
        "error: /runs/a/snapshot-00000004: the model knows 320 tokens, and the tokenizer in " +
        "/runs/b/tokenizer.model 340\n  The model has no scores for the pieces beyond: it is another model's, or " +
        "pieces were added to it. Give " +
        "the tokenizer that the model learned with.\n--tokenizer PATH names another.\n")
    }))
  it.live("measures over the tokens of the tokenizer alone, where a vocabulary was filled up", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, Object.fromEntries((yield* trained).files()))
      yield* cria(disk, ["export", "/runs/a", "--to", "huggingface", "--out", "/hf"])
      yield* filledUp(disk, "/hf", "/filled", 384)
      const scoreOf = (model: string) => Effect.map(cria(disk, ["evaluate", "perplexity", "--text", "/texts/novel.txt",
        "--model", model, "--backend", "reference", "--json"]), ({ output }): unknown => ({
        ...JSON.parse(output), model: ""
      }))
      assert.deepStrictEqual(yield* scoreOf("/filled"), yield* scoreOf("/hf"))
      assert.include(yield* printed(disk, "inspect", "/filled"),
        "  tokenizer of 320 pieces in /filled/tokenizer.model, and the model knows 384 ")
    }))

  it.live("teaches", () =>
    Effect.gen(function*() {
      const { output } = yield* evaluate("--help")
      for (const text of ["--stride", "bits per byte", "stories15M.bin --json"]) assert.include(output, text)
      assert.match((yield* cria(MemoryDisk.make(), ["evaluate", "--help"])).output, /^ {2}perplexity +How well/m)
    }))
})
