/**
 * The process `cria`: arguments in, exit code out. Importing this runs it.
 *
 * Checked  test/story/Resume.test.ts (as a process; signals; output that nobody reads, or that a full disk does not
 *          take).
 *
 * @module
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Runtime from "effect/Runtime"
import * as CommandLine from "./CommandLine.ts"
import * as FailureMessage from "./FailureMessage.ts"
import { versionOf } from "./Host.ts"

/** What a shell calls the end of a program whose reader went away, 128 + SIGPIPE: that of `cat FILE | head`. */
const readerGone = 141

// output that cannot be written is told to the command like Ctrl-C, so that a run saves what it has; the exit code is
// not 0, for not all was written. A reader that went away (`cria … | head`) hears no word; of a full disk one is said
let isTold = false
process.stdout.on("error", (error) => { // Node tells it again for what is written later
  if (isTold) return
  isTold = true
  const isGone = FailureMessage.isReaderGone(error)
  if (!isGone) process.stderr.write(`error: ${FailureMessage.ofOutput(error)}\n`)
  process.on("exit", () => { process.exitCode = isGone ? readerGone : 1 })
  process.emit("SIGINT") // a command that has ended by now hears nothing
})
process.stderr.on("error", () => {}) // nobody can be told; what the command does is whole without it

/** What a shell calls the end of a program by Ctrl-C and by `kill`: 128 and the number of the signal. */
const [interrupted, terminated] = [130, 143]

let isTerminated = false
process.on("SIGTERM", () => { isTerminated = true }) // the command is told of it as of Ctrl-C

NodeRuntime.runMain(
  CommandLine.run(versionOf("cria"), process.argv.slice(2)).pipe(
    Effect.provide(NodeServices.layer), Effect.ensuring(Effect.sleep(1)) // Node tells an error of the last thing then
  ),
  {
    disableErrorReporting: true,
    teardown: (exit, end) => Runtime.defaultTeardown(exit, (code) =>
      end(code === interrupted && isTerminated ? terminated : code))
  }
)
