import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import * as BackendChoice from "../../src/cli/BackendChoice.ts"
import { Prober, type Report } from "../../src/cli/BackendProbe.ts"
import { told } from "../../src/cli/DoctorCommand.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { cria } from "./Cria.ts"

const fast: Report = {
  _tag: "Started", version: "engine 1", threads: 2, size: 1024, flopsPerSecond: 2e11, bytesPerSecond: 1e10
}
const absent: Report = { _tag: "Absent", message: "its library must load\n  install it" }

const doctor = (reports: Partial<Record<BackendChoice.Name, Report>>) =>
  cria(MemoryDisk.make(), ["doctor"]).pipe(
    Effect.provideService(Prober, (name) => Effect.succeed(reports[name] ?? absent))
  )

describe("cria doctor", () => {
  it.live("prints the machine and every backend, and which is taken unasked", () =>
    Effect.gen(function*() {
      const { errors, exit, output } = yield* doctor({
        onnx: fast, "tensorflow-wasm": { ...fast, threads: 1 },
        "onnx-webgpu": { ...fast, device: "webgpu", flopsPerSecond: 3e11 }
      })
      assert.isTrue(Exit.isSuccess(exit), errors)
      for (const pattern of [
        /^cria {10}\d+\.\d+\.\d+$/m, /^node {10}v\d+\.\d+\.\d+ on \w+ \w+$/m,
        /^packages {6}effect .*, onnxruntime-node .*, koffi/m, /^processor {5}.+, \d+ cores/m, /^memory {8}[\d.]+ GB$/m
      ]) assert.match(output, pattern)
      for (const name of BackendChoice.names) {
        const { ran, what } = BackendChoice.choices[name]
        assert.include(output, `\n${name}: ${what}\n  tested ${ran}\n`)
      }
      assert.include(output, "  here: engine 1, 2 threads\n  multiplies matrices at 200 GFLOP/s " +
        "(1024 × 1024), moves memory at 10.0 GB/s\n")
      assert.include(output, "  here: engine 1, device webgpu\n")
      assert.include(output, "  tested nowhere yet\n  not here: its library must load\n  install it\n")
      assert.include(output, "\nCommands compute with onnx, and with the model of a run on what trained it; " +
        "--backend NAME chooses another.\nonnx-webgpu multiplied matrices faster just now.\n")
    }))
  it.live("fails where no engine starts, with every reason", () =>
    Effect.gen(function*() {
      const { errors, exit } = yield* doctor({ reference: fast })
      assert.isTrue(Exit.isFailure(exit))
      assert.include(errors, "no engine starts, so only --backend reference works here, which is slow\nonnx: its")
    }))
  it.live("measures one backend as a line of JSON", () =>
    Effect.gen(function*() {
      const { errors, exit, output } = yield* cria(MemoryDisk.make(), ["doctor", "--probe", "reference"])
      assert.isTrue(Exit.isSuccess(exit), errors)
      assert.match(output, /^\{"_tag":"Started","version":"1","threads":1,"size":256,"flopsPerSecond":\d/)
    }))
  it("says the same of one thread", () =>
    assert.include(told("tensorflow-wasm", { ...fast, threads: 1 }), "here: engine 1, 1 thread\n"))
  it("says whose version the reference has", () =>
    assert.include(told("reference", { ...fast, version: "1", threads: 1 }), "\n  here: version 1, 1 thread\n"))
})
