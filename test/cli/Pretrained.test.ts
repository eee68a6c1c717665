import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Path } from "effect"
import * as Snapshot from "../../src/store/Snapshot.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { filledUp, printed, told, withModel } from "./checkpoints.ts"
import { alone, rows, tiny, withFiles } from "./Cria.ts"

/** The parameters of a snapshot, one after another. */
const parametersOf = (disk: MemoryDisk.MemoryDisk, folder: string) =>
  Effect.map(Snapshot.load(folder, ["model"]), ({ tensors }) =>
    (tensors["model"] ?? []).flatMap(({ bytes }) => [...new Float64Array(new Uint8Array(bytes).buffer)])).pipe(
    Effect.provideService(FileSystem.FileSystem, disk.fileSystem), Effect.provide([Path.layer, alone]))

/** Flags of a run of two steps that learn next to nothing. */
const idle = [
  "--text", "/texts/a.jsonl", "--backend", "reference", "--steps", "2", "--warmup", "1", "--batch-size", "2",
  "--sequence-length", "16", "--validation-share", "0.2", "--snapshot-every", "1", "--learning-rate", "1e-9"
]

describe("cria pretrain --from", () => {
  it.live("goes on with parameters and tokenizer of a checkpoint, also when it is resumed at its beginning", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, { "/texts/a.jsonl": rows })
      yield* printed(disk, "pretrain", "--text", "/texts/a.jsonl", "--out", "/runs/a", ...tiny())
      const output = yield* printed(disk, "pretrain", "--from", "/runs/a", "--out", "/runs/b", ...idle)
      assert.include(output, "tokenizer  that of /runs/a\n")
      const before = yield* parametersOf(disk, "/runs/a/snapshot-00000004")
      const after = yield* parametersOf(disk, "/runs/b/snapshot-00000002")
      assert.strictEqual(after.length, before.length)
      after.forEach((value, i) => assert.closeTo(value, before[i]!, 1e-7))
      assert.notDeepEqual(after, before)
      const read = (path: string) => disk.fileSystem.readFile(path)
      assert.deepStrictEqual(yield* read("/runs/b/tokenizer.model"), yield* read("/runs/a/tokenizer.model"))

      yield* printed(disk, "pretrain", "--config", "/runs/b/configuration.json", "--out", "/runs/c")
      assert.deepStrictEqual(yield* parametersOf(disk, "/runs/c/snapshot-00000002"), after)

      for (const step of [1, 2]) {
        yield* disk.fileSystem.remove(`/runs/b/${Snapshot.nameOf(step)}`, { recursive: true })
      }
      yield* printed(disk, "pretrain", "--resume", "--out", "/runs/b")
      assert.deepStrictEqual(yield* parametersOf(disk, "/runs/b/snapshot-00000002"), after)
    }))
  it.live("is replayed from the checkpoint, where the run has one snapshot", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, { "/texts/a.jsonl": rows })
      yield* printed(disk, "pretrain", "--text", "/texts/a.jsonl", "--out", "/runs/a", ...tiny())
      yield* printed(disk, "pretrain", "--from", "/runs/a", "--out", "/runs/b", ...idle, "--keep", "1")
      const output = yield* printed(disk, "pretrain", "--verify-resume", "--out", "/runs/b")
      assert.match(output, /\nequal {6}steps 0 to 2: \d+ tensors and 2 journal lines, bit for bit\n/)
    }))
  it.live("takes a vocabulary that was filled up once it is imported, and says so", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, { "/texts/a.jsonl": rows })
      yield* printed(disk, "pretrain", "--text", "/texts/a.jsonl", "--out", "/runs/a", ...tiny())
      yield* printed(disk, "export", "/runs/a", "--to", "huggingface", "--out", "/hf")
      yield* filledUp(disk, "/hf", "/filled", 330)
      assert.strictEqual(yield* told(disk, "pretrain", "--from", "/filled", "--out", "/runs/b", ...idle),
        "error: /filled: a run cannot begin from it: the model knows 330 tokens, and its tokenizer in " +
          "/filled/tokenizer.model 320\n  Make it a " +
          "folder of Cria's own first: cria import /filled --out runs/NAME, which leaves out the tokens that the " +
          "tokenizer does not have. Then give that with --from.\n")
      yield* printed(disk, "import", "/filled", "--out", "/runs/filled")
      yield* printed(disk, "pretrain", "--from", "/runs/filled", "--out", "/runs/b", ...idle)
    }))
  it.live("takes no other sizes, no other epsilon, and no model without a tokenizer", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      yield* withFiles(disk, { "/texts/a.jsonl": rows })
      assert.strictEqual(yield* told(disk, "pretrain", "--from", "/hf", ...idle, "--embed-size", "8"),
        "error: --from /hf decides the sizes of the model, and --embed-size cannot change them\n  Leave --from out " +
          "for a model of other sizes, or the sizes for this one.\n")
      assert.include(yield* told(disk, "pretrain", "--from", "/hf", ...idle, "--preset", "1M"),
        "error: --from /hf decides the sizes of the model, and --preset cannot")
      assert.include(yield* told(disk, "pretrain", "--from", "/hf", ...idle, "--out", "/runs/c"),
        "error: /hf: a run cannot begin from it: it has no tokenizer\n  Make it a folder of Cria's own first: cria " +
          "import /hf --out runs/NAME --tokenizer PATH, with the one it learned with. Then give that with --from.\n")
      yield* printed(disk, "import", "/hf", "--out", "/own")
      assert.strictEqual(yield* told(disk, "pretrain", "--from", "/own", ...idle, "--out", "/runs/c"),
        "error: /own: a run cannot begin from it: it has no tokenizer\n  Put the tokenizer.model that it learned " +
          "with into it.\n")
      const config = yield* disk.fileSystem.readFileString("/hf/config.json")
      yield* withFiles(disk, { "/hf/config.json": config.replace("1e-05", "1e-06") })
      assert.include(yield* told(disk, "pretrain", "--from", "/hf", ...idle, "--out", "/runs/d"),
        "its epsilon is 0.000001 and its theta 10000; runs have 0.00001 and 10000")
    }))
})
