/**
 * The tokenizer's speed, beside SentencePiece's on the same text, in the same run.
 *
 *     npm run build && node bench/tokenizer.mjs [model] [text]
 *
 * `model` is a SentencePiece `.model`, `text` a file of real text. Without them: a vocabulary of 8 000 pieces trained
 * on made-up English, which leaves all else to the bytes, and, where CRIA_TEST_DATA has it, Llama 2's own, with plays.
 * The library is timed too where CRIA_PEER_PYTHON names a Python with `sentencepiece`, on one thread.
 */
import { Result } from "effect"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import * as SentencePiece from "../dist/token/SentencePiece.js"
import * as Tokenizer from "../dist/token/Tokenizer.js"
import * as Trainer from "../dist/token/Trainer.js"

let seed = 1
const random = (below) => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return Math.floor(seed / 2 ** 32 * below)
}
const repeat = (count, piece) => Array.from({ length: count }, piece).join("")
const letter = () => String.fromCharCode(97 + random(26))

/** English-like text: words drawn as in a natural language, few of them often. */
const words = Array.from({ length: 40_000 }, () => repeat(2 + random(4) + random(5), letter))
const prose = (bytes) => {
  const parts = []
  for (let size = 0; size < bytes;) {
    const word = words[Math.floor(words.length ** (random(1e6) / 1e6)) - 1]
    const end = [" ", " ", " ", " ", " ", " ", ", ", ".\n"][random(8)]
    parts.push(word, end)
    size += word.length + end.length
  }
  return parts.join("")
}

const [modelPath, textPath] = process.argv.slice(2)
const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "cria-bench-"))
const data = process.env.CRIA_TEST_DATA
const plays = data === undefined ? undefined : Path.join(data, "tinyshakespeare.txt")
const realText = textPath ?? plays
const trained = () => Result.getOrThrow(Trainer.trainSync([prose(1e6)], Trainer.llama(8000))).model.bytes
const models = modelPath === undefined
  ? {
    "made-up English": trained(),
    ...data === undefined ? {} : { "Llama 2": Fs.readFileSync(Path.join(data, "tokenizer.model")) }
  }
  : { [Path.basename(modelPath)]: Fs.readFileSync(modelPath) }

/** The messages of the TypeScript compiler, in all languages that it ships. */
const compiler = Path.dirname(fileURLToPath(import.meta.resolve("typescript")))
const messages = Fs.readdirSync(compiler).map((name) => Path.join(compiler, name, "diagnosticMessages.generated.json"))
  .filter((path) => Fs.existsSync(path))
  .map((path) => Object.values(JSON.parse(Fs.readFileSync(path, "utf8"))).slice(0, 600).join("\n"))

const texts = {
  ...realText === undefined ? {} : { [Path.basename(realText)]: Fs.readFileSync(realText, "utf8") },
  "prose, made up": prose(2e6),
  "random words": repeat(1e6, () => random(6) === 0 ? " " : letter()),
  "code": Fs.readFileSync(fileURLToPath(import.meta.resolve("typescript")), "utf8").slice(0, 2e6),
  [`messages in ${messages.length} languages`]: messages.join("\n"),
  "CJK": repeat(4e5, () => String.fromCharCode(0x4e00 + random(6000))),
  "1 MB without a space": repeat(1e6, letter),
  "4 MB without a space": repeat(4e6, letter),
  "1 MB of one letter": "a".repeat(1e6),
  "1 MB of spaces": " ".repeat(1e6),
  "1 MB of one emoji": "🦙".repeat(250_000)
}
const corpus = prose(1e7)

const best = (runs, run) => {
  let least = Infinity
  for (let i = 0; i < runs; i++) {
    const start = performance.now()
    run()
    least = Math.min(least, performance.now() - start)
  }
  return least
}
const size = (text) => Buffer.byteLength(text)

// A first load in a fresh process, code not yet compiled: what a program that starts will wait for.
const load = `
  import * as Fs from "node:fs"
  import { Result } from "effect"
  import * as SentencePiece from ${JSON.stringify(new URL("../dist/token/SentencePiece.js", import.meta.url).href)}
  import * as Tokenizer from ${JSON.stringify(new URL("../dist/token/Tokenizer.js", import.meta.url).href)}
  const bytes = new Uint8Array(Fs.readFileSync(process.env.MODEL))
  const start = performance.now()
  Result.getOrThrow(Tokenizer.fromModel(Result.getOrThrow(SentencePiece.parse(bytes))))
  console.log(performance.now() - start)`
const here = fileURLToPath(new URL("..", import.meta.url))

const measure = (modelBytes) => {
  const model = Path.join(folder, "bench.model")
  Fs.writeFileSync(model, modelBytes)
  const environment = { cwd: here, env: { ...process.env, MODEL: model } }
  const loadFresh = () => Number(execFileSync(process.execPath, ["--input-type=module", "-e", load], environment))
  const makeCodec = () => Result.getOrThrow(Tokenizer.fromModel(Result.getOrThrow(SentencePiece.parse(modelBytes))))
  const codec = makeCodec()
  // The engine compiles what it has seen run; after this, "first time" means new words, not new code.
  for (let i = 0; i < 3; i++) {
    const warm = makeCodec()
    for (const text of Object.values(texts)) warm.encode(text.slice(-1e5))
  }
  const ours = { load: Math.min(...Array.from({ length: 7 }, loadFresh)), encode: {}, decode: {} }
  for (const [name, text] of Object.entries(texts)) {
    // Words never seen by this encoder, as in the first pass over a corpus.
    let cold = Infinity
    for (let i = 0; i < 3; i++) {
      const fresh = makeCodec()
      cold = Math.min(cold, best(1, () => fresh.encode(text)))
    }
    const ids = codec.encode(text)
    ours.encode[name] = { cold, warm: best(5, () => codec.encode(text)) }
    ours.decode[name] = best(5, () => codec.decode(ids))
  }
  return { vocabSize: codec.vocabSize, ours, theirs: peer() }
}

/** Runs a Python script of the peer's, which prints JSON; undefined where there is no peer. */
const peerRun = (script) => {
  const python = process.env.CRIA_PEER_PYTHON
  if (python === undefined) return undefined
  return JSON.parse(execFileSync(python, ["-c", `
import json, sys, time, sentencepiece
folder = sys.argv[1]
def best(runs, run):
    least = 1e9
    for _ in range(runs):
        start = time.perf_counter(); run(); least = min(least, time.perf_counter() - start)
    return least * 1000
${script}`, folder], { maxBuffer: 2 ** 28 }).toString())
}
const peer = () => peerRun(`
load = best(5, lambda: sentencepiece.SentencePieceProcessor(model_file=folder + "/bench.model"))
processor = sentencepiece.SentencePieceProcessor(model_file=folder + "/bench.model")
encode, decode = {}, {}
for name, text in json.load(open(folder + "/texts.json")).items():
    ids = processor.encode(text)
    encode[name] = best(3, lambda: processor.encode(text))
    decode[name] = best(3, lambda: processor.decode(ids))
print(json.dumps(dict(version=sentencepiece.__version__, load=load, encode=encode, decode=decode)))`)
const peerTraining = () => peerRun(`
print(best(2, lambda: sentencepiece.SentencePieceTrainer.train(
    input=folder + "/corpus.txt", model_prefix=folder + "/peer", model_type="bpe", vocab_size=8000,
    character_coverage=0.99995, split_digits=True, allow_whitespace_only_pieces=True, byte_fallback=True,
    normalization_rule_name="identity", remove_extra_whitespaces=False, num_threads=1, minloglevel=2)))`)

Fs.writeFileSync(Path.join(folder, "texts.json"), JSON.stringify(texts))
Fs.writeFileSync(Path.join(folder, "corpus.txt"), corpus)

const row = (...cells) =>
  console.log(cells.map((cell, i) => i === 0 ? cell.padEnd(28) : cell.padStart(12)).join(""))
const speed = (bytes, ms) => ms === undefined ? "" : (bytes / 1000 / ms).toFixed(1)
const ratio = (a, b) => a === undefined ? "" : (a / b).toFixed(1) + " ×"
const milliseconds = (name, mine, other) =>
  row(name, "", mine.toFixed(0), other?.toFixed(0) ?? "", "", ratio(other, mine))

for (const [model, modelBytes] of Object.entries(models)) {
  const { ours, theirs, vocabSize } = measure(modelBytes)
  const version = theirs?.version ?? "not timed (set CRIA_PEER_PYTHON)"
  console.log(`${model}, ${vocabSize} pieces; MB/s on one thread; sentencepiece ${version}`)
  row("encode", "first time", "again", "peer", "ratio first", "ratio again")
  for (const [name, text] of Object.entries(texts)) {
    const { cold, warm } = ours.encode[name]
    const other = theirs?.encode[name]
    const speeds = [cold, warm, other].map((ms) => speed(size(text), ms))
    row(name, ...speeds, ratio(other, cold), ratio(other, warm))
  }
  row("decode", "", "again", "peer", "", "ratio")
  for (const [name, text] of Object.entries(texts)) {
    const [mine, other] = [ours.decode[name], theirs?.decode[name]]
    row(name, "", speed(size(text), mine), speed(size(text), other), "", ratio(other, mine))
  }
  milliseconds("load, ms, fresh process", ours.load, theirs?.load)
}
const training = best(2, () => Result.getOrThrow(Trainer.trainSync([corpus], Trainer.llama(8000))))
milliseconds("train 10 MB to 8000, ms", training, peerTraining())
Fs.rmSync(folder, { recursive: true })
