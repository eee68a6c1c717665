/** A backend whose runs take time on the clock of the test, for what measures how fast a backend is. */
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"

/** The reference, each of whose runs takes a quarter of a second, and how many there were. */
export const slow = Effect.gen(function*() {
  const backend = Reference.make()
  const clock = yield* TestClock.testClockWith(Effect.succeed)
  let runs = 0
  const compile: typeof backend.compile = (program, options) =>
    Effect.map(backend.compile(program, options), (executable) => ({
      ...executable,
      bind: (cells) => Effect.map(executable.bind(cells), (bound) => ({
        ...bound,
        run: (inputs) => Effect.suspend(() => {
          runs++
          return Effect.andThen(clock.adjust("250 millis"), bound.run(inputs))
        })
      }))
    }))
  return { backend: Backend.of({ ...backend, compile }), runs: () => runs }
})
