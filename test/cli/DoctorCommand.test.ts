import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { NoEngineError } from "../../src/cli/DoctorCommand.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { cria } from "./Cria.ts"

describe("cria doctor", () => {
  it.live("prints versions, engines and rates", () =>
    Effect.gen(function*() {
      const { errors, exit, output } = yield* cria(MemoryDisk.make(), ["doctor"])
      assert.isTrue(Exit.isSuccess(exit), errors)
      for (const pattern of [
        /^cria {10}\d+\.\d+\.\d+$/m, /^node {10}v\d+\.\d+\.\d+ on \w+ \w+$/m,
        /^packages {6}effect .*, onnxruntime-node .*, koffi/m, /^processor {5}.+, \d+ cores/m,
        /^memory {8}[\d.]+ GB$/m, /^through koffi ONNX Runtime \d+\.\d+\.\d+, \d+ threads$/m,
        /^through node {2}ONNX Runtime/m, /^matmul {8}[\d.]+ GFLOP\/s/m, /^bandwidth {5}[\d.]+ [GM]B\/s/m
      ]) assert.match(output, pattern)
    }))
  it("says what still works where no engine loads", () => {
    assert.strictEqual(new NoEngineError({ reasons: ["one", "two"] }).message,
      "no engine loads, so only --backend reference works here, which is slow\none\ntwo")
  })
})
