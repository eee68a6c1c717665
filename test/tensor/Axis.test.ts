import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import { fileURLToPath } from "node:url"
import { glossary } from "../../src/tensor/Axis.ts"

describe("Axis", () => {
  it("says of every axis what docs/glossary.md says", () => {
    const page = Fs.readFileSync(fileURLToPath(new URL("../../docs/glossary.md", import.meta.url)), "utf8")
    const lines = Object.entries(glossary).map(([axis, what]) => `| \`${axis}\` | ${what} |`)
    assert.include(page, `| axis | what |\n|---|---|\n${lines.join("\n")}\n\n`)
  })
})
