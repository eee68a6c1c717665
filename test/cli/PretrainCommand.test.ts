import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, FileSystem, Path } from "effect"
import { createHash } from "node:crypto"
import * as Snapshot from "../../src/store/Snapshot.ts"
import * as SnapshotStore from "../../src/store/SnapshotStore.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { alone, bytes, cria, rows, tiny, withFiles } from "./Cria.ts"

const machine = (files: Readonly<Record<string, string | Uint8Array>> = {}) =>
  Effect.gen(function*() {
    const disk = MemoryDisk.make()
    yield* withFiles(disk, { "/texts/a.jsonl": rows, ...files })
    return disk
  })

const pretrain = (changed: Readonly<Record<string, string>> = {}) =>
  ["pretrain", "--text", "/texts/a.jsonl", "--out", "/runs/a", ...tiny(changed)]

const digest = (content: Uint8Array): string => createHash("sha256").update(content).digest("hex")

/** What a run leaves that the clock does not decide. */
const remains = (disk: MemoryDisk.MemoryDisk) =>
  Object.fromEntries(
    [...disk.files()].filter(([path]) => path.startsWith("/runs") && !/timing|run\.lock/.test(path))
      .filter(([path]) => !path.includes("manifest")) // it counts the bytes of the timings
      .map(([path, content]) =>
        [path, path.includes("json") ? Buffer.from(content).toString() : digest(content)])
  )

const trained = Effect.fnUntraced(function*(changed: Readonly<Record<string, string>> = {}) {
  const disk = yield* machine()
  const outcome = yield* cria(disk, pretrain(changed))
  assert.strictEqual(outcome.errors, "")
  assert.isTrue(Exit.isSuccess(outcome.exit))
  return { ...outcome, disk }
})

/** Puts a NaN into a parameter of a snapshot, whose checksums are right all the same. */
const spoil = (disk: MemoryDisk.MemoryDisk, step: number, parameter: string) =>
  Effect.gen(function*() {
    const folder = `/runs/a/${Snapshot.nameOf(step)}`
    const { manifest, tensors } = yield* Snapshot.load(folder)
    const model = (tensors["model"] ?? []).map((tensor) => {
      const bytes = tensor.bytes.slice()
      if (tensor.name === parameter) new Float64Array(bytes.buffer)[1] = NaN
      return { ...tensor, bytes }
    })
    yield* disk.fileSystem.remove(folder, { recursive: true })
    const spoiled = { ...manifest, tensors: { ...tensors, model } }
    yield* Effect.flatMap(SnapshotStore.SnapshotStore, ({ save }) => save(spoiled))
      .pipe(Effect.provide(SnapshotStore.layer({ folder: "/runs/a", keepLast: 9 })))
  }).pipe(Effect.provideService(FileSystem.FileSystem, disk.fileSystem), Effect.provide([Path.layer, alone]))

/** Runs and fails: what is said. */
const refused = (disk: MemoryDisk.MemoryDisk, args: ReadonlyArray<string>) =>
  Effect.map(cria(disk, args), ({ errors, exit }) => {
    assert.isTrue(Exit.isFailure(exit), "it did not fail")
    assert.notMatch(errors, /\n\s+at /, "a stack was shown")
    return errors
  })

describe("cria pretrain", () => {
  it.live("trains, draws the curve, continues a prompt, and leaves everything in one folder", () =>
    Effect.gen(function*() {
      const { disk, output } = yield* trained({ "--prompt": "One day" })
      const lines = output.split("\n")
      for (const pattern of [
        /^text {7}\/texts\/a\.jsonl$/,
        /^tokenizer {2}320 pieces from \d+ words in/,
        /^tokens {5}\d.* to learn from, .* to measure on \(\d\.\d\d bytes a token\)$/,
        /^engine {5}reference 1, 1 thread, .*FLOP\/s$/,
        /^training {3}5\.59 k parameters, 4 steps of 2 × 16 tokens$/,
        /^step 1\/4 {2}loss 5\.\d\d\d {2}.* tokens\/s {2}\d+ s left$/,
        /^step 4: validation loss 5\.\d{4}, \d\.\d{4} bits per byte$/,
        /^step 4: saved \/runs\/a\/snapshot-00000004 \(\d+ kB\)$/,
        /· loss {3}o validation loss/,
        /^One day│/
      ]) assert.isTrue(lines.some((line) => pattern.test(line)), `${pattern} is not in\n${output}`)
      assert.notInclude(output, "\u001B")
      assert.deepStrictEqual(
        [...disk.files().keys()].filter((path) => path.startsWith("/runs/a/") && !path.includes("snapshot")),
        ["tokenizer.model", "configuration.json", "journal.jsonl", "timing.jsonl"].map((name) => `/runs/a/${name}`)
      )
    }))

  it.live("says which lines the tokenizer did not learn from, and why", () =>
    Effect.gen(function*() {
      const odd = ["so ".repeat(1500), "a bar ▅ of music"].flatMap((text) =>
        [1, 2, 3, 4, 5].map((n) => JSON.stringify({ text: `${text} ${n}` })))
      const disk = yield* machine({ "/texts/a.jsonl": [rows, ...odd].join("\n") })
      const { errors, exit, output } = yield* cria(disk, pretrain({ "--steps": "2", "--snapshot-every": "2" }))
      assert.isTrue(Exit.isSuccess(exit), errors)
      assert.match(output, /^ {11}not from [1-5] lines longer than 4192 bytes; the model learns from them all the/m)
      assert.match(output, /^ {11}not from [1-5] lines with ▅ \(U\+2585\), which training keeps for what is rare/m)
      assert.notInclude((yield* trained()).output, "not from")
    }))

  it.live("echoes its configuration in a form that gives the same run again", () =>
    Effect.gen(function*() {
      const { disk } = yield* trained()
      const echo = disk.files().get("/runs/a/configuration.json") ?? new Uint8Array()
      const again = yield* machine({ "/same.json": echo })
      const { exit } = yield* cria(again, ["pretrain", "--config", "/same.json", "--out", "/runs/a"])
      assert.isTrue(Exit.isSuccess(exit))
      assert.deepStrictEqual(remains(again), remains(disk))
    }))

  it.live("killed at any moment and resumed, ends as if it had never stopped", () =>
    Effect.gen(function*() {
      const whole = remains((yield* trained()).disk)
      const operations = (yield* trained()).disk.operations()
      for (const share of [0.3, 0.5, 0.75, 0.97]) {
        const disk = yield* machine()
        disk.killAfter(Math.round(operations * share))
        assert.isTrue(Exit.isFailure((yield* cria(disk, pretrain())).exit))
        disk.revive()
        const { errors, exit } = yield* cria(disk, ["pretrain", "--resume", "--out", "/runs/a"])
        assert.isTrue(Exit.isSuccess(exit), errors)
        assert.deepStrictEqual(remains(disk), whole)
      }
    }))

  it.live("shows a moving line on a terminal, and nothing of it stays", () =>
    Effect.gen(function*() {
      const disk = yield* machine()
      const { output } = yield* cria(disk, pretrain(), { isTerminal: true })
      const visible = output.replaceAll("\r\u001B[2K", "<clear>")
      assert.match(visible, /<clear>█{5}░{15} step 1\/4 {2}loss 5\.\d{3} {2}.+ tokens\/s {2}\d+ s left/)
      assert.match(visible, /left<clear>step 2: saved/)
      assert.notInclude(visible, "left\n")
    }))

  it.live("refuses the folder of another run, and says what to do", () =>
    Effect.gen(function*() {
      const { disk } = yield* trained()
      const before = remains(disk)
      assert.strictEqual(
        yield* refused(disk, pretrain()),
        "error: /runs/a holds a run already\n  Go on with it: --resume --out /runs/a. Or begin a new one in another " +
          "folder: --out FOLDER.\n"
      )
      assert.deepStrictEqual(remains(disk), before)
    }))

  it.live("takes the next free folder where none is named, and goes on with the last", () =>
    Effect.gen(function*() {
      const disk = yield* machine()
      const unnamed = ["pretrain", "--text", "/texts/a.jsonl", ...tiny()]
      yield* cria(disk, unnamed)
      const { output } = yield* cria(disk, [...unnamed, "--seed", "1"])
      assert.include(output, "runs/a holds a run already (--resume goes on with it); this one goes to runs/a-2\n")
      assert.isTrue(disk.files().has("/runs/a-2/snapshot-00000004/manifest.json"))
      const again = yield* cria(disk, ["pretrain", "--text", "/texts/a.jsonl", "--resume"])
      assert.include(again.output, "folder     runs/a-2\n")
      assert.include(again.output, "4 steps of 2 × 16 tokens, from step 4\n")
    }))

  it.live("says what a run would be, and does nothing", () =>
    Effect.gen(function*() {
      const disk = yield* machine()
      const { exit, output } = yield* cria(disk, [...pretrain(), "--dry-run"])
      assert.isTrue(Exit.isSuccess(exit))
      assert.match(output, /^parameters {2}5\.59 k \(5592\)$/m)
      assert.match(output, /^tokens {6}128 in 4 steps, about 0\.\d times the text$/m)
      assert.match(output, /^time {8}about .* assuming 50 % of the .*FLOP\/s that reference 1 reached/m)
      assert.match(output, /Nothing was run, and nothing was written\.\n$/)
      assert.deepStrictEqual([...disk.files().keys()], ["/texts/a.jsonl"])
    }))
  it.live("does not read compressed text before a run, for it may be of any length, and says so", () =>
    Effect.gen(function*() {
      const disk = yield* machine({ "/texts/b.txt.gz": bytes("this would be an error") })
      const { errors, exit, output } = yield* cria(disk, ["pretrain", "--dry-run", ...tiny(), "--text", "/texts"])
      assert.isTrue(Exit.isSuccess(exit), errors)
      assert.match(output, /\nThe text was not read, for some of it is compressed, and its length unknown\.\n$/)
    }))
  it.live("sees before a run what its text, its vocabulary, its folder and its checkpoint forbid", () =>
    Effect.gen(function*() {
      const { disk } = yield* trained()
      yield* withFiles(disk, { "/texts/b.txt": Uint8Array.of(80, 75, 0), "/texts/c.txt": "a b" })
      const before = remains(disk)
      const dry = (...args: ReadonlyArray<string>) =>
        Effect.map(cria(disk, ["pretrain", "--dry-run", ...tiny(), ...args]), ({ errors, exit, output }) => {
          assert.isTrue(Exit.isFailure(exit), errors)
          return { errors, output }
        })
      const binary = yield* dry("--text", "/texts/b.txt")
      assert.match(binary.output, /^parameters [^]*Nothing was run, and nothing was written\.\n$/m)
      assert.match(binary.errors, /^error: \/texts\/b\.txt: byte 2 is zero: this is a binary file/)
      assert.match((yield* dry("--text", "/texts/c.txt")).errors, /^error: .*vocabulary of 320 pieces cannot be met\n/)
      assert.match((yield* dry("--out", "/runs/a")).errors, /^error: \/runs\/a holds a run already\n/)
      assert.match((yield* dry("--out", "/texts/c.txt")).errors, /^error: \/texts\/c\.txt is a file, and a run needs/)
      yield* disk.fileSystem.rename("/runs/a/tokenizer.model", "/runs/other.model")
      const from = yield* cria(disk, ["pretrain", "--dry-run", "--from", "/runs/a", "--backend", "reference"])
      assert.match(from.errors, /^error: \/runs\/a: a run cannot begin from it: it has no tokenizer\n/)
      yield* disk.fileSystem.rename("/runs/other.model", "/runs/a/tokenizer.model")
      assert.deepStrictEqual(remains(disk), before)
    }))
})

describe("cria pretrain --verify-resume", () => {
  it.live("finds every bit the same", () =>
    Effect.gen(function*() {
      const { disk } = yield* trained()
      const before = remains(disk)
      const { errors, output } = yield* cria(disk, ["pretrain", "--verify-resume", "--out", "/runs/a"])
      assert.strictEqual(errors, "")
      assert.match(output, /equal {6}steps 2 to 4: 36 tensors and 2 journal lines, bit for bit\n$/)
      assert.deepStrictEqual(remains(disk), before)
    }))
  it.live("names the first difference", () =>
    Effect.gen(function*() {
      const { disk } = yield* trained()
      const journal = Buffer.from(disk.files().get("/runs/a/journal.jsonl") ?? []).toString()
      disk.put("/runs/a/journal.jsonl", bytes(journal.replace(/("step":3,"loss":)\d/, "$14")))
      const message = yield* refused(disk, ["pretrain", "--verify-resume", "--out", "/runs/a"])
      assert.match(message, /^error: \/runs\/a: replayed from step 2 to 4, and the first difference is at journal/)
      assert.include(message, "The same bits need the same engine, processor and number of threads")
    }))
})

describe("what cria pretrain refuses", () => {
  const cases: ReadonlyArray<readonly [
    name: string, files: Readonly<Record<string, string | Uint8Array>>, args: ReadonlyArray<string>, message: RegExp
  ]> = [
    ["an empty file", { "/texts/b.txt": "" }, ["--text", "/texts/b.txt"], /^error: \/texts\/b\.txt is empty: every/],
    ["a binary file", { "/texts/b.txt": Uint8Array.of(80, 75, 3, 4, 0, 0) }, ["--text", "/texts/b.txt"],
      /^error: \/texts\/b\.txt: byte 4 is zero: this is a binary file/],
    ["a path that is not there", {}, ["--text", "/texts/none.txt"], /^error: cannot read \/texts\/none\.txt: /],
    ["a vocabulary that the text cannot give", {}, pretrain({ "--vocab-size": "9000" }).slice(1),
      /^error: tokenizer training: a vocabulary of 9000 pieces cannot be met\n.*\n {2}set --vocab-size between \d+ /],
    ["sizes that do not go together", {}, ["--embed-size", "100", "--head-count", "3"],
      /^error: flags: these settings cannot be used\n {2}--head-count 3: --embed-size must be a multiple of --h/],
    ["a model that no memory holds", {}, ["--preset", "70B"], /^error: this run needs about \d+ GB of memory, and the/],
    ["a batch that cannot be cut", {}, ["--batch-size", "6", "--micro-batches", "4"],
      /^error: flags: these settings cannot be used\n {2}--micro-batches 4: expected a divisor of --batch-size, /],
    ["sequences beyond the context", {}, ["--sequence-length", "512"],
      /--sequence-length 512: expected at most --context-length, which is 256; shorten the one or raise the other/],
    ["flags out of range, all at once", {}, ["--steps", "0", "--learning-rate", "-1"],
      /: these settings cannot be used\n {2}--steps 0: expected a value greater than 0\n {2}--learning-rate -1: exp/],
    ["an unknown flag", {}, ["--setps", "3"],
      /Unrecognized flag: --setps in command cria pretrain[^]*Did you mean this\?\n\s+--steps/],
    ["a size of a file that does not go with the preset", { "/c.json": `{"headCount": 3}` }, ["--config", "/c.json"],
      /^error: \/c\.json and the flags: these settings cannot be used\n {2}headCount = 3: embedSize must be a /],
    ["a vocabulary that its characters exceed", {}, ["--text", "/texts/a.jsonl", "--vocab-size", "200"],
      /^error: tokenizer .*\n.*\n {2}raise --vocab-size, or learn from text with fewer kinds of characters\n$/],
    ["an unknown key of a file", { "/c.json": `{"batchsize": 3, "steps": "many"}` }, ["--config", "/c.json"],
      /^error: \/c\.json: .*\n {2}batchsize = 3: no such key; there are text, .*\n {2}steps = "many": expected n/],
    ["a configuration file that is no JSON", { "/c.json": "{" }, ["--config", "/c.json"], /the file = no JSON: /],
    ["a configuration file that is not there", {}, ["--config", "nope.json"],
      /^error: cannot read nope\.json: ENOENT.*\n {2}check the spelling and the permissions; a relative path starts/],
    ["a run that is not there", {}, ["--resume", "--out", "/runs/none"],
      /^error: \/runs\/none holds no run: it has no configuration\.json\n {2}There is no run beside it/],
    ["flags that contradict one another", {}, ["--resume", "--verify-resume"],
      /^error: --resume and --verify-resume ask for different things: give one of them\n$/]
  ]
  for (const [name, files, args, message] of cases) {
    it.live(name, () =>
      Effect.gen(function*() {
        const disk = yield* machine(files)
        const said = yield* refused(disk, ["pretrain", ...args])
        assert.match(said, message)
        const left = yield* Effect.orElseSucceed(disk.fileSystem.readDirectory("/runs"), () => [])
        assert.deepStrictEqual(left, [], "something was written")
      }))
  }

  it.live("what fails before its first step, and leaves what was there before and nothing else", () =>
    Effect.gen(function*() {
      const disk = yield* machine({ "/there/notes.txt": "" })
      // told once the folder is locked
      const late = ["pretrain", "--text", "/texts/a.jsonl", ...tiny({ "--vocab-size": "9000" })]
      for (const out of ["/there", "/there/new", "/empty", "/deep/er/new"]) {
        if (out === "/empty") yield* disk.fileSystem.makeDirectory(out)
        assert.match(yield* refused(disk, [...late, "--out", out]), /^error: tokenizer training: /)
      }
      const left = ["/there/notes.txt", "/there/new", "/empty", "/deep/er/new", "/deep/er"]
      assert.deepStrictEqual(yield* Effect.forEach(left, (path) => disk.fileSystem.exists(path)),
        [true, false, true, false, true]) // another run may stand above
    }))

  it.live("a folder that another process writes, before it learns a tokenizer", () =>
    Effect.gen(function*() {
      for (const args of [pretrain(), ["pretrain", "--resume", "--out", "/runs/a"]]) {
        const disk = args.includes("--resume") ? (yield* trained()).disk : yield* machine({ "/runs/a/notes.txt": "" })
        yield* disk.fileSystem.makeDirectory("/runs/a/run.lock")
        disk.put("/runs/a/run.lock/elsewhere,5,,x", bytes(""))
        const { errors, exit, output } = yield* cria(disk, args)
        assert.isTrue(Exit.isFailure(exit))
        assert.match(errors, /^error: \/runs\/a is being written already, by process 5 on elsewhere/)
        assert.notInclude(output, "tokenizer")
      }
    }))

  it.live("a file for a folder, before it learns a tokenizer", () =>
    Effect.gen(function*() {
      const disk = yield* machine({ "/runs": "a file" })
      const { errors, exit, output } = yield* cria(disk, ["pretrain", "--text", "/texts/a.jsonl", ...tiny(), "--out",
        "/texts/a.jsonl"])
      assert.isTrue(Exit.isFailure(exit))
      assert.strictEqual(errors, "error: /texts/a.jsonl is a file, and a run needs a folder\n  Name another: --out " +
        "FOLDER.\n")
      assert.strictEqual(output, "")
      assert.match(yield* refused(disk, pretrain()), /^error: \/runs is a file, and a run needs a folder/)
    }))

  it.live("numbers that are not finite, and keeps the snapshots", () =>
    Effect.gen(function*() {
      const disk = yield* machine()
      const message = yield* refused(disk, pretrain({ "--learning-rate": "1e200", "--snapshot-every": "1" }))
      assert.match(message, /^error: step 2: every number must be finite, and \S+ is \S+ at element \d+\n/)
      assert.include(message, "in micro-batch 1: windows of step 2 beginning")
      assert.include(message, "cria pretrain --from FOLDER --learning-rate RATE trains on")
      assert.isTrue(disk.files().has("/runs/a/snapshot-00000001/manifest.json"))
    }))

  it.live("weights that are not finite, of whatever origin, and names the parameter", () =>
    Effect.gen(function*() {
      const disk = yield* machine()
      disk.killAfter(Math.round((yield* trained()).disk.operations() * 0.75))
      yield* cria(disk, pretrain())
      disk.revive()
      yield* spoil(disk, 2, "block.0.feedForward.gate")
      assert.match(yield* refused(disk, ["pretrain", "--resume", "--out", "/runs/a"]),
        /^error: step 3: every number must be finite, and parameter block\.0\.feedForward\.gate is NaN at element 1\n/)
      assert.match(yield* refused(disk, ["generate", "a", "--model", "/runs/a"]), /logits must be finite.* has NaN/)
    }))

  it.live("a full disk, and keeps the snapshots", () =>
    Effect.gen(function*() {
      const { disk: whole } = yield* trained()
      const used = [...whole.files().values()].reduce((sum, file) => sum + file.length, 0)
      const disk = yield* machine()
      disk.fillAt(used - 1000)
      const message = yield* refused(disk, pretrain())
      assert.match(message, /^error: \/runs\/a\/snapshot-00000004 could not be saved: ENOSPC/)
      assert.include(message, "The others are untouched; /runs/a/snapshot-00000002 is the newest.")
      disk.fillAt(Infinity)
      const resumed = yield* cria(disk, ["pretrain", "--resume", "--out", "/runs/a"])
      assert.isTrue(Exit.isSuccess(resumed.exit), resumed.errors)
      assert.deepStrictEqual(remains(disk), remains(whole))
    }))

  it.live("stopped by Ctrl-C, says what is saved and how to go on", () =>
    Effect.gen(function*() {
      const disk = yield* machine()
      const { errors, exit, output } = yield* cria(disk, pretrain(), {
        watch: (output, interrupt) => output.includes("\nstep 3/4") && interrupt()
      })
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      assert.strictEqual(errors, "")
      assert.match(output, /\n\nstopped; step 3 is saved\. Go on with: cria pretrain --resume --out \/runs\/a\n$/)
    }))

  it.live("stopped by Ctrl-C on a full disk, says that its last step is not saved, and keeps the snapshots", () =>
    Effect.gen(function*() {
      const disk = yield* machine()
      const { errors, exit, output } = yield* cria(disk, pretrain(), {
        watch: (output, interrupt) => {
          if (!output.includes("\nstep 3/4")) return
          disk.fillAt([...disk.files().values()].reduce((sum, file) => sum + file.length, 1000))
          interrupt()
        }
      })
      assert.isTrue(Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause), "its exit code would be Ctrl-C's")
      assert.strictEqual(errors, "error: /runs/a/snapshot-00000003 could not be saved: ENOSPC: no space left on " +
        "device, write\nThe others are untouched; /runs/a/snapshot-00000002 is the newest. Free space on this disk, " +
        "then resume the run.\n")
      assert.match(output, /\n\nstopped; step 2 is saved\. Go on with: cria pretrain --resume --out \/runs\/a\n$/)
      disk.fillAt(Infinity)
      const resumed = yield* cria(disk, ["pretrain", "--resume", "--out", "/runs/a"])
      assert.isTrue(Exit.isSuccess(resumed.exit), resumed.errors)
      assert.deepStrictEqual(remains(disk), remains((yield* trained()).disk))
    }))

  it.live("a snapshot of which a byte changed or the end is missing; goes on from the one before if asked to", () =>
    Effect.gen(function*() {
      for (const damage of [
        (file: Uint8Array) => file.slice(0, 5000),
        (file: Uint8Array) => file.map((byte, i) => i === 5000 ? byte ^ 1 : byte)
      ]) {
        const { disk } = yield* trained()
        const whole = remains(disk)
        const path = "/runs/a/snapshot-00000004/model.safetensors"
        disk.put(path, damage(disk.files().get(path) ?? new Uint8Array()))
        const message = yield* refused(disk, ["pretrain", "--resume", "--out", "/runs/a"])
        assert.match(message, /^error: \/runs\/a\/snapshot-00000004 is not the snapshot that was saved\n/)
        assert.match(message, /model\.safetensors: expected \d+ bytes with sha256 [0-9a-f]{64}; found \d+ bytes with/)
        assert.match(message, /--resume-intact goes on from the newest undamaged snapshot\.\n$/)
        const { errors, exit, output } = yield* cria(disk, ["pretrain", "--resume-intact", "--out", "/runs/a"])
        assert.isTrue(Exit.isSuccess(exit), errors)
        assert.include(output, "           /runs/a/snapshot-00000004 was damaged (model.safetensors) and is removed: " +
          "its steps are trained again\n")
        assert.deepStrictEqual(remains(disk), whole)
      }
    }))

  it.live("to resume with another learning rate or another text", () =>
    Effect.gen(function*() {
      const { disk } = yield* trained()
      const before = remains(disk)
      const resume = ["pretrain", "--resume", "--out", "/runs/a"]
      assert.match(yield* refused(disk, [...resume, "--learning-rate", "0.1"]),
        /^error: \/runs\/a\/snapshot-00000004 is of another run\n {2}--learning-rate: saved 0\.006, now 0\.1\n/)
      assert.include(yield* refused(disk, [...resume, "--embed-size", "16"]),
        "is of another run\n  --embed-size: saved 8, now 16\n")
      assert.include(yield* refused(disk, [...resume, "--seed", "7"]), "is of another run\n  --seed: saved 0, now 7\n")
      assert.match(yield* refused(disk, [...resume, "--batch-size", "3", "--micro-batches", "2"]),
        /^error: configuration\.json and the flags: these settings cannot be used\n {2}microBatches = 2: expected a /)
      disk.put("/texts/a.jsonl", bytes(rows.replaceAll("the", "a")))
      const message = yield* refused(disk, resume)
      assert.match(message, /is of another run\n {2}data: saved/)
      assert.deepStrictEqual(remains(disk), before)
    }))
})
