import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, FileSystem, Layer, Option, Path, Stream } from "effect"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as TokenStore from "../../src/data/TokenStore.ts"
import * as Config from "../../src/llama/Config.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import * as Pretrain from "../../src/recipe/Pretrain.ts"
import { verify } from "../../src/recipe/ResumeVerification.ts"
import * as Key from "../../src/random/Key.ts"
import * as Journal from "../../src/store/Journal.ts"
import * as Snapshot from "../../src/store/Snapshot.ts"
import * as SnapshotStore from "../../src/store/SnapshotStore.ts"

const encoder = {
  encode: (text: string) => [...text].map((letter) => 1 + letter.charCodeAt(0) % 30), bosId: 0, vocabSize: 32
}
const texts = (seed: number) =>
  Array.from({ length: 40 }, (_, i) => "the quick brown fox".slice(i % 7) + String(i * seed))
const data = {
  train: TokenStore.fromTexts(texts(1), encoder), validation: TokenStore.fromTexts(texts(3).slice(0, 4), encoder)
}

const config: Pretrain.Config = {
  ...Pretrain.defaults,
  model: Config.make({ vocabSize: 32, embedSize: 8, layerCount: 1, headCount: 2, multipleOf: 8, contextLength: 8 }),
  sequenceLength: 8, batchSize: 4, stepCount: 6, warmupSteps: 2, learningRate: 0.01, evaluateEvery: 2, snapshotEvery: 3
}

const origin: Pretrain.Origin = {
  data, tokenizerHash: "letters", resume: "never",
  environment: { engine: { name: "reference", version: "1" }, cpu: { model: "any", features: [] }, threadCount: 1 }
}

const services = (folder: string, backend: typeof Reference.layer = Reference.layer) =>
  Layer.mergeAll(
    backend, Transformer.layer,
    Journal.layer().pipe(Layer.provideMerge(SnapshotStore.layer({ folder, keepLast: 2 })))
  )

const run = (folder: string, options: {
  readonly config?: Partial<Pretrain.Config>
  readonly origin?: Partial<Pretrain.Origin>
  readonly each?: (event: Pretrain.Event) => Effect.Effect<void, "killed">
  readonly backend?: typeof Reference.layer
} = {}) =>
  Effect.gen(function*() {
    const events: Array<Pretrain.Event> = []
    yield* Pretrain.pretrain({ ...config, ...options.config }, { ...origin, ...options.origin }).pipe(
      Stream.runForEach((event) => {
        events.push(event)
        return options.each?.(event) ?? Effect.void
      })
    )
    return events
  }).pipe(Effect.provide(services(folder, options.backend)))

/** The bytes that a finished run leaves: weights, optimizer, journal. */
const remains = Effect.fnUntraced(function*(folder: string, step = "00000006") {
  const [files, path] = [yield* FileSystem.FileSystem, yield* Path.Path]
  const read = (...names: ReadonlyArray<string>) =>
    files.readFile(path.join(folder, ...names)).pipe(Effect.map((bytes) => [...bytes]))
  return {
    model: yield* read(`snapshot-${step}`, "model.safetensors"),
    optimizer: yield* read(`snapshot-${step}`, "optimizer.safetensors"),
    journal: yield* read("journal.jsonl")
  }
})

const temporary = Effect.flatMap(FileSystem.FileSystem, (files) => files.makeTempDirectoryScoped())

const isStep = (event: Pretrain.Event, step: number) => event._tag === "Stepped" && event.step === step

describe("Pretrain", () => {
  it.live("learns, validates, saves, and reports each step in order", () =>
    Effect.gen(function*() {
      const folder = yield* temporary
      const events = yield* run(folder)
      assert.deepStrictEqual(
        events.map((event) => event._tag === "Started" ? "Started" : `${event._tag} ${event.step}`), [
          "Started", "Stepped 1", "Stepped 2", "Evaluated 2", "Stepped 3", "Saved 3", "Stepped 4", "Evaluated 4",
          "Stepped 5",
          "Stepped 6", "Evaluated 6", "Saved 6"
        ])
      const losses = events.flatMap((event) => event._tag === "Stepped" ? [event.loss] : [])
      assert.closeTo(losses[0] ?? NaN, Math.log(32), 0.1)
      assert.isBelow(losses.at(-1) ?? NaN, losses[0] ?? NaN)
      const path = yield* Path.Path
      const { entries } = yield* Journal.read(path.join(folder, "journal.jsonl"))
      assert.deepStrictEqual(
        entries.map(({ step, values }) => [step, values["loss"]]), losses.map((loss, i) => [i + 1, loss]))
      assert.deepStrictEqual(
        entries.flatMap(({ step, values }) => values["val/bpb"] === undefined ? [] : [step]), [2, 4, 6])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("ends with the same bits whether or not it was killed and resumed", () =>
    Effect.gen(function*() {
      const [whole, killed] = [yield* temporary, yield* temporary]
      yield* run(whole)
      const death = yield* Effect.flip(
        run(killed, { each: (event) => isStep(event, 5) ? Effect.fail("killed") : Effect.void }))
      assert.strictEqual(death, "killed")
      const events = yield* run(killed, { origin: { resume: "latest" } })
      assert.isTrue(events[0]?._tag === "Started" && events[0].step === 3)
      assert.deepStrictEqual(yield* remains(killed), yield* remains(whole))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("keeps its last whole step when it is interrupted, and goes on from there", () =>
    Effect.gen(function*() {
      const [whole, stopped] = [yield* temporary, yield* temporary]
      yield* run(whole)
      const reached = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(run(stopped, {
        each: (event) => isStep(event, 4) ? Effect.andThen(Deferred.succeed(reached, undefined), Effect.never)
          : Effect.void
      }))
      yield* Deferred.await(reached)
      yield* Fiber.interrupt(fiber)
      const files = yield* FileSystem.FileSystem
      assert.include(yield* files.readDirectory(stopped), "snapshot-00000004")
      const events = yield* run(stopped, { origin: { resume: "latest" } })
      assert.isTrue(events[0]?._tag === "Started" && events[0].step === 4)
      assert.deepStrictEqual(yield* remains(stopped), yield* remains(whole))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("does not wait for a validation when it is interrupted, and makes it up when it goes on", () =>
    Effect.gen(function*() {
      const [files, path] = [yield* FileSystem.FileSystem, yield* Path.Path]
      const whole = yield* temporary
      yield* run(whole)
      // three windows a validation: the run is stopped in the first of the second one, and of the last one
      for (const { at, step, verified } of [
        { at: 4, step: 4, verified: { from: 3, to: 4, lineCount: 0 } },
        { at: 7, step: 6, verified: { from: 3, to: 6, lineCount: 2 } }
      ]) {
        const stopped = yield* temporary
        const [reached, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        let windows = 0
        const slow = Layer.effect(Backend, Effect.map(Backend, (backend) => Backend.of({
          ...backend,
          compile: (program, options) => Effect.map(backend.compile(program, options), (executable) => ({
            ...executable,
            bind: (cells) => Effect.map(executable.bind(cells), (bound) => ({
              ...bound,
              run: (inputs) => program.name !== "perplexity" ? bound.run(inputs)
                : Effect.suspend(() => ++windows === at
                  ? Effect.andThen(Deferred.succeed(reached, undefined), Deferred.await(release)) : Effect.void).pipe(
                  Effect.andThen(bound.run(inputs)), Effect.uninterruptible
                )
            }))
          }))
        }))).pipe(Layer.provide(Reference.layer))
        const fiber = yield* Effect.forkChild(run(stopped, { backend: slow }))
        yield* Deferred.await(reached)
        const stopping = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(stopping)
        assert.strictEqual(windows, at)
        assert.include(yield* files.readDirectory(stopped), `snapshot-0000000${step}`)
        const { entries } = yield* Journal.read(path.join(stopped, "journal.jsonl"))
        assert.strictEqual(entries.at(-1)?.step, step - 1) // a line is whole or not there
        const report = yield* verify(stopped, config, origin).pipe(Effect.provide(services(stopped)))
        assert.deepInclude(report, { ...verified, divergence: Option.none() })
        for (const time of [1, 2]) {
          const resumed = yield* run(stopped, { origin: { resume: "latest" } })
          if (time === 1) assert.deepInclude(resumed[1], { _tag: "Evaluated", step })
          else assert.isFalse(resumed.some((event) => event._tag === "Evaluated")) // it is made up once
          assert.deepStrictEqual(yield* remains(stopped), yield* remains(whole))
        }
        // the snapshot knows what was measured after it was saved, and can be the best one
        const manifest = yield* Snapshot.verify(path.join(stopped, Snapshot.nameOf(step)))
        const line = (yield* Journal.read(path.join(stopped, "journal.jsonl"))).entries.find((one) => one.step === step)
        assert.isDefined(manifest.metrics["val/loss"])
        assert.strictEqual(manifest.metrics["val/loss"], line?.values["val/loss"])
        assert.isUndefined(manifest.unfinished)
        const after = yield* verify(stopped, config, origin).pipe(Effect.provide(services(stopped)))
        const again = step === 4 ? { from: 4, lineCount: 2 } : { from: 3, lineCount: 3 }
        assert.deepInclude(after, { ...again, to: 6, divergence: Option.none() })
      }
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("takes the same step from any number of micro-batches", () =>
    Effect.gen(function*() {
      const losses = (events: ReadonlyArray<Pretrain.Event>) =>
        events.flatMap((event) => event._tag === "Stepped" ? [event.loss, event.gradientNorm] : [])
      const whole = losses(yield* run(yield* temporary))
      const split = losses(yield* run(yield* temporary, { config: { microBatchCount: 4 } }))
      whole.forEach((value, i) => assert.closeTo(split[i] ?? NaN, value, 1e-9))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("refuses to begin where a run is, and to resume another run", () =>
    Effect.gen(function*() {
      const folder = yield* temporary
      yield* run(folder)
      const exists = yield* Effect.flip(run(folder))
      assert.isTrue(exists !== "killed" && exists._tag === "RunExistsError")
      const other = yield* Effect.flip(run(folder, {
        config: { learningRate: 0.02 },
        origin: { resume: "latest", data: { ...data, train: TokenStore.fromTexts(texts(2), encoder) } }
      }))
      if (other === "killed" || other._tag !== "ResumeError") return assert.fail(String(other))
      assert.deepStrictEqual(other.differences.map(({ field }) => field), ["learningRate", "data"])
      assert.include(other.message, "learningRate: saved 0.01, now 0.02")
      assert.include(other.message, "begin anew in another folder")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  const idle = Layer.effect(Backend, Effect.map(Backend, (backend) =>
    Backend.of({ ...backend, compile: () => Effect.die("compiled"), allocate: () => Effect.die("allocated") })
  )).pipe(Layer.provide(Reference.layer))

  it.live("refuses tokens that the model does not have before it compiles anything, in either part", () =>
    Effect.gen(function*() {
      const folder = yield* temporary
      for (const part of ["train", "validation"] as const) {
        const tokens = data[part].tokens.map((id, i) => i === 3 ? 32 : id)
        const origin = { data: { ...data, [part]: { ...data[part], tokens } } }
        const error = yield* Effect.flip(run(folder, { backend: idle, origin }))
        if (error === "killed" || error._tag !== "ForeignTokenError") return assert.fail(String(error))
        assert.deepStrictEqual([error.index, error.id, error.vocabSize], [3, 32, 32])
      }
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("refuses a folder before it compiles anything", () =>
    Effect.gen(function*() {
      const folder = yield* temporary
      yield* run(folder)
      const taken = yield* Effect.flip(run(folder, { backend: idle }))
      assert.isTrue(taken !== "killed" && taken._tag === "RunExistsError")
      const options = { backend: idle, origin: { resume: "latest" }, config: { learningRate: 0.02 } } as const
      const other = yield* Effect.flip(run(folder, options))
      assert.isTrue(other !== "killed" && other._tag === "ResumeError")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("refuses a snapshot whose place in the data, or whose random key, is not that of this run", () =>
    Effect.gen(function*() {
      const [files, folder] = [yield* FileSystem.FileSystem, yield* temporary]
      yield* run(folder)
      const [, last] = yield* Snapshot.list(folder)
      const { manifest, tensors } = yield* Snapshot.load(last?.path ?? "")
      yield* files.remove(last?.path ?? "", { recursive: true })
      const other = { ...manifest, tensors, dataCursor: { epoch: 9, index: 1 }, randomKeys: { run: "none" } }
      yield* Effect.flatMap(SnapshotStore.SnapshotStore, ({ save }) => save(other))
        .pipe(Effect.provide(SnapshotStore.layer({ folder, keepLast: 2 })))
      const error = yield* Effect.flip(run(folder, { origin: { resume: "latest" } }))
      if (error === "killed" || error._tag !== "ResumeError") return assert.fail(String(error))
      assert.strictEqual(error.message, [
        `${last?.path} is of another run`,
        `  place in the data: saved {"epoch":9,"index":1}, now {"epoch":0,"index":24}`,
        `  random key: saved {"run":"none"}, now {"run":"${Key.toHex(Key.make(0))}"}`,
        "A resumed run must be the same run. Give it the same configuration and data, or begin anew in another folder."
      ].join("\n"))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("says where a resumed run may differ in its last bits", () =>
    Effect.gen(function*() {
      const folder = yield* temporary
      yield* run(folder)
      const events = yield* run(folder, {
        origin: { resume: "latest", environment: { ...origin.environment, threadCount: 2 } }
      })
      assert.deepStrictEqual(events, [{
        _tag: "Started", step: 6, parameterCount: Config.parameterCount(config.model),
        differences: [{ field: "threads", saved: "1", here: "2" }], passedOver: []
      }])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("says in a snapshot what was measured at its own step, and nothing older", () =>
    Effect.gen(function*() {
      const folder = yield* temporary
      yield* run(folder)
      const saved = yield* Snapshot.list(folder)
      const metrics = yield* Effect.forEach(saved, ({ path }) => Effect.map(Snapshot.load(path, []), (loaded) =>
        [loaded.step, Object.keys(loaded.manifest.metrics).sort()] as const))
      assert.deepStrictEqual(metrics, [[3, ["num_tokens"]], [6, ["num_tokens", "val/bpb", "val/loss"]]])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("goes on from the newest intact snapshot if asked to, and names the damaged ones it passed over", () =>
    Effect.gen(function*() {
      const [files, path, folder] = [yield* FileSystem.FileSystem, yield* Path.Path, yield* temporary]
      yield* run(folder)
      const whole = yield* remains(folder)
      const damaged = path.join(folder, "snapshot-00000006")
      yield* files.truncate(path.join(damaged, "model.safetensors"), 9)
      const [started] = yield* run(folder, { origin: { resume: "latestIntact" } })
      if (started?._tag !== "Started") return assert.fail(started?._tag ?? "nothing")
      assert.deepStrictEqual([started.step, started.passedOver.map(({ path }) => path)], [3, [damaged]])
      assert.deepStrictEqual(started.passedOver[0]?.damages.map(({ file }) => file), ["model.safetensors"])
      assert.deepStrictEqual(yield* remains(folder), whole)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("touches nothing where every snapshot is damaged", () =>
    Effect.gen(function*() {
      const [files, path, folder] = [yield* FileSystem.FileSystem, yield* Path.Path, yield* temporary]
      yield* run(folder)
      const saved = yield* Snapshot.list(folder)
      yield* Effect.forEach(saved, ({ path: snapshot }) => files.truncate(path.join(snapshot, "model.safetensors"), 9))
      const journal = yield* files.readFile(path.join(folder, "journal.jsonl"))
      const error = yield* Effect.flip(run(folder, { origin: { resume: "latestIntact" } }))
      assert.isTrue(error !== "killed" && error._tag === "SnapshotDamagedError")
      assert.deepStrictEqual(yield* files.readFile(path.join(folder, "journal.jsonl")), journal)
      assert.deepStrictEqual(yield* Snapshot.list(folder), saved)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("refuses numbers that do not go together, all at once", () =>
    Effect.gen(function*() {
      const wrong = { microBatchCount: 3, warmupSteps: 6, sequenceLength: 9, beta2: 1 }
      const { beta2: _, ...together } = wrong
      for (const config of [wrong, together]) {
        const error = yield* Effect.flip(run(yield* temporary, { config }))
        if (error === "killed" || error._tag !== "SchemaError") return assert.fail(String(error))
        const expected = config === together
          ? [
            "microBatchCount must divide batchSize, for its parts have one size: 4 / 3",
            "warmupSteps must be less than stepCount, 6, got 6: a short run needs a short one",
            "sequenceLength must be at most the model's contextLength, 8, got 9"
          ]
          : ["beta2"]
        for (const text of expected) assert.include(error.message, text)
      }
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
