/**
 * Hunts for crashes and leaks of the engine: `npm run build`, then `node test/soak/engine.mjs [processes] [runs]`.
 *
 * First many fresh processes (200, two at a time), each of which loads the library, makes sessions over large buffers,
 * forgets what it can, forces garbage collections between and during runs, and checks every result. Then one process
 * that makes 10 000 runs of random sizes under the same collections, and prints its resident memory as it goes.
 * Exits 1 if any process crashed or computed a wrong number.
 */
import { Effect, Fiber } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import * as Engine from "../../dist/backend/onnx/Engine.js"
import { encodeModel } from "../../dist/backend/onnx/ModelProto.js"

const resident = () => `${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB`

/** Numbers in [0, 1) from a seed (mulberry32). */
const random = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

/** z = tanh(x·w) + b, and their sum. */
const model = (rows, width) => {
  const value = (name, ...sizes) => ({ name, type: "f32", sizes })
  return encodeModel({
    nodes: [
      { op: "MatMul", inputs: ["x", "w"], outputs: ["product"] },
      { op: "Tanh", inputs: ["product"], outputs: ["bounded"] },
      { op: "Add", inputs: ["bounded", "b"], outputs: ["z"] },
      { op: "ReduceSum", inputs: ["z"], outputs: ["sum"], attributes: { keepdims: { int: 0 } } }
    ],
    inputs: [value("x", rows, width), value("w", width, width)],
    outputs: [value("z", rows, width), value("sum")],
    initializers: [{ ...value("b", width), bytes: new Uint8Array(new Float32Array(width).fill(0.5).buffer) }]
  })
}

const update = (size) =>
  encodeModel({
    nodes: [{ op: "Sub", inputs: ["x", "g"], outputs: ["y"] }],
    inputs: [{ name: "x", type: "f32", sizes: [size] }, { name: "g", type: "f32", sizes: [size] }],
    outputs: [{ name: "y", type: "f32", sizes: [size] }],
    initializers: []
  })

const check = (found, expected, what, tolerance = 1e-5) => {
  if (!(Math.abs(found - expected) <= tolerance * Math.abs(expected))) {
    throw new Error(`${what}: ${found}, expected ${expected}`)
  }
}

/** One round: a session, buffers, bindings that are dropped and one that is run, with collections in every gap. */
const round = (next, rows, width) =>
  Effect.scoped(Effect.gen(function*() {
    const engine = yield* Engine.Engine
    const maybeCollect = Effect.sync(() => next() < 0.3 && gc())
    const session = yield* engine.createSession(model(rows, width))
    yield* maybeCollect
    const bind = Effect.gen(function*() { // nothing but the binding refers to x and w afterwards
      const x = yield* engine.allocate("f32", [rows, width])
      const w = yield* engine.allocate("f32", [width, width])
      const z = yield* engine.allocate("f32", [rows, width])
      const sum = yield* engine.allocate("f32", [])
      x.data.fill(0.25)
      w.data.fill(1 / width)
      return { z, sum, run: yield* session.bind({ inputs: { x, w }, outputs: { z, sum } }) }
    })
    yield* bind
    const { run, sum, z } = yield* bind
    yield* bind
    yield* maybeCollect
    const fiber = yield* Effect.forkChild(run.run, { startImmediately: true })
    yield* maybeCollect
    new Float32Array(rows * width).fill(9) // takes the place of memory that was freed too early
    yield* Fiber.join(fiber)
    const expected = Math.tanh(0.25) + 0.5
    check(z.data[0], expected, "first")
    check(z.data.at(-1), expected, "last")
    check(sum.data[0], expected * rows * width, "sum", 1e-2) // a float32 sum of millions of equal numbers is this bad
    run.runSync()
    yield* maybeCollect
    check(z.data[Math.floor(next() * z.data.length)], expected, "again")
  }))

const inPlace = (next, size) =>
  Effect.scoped(Effect.gen(function*() {
    const engine = yield* Engine.Engine
    const session = yield* engine.createSession(update(size))
    const x = yield* engine.allocate("f32", [size])
    const g = yield* engine.allocate("f32", [size])
    x.data.fill(3)
    g.data.fill(1)
    const run = yield* session.bind({ inputs: { x, g }, outputs: { y: x } })
    yield* Effect.all([run.run, Effect.sync(() => gc())], { concurrency: 2 })
    run.runSync()
    check(x.data[Math.floor(next() * size)], 1, "in place")
  }))

const short = (seed) => {
  const next = random(seed)
  return Effect.gen(function*() {
    yield* Effect.all(
      Array.from({ length: 4 }, () => round(next, 1 + Math.floor(next() * 2000), 16 + Math.floor(next() * 1500))),
      { concurrency: 2 }
    )
    yield* inPlace(next, 1 + Math.floor(next() * 10_000_000))
  })
}

const long = (runs) => {
  const next = random(1)
  return Effect.gen(function*() {
    yield* round(next, 600, 300) // what the first use costs is no leak
    gc()
    console.log(`runs 0: resident ${resident()}`)
    for (let done = 1; done <= runs / 2; done++) { // two runs a round
      yield* round(next, 1 + Math.floor(next() * 600), 1 + Math.floor(next() * 300))
      if (done % Math.ceil(runs / 20) !== 0) continue
      gc()
      console.log(`runs ${2 * done}: resident ${resident()}`)
    }
  })
}

const main = async () => {
  const [processes = 200, runs = 10_000] = process.argv.slice(2).map(Number)
  const child = (kind, argument) =>
    new Promise((resolve) => {
      const output = []
      const spawned = spawn(process.execPath, ["--expose-gc", fileURLToPath(import.meta.url), kind, String(argument)])
      spawned.stdout.on("data", (data) => kind === "long" ? process.stdout.write(data) : output.push(data))
      spawned.stderr.on("data", (data) => output.push(data))
      spawned.on("close", (code, signal) => {
        if (code !== 0) console.log(`${kind} ${argument}: exit ${code} ${signal ?? ""} ${Buffer.concat(output)}`)
        resolve(code === 0 ? 0 : 1)
      })
    })
  const started = performance.now()
  let seed = 0
  let crashes = 0
  const worker = async () => {
    while (seed < processes) {
      const crashed = await child("short", ++seed)
      crashes += crashed
    }
  }
  await Promise.all([worker(), worker()])
  console.log(`${processes} processes: ${crashes} crashes, ${((performance.now() - started) / 1000).toFixed(0)} s`)
  const crashed = await child("long", runs)
  crashes += crashed
  console.log(`${runs} runs: ${crashes} crashes in all, ${((performance.now() - started) / 1000).toFixed(0)} s`)
  process.exitCode = crashes === 0 ? 0 : 1
}

const [kind, argument] = process.argv.slice(2)
if (kind === "short" || kind === "long") {
  const program = (kind === "short" ? short : long)(Number(argument))
  await Effect.runPromise(program.pipe(Effect.provide(Engine.layerKoffi({ threads: 2 }))))
} else {
  await main()
}
