import { describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { swiGlu } from "../../src/llama/FeedForward.ts"
import { agree, evaluate, hasTheSlopeOfDifferences, normals } from "../law/Evaluation.ts"

const shape = fc.record({
  seed: fc.nat(), position: fc.integer({ min: 1, max: 3 }), embed: fc.integer({ min: 1, max: 4 }),
  hidden: fc.integer({ min: 1, max: 5 })
})

interface Sizes {
  readonly seed: number
  readonly position: number
  readonly embed: number
  readonly hidden: number
}

const inputsOf = ({ embed, hidden, position, seed }: Sizes) => ({
  x: normals(seed, { batch: 2, position, embed }),
  parameters: {
    gate: normals("gate", { embed, hidden }),
    up: normals("up", { embed, hidden }),
    down: normals("down", { hidden, embed })
  }
})

describe("swiGlu", () => {
  it("is down (silu(gate x) ∘ up x), by plain loops", () => {
    fc.assert(fc.property(shape, (sizes) => {
      const { embed, hidden, position } = sizes
      const { parameters, x } = inputsOf(sizes)
      const { down, gate, input, up, y } = evaluate(() => ({ y: swiGlu(parameters, x), input: x, ...parameters }))
      const row = (matrix: typeof gate, h: number, n: number): number => {
        let total = 0
        for (let e = 0; e < embed; e++) total += matrix.elements[e * hidden + h]! * input.elements[n * embed + e]!
        return total
      }
      const expected = Array.from({ length: 2 * position * embed }, (_, i) => {
        const [n, e] = [Math.floor(i / embed), i % embed]
        let total = 0
        for (let h = 0; h < hidden; h++) {
          const z = row(gate, h, n)
          total += down.elements[h * embed + e]! * (z / (1 + Math.exp(-z))) * row(up, h, n)
        }
        return total
      })
      agree([...y.elements], expected)
    }), { numRuns: 30 })
  })

  it("has the gradient that differences say", () => {
    fc.assert(fc.property(shape, (sizes) => {
      hasTheSlopeOfDifferences(inputsOf(sizes), ({ parameters, x }) => swiGlu(parameters, x))
    }), { numRuns: 20 })
  })
})
