/**
 * Checkpoints with changed, cut and swapped bytes: opened and read to the end, whole and in pieces, they give numbers
 * or a typed error, and never a defect. CRIA_FORMAT_RUNS says how many of each form.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, FileSystem, Result } from "effect"
import * as Checkpoint from "../../src/llama/Checkpoint.ts"
import * as CheckpointWriter from "../../src/llama/CheckpointWriter.ts"
import * as Config from "../../src/llama/Config.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Key from "../../src/random/Key.ts"
import { count } from "../../src/tensor/Node.ts"
import { leaves } from "../../src/tensor/Specification.ts"
import { cutInTwo } from "../llama/checkpoints.ts"

const runs = Number(process.env["CRIA_FORMAT_RUNS"] ?? 40)

const config = Config.make({
  vocabSize: 6, embedSize: 4, layerCount: 1, headCount: 2, hiddenSize: 4, contextLength: 4
})
const sizes = new Map(leaves(Transformer.llama(config).specification).map(([path, { sizes }]) => [path, count(sizes)]))
const model: CheckpointWriter.Source = {
  config, tokenizer: undefined, read: (path) => Effect.succeed(new Float32Array(sizes.get(path)!).fill(path.length))
}

const metaInTwo = (at: string) =>
  Effect.andThen(CheckpointWriter.meta(`${at}/whole`, model), Effect.scoped(cutInTwo(`${at}/whole`, `${at}/a`, config)))

/** The form of each file that is changed, and how it is written. */
const forms = {
  "a/config.json": (at: string) => CheckpointWriter.huggingFace(`${at}/a`, model),
  "a/model.safetensors": (at: string) => CheckpointWriter.huggingFace(`${at}/a`, model),
  "a/model.safetensors.index.json": (at: string) => CheckpointWriter.huggingFace(`${at}/a`, model, { shardBytes: 99 }),
  "a/params.json": (at: string) => CheckpointWriter.meta(`${at}/a`, model),
  "a/consolidated.00.pth": (at: string) => CheckpointWriter.meta(`${at}/a`, model),
  "a/consolidated.01.pth": metaInTwo,
  "a.gguf": (at: string) => CheckpointWriter.gguf(`${at}/a.gguf`, model),
  "a.bin": (at: string) => CheckpointWriter.llama2c(`${at}/a.bin`, model, { version: 2 })
}

/** One to four bytes changed, or the end cut off, or a part put in another's place. */
const changed = (bytes: Uint8Array, key: Key.Key): Uint8Array => {
  const below = (index: number, most: number): number => Key.below(key, index, most)
  const head = Math.min(bytes.length, below(0, 2) === 0 ? 400 : bytes.length) // where lengths and names are
  const result = new Uint8Array(bytes)
  const kind = below(1, 4)
  if (kind === 0) return result.subarray(0, below(2, bytes.length))
  if (kind === 1) {
    result.copyWithin(below(2, head), below(3, head), below(4, head))
    return result
  }
  for (let i = 0; i <= below(5, 4); i++) result[below(6 + 2 * i, head)] = below(7 + 2 * i, 256)
  return result
}

describe("changed checkpoints", () => {
  it.effect.each(Object.entries(forms))("%s", ([name, write]) =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const folder = yield* fileSystem.makeTempDirectoryScoped()
      yield* write(folder)
      const file = `${folder}/${name}`
      const path = name.includes("/") ? `${folder}/a` : file
      const original = new Uint8Array(yield* fileSystem.readFile(file))
      let refused = 0
      for (let run = 0; run < runs; run++) {
        const bytes = changed(original, Key.derive(Key.make(name), run))
        yield* fileSystem.writeFile(file, bytes)
        const exit = yield* Effect.exit(Effect.scoped(Effect.gen(function*() {
          const checkpoint = yield* Checkpoint.open(path)
          for (const [path, { sizes }] of checkpoint.parameters) {
            const elements = yield* checkpoint.read(path)
            assert.strictEqual(elements.length, sizes.reduce((a, b) => a * b, 1))
            const parts = yield* checkpoint.pieces(path)
            let count = 0
            yield* parts?.each(1, (piece) => Result.succeed(void (count += piece.length))) ?? Effect.void
            assert.strictEqual(count, parts === undefined ? 0 : elements.length)
          }
        })))
        if (Exit.isSuccess(exit)) continue
        refused++
        const isTyped = exit.cause.reasons.every((reason) => reason._tag === "Fail" && reason.error.message !== "")
        assert.isTrue(isTyped, `${name}, run ${run}: ${exit.cause}`)
      }
      assert.isAbove(refused, runs / 10)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)), 600_000)
})
