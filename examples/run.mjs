// @ts-check
/**
 * Runs examples by name: `npm run example -- 01` runs all whose names begin with 01; without a name it lists them.
 */
import { spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { strip } from "../docs/make/snippet.mjs"

const folder = fileURLToPath(new URL(".", import.meta.url))
const output = join(folder, "../.cache/run")
const names = readdirSync(folder).filter((name) => name.endsWith(".ts")).map((name) => name.slice(0, -3)).toSorted()
const wanted = process.argv.slice(2)
const chosen = names.filter((name) => wanted.some((start) => name.startsWith(start)))

if (wanted.length === 0) {
  console.log(`npm run example -- NAME, where NAME is one of these, or its beginning:\n  ${names.join("\n  ")}`)
} else if (chosen.length === 0) {
  console.error(`No example begins with ${wanted.join(" or ")}. There are:\n  ${names.join("\n  ")}`)
  process.exitCode = 1
}
for (const name of chosen) {
  mkdirSync(output, { recursive: true })
  const path = join(output, `${name}.mjs`)
  writeFileSync(path, strip(readFileSync(join(folder, `${name}.ts`), "utf8")))
  const { status } = spawnSync(process.execPath, [path], { stdio: "inherit" })
  if (status !== 0) process.exitCode = 1
}
