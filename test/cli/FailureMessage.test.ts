import { assert, describe, it } from "@effect/vitest"
import { Effect, PlatformError, Result } from "effect"
import * as FailureMessage from "../../src/cli/FailureMessage.ts"
import * as Settings from "../../src/cli/Settings.ts"
import { EmptyPartError } from "../../src/data/TokenStore.ts"
import { requireWindows } from "../../src/evaluate/Perplexity.ts"
import { check } from "../../src/generate/Request.ts"
import { greedy } from "../../src/generate/Sampling.ts"
import * as Key from "../../src/random/Key.ts"
import { ResumeError } from "../../src/recipe/Pretrain.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as Trainer from "../../src/token/Trainer.ts"

/** The message of a failure of the file system. */
const ofFile = (code: string, description: string) => {
  const cause = Object.assign(new Error(`${code}: ${description}, open 'a/b'`), { code })
  return FailureMessage.of(PlatformError.systemError({
    _tag: "Unknown", module: "FileSystem", method: "open", pathOrDescriptor: "a/b", cause
  }))
}

const told = (effect: Effect.Effect<unknown, Error>) => Effect.map(Effect.flip(effect), FailureMessage.of)

const ofTraining = (changed: Partial<Trainer.Options>, text = "ab") =>
  FailureMessage.of(Result.getOrThrow(Result.flip(Trainer.trainSync([text], { ...Trainer.llama(300), ...changed }))))

const codec = Result.getOrThrow(Tokenizer.fromModel(Tokenizer.bytesModel))

describe("the message of a failure", () => {
  it("of the file system has the path, the cause, and what to do", () => {
    assert.strictEqual(ofFile("ENOTDIR", "not a directory"), "ENOTDIR: not a directory, open 'a/b'\n  A part of " +
      "this path is a file where a folder should be: name another.")
    assert.strictEqual(ofFile("EISDIR", "it is"), "EISDIR: it is, open 'a/b'\n  This is a folder where a file " +
      "should be: name a file.")
    for (const code of ["ENOENT", "EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ELOOP", "ENAMETOOLONG"]) {
      assert.match(ofFile(code, "no"), /^\w+: no, open 'a\/b'\n {2}[A-Z].*(name|give|check).*\.$/)
    }
    assert.match(ofFile("EBUSY", "no"), /\n {2}See whether the file is there, whole, and yours to use\.$/)
    assert.strictEqual(FailureMessage.of(PlatformError.systemError({
      _tag: "BadResource", module: "FileSystem", method: "read", pathOrDescriptor: 20,
      cause: new Error("EIO: i/o error")
    })), "20: EIO: i/o error\n  See whether the file is there, whole, and yours to use.")
  })
  it("names flags where settings came as flags, keys where they came from a file", () => {
    const given = { steps: 0, learningRate: -1, text: ["a", ""] }
    const messageOf = (source: string) =>
      FailureMessage.of(Result.getOrThrow(Result.flip(Settings.parse(source, given))))
    assert.strictEqual(messageOf("flags"), "flags: these settings cannot be used\n  --text 1 \"\": expected a value " +
      "with a length of at least 1\n  --steps 0: expected a value greater than 0\n  --learning-rate -1: expected a " +
      "value greater than 0")
    assert.include(messageOf("/c.json"), "  learningRate = -1: expected")
    const uneven = Result.getOrThrow(Result.flip(Settings.complete("flags", { headCount: 3 })))
    assert.strictEqual(FailureMessage.of(uneven), "flags: these settings cannot be used\n  --head-count 3: " +
      "--embed-size must be a multiple of --head-count: 128 / 3 is not whole; choose another --head-count, or " +
      "give --head-size")
    const filed = Result.getOrThrow(Result.flip(Settings.complete("/c.json and the flags", { headCount: 3 })))
    assert.include(FailureMessage.of(filed), "  headCount = 3: embedSize must be a multiple of headCount: 128 / 3")
  })
  it.effect("names flags for what generation, scoring and training call their options", () =>
    Effect.gen(function*() {
      const settings = {
        maximumTokens: 0, candidates: 0, stopTexts: [""], rule: greedy, key: Key.make(1), atContextEnd: "end" as const
      }
      assert.strictEqual(yield* told(check([], { codec, contextLength: 4, settings })),
        "generate: the request cannot be fulfilled\n  --max-tokens must be a whole number of at least 1, got 0\n  " +
          "--candidates must be a whole number of at least 1, got 0\n  an empty --stop would end every answer before " +
          "it began")
      const room = { codec, contextLength: 9, settings: { rule: greedy, key: Key.make(1), maximumTokens: 8 } }
      assert.strictEqual(yield* told(check([{ item: 0, ids: [1, 2, 3] }], room)),
        "generate: prompt and answer must fit into a context of 9 tokens\n  prompt 1 has 3 tokens, and its answer " +
          "may have 8\n  Ask for at most 6 tokens.")
      assert.strictEqual(yield* told(requireWindows({ window: 9, stride: 0, batchSize: 0 }, 8)),
        "perplexity: a text cannot be cut like this\n  --window must be a whole number between 1 and the model's " +
          "context, 8, got 9\n  --stride must be a whole number between 1 and the window, 9, got 0: a longer one " +
          "skips tokens\n  --batch-size must be a whole number of at least 1, got 0")
      const none = new EmptyPartError({ part: "validation", documents: 15, validationShare: 0.1 })
      assert.strictEqual(FailureMessage.of(none), none.message.replaceAll("validationShare", "--validation-share"))
      assert.include(FailureMessage.of(none), "raise --validation-share, or cut")
      const differences = [
        { field: "stepCount", saved: "12", here: "14" }, { field: "model.embedSize", saved: "8", here: "16" },
        { field: "seed", saved: "0", here: "1" }, { field: "model.epsilon", saved: "1", here: "2" },
        { field: "epsilon", saved: "3", here: "4" }
      ]
      const resumed = FailureMessage.of(new ResumeError({ snapshot: "a", differences }))
      assert.include(resumed, "  --steps: saved 12, now 14\n  --embed-size: saved 8, now 16\n  --seed: saved 0, " +
        "now 1\n  model.epsilon: saved 1, now 2\n  epsilon: saved 3, now 4\n")
      const wrong = { characterCoverage: 2, maxPieceLength: 0, maxSentenceLength: 0, vocabSize: 0 }
      assert.strictEqual(ofTraining(wrong), "tokenizer training: options cannot be used\n  --vocab-size 0 is not a " +
        "positive whole number\n  --character-coverage 2 is not above 0 and at most 1\n  --max-piece-length 0 is not " +
        "a whole number from 1 to 512\n  --max-line-bytes 0 is not positive\n  cria tokenizer train --help says what " +
        "each flag takes")
      assert.match(ofTraining({ vocabSize: 900 }), /\n {2}set --vocab-size between \d+ and \d+, or train on more text$/)
      assert.match(ofTraining({ vocabSize: 260 }), /\n {2}raise --vocab-size, or lower --character-coverage so that /)
    }))
  it("names no flag that the command does not have", () => {
    const few = Result.getOrThrow(Result.flip(Trainer.trainSync(["ab"], Trainer.llama(260))))
    assert.match(FailureMessage.of(few, "pretrain"),
      /\n {2}raise --vocab-size, or learn from text with fewer kinds of characters$/)
    assert.strictEqual(FailureMessage.of(few, "tokenizer"), FailureMessage.of(few))
  })
  it("is the process's where output cannot be written, and tells a reader that went away from a full disk", () => {
    const failed = (code: string) => Object.assign(new Error(`${code}: it failed, write`), { code })
    assert.isTrue(FailureMessage.isReaderGone(failed("EPIPE")))
    assert.isFalse(FailureMessage.isReaderGone(failed("EIO")))
    assert.strictEqual(FailureMessage.ofOutput(failed("ENOSPC")), "standard output: ENOSPC: it failed, write\n  The " +
      "disk is full: free some space, or name another place.")
    const of = (method: string) => FailureMessage.isOfOutput(PlatformError.badArgument({
      module: "Terminal", method, description: "it failed", cause: failed("EPIPE")
    }))
    assert.isTrue(of("display"))
    assert.isFalse(of("readLine"))
    assert.isFalse(FailureMessage.isOfOutput(failed("EPIPE")))
  })
  it("leaves paths, JSON and other words alone", () => {
    const field = { field: "model", saved: "{\"vocabSize\":512}", here: "runs/vocabSize/x" }
    assert.include(FailureMessage.of(new ResumeError({ snapshot: "a", differences: [field] })),
      "  model: saved {\"vocabSize\":512}, now runs/vocabSize/x\n")
    assert.strictEqual(FailureMessage.of(new Error("vocabSize")), "vocabSize")
    assert.strictEqual(FailureMessage.of("text"), "text")
  })
})
