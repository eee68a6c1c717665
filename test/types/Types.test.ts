/**
 * What the compiler must refuse, and why: each line after `// @ts-expect-error FRAGMENT` in this folder is refused with
 * a message that contains FRAGMENT, and no other line is refused.
 *
 * The directives are taken out before the compiler sees the files, so a line that fails for another reason (a name that
 * is not there any more) does not pass for a caught mistake.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import ts from "typescript"

const root = fileURLToPath(new URL("../..", import.meta.url))
const folder = fileURLToPath(new URL(".", import.meta.url))
const directive = /^\s*\/\/ @ts-expect-error (\S.*)$/

const files = Fs.readdirSync(folder).filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))

/** The messages of the compiler under the project's own settings, by file and line. */
const diagnose = (): ReadonlyMap<string, string> => {
  const { config } = ts.readConfigFile(Path.join(root, "tsconfig.json"), ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  const host = ts.createCompilerHost(options)
  const read = host.readFile.bind(host)
  host.readFile = (path) => {
    const text = read(path)
    return Path.dirname(path) === Path.dirname(Path.join(folder, "x"))
      ? text?.replaceAll("@ts-expect-error", "expected")
      : text
  }
  const program = ts.createProgram(files.map((name) => Path.join(folder, name)), options, host)
  const messages = new Map<string, string>()
  for (const { file, messageText, start } of ts.getPreEmitDiagnostics(program)) {
    const line = file === undefined ? 0 : file.getLineAndCharacterOfPosition(start ?? 0).line + 1
    const place = `${file === undefined ? "settings" : Path.relative(folder, file.fileName)}:${line}`
    messages.set(place, `${messages.get(place) ?? ""}${ts.flattenDiagnosticMessageText(messageText, "\n")}\n`)
  }
  return messages
}

describe("the compiler", () => {
  const messages = diagnose()
  const expected = files.flatMap((name) =>
    Fs.readFileSync(Path.join(folder, name), "utf8").split("\n").flatMap((text, i) => {
      const fragment = directive.exec(text)?.[1]
      return fragment === undefined ? [] : [{ place: `${name}:${i + 2}`, fragment }]
    })
  )
  it("has something to refuse in every file", () => {
    assert.deepStrictEqual(files.filter((name) => !expected.some(({ place }) => place.startsWith(`${name}:`))), [])
  })
  it.each(expected)("refuses $place: $fragment", ({ fragment, place }) => {
    assert.include(messages.get(place) ?? "(accepted)", fragment)
  })
  it("refuses nothing else", () => {
    const places = new Set(expected.map(({ place }) => place))
    assert.deepStrictEqual([...messages].filter(([place]) => !places.has(place)), [])
  })
})
