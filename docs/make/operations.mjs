// @ts-check
/**
 * Writes docs/operations.md by running the laws of primitives on every backend that starts: primitive × backend, how it
 * is run and the worst error seen.
 *
 * `npm run build`, then `node docs/make/operations.mjs`. Each backend runs in a process of its own. Backends that do
 * not start keep the column that the page has for them.
 */
import { Effect, Layer } from "effect"
import { spawnSync } from "node:child_process"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const target = join(dirname(fileURLToPath(import.meta.url)), "../operations.md")

/** @typedef {{ readonly version: string, readonly cells: Readonly<Record<string, string>> }} Column */

/** @param {number} error */
const shown = (error) => error === 0 ? "exact" : error.toExponential(0)

/**
 * The cells of a page by row and column, so that columns can be kept.
 *
 * @param {string} text
 */
export const cellsOf = (text) => {
  const [header = "", , ...lines] = text.split("\n").filter((line) => line.startsWith("|"))
  const split = (/** @type {string} */ line) => line.split("|").slice(1, -1).map((cell) => cell.trim())
  const [, ...columns] = split(header)
  const rows = lines.map((line) => {
    const [name = "", ...cells] = split(line)
    return /** @type {const} */ ([name, new Map(cells.map((cell, i) => [columns[i] ?? "", cell]))])
  })
  return { columns, rows: new Map(rows) }
}

/**
 * The layer of a backend.
 *
 * @param {string} name
 * @returns {Promise<Layer.Layer<import("cria").Backend.Backend>>}
 */
const layerOf = async (name) => {
  const { choices } = await import("../../dist/cli/BackendChoice.js")
  return Layer.orDie(choices[/** @type {keyof typeof choices} */ (name)].start(undefined))
}

/** What one backend does with every primitive, in this process. @param {string} name */
const measure = async (name) => {
  const { Backend } = await import("cria")
  const { BackendLaws, PrimitiveCase } = await import("cria/testing")
  const { layerCuda, layerWebGpu } = await import("cria/backend/onnx")
  /** @type {Readonly<Record<string, () => Layer.Layer<import("cria").Backend.Backend, any>>>} */
  const alone = { "onnx-webgpu": () => layerWebGpu({ isAlone: true }), "onnx-cuda": () => layerCuda({ isAlone: true }) }
  const started = await layerOf(name)
  return Effect.gen(function*() {
    const { capabilities, version } = yield* Backend.Backend
    const precision = capabilities.precisions.includes("f32") ? "f32" : "f64"
    const tolerance = BackendLaws.tolerances[precision]
    /** @type {Record<string, string>} */
    const cells = {}
    for (const row of PrimitiveCase.rows) {
      const holds = (/** @type {boolean} */ extremes) =>
        Effect.result(BackendLaws.primitiveLaw(row, tolerance, { extremes }).holds)
      const whole = yield* holds(true)
      const result = whole._tag === "Success" ? whole : yield* holds(false)
      if (result._tag === "Failure") {
        cells[row.name] = result.failure._tag === "BackendError" ? "unsupported" : "wrong"
        console.error(`${name}, ${row.name}: ${result.failure.message.slice(0, 500)}`)
        continue
      }
      const byItself = alone[name] === undefined ? result : yield* Effect.result(
        BackendLaws.primitiveLaw(row, tolerance, { extremes: false }).holds.pipe(Effect.provide(alone[name]()))
      )
      const how = byItself._tag === "Failure" ? "fallback" : capabilities.primitives?.[row.name] ?? "native"
      cells[row.name] = `${how} ${shown(result.success)}${whole._tag === "Success" ? "" : " †"}`
    }
    return { version: `${version}, ${precision}`, cells }
  }).pipe(Effect.provide(started), Effect.runPromise)
}

/**
 * The page.
 *
 * @param {ReadonlyArray<string>} rows
 * @param {ReadonlyMap<string, Column>} columns
 */
export const page = (rows, columns) => {
  const row = (/** @type {ReadonlyArray<string>} */ cells) => `| ${cells.join(" | ")} |`
  const names = [...columns.keys()]
  return [
    "# Operations",
    "",
    "Every primitive on every backend, and the worst error seen, relative to the largest element or to 1. Written by",
    "running the laws of `cria/testing` on linux x64, on a processor (`node docs/make/operations.mjs`): do not",
    "edit it here.",
    "",
    "- **native**: one operation of the engine · **composed**: several, for some of the cases · **fallback**: by the",
    "  processor of the host and not the engine, for some of the cases · **unsupported**: refused",
    "- **–**: the backend has not started where this page was written",
    "- **†**: NaN, infinities or the ends of float32 are not as float64 has them",
    "",
    row(["primitive", ...names]),
    row(["---", ...names.map(() => "---")]),
    ...rows.map((name) => row([name, ...names.map((column) => columns.get(column)?.cells[name] ?? "–")])),
    "",
    "What ran:",
    "",
    ...names.map((name) => `- \`${name}\`: ${columns.get(name)?.version ?? ""}`),
    ""
  ].join("\n")
}

const main = async () => {
  const { PrimitiveCase } = await import("cria/testing")
  const { names } = await import("../../dist/cli/BackendChoice.js")
  const before = existsSync(target) ? readFileSync(target, "utf8") : ""
  const kept = cellsOf(before)
  const rows = PrimitiveCase.rows.map(({ name }) => name)
  const columns = new Map(names.map((name) => {
    const script = fileURLToPath(import.meta.url)
    const { stderr, stdout } = spawnSync(process.execPath, [script, name], { encoding: "utf8" })
    const line = stdout.trim().split("\n").at(-1) ?? ""
    if (line.startsWith("{")) {
      process.stderr.write(stderr)
      console.log(`${name}: measured`)
      return /** @type {const} */ ([name, /** @type {Column} */ (JSON.parse(line))])
    }
    console.log(`${name}: not here; ${kept.columns.includes(name) ? "its column is kept" : "it gets an empty column"}`)
    const version = new RegExp(`^- \`${name}\`: (.*)$`, "m").exec(before)?.[1] ?? "not run"
    const cells = Object.fromEntries(rows.map((row) => [row, kept.rows.get(row)?.get(name) ?? "–"]))
    return /** @type {const} */ ([name, { version, cells }])
  }))
  writeFileSync(target, page(rows, columns))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , name] = process.argv
  if (name === undefined) await main()
  else console.log(JSON.stringify(await measure(name)))
}
