/**
 * Every primitive has a row, and its row lowers to it, on every kind that it takes.
 */
import { assert, describe, it } from "@effect/vitest"
import type { Lowered, Primitive } from "../../src/tensor/Instruction.ts"
import { lower } from "../../src/tensor/Lower.ts"
import { rewrite } from "../../src/tensor/Rewrite.ts"
import { type Computation, leavesOf } from "../../src/testing/Computation.ts"
import { rows } from "../../src/testing/PrimitiveCase.ts"

const lowered = ({ build, given }: Computation): Lowered => {
  const leaves = leavesOf(given)
  const outputs = build(leaves)
  const written = rewrite(outputs, () => false)
  return lower({
    inputs: Object.entries(leaves),
    cells: [],
    outputs: outputs.map((output, i) => ({ name: String(i), node: written[i] ?? output, sizes: output.sizes })),
    writes: [],
    watched: []
  })
}

const nameOf = (primitive: Primitive): string =>
  "function" in primitive ? `${primitive._tag} ${primitive.function}`
    : "relation" in primitive ? `${primitive._tag} ${primitive.relation}`
      : "mode" in primitive ? `${primitive._tag} ${primitive.mode}`
        : primitive._tag

const kindsOf = (computations: ReadonlyArray<Computation>, name: string): ReadonlyArray<string> =>
  [...new Set(computations.flatMap((computation) => {
    const { instructions, values } = lowered(computation)
    return instructions.filter(({ primitive }) => nameOf(primitive) === name)
      .flatMap(({ inputs, outputs }) => [...inputs, ...outputs].map((id) => values[id]!.kind))
  }))].toSorted()

describe("the cases of primitives", () => {
  it.each(rows)("$name", ({ computations, extremes, name }) => {
    const kinds = kindsOf(computations, name)
    assert.isNotEmpty(kinds, `no case lowers to ${name}`)
    if (extremes.length > 0) assert.isNotEmpty(kindsOf(extremes, name), `no extreme lowers to ${name}`)
    const all = ["convert", "transpose", "reshape", "expand", "slice", "pad", "concat", "gather", "barrier"]
    if (all.includes(name)) assert.includeMembers([...kinds], ["code", "id", "real", "truth"])
    const lengths = computations.flatMap((computation) =>
      lowered(computation).values.map(({ shape }) => shape.reduce((total, size) => total * size, 1)))
    if (name !== "constant") assert.includeMembers(lengths, [0, 1], "no case of nothing, or of one")
  })
  it("name every primitive once", () => {
    const names = rows.map(({ name }) => name)
    assert.strictEqual(new Set(names).size, names.length)
    assert.strictEqual(names.length, 45)
  })
})
