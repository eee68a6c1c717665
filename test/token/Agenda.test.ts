import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Agenda from "../../src/token/Agenda.ts"

describe("Agenda", () => {
  it("gives back the smallest of what it holds, whatever the order of pushes and pops", () => {
    const step = fc.oneof(
      { weight: 3, arbitrary: fc.tuple(fc.nat(6), fc.nat(40)) },
      { weight: 2, arbitrary: fc.constant(undefined) }
    )
    const agenda = Agenda.make(7)
    fc.assert(fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      let held: Array<readonly [number, number]> = []
      const pop = () => {
        held = held.sort((a, b) => a[0] - b[0] || a[1] - b[1])
        const expected = held.shift()
        assert.strictEqual(agenda.pop(), expected !== undefined)
        if (expected !== undefined) assert.deepStrictEqual([agenda.rank, agenda.place], [...expected])
      }
      for (const entry of steps) {
        if (entry === undefined) pop()
        else {
          agenda.push(entry[0], entry[1])
          held.push(entry)
        }
      }
      while (held.length > 0) pop()
      pop()
    }))
  })

  it("holds places and ranks as large as any text and vocabulary", () => {
    const agenda = Agenda.make(1 << 21)
    const entries: ReadonlyArray<readonly [number, number]> = [
      [2_097_151, 2_147_483_646],
      [2_097_151, 5],
      [0, 7],
      [2_097_150, 2_147_483_646]
    ]
    for (const [rank, place] of entries) agenda.push(rank, place)
    const popped = []
    while (agenda.pop()) popped.push([agenda.rank, agenda.place])
    assert.deepStrictEqual(popped, [[0, 7], [2_097_150, 2_147_483_646], [2_097_151, 5], [2_097_151, 2_147_483_646]])
  })
})
