/**
 * The backend over ONNX Runtime keeps the laws, in both widths and over both ways into the engine.
 */
import { describe } from "@effect/vitest"
import { tolerances } from "../../../src/testing/BackendLaws.ts"
import { contract } from "../Contract.ts"
import { backends } from "./layers.ts"

for (const [name, backend] of backends) {
  describe(`over ${name}, f32`, () => contract(backend, tolerances.f32))
  describe(`over ${name}, f64`, () => contract(backend, tolerances.f64))
}
