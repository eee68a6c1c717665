/**
 * llama2.c's own programs over files that were exported here: the greedy text is that of `cria generate`. In float32 to
 * the last token; in 8 bit for its first half, for `runq` codes what it multiplies weights with as well.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer, Option } from "effect"
import { execFileSync } from "node:child_process"
import * as OnnxRuntime from "../../src/backend/onnx/OnnxRuntime.ts"
import * as CheckpointSource from "../../src/cli/CheckpointSource.ts"
import { decoderOf, idsOf, settingsOf } from "../../src/cli/Continuation.ts"
import * as Answer from "../../src/generate/Answer.ts"
import { greedy } from "../../src/generate/Sampling.ts"
import * as CheckpointWriter from "../../src/llama/CheckpointWriter.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"

const data = process.env["CRIA_TEST_DATA"]

/** The binaries of run.c and runq.c. */
const peers = { 0: process.env["CRIA_PEER_LLAMA2C"], 2: process.env["CRIA_PEER_LLAMA2C_RUNQ"] } as const
const prompts = ["", "One day, a cat"]
const count = 200

const open = (path: string, tokenizer: Option.Option<string> = Option.none()) =>
  CheckpointSource.open({ path, tokenizer, contextLength: Option.none() })

/** What `cria generate --greedy` writes. */
const ours = Effect.fnUntraced(function*(path: string) {
  const source = yield* open(path)
  const codec = yield* CheckpointSource.codecOf(source)
  return yield* Effect.gen(function*() {
    const decoder = yield* decoderOf(source, { weights: "f32", slots: 1 })
    const settings = settingsOf(codec, { rule: greedy, maximumTokens: count, seed: 0 })
    const answers = yield* Answer.collect(decoder.generate({
      ...settings, prompts: prompts.map((prompt) => idsOf(codec, prompt))
    }))
    return answers.map(({ text }, i) => `${prompts[i]}${text}`)
  }).pipe(Effect.provide([Transformer.layer, Layer.succeed(Tokenizer.Tokenizer, codec)]))
})

const theirs = (binary: string, path: string, tokenizer: string): ReadonlyArray<string> =>
  prompts.map((prompt) =>
    execFileSync(binary, [path, "-t", "0", "-n", String(count), "-i", prompt, "-z", tokenizer], { encoding: "utf8" }))

describe("llama2.c's programs", () => {
  for (const version of [0, 2] as const) {
    const variable = version === 0 ? "CRIA_PEER_LLAMA2C" : "CRIA_PEER_LLAMA2C_RUNQ"
    const peer = peers[version]
    it.effect.skipIf(data === undefined || peer === undefined)(
      `continue alike from version ${version} (needs CRIA_TEST_DATA and ${variable})`,
      () => Effect.gen(function*() {
        const folder = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped()
        const source = yield* open(`${data}/stories260K.bin`, Option.some(`${data}/tok512.bin`))
        const [path, tokenizer] = [`${folder}/stories.bin`, `${folder}/stories.tokenizer.bin`]
        yield* CheckpointWriter.llama2c(path, source, { version })
        if (source.tokenizer !== undefined) yield* CheckpointWriter.llama2cTokenizer(tokenizer, source.tokenizer)
        const found = theirs(peer ?? "", path, tokenizer)
        for (const [i, text] of (yield* ours(path)).entries()) {
          const length = version === 0 ? 400 : 200 // theirs counts the prompt's tokens too
          assert.isAtLeast(text.length, length)
          assert.strictEqual(text.slice(0, length), found[i]?.slice(0, length))
        }
      }).pipe(Effect.scoped, Effect.provide([NodeServices.layer, OnnxRuntime.layer()]))
    )
  }
})
