/**
 * Snapshots of a run, as they are found and read: parameters, optimizer state and where the run stood, a folder each.
 *
 *     run/snapshot-00001200/ = model.safetensors · optimizer.safetensors · … · manifest.json · manifest.sha256
 *
 * A checksum covers every byte and is verified before anything is believed. Reading takes no lock, so a run may be read
 * while it is written; `SnapshotStore` writes.
 *
 * From     Hugging Face's safetensors for the tensors, with a manifest beside them.
 * Checked  test/store/Snapshot.test.ts (round trip to the bit, any changed byte is found, nothing is skipped unasked).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Safetensors from "../format/Safetensors.ts"
import * as Durable from "./Durable.ts"
import * as Manifest from "./Manifest.ts"

/** A snapshot that stands in the folder of a run. */
export interface Listed {
  readonly step: number
  readonly path: string
}

/** A snapshot whose manifest was read. */
export interface Known extends Listed {
  readonly manifest: Manifest.Manifest
}

/** A snapshot in memory: its tensors by the names of their files, such as `model` and `optimizer`. */
export interface Loaded extends Known {
  readonly tensors: { readonly [file: string]: ReadonlyArray<Safetensors.Tensor> }
}

/** The newest intact snapshot, if there is one, and the damage of those newer. */
export interface Intact {
  readonly snapshot: Option.Option<Listed>
  readonly passedOver: ReadonlyArray<SnapshotDamagedError>
}

/** Fails when files of a snapshot are not what was saved; names each, and the newest intact snapshot before it. */
export class SnapshotDamagedError extends Schema.TaggedError<SnapshotDamagedError>()("SnapshotDamagedError", {
  path: Schema.String,
  damages: Schema.Array(Manifest.Damage),
  intact: Schema.NullOr(Schema.String)
}) {
  override get message(): string {
    const lines = this.damages.map(({ expected, file, found }) => `  ${file}: expected ${expected}; found ${found}`)
    const remedy = this.intact === null
      ? "No snapshot before it in this folder is intact: restore it from a copy, or begin the run anew."
      : `The newest intact snapshot before it is ${this.intact}: resume from that one.`
    const cause = "Files were cut or changed since, or the disk is failing."
    return [`${this.path} is not the snapshot that was saved`, ...lines, `${cause} ${remedy}`].join("\n")
  }
}

/** Fails when there is no such snapshot, or it has no such file. */
export class SnapshotMissingError extends Schema.TaggedError<SnapshotMissingError>()("SnapshotMissingError", {
  path: Schema.String,
  wanted: Schema.String,
  available: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const available = this.available.length === 0 ? "nothing of the kind" : this.available.join(", ")
    return `${this.path}: there is no ${this.wanted}\nThere is ${available}: correct the path or the name.`
  }
}

/** Why a snapshot cannot be loaded, besides the file system's own reasons. */
export type LoadError = SnapshotDamagedError | SnapshotMissingError | Safetensors.SafetensorsError

type Stored<A, E = never> = Effect.Effect<A, E | PlatformError, FileSystem.FileSystem | Path.Path>

/** The name of the folder of a step's snapshot. */
export const nameOf = (step: number): string => `snapshot-${String(step).padStart(8, "0")}`

/** The name of a file of tensors in that folder. */
export const fileName = (tensors: string): string => `${tensors}.safetensors`

/** The snapshots in a run's folder, by increasing step. */
export const list = (folder: string): Stored<ReadonlyArray<Listed>> =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const steps = (yield* fileSystem.readDirectory(folder)).flatMap((name) => {
      const step = Number(/^snapshot-(\d{8,})$/.exec(name)?.[1] ?? NaN)
      return nameOf(step) === name ? [step] : []
    })
    return steps.sort((left, right) => left - right).map((step) => ({ step, path: path.join(folder, nameOf(step)) }))
  })

/** The newest snapshot; none in a new run. Nothing of it is read: `load` finds what is damaged. */
export const latest = (folder: string): Stored<Option.Option<Listed>> =>
  Effect.map(list(folder), (all) => Option.fromNullishOr(all.at(-1)))

/**
 * The manifest of a snapshot whose files, all or those named, have their checksums; else all that is wrong with them.
 */
const inspect = (
  snapshot: string,
  files?: ReadonlyArray<string>
): Stored<Result.Result<Manifest.Manifest, ReadonlyArray<Manifest.Damage>>> =>
  Effect.gen(function*() {
    const path = yield* Path.Path
    const manifest = yield* Manifest.read(snapshot)
    if (Result.isFailure(manifest)) return Result.fail([manifest.failure])
    const describe = ({ bytes, sha256 }: Manifest.FileRecord): string => `${bytes} bytes with sha256 ${sha256}`
    const damages: Array<Manifest.Damage> = []
    for (const [file, record] of Object.entries(manifest.success.files)) {
      if (files !== undefined && !files.map(fileName).includes(file)) continue
      const found = yield* Durable.digest(path.join(snapshot, file)).pipe(
        Effect.map(describe),
        Effect.catchReason("PlatformError", "NotFound", () => Effect.succeed("no file"))
      )
      if (found !== describe(record)) damages.push({ file, expected: describe(record), found })
    }
    return damages.length > 0 ? Result.fail(damages) : Result.succeed(manifest.success)
  })

/** The newest intact snapshot of a run among those before a step, and those that were passed over for their damage. */
const newestIntact = Effect.fnUntraced(function*(folder: string, before: number) {
  const passedOver: Array<{ readonly path: string; readonly damages: ReadonlyArray<Manifest.Damage> }> = []
  for (const snapshot of (yield* list(folder)).filter(({ step }) => step < before).reverse()) {
    const inspected = yield* inspect(snapshot.path)
    if (Result.isSuccess(inspected)) return { snapshot: Option.some(snapshot), passedOver }
    passedOver.push({ path: snapshot.path, damages: inspected.failure })
  }
  return { snapshot: Option.none<Listed>(), passedOver }
})

const pathOf = Option.match({ onNone: () => null, onSome: ({ path }: Listed) => path })

const damaged = Effect.fnUntraced(function*(snapshot: string, damages: ReadonlyArray<Manifest.Damage>) {
  const path = yield* Path.Path
  const folder = path.dirname(snapshot)
  const self = (yield* list(folder)).find(({ step }) => nameOf(step) === path.basename(snapshot))
  const intact = self === undefined ? null : pathOf((yield* newestIntact(folder, self.step)).snapshot)
  return yield* new SnapshotDamagedError({ path: snapshot, damages, intact })
})

/**
 * The newest snapshot of a run whose every file is intact, and the damage of the newer ones that were passed over. Only
 * who asks for it falls back so: `latest` and `load` never do.
 */
export const latestIntact = (folder: string): Stored<Intact> =>
  Effect.map(newestIntact(folder, Infinity), ({ passedOver, snapshot }) => {
    const intact = pathOf(snapshot)
    const errors = passedOver.map(({ damages, path }) => new SnapshotDamagedError({ path, damages, intact }))
    return { snapshot, passedOver: errors }
  })

/**
 * The snapshot with the lowest validation loss, the first of equals; undefined if it was measured for none of them.
 */
export const lowestLoss = (snapshots: ReadonlyArray<Known>): Known | undefined => {
  const lossOf = ({ manifest }: Known): number => manifest.metrics["val/loss"] ?? Infinity
  const lowest = Math.min(...snapshots.map(lossOf))
  return snapshots.find((snapshot) => lowest < Infinity && lossOf(snapshot) === lowest)
}

/** The snapshot of a run with the lowest validation loss, the first of equals; none if that was never measured. */
export const best = (folder: string): Stored<Option.Option<Known>, SnapshotDamagedError> =>
  Effect.gen(function*() {
    const known: Array<Known> = []
    for (const snapshot of yield* list(folder)) {
      const manifest = yield* Manifest.read(snapshot.path)
      if (Result.isFailure(manifest)) return yield* damaged(snapshot.path, [manifest.failure])
      known.push({ ...snapshot, manifest: manifest.success })
    }
    return Option.fromNullishOr(lowestLoss(known))
  })

/**
 * The manifest of a snapshot, by the path of its folder, once the checksums of all its files, or of those named, are
 * verified.
 */
export const verify = (snapshot: string, files?: ReadonlyArray<string>): Stored<Manifest.Manifest, LoadError> =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    if (!(yield* fileSystem.exists(snapshot))) {
      const beside = yield* Effect.orElseSucceed(list(path.dirname(snapshot)), () => [])
      const available = beside.map(({ step }) => nameOf(step))
      return yield* new SnapshotMissingError({ path: snapshot, wanted: "snapshot", available })
    }
    const inspected = yield* inspect(snapshot, files)
    if (Result.isFailure(inspected)) return yield* damaged(snapshot, inspected.failure)
    const available = Object.keys(inspected.success.files)
    const missing = files?.map(fileName).find((file) => !available.includes(file))
    if (missing !== undefined) return yield* new SnapshotMissingError({ path: snapshot, wanted: missing, available })
    return inspected.success
  })

/**
 * Loads a snapshot by the path of its folder, once its checksums are verified: all of its files, or only those named
 * (`["model"]`), of which alone the bytes are read.
 */
export const load = (snapshot: string, files?: ReadonlyArray<string>): Stored<Loaded, LoadError> =>
  Effect.gen(function*() {
    const path = yield* Path.Path
    const manifest = yield* verify(snapshot, files)
    const wanted = files?.map(fileName) ?? Object.keys(manifest.files)
    const tensors = yield* Effect.forEach(wanted, (file) =>
      Effect.map(Safetensors.read(path.join(snapshot, file)), ({ tensors }) =>
        [path.basename(file, ".safetensors"), tensors] as const))
    return { step: manifest.step, path: snapshot, manifest, tensors: Object.fromEntries(tensors) }
  })
