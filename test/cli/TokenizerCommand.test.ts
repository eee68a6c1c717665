import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, FileSystem, Result } from "effect"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as TokenizerBin from "../../src/token/TokenizerBin.ts"
import * as TokenizerJson from "../../src/token/TokenizerJson.ts"
import * as Trainer from "../../src/token/Trainer.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { cria, rows, withFiles } from "./Cria.ts"

const { model } = Result.getOrThrow(Trainer.trainSync(
  ["the cat sat on the mat", "the other cat sat on that mat 2 times"], Trainer.llama(300)
))
const codec = Result.getOrThrow(Tokenizer.fromModel(model))
const other = Result.getOrThrow(Trainer.trainSync(["a cat is not the mat"], Trainer.llama(285))).model
const joining = Result.getOrThrow(
  Trainer.trainSync(["1984 1984 1985 and"], { ...Trainer.llama(273), splitDigits: false })
).model

/** No UTF-8: "café" and a line break in Latin-1. */
const latin = Uint8Array.of(0x63, 0x61, 0x66, 0xe9, 0x0a)

const disk = Effect.gen(function*() {
  const made = MemoryDisk.make()
  yield* withFiles(made, {
    "/t/tokenizer.model": model.bytes, "/other.model": other.bytes, "/joining.model": joining.bytes,
    "/a.json": Result.getOrThrow(TokenizerJson.print(model)), "/a.bin": Result.getOrThrow(TokenizerBin.print(model)),
    "/non.json": Result.getOrThrow(TokenizerJson.printNonLegacy(model)),
    "/torn.model": model.bytes.slice(0, 100), "/empty/x.txt": "no", "/text.jsonl": rows,
    "/two.txt": "the cat\nsat on\n", "/latin.txt": latin
  })
  return made
})

const run = (args: ReadonlyArray<string>, options: Parameters<typeof cria>[2] = {}) =>
  Effect.flatMap(disk, (made) => cria(made, ["tokenizer", ...args], options))

const prints = (args: ReadonlyArray<string>, options: Parameters<typeof cria>[2] = {}) =>
  Effect.map(run(args, options), ({ errors, exit, output }) => {
    assert.isTrue(Exit.isSuccess(exit), errors)
    return output
  })

const fails = (args: ReadonlyArray<string>, options: Parameters<typeof cria>[2] = {}) =>
  Effect.map(run(args, options), ({ errors, exit }) => {
    assert.isTrue(Exit.isFailure(exit), "it did not fail")
    return errors
  })

const line = (text: string) => `${codec.encode(text).join(" ")}\n`

describe("cria tokenizer encode, decode", () => {
  it.live("a file of any format, and a folder with one, are the same tokenizer", () => Effect.gen(function*() {
    for (const path of ["/t", "/t/tokenizer.model", "/a.json", "/a.bin"]) {
      assert.strictEqual(yield* prints(["encode", "the cat", "--tokenizer", path]), line("the cat"), path)
    }
  }))
  it.live("a tokenizer.json saved with legacy = false is the function that it is", () => Effect.gen(function*() {
    const { encode } = Result.getOrThrow(Tokenizer.fromModelNonLegacy(model))
    const to = ["--tokenizer", "/non.json"]
    assert.notDeepEqual(encode(" the cat"), codec.encode(" the cat"))
    assert.strictEqual(yield* prints(["encode", " the cat", ...to]), `${encode(" the cat").join(" ")}\n`)
    // --bos is in front of the sequence, not in it: the text is still the first, as in tokenizers
    const [bos, eos] = [codec.bosId, codec.eosId]
    assert.strictEqual(
      yield* prints(["encode", "the cat", "--bos", "--eos", ...to]), `${[bos, ...encode("the cat"), eos].join(" ")}\n`
    )
    assert.include(
      yield* prints(["inspect", ...to]), "spaces     one is put before a first text that begins with none; all are kept"
    )
  }))
  it.live("text is an argument, a file or standard input; lines go alone, if asked", () => Effect.gen(function*() {
    const to = ["--tokenizer", "/t"]
    const whole = "the cat\nsat on\n"
    assert.strictEqual(yield* prints(["encode", ...to, "--file", "/two.txt"]), line(whole))
    assert.strictEqual(yield* prints(["encode", ...to], { input: whole }), line(whole))
    assert.strictEqual(
      yield* prints(["encode", ...to, "--lines"], { input: whole }), line("the cat") + line("sat on")
    )
    assert.include(yield* fails(["encode", ...to, "a", "--file", "/two.txt"]), "the argument and --file ask for")
  }))
  it.live("a file that is not there is told, and bytes that are no text are refused", () => Effect.gen(function*() {
    const to = ["--tokenizer", "/t"]
    assert.match(yield* fails(["encode", ...to, "--file", "/none.txt"]),
      /^error: cannot read \/none\.txt: .*\n {2}check the spelling/)
    for (const name of ["standard input", "/latin.txt"]) {
      const file = name === "/latin.txt" ? ["--file", name] : []
      assert.include(yield* fails(["encode", ...to, ...file], { input: latin }),
        `error: ${name}: byte 0xE9 at byte 3 is not UTF-8, as text must be\n`)
    }
  }))
  it.live("special ids come from flags alone", () => Effect.gen(function*() {
    const ids = yield* prints(["encode", "<s>", "--bos", "--eos", "--tokenizer", "/t"])
    assert.strictEqual(ids, `1 ${codec.encode("<s>").join(" ")} 2\n`)
    const pieces = yield* prints(["encode", "the", "--bos", "--pieces", "--tokenizer", "/t"])
    assert.strictEqual(pieces, "[\"<s>\",\"\u2581the\"]\n")
  }))
  it.live("ids come back as text, from arguments or JSON, line by line", () => Effect.gen(function*() {
    const ids = codec.encode("the cat")
    assert.strictEqual(yield* prints(["decode", ...ids, "--tokenizer", "/t"].map(String)), "the cat") // to the byte
    const input = `[${ids.join(", ")}]\n${codec.encode("sat").join(" ")}\n`
    assert.strictEqual(yield* prints(["decode", "--lines", "--tokenizer", "/t"], { input }), "the cat\nsat\n")
  }))
  it.live("what is no id, or no id of this vocabulary, is named with its place", () => Effect.gen(function*() {
    assert.include(yield* fails(["decode", "1", "x", "--tokenizer", "/t"]), "\"x\", number 1 of the ids, is no id")
    assert.include(
      yield* fails(["decode", "1", "99999999999999999999", "--tokenizer", "/t"]),
      "decode: id 100000000000000000000 at position 1 is not in the vocabulary of 300 pieces"
    )
    assert.include(
      yield* fails(["decode", "1", "300", "--tokenizer", "/t"]),
      "decode: id 300 at position 1 is not in the vocabulary of 300 pieces"
    )
  }))
  it.live("what is no tokenizer is refused with what would be one", () => Effect.gen(function*() {
    assert.include(yield* fails(["encode", "a", "--tokenizer", "/empty"]), "/empty is no tokenizer: it is a folder")
    assert.include(yield* fails(["encode", "a", "--tokenizer", "/two.txt"]), "its ending is none that Cria knows")
    assert.include(yield* fails(["encode", "a", "--tokenizer", "/none"]), "/none is no tokenizer: ")
    assert.include(yield* fails(["encode", "a", "--tokenizer", "/torn.model"]), "/torn.model: SentencePiece model")
  }))
})

describe("cria tokenizer inspect", () => {
  it.live("describes the vocabulary", () => Effect.gen(function*() {
    const lines = (yield* prints(["inspect", "--tokenizer", "/t"])).split("\n")
    assert.strictEqual(lines[0], "/t/tokenizer.model: 300 pieces")
    assert.include(lines[1], "41 normal, 256 byte, 2 control, 1 unknown; longest \"")
    assert.deepStrictEqual(lines.slice(2, 6), [
      "  specials   <unk> 0, <s> 1, </s> 2, padding none",
      "  spaces     one is put before every text; all are kept",
      "  digits     single: no piece joins one to anything",
      "  unknown    characters become their bytes"
    ])
    assert.match(yield* prints(["inspect", "--tokenizer", "/joining.model"]), /digits {5}\d+ pieces join them: ".*19/)
  }))
  it.live("cuts a text with bars, and counts", () => Effect.gen(function*() {
    const output = yield* prints(["inspect", "the cat 22 é|", "--tokenizer", "/t"])
    assert.include(output, "\n the| cat| |2|2| |<0xC3>|<0xA9>|<0x7C>\n")
    assert.include(output, "  tokens     9 for 14 bytes, 13 characters: 1.56 bytes a token\n")
    assert.include(output, "  fallback   3 tokens are single bytes (33.3 %)\n")
    assert.include(output, "  digits     2 digits in 2 tokens that hold any\n")
    const bare = yield* prints(["inspect", "1984", "--tokenizer", "/other.model"])
    assert.include(bare, "  digits     4 digits, none in a piece of this vocabulary: they fell back to bytes\n")
    const some = yield* prints(["inspect", "1222", "--tokenizer", "/t"])
    assert.include(some, "  digits     4 digits in 3 tokens that hold any; 1 fell back to bytes\n")
  }))
  it.live("colours pieces on a terminal, and shows what control characters are", () => Effect.gen(function*() {
    const output = yield* prints(["inspect", "the cat\u001b[2J", "--tokenizer", "/t"], { isTerminal: true })
    assert.include(output, "\u001b[30;48;5;153m the\u001b[0m\u001b[30;48;5;223m cat\u001b[0m")
    assert.notInclude(output, "\u001b[2J")
  }))
  it.live("says what of a long text it does not show", () => Effect.gen(function*() {
    const text = "the cat ".repeat(300)
    const count = codec.encode(text).length
    const output = yield* prints(["inspect", text, "--tokenizer", "/t"])
    assert.include(output, `(${count - 400} more tokens are counted, not shown: --all)`)
    assert.include(output, `  tokens     ${count} for 2400 bytes`)
    assert.notInclude(yield* prints(["inspect", text, "--all", "--tokenizer", "/t"]), "not shown")
  }))
})

describe("cria tokenizer compare", () => {
  it.live("the same tokenizer in three formats is the same", () => Effect.gen(function*() {
    assert.include(
      yield* prints(["compare", "/t", "/a.bin", "--text", "/text.jsonl"]), "the same pieces for all 40 documents\n"
    )
    assert.include(yield* prints(["compare", "/a.json", "/t", "--text", "/text.jsonl"]), "the same pieces for all 40")
  }))
  it.live("shows where two first differ, and fails", () => Effect.gen(function*() {
    const { errors, exit, output } = yield* run(["compare", "/t", "/other.model", "--text", "/two.txt"])
    assert.isTrue(Exit.isFailure(exit))
    assert.match(output, /^\/two\.txt line 1, from token 5 on:\n {2}… ".+\n {2}… "/)
    assert.match(output, /\n\/t\/tokenizer\.model {2}300 pieces {2}\d+ tokens {2}\d\.\d{3} bytes a token\n/)
    assert.match(output, /\n\/other\.model +285 pieces /)
    assert.include(errors, "the tokenizers cut 1 of 1 documents differently")
    const few = yield* run(["compare", "/t", "/other.model", "--text", "/text.jsonl", "--show", "1"])
    assert.match(few.output, /\n… and \d+ more \(--show\)\n/)
  }))
})

describe("cria tokenizer train", () => {
  it.live("writes each format, which reads as what the trainer made, and says what was learned", () =>
    Effect.gen(function*() {
      const made = yield* disk
      const train = (out: string, ...more: ReadonlyArray<string>) =>
        cria(made, ["tokenizer", "train", "--text", "/two.txt", "--vocab-size", "270", "--out", out, ...more])
      const { errors, exit, output } = yield* train("/new/tokenizer.model")
      assert.isTrue(Exit.isSuccess(exit), errors)
      assert.match(output, /^\/new\/tokenizer\.model: 270 pieces in [\d.]+ s\n/)
      assert.include(output, "\n  read       2 lines, 4 words, 4 different")
      const expected = Result.getOrThrow(Trainer.trainSync(["the cat\nsat on\n"], Trainer.llama(270))).model
      const written = yield* made.fileSystem.readFile("/new/tokenizer.model")
      assert.deepStrictEqual([...written], [...expected.bytes])
      for (const out of ["/new/a.json", "/new/a.bin"]) {
        assert.isTrue(Exit.isSuccess((yield* train(out)).exit), out)
        const same = yield* cria(made, ["tokenizer", "compare", "/new", out, "--text", "/text.jsonl"])
        assert.include(same.output, "the same pieces for all 40 documents", out)
      }
      assert.include((yield* train("/new/a.bin")).errors, "/new/a.bin exists already\n  Give another name with --out")
      assert.strictEqual((yield* train("/new/a.txt")).errors, "error: /new/a.txt: the ending says how a tokenizer is " +
        "written, and this is none that Cria knows\n  Give a name that ends in .model (SentencePiece), .json " +
        "(Hugging Face) or .bin (llama2.c): --out tokenizer.model.\n")
    }))
  it.live("shows on a terminal how much of the bytes it has read, whatever the script", () => Effect.gen(function*() {
    const made = MemoryDisk.make()
    yield* withFiles(made, { "/greek.txt": "και η γάτα\n".repeat(3) })
    const args = ["tokenizer", "train", "--text", "/greek.txt", "--vocab-size", "275", "--out", "/greek.model"]
    const { errors, exit, output } = yield* cria(made, args, { isTerminal: true })
    assert.isTrue(Exit.isSuccess(exit), errors)
    assert.include(output, "reading    ████████████████████ 57 B")
  }))
  it.live("takes the options of the trainer, and tells which lines it passed over", () => Effect.gen(function*() {
    const made = yield* disk
    yield* withFiles(made, { "/long.txt": `12 12 12\n${"word ".repeat(20)}\nbar \u2585\n` })
    const { errors, exit, output } = yield* cria(made, [
      "tokenizer", "train", "--text", "/long.txt", "--vocab-size", "267", "--out", "/o.model", "--max-line-bytes", "50",
      "--sample-lines", "3", "--no-split-digits", "--symbol", "<think>", "--control", "<pad>", "--max-piece-length", "3"
    ])
    assert.isTrue(Exit.isSuccess(exit), errors)
    assert.include(output, "1 lines of more than the longest allowed: --max-line-bytes")
    assert.include(output, "1 lines with U+2585, which SentencePiece keeps for itself")
    const model = yield* Tokenizer.loadModel("/o.model").pipe(
      Effect.provideService(FileSystem.FileSystem, made.fileSystem)
    )
    const pieces = model.pieces.map(({ text, type }) => `${text} ${type}`)
    assert.includeMembers(pieces, ["<pad> control", "<think> user-defined", "12 normal"])
    assert.include(
      (yield* cria(made, ["tokenizer", "train", "--text", "/long.txt", "--vocab-size", "9000", "--out", "/p.model"]))
        .errors,
      "a vocabulary of 9000 pieces cannot be met"
    )
    assert.isFalse(yield* made.fileSystem.exists("/p.model"))
  }))
})
