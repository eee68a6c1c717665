import { assert, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url))
const built = existsSync(path("../../dist/backend/onnx/Engine.js"))

it.skipIf(!built)("the engine neither crashes nor errs in fresh processes that collect garbage (needs a build)", () => {
  const { status, stdout } = spawnSync(process.execPath, [path("engine.mjs"), "10", "400"], { encoding: "utf8" })
  assert.match(stdout, /10 processes: 0 crashes/)
  assert.match(stdout, /400 runs: 0 crashes in all/)
  assert.strictEqual(status, 0)
})
