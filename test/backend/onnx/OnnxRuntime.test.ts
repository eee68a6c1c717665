/**
 * The backend over ONNX Runtime keeps the contract, in both widths and over both ways into the engine.
 */
import { describe } from "@effect/vitest"
import { composed, reordered } from "../../law/Tolerance.ts"
import { contract } from "../Contract.ts"
import { backends } from "./layers.ts"

for (const [name, layer] of backends) {
  describe(`over ${name}, f32`, () => contract(layer, { precision: "f32", tolerance: composed, randomPrograms: 60 }))
  describe(`over ${name}, f64`, () => contract(layer, { precision: "f64", tolerance: reordered, randomPrograms: 60 }))
}
