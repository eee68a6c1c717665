import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { angles, rotate } from "../../src/llama/Rope.ts"
import * as T from "../../src/tensor/Tensor.ts"
import {
  agree, evaluate, hasTheSlopeOfDifferences, normals, numbers, pullsBackAsItsDecomposition, someIds
} from "../law/Evaluation.ts"

const theta = 10_000

const shape = fc.record({
  seed: fc.nat(), batch: fc.integer({ min: 1, max: 2 }), position: fc.integer({ min: 1, max: 4 }),
  group: fc.integer({ min: 1, max: 2 }), plane: fc.integer({ min: 1, max: 3 })
})

const heads = ({ seed, ...sizes }: { seed: number; batch: number; position: number; group: number; plane: number }) =>
  normals(seed, { batch: sizes.batch, position: sizes.position, group: sizes.group, part: 2, plane: sizes.plane })

describe("Rope", () => {
  it("turns planes at the published frequencies", () => {
    const { cos, sin } = evaluate(() => angles(T.positions("position", 3), { headSize: 128, theta }))
    const frequency = (plane: number): number => Math.atan2(sin.elements[64 + plane]!, cos.elements[64 + plane]!)
    agree([frequency(0), frequency(1), frequency(63)], [1, 0.8659643234, 1.154782e-4], 1e-9)
    agree([...cos.elements.subarray(0, 64)], Array.from({ length: 64 }, () => 1))
    agree([cos.elements[2 * 64]!, sin.elements[2 * 64]!], [Math.cos(2), Math.sin(2)])
  })

  it("turns (1, 0) to (cos, sin): from the first part towards the second", () => {
    const east = T.values({ position: 2, part: 2, plane: 1 }, [1, 0, 1, 0])
    const turned = numbers(rotate(east, angles(T.positions("position", 2), { headSize: 2, theta })))
    agree(turned, [1, 0, Math.cos(1), Math.sin(1)])
  })

  it("keeps the norm of every plane", () => {
    fc.assert(fc.property(shape, (sizes) => {
      const x = heads(sizes)
      const positions = someIds(sizes.seed, { batch: sizes.batch, position: sizes.position }, 5000)
      const y = rotate(x, angles(positions, { headSize: 2 * sizes.plane, theta }))
      const norm = (z: typeof x) => numbers(z.pipe(T.square, T.sum("part")))
      agree(norm(y), norm(x))
    }), { numRuns: 30 })
  })

  it("makes products that depend on the distance only", () => {
    fc.assert(fc.property(shape, fc.nat(4000), (sizes, shift) => {
      const { batch, plane, position, seed } = sizes
      const [query, key] = [heads(sizes), heads({ ...sizes, seed: seed + 1 })]
      const scores = (by: number): ReadonlyArray<number> => {
        const places = T.addIds(someIds("places", { batch, position }, 90), by)
        const turned = angles(places, { headSize: 2 * plane, theta })
        return numbers(
          T.contract(rotate(query, turned), T.rename(rotate(key, turned), "position", "source"), ["part", "plane"])
        )
      }
      agree(scores(shift), scores(0), 1e-9)
    }), { numRuns: 30 })
  })

  it("leaves position 0 as it is and undoes a turn by the opposite one", () => {
    fc.assert(fc.property(shape, (sizes) => {
      const x = heads(sizes)
      const still = angles(T.ids({ position: sizes.position }, Array.from({ length: sizes.position }, () => 0)), {
        headSize: 2 * sizes.plane, theta
      })
      agree(numbers(rotate(x, still)), numbers(x))
      const { cos, sin } = angles(T.positions("position", sizes.position), { headSize: 2 * sizes.plane, theta })
      const back = { cos, sin: T.multiply(sin as T.Tensor<"position" | "plane">, -1) }
      agree(numbers(rotate(rotate(x, { cos, sin }), back)), numbers(x))
    }), { numRuns: 30 })
  })

  it("pulls back as its decomposition does, learned angles included, and as differences say", () => {
    fc.assert(fc.property(shape, fc.boolean(), (sizes, isOwnPlace) => {
      const { batch, plane, position } = sizes
      const inputs = isOwnPlace
        ? {
          x: heads(sizes),
          cos: normals("cos", { batch, position, plane }),
          sin: normals("sin", { batch, position, plane })
        }
        : { x: heads(sizes), cos: normals("cos", { position, plane }), sin: normals("sin", { position, plane }) }
      pullsBackAsItsDecomposition(inputs, ({ cos, sin, x }) => rotate(x, { cos, sin }))
      hasTheSlopeOfDifferences(inputs, ({ cos, sin, x }) => rotate(x, { cos, sin }))
    }), { numRuns: 20 })
  })

  it("is refused where the heads lack an axis of the angles", () => {
    const turned = angles(someIds("ids", { batch: 2, position: 3 }, 9), { headSize: 4, theta })
    assert.throws(
      () => rotate(normals("x", { position: 3, part: 2, plane: 2 }), turned),
      "rotate: axis \"batch\" must be an axis of the tensor"
    )
  })
})
