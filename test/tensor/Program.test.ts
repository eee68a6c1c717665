/**
 * Programs: closing, what they refuse, their labels, what is lowered.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Lowered } from "../../src/tensor/Instruction.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"

const row = { i: 2 }
const x = Specification.real(row)

const composites = ({ instructions }: Lowered): ReadonlyArray<string> =>
  instructions.flatMap(({ primitive }) => primitive._tag === "composite" ? [primitive.composite.name] : [])

describe("make", () => {
  it.effect("names inputs, cells, results and writes by path", () => Effect.gen(function*() {
    const program = yield* Program.make("step", {
      inputs: { x, unused: Specification.ids({}) }, state: { blocks: [{ gain: x }], count: Specification.ids({}) }
    }, ({ x }, { blocks: [block], count }) => ({
      outputs: { losses: [T.sum(x, "i")] }, state: {
        blocks: [{ gain: T.add(block!.gain, x) }], count: T.addIds(count, 1)
      }
    }))
    const paths = (named: Program.Named): ReadonlyArray<string> => named.map(([path]) => path)
    assert.deepStrictEqual(paths(program.leaves), ["x", "unused"])
    assert.deepStrictEqual(paths(program.cells), ["blocks.0.gain", "count"])
    assert.deepStrictEqual(paths(program.results), ["losses.0"])
    assert.deepStrictEqual(paths(program.writes), ["blocks.0.gain", "count"])
    const { inputs } = Program.lower(program, { hasKernel: () => false, watch: [] })
    assert.deepStrictEqual(inputs.map(({ name }) => name), ["x", "unused"])
  }))
  it.effect("turns a shape error into a failure", () => Effect.gen(function*() {
    const error = yield* Effect.flip(Program.make("step", { inputs: { x }, state: {} }, ({ x }) =>
      T.within("block.3", () => ({ outputs: { y: T.add(x, T.fill({ i: 3 }, 1)) } }))))
    assert.strictEqual(error._tag, "ShapeError")
    assert.deepStrictEqual([error.operation, error.place], ["add", "block.3"])
  }))
  it.effect("dies of anything else", () => Effect.gen(function*() {
    const exit = yield* Effect.exit(Program.make("step", { inputs: { x }, state: {} }, () => {
      throw new RangeError("a defect")
    }))
    assert.isTrue(Exit.isFailure(exit) && exit.cause.reasons.every(Cause.isDieReason))
  }))
  it.effect("refuses a leaf of another program", () => Effect.gen(function*() {
    const other = yield* Program.make("other", { inputs: { x }, state: {} }, ({ x }) => ({ outputs: { x } }))
    const error = yield* Effect.flip(Program.make("step", { inputs: { x }, state: {} }, ({ x }) => ({
      outputs: { y: T.add(x, other.outputs.x) }
    })))
    assert.strictEqual(error.message, [
      "program step: every leaf must be an input or a cell of this program",
      "  leaf  [i: 2]  input x",
      "  It was made for another program: build the expression inside this one, from the tensors it is given."
    ].join("\n"))
  }))
  it.effect("refuses leaves of one path", () => Effect.gen(function*() {
    const one = Specification.real({})
    const twice = { "a.b": one, a: { b: one } }
    const told = (inputs: object, outputs: object) => Effect.gen(function*() {
      const { message } = yield* Effect.flip(
        Program.makeGeneric("step", { inputs, state: {} }, () => ({ outputs }) as never))
      return message
    })
    const says = (tree: string) => `program step: no two leaves of a tree may have one path\n  ${tree}  a.b\n` +
      "  A path is the keys joined by dots: give other names to keys that hold dots."
    assert.strictEqual(yield* told(twice, {}), says("inputs"))
    assert.strictEqual(yield* told({}, { "a.b": T.values({}, [1]), a: { b: T.values({}, [2]) } }), says("outputs"))
  }))
  it.effect("refuses a write that fits no cell", () => Effect.gen(function*() {
    const error = yield* Effect.flip(Program.makeGeneric("step", {
      inputs: { x }, state: { a: x, n: Specification.ids(row), b: x }
    }, ({ x }) => ({
      outputs: {}, state: { a: T.sum(x, "i"), n: x, b: x, c: x }
    })))
    assert.strictEqual(error.message, [
      "program step: a cell must be replaced by a tensor of its own sizes and kind",
      "  cell a     [i: 2] real",
      "  new value  []",
      "  cell n     [i: 2] id",
      "  new value  [i: 2]  input x",
      "  cell c     there is none",
      "  new value  [i: 2]  input x",
      "  Return the state in the form of its specification; a cell that is left out keeps its value."
    ].join("\n"))
  }))
})

describe("labels", () => {
  const labelled = Program.make("labelled", { inputs: { x }, state: {} }, ({ x }) => {
    const region = T.within("block", () => T.recompute({ x }, ({ x }) =>
      T.recompute({ x }, ({ x }) => T.within("inner", () => T.label("deep")(T.square(x))))))
    const y = T.within("head", () => T.softmax("i")(T.label("scores")(T.square(region))))
    const { x: slope } = T.gradient(T.sum(T.square(y), "i"), { x })
    return { outputs: { y, slope } }
  })
  it.effect("are found at any depth of composites, each once", () => Effect.gen(function*() {
    assert.sameMembers([...Program.labels(yield* labelled)], ["block.inner.deep", "head.scores"])
  }))
  it.effect("that are watched come out, and cost nothing else", () => Effect.gen(function*() {
    const program = yield* labelled
    const plain = Program.lower(program, { hasKernel: () => false, watch: [] })
    const watching = Program.lower(program, { hasKernel: () => false, watch: ["block.inner.deep", "head.scores"] })
    assert.sameMembers(watching.watched.map(({ name }) => name), ["block.inner.deep", "head.scores"])
    assert.strictEqual(watching.instructions.length, plain.instructions.length)
  }))
})

describe("lower", () => {
  const program = Program.make("kernels", { inputs: { x }, state: {} }, ({ x }) => ({
    outputs: { y: T.silu(T.softmax("i")(x)), z: T.recompute({ x }, ({ x }) => T.silu(x)) }
  }))
  it.effect("keeps the composites for which there is a kernel and expands the others", () => Effect.gen(function*() {
    const kept = Program.lower(yield* program, { hasKernel: ({ name }) => name === "softmax", watch: [] })
    assert.deepStrictEqual(composites(kept), ["softmax"])
    assert.deepStrictEqual(composites(Program.lower(yield* program, { hasKernel: () => false, watch: [] })), [])
  }))
  it.effect("looks for kernels inside what it expands", () => Effect.gen(function*() {
    const kept = Program.lower(yield* program, { hasKernel: () => true, watch: [] })
    assert.deepStrictEqual([...composites(kept)].toSorted(), ["silu", "silu", "softmax"])
  }))
})

describe("a specification", () => {
  it("has leaves in the order of keys", () => {
    const tree = { blocks: [{ b: x, a: x }], gain: x }
    assert.deepStrictEqual(Specification.leaves(tree).map(([path]) => path), ["blocks.0.b", "blocks.0.a", "gain"])
  })
  it("of zeros keeps sizes and kinds", () => {
    const drawn = Specification.real(row, { _tag: "Normal", deviation: 1 })
    assert.deepStrictEqual(Specification.zeros({ a: [drawn] }), { a: [x] })
  })
})
