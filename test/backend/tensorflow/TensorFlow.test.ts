/**
 * The backend over TensorFlow.js keeps the contract, on every engine that can start.
 */
import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { tolerances } from "../../../src/testing/BackendLaws.ts"
import { contract } from "../Contract.ts"
import { turnsWithEachRun } from "../Turns.ts"
import { absent, backends } from "./layers.ts"

for (const [name, backend] of backends) {
  describe(`on ${name}`, () => {
    contract(backend, tolerances.f32)

    it.effect("lets the event loop turn with each run", () => Effect.provide(turnsWithEachRun, backend))
  })
}

describe("on engines that have to be asked for", () => {
  it.skip.each(absent)("%s (name it in CRIA_TEST_ENGINES, see test/README.md)", () => {})
})
