/**
 * Whether backends leak: `npm run build`, then `node test/soak/backends.mjs [steps] [backend…]`.
 *
 * Takes 1 000 training steps of a small model on every backend that starts, each in a process of its own with one arena
 * of malloc, which maps every piece of a mebibyte (left alone it learns to keep them, and grows once by a tenth). Exits
 * 1 if what is alive on a backend ever changes between steps, or if in the last three tenths resident memory always is
 * more than 3 % above the most that it was after the first three: by then caches of drivers are full.
 */
import { Backend } from "cria"
import { Effect, Layer } from "effect"
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { configOf, trainingStep } from "../../bench/workload.mjs"
import { choices, names } from "../../dist/cli/BackendChoice.js"

const bound = 0.03

/** @param {string} name @param {number} steps */
const soak = (name, steps) => {
  /** @type {Layer.Layer<import("cria").Backend.Backend>} */
  const layer = Layer.orDie(choices[/** @type {keyof typeof choices} */ (name)].start(undefined))
  return Effect.gen(function*() {
    const { live } = yield* Backend.Backend
    const { take } = yield* trainingStep(configOf({ embedSize: 32, layerCount: 1 }), 2, 16)
    const every = Math.max(1, Math.floor(steps / 10))
    /** @type {Array<number>} */
    const sizes = []
    /** @type {Set<number>} */
    const alive = new Set()
    for (let step = 1; step <= steps; step++) {
      yield* take
      if (live !== undefined) alive.add(yield* live)
      if (step % every > 0) continue
      globalThis.gc?.()
      yield* Effect.promise(() => new Promise((done) => setTimeout(done, 50))) // for what is freed after it
      globalThis.gc?.()
      sizes.push(process.memoryUsage.rss())
    }
    const first = Math.max(1, ...sizes.slice(0, 3))
    const growth = Math.min(...sizes.slice(-3)) / first - 1 // a peak that goes again is no leak
    const counted = live === undefined ? "not counted" : `${[...alive].join(", ")} alive after every step`
    const memory = `${(first / 2 ** 20).toFixed(0)} MiB, ${(100 * growth).toFixed(2)} % more at the end`
    console.log(`${name}: ${steps} steps, ${counted}, ${memory}`)
    return alive.size <= 1 && growth <= bound
  }).pipe(Effect.scoped, Effect.provide(layer), Effect.runPromise)
}

const args = process.argv.slice(2)

if (process.env.CRIA_SOAK_CHILD === "1") {
  const [steps = "1000", name = ""] = args
  process.exitCode = await soak(name, Number(steps)) ? 0 : 1
} else {
  const [steps = "1000", ...wanted] = args
  for (const name of wanted.length > 0 ? wanted : names.filter((name) => name !== "reference")) {
    const { status, stderr, stdout } = spawnSync(
      process.execPath, ["--expose-gc", fileURLToPath(import.meta.url), steps, name],
      { encoding: "utf8", env: {
        ...process.env, MALLOC_ARENA_MAX: "1", MALLOC_MMAP_THRESHOLD_: String(2 ** 20), CRIA_SOAK_CHILD: "1"
      } }
    )
    process.stdout.write(stdout)
    if (!stdout.startsWith(`${name}:`)) {
      console.log(`${name}: skipped, it does not start: ${/Error: .*/.exec(stderr)?.[0] ?? `exit code ${status}`}`)
    } else if (status !== 0) {
      console.log(`${name}: it leaks`)
      process.exitCode = 1
    }
  }
}
