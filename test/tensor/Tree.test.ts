/**
 * Trees: leaves in one order, forms kept, paths that name.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as T from "../../src/tensor/Tensor.ts"
import * as Tree from "../../src/tensor/Tree.ts"

const leaf: fc.Arbitrary<T.Scalar> = fc.integer().map(T.constant)
const tree = fc.letrec<{ tree: object | T.Scalar }>((tie) => ({
  tree: fc.oneof({ maxDepth: 3 },
    leaf,
    fc.dictionary(fc.stringMatching(/^[a-z]{1,3}$/), tie("tree"), { maxKeys: 3 }),
    fc.array(tie("tree"), { maxLength: 3 }))
})).tree

describe("tensors", () => {
  it("come with their paths, in the order of keys and indices", () => {
    const [a, b, c] = [T.constant(1), T.constant(2), T.constant(3)]
    assert.deepStrictEqual(Tree.tensors({ blocks: [{ query: a }, { query: b }], gain: c }), [
      ["blocks.0.query", a], ["blocks.1.query", b], ["gain", c]
    ])
  })
  it("of a tree that is a leaf have the empty path", () => {
    const x = T.constant(1)
    assert.deepStrictEqual(Tree.tensors(x), [["", x]])
  })
  it("that are absent are passed over", () => {
    assert.deepStrictEqual(Tree.tensors({ bias: undefined }), [])
  })
  it.each([
    [{ rate: 1 }, `tree: "rate" is 1, not a leaf, a record or an array`],
    [null, "tree: the root is null, not a leaf, a record or an array"],
    [{ blocks: ["a"] }, `tree: "blocks.0" is a, not a leaf, a record or an array`]
  ])("are nothing else: %j", (wrong, message) => assert.throws(() => Tree.tensors(wrong), message))
})

describe("map", () => {
  it("keeps the form and visits every leaf with its path", () =>
    fc.assert(fc.property(tree, (given) => {
      const before = Tree.tensors(given)
      const visited: Array<readonly [string, T.Any]> = []
      const after = Tree.mapAs<unknown>()(given, T.isTensor, (x, path) => {
        visited.push([path, x])
        return T.constant(visited.length)
      })
      assert.deepStrictEqual(visited, before)
      assert.deepStrictEqual(Tree.tensors(after).map(([path]) => path), before.map(([path]) => path))
      assert.deepStrictEqual(Tree.mapAs<unknown>()(given, T.isTensor, (x) => x), given)
    })))
})

describe("zip", () => {
  it("pairs leaves by path", () => {
    const left = { gain: T.constant(1), blocks: [T.constant(2)] }
    const right = { gain: T.constant(10), blocks: [T.constant(20)] }
    const paired: Array<readonly [T.Any, T.Any, string]> = []
    Tree.zip(left, right, (x, y, path) => {
      paired.push([x, y, path])
      return x
    })
    assert.deepStrictEqual(paired, [[left.gain, right.gain, "gain"], [left.blocks[0]!, right.blocks[0]!, "blocks.0"]])
  })
  it("says which leaf the right tree lacks", () => {
    const left: ReadonlyArray<T.Scalar> = [T.constant(1)]
    assert.throws(() => Tree.zip(left, [], (x) => x), `tree: the right tree has no leaf "0"`)
  })
})
