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
      assert.strictEqual(runs(), 1 + 1 + 1 + 2)
    }))
  it.effect("counts bytes read and written, and ends what a device has only begun", () =>
    Effect.gen(function*() {
      const { backend, runs } = yield* slow
      const rate = (seconds: number) =>
        Effect.provideService(bandwidth({ size: 100, seconds }), Backend, backend)
      assert.strictEqual(yield* rate(0.1), 2 * 8 * 100 * (1 / 0.5)) // a run, and a look at what it left
      assert.strictEqual(runs(), 4)
      assert.strictEqual(yield* rate(1.5), 2 * 8 * 100 * (4 / 1.75)) // 1 + 1 + 2 runs and three looks
      assert.strictEqual(runs(), 4 + 2 + 7)
    }))
})
