// @ts-check
/**
 * The package as a stranger gets it: packed, installed in an empty folder, imported, type-checked, and running the
 * first model of README.md; with `--registry`, which takes packages of the day, also in the way that README.md tells.
 * Says which step failed, and leaves the folder for a look when one did.
 */
import { spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { agrees, snippets, strip } from "../../docs/make/snippet.mjs"

const root = fileURLToPath(new URL("../..", import.meta.url))
const folder = mkdtempSync(join(tmpdir(), "cria-package-"))
const compiler = join(root, "node_modules/typescript-7/bin/tsc")

/**
 * @param {string} cwd
 * @param {string} command
 * @param {ReadonlyArray<string>} args
 */
const run = (cwd, command, args) => {
  const result = spawnSync(command, args, { cwd, encoding: "utf8" })
  if (result.error !== undefined) throw result.error
  return result
}

/**
 * @param {string} what
 * @param {boolean} holds
 * @param {() => string} [details]
 */
const step = (what, holds, details = () => "") => {
  console.log(`${holds ? "ok    " : "FAILED"} ${what}`)
  if (holds) return
  console.error(details())
  console.error(`The folder is still there: ${folder}`)
  process.exit(1)
}

/**
 * @param {string} what
 * @param {string} cwd
 * @param {string} command
 * @param {ReadonlyArray<string>} args
 */
const succeed = (what, cwd, command, args) => {
  const result = run(cwd, command, args)
  step(what, result.status === 0, () => `${command} ${args.join(" ")}\n${result.stdout}${result.stderr}`)
  return result.stdout
}

succeed("builds", root, "npm", ["run", "--silent", "build"])
const packed = JSON.parse(succeed("packs", root, "npm", ["pack", "--json", "--pack-destination", folder]))[0]

/** @type {ReadonlyArray<string>} */
const files = packed.files.map((/** @type {{ path: string }} */ file) => file.path)
const expected = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => join("dist", path.slice(0, -".ts".length)).replaceAll("\\", "/"))
  .flatMap((path) => [`${path}.js`, `${path}.d.ts`])
const wanted = new Set([...expected, "bin/cria.js", "package.json", "README.md", "LICENSE"])
const stray = files.filter((path) => !wanted.has(path))
const missing = [...wanted].filter((path) => !files.includes(path))
step("contains what src makes and nothing else", stray.length + missing.length === 0, () =>
  `not wanted: ${stray.join(", ") || "none"}\nmissing: ${missing.join(", ") || "none"}\n` +
  "A file that src no longer has is left over in dist/: delete dist/ and build again.")

writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "stranger", private: true, type: "module" }))
const quietly = ["--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]
succeed("installs in an empty folder", folder, "npm", ["install", ...quietly, join(folder, packed.filename)])

writeFileSync(
  join(folder, "natives.mjs"),
  `for (const name of process.argv.slice(2)) await import(name)
const loaded = process.report.getReport().sharedObjects.filter((path) => /koffi|onnxruntime/.test(path))
if (loaded.length > 0) { console.error("loaded: " + loaded.join(", ")); process.exitCode = 1 }
`
)
succeed("loads no native library on import", folder, process.execPath, ["natives.mjs", "cria"])

const readme = readFileSync(join(root, "README.md"), "utf8")
const [model] = snippets(readme)
step("has a first model in README.md", model !== undefined, () => "README.md has no ts fence")
if (model !== undefined) {
  writeFileSync(join(folder, "model.ts"), model.code)
  writeFileSync(join(folder, "model.mjs"), strip(model.code))
  const printed = succeed("runs the first model of README.md", folder, process.execPath, ["model.mjs"])
  const { output } = model
  step("prints what README.md says", output === undefined ? printed !== "" : agrees(output, printed), () =>
    `expected:\n${output ?? "anything"}\nprinted:\n${printed}`)
  // The libraries' own declarations are not ours to check: only what is said of the model and of cria counts.
  const settings = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--types", "", "model.ts"]
  const complaints = run(folder, process.execPath, [compiler, ...settings]).stdout.split("\n")
    .filter((line) => /^(model\.ts|node_modules\/cria\/)/.test(line))
  step("type-checks the model, and the declarations it uses", complaints.length === 0, () => complaints.join("\n"))

  const [, ...lines] = /```sh\n(npm ci .* npm pack [^`]*)\n```/.exec(readme)?.[1]?.split("\n") ?? []
  step("has lines in README.md for a script of one's own", lines.length === 3)
  if (process.argv.includes("--registry")) {
    const own = mkdtempSync(join(tmpdir(), "cria-own-"))
    writeFileSync(join(own, "model.mts"), model.code)
    for (const line of lines) {
      const told = line.replace(/ *#.*/, "")
      succeed(told, own, "sh", ["-c", told.replace(/path\/to\/cria-[\d.]+\.tgz/, join(folder, packed.filename))])
    }
    rmSync(own, { recursive: true, force: true })
  } else console.log("SKIPPED those lines: they take packages of the day from npm; --registry runs them")
}

const command = join(folder, "node_modules/.bin/cria")
step("has the command `cria`", existsSync(command))
succeed("shows the help of the command", folder, command, ["--help"])

rmSync(folder, { recursive: true, force: true })
