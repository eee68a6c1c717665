/**
 * Whether the event loop has its turn with each run of a backend: else neither a signal nor an interruption comes in.
 */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { MaxOpsBeforeYield } from "effect/References"
import { Backend } from "../../src/backend/Backend.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"

/** Holds where what waited for a turn of the event loop before a run has had it after that. */
export const turnsWithEachRun = Effect.gen(function*() {
  const inputs = { x: Specification.real({ i: 2 }) }
  const program = yield* Program.make("short", { inputs, state: {} }, ({ x }) => ({ outputs: { y: T.square(x) } }))
  const { run } = yield* Effect.flatMap((yield* Backend).compile(program), ({ bind }) => bind({}))
  for (let i = 0; i < 3; i++) {
    let hasTurned = false
    const timer = setImmediate(() => { hasTurned = true })
    yield* run({ x: i })
    clearImmediate(timer)
    assert.isTrue(hasTurned, `run ${i}`)
  }
}).pipe(Effect.scoped, Effect.provideService(MaxOpsBeforeYield, Infinity)) // so that Effect itself never yields
