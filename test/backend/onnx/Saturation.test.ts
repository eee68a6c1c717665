import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { Backend } from "../../../src/backend/Backend.ts"
import { Engine } from "../../../src/backend/onnx/Engine.ts"
import { areExact, sumsAreExact } from "../../../src/backend/onnx/Saturation.ts"
import { backends, engines, saturating } from "./layers.ts"

describe("products of bytes", () => {
  it("are exact where all sums of the largest codes are what they should be", () => {
    const [exact, pairs] = [64 * 127 * 127, 32 * 32_767 - 128 * 64 * 127] // as pairs of 255 · 127 + 255 · 127 saturate
    assert.isTrue(areExact([exact, exact]))
    assert.isFalse(areExact([exact, pairs]))
  })
  for (const [name, engine] of Object.entries(engines)) {
    it.effect(`of ${name} are exact with instructions for them`, ({ skip }) => Effect.gen(function*() {
      const isExact = yield* Effect.flatMap(Engine, sumsAreExact)
      const isKnown = process.platform === "linux" && process.arch === "x64"
      const flags = isKnown ? readFileSync("/proc/cpuinfo", "utf8") : ""
      if (!/ avx(512)?_vnni /.test(flags)) skip("skipped: not known to have them (Linux on x64 with VNNI has)")
      assert.isTrue(isExact)
    }).pipe(Effect.provide(engine)))
  }
  it.effect("are left to the decomposition where they are not, and no others", () => Effect.gen(function*() {
    const kernels = Effect.map(Backend, ({ capabilities }) => new Set(capabilities.kernels))
    const [all, left] = [
      yield* kernels.pipe(Effect.provide(backends[0]![1])), yield* kernels.pipe(Effect.provide(saturating[1]))
    ]
    assert.deepStrictEqual(left, new Set([...all].filter((kernel) => kernel !== "contractRows")))
  }))
})
