// @ts-check
/**
 * Writes docs/paper.md from the header comments of the source files, so that it cannot lie.
 *
 * `node docs/make/paper.mjs` writes it; with `--check` it only says whether it is up to date (exit code 1 if not).
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { header, readAll, testsNamed } from "./header.mjs"

const root = join(dirname(fileURLToPath(import.meta.url)), "../..")
const target = join(root, "docs/paper.md")

/**
 * The places of the paper that a From field names: "Llama 2 §3.2.2, eq. 2 and §A.3" is ["3.2.2, eq. 2", "A.3"].
 *
 * @param {string} from
 * @returns {Array<string>}
 */
export const places = (from) =>
  from.split(/;|(?<!\b(?:eqs?|figs?|ch))\.(?= |$)/).flatMap((clause) => {
    const start = clause.indexOf("Llama 2")
    const named = start < 0 ? "" : clause.slice(start)
    const section = /§ ?([A\d](?:\.\d+)*(?:, (?:eq|table|figure)s?\.? \d+)?)/g
    return [...named.matchAll(section)].map((match) => match[1] ?? "")
  })

/**
 * Places in the order of the paper: 2.2 before 2.10, the appendix last.
 *
 * @param {string} left
 * @param {string} right
 */
export const compare = (left, right) => {
  const [a, b] = [left, right].map((place) =>
    (place.split(",")[0] ?? "").split(".").map((part) => part === "A" ? Infinity : Number(part))
  )
  for (let i = 0; i < Math.max(a?.length ?? 0, b?.length ?? 0); i++) {
    const [x, y] = [a?.[i] ?? -1, b?.[i] ?? -1]
    if (x !== y) return x < y ? -1 : 1
  }
  return left < right ? -1 : left > right ? 1 : 0
}

/** @param {string} text */
const cell = (text) => text.replaceAll("|", "\\|")

/** @param {string} path */
const link = (path) => path.includes("*") ? `\`${path}\`` : `[${path.replace(/^(src|test)\//, "")}](../${path})`

/** @param {ReadonlyArray<string>} cells */
const row = (cells) => `| ${cells.map((text) => text === "" ? "–" : text).join(" | ")} |`

/**
 * The page, from the sources as [path below src, text].
 *
 * @param {ReadonlyArray<readonly [string, string]>} sources
 */
export const page = (sources) => {
  const files = sources.filter(([path]) => !/(^|\/)(index|main)\.ts$/.test(path)).map(([path, text]) => {
    const { fields, sentence } = header(text)
    const from = fields.get("From") ?? ""
    const tests = testsNamed(fields.get("Checked") ?? "").map(link).join(", ")
    const departs = cell(fields.get("Departs") ?? "")
    return { file: link(`src/${path}`), sentence: cell(sentence), from, places: places(from), tests, departs }
  })
  const cited = files.flatMap((file) => file.places.map((place) => ({ ...file, place })))
    .toSorted((a, b) => compare(a.place, b.place) || (a.file < b.file ? -1 : 1))
  const others = files.filter(({ places }) => places.length === 0)
  return [
    "# The paper and the code",
    "",
    "Where each part of *Llama 2: Open Foundation and Fine-Tuned Chat Models* (Touvron et al. 2023, arXiv:2307.09288)",
    "is in the code, which test checks it, and where we departed from it. Generated from the header comments of the",
    "source files by `npm run docs`; do not edit it here.",
    "",
    row(["§", "what", "file", "checked by", "departs"]),
    row(["---", "---", "---", "---", "---"]),
    ...cited.map(({ departs, file, place, sentence, tests }) => row([place, sentence, file, tests, departs])),
    "",
    "## What the paper stands on",
    "",
    "Files that implement no section of the paper: what they come from instead.",
    "",
    row(["file", "what", "from", "checked by", "departs"]),
    row(["---", "---", "---", "---", "---"]),
    ...others.map(({ departs, file, from, sentence, tests }) => row([file, sentence, cell(from), tests, departs])),
    ""
  ].join("\n")
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = page(readAll(join(root, "src"), ".ts"))
  if (!process.argv.includes("--check")) writeFileSync(target, text)
  else if (!existsSync(target) || readFileSync(target, "utf8") !== text) {
    console.error("docs/paper.md is out of date: run `node docs/make/paper.mjs` and commit it")
    process.exitCode = 1
  }
}
