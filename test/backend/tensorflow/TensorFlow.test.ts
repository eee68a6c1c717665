/**
 * The backend over TensorFlow.js keeps the contract, on every engine that can start.
 */
import { describe, it } from "@effect/vitest"
import { tolerances } from "../../../src/testing/BackendLaws.ts"
import { contract } from "../Contract.ts"
import { absent, backends } from "./layers.ts"

for (const [name, backend] of backends) {
  describe(`on ${name}`, () => {
    contract(backend, tolerances.f32)
  })
}

describe("on engines that have to be asked for", () => {
  it.skip.each(absent)("%s (name it in CRIA_TEST_ENGINES, see test/README.md)", () => {})
})
