/**
 * What a backend can do here: a process of its own starts it, measures it and tells, so that one which crashes or hangs
 * takes nothing with it.
 *
 * An edge: the process is this program again, with a hidden flag.
 *
 * Checked  test/cli/BackendProbe.test.ts.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as ChildProcess from "effect/process/ChildProcess"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import { Backend } from "../backend/Backend.ts"
import { bandwidth, matmulRate } from "../backend/MatmulRate.ts"
import * as BackendChoice from "./BackendChoice.ts"

/** What a backend told of itself. */
export const Report = Schema.Union([
  Schema.TaggedStruct("Started", {
    version: Schema.String,
    threads: Schema.Int,
    device: Schema.optionalKey(Schema.String),
    /** Side of the square matrices. */
    size: Schema.Int,
    flopsPerSecond: Schema.Finite,
    bytesPerSecond: Schema.Finite
  }),
  Schema.TaggedStruct("Absent", { message: Schema.String })
])

/** What a backend told of itself. */
export type Report = typeof Report.Type

/** Sides of matrices that a slow backend and a fast one multiply in well under a second, and the rate between them. */
const sides = { slow: 256, fast: 1024, between: 4e9 }

/** Starts a backend in this process and measures it. */
export const measure = (
  name: BackendChoice.Name, seconds: number
): Effect.Effect<Report> =>
  Effect.gen(function*() {
    const { capabilities: { device, threads }, version } = yield* Backend
    const first = yield* matmulRate({ size: sides.slow, seconds: seconds / 10 })
    const size = first < sides.between ? sides.slow : sides.fast
    const flopsPerSecond = size === sides.slow ? first : yield* matmulRate({ size, seconds })
    const bytesPerSecond = yield* bandwidth({ size: size * size, seconds: seconds / 2 })
    return Report.members[0].make({
      version, threads, size, flopsPerSecond, bytesPerSecond, ...device === undefined ? {} : { device }
    })
  }).pipe(
    Effect.provide(BackendChoice.layer(name, undefined)),
    Effect.catch(({ message }) => Effect.succeed(Report.members[1].make({ message })))
  )

const limit = Duration.seconds(60)

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Report))

/** A report as the one line that the process prints. */
export const encode = Schema.encodeSync(Schema.fromJsonString(Report))

/** The report of a process of its own, or how it ended. */
const spawned = (name: BackendChoice.Name): Effect.Effect<Report, never, ChildProcessSpawner.ChildProcessSpawner> =>
  Effect.gen(function*() {
    const [, script = ""] = process.argv
    const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
    const child = yield* spawner.spawn(
      ChildProcess.make(process.execPath, [script, "doctor", "--probe", name], { stdin: "ignore" })
    )
    const [lines, complaints] = yield* Effect.all([
      child.stdout.pipe(Stream.decodeText(), Stream.splitLines, Stream.runCollect),
      child.stderr.pipe(Stream.decodeText(), Stream.splitLines, Stream.takeRight(3), Stream.runCollect)
    ], { concurrency: 2 })
    const report = lines.flatMap((line) => Option.toArray(decode(line))).at(-1)
    if (report !== undefined) return report
    const ended = yield* Effect.result(child.exitCode)
    const how = ended._tag === "Success" ? `exit code ${ended.success}` : ended.failure.message
    const ending = `its process ended (${how}) before it told anything: it crashes here`
    return Report.members[1].make({ message: [ending, ...complaints].join("\n  ") })
  }).pipe(
    Effect.scoped,
    Effect.timeoutOption(limit),
    Effect.map(Option.getOrElse((): Report => Report.members[1].make({
      message: `it told nothing within ${Duration.format(limit)}: it hangs here`
    }))),
    Effect.catch(({ message }) => Effect.succeed(Report.members[1].make({ message })))
  )

/** How a backend is asked. Tests ask in their own process. */
export const Prober = Context.Reference<
  (name: BackendChoice.Name) => Effect.Effect<Report, never, ChildProcessSpawner.ChildProcessSpawner>
>("cria/cli/BackendProbe/Prober", { defaultValue: () => spawned })
