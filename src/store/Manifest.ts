/**
 * What a snapshot says of itself: the run it belongs to, where the run stood, and the checksum of each of its files.
 *
 * The manifest is a file of its own, `manifest.json`, and `manifest.sha256` beside it holds its checksum in the form
 * that `sha256sum -c` reads.
 *
 * From     what a resume to the last bit has to know; the checksum files of coreutils.
 * Checked  test/store/Snapshot.test.ts (round trip, any changed byte is found), test/store/Manifest.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type { PlatformError } from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"

/** The version of the form of snapshots that this code writes and reads. */
export const formatVersion = 1

/** Schema for what decides the last bits of a result besides the program: engine, processor, threads, and Node. */
export const Environment = Schema.Struct({
  engine: Schema.Struct({ name: Schema.String, version: Schema.String }),
  cpu: Schema.Struct({ model: Schema.String, features: Schema.Array(Schema.String) }),
  threadCount: Schema.Natural,
  /** The version of Node, whose mathematical functions are its own; older snapshots do not say. */
  node: Schema.optionalKey(Schema.String)
})

/** What decides the last bits of a result besides the program. */
export interface Environment extends Schema.Schema.Type<typeof Environment> {}

/** Schema for a file of a snapshot: its length, and the SHA-256 of its bytes in hexadecimal. */
export const FileRecord = Schema.Struct({
  bytes: Schema.Natural,
  sha256: Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/))
})

/** Schema for the lengths of both files of a journal, in bytes. */
export const Offsets = Schema.Struct({ journal: Schema.Natural, timing: Schema.Natural })

/** The lengths of both files of a journal, in bytes: each the end of a line. */
export interface Offsets extends Schema.Schema.Type<typeof Offsets> {}

/** A file of a snapshot. */
export interface FileRecord extends Schema.Schema.Type<typeof FileRecord> {}

/**
 * Schema for a manifest. `configuration`, `dataCursor` and `randomKeys` are the recipe's, which alone knows their form;
 * `journal` says how long the journal was; `metrics` holds what was measured at the step, with `val/loss` if that was.
 * `unfinished` is there if the run was interrupted before the step was in the journal: it holds the values with which
 * the line of the step will begin once the run goes on.
 */
export const Manifest = Schema.Struct({
  formatVersion: Schema.Literal(formatVersion),
  step: Schema.Natural,
  files: Schema.Record(Schema.String, FileRecord),
  configuration: Schema.Json,
  dataCursor: Schema.Json,
  randomKeys: Schema.Json,
  journal: Offsets,
  environment: Environment,
  dataHash: Schema.String,
  tokenizerHash: Schema.String,
  metrics: Schema.Record(Schema.String, Schema.Finite),
  unfinished: Schema.optionalKey(Schema.Record(Schema.String, Schema.Finite))
})

/** What a snapshot says of itself. */
export interface Manifest extends Schema.Schema.Type<typeof Manifest> {}

/** Schema for a file that is not as it was saved. */
export const Damage = Schema.Struct({ file: Schema.String, expected: Schema.String, found: Schema.String })

/** A file that is not as it was saved. */
export interface Damage extends Schema.Schema.Type<typeof Damage> {}

/** One thing that differs between the saving and the resuming run; texts are JSON. */
export interface Difference {
  readonly field: string
  readonly saved: string
  readonly here: string
}

/**
 * How the environment and the data of a resuming run differ from those of the snapshot. With other data it is another
 * run; with another environment it is the same run, whose last bits may differ.
 */
export const differences = (
  saved: Pick<Manifest, "environment" | "dataHash" | "tokenizerHash">,
  here: Pick<Manifest, "environment" | "dataHash" | "tokenizerHash">
): ReadonlyArray<Difference> => {
  const fields = ({ dataHash, environment, tokenizerHash }: typeof saved) => ({
    "data": dataHash,
    "tokenizer": tokenizerHash,
    "engine": environment.engine,
    "processor": environment.cpu.model,
    "processor features": environment.cpu.features,
    "threads": environment.threadCount,
    "Node": environment.node
  })
  const [before, now] = [Object.entries(fields(saved)), Object.values(fields(here))]
  return before.flatMap(([field, value], index) => {
    if (value === undefined || now[index] === undefined) return [] // what is not said differs from nothing
    const [saved, here] = [JSON.stringify(value), JSON.stringify(now[index])]
    return saved === here ? [] : [{ field, saved, here }]
  })
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

/** The name of the manifest in the folder of a snapshot. */
export const fileName = "manifest.json"

/** The name of the file with the manifest's checksum. */
export const checksumName = "manifest.sha256"

const checksumLine = (json: Uint8Array): string => `${sha256(json)}  ${fileName}\n`

const checksumLines = /^([0-9a-f]{64} {2}manifest\.json\n)+$/

/** Fails when what a snapshot would say of itself cannot be written as JSON and read back the same. */
export class ManifestError extends Schema.TaggedError<ManifestError>()("ManifestError", {
  step: Schema.Number,
  issue: Schema.String
}) {
  override get message(): string {
    return `snapshot of step ${this.step}: its manifest has no JSON form, so nothing was written: ${this.issue}\n` +
      "JSON has no NaN, Infinity, undefined, bigint or date: give that value as a finite number or a text."
  }
}

const encodeManifest = Schema.encodeUnknownResult(Manifest)

/** The manifest as the bytes of its two files. */
export const encode = (
  manifest: Manifest
): Result.Result<{ readonly json: Uint8Array; readonly checksum: Uint8Array }, ManifestError> =>
  encodeManifest(manifest).pipe(
    Result.mapError(({ message }) => new ManifestError({ step: manifest.step, issue: message })),
    Result.map((fields) => {
      const json = new TextEncoder().encode(`${JSON.stringify(fields, null, 2)}\n`)
      return { json, checksum: new TextEncoder().encode(checksumLine(json)) }
    })
  )

const Version = Schema.Struct({ formatVersion: Schema.Natural })
const decodeVersion = Schema.decodeUnknownResult(Schema.fromJsonString(Version))
const decodeManifest = Schema.decodeUnknownResult(Schema.fromJsonString(Manifest), { onExcessProperty: "error" })

/** The manifest from the bytes of its two files, checked against its checksum. */
export const decode = (json: Uint8Array, checksum: Uint8Array): Result.Result<Manifest, Damage> => {
  const damage = (expected: string, found: string) => Result.fail({ file: fileName, expected, found })
  const text = new TextDecoder().decode(json)
  const expected = new TextDecoder().decode(checksum)
  // while a manifest is replaced there are two lines, of the one that goes and the one that comes
  if (!checksumLines.test(expected) || !expected.includes(checksumLine(json))) {
    return damage(`sha256 ${expected.slice(0, 64)}`, `sha256 ${sha256(json)}`)
  }
  const version = decodeVersion(text)
  if (Result.isSuccess(version) && version.success.formatVersion !== formatVersion) {
    return damage(`format version ${formatVersion}`, `format version ${version.success.formatVersion}`)
  }
  const misread = (found: string): Damage => ({ file: fileName, expected: "a manifest", found })
  return Result.mapError(decodeManifest(text), ({ message }) => misread(message))
}

/** Reads the manifest of a snapshot's folder. Damage is a value, for the caller knows what is intact instead. */
export const read = Effect.fnUntraced(function*(
  folder: string
): Effect.fn.Return<Result.Result<Manifest, Damage>, PlatformError, FileSystem.FileSystem | Path.Path> {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const bytes = (file: string) => fileSystem.readFile(path.join(folder, file)).pipe(
    Effect.map(Result.succeed),
    Effect.catchReason("PlatformError", "NotFound", () => Effect.succeed(Result.fail(file)))
  )
  const both = Result.all([yield* bytes(fileName), yield* bytes(checksumName)])
  return Result.isFailure(both)
    ? Result.fail({ file: both.failure, expected: "a file", found: "none" })
    : decode(...both.success)
})
