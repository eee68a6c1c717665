import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { oldest, refusal } from "../../src/cli/NodeVersion.ts"

const part = fc.nat({ max: 99 })

describe("the version of Node", () => {
  it("is refused exactly where it is older than what package.json asks for", () => {
    const { engines }: { readonly engines: { readonly node: string } } = JSON.parse(
      readFileSync(new URL("../../package.json", import.meta.url), "utf8")
    )
    assert.strictEqual(engines.node, `>=${oldest.join(".")}`)
    const [major, minor] = oldest
    fc.assert(fc.property(part, part, part, (x, y, z) => {
      assert.strictEqual(refusal(`${x}.${y}.${z}`, "node") === undefined, 100 * x + y >= 100 * major + minor)
    }))
    assert.isUndefined(refusal(process.versions.node, process.execPath))
  })
  it("is told of with the place of that Node, and what to do", () =>
    assert.strictEqual(refusal("18.20.4", "/usr/bin/node"), [
      "cria: Node must be 20.20 or later, but /usr/bin/node is 18.20.4",
      "  It lacks functions that Cria calls. Install a newer one: https://nodejs.org has it, and so has nvm."
    ].join("\n")))
})
