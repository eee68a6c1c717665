/**
 * Cells in arenas: one for each storage, in order, aligned, and opaque.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as fc from "fast-check"
import * as HostState from "../../src/backend/HostState.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import { entries } from "../../src/tensor/Tree.ts"
import { sizeOrZero } from "../../src/testing/Arbitrary.ts"

const host: HostState.Host = {
  backend: "host", precisions: ["f32", "f64"], precision: "f32", memory: HostState.processMemory
}

const leaf = fc.tuple(
  sizeOrZero, sizeOrZero, fc.constantFrom(Specification.real, Specification.ids, Specification.truths)
)
  .map(([i, j, of]) => of({ i: 5 * i, j }))

describe("an allocation", () => {
  it("has one arena for each storage, its cells in order, each at a multiple of 64 bytes, none over another", () =>
    fc.assert(fc.asyncProperty(fc.array(leaf, { maxLength: 6 }), fc.constantFrom(
      "f32" as const, "f64" as const
    ), (specification, precision) =>
      Effect.runPromise(Effect.scoped(Effect.gen(function*() {
        const state = HostState.make(host)
        const cells = yield* state.allocate(specification, { precision })
        const held = yield* Effect.forEach(entries(cells, HostState.isCell), ([, cell]) => state.resolve("test", cell))
        const ends = new Map<HostState.Storage, number>()
        held.forEach(({ allocation, elements, start, storage }, i) => {
          const { kind, sizes } = specification[i]!
          assert.strictEqual(storage, kind === "real" ? precision : kind)
          assert.strictEqual(elements.length, sizes.i * sizes.j)
          assert.strictEqual(elements.buffer, allocation.arenas.get(storage)!.buffer)
          assert.strictEqual(elements.byteOffset, start * elements.BYTES_PER_ELEMENT)
          assert.strictEqual(elements.byteOffset % 64, 0)
          assert.isAtLeast(start, ends.get(storage) ?? 0)
          ends.set(storage, start + elements.length)
        })
        assert.strictEqual(new Set(held.map(({ allocation }) => allocation)).size, Math.min(1, held.length))
      })))), { numRuns: 60 }))
})

describe("exclusively", () => {
  const two = Effect.gen(function*() {
    const state = HostState.make(host)
    const specification = { w: Specification.real({ i: 1 }) }
    const held = yield* Effect.forEach([1, 2], () =>
      Effect.flatMap(state.allocate(specification), ({ w }) => state.resolve("test", w)))
    return { state, held: [held[0]!, held[1]!] as const }
  })
  it.effect("takes locks in one order, so that no two wait for each other", () => Effect.gen(function*() {
    const { held: [one, other], state } = yield* two
    const slow = Effect.andThen(Effect.yieldNow, Effect.yieldNow)
    const all = Effect.forEach([[one], [other], [one, other], [other, one]], (cells) =>
      state.exclusively("test", cells)(slow), { concurrency: "unbounded", discard: true })
    const working = yield* Effect.forkChild(all)
    for (let turn = 0; turn < 100; turn++) yield* Effect.yieldNow // each has two turns to wait
    const ended = working.pollUnsafe()
    yield* Fiber.interrupt(working)
    assert.isDefined(ended)
  }))
  it.effect("lets only one in", () => Effect.gen(function*() {
    const { held: [one, other], state } = yield* two
    let inside = 0
    const work = Effect.gen(function*() {
      assert.strictEqual(++inside, 1)
      yield* Effect.yieldNow
      inside--
    })
    yield* Effect.forEach([
      [one, other], [other, one], [one], [other, one]
    ], (cells) => state.exclusively("test", cells)(work), {
      concurrency: "unbounded"
    })
    assert.strictEqual(inside, 0)
  }))
  it.effect("ends what it has begun, and never begins when it is interrupted before", () => Effect.gen(function*() {
    const { held: [one], state } = yield* two
    const done: Array<string> = []
    const slow = (name: string) =>
      state.exclusively("test", [one])(Effect.andThen(Effect.yieldNow, Effect.sync(() => void done.push(name))))
    const first = yield* Effect.forkChild(slow("first"), { startImmediately: true })
    const second = yield* Effect.forkChild(slow("second"), { startImmediately: true })
    yield* Fiber.interruptAll([first, second])
    yield* slow("third")
    assert.deepStrictEqual(done, ["first", "third"])
  }))
})
