/**
 * The backend over TensorFlow.js keeps the contract, on every engine that can start.
 */
import { describe } from "@effect/vitest"
import { tolerances } from "../../../src/testing/BackendLaws.ts"
import { contract } from "../Contract.ts"
import { backends } from "./layers.ts"

for (const [name, backend] of backends) {
  describe(`on ${name}`, () => {
    contract(backend, tolerances.f32)
  })
}
