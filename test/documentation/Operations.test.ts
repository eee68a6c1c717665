/**
 * docs/operations.md has a row for every primitive and a column for every backend; numbers may differ, rows may not.
 */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { cellsOf, page } from "../../docs/make/operations.mjs"
import * as BackendChoice from "../../src/cli/BackendChoice.ts"
import { rows } from "../../src/testing/PrimitiveCase.ts"

const names = rows.map(({ name }) => name)
const text = readFileSync(new URL("../../docs/operations.md", import.meta.url), "utf8")
const stale = "docs/operations.md is out of date: npm run build, then node docs/make/operations.mjs"

describe("docs/operations.md", () => {
  it("has the primitives and the backends that there are", () => {
    const found = cellsOf(text)
    assert.deepStrictEqual([...found.rows.keys()], names, stale)
    assert.deepStrictEqual(found.columns, [...BackendChoice.names], stale)
  })
  it("says how each is run, and that none is wrong or unsupported where it ran", () => {
    for (const [name, cells] of cellsOf(text).rows) {
      for (const [backend, cell] of cells) {
        assert.match(cell, /^(–|(native|composed|fallback) (exact|\de-\d+)( †)?)$/, `${name} on ${backend}`)
      }
    }
  })
  it("is read as it is written, so that columns can be kept", () => {
    const column: { readonly version: string; readonly cells: Readonly<Record<string, string>> } = {
      version: "1", cells: { "unary exp": "native 1e-7", matmul: "composed exact †" }
    }
    const written = page(["unary exp", "matmul"], new Map([["a", column], ["b", { ...column, cells: {} }]]))
    const { columns, rows } = cellsOf(written)
    assert.deepStrictEqual(columns, ["a", "b"])
    assert.deepStrictEqual([...rows.get("matmul")!], [["a", "composed exact †"], ["b", "–"]])
  })
})
