/**
 * Documentation that is wrong fails here: every TypeScript fence of README.md, docs/ and the doc comments compiles and
 * runs, every example prints what it says it prints, and the generated pages are up to date.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { readAll } from "../../docs/make/header.mjs"
import { compare, page, places } from "../../docs/make/paper.mjs"
import { agrees, docComments, execute, printed, snippets } from "../../docs/make/snippet.mjs"

const root = fileURLToPath(new URL("../..", import.meta.url))
const compiler = Path.join(root, "node_modules/typescript-7/bin/tsc")

const run = (command: string, ...args: ReadonlyArray<string>): string => {
  const { status, stderr, stdout } = spawnSync(command, args, { cwd: root, encoding: "utf8" })
  return status === 0 ? "" : `${command} ${args.join(" ")} failed\n${stdout}${stderr}`
}

const pages = [
  ["README.md", Fs.readFileSync(Path.join(root, "README.md"), "utf8")] as const,
  ...readAll(Path.join(root, "docs"), ".md").filter(([path]) => !path.startsWith("api/"))
    .map(([path, text]) => [`docs/${path}`, text] as const),
  ...readAll(Path.join(root, "src"), ".ts").map(([path, text]) => [`src/${path}`, docComments(text)] as const)
]

const found = pages.flatMap(([path, text]) =>
  snippets(text).map((snippet) => ({
    ...snippet,
    place: `${path}:${snippet.line}`,
    name: `${path.replace(/\.\w+$/, "").replaceAll("/", "-")}-${snippet.line}`
  }))
)

const examples = readAll(Path.join(root, "examples"), ".ts")

const check = async (name: string, code: string, output: string | undefined): Promise<void> => {
  const result = await execute(name, code)
  assert.strictEqual(result.status, 0, result.stderr)
  if (output !== undefined && !agrees(output, result.stdout)) assert.strictEqual(result.stdout, output)
}

describe("documentation", () => {
  beforeAll(() => assert.strictEqual(run("npm", "run", "--silent", "build"), ""))

  it("has a first model in README.md", () => assert.isTrue(found.some(({ place }) => place.startsWith("README.md"))))

  it("compiles", () => {
    const folder = Path.join(root, ".cache/documentation")
    Fs.rmSync(folder, { recursive: true, force: true })
    Fs.mkdirSync(folder, { recursive: true })
    for (const { code, name } of found) Fs.writeFileSync(Path.join(folder, `${name}.ts`), code)
    const settings = {
      extends: "../../tsconfig.json",
      compilerOptions: { noUnusedLocals: false, rootDir: "../.." },
      include: ["."]
    }
    Fs.writeFileSync(Path.join(folder, "tsconfig.json"), JSON.stringify(settings))
    assert.strictEqual(run(process.execPath, compiler, "-p", folder), "")
  })

  it.each(found)("runs the code at $place", ({ code, name, output }) => check(name, code, output))

  it("has examples", () => assert.isAbove(examples.length, 0))

  it.each(examples)("prints what examples/%s says", (path, text) => {
    const expected = printed(text)
    assert.isDefined(expected, "an example ends in a comment: /* Prints:\\n…\\n*/")
    return check(path.replace(/\.ts$/, ""), text, expected)
  })

  it("has a docs/paper.md that agrees with the headers", () => {
    assert.strictEqual(run(process.execPath, "docs/make/paper.mjs", "--check"), "")
  })
})

describe("snippets", () => {
  it("are the ts fences, with the text fence that follows as their output", () => {
    const markdown = [
      "a\n```ts\nf()\n```\n\n```text\n1\n```",
      "```ts no-run\ng(\n```\n```text\nprose\n```",
      "```ts\nh()\n```\nb\n```text\nprose\n```\n"
    ].join("\n")
    assert.deepStrictEqual(snippets(markdown).map(({ code, line, output }) => [line, code, output]), [
      [3, "f()", "1"],
      [16, "h()", undefined]
    ])
    assert.throws(() => snippets("```ts\nf()"), "the fence opened on line 1 is never closed")
  })
  it("in doc comments keep their lines", () => {
    const source = "const a = 1\n/**\n * Text.\n * ```ts\n * f()\n * ```\n */\nexport const b = 2 // ```ts\n"
    assert.deepStrictEqual(snippets(docComments(source)), [{ line: 5, code: "f()", output: undefined }])
  })
  it("print what is expected, with … for anything on a line", () => {
    assert.isTrue(agrees("loss 1.5\ntook … ms", "loss 1.5  \ntook 12 ms\n"))
    assert.isFalse(agrees("loss 1.5", "loss 1x5"))
    assert.isFalse(agrees("took … ms", "took\n3 ms"))
    assert.isFalse(agrees("a", "a\nb"))
    assert.strictEqual(printed("f()\n\n/* Prints:\n1\n2\n*/\n"), "1\n2")
    assert.isUndefined(printed("/* Prints:\n1\n*/\nf()"))
  })
})

describe("the table of the paper", () => {
  it("finds the sections that a header names", () => {
    assert.deepStrictEqual(places("Zhang & Sennrich 2019, eq. 4; used before each sub-layer in Llama 2 §2.2."), ["2.2"])
    assert.deepStrictEqual(places("Vaswani et al. 2017 §3.2.1; Llama 2 §3.2.2, eq. 2 and §A.3.4, table 27"), [
      "3.2.2, eq. 2",
      "A.3.4, table 27"
    ])
    assert.deepStrictEqual(places("Vaswani et al. 2017 §3.2.1. Llama 2 is silent."), [])
  })
  it("orders them as the paper does", () => {
    const order = ["2.1", "2.2", "2.2, table 1", "2.2.1", "2.10", "3", "A.1", "A.2.1"]
    assert.deepStrictEqual([...order].reverse().toSorted(compare), order)
  })
  it("has one row for each section and file, and the rest below", () => {
    const header = (from: string) =>
      `/**\n * A | b.\n *\n * From     ${from}\n * Checked  loss/Norm.test.ts.\n * Departs  a\n *          lot\n */\n`
    const text = page([["a/Norm.ts", header("Llama 2 §2.2.")], ["a/Zip.ts", header("PKWARE.")], ["index.ts", ""]])
    const test = "[loss/Norm.test.ts](../test/loss/Norm.test.ts)"
    assert.include(text, `| 2.2 | A \\| b. | [a/Norm.ts](../src/a/Norm.ts) | ${test} | a lot |`)
    assert.include(text, `| [a/Zip.ts](../src/a/Zip.ts) | A \\| b. | PKWARE. | ${test} | a lot |`)
    assert.notInclude(text, "index.ts")
  })
})
