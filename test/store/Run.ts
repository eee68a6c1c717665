/** A small run to save: for every step, tensors that only that step has. */
import { Effect, Exit } from "effect"
import type * as Safetensors from "../../src/format/Safetensors.ts"
import * as Snapshot from "../../src/store/Snapshot.ts"
import * as SnapshotStore from "../../src/store/SnapshotStore.ts"

export const folder = "/runs/a"

const floats = (...values: ReadonlyArray<number>): Uint8Array => new Uint8Array(Float32Array.from(values).buffer)

export const tensors = (step: number): { readonly [file: string]: ReadonlyArray<Safetensors.Tensor> } => ({
  model: [
    { name: "embedding", dtype: "F32", shape: [2, 2], bytes: floats(step, -0, NaN, 1 / step) },
    { name: "norm", dtype: "F32", shape: [1], bytes: floats(step / 3) }
  ],
  optimizer: [{ name: "embedding.first", dtype: "F32", shape: [2, 2], bytes: floats(step * 7, 2, 3, 4) }]
})

export const request = (step: number, loss?: number): SnapshotStore.Request => ({
  step,
  tensors: tensors(step),
  configuration: { width: 2, steps: 9 },
  dataCursor: { epoch: 0, document: step * 3 },
  randomKeys: { data: [1, 2], sample: "0x1f" },
  journal: { journal: step * 40, timing: step * 50 },
  environment: {
    engine: { name: "reference", version: "1" },
    cpu: { model: "none", features: ["avx2"] },
    threadCount: 2
  },
  dataHash: "d1",
  tokenizerHash: "t1",
  metrics: loss === undefined ? {} : { "val/loss": loss }
})

export const use = <A, E>(
  run: (store: SnapshotStore.SnapshotStore["Service"]) => Effect.Effect<A, E>,
  keepLast = 2
) => Effect.scoped(Effect.flatMap(SnapshotStore.SnapshotStore, run).pipe(
  Effect.provide(SnapshotStore.layer({ folder, keepLast }))
))

/** What of a snapshot its step decides, comparable: NaN is the same as itself. */
const essence = (run: Snapshot.Loaded["manifest"] | SnapshotStore.Request) =>
  JSON.stringify([run.configuration, run.dataCursor, run.randomKeys, run.journal, run.environment])
const bytesOf = (tensors: Snapshot.Loaded["tensors"]) =>
  JSON.stringify(Object.entries(tensors).map(([file, all]) =>
    [file, all.map((tensor) => ({ ...tensor, bytes: Buffer.from(tensor.bytes).toString("hex") }))]))

/** The steps of the snapshots that stand in the folder; each is loaded, and must be what that step saved. */
export const intactSteps = Effect.flatMap(Snapshot.list(folder), Effect.forEach(Effect.fnUntraced(function*(listed) {
  const { manifest, tensors: found } = yield* Snapshot.load(listed.path)
  const isSame = manifest.step === listed.step && essence(manifest) === essence(request(listed.step)) &&
    bytesOf(found) === bytesOf(tensors(listed.step))
  if (!isSame) return yield* Effect.die(new Error(`${listed.path} is not what its step saved`))
  return listed.step
})))

export const succeed = <A, E>(exit: Exit.Exit<A, E>): A => {
  if (Exit.isSuccess(exit)) return exit.value
  throw new Error(String(exit.cause))
}
