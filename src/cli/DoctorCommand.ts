/**
 * `cria doctor`: what this machine has, what Cria can use of it, and how fast that is.
 *
 * Every backend is tried in a process of its own, one after the other.
 *
 * Checked  test/cli/DoctorCommand.test.ts.
 *
 * @module
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as BackendChoice from "./BackendChoice.ts"
import * as BackendProbe from "./BackendProbe.ts"
import * as Host from "./Host.ts"
import { quantity } from "./Screen.ts"

const indented = (text: string): string => text.split("\n").map((line) => `  ${line.trim()}`).join("\n")

/** What is said of a backend. */
export const told = (name: BackendChoice.Name, report: BackendProbe.Report): string => {
  const { ran, what } = BackendChoice.choices[name]
  const title = `${name}: ${what}\n  tested ${ran}`
  if (report._tag === "Absent") return `${title}\n${indented(`not here: ${report.message}`)}`
  const { bytesPerSecond, device, flopsPerSecond, size, threads, version } = report
  const place = device === undefined ? `${threads} thread${threads === 1 ? "" : "s"}` : `device ${device}`
  const rates = `multiplies matrices at ${quantity(flopsPerSecond, "FLOP/s")} (${size} × ${size}), moves memory at ` +
    quantity(bytesPerSecond, "B/s")
  return `${title}\n  here: ${/^\d/.test(version) ? "version " : ""}${version}, ${place}\n  ${rates}`
}

const flags = {
  probe: Flag.Literals("probe", BackendChoice.names).pipe(
    Flag.withDescription("Measure one backend in this process and print a line of JSON"), Flag.withHidden, Flag.optional
  )
}

/** The command. */
export const command = Command.make("doctor", flags, Effect.fnUntraced(function*({ probe }) {
  if (Option.isSome(probe)) {
    return yield* Console.log(BackendProbe.encode(yield* BackendProbe.measure(probe.value, 0.5)))
  }
  const { cores, features, model } = yield* Host.processor
  yield* Console.log(`cria          ${Host.versionOf("cria")}`)
  yield* Console.log(`node          ${process.version} on ${process.platform} ${process.arch}`)
  yield* Console.log(`packages      ${Host.packages.map((name) => `${name} ${Host.versionOf(name)}`).join(", ")}`)
  yield* Console.log(`processor     ${model}, ${cores} cores${features.length === 0 ? "" : `, ${features.join(" ")}`}`)
  yield* Console.log(`memory        ${quantity(Host.memory(), "B")}\n`)
  yield* Console.log("Backends, tried one after the other:\n")
  const ask = yield* BackendProbe.Prober
  const started = new Map<BackendChoice.Name, number>()
  const absent: Array<string> = []
  for (const name of BackendChoice.names) {
    const report = yield* ask(name)
    if (report._tag === "Started") started.set(name, report.flopsPerSecond)
    else absent.push(`${name}: ${report.message}`)
    yield* Console.log(`${told(name, report)}\n`)
  }
  const chosen = BackendChoice.order.find((name) => started.has(name))
  if (chosen === undefined) return yield* new BackendChoice.NoEngineError({ reasons: absent })
  const [[fastest] = [chosen]] = [...started].toSorted(([, a], [, b]) => b - a)
  yield* Console.log(`Commands compute with ${chosen}, and with the model of a run on what trained it; --backend ` +
    "NAME chooses another.")
  if (fastest !== chosen) yield* Console.log(`${fastest} multiplied matrices faster just now.`)
})).pipe(
  Command.withShortDescription("See what this machine can do"),
  Command.withDescription(
    "Prints Node, the packages, the processor, and every backend: where it was ever run, whether it starts here (if " +
      "not, why, and how to get it), what it computes on, how fast it multiplies matrices and moves memory."
  ),
  Command.withExamples([{ command: "cria doctor", description: "See what this machine can do" }])
)
