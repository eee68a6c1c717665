// @ts-check
/**
 * `npm run bench` runs every benchmark; `npm run bench -- train` (or `--train`) one. Peers take part where
 * CRIA_PEER_PYTHON names a Python that has them. Run on a quiet machine, and compare only what stands in one run.
 */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"

const all = ["build", "train", "decode", "tokenizer", "backends"]
const wanted = process.argv.slice(2).map((name) => name.replace(/^--/, ""))
const unknown = wanted.filter((name) => !all.includes(name))
if (unknown.length > 0) {
  console.error(`bench: there is no ${unknown.join(", ")}; there are ${all.join(", ")}`)
  process.exit(1)
}
for (const name of wanted.length > 0 ? wanted : all) {
  console.log(`\n${name}`)
  const script = fileURLToPath(new URL(`${name}.mjs`, import.meta.url))
  const { status } = spawnSync(process.execPath, [script], { stdio: "inherit" })
  if (status !== 0) process.exitCode = 1
}
