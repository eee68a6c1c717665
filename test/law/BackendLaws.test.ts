/**
 * The laws of backends see each kind of fault, and name it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Backend, BackendError, type Bound } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import { backendLaws, type Law, laws, tolerances } from "../../src/testing/BackendLaws.ts"
import type { Service } from "../../src/testing/BackendLaw.ts"
import { mapAs } from "../../src/tensor/Tree.ts"

const options = { seed: 1, programs: 4, perOperation: 1 }

/** The names of the laws that a backend breaks, and what they say. */
const broken = (backend: Service, groups: ReadonlyArray<Law["group"]> = ["contract", "determinism"]) =>
  Effect.map(
    Effect.forEach(laws(tolerances.f64, options).filter(({ group }) => groups.includes(group)), ({ holds, name }) =>
      Effect.map(Effect.exit(Effect.provideService(holds, Backend, backend)), (exit) =>
        exit._tag === "Success" ? [] : [[name, exit.cause.toString()] as const])),
    (found) => new Map(found.flat())
  )

/** The reference with some of its methods broken. */
const but = (change: (right: Service) => Partial<Service>): Service => {
  const right = Reference.make()
  return { ...right, ...change(right) }
}

/** The reference whose results are changed. */
const withResults = (change: (x: number) => number): Service => but(({ compile }) => ({
  compile: (program, how) => Effect.map(compile(program, how), (executable) => ({
    ...executable,
    bind: (cells) => Effect.map(executable.bind(cells), (
      bound
    ): Bound<typeof program.inputs, typeof program.outputs> => ({
      ...bound,
      run: (inputs) => Effect.map(bound.run(inputs), (outputs) =>
        mapAs<typeof outputs>()(outputs, (value): value is { readonly elements: Float64Array } =>
          typeof value === "object" && value !== null && "elements" in value, (values) => ({
          ...values, elements: values.elements.map(change)
        })))
    }))
  }))
}))

describe("the laws of backends", () => {
  it.effect("hold of the reference, from a layer, and say how far it is from itself", () => Effect.gen(function*() {
    const all = backendLaws(Reference.layer, tolerances.f64, options)
    const names = new Set(all.map(({ name }) => name))
    assert.isAbove(names.size, 120)
    const some = all.filter(({ group, name }) => group === "contract" || name === "unary exp" || name === "matmul")
    const distances = yield* Effect.forEach(some, ({ holds }) => holds)
    assert.isTrue(distances.every((distance) => distance === 0))
  }))

  it.effect("see wrong numbers", () => Effect.gen(function*() {
    const wrong = yield* broken(withResults((x) => x * 1.5), ["primitive"])
    assert.isAbove(wrong.size, 35)
    const exp = wrong.get("unary exp") ?? ""
    assert.match(exp, /reference computes what the reference does: output 1 differs by [\d.]+, more than 1e-12\n/)
    assert.match(exp, /\n {2}expected [\d.]+\n {2}found {4}[\d.]+\n/)
    assert.include(exp, "\n  of\n  %1 = exp(x)  real []\n  x: real {} -")
    const inexact = yield* broken(withResults((x) => Number.isFinite(x) ? x : 0), ["primitive"])
    assert.includeMembers([...inexact.keys()], ["unary exp", "binary divide", "reduce max"])
  }))

  it.effect("see in random programs what is wrong by little", () => Effect.gen(function*() {
    const little = yield* broken(withResults((x) => x * 1.01), ["program"])
    const told = little.get("a random program computes what the reference does") ?? ""
    assert.match(told, /Counterexample: \[\n {2}%1 = .*\nx: real .*output \d differs by [\d.e-]+, more than 1e-12\n/s)
    assert.notInclude(told, "Hint")
  }))

  it.effect("see noise", () => Effect.gen(function*() {
    let runs = 0
    const wrong = yield* broken(withResults((x) => x * (1 + 1e-15 * runs++)), ["determinism"])
    assert.include(wrong.get("training twice gives the same bits"), "hold the same bits: the bits differ")
  }))

  it.effect("let only those sums vary that the backend says vary, and little", () => Effect.gen(function*() {
    const law = "rows added where they collide give the same bits again, if they are added in order"
    const seen = (size: number, unordered: ReadonlyArray<string>) => {
      let runs = 0
      const varying = withResults((x) => x + (runs++ % 2) * size)
      const { capabilities } = varying
      const backend = { ...varying, capabilities: { ...capabilities, unordered } }
      return Effect.map(broken(backend, ["determinism"]), (found) =>
        [found.has(law), found.has("sums, products and choices give the same bits again")])
    }
    assert.deepStrictEqual(yield* seen(1e-14, []), [true, true])
    assert.deepStrictEqual(yield* seen(1e-14, ["scatter add"]), [false, true])
    assert.deepStrictEqual(yield* seen(1e-9, ["scatter add"]), [true, true])
  }))

  it.effect("see cells that are shared, lost, stale, or never freed", () => Effect.gen(function*() {
    const seen = (change: (right: Service) => Partial<Service>) =>
      Effect.map(broken(but(change)), (found) => [...found.keys()])
    assert.includeMembers(yield* seen(() => ({ copy: () => Effect.void })), ["copies trees of the same form"])
    assert.includeMembers(yield* seen(() => ({ write: () => Effect.void })), [
      "reads copies and writes what fits", "views an index of the leading axis over the same memory"
    ])
    assert.includeMembers(yield* seen(() => ({ view: (cell) => Effect.succeed(cell) })), [
      "views an index of the leading axis over the same memory"
    ])
    const sealing = "keeps sealed cells as they are, and what programs hold of them for as long as they hold it"
    assert.deepStrictEqual(yield* seen(({ compile }) => ({
      compile: (program, { constants: _, ...how } = {}) => compile(program, how)
    })), ["freezes constants at the version they have when compiled", sealing])
    assert.deepStrictEqual(yield* seen(({ compile }) => ({
      compile: (program, { watch: _, ...how } = {}) => compile(program, how)
    })), ["watches inner values by name, and changes no result by it"])
    assert.deepStrictEqual(yield* seen(() => ({ seal: () => Effect.void })), [sealing])
    assert.deepStrictEqual(yield* seen(({ allocate, seal }) => ({ // seals the table whole
      allocate: (specification, how) => Effect.tap(allocate(specification, how), (cells) =>
        JSON.stringify(cells).includes("slot") ? seal(cells) : Effect.void)
    })).pipe(Effect.map((found) => found.filter((name) => name === sealing))), [sealing])
    let leaked = 0
    assert.deepStrictEqual(yield* seen(({ allocate, live }) => ({
      live: Effect.map(live!, (alive) => alive + leaked),
      allocate: (specification, how) => Effect.tap(allocate(specification, how), () => Effect.sync(() => { leaked++ }))
    })), ["leaves nothing alive when a scope closes, fails or is interrupted"])
  }))

  it.effect("see failures that say nothing", () => Effect.gen(function*() {
    const silent = new BackendError({ backend: "reference", operation: "write", detail: "no", remedy: "" })
    const wrong = yield* broken(but(({ write }) => ({
      write: (cell, elements) => Effect.mapError(write(cell, elements), () => silent)
    })))
    assert.include(
      wrong.get("reads copies and writes what fits"), "too many elements: the failure does not say cell w, but: no"
    )
  }))

  it.effect("pass on why a layer does not start", () => Effect.gen(function*() {
    const [first] = backendLaws(Layer.effect(Backend, Effect.fail("no card" as const)), tolerances.f32)
    assert.strictEqual(yield* Effect.flip(first!.holds), "no card")
  }))
})
