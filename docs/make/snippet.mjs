// @ts-check
/**
 * The TypeScript that documentation contains, and running it as a user would: against the built package, in a process
 * of its own.
 */
import { spawn } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import ts from "typescript"

const root = join(dirname(fileURLToPath(import.meta.url)), "../..")

/**
 * @typedef {object} Snippet
 * @property {number} line the line of its first line of code, from 1
 * @property {string} code
 * @property {string | undefined} output what it prints, where a `text` fence says so
 */

/**
 * The `ts` fences of a Markdown text, except those marked `ts no-run`. A `text` fence straight after one is its output.
 *
 * @param {string} markdown
 * @returns {Array<Snippet>}
 */
export const snippets = (markdown) => {
  /** @type {Array<Snippet>} */
  const found = []
  /** @type {Snippet | undefined} */
  let last
  const lines = markdown.split("\n")
  for (let i = 0; i < lines.length; i++) {
    const info = /^```(.*)$/.exec(lines[i] ?? "")?.[1]
    if (info === undefined) {
      if (lines[i]?.trim() !== "") last = undefined
      continue
    }
    const start = i + 1
    do i++
    while (i < lines.length && lines[i] !== "```")
    if (i === lines.length) throw new Error(`the fence opened on line ${start} is never closed`)
    const body = lines.slice(start, i).join("\n")
    if (info.trim() === "text" && last !== undefined) last.output = body
    last = info.trim() === "ts" ? { line: start + 1, code: body, output: undefined } : undefined
    if (last !== undefined) found.push(last)
  }
  return found
}

/**
 * The Markdown inside the doc comments of a source file, every other line blank, so that line numbers stay.
 *
 * @param {string} source
 */
export const docComments = (source) => {
  let inside = false
  return source.split("\n").map((line) => {
    if (/^\s*\/\*\*/.test(line)) inside = true
    const text = inside && /^\s*\*(?!\/)/.test(line) ? line.replace(/^\s*\* ?/, "") : ""
    if (line.includes("*/")) inside = false
    return text
  }).join("\n")
}

/**
 * What an example says that it prints: the block comment at its end that opens with "Prints:".
 *
 * @param {string} source
 */
export const printed = (source) => /\/\* Prints:\n([\s\S]*?)\n\*\/\s*$/.exec(source)?.[1]

/**
 * The code as JavaScript, its types stripped.
 *
 * @param {string} code
 */
export const strip = (code) =>
  ts.transpileModule(code, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true }
  }).outputText

/**
 * Runs TypeScript in a Node of its own, inside this package, so that `cria` is the package as built in dist/.
 *
 * @param {string} name of the file that is run, without its ending
 * @param {string} code
 * @returns {Promise<{ status: number | null; stdout: string; stderr: string }>}
 */
export const execute = (name, code) => {
  const folder = join(root, ".cache/run")
  mkdirSync(folder, { recursive: true })
  const path = join(folder, `${name}.mjs`)
  writeFileSync(path, strip(code))
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path], { cwd: root, stdio: ["ignore", "pipe", "pipe"] })
    let [stdout, stderr] = ["", ""]
    child.stdout.setEncoding("utf8").on("data", (text) => stdout += text)
    child.stderr.setEncoding("utf8").on("data", (text) => stderr += text)
    child.on("error", reject)
    child.on("close", (status) => resolve({ status, stdout, stderr }))
  })
}

/**
 * Is this the text that was printed? An ellipsis stands for anything on its line; trailing spaces do not count.
 *
 * @param {string} expected
 * @param {string} actual
 */
export const agrees = (expected, actual) => {
  const tidy = (/** @type {string} */ text) => text.trimEnd().split("\n").map((line) => line.trimEnd()).join("\n")
  const pattern = tidy(expected).split("…").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join(".*")
  return new RegExp(`^${pattern}$`).test(tidy(actual))
}
