/**
 * The command that npm links: what it says before the build, and that it starts what the build makes.
 */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

describe("the command cria", () => {
  it("says that it is not built, and starts what is", () => {
    const folder = mkdtempSync(join(tmpdir(), "cria-bin-"))
    mkdirSync(join(folder, "bin"))
    writeFileSync(join(folder, "package.json"), `{"type": "module"}`)
    copyFileSync(join(import.meta.dirname, "../../bin/cria.js"), join(folder, "bin/cria.js"))
    const run = () => {
      const { status, stderr, stdout } = spawnSync(process.execPath, [join(folder, "bin/cria.js"), "doctor"],
        { encoding: "utf8" })
      return { status, stderr, stdout }
    }
    assert.deepStrictEqual(run(), {
      status: 1, stdout: "",
      stderr: "error: cria is not built yet\n  npm ci && npm run build, in its folder, builds it; run this again.\n"
    })
    mkdirSync(join(folder, "dist/cli"), { recursive: true })
    writeFileSync(join(folder, "dist/cli/main.js"), "console.log(process.argv[2])\nprocess.exitCode = 7")
    assert.deepStrictEqual(run(), { status: 7, stdout: "doctor\n", stderr: "" })
    rmSync(folder, { recursive: true })
  })
})
