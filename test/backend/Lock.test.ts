import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import * as fc from "fast-check"
import * as Lock from "../../src/backend/Lock.ts"

describe("Lock", () => {
  it.effect("is held by no more than its number, and is free in between", () =>
    Effect.promise(() => fc.assert(fc.asyncProperty(
      fc.integer({ min: 1, max: 3 }), fc.array(fc.constantFrom("ends", "fails", "yields"), { maxLength: 8 }),
      (count, works) => Effect.runPromise(Effect.gen(function*() {
        const lock = Lock.make(count)
        let holding = 0
        const ends = (how: typeof works[number]) =>
          how === "fails" ? Effect.fail(how) : how === "yields" ? Effect.yieldNow : Effect.void
        const exits = yield* Effect.forEach(works, (how) =>
          Effect.exit(lock.hold(Effect.gen(function*() {
            holding++
            assert.isAtMost(holding, count)
            assert.strictEqual(lock.isFree(), holding < count)
            yield* Effect.yieldNow
            assert.strictEqual(lock.isFree(), holding < count)
            yield* Effect.ensuring(ends(how), Effect.sync(() => { holding-- }))
          }))), { concurrency: "unbounded" })
        assert.deepStrictEqual(exits.map(Exit.isFailure), works.map((how) => how === "fails"))
        assert.isTrue(lock.isFree())
      }))
    ))))

  it.effect("is free again when a holder, or one who waits, is interrupted", () =>
    Effect.gen(function*() {
      const lock = Lock.make()
      const [begun, never] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const holder = yield* Effect.forkChild(lock.hold(
        Effect.andThen(Deferred.succeed(begun, undefined), Deferred.await(never))))
      yield* Deferred.await(begun)
      const waiter = yield* Effect.forkChild(lock.hold(Effect.void), { startImmediately: true })
      yield* Fiber.interrupt(waiter)
      assert.isFalse(lock.isFree())
      yield* Fiber.interrupt(holder)
      assert.isTrue(lock.isFree())
      assert.strictEqual(yield* lock.hold(Effect.succeed(1)), 1)
    }))
})
