/**
 * Operators of our own: the engine finds their types and sizes, gives them what they read and write, runs all parts.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { readFileSync } from "node:fs"
import {
  add, assemble, at, type Code, copy, end, load, multiply, store
} from "../../../src/backend/machine/Assembler.ts"
import { knowsVectors } from "../../../src/backend/onnx/CodeMemory.ts"
import { Engine } from "../../../src/backend/onnx/Engine.ts"
import { layOut, machineDomain, type MachineOperator } from "../../../src/backend/onnx/MachineOperator.ts"
import { encodeModel, type Graph } from "../../../src/backend/onnx/ModelProto.ts"
import { engines } from "./layers.ts"

const parts = 1000

/** The register moved to the part's element, of eight bytes. */
const elementOf = (register: "rax" | "rcx" | "rdx" | "r8", index: number): Code =>
  [load(register, at("rdi", 8 * index)), add(register, "rsi")]

/** For element i, of a and b: the sum, and b itself. */
const sumAndSecond: MachineOperator = {
  name: "SumAndSecond",
  inputs: ["i64", "i64"],
  outputs: [{ type: "i64", sizes: [parts] }, { type: "i64", sizes: [2, parts / 2] }],
  work: assemble([
    multiply("rsi", "rsi", 8),
    ...elementOf("rax", 0), ...elementOf("rcx", 1), ...elementOf("rdx", 2), ...elementOf("r8", 3),
    load("rax", at("rax")), load("rcx", at("rcx")), copy("r9", "rcx"),
    add("rax", "rcx"), store("rax", at("rdx")), store("r9", at("r8")), end
  ]),
  parts
}

const graph: Graph = {
  inputs: [{ name: "a", type: "i64", sizes: [parts] }, { name: "b", type: "i64", sizes: [parts] }],
  outputs: [{ name: "sum", type: "i64", sizes: [parts] }, { name: "second", type: "i64", sizes: [2, parts / 2] }],
  initializers: [],
  nodes: [{ op: "SumAndSecond", domain: machineDomain, inputs: ["a", "b"], outputs: ["sum", "second"] }]
}

const numbers = (f: (i: number) => number) => BigInt64Array.from({ length: parts }, (_, i) => BigInt(f(i)))

const runs = process.platform === "linux" && process.arch === "x64" &&
  knowsVectors(readFileSync("/proc/cpuinfo", "latin1"))

describe.skipIf(!runs)("an operator of ours (needs Linux on x64 with AVX-512)", () => {
  it.effect("computes in all parts, and again, in sessions of their own", () => Effect.gen(function*() {
    const engine = yield* Engine
    assert.isTrue(engine.runsMachineCode)
    for (let session = 0; session < 20; session++) {
      yield* Effect.scoped(Effect.gen(function*() {
        const { bind } = yield* engine.createSession(encodeModel(graph), { operators: [sumAndSecond] })
        const [a, b] = [yield* engine.allocate("i64", [parts]), yield* engine.allocate("i64", [parts])]
        const sum = yield* engine.allocate("i64", [parts])
        const second = yield* engine.allocate("i64", [2, parts / 2])
        a.data.set(numbers((i) => i * session))
        b.data.set(numbers((i) => 7 - i))
        const { run } = yield* bind({ inputs: { a, b }, outputs: { sum, second } })
        for (let repeated = 0; repeated < 3; repeated++) {
          sum.data.fill(0n)
          second.data.fill(0n)
          yield* run
          assert.deepStrictEqual(sum.data, numbers((i) => i * session + 7 - i))
          assert.deepStrictEqual(second.data, numbers((i) => 7 - i))
        }
      }))
    }
  }).pipe(Effect.provide(engines.koffi)))

  it.effect("passes on what the engine refuses: a result of other sizes, an operator that it was not given", () =>
    Effect.gen(function*() {
      const engine = yield* Engine
      assert.isTrue(engine.runsMachineCode)
      const missing = yield* Effect.exit(Effect.scoped(engine.createSession(encodeModel(graph))))
      assert.isTrue(Exit.isFailure(missing))
      const wrong = { ...sumAndSecond, outputs: sumAndSecond.outputs.map(({ type }) => ({ type, sizes: [parts + 8] })) }
      const refused = yield* Effect.exit(Effect.scoped(Effect.gen(function*() {
        const { bind } = yield* engine.createSession(encodeModel(graph), { operators: [wrong] })
        const [a, b] = [yield* engine.allocate("i64", [parts]), yield* engine.allocate("i64", [parts])]
        const sum = yield* engine.allocate("i64", [parts])
        const second = yield* engine.allocate("i64", [2, parts / 2])
        yield* (yield* bind({ inputs: { a, b }, outputs: { sum, second } })).run
      })))
      assert.isTrue(Exit.isFailure(refused))
      assert.match(String(refused), /RunFailed|shape|size/)
    }).pipe(Effect.provide(engines.koffi)))
})

it("lays out as much wherever the memory starts, and each table in it", () => {
  const functions = { getInput: 1, getOutput: 2, getData: 3, parallelFor: 4 }
  const [here, there] = [0, 2 ** 46].map((base) => layOut([sumAndSecond, sumAndSecond], base, functions))
  assert.strictEqual(here?.bytes.length, there?.bytes.length)
  assert.deepStrictEqual(there?.tables, here?.tables.map((table) => table + 2 ** 46))
  for (const table of here?.tables ?? []) assert.isBelow(table, here?.bytes.length ?? 0)
})
