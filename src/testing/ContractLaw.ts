/**
 * The contract of backends beyond numbers, as laws: inputs and results, cells, views, carried state, constants, watched
 * values, refusals, freedom.
 *
 * A refusal must be a `BackendError` that names the backend, the operation and every fault with its values; its wording
 * is the backend's own.
 *
 * From     Cria's own.
 * Checked  test/law/BackendLaws.test.ts (each law sees a backend that breaks just it).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { Backend, BackendError, type Elements, type Precision, type Values } from "../backend/Backend.ts"
import type { Kind } from "../tensor/Node.ts"
import * as Program from "../tensor/Program.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import * as Specification from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import { LawError } from "./LawError.ts"

/** A law about a backend, by name. */
export interface ContractLaw {
  readonly name: string
  readonly holds: Effect.Effect<void, LawError | BackendError | ShapeError, Backend>
}

type Check = Effect.Effect<void, LawError | BackendError | ShapeError, Backend | Scope.Scope>

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

/** A tree whose leaves the compiler does not know, to give wrong ones. */
type Loose = Readonly<Record<string, Specification.AnySpecification>>

const fails = (law: string, detail: string): Effect.Effect<never, LawError> =>
  Effect.fail(new LawError({ law, detail }))

const same = (what: string, found: unknown, expected: unknown): Effect.Effect<void, LawError> =>
  JSON.stringify(found) === JSON.stringify(expected)
    ? Effect.void
    : fails(what, `expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`)

/** The operation fails with a `BackendError` that names the operation and mentions every fragment. */
const refuses = <A, R>(
  what: string, operation: string, fragments: ReadonlyArray<string>, effect: Effect.Effect<A, BackendError, R>
): Effect.Effect<void, LawError, R | Backend> =>
  Effect.gen(function*() {
    const { name } = yield* Backend
    const exit = yield* Effect.exit(effect)
    if (Exit.isSuccess(exit)) return yield* fails(what, "it was not refused")
    const error = exit.cause.reasons.flatMap((reason) => reason._tag === "Fail" ? [reason.error] : [])[0]
    if (!(error instanceof BackendError)) return yield* fails(what, `it ended in ${exit.cause.toString()}`)
    if (error.backend !== name || error.operation !== operation) {
      return yield* fails(what,
        `expected the failure of ${name} in "${operation}", found that of ${error.backend} in "${error.operation}"`)
    }
    const missing = fragments.filter((fragment) => !error.detail.includes(fragment))
    if (missing.length > 0) {
      return yield* fails(what, `the failure does not say ${missing.join(" and ")}, but: ${error.detail}`)
    }
    if (error.remedy.trim() === "") return yield* fails(what, "the failure says no remedy")
  })

/** The laws, for one precision; `tolerance` is relative to an element, or to 1. */
export const laws = (
  { precision, tolerance }: { readonly precision: Precision; readonly tolerance: number }
): ReadonlyArray<ContractLaw> => {
  const compiled = <I, S, O>(program: Program.Program<I, S, O>) =>
    Effect.flatMap(Backend, (backend) => backend.compile(program, { precision }))
  const allocated = <S>(specification: S, initial?: (path: string) => Elements | undefined) =>
    Effect.flatMap(Backend, (backend) =>
      backend.allocate(specification, { precision, ...initial === undefined ? {} : { initial } }))
  const close = (what: string, found: ReadonlyArray<number>, expected: ReadonlyArray<number>) => {
    const isClose = found.length === expected.length && found.every((x, i) => {
      const wanted = expected[i] ?? NaN
      return Math.abs(x - wanted) <= tolerance * Math.max(1, Math.abs(wanted))
    })
    return isClose ? Effect.void : same(what, found, expected)
  }

  const kinds: Check = Effect.gen(function*() {
    const program = yield* Program.make("kinds", {
      inputs: {
        single: Specification.real(row), double: Specification.real(row), all: Specification.real(row),
        ids: Specification.ids(row), id: Specification.ids(row), seen: Specification.truths(row),
        every: Specification.truths(row)
      },
      state: {}
    }, (x) => ({ outputs: { reals: [x.single, x.double, x.all], ids: [x.ids, x.id], truths: [x.seen, x.every] } }))
    const { run } = yield* (yield* compiled(program)).bind({})
    const { ids, reals, truths } = yield* run({
      single: Float32Array.of(0.5, 1), double: real(0.25, 2), all: -3,
      ids: Int32Array.of(1, 2), id: 7, seen: Uint8Array.of(1, 0), every: true
    })
    yield* same("reals", reals.map(numbers), [[0.5, 1], [0.25, 2], [-3, -3]])
    yield* same("ids", ids.map(numbers), [[1, 2], [7, 7]])
    yield* same("truths", truths.map(numbers), [[1, 0], [1, 1]])
    yield* same("kind and sizes", truths.map(({ kind, sizes }) => [kind, sizes]), [["truth", row], ["truth", row]])
    const arrays = [reals[0]?.elements, ids[0]?.elements, truths[0]?.elements].map((array) => array?.constructor.name)
    yield* same("elements", arrays, [precision === "f32" ? "Float32Array" : "Float64Array", "Int32Array", "Uint8Array"])
  })

  const codes: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* Program.make("codes", {
      inputs: { fresh: Specification.codes(row), all: Specification.codes(row) },
      state: { kept: Specification.codes({ i: 2, j: 3 }) }
    }, ({ all, fresh }, { kept }) => ({
      outputs: { fresh, all, kept: T.merge(T.rename(kept, "i", "k"), ["j", "k"], "n"), real: T.sum(T.real(kept), "j") },
      state: { kept: T.concat("j", [T.slice(kept, "j", 1, 3), T.spread(fresh, "j", 1)]) }
    }))
    const cells = yield* allocated(program.state)
    yield* backend.write(cells.kept, Uint8Array.of(0, 1, 2, 253, 254, 255))
    const { run } = yield* (yield* compiled(program)).bind(cells)
    const { all, fresh, kept, real: sums } = yield* run({ fresh: Uint8Array.of(7, 200), all: 9 })
    yield* same("codes", [fresh, all, kept, sums].map(numbers), [[7, 200], [9, 9], [0, 253, 1, 254, 2, 255], [3, 762]])
    yield* same("the cell", numbers((yield* backend.read(cells)).kept), [1, 2, 7, 254, 255, 200])
  })

  const orders: Check = Effect.gen(function*() {
    const program = yield* Program.make("orders", {
      inputs: { x: Specification.real({ i: 2, j: 3 }) }, state: {}
    }, ({ x }) => ({
      outputs: { same: x, turned: T.merge(T.rename(x, "i", "k"), ["j", "k"], "all"), reduced: T.sum(x, "i") }
    }))
    const { run } = yield* (yield* compiled(program)).bind({})
    const { reduced, same: kept, turned } = yield* run({ x: real(1, 2, 3, 4, 5, 6) })
    yield* same(
      "results", [kept, turned, reduced].map(numbers), [[1, 2, 3, 4, 5, 6], [1, 4, 2, 5, 3, 6], [5, 7, 9]]
    )
  })

  const inputs: Check = Effect.gen(function*() {
    const specification: { readonly inputs: Loose; readonly state: object } = {
      inputs: {
        x: Specification.real(row), ids: Specification.ids(row), seen: Specification.truths(row),
        y: Specification.real({})
      },
      state: {}
    }
    const program = yield* Program.makeGeneric("picky", specification, (given) => ({ outputs: given }))
    const { run } = yield* (yield* compiled(program)).bind({})
    const wrong = { x: real(1), ids: 0.5, seen: Uint8Array.of(1, 2), y: 1, z: 2 }
    yield* refuses("a wrong length, a broken id, a third truth, a stranger: all at once", "run picky",
      ["input x", "input ids", "0.5", "input seen", "input z"], run(wrong))
    yield* refuses("ids of real numbers, a number for a truth, an input that is missing", "run picky",
      ["input ids", "input seen", "input y"], run({ x: 0, ids: Float64Array.of(1, 2), seen: 1 }))
    yield* refuses("a negative id", "run picky", ["input ids", "-1"],
      run({ x: 0, y: 0, seen: true, ids: Int32Array.of(3, -1) }))
    yield* refuses("a negative id for all", "run picky", ["input ids", "-1"], run({ x: 0, y: 0, seen: true, ids: -1 }))
    const { y } = yield* run({ x: 0, y: 4, seen: true, ids: 1 })
    yield* same("a run after refusals", y === undefined ? [] : numbers(y), [4])
  })

  const initial: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const specification = {
      gain: Specification.real(row, { _tag: "Constant", value: 1 }), step: Specification.ids({}),
      blocks: [{ weight: Specification.real(row, { _tag: "Normal", deviation: 0.02 }) }],
      seen: Specification.truths(row)
    }
    const drawn: Array<string> = []
    const cells = yield* allocated(specification, (path) => {
      drawn.push(path)
      return path === "blocks.0.weight" ? real(0.5, -0.25) : undefined
    })
    const { blocks, gain, seen, step } = yield* backend.read(cells)
    const [block] = blocks
    yield* same("cells", [gain, step, seen, ...block === undefined ? [] : [block.weight]].map(numbers),
      [[1, 1], [0], [0, 0], [0.5, -0.25]])
    yield* same("paths", drawn, ["gain", "step", "blocks.0.weight", "seen"])
    yield* same("the name of a cell", cells.blocks[0]?.weight.name, "blocks.0.weight")
    yield* refuses("normal draws that none gives", "allocate", ["blocks.0.weight"], allocated(specification))
    yield* refuses("draws that do not fit", "allocate", ["gain"], allocated(specification, () => real(1)))
  })

  const reading: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const cells = yield* allocated({ w: Specification.real(row), n: Specification.ids(row) })
    yield* backend.write(cells.w, real(1, 2))
    const before = yield* backend.read(cells)
    before.w.elements[0] = 9
    yield* same("what was read is a copy", numbers((yield* backend.read(cells)).w), [1, 2])
    yield* refuses("too many elements", "write", ["cell w"], backend.write(cells.w, real(1, 2, 3)))
    yield* refuses("elements of another kind", "write", ["cell n"], backend.write(cells.n, real(1, 2)))
    yield* same("what a refused write leaves", numbers((yield* backend.read(cells)).w), [1, 2])
  })

  const copying: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const specification = { a: Specification.real(row), b: { c: Specification.ids(row) } }
    const [from, to] = [yield* allocated(specification), yield* allocated(specification)]
    yield* backend.write(from.a, real(1, 2))
    yield* backend.write(from.b.c, Int32Array.of(3, 4))
    yield* backend.copy(from, to)
    yield* backend.write(from.a, real(0, 0))
    const { a, b } = yield* backend.read(to)
    yield* same("the copy", [a, b.c].map(numbers), [[1, 2], [3, 4]])
    const other = yield* allocated({ a: Specification.real({ j: 2 }), b: {}, d: Specification.real(row) })
    yield* refuses("a tree of another form", "copy", ["a from", "b.c from", "d from"],
      backend.copy<unknown>(from, other))
  })

  const views: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const { cache } = yield* allocated({ cache: Specification.real({ slot: 3, i: 2 }) })
    yield* backend.write(cache, real(1, 2, 3, 4, 5, 6))
    const slot = yield* backend.view(cache, 1)
    yield* same("name and sizes of a view", [slot.name, slot.sizes], ["cache[1]", { i: 2 }])
    yield* same("a view", numbers((yield* backend.read({ slot })).slot), [3, 4])
    yield* backend.write(slot, real(30, 40))
    const state: Loose = { w: Specification.real(row) }
    const program = yield* Program.makeGeneric("add one", { inputs: {}, state }, (_, { w }) => ({
      outputs: { y: w }, state: w === undefined ? {} : { w: T.add(T.real(w), 1) }
    }))
    const { run } = yield* (yield* compiled(program)).bind({ w: slot })
    yield* run({})
    yield* same("the cell behind it", numbers((yield* backend.read({ cache })).cache), [1, 2, 31, 41, 5, 6])
    const part = yield* backend.view(slot, 1)
    yield* same("a view of a view", numbers((yield* backend.read({ part })).part), [41])
    yield* refuses("an index beyond the axis", "view", ["3", "cache"], backend.view(cache, 3))
    yield* refuses("a view of one number", "view", ["cache[1][1]"], backend.view(part, 0))
  })

  const replacing: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* accumulate
    const cells = yield* allocated(program.state)
    const { run } = yield* (yield* compiled(program)).bind(cells)
    const sum = yield* Program.make(
      "sum", { inputs: {}, state: program.state }, (_, { w }) => ({ outputs: { total: T.sum(w, "i") } })
    )
    const reader = yield* (yield* compiled(sum)).bind(cells)
    yield* same("the first run", numbers((yield* run({ x: real(2, 3) })).y), [2, 3])
    yield* same("the second run", numbers((yield* run({ x: real(10, 20) })).y), [30, 80])
    yield* close("another program over the cell", numbers((yield* reader.run({})).total), [37])
    yield* close("the cell", numbers((yield* backend.read(cells)).w), [13, 24])
  })

  const oldValues: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* swap
    const cells = yield* allocated(program.state)
    yield* backend.write(cells.a, real(1, 2))
    yield* backend.write(cells.b, real(10, 20))
    const executable = yield* compiled(program)
    const { run } = yield* executable.bind(cells)
    yield* same("the sum", numbers((yield* run({})).sum), [11, 22])
    const { a, b } = yield* backend.read(cells)
    yield* same("the cells", [a, b].map(numbers), [[10, 20], [1, 2]])
    const { copied, inPlace } = executable.placement
    yield* same("the placement names every cell", [...copied, ...inPlace].toSorted(), ["a", "b"])
  })

  const ownOrder: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* Program.make(
      "outer", { inputs: { x: Specification.real({ j: 3 }) }, state: { w: Specification.real({ i: 2, j: 3 }) } },
      ({ x }) => ({ outputs: {}, state: { w: T.multiply(x, T.values({ i: 2 }, [1, 10])) } })
    )
    const cells = yield* allocated(program.state)
    const { run } = yield* (yield* compiled(program)).bind(cells)
    yield* run({ x: real(1, 2, 3) })
    yield* same("the cell", numbers((yield* backend.read(cells)).w), [1, 2, 3, 10, 20, 30])
  })

  const serial: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* accumulate
    const cells = yield* allocated(program.state)
    const executable = yield* compiled(program)
    const [one, other] = [yield* executable.bind(cells), yield* executable.bind(cells)]
    const runs = Array.from({ length: 40 }, (_, i) => i % 2 === 0 ? one : other)
    yield* Effect.forEach(runs, ({ run }) => run({ x: 1 }), { concurrency: "unbounded" })
    yield* same("the cell after 40 runs at once", numbers((yield* backend.read(cells)).w), [41, 41])
  })

  const constants: Check = Effect.gen(function*() {
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
    yield* same("what a frozen cell gives", numbers((yield* run({ x: real(1, 10) })).y), [102, 230])
    yield* refuses("a constant that is no cell of the program", "compile score", ["constant v"],
      backend.compile(program, { precision, constants: new Map([["v", cells.w]]) }))
    const writer = yield* accumulate
    yield* refuses("a constant that the program replaces", "compile accumulate", ["w"],
      backend.compile(writer, { precision, constants: new Map([["w", cells.w]]) }))
  })

  const sealing: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* Program.make("score",
      { inputs: { x: Specification.real(row) }, state: { w: Specification.real(row), b: Specification.real(row) } },
      ({ x }, { b, w }) => ({ outputs: { y: T.add(T.multiply(w, x), b) } }))
    const writer = yield* accumulate
    const scope = yield* Scope.make()
    const cells = yield* Scope.provide(allocated(program.state), scope)
    const table = yield* allocated({ w: Specification.real({ slot: 3, i: 2 }) })
    const slot = yield* backend.view(table.w, 1)
    const before = yield* (yield* compiled(writer)).bind({ w: cells.w })
    yield* backend.write(cells.w, real(2, 3))
    yield* backend.seal({ w: cells.w, slot })
    yield* backend.seal({ w: cells.w })
    yield* same("a cell that is sealed", numbers((yield* backend.read(cells)).w), [2, 3])
    yield* refuses("writing to it", "write", ["cell w"], backend.write(cells.w, real(0, 0)))
    yield* refuses("copying into it", "copy", ["cell w"], backend.copy({ w: cells.b }, { w: cells.w }))
    yield* refuses("a run that would replace it", "run accumulate", ["w"], before.run({ x: 1 }))
    yield* refuses("binding what would replace it", "bind accumulate", ["w"],
      Effect.flatMap(compiled(writer), ({ bind }) => bind({ w: cells.w })))
    yield* refuses("writing to a cell of which a part is sealed", "write", ["cell w"],
      backend.write(table.w, new Float64Array(6)))
    yield* backend.write(yield* backend.view(table.w, 2), real(5, 6))
    yield* backend.copy({ w: cells.w }, { w: cells.b })
    yield* same("the cells beside it", [...numbers((yield* backend.read(cells)).b), ...numbers((yield* backend.read({
      w: table.w
    })).w)], [2, 3, 0, 0, 0, 0, 5, 6])
    const constants = new Map([["w", cells.w], ["b", slot]])
    const { run } = yield* (yield* backend.compile(program, { precision, constants })).bind(cells)
    const loose = yield* (yield* compiled(program)).bind(cells)
    yield* same("it as a constant", numbers((yield* run({ x: real(1, 10) })).y), [2, 30])
    yield* same("it where it is bound", numbers((yield* loose.run({ x: real(1, 10) })).y), [4, 33])
    yield* Scope.close(scope, Exit.void)
    yield* same("it as a constant, after it has been freed", numbers((yield* run({ x: real(10, 1) })).y), [20, 3])
    yield* refuses("sealing what has been freed", "seal", ["w"], backend.seal({ w: cells.w }))
  })

  const watching: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* Program.make("watched", { inputs: { x: Specification.real(row) }, state: {} }, ({ x }) => {
      const weights = T.within("block", () => T.softmax("i")(T.label("scores")(T.multiply(x, T.square(x)))))
      const replayed = T.within("replay", () => T.recompute({ x }, ({ x }) => T.label("square")(T.square(x))))
      return { outputs: { y: T.multiply(weights, replayed) } }
    })
    const plain = yield* (yield* compiled(program)).bind({})
    const options = { precision, watch: ["block.scores", "replay.square"] } as const
    const watcher = yield* (yield* backend.compile(program, options)).bind({})
    const x = real(0.5, 2)
    const { outputs, watched } = yield* watcher.watch({ x })
    yield* close("the result", numbers(outputs.y), numbers((yield* plain.run({ x })).y))
    const [scores, square] = [watched["block.scores"], watched["replay.square"]]
    yield* close("block.scores", scores === undefined ? [] : numbers(scores), [0.125, 8])
    yield* close("replay.square", square === undefined ? [] : numbers(square), [0.25, 4])
    yield* refuses("a label that is not there", "compile watched", ["scores"],
      backend.compile(program, { precision, watch: ["scores"] }))
  })

  const lending: Check = Effect.gen(function*() {
    const { w } = yield* allocated({ w: Specification.real(row, { _tag: "Constant", value: 1 }) })
    const { run, runWith } = yield* (yield* compiled(yield* accumulate)).bind({ w })
    const x = real(2, 3)
    const kept = yield* run({ x })
    const [before, after, other] = yield* runWith({ x }, ({ y }) => Effect.gen(function*() {
      const before = numbers(y)
      const other = yield* Effect.forkChild(run({ x: real(0, 0) }), { startImmediately: true })
      yield* Effect.forEach(Array.from({ length: 20 }), () => Effect.yieldNow, { discard: true })
      return [before, numbers(y), other] as const
    }))
    yield* close("results where they lie", before, [6, 12])
    yield* close("the same while another run waits", after, [6, 12])
    yield* close("the run that waited", numbers((yield* Fiber.join(other)).y), [0, 0])
    yield* close("results of an earlier run", numbers(kept.y), [2, 3])
    const failed = yield* Effect.flip(runWith({ x }, () => Effect.fail("the use failed" as const)))
    yield* same("the failure of a use", failed, "the use failed")
    yield* close("what runs after it", numbers((yield* run({ x })).y), [14, 30])
  })

  const binding: Check = Effect.gen(function*() {
    const state: Loose = { a: Specification.real(row), b: Specification.real(row) }
    const program = yield* Program.makeGeneric("swap", { inputs: {}, state }, (_, { a, b }) => ({
      outputs: {}, state: { a: b, b: a }
    }))
    const executable = yield* compiled(program)
    const wrong = yield* allocated({ a: Specification.real({ j: 2 }), c: Specification.real(row) })
    yield* refuses("cells of other axes, and too few", "bind swap", ["cell a", "cell b"],
      executable.bind({ a: wrong.a }))
    yield* refuses("one cell twice, which is replaced", "bind swap", ["a and b"],
      executable.bind({ a: wrong.c, b: wrong.c }))
    const turned = yield* Program.make("turned", { inputs: {}, state: { w: Specification.real({ i: 2, j: 3 }) } },
      (_, { w }) => ({ outputs: { w } }))
    const cells = yield* allocated({ w: Specification.real({ j: 3, i: 2 }) })
    yield* refuses("a cell that lies in another order", "bind turned", ["cell w"], Effect.flatMap(compiled(turned),
      ({ bind }) => bind(cells)))
  })

  const freeing: Check = Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* accumulate
    const scope = yield* Scope.make()
    const cells = yield* Scope.provide(allocated(program.state), scope)
    const { run } = yield* (yield* compiled(program)).bind(cells)
    yield* Scope.close(scope, Exit.void)
    yield* refuses("a run over cells that are freed", "run accumulate", ["w"], run({ x: 1 }))
    yield* refuses("reading a cell that is freed", "read", ["w"], backend.read(cells))
  })

  const releasing: Check = Effect.gen(function*() {
    const { live } = yield* Backend
    if (live === undefined) return // the engine does not count: there is nothing to see
    const program = yield* accumulate
    const before = yield* live
    const alive: Array<number> = []
    const use = (end: Effect.Effect<void, BackendError>) => Effect.scoped(Effect.gen(function*() {
      const cells = yield* allocated(program.state)
      const { run } = yield* (yield* compiled(program)).bind(cells)
      for (let i = 0; i < 3; i++) {
        yield* run({ x: 1 })
        alive.push(yield* live)
      }
      yield* end
    }))
    yield* use(Effect.void)
    yield* same("what is alive after each run", new Set(alive).size, 1)
    yield* same("what is alive while cells are held is counted", (alive[0] ?? 0) > before, true)
    yield* same("what is left when a scope closes", (yield* live) - before, 0)
    const failure = new BackendError({ backend: "", operation: "", detail: "", remedy: "" })
    yield* Effect.exit(use(Effect.fail(failure)))
    yield* same("what is left after a failure", (yield* live) - before, 0)
    yield* Effect.exit(use(Effect.interrupt))
    yield* same("what is left after an interruption", (yield* live) - before, 0)
  })

  const named: Readonly<Record<string, Check>> = {
    "takes arrays of either width, ids, truths, or one number for all": kinds,
    "holds codes as bytes, in inputs, cells and results": codes,
    "gives results in the order of their sizes": orders,
    "refuses inputs that do not fit, all at once": inputs,
    "begins cells as their specification or the caller says": initial,
    "reads copies and writes what fits": reading,
    "copies trees of the same form": copying,
    "views an index of the leading axis over the same memory": views,
    "replaces cells, over which other programs run too": replacing,
    "reads old values wherever they are read, and writes new ones": oldValues,
    "writes a cell in its own order, whatever the order of its new value": ownOrder,
    "serializes runs over the same cells": serial,
    "freezes constants at the version they have when compiled": constants,
    "keeps sealed cells as they are, and what programs hold of them for as long as they hold it": sealing,
    "watches inner values by name, and changes no result by it": watching,
    "lends results for as long as they are used, and gives others away": lending,
    "binds cells of the program's own form only": binding,
    "frees cells with their scope": freeing,
    "leaves nothing alive when a scope closes, fails or is interrupted": releasing
  }
  return Object.entries(named).map(([name, check]) => ({ name, holds: Effect.scoped(check) }))
}
