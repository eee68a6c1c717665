/**
 * The contract of a backend as tests, for any layer of it.
 */
import { assert, layer as withLayer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { Backend, type BackendError, type Elements, type Precision, type Values } from "../../src/backend/Backend.ts"
import type { Kind } from "../../src/tensor/Node.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { agreesWithReference, forAll } from "../../src/testing/BackendLaw.ts"
import { programs } from "../../src/testing/ProgramArbitrary.ts"

/** What differs between backends. */
export interface Options {
  readonly precision: Precision
  /** How close to the reference (see law/Tolerance.ts). */
  readonly tolerance: number
  readonly randomPrograms: number
  /** The operations of random programs; all by default. */
  readonly operations?: ReadonlyArray<string>
}

const numbers = ({ elements }: Values<string, Kind>): ReadonlyArray<number> => [...elements]

const real = (...elements: ReadonlyArray<number>): Float64Array => Float64Array.from(elements)

const row = { i: 2 }

/** y = w x, and w grows by x. */
const accumulate = Program.make(
  "accumulate",
  { inputs: { x: Specification.real(row) }, state: { w: Specification.real(row, { _tag: "Constant", value: 1 }) } },
  ({ x }, { w }) => ({ outputs: { y: T.multiply(w, x) }, state: { w: T.add(w, x) } })
)

const swap = Program.make(
  "swap", { inputs: {}, state: { a: Specification.real(row), b: Specification.real(row) } },
  (_, { a, b }) => ({ outputs: { sum: T.add(a, b) }, state: { a: b, b: a } })
)

const failure = <A, R>(effect: Effect.Effect<A, BackendError, R>): Effect.Effect<string, A, R> =>
  Effect.map(Effect.flip(effect), ({ message }) => message)

/** Tries the contract on a layer. */
export const contract = <E>(
  layer: Layer.Layer<Backend, E>, { operations, precision, randomPrograms, tolerance }: Options
): void =>
  withLayer(layer)("the contract", (it) => {
    const close = (found: ReadonlyArray<number>, expected: ReadonlyArray<number>): void => {
      assert.strictEqual(found.length, expected.length)
      found.forEach((x, i) => assert.closeTo(x, expected[i]!, tolerance * Math.max(1, Math.abs(expected[i]!))))
    }
    const compiled = <I, S, O>(program: Program.Program<I, S, O>) =>
      Effect.flatMap(Backend, (backend) => backend.compile(program, { precision }))
    const allocated = <S>(specification: S, initial?: (path: string) => Elements | undefined) =>
      Effect.flatMap(Backend, (backend) =>
        backend.allocate(specification, { precision, ...(initial === undefined ? {} : { initial }) }))

    it.effect("computes what the reference does, on random programs", () => Effect.gen(function*() {
      const backend = yield* Backend
      yield* forAll(programs(operations === undefined ? {} : { operations }), (program) =>
        agreesWithReference(backend, program, { precision, tolerance }), { numRuns: randomPrograms })
    }))

    it.effect("takes arrays of either width, ids, truths, or one number for all", () => Effect.gen(function*() {
      const program = yield* Program.make("kinds", {
        inputs: {
          single: Specification.real(row), double: Specification.real(row), all: Specification.real(row),
          ids: Specification.ids(row), id: Specification.ids(row), seen: Specification.truths(row),
          every: Specification.truths(row)
        },
        state: {}
      }, (x) => ({ outputs: { reals: [x.single, x.double, x.all], ids: [x.ids, x.id], truths: [x.seen, x.every] } }))
      const { bind } = yield* compiled(program)
      const { run } = yield* bind({})
      const { ids, reals, truths } = yield* run({
        single: Float32Array.of(0.5, 1), double: real(0.25, 2), all: -3,
        ids: Int32Array.of(1, 2), id: 7, seen: Uint8Array.of(1, 0), every: true
      })
      assert.deepStrictEqual(reals.map(numbers), [[0.5, 1], [0.25, 2], [-3, -3]])
      assert.deepStrictEqual(ids.map(numbers), [[1, 2], [7, 7]])
      assert.deepStrictEqual(truths.map(numbers), [[1, 0], [1, 1]])
      assert.deepStrictEqual(
        truths.map(({ kind, sizes }) => ({ kind, sizes })),
        [{ kind: "truth", sizes: row }, { kind: "truth", sizes: row }]
      )
    }))

    it.effect("holds codes as bytes, in inputs, cells and results", () => Effect.gen(function*() {
      const backend = yield* Backend
      const sizes = { i: 2, j: 3 }
      const program = yield* Program.make("codes", {
        inputs: { fresh: Specification.codes(row), all: Specification.codes(row) },
        state: { kept: Specification.codes(sizes) }
      }, ({ all, fresh }, { kept }) => ({
        outputs: { fresh, all, kept: T.merge(T.rename(kept, "i", "k"), ["j", "k"], "n"), real: T.sum(T.real(kept), "j") },
        state: { kept: T.concat("j", [T.slice(kept, "j", 1, 3), T.spread(fresh, "j", 1)]) }
      }))
      const cells = yield* allocated(program.state)
      yield* backend.write(cells.kept, Uint8Array.of(0, 1, 2, 253, 254, 255))
      const { run } = yield* (yield* compiled(program)).bind(cells)
      const { all, fresh, kept, real: sums } = yield* run({ fresh: Uint8Array.of(7, 200), all: 9 })
      assert.deepStrictEqual([fresh, all, kept, sums].map(numbers), [[7, 200], [9, 9], [0, 253, 1, 254, 2, 255],
        [3, 762]])
      assert.instanceOf(kept.elements, Uint8Array)
      assert.deepStrictEqual(numbers((yield* backend.read(cells)).kept), [1, 2, 7, 254, 255, 200])
      assert.include(
        yield* failure(run({ fresh: Int32Array.of(1, 2) as never, all: 256 })),
        [
          "input fresh: code [i: 2] needs a Uint8Array, but an Int32Array was given",
          "  input all: a code is a whole number below 256, not 256"
        ].join("\n")
      )
    }))

    it.effect("gives results in the order of their sizes", () => Effect.gen(function*() {
      const program = yield* Program.make("orders", {
        inputs: { x: Specification.real({ i: 2, j: 3 }) }, state: {}
      }, ({ x }) => ({
        outputs: { same: x, turned: T.merge(T.rename(x, "i", "k"), ["j", "k"], "all"), reduced: T.sum(x, "i") }
      }))
      const { run } = yield* (yield* compiled(program)).bind({})
      const { reduced, same, turned } = yield* run({ x: real(1, 2, 3, 4, 5, 6) })
      assert.deepStrictEqual([same, turned, reduced].map(numbers), [[1, 2, 3, 4, 5, 6], [1, 4, 2, 5, 3, 6], [5, 7, 9]])
    }))

    it.effect("refuses inputs that do not fit, all at once", () => Effect.gen(function*() {
      const { name } = yield* Backend
      const program = yield* Program.make("picky", {
        inputs: {
          x: Specification.real(row), ids: Specification.ids(row), seen: Specification.truths(row),
          y: Specification.real({})
        },
        state: {}
      }, (inputs) => ({ outputs: inputs }))
      const { run } = yield* (yield* compiled(program)).bind({})
      const inputs = { x: real(1), ids: 0.5, seen: Uint8Array.of(1, 2), y: 1, z: 2 }
      assert.strictEqual(yield* failure(run(inputs)), [
        `${name}, run picky: input x: real [i: 2] has 2 elements, but 1 were given`,
        "  input ids: an id is a whole number of 32 bits, not 0.5",
        "  input seen: a truth is 0 or 1, but element 1 is 2",
        "  input z: the program has no such input",
        "  Inputs are trees of the same form as the program's specification; elements lie in the order of its sizes."
      ].join("\n"))
      assert.include(
        yield* failure(
          run({ ...inputs, ids: Float64Array.of(1, 2) as never, y: undefined as never, seen: 1 as never })
        ),
        [
          "  input ids: id [i: 2] needs an Int32Array, but a Float64Array was given",
          "  input seen: a truth is true or false, not 1",
          "  input y: real [] was not given"
        ].join("\n")
      )
      assert.include(
        yield* failure(run({ x: 0, y: 0, seen: true, ids: Int32Array.of(3, -1) })),
        "run picky: input ids: an id counts from 0, but element 1 is -1\n"
      )
      assert.include(
        yield* failure(run({ x: 0, y: 0, seen: true, ids: -1 })), "run picky: input ids: an id counts from 0, not -1\n"
      )
    }))

    it.effect("begins cells as their specification or the caller says", () => Effect.gen(function*() {
      const backend = yield* Backend
      const specification = {
        gain: Specification.real(row, { _tag: "Constant", value: 1 }), step: Specification.ids({}),
        blocks: [
          { weight: Specification.real(row, { _tag: "Normal", deviation: 0.02 }) }
        ], seen: Specification.truths(row)
      }
      const drawn: Array<string> = []
      const cells = yield* allocated(specification, (path) => {
        drawn.push(path)
        return path === "blocks.0.weight" ? real(0.5, -0.25) : undefined
      })
      const { blocks, gain, seen, step } = yield* backend.read(cells)
      assert.deepStrictEqual([gain, step, blocks[0]!.weight, seen].map(numbers), [[1, 1], [0], [0.5, -0.25], [0, 0]])
      assert.deepStrictEqual(drawn, ["gain", "step", "blocks.0.weight", "seen"])
      assert.strictEqual(cells.blocks[0]!.weight.name, "blocks.0.weight")
      assert.strictEqual(
        yield* failure(allocated(specification)),
        `${backend.name}, allocate: cell blocks.0.weight begins with normal draws (deviation 0.02), ` +
          "and none were given\n" +
          "  Give `initial`, a function from a cell's path and sizes to its elements, in the order of the sizes."
      )
      assert.include(
        yield* failure(allocated(specification, () => real(1))),
        "cell gain: real [i: 2] has 2 elements, but 1 were given"
      )
    }))

    it.effect("reads copies and writes what fits", () => Effect.gen(function*() {
      const backend = yield* Backend
      const cells = yield* allocated({ w: Specification.real(row), n: Specification.ids(row) })
      yield* backend.write(cells.w, real(1, 2))
      const before = yield* backend.read(cells)
      before.w.elements[0] = 9
      assert.deepStrictEqual(numbers((yield* backend.read(cells)).w), [1, 2])
      assert.strictEqual(
        yield* failure(backend.write(cells.w, real(1, 2, 3))),
        `${backend.name}, write: cell w: real [i: 2] has 2 elements, but 3 were given\n` +
          "  Elements lie in the order of the keys of the cell's sizes."
      )
      assert.include(
        yield* failure(backend.write(cells.n, real(1, 2))),
        "cell n: id [i: 2] needs an Int32Array, but a Float64Array was given"
      )
    }))

    it.effect("copies trees of the same form", () => Effect.gen(function*() {
      const backend = yield* Backend
      const specification = { a: Specification.real(row), b: { c: Specification.ids(row) } }
      const [from, to] = [yield* allocated(specification), yield* allocated(specification)]
      yield* backend.write(from.a, real(1, 2))
      yield* backend.write(from.b.c, Int32Array.of(3, 4))
      yield* backend.copy(from, to)
      yield* backend.write(from.a, real(0, 0))
      const { a, b } = yield* backend.read(to)
      assert.deepStrictEqual([a, b.c].map(numbers), [[1, 2], [3, 4]])
      const other = yield* allocated({ a: Specification.real({ j: 2 }), b: {}, d: Specification.real(row) })
      assert.strictEqual(yield* failure(backend.copy<unknown>(from, other)), [
        `${backend.name}, copy: a from real [i: 2] to real [j: 2]`, "  b.c from id [i: 2] to there is none",
        "  d from nothing",
        "  Both trees must have the same cells, with the same sizes in the same order."
      ].join("\n"))
    }))

    it.effect("views an index of the leading axis over the same memory", () => Effect.gen(function*() {
      const backend = yield* Backend
      const { cache } = yield* allocated({ cache: Specification.real({ slot: 3, i: 2 }) })
      yield* backend.write(cache, real(1, 2, 3, 4, 5, 6))
      const slot = yield* backend.view(cache, 1)
      assert.deepStrictEqual([slot.name, slot.sizes], ["cache[1]", { i: 2 }])
      assert.deepStrictEqual(numbers((yield* backend.read({ slot })).slot), [3, 4])
      yield* backend.write(slot, real(30, 40))
      const { bind } = yield* compiled(yield* accumulate)
      const { run } = yield* bind({ w: slot as never })
      assert.deepStrictEqual(numbers((yield* run({ x: 1 })).y), [30, 40])
      assert.deepStrictEqual(numbers((yield* backend.read({ cache })).cache), [1, 2, 31, 41, 5, 6])
      const part = yield* backend.view(slot, 1)
      assert.deepStrictEqual(numbers((yield* backend.read({ part })).part), [41])
      assert.strictEqual(
        yield* failure(backend.view(cache, 3)),
        `${backend.name}, view: index 3 of cell cache [slot: 3, i: 2]\n` +
          "  The index counts along its first axis, \"slot\", from 0 up to, not including, 3."
      )
      assert.strictEqual(
        yield* failure(backend.view(part, 0)),
        `${backend.name}, view: cell cache[1][1] has no axis\n  View a cell whose first axis counts the parts.`
      )
    }))

    it.effect("replaces cells, over which other programs run too", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* accumulate
      const cells = yield* allocated(program.state)
      const { run } = yield* (yield* compiled(program)).bind(cells)
      const sum = yield* Program.make(
        "sum", { inputs: {}, state: program.state }, (_, { w }) => ({ outputs: { total: T.sum(w, "i") } })
      )
      const reader = yield* (yield* compiled(sum)).bind(cells)
      assert.deepStrictEqual(numbers((yield* run({ x: real(2, 3) })).y), [2, 3])
      assert.deepStrictEqual(numbers((yield* run({ x: real(10, 20) })).y), [30, 80])
      close(numbers((yield* reader.run({})).total), [37])
      close(numbers((yield* backend.read(cells)).w), [13, 24])
    }))

    it.effect("reads old values wherever they are read, and writes new ones", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* swap
      const cells = yield* allocated(program.state)
      yield* backend.write(cells.a, real(1, 2))
      yield* backend.write(cells.b, real(10, 20))
      const executable = yield* compiled(program)
      const { run } = yield* executable.bind(cells)
      assert.deepStrictEqual(numbers((yield* run({})).sum), [11, 22])
      const { a, b } = yield* backend.read(cells)
      assert.deepStrictEqual([a, b].map(numbers), [[10, 20], [1, 2]])
      const { copied, inPlace } = executable.placement
      assert.deepStrictEqual([...copied, ...inPlace].toSorted(), ["a", "b"])
    }))

    it.effect("writes a cell in its own order, whatever the order of its new value", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* Program.make(
        "outer", { inputs: { x: Specification.real({ j: 3 }) }, state: { w: Specification.real({ i: 2, j: 3 }) } },
        ({ x }) => ({ outputs: {}, state: { w: T.multiply(x, T.values({ i: 2 }, [1, 10])) } })
      )
      const cells = yield* allocated(program.state)
      const { run } = yield* (yield* compiled(program)).bind(cells)
      yield* run({ x: real(1, 2, 3) })
      assert.deepStrictEqual(numbers((yield* backend.read(cells)).w), [1, 2, 3, 10, 20, 30])
    }))

    it.effect("serialises runs over the same cells", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* accumulate
      const cells = yield* allocated(program.state)
      const executable = yield* compiled(program)
      const [one, other] = [yield* executable.bind(cells), yield* executable.bind(cells)]
      yield* Effect.forEach(Array.from(
        { length: 40 }, (_, i) => i % 2 === 0 ? one : other
      ), ({ run }) => run({ x: 1 }), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(numbers((yield* backend.read(cells)).w), [41, 41])
    }))

    it.effect("freezes constants at the version they have when compiled", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* Program.make("score",
        { inputs: { x: Specification.real(row) }, state: { w: Specification.real(row), b: Specification.real(row) } },
        ({ x }, { b, w }) => ({ outputs: { y: T.add(T.multiply(w, x), b) } }))
      const cells = yield* allocated(program.state)
      yield* backend.write(cells.w, real(2, 3))
      const executable = yield* backend.compile(program, { precision, constants: new Map([["w", cells.w]]) })
      yield* backend.write(cells.w, real(0, 0))
      yield* backend.write(cells.b, real(100, 200))
      const { run } = yield* executable.bind(cells)
      assert.deepStrictEqual(numbers((yield* run({ x: real(1, 10) })).y), [102, 230])
      assert.include(
        yield* failure(backend.compile(program, { precision, constants: new Map([["v", cells.w]]) })),
        "constant v: the program has no such cell"
      )
      const writer = yield* accumulate
      assert.include(
        yield* failure(backend.compile(writer, { precision, constants: new Map([["w", cells.w]]) })),
        "cell w is replaced by the program and cannot be a constant"
      )
    }))

    it.effect("watches inner values by name, and changes no result by it", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* Program.make("watched", { inputs: { x: Specification.real(row) }, state: {} }, ({ x }) => {
        const weights = T.within("block", () => T.softmax("i")(T.label("scores")(T.multiply(x, T.square(x)))))
        const replayed = T.within("replay", () => T.recompute({ x }, ({ x }) => T.label("square")(T.square(x))))
        return { outputs: { y: T.multiply(weights, replayed) } }
      })
      assert.sameMembers([...Program.labels(program)], ["block.scores", "replay.square"])
      const plain = yield* (yield* compiled(program)).bind({})
      const watching = yield* (yield* backend.compile(
        program, { precision, watch: ["block.scores", "replay.square"] }
      )).bind({})
      const x = real(0.5, 2)
      const { outputs, watched } = yield* watching.watch({ x })
      close(numbers(outputs.y), numbers((yield* plain.run({ x })).y))
      close(numbers(watched["block.scores"]!), [0.125, 8])
      close(numbers(watched["replay.square"]!), [0.25, 4])
      assert.strictEqual(
        yield* failure(backend.compile(program, { precision, watch: ["scores"] })),
        `${backend.name}, compile watched: there is no label "scores" to watch\n` +
          "  Its labels are \"block.scores\", \"replay.square\"."
      )
    }))

    it.effect("binds cells of the program's own form only", () => Effect.gen(function*() {
      const { name } = yield* Backend
      const executable = yield* compiled(yield* swap)
      const wrong = yield* allocated({ a: Specification.real({ j: 2 }), c: Specification.real(row) })
      assert.strictEqual(yield* failure(executable.bind({ a: wrong.a as never, b: undefined as never })), [
        `${name}, bind swap: cell a: the program has real [i: 2], the cell real [j: 2]`, "  cell b: none was given",
        "  Bind cells that were allocated from the program's own state specification."
      ].join("\n"))
      assert.strictEqual(
        yield* failure(executable.bind({ a: wrong.c, b: wrong.c })),
        `${name}, bind swap: cells a and b lie over the same memory, and one of them is replaced\n` +
          "  Copy one of them into memory of its own first."
      )
      const turned = yield* Program.make("turned", { inputs: {}, state: { w: Specification.real({ i: 2, j: 3 }) } },
        (_, { w }) => ({ outputs: { w } }))
      const cells = yield* allocated({ w: Specification.real({ j: 3, i: 2 }) })
      assert.include(
        yield* failure((yield* compiled(turned)).bind(cells)),
        "cell w: the program has real [i: 2, j: 3], the cell real [j: 3, i: 2]"
      )
    }))

    it.effect("frees cells with their scope", () => Effect.gen(function*() {
      const backend = yield* Backend
      const program = yield* accumulate
      const scope = yield* Scope.make()
      const cells = yield* Scope.provide(allocated(program.state), scope)
      const { run } = yield* (yield* compiled(program)).bind(cells)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(
        yield* failure(run({ x: 1 })),
        `${backend.name}, run accumulate: cell w has been freed\n` +
          "  The Scope that allocated it has ended: run inside that Scope."
      )
      assert.include(yield* failure(backend.read(cells)), "read: cell w has been freed")
    }))
  })
