/**
 * The process `cria`: arguments in, exit code out. Importing this runs it.
 *
 * Checked  test/story/Resume.test.ts (as a process).
 *
 * @module
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as CommandLine from "./CommandLine.ts"
import { versionOf } from "./Host.ts"

/** What a shell calls the end of a program whose reader went away, 128 + SIGPIPE: that of `cat FILE | head`. */
const readerGone = 141

// a reader that went away (`cria … | head`) is told like Ctrl-C, so that a run saves what it has; the exit code is that
// of other programs in a pipe, and not 0, for not all was written
process.stdout.on("error", () => {
  process.on("exit", () => { process.exitCode = readerGone })
  process.emit("SIGINT") // a command that has ended by now hears nothing
})

NodeRuntime.runMain(
  CommandLine.run(versionOf("cria"), process.argv.slice(2)).pipe(Effect.provide(NodeServices.layer)),
  { disableErrorReporting: true }
)
