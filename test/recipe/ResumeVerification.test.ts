import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer, Option, Path, Stream } from "effect"
import * as Reference from "../../src/backend/Reference.ts"
import * as TokenStore from "../../src/data/TokenStore.ts"
import type * as Safetensors from "../../src/format/Safetensors.ts"
import * as Config from "../../src/llama/Config.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Pretrain from "../../src/recipe/Pretrain.ts"
import { verify } from "../../src/recipe/ResumeVerification.ts"
import * as Journal from "../../src/store/Journal.ts"
import * as Snapshot from "../../src/store/Snapshot.ts"
import * as SnapshotStore from "../../src/store/SnapshotStore.ts"

const encoder = {
  encode: (text: string) => [...text].map((letter) => 1 + letter.charCodeAt(0) % 15), bosId: 0, vocabSize: 16
}
const data = {
  train: TokenStore.fromTexts(["the quick brown fox", "jumps over", "the lazy dog"], encoder),
  validation: TokenStore.fromTexts(["a dog jumps"], encoder)
}
const config: Pretrain.Config = {
  ...Pretrain.defaults,
  model: Config.make({ vocabSize: 16, embedSize: 4, layerCount: 1, headCount: 1, multipleOf: 4, contextLength: 8 }),
  sequenceLength: 4, batchSize: 2, stepCount: 5, warmupSteps: 1, learningRate: 0.01, evaluateEvery: 3, snapshotEvery: 2
}
const origin = {
  data, tokenizerHash: "letters",
  environment: { engine: { name: "reference", version: "1" }, cpu: { model: "any", features: [] }, threadCount: 1 }
}
const store = (folder: string) =>
  Layer.provideMerge(Journal.layer(), SnapshotStore.layer({ folder, keepLast: 9 }))

/** Runs until a step, in a folder of its own. */
const trained = Effect.fnUntraced(function*(until: number) {
  const folder = yield* Effect.flatMap(FileSystem.FileSystem, (files) => files.makeTempDirectoryScoped())
  yield* Pretrain.pretrain(config, { ...origin, resume: "never" }).pipe(
    Stream.takeUntil((event) => event._tag === "Stepped" && event.step === until), Stream.runDrain,
    Effect.provide(store(folder))
  )
  return folder
})

/** Changes one tensor of the snapshot of a step, and saves it anew with a checksum that fits. */
const tamper = Effect.fnUntraced(function*(folder: string, step: number, file: string, name: string) {
  const path = yield* Path.Path
  const files = yield* FileSystem.FileSystem
  const target = path.join(folder, Snapshot.nameOf(step))
  const { manifest, tensors } = yield* Snapshot.load(target)
  const change = (tensor: Safetensors.Tensor): Safetensors.Tensor =>
    tensor.name === name ? { ...tensor, bytes: tensor.bytes.map((byte, i) => i === 9 ? byte ^ 1 : byte) } : tensor
  const changed = { ...tensors, [file]: (tensors[file] ?? []).map(change) }
  yield* files.remove(target, { recursive: true })
  yield* Effect.flatMap(SnapshotStore.SnapshotStore, ({ save }) => save({ ...manifest, tensors: changed })).pipe(
    Effect.provide(store(folder))
  )
})

const world = Layer.mergeAll(Reference.layer, Transformer.layer, NodeServices.layer)

const check = (folder: string) => verify(folder, config, origin)

describe("ResumeVerification", () => {
  it.live("finds a run equal between its last two snapshots, also where the last was saved on leaving", () =>
    Effect.gen(function*() {
      const whole = yield* check(yield* trained(5))
      assert.deepInclude(whole, { from: 4, to: 5, lineCount: 1, divergence: Option.none() })
      const left = yield* check(yield* trained(3))
      assert.deepInclude(left, { from: 2, to: 3, lineCount: 1, divergence: Option.none() })
      assert.strictEqual(left.tensorCount, 3 * 12)
    }).pipe(Effect.provide(world)))
  it.live("replays from the beginning where there is one snapshot, and says where there is none", () =>
    Effect.gen(function*() {
      const report = yield* check(yield* trained(1))
      assert.deepInclude(report, { from: 0, to: 1, lineCount: 1, divergence: Option.none() })
      const empty = yield* Effect.flatMap(FileSystem.FileSystem, (files) => files.makeTempDirectoryScoped())
      assert.match((yield* Effect.flip(check(empty))).message, /has no snapshot yet, so there is nothing to replay to/)
    }).pipe(Effect.provide(world)))
  it.live("names the element in which a replay differs, of a parameter or of a moment", () =>
    Effect.gen(function*() {
      for (const [file, tensor] of [["model", "norm"], ["optimizer", "head"]] as const) {
        const folder = yield* trained(5)
        const path = yield* Path.Path
        const { tensors } = yield* Snapshot.load(path.join(folder, Snapshot.nameOf(5)))
        const name = tensors[file]?.map(({ name }) => name).find((name) => name.includes(tensor)) ?? ""
        yield* tamper(folder, 5, file, name)
        const { divergence } = yield* check(folder)
        const found = Option.getOrThrow(divergence)
        assert.strictEqual(found.place, `${file} ${name}, element 1`)
        assert.notStrictEqual(found.saved, found.replayed)
      }
    }).pipe(Effect.provide(world)))
  it.live("names the journal's step and metric in which a replay differs, before any tensor", () =>
    Effect.gen(function*() {
      const [files, path] = [yield* FileSystem.FileSystem, yield* Path.Path]
      const folder = yield* trained(5)
      const journal = path.join(folder, "journal.jsonl")
      const text = yield* files.readFileString(journal)
      yield* files.writeFileString(journal, text.replace(/"step":5,"loss":[\d.]+/, `"step":5,"loss":7`))
      const found = Option.getOrThrow((yield* check(folder)).divergence)
      assert.deepInclude(found, { place: "journal step 5, loss", saved: "7" })
    }).pipe(Effect.provide(world)))
})
