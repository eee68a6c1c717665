#!/usr/bin/env node
/**
 * The command `cria`. It starts what the build makes, and is itself in the repository: npm links a command only to a
 * file that is there when it installs, and npx remembers one that was not.
 *
 * Checked  test/cli/Bin.test.ts.
 *
 * @module
 */
import { existsSync } from "node:fs"

const program = new URL("../dist/cli/main.js", import.meta.url)

if (existsSync(program)) {
  await import(program.href)
} else {
  process.stderr.write("error: cria is not built yet\n" +
    "  npm ci && npm run build, in its folder, builds it; run this again.\n")
  process.exitCode = 1
}
