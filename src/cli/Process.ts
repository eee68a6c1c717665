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

// a reader that went away (`cria … | head`) is told like Ctrl-C, so that a run saves what it has
process.stdout.on("error", () => { process.kill(process.pid, "SIGINT") })

NodeRuntime.runMain(
  CommandLine.run(versionOf("cria"), process.argv.slice(2)).pipe(Effect.provide(NodeServices.layer)),
  { disableErrorReporting: true }
)
