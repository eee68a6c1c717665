/**
 * `cria evaluate`: measures of a model. `cria evaluate perplexity` says how well it foretells a text.
 *
 * Checked  test/cli/EvaluateCommand.test.ts.
 *
 * @module
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Corpus from "../data/Corpus.ts"
import * as TokenStore from "../data/TokenStore.ts"
import * as Perplexity from "../evaluate/Perplexity.ts"
import * as Transformer from "../llama/Transformer.ts"
import * as BackendChoice from "./BackendChoice.ts"
import * as CheckpointSource from "./CheckpointSource.ts"
import { backend, count, given, pathFlag, switched } from "./Flags.ts"
import * as RunFolder from "./RunFolder.ts"
import * as Screen from "./Screen.ts"
import * as Weights from "./Weights.ts"

const flags = {
  model: given(pathFlag("model"), "PATH", "The model: the folder of a run (its newest snapshot), a snapshot, a " +
    "folder of Hugging Face or Meta, a .gguf, a .bin of llama2.c; by default the run that trained last"),
  text: pathFlag("text").pipe(
    Flag.withMetavar("PATH"),
    Flag.withDescription(
      "What to foretell: a text file, a .jsonl file of rows {\"text\": …}, a folder of them, or a pattern; may be " +
        "given more than once"
    ),
    Flag.atLeast(1)
  ),
  tokenizer: given(pathFlag("tokenizer"), "PATH", "Another tokenizer file (.model, .json, .bin); by default the " +
    "one beside the model"),
  contextLength: CheckpointSource.flags.contextLength,
  window: count("window", "Tokens that the model sees at once; its context by default"),
  stride: count("stride", "How far each window begins behind the last: a token sees at least window − stride tokens " +
    "before it, or all that there are, so a shorter stride is more exact and slower; half a window by default"),
  batchSize: count("batch-size", "Windows that are computed together, for speed, which changes the result by " +
    "rounding alone; by default so many as have 1024 tokens, and no more than there are"),
  weights: Weights.flag,
  json: switched("json", "Print the result as a line of JSON, and nothing else"),
  threads: count("threads", "Threads that compute; the cores of this machine by default"),
  backend: backend("by default the one that trained, of a run; the fastest of them for other models")
}

/** The command that measures perplexity. */
const perplexity = Command.make("perplexity", flags, Effect.fnUntraced(function*(given) {
  const checkpoint = yield* CheckpointSource.open({
    path: Option.isSome(given.model) ? given.model.value : yield* RunFolder.latest,
    tokenizer: given.tokenizer, contextLength: given.contextLength
  })
  const { config, format, path } = checkpoint
  if (Option.isSome(given.contextLength) && format !== "meta") {
    return yield* new CheckpointSource.ContextLengthError({ path, contextLength: config.contextLength })
  }
  const window = Option.getOrElse(given.window, () => config.contextLength)
  const stride = Option.getOrElse(given.stride, () => Math.max(1, Math.ceil(window / 2)))
  const mostWindows = Option.getOrElse(given.batchSize, () => Math.max(1, Math.floor(1024 / Math.max(1, window))))
  const codec = yield* CheckpointSource.codecOf(checkpoint)
  const corpus = yield* Corpus.Corpus.pipe(
    Effect.provide(Corpus.layerFiles(given.text, { documentCharacters: Number.MAX_SAFE_INTEGER })) // files stay whole
  )
  // what cannot be scored is refused before the weights are read
  yield* Perplexity.requireWindows({ window, stride, batchSize: mostWindows }, config.contextLength)
  const name = yield* CheckpointSource.backendOf(checkpoint, given)
  const screen = yield* Screen.make
  const print = (text: string) => given.json ? Effect.void : screen.print(text)
  const texts = yield* Stream.runCollect(Stream.map(corpus.documents, ({ text }) => text))
  const store = TokenStore.fromTexts(texts, codec)
  // rows beyond the windows there are would be computed for nothing
  const windowCount = Perplexity.spanCount(store.tokens.length - 1, { window, stride })
  const batchSize = Option.isSome(given.batchSize) ? mostWindows : Math.min(mostWindows, Math.max(1, windowCount))
  const width = given.weights === "f32" ? "" : `${given.weights}, `
  yield* print(`model       ${path}, ${CheckpointSource.sizeOf(checkpoint)}, ${width}on ${name}`)
  yield* print(`text        ${corpus.name}: ${texts.length === 1 ? "1 document" : `${texts.length} documents`}, ` +
    `${Screen.quantity(store.bytes, "B")}, ${Screen.quantity(store.tokens.length)} tokens`)
  yield* print(windowCount < 2 ? `windows     one of ${window} tokens holds the whole text`
    : `windows     ${windowCount} of ${window} tokens, ${stride} apart: a token sees at least ${window - stride} ` +
      "before it, or all that there are")
  const beside = {
    what: `scores of ${batchSize} windows (--batch-size), each ${window} tokens`,
    count: batchSize * window * config.vocabSize,
    remedy: "a smaller --batch-size, a shorter --window"
  }
  const score = yield* Weights.load(checkpoint, given.weights, beside, (loaded) => Effect.gen(function*() {
    const { score } = yield* Perplexity.make({ ...loaded, window, stride, batchSize })
    return yield* score(store, ({ loss, tokenCount, total }) => given.json ? Effect.void : screen.status(
      `${Screen.bar(tokenCount / total, 20)} ${Screen.quantity(tokenCount)} tokens, perplexity ` +
        Math.exp(loss).toFixed(2)
    ))
  })).pipe(Effect.provide([Transformer.layer, BackendChoice.layer(name, Option.getOrUndefined(given.threads))]))
  if (given.json) {
    const said = { model: path, format, weights: given.weights, text: corpus.name, window, stride, batchSize,
      ...score }
    return yield* Console.log(JSON.stringify(said))
  }
  const counted = score.tokenCount === 1 ? "1 token" : `${score.tokenCount} tokens`
  yield* print(`loss        ${score.loss.toFixed(4)} nats a token, over ${counted}`)
  yield* print(`perplexity  ${score.perplexity.toFixed(3)}`)
  yield* print(`bits/byte   ${score.bitsPerByte.toFixed(4)}, which does not depend on the tokenizer`)
}, Effect.scoped)).pipe(
  Command.withShortDescription("How well a model foretells a text"),
  Command.withDescription(
    "Perplexity is the number of tokens a model hesitates between, on average, when it names the next one: e to the " +
      "mean of −log p. It compares models that share a tokenizer; bits per byte compare any. Each file is a " +
      "document, and each row of a .jsonl file; they follow one another, each behind the token that begins one. A " +
      "window moves over them, and every token but the first is scored once, by those before it in its window, also " +
      "those of the document before."
  ),
  Command.withExamples([
    { command: "cria evaluate perplexity --text novel.txt", description: "The run that trained last, on a text" },
    { command: "cria evaluate perplexity --text \"tests/*.txt\" --model runs/books --stride 16",
      description: "More exactly: each token sees nearly a whole window" },
    { command: "cria evaluate perplexity --text novel.txt --model llama-2-7b --weights 4-bit",
      description: "What fewer bits cost" },
    { command: "cria evaluate perplexity --text novel.txt --model stories15M.bin --json", description: "For a program" }
  ])
)

/** The command. */
export const command = Command.make("evaluate").pipe(
  Command.withShortDescription("Measure a model"),
  Command.withDescription("Measures of a model: a run of Cria, or a checkpoint of others."),
  Command.withSubcommands([perplexity])
)
