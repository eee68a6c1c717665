/**
 * What a backend says when it refuses, as text: every place where inputs, cells, constants and labels are checked.
 */
import { assert, describe, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Backend, type BackendError } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"

const row = { i: 2 }
const real = (...elements: ReadonlyArray<number>): Float64Array => Float64Array.from(elements)

const says = <A, R>(effect: Effect.Effect<A, BackendError, R>, ...lines: ReadonlyArray<string>) =>
  Effect.map(Effect.flip(effect), ({ message }) => assert.strictEqual(message, lines.join("\n")))

const swap = Program.make(
  "swap", { inputs: {}, state: { a: Specification.real(row), b: Specification.real(row) } },
  (_, { a, b }) => ({ outputs: { sum: T.add(a, b) }, state: { a: b, b: a } })
)

describe("a refusal", () => {
  layer(Reference.layer)((it) => {
    it.effect("of inputs", () => Effect.gen(function*() {
      const program = yield* Program.make("picky", {
        inputs: {
          x: Specification.real(row), ids: Specification.ids(row), seen: Specification.truths(row),
          y: Specification.real({}), codes: Specification.codes(row)
        },
        state: {}
      }, (inputs) => ({ outputs: inputs }))
      const { run } = yield* (yield* (yield* Backend).compile(program)).bind({})
      const remedy =
        "  Inputs are trees of the same form as the program's specification; elements lie in the order of its sizes."
      const right = { x: 0, ids: 0, seen: true, y: 0, codes: 0 }
      const stranger = { ...right, x: real(1), ids: 0.5, seen: Uint8Array.of(1, 2), z: 2 }
      yield* says(run(stranger), "reference, run picky: input x: real [i: 2] has 2 elements, but 1 were given",
        "  input ids: an id is a whole number of 32 bits, not 0.5",
        "  input seen: a truth is 0 or 1, but element 1 is 2", "  input z: the program has no such input", remedy)
      yield* says(
        run({ ...right, ids: real(1, 2) as never, y: undefined as never, seen: 1 as never, codes: 256 }),
        "reference, run picky: input ids: id [i: 2] needs an Int32Array, but a Float64Array was given",
        "  input seen: a truth is true or false, not 1", "  input y: real [] was not given",
        "  input codes: a code is a whole number below 256, not 256", remedy
      )
      yield* says(run({ ...right, ids: Int32Array.of(3, -1) }),
        "reference, run picky: input ids: an id counts from 0, but element 1 is -1", remedy)
      yield* says(run({ ...right, ids: -1 }), "reference, run picky: input ids: an id counts from 0, not -1", remedy)
    }))
    it.effect("of inputs beyond those that there are, however deep and however they are called", () =>
      Effect.gen(function*() {
        const one = Specification.real({})
        const specification = { inputs: { "a.c": one, a: { length: one } }, state: {} }
        const program = yield* Program.make("deep", specification, (inputs) =>
          ({ outputs: { sum: T.add(inputs["a.c"], inputs.a.length) } }))
        const { run } = yield* (yield* (yield* Backend).compile(program)).bind({})
        assert.deepStrictEqual([...(yield* run({ "a.c": 1, a: { length: 2 } })).sum.elements], [3])
        const remedy =
          "  Inputs are trees of the same form as the program's specification; elements lie in the order of its sizes."
        yield* says(run({ "a.c": 1, a: { length: 2, more: [4] } } as never),
          "reference, run deep: input a.more.0: the program has no such input", remedy)
        yield* says(run({ "a.c": 1, a: [2] } as never), "reference, run deep: input a.length: real [] was not given",
          "  input a.0: the program has no such input", remedy)
        yield* says(run({ a: { length: 2, c: 1 } } as never),
          "reference, run deep: input \"a.c\": real [] was not given",
          "  input a.c: the program has no such input", remedy)
        yield* says(run({ "a.c": 1, "a.length": 2 } as never),
          "reference, run deep: input a.length: real [] was not given",
          "  input \"a.length\": the program has no such input", remedy)
        const odd = yield* Effect.exit(run({ "a.c": 1, a: { length: 2 }, note: "text" } as never))
        assert.include(String(odd), 'tree: "note" is text, not a leaf')
      }))
    it.effect("of no inputs that are right, where a branch of the specification is absent", () =>
      Effect.gen(function*() {
        const specification = { inputs: { mask: undefined, x: Specification.real({}) }, state: {} }
        const program = yield* Program.make("open", specification, ({ x }) => ({ outputs: { y: T.negate(x) } }))
        const { run } = yield* (yield* (yield* Backend).compile(program)).bind({})
        assert.deepStrictEqual([...(yield* run({ mask: undefined, x: 2 } as never)).y.elements], [-2])
      }))
    it.effect("of beginnings, and of what is written", () => Effect.gen(function*() {
      const backend = yield* Backend
      const specification = { weight: Specification.real(row, { _tag: "Normal", deviation: 0.02 }) }
      const remedy =
        "  Give `initial`, a function from a cell's path and sizes to its elements, in the order of the sizes."
      yield* says(backend.allocate(specification),
        "reference, allocate: cell weight begins with normal draws (deviation 0.02), and none were given", remedy)
      yield* says(backend.allocate(specification, { initial: () => real(1) }),
        "reference, allocate: cell weight: real [i: 2] has 2 elements, but 1 were given", remedy)
      const cells = yield* backend.allocate({ w: Specification.real(row) })
      yield* says(backend.write(cells.w, real(1, 2, 3)),
        "reference, write: cell w: real [i: 2] has 2 elements, but 3 were given",
        "  Elements lie in the order of the keys of the cell's sizes.")
    }))
    it.effect("of copies and views", () => Effect.gen(function*() {
      const backend = yield* Backend
      const from = yield* backend.allocate({ a: Specification.real(row), b: { c: Specification.ids(row) } })
      const other = yield* backend.allocate({ a: Specification.real({ j: 2 }), b: {}, d: Specification.real(row) })
      yield* says(backend.copy<unknown>(from, other), "reference, copy: a from real [i: 2] to real [j: 2]",
        "  b.c from id [i: 2] to there is none", "  d from nothing",
        "  Both trees must have the same cells, with the same sizes in the same order.")
      const { cache } = yield* backend.allocate({ cache: Specification.real({ slot: 3, i: 2 }) })
      yield* says(backend.view(cache, 3), "reference, view: index 3 of cell cache [slot: 3, i: 2]",
        "  The index counts along its first axis, \"slot\", from 0 up to, not including, 3.")
      const part = yield* backend.view(yield* backend.view(cache, 1), 1)
      yield* says(backend.view(part, 0), "reference, view: cell cache[1][1] has no axis",
        "  View a cell whose first axis counts the parts.")
    }))
    it.effect("of constants and labels", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* swap
      const cells = yield* backend.allocate(program.state)
      const constants = new Map([["a", cells.a], ["v", cells.b]])
      yield* says(backend.compile(program, { constants }),
        "reference, compile swap: cell a is replaced by the program and cannot be a constant",
        "  constant v: the program has no such cell", "  Give each constant under its path in the program's state.")
      const labelled = yield* Program.make("watched", { inputs: { x: Specification.real(row) }, state: {} }, ({ x }) =>
        ({ outputs: { y: T.within("block", () => T.label("scores")(T.square(x))) } }))
      yield* says(backend.compile(labelled, { watch: ["scores"] }),
        "reference, compile watched: there is no label \"scores\" to watch", "  Its labels are \"block.scores\".")
      yield* says(backend.compile(program, { watch: ["scores"] }),
        "reference, compile swap: there is no label \"scores\" to watch",
        "  The program has no labels: name inner values with `Tensor.label`.")
    }))
    it.effect("of cells", () => Effect.gen(function*() {
      const backend = yield* Backend
      const executable = yield* backend.compile(yield* swap)
      const wrong = yield* backend.allocate({ a: Specification.real({ j: 2 }), c: Specification.real(row) })
      yield* says(executable.bind({ a: wrong.a as never, b: undefined as never }),
        "reference, bind swap: cell a: the program has real [i: 2], the cell real [j: 2]", "  cell b: none was given",
        "  Bind cells that were allocated from the program's own state specification.")
      yield* says(executable.bind({ a: wrong.c, b: wrong.c }),
        "reference, bind swap: cells a and b lie over the same memory, and one of them is replaced",
        "  Copy one of them into memory of its own first.")
      const scope = yield* Scope.make()
      const cells = yield* Scope.provide(backend.allocate((yield* swap).state), scope)
      const { run } = yield* executable.bind(cells)
      yield* Scope.close(scope, Exit.void)
      const freed = "The Scope that allocated it has ended: run inside that Scope."
      yield* says(run({}), "reference, run swap: cell a has been freed", `  ${freed}`)
      yield* says(backend.read(cells), "reference, read: cell a has been freed", `  ${freed}`)
    }))
    it.effect("to replace what is sealed", () => Effect.gen(function*() {
      const backend = yield* Backend
      const executable = yield* backend.compile(yield* swap)
      const cells = yield* backend.allocate((yield* swap).state)
      const { run } = yield* executable.bind(cells)
      yield* backend.seal({ a: cells.a })
      const [sealed, remedy] = [
        "cell a has been sealed, and would be replaced",
        "  What is sealed changes no more, for programs hold it as it is: copy it to other cells, and change those."
      ]
      yield* says(run({}), `reference, run swap: ${sealed}`, remedy)
      yield* says(executable.bind(cells), `reference, bind swap: ${sealed}`, remedy)
      yield* says(backend.write(cells.a, real(1, 2)), `reference, write: ${sealed}`, remedy)
      yield* says(backend.copy({ w: cells.b }, { w: cells.a }), `reference, copy: ${sealed}`, remedy)
    }))
  })
})
