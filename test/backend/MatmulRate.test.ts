import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Backend } from "../../src/backend/Backend.ts"
import { bandwidth, matmulRate } from "../../src/backend/MatmulRate.ts"
import { slow } from "./Slow.ts"

describe("MatmulRate", () => {
  it.effect("counts operations over time, runs until the time is over, and does not count the first run", () =>
    Effect.gen(function*() {
      const { backend, runs } = yield* slow
      const rate = yield* Effect.provideService(matmulRate({ size: 10, seconds: 1 }), Backend, backend)
      assert.strictEqual(rate, 2 * 1000 * 4)
      assert.strictEqual(runs(), 5)
    }))
  it.effect("counts bytes read and written", () =>
    Effect.gen(function*() {
      const { backend, runs } = yield* slow
      assert.strictEqual(
        yield* Effect.provideService(bandwidth({ size: 100, seconds: 0.1 }), Backend, backend), 2 * 8 * 100 * 4
      )
      assert.strictEqual(runs(), 2)
    }))
})
