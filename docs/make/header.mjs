// @ts-check
/**
 * The header comment of a source file, as data: the documentation and the architecture tests are both made from it.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join, sep } from "node:path"

/**
 * @typedef {object} Header
 * @property {string} text the whole comment, without its stars
 * @property {string} sentence the first sentence: what the file is
 * @property {ReadonlyMap<string, string>} fields the text of From, Checked and Departs, on one line each
 */

/**
 * The header comment of a source file; all empty where it has none.
 *
 * @param {string} source
 * @returns {Header}
 */
export const header = (source) => {
  const block = /^(?:#!.*\n)?\/\*\*\n([\s\S]*?)\n \*\//.exec(source)?.[1] ?? ""
  const lines = block.split("\n").map((line) => line.replace(/^ \* ?/, ""))
  const text = lines.join("\n")
  const opening = lines.slice(0, lines.indexOf("") < 0 ? lines.length : lines.indexOf("")).join(" ")
  const fields = new Map()
  let current = ""
  for (const line of lines) {
    const start = /^(From|Checked|Departs) {2,}(\S.*)$/.exec(line)
    if (start !== null) {
      current = start[1] ?? ""
      fields.set(current, start[2])
    } else if (current !== "" && /^ {2,}\S/.test(line)) {
      fields.set(current, `${fields.get(current)} ${line.trim()}`)
    } else {
      current = ""
    }
  }
  return { text, sentence: /^.*?(?:\.(?= |$)|:$)/.exec(opening)?.[0] ?? "", fields }
}

/**
 * The test files that a Checked field names, as paths from the root; a star stands for any name.
 *
 * @param {string} checked
 * @returns {Array<string>}
 */
export const testsNamed = (checked) =>
  [...checked.matchAll(/\btest\/[\w*/.-]*\w|[\w*/.-]+\.ts\b/g)].map(([named]) => {
    const path = named.startsWith("test/") ? named : `test/${named}`
    return path.endsWith(".ts") ? path : `${path}.test.ts`
  })

/**
 * The files under a folder whose names end in `suffix`, in order, as [path below the folder, text].
 *
 * @param {string} folder
 * @param {string} suffix
 * @returns {Array<[string, string]>}
 */
export const readAll = (folder, suffix) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(suffix))
    .map((path) => path.replaceAll(sep, "/"))
    .toSorted()
    .map((path) => [path, readFileSync(join(folder, path), "utf8")])
