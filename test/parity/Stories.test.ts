/**
 * Parity with llama2.c: its model of 260,032 parameters, trained on stories, gives the scores and the greedy text that
 * its own program gives, from its own file and from every form that it is converted to.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Option } from "effect"
import { Backend } from "../../src/backend/Backend.ts"
import * as OnnxRuntime from "../../src/backend/onnx/OnnxRuntime.ts"
import * as Checkpoint from "../../src/llama/Checkpoint.ts"
import * as CheckpointWriter from "../../src/llama/CheckpointWriter.ts"
import * as Config from "../../src/llama/Config.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { causal } from "../../src/llama/Visibility.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as TokenizerFormat from "../../src/token/TokenizerFormat.ts"
import { agree } from "../law/Evaluation.ts"
import { scoresOf } from "../llama/checkpoints.ts"

const folder = process.env["CRIA_TEST_DATA"]

/** What llama2.c's program writes of its own accord, always taking the likeliest token. */
const story = [
  1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267, 337, 410, 408,
  419, 292, 411, 322, 265, 282, 295, 433, 426, 385, 328, 432, 358, 394, 261, 370, 432, 352, 266, 268, 388, 426, 338,
  391, 266, 267, 337, 335, 312, 432, 398, 312, 286, 267, 414, 270, 333, 415, 426, 13, 438, 310, 439, 419, 357, 336,
  432, 313, 438, 310, 432, 278, 316, 439, 419, 298, 414, 267, 265, 282, 295, 433, 426, 436, 317, 286, 296, 418, 269,
  279, 292, 416, 439, 413, 409, 416, 327, 263, 415, 294, 267, 400, 426, 338, 336, 432, 313, 442, 391, 267, 337, 335,
  364, 420, 268, 388, 432, 398, 359, 280, 303, 439, 413, 272, 417, 264, 312, 426, 436, 13, 438, 310, 286, 296, 418,
  269, 279, 292, 416, 439, 413, 409, 416, 327, 263, 415, 294, 267, 400, 426, 338, 336, 432, 313, 442, 439, 423, 262,
  304, 420, 422, 432, 317, 426, 359, 279, 292, 416, 439, 413, 409, 416, 327, 263, 415, 294, 267, 400, 426, 436, 13,
  438, 310, 279, 292, 416, 439, 413, 391, 267, 281, 421, 427, 311, 357, 432, 384
]

/** After each token of a sequence the likeliest next one, and the mean negative log-likelihood of these. */
const likeliest = (checkpoint: Checkpoint.Checkpoint, ids: ReadonlyArray<number>) =>
  Effect.scoped(Effect.gen(function*() {
    const backend = yield* Backend
    const model = Transformer.llama(checkpoint.config)
    const parameters = yield* backend.allocate(Specification.zeros(model.specification))
    yield* Checkpoint.load(checkpoint, parameters)
    const program = yield* Program.makeGeneric("scores", {
      inputs: { ids: Specification.ids({ batch: 1, position: ids.length }) }, state: { parameters: model.specification }
    }, ({ ids }, { parameters }) => {
      const logits = model.logits(parameters, model.hidden(parameters, { ids, visibility: causal }))
      return { outputs: { logits, total: T.logSumExp(logits, "vocab") } }
    })
    const { run } = yield* (yield* backend.compile(program)).bind({ parameters })
    const { logits, total } = yield* run({ ids: Int32Array.from(ids) })
    const { vocabSize } = checkpoint.config
    const rows = ids.map((_, i) => logits.elements.subarray(i * vocabSize, (i + 1) * vocabSize))
    const best = rows.map((row) => Math.max(...row))
    return {
      next: rows.map((row, i) => row.indexOf(best[i]!)),
      loss: best.reduce((sum, score, i) => sum + total.elements[i]! - score, 0) / ids.length
    }
  }))

describe("llama2.c's stories260K", () => {
  it.effect.skipIf(folder === undefined)("is read, and has its scores (needs CRIA_TEST_DATA)", () =>
    Effect.gen(function*() {
      const checkpoint = yield* Checkpoint.open(`${folder}/stories260K.bin`)
      assert.deepStrictEqual(checkpoint.config, Config.presets.stories260K)
      assert.isTrue(checkpoint.isTied)
      const beginning = story.slice(0, 15)
      const scores = yield* scoresOf(checkpoint, beginning, { batch: 1, position: beginning.length })
      const row = (position: number) => scores.slice(512 * position, 512 * (position + 1))
      agree(row(0).slice(0, 4), [-6.222914, 8.404342, -6.223739, -6.222544], 1e-6)
      agree([row(0)[403]!], [17.023515], 1e-6)
      agree([Math.log(row(0).reduce((sum, x) => sum + Math.exp(x), 0))], [17.267259], 1e-6)
      assert.deepStrictEqual(beginning.map((_, i) => row(i).indexOf(Math.max(...row(i)))).slice(0, -1),
        beginning.slice(1))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect.skipIf(folder === undefined)("tells the same story after every conversion (needs CRIA_TEST_DATA)", () =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const scratch = yield* fileSystem.makeTempDirectoryScoped()
      const path = (name: string) => `${scratch}/${name}`
      const given = yield* Checkpoint.open(`${folder}/stories260K.bin`)
      const tokenizer = yield* TokenizerFormat.load(`${folder}/tok512.bin`)
      const told = yield* likeliest(given, story)
      assert.lengthOf(story, 200)
      assert.deepStrictEqual(told.next.slice(0, -1), story.slice(1))
      assert.closeTo(told.loss, 0.473418, 2e-6)

      // each is converted from the one before
      const reopened = Effect.fnUntraced(function*(name: string) {
        const checkpoint = yield* Checkpoint.open(path(name), { contextLength: 512 })
        assert.deepStrictEqual(checkpoint.config, given.config)
        assert.deepStrictEqual(yield* likeliest(checkpoint, story), told, name)
        return { ...checkpoint, tokenizer: Option.getOrThrow(yield* checkpoint.tokenizer).model }
      })
      yield* CheckpointWriter.huggingFace(path("huggingface"), { ...given, tokenizer })
      yield* CheckpointWriter.meta(path("meta"), yield* reopened("huggingface"))
      yield* CheckpointWriter.gguf(path("a.gguf"), yield* reopened("meta"))
      const last = yield* reopened("a.gguf")
      yield* CheckpointWriter.llama2c(path("b.bin"), last)
      yield* CheckpointWriter.llama2cTokenizer(path("tokenizer.bin"), last.tokenizer)
      const whole = yield* reopened("b.bin")
      yield* CheckpointWriter.llama2c(path("c.bin"), whole, { version: 1 })
      yield* reopened("c.bin")

      // the very bytes, but for the tables of rotation, which are computed anew and read by nobody
      const [before, after] = [yield* fileSystem.readFile(`${folder}/stories260K.bin`),
        yield* fileSystem.readFile(path("b.bin"))]
      const weights = 28 + 4 * 260_032
      assert.strictEqual(after.length, before.length)
      assert.isTrue(Buffer.from(after).subarray(0, weights).equals(Buffer.from(before).subarray(0, weights)))
      const floats = (bytes: Uint8Array) => [...new Float32Array(bytes.slice(weights).buffer)]
      agree(floats(new Uint8Array(after)), floats(new Uint8Array(before)), 1e-6)
      const vocabulary = yield* fileSystem.readFile(path("tokenizer.bin"))
      assert.isTrue(Buffer.from(vocabulary).equals(Buffer.from(yield* fileSystem.readFile(`${folder}/tok512.bin`))))
      const codec = yield* Effect.fromResult(Tokenizer.fromModel(tokenizer))
      assert.match(codec.decode(story), /^Once upon a time, there was a little girl named/)
    }).pipe(Effect.scoped, Effect.provide([NodeServices.layer, OnnxRuntime.layer()])))
})
