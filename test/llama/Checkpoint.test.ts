import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, FileSystem, type Path, Result, type Scope } from "effect"
import * as fc from "fast-check"
import { Backend, type Elements } from "../../src/backend/Backend.ts"
import { isCell } from "../../src/backend/HostState.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as Safetensors from "../../src/format/Safetensors.ts"
import * as Checkpoint from "../../src/llama/Checkpoint.ts"
import * as HuggingFaceModel from "../../src/llama/checkpoint/HuggingFaceModel.ts"
import { places, reordered } from "../../src/llama/checkpoint/Layout.ts"
import * as CheckpointWriter from "../../src/llama/CheckpointWriter.ts"
import * as Config from "../../src/llama/Config.ts"
import * as Quantization from "../../src/llama/Quantization.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { count } from "../../src/tensor/Node.ts"
import * as SnapshotStore from "../../src/store/SnapshotStore.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import { entries } from "../../src/tensor/Tree.ts"
import { cutInTwo, scoresOf } from "./checkpoints.ts"

const config = Config.make({
  vocabSize: 12, embedSize: 8, layerCount: 2, headCount: 4, kvHeadCount: 2, hiddenSize: 12, contextLength: 4096
})

/** Every number of a model is another one, so that none can be in another's place. */
const values = new Map<string, Float32Array<ArrayBuffer>>()
let next = 0
for (const [path, { sizes }] of Specification.leaves(Transformer.llama(config).specification)) {
  values.set(path, Float32Array.from({ length: count(sizes) }, () => next++))
}
const model: CheckpointWriter.Source = {
  config, tokenizer: undefined, read: (path) => Effect.succeed(values.get(path)!.slice())
}

const live = (
  name: string, body: (folder: string) => Effect.Effect<void, unknown, FileSystem.FileSystem | Path.Path | Scope.Scope>
) => it.effect(name, () =>
  Effect.gen(function*() {
    yield* body(yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped())
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

const messageOf = (path: string) =>
  Effect.map(Effect.flip(Effect.scoped(Checkpoint.open(path))), ({ message }) => message)

const bytesOf = (elements: Float32Array<ArrayBuffer>) => new Uint8Array(elements.buffer)

/** Saves a run with one snapshot. */
const save = (folder: string, config: Config.Config, model: ReadonlyArray<Safetensors.Tensor>) =>
  SnapshotStore.SnapshotStore.pipe(
    Effect.flatMap(({ save }) => save({
      step: 7, configuration: { ...config, model: config }, dataCursor: null, randomKeys: null, journal: {
        journal: 0, timing: 0
      }, environment: { engine: { name: "x", version: "1" }, cpu: { model: "x", features: [] }, threadCount: 1 },
      dataHash: "", tokenizerHash: "", metrics: {}, tensors: { model }
    })),
    Effect.provide(SnapshotStore.layer({ folder, keepLast: 1 })), Effect.scoped
  )

describe("open", () => {
  live("guesses at nothing: another name, an empty folder, no file", (folder) =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      yield* fileSystem.writeFileString(`${folder}/weights.pt`, "?")
      yield* fileSystem.makeDirectory(`${folder}/empty`)
      assert.include(yield* messageOf(`${folder}/weights.pt`), "found a file of another name")
      assert.include(yield* messageOf(`${folder}/empty`), "found an empty folder")
      assert.include(yield* messageOf(`${folder}/none`), "found nothing")
      assert.include(yield* messageOf(folder), "found empty, weights.pt")
    }))
  live("says all that is missing, foreign or of other sizes at once", (folder) =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      yield* CheckpointWriter.huggingFace(`${folder}/a`, model)
      const { tensors } = yield* Safetensors.read(`${folder}/a/model.safetensors`)
      const changed = tensors.flatMap((tensor): ReadonlyArray<Safetensors.Tensor> => {
        if (tensor.name === "model.norm.weight") return []
        if (tensor.name === "lm_head.weight") return [{ ...tensor, shape: [8, 12] }]
        if (tensor.name.endsWith("1.mlp.up_proj.weight")) return [{ ...tensor, dtype: "I32" }]
        return [tensor]
      })
      yield* Safetensors.write(`${folder}/a/model.safetensors`, [
        ...changed, { name: "lora.a", dtype: "F32", shape: [1], bytes: new Uint8Array(4) },
        { name: "model.layers.0.self_attn.rotary_emb.inv_freq", dtype: "F32", shape: [1], bytes: new Uint8Array(4) }
      ])
      assert.strictEqual(yield* messageOf(`${folder}/a`), [
        `${folder}/a: its tensors must be those that its description asks for`,
        "  missing (1): model.norm.weight [8]", "  not part of the model (1): lora.a",
        "  other sizes or types (2): model.layers.1.mlp.up_proj.weight is I32, which is not read: convert it to F32, " +
        "F16, BF16, Q8_0 or Q4_0; lm_head.weight is [8, 12], not [12, 8]",
        "Weights and description belong to different models, or the download is not whole: fetch them again together."
      ].join("\n"))
      const text = yield* fileSystem.readFileString(`${folder}/a/config.json`)
      yield* fileSystem.writeFileString(`${folder}/a/config.json`, text.replace(/(layers": )2/, "$1999999999"))
      assert.include(yield* messageOf(`${folder}/a`),
        "missing (1): 999999999 blocks take at least 8999999991 tensors, and there are 22")
      yield* fileSystem.writeFileString(`${folder}/a/config.json`, "{}")
      assert.include(yield* messageOf(`${folder}/a`), "/a/config.json: this model is none that Cria computes")
    }))
  live("refuses an index that leaves its folder", (folder) =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      yield* CheckpointWriter.huggingFace(`${folder}/a`, model, { shardBytes: 500 })
      const index = `${folder}/a/model.safetensors.index.json`
      const text = yield* fileSystem.readFileString(index)
      yield* fileSystem.writeFileString(index, text.replace("model-00001-of", "../model-00001-of"))
      assert.include(yield* messageOf(`${folder}/a`), "do not use it")
    }))
  live("joins Meta's shards, each over its own axis", (folder) =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      yield* CheckpointWriter.meta(`${folder}/one`, model)
      yield* cutInTwo(`${folder}/one`, `${folder}/two`, config)
      const checkpoint = yield* Checkpoint.open(`${folder}/two`)
      assert.strictEqual(checkpoint.parameters.get("head")?.bytes, 4 * 12 * 8)
      for (const [path, expected] of values) assert.deepStrictEqual(yield* checkpoint.read(path), expected, path)
      yield* fileSystem.rename(`${folder}/two/consolidated.01.pth`, `${folder}/two/consolidated.02.pth`)
      assert.include(yield* messageOf(`${folder}/two`),
        "found consolidated.00.pth, consolidated.02.pth: shards are numbered from 00 without a gap")
      yield* fileSystem.remove(`${folder}/two/consolidated.02.pth`)
      assert.include(yield* messageOf(`${folder}/two`), "tok_embeddings.weight is [12, 4], not [12, 8]")
    }))
  live("reads the newest snapshot of a run once its checksum is right, in float64 to the bit", (folder) =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const tensors = places(config).map(({ path, sizes }) => ({
        name: path, dtype: "F64" as const, shape: sizes,
        bytes: new Uint8Array(Float64Array.from(values.get(path)!, (x) => x / 3).buffer)
      }))
      yield* save(`${folder}/run`, config, tensors)
      const checkpoint = yield* Checkpoint.open(`${folder}/run`)
      assert.deepStrictEqual([checkpoint.format, checkpoint.path], ["cria", `${folder}/run/snapshot-00000007`])
      assert.deepStrictEqual(checkpoint.config, config)
      const read = yield* checkpoint.read("head")
      assert.deepStrictEqual(read, Float64Array.from(values.get("head")!, (x) => x / 3))
      assert.isUndefined(yield* checkpoint.pieces("head")) // for they are in float32
      const file = `${checkpoint.path}/model.safetensors`
      const bytes = yield* fileSystem.readFile(file)
      bytes[bytes.length - 1]! ^= 1
      yield* fileSystem.writeFile(file, bytes)
      assert.include(yield* messageOf(checkpoint.path), "is not the snapshot that was saved")
    }))
})

describe("load", () => {
  live("fills cells of any width, one parameter after another", (folder) =>
    Effect.gen(function*() {
      yield* CheckpointWriter.meta(`${folder}/a`, model)
      const checkpoint = yield* Checkpoint.open(`${folder}/a`)
      const backend = yield* Backend
      const { specification } = Transformer.llama(config)
      const cells = yield* backend.allocate(Specification.zeros(specification))
      yield* Checkpoint.load(checkpoint, cells)
      const source = CheckpointWriter.fromCells(config, cells, undefined)
      for (const [path, expected] of values) assert.deepStrictEqual([...yield* source.read(path)], [...expected], path)
      assert.include((yield* Effect.flip(source.read("block.9.x"))).message, "the model has no parameter block.9.x")

      const other = Transformer.llama({ ...config, hiddenSize: 14, layerCount: 1 })
      const others = yield* backend.allocate(Specification.zeros(other.specification))
      const misfit = yield* Effect.flip(Checkpoint.load(checkpoint, others))
      assert.include(misfit.message, "not part of the model (9): block.1.attentionNorm.gain; ")
      assert.include(misfit.message,
        "block.0.feedForward.gate is [embed: 8, hidden: 12]; the cell has [embed: 8, hidden: 14]")
    }).pipe(Effect.provide(Reference.layer)))
  it.effect("is refused in 32 bits for 7B in 16 GB, before anything is read", () =>
    Effect.gen(function*() {
      const checkpoint = { config: Config.presets["7B"], path: "llama-2-7b" }
      const weights = { bytes: 4 * Config.parameterCount(checkpoint.config), what: "of weights in float32" }
      const refused = (...given: Parameters<typeof Checkpoint.requireMemory>) =>
        Effect.map(Effect.flip(Checkpoint.requireMemory(...given)), ({ message }) => message)
      yield* Checkpoint.requireMemory(checkpoint, [weights], weights.bytes)
      assert.strictEqual(yield* refused(checkpoint, [weights], 16e9),
        "llama-2-7b takes at least 27.0 GB of memory here, and there are 16.0 GB\n  27.0 GB of weights in float32\n" +
          "  Take weights in fewer bits, a smaller model, or a machine with more memory.")
      const caches = { bytes: 1, what: "of caches" } // together they are refused
      assert.include(yield* refused(checkpoint, [weights, caches], weights.bytes, ["a shorter context"]),
        "\n  27.0 GB of weights in float32, 1 kB of caches\n  Take a shorter context, or a machine")
    }))
})

describe("pieces", () => {
  const large = Config.make({ ...config, vocabSize: 66_000, embedSize: 32, headSize: 8, hiddenSize: 64 })
  const { specification } = Transformer.llama(large)
  const weights = new Map(Specification.leaves(specification).map(([path, { sizes }]) =>
    [path, Float32Array.from({ length: count(sizes) }, (_, i) => (i * 7919 % 2039 - 1019) / 4096)]))
  const source: CheckpointWriter.Source = {
    config: large, tokenizer: undefined, read: (path) => Effect.succeed(weights.get(path)!.slice())
  }

  const loaded = (checkpoint: Checkpoint.Checkpoint, width: Quantization.Width, isByPieces: boolean) =>
    Effect.gen(function*() {
      const model = yield* Quantization.quantized(Transformer.llama(large), Quantization.schemeOf(width, large))
      const cells = yield* Quantization.load(model, checkpoint.read, isByPieces ? checkpoint.pieces : undefined)
      const backend = yield* Backend
      return yield* Effect.forEach(entries(cells, isCell), ([path, cell]) =>
        Effect.map(backend.read({ cell }), ({ cell }) => [path, cell?.elements] as const))
    }).pipe(Effect.scoped, Effect.provide(Reference.layer))

  /** Nothing is shown of so many elements but the place of the first that differs. */
  const same = (found: Elements, wanted: Elements, what: string) => {
    assert.strictEqual(found.length, wanted.length, what)
    let at = 0
    while (at < found.length && found[at] === wanted[at]) at++
    assert.strictEqual(at, found.length, what)
  }

  const { gguf, huggingFace, meta } = CheckpointWriter
  const twoShards = (path: string) =>
    Effect.andThen(meta(`${path}-whole`, source), cutInTwo(`${path}-whole`, path, large))
  const snapshot = (path: string) => save(path, large, places(large).map(({ path, sizes }) =>
    ({ name: path, dtype: "F32", shape: sizes, bytes: bytesOf(weights.get(path)!) })))
  const forms = {
    "Hugging Face": [(path: string) => huggingFace(path, source), ["8-bit-rows"]],
    "Meta in two shards": [twoShards, ["8-bit"]],
    "GGUF": [(path: string) => gguf(path, source), ["4-bit"]],
    "Cria": [snapshot, ["4-bit", "8-bit-rows"]]
  } as const
  for (const [format, [write, widths]] of Object.entries(forms)) {
    live(`of ${format} are all of a parameter, in the order of the file, and give the codes of the whole`, (folder) =>
      Effect.gen(function*() {
        const path = format === "GGUF" ? `${folder}/a.gguf` : `${folder}/a`
        yield* write(path)
        const checkpoint = yield* Checkpoint.open(path)
        let several = 0
        for (const [parameter, { sizes }] of Specification.leaves(specification)) {
          const { each, lying } = (yield* checkpoint.pieces(parameter))!
          const together = parameter === "head" ? 3 * large.embedSize : 1
          const [found, starts] = [new Float32Array(count(sizes)), new Array<number>()]
          let before: ArrayBuffer | undefined
          yield* each(together, (elements, start) => {
            assert.strictEqual(elements.length % together, 0)
            found.set(elements, start)
            starts.push(start)
            assert.notStrictEqual(elements.buffer, before) // where the next piece is read to
            before = elements.buffer
            return Result.void
          })
          several += starts.length > 2 ? 1 : 0
          same(reordered(found, lying, sizes), yield* checkpoint.read(parameter), parameter)
        }
        assert.strictEqual(several, 2) // embedding and head
        for (const width of widths) {
          const whole = new Map(yield* loaded(checkpoint, width, false))
          for (const [path, codes] of yield* loaded(checkpoint, width, true)) same(codes!, whole.get(path)!, path)
        }
      }))
  }

  live("end where one of them is refused or the reading is interrupted; unknown ones are told", (folder) =>
    Effect.gen(function*() {
      yield* CheckpointWriter.huggingFace(`${folder}/a`, source)
      const checkpoint = yield* Checkpoint.open(`${folder}/a`)
      const { each } = (yield* checkpoint.pieces("head"))!
      let calls = 0
      assert.strictEqual(yield* Effect.flip(each(1, () => Result.fail(++calls))), 1)
      const fiber = yield* Effect.forkChild(each(1, () => {
        calls++
        fiber.interruptUnsafe()
        return Result.void
      }))
      yield* Fiber.await(fiber)
      assert.strictEqual(calls, 2)
      assert.include((yield* Effect.flip(checkpoint.pieces("block.9.x"))).message, "block.9.x")
      const fewer = Result.getOrThrow(Checkpoint.withVocabulary(checkpoint, 65_000))
      assert.isUndefined(yield* fewer.pieces("head")) // for the rows that are left out lie between others in it
      assert.isDefined(yield* fewer.pieces("block.0.attention.query"))
    }))
})

describe("withVocabulary", () => {
  const checkpoint = { config, path: "a", read: model.read }
  it.effect("gives the scores of the first tokens alone, whatever those beyond them hold", () =>
    Effect.promise(() => fc.assert(fc.asyncProperty(
      fc.integer({ min: 9, max: 12 }), fc.array(fc.nat(5), { minLength: 1, maxLength: 4 }),
      async (pieces, tokens) => {
        const small = { // as of a draw, so that scores are of their usual size
          ...checkpoint, read: (path: string) => Effect.map(checkpoint.read(path), (all) => all.map((x) => Math.sin(x)))
        }
        const sizes = { batch: 1, position: tokens.length }
        const whole = await Effect.runPromise(scoresOf(small, tokens, sizes))
        const part = await Effect.runPromise(
          scoresOf(Result.getOrThrow(Checkpoint.withVocabulary(small, pieces)), tokens, sizes))
        const expected = Array.from(whole).filter((_, i) => i % config.vocabSize < pieces)
        assert.strictEqual(part.length, expected.length)
        expected.forEach((score, i) => assert.closeTo(part[i]!, score, 1e-12))
      }), { numRuns: 10 })))
  it("refuses another model's tokenizer, by its size", () => {
    const isTaken = (pieces: number) => Result.isSuccess(Checkpoint.withVocabulary(checkpoint, pieces))
    assert.deepStrictEqual([8, 9, 12, 13].map(isTaken), [false, true, true, false])
  })
})

describe("changed files", () => {
  live("are told, never read as another model", (folder) =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      yield* CheckpointWriter.huggingFace(`${folder}/a`, model)
      const text = HuggingFaceModel.print({ config, isTied: false }, "F32", undefined)
      for (let i = 0; i < text.length; i += 7) {
        const cut = `${text.slice(0, i)}${text.slice(i + 1)}`
        yield* fileSystem.writeFileString(`${folder}/a/config.json`, cut)
        const exit = yield* Effect.exit(Effect.scoped(Checkpoint.open(`${folder}/a`)))
        if (Exit.isSuccess(exit)) assert.deepStrictEqual(exit.value.parameters.size, values.size)
        else assert.isTrue(exit.cause.reasons.every(({ _tag }) => _tag === "Fail"), `${i}: ${exit.cause}`)
      }
    }))
})
