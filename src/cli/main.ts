#!/usr/bin/env node
/**
 * What `cria` starts: looks at the version of Node first, for one that is too old could not even read the rest.
 *
 * @module
 */
import { refusal } from "./NodeVersion.ts"

const refused = refusal(process.versions.node, process.execPath)

if (refused === undefined) {
  await import("./Process.ts") // an edge: no effect runs before it
} else {
  process.stderr.write(`${refused}\n`)
  process.exitCode = 1
}
