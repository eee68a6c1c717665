import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Sink, Stream } from "effect"
import { ChildProcessSpawner } from "effect/process"
import { TestClock } from "effect/testing"
import { encode, Prober, type Report } from "../../src/cli/BackendProbe.ts"

const encoder = new TextEncoder()

/** A process that prints some text, on either stream, and ends, or never does. */
const printing = (text: string, exitCode: number | undefined, complaints = "") =>
  Layer.succeed(ChildProcessSpawner.ChildProcessSpawner, ChildProcessSpawner.make(() =>
    Effect.succeed(ChildProcessSpawner.makeHandle({
      pid: ChildProcessSpawner.ProcessId(1),
      exitCode: exitCode === undefined ? Effect.never : Effect.succeed(ChildProcessSpawner.ExitCode(exitCode)),
      isRunning: Effect.succeed(exitCode === undefined), kill: () => Effect.void, stdin: Sink.drain,
      stdout: exitCode === undefined ? Stream.never : Stream.make(encoder.encode(text)),
      stderr: Stream.make(encoder.encode(complaints)), all: Stream.empty,
      getInputFd: () => Sink.drain, getOutputFd: () => Stream.empty, unref: Effect.succeed(Effect.void)
    }))))

const ask = Effect.flatMap(Prober, (prober) => prober("onnx"))

const started: Report = {
  _tag: "Started", version: "1", threads: 2, size: 64, flopsPerSecond: 1e9, bytesPerSecond: 1e9, device: "webgpu"
}

describe("a backend in a process of its own", () => {
  it.effect("tells in one line, whatever else its engine prints", () => Effect.gen(function*() {
    const report = yield* Effect.provide(ask, printing(`a warning\n${encode(started)}\n`, 0))
    assert.deepStrictEqual(report, started)
  }))
  it.effect("that crashes is told of, with its last words", () => Effect.gen(function*() {
    const silent = "its process ended (exit code 134) before it told anything: it crashes here"
    assert.deepStrictEqual(
      yield* Effect.provide(ask, printing("a line\n", 134)), { _tag: "Absent", message: silent }
    )
    const complaints = "one\ntwo\nloading libcuda\nterminate called\nAborted\n"
    assert.deepStrictEqual(yield* Effect.provide(ask, printing("", 134, complaints)), {
      _tag: "Absent", message: `${silent}\n  loading libcuda\n  terminate called\n  Aborted`
    })
  }))
  it.effect("that hangs is ended after a minute", () => Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.provide(ask, printing("", undefined)))
    yield* TestClock.adjust("61 seconds")
    assert.deepStrictEqual(yield* Fiber.join(fiber), {
      _tag: "Absent", message: "it told nothing within 1m: it hangs here"
    })
  }))
})
