/**
 * The backend over ONNX Runtime keeps the contract, in both widths and over both ways into the engine.
 */
import { describe, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Backend } from "../../../src/backend/Backend.ts"
import { agreesWithReference, forAll } from "../../../src/testing/BackendLaw.ts"
import { programs } from "../../../src/testing/ProgramArbitrary.ts"
import { gradients } from "../../../src/testing/TensorLaw.ts"
import { composed, reordered } from "../../law/Tolerance.ts"
import { contract } from "../Contract.ts"
import { backends } from "./layers.ts"

for (const [name, backend] of backends) {
  for (const [precision, tolerance] of [["f32", composed], ["f64", reordered]] as const) {
    describe(`over ${name}, ${precision}`, () => {
      contract(backend, { precision, tolerance, randomPrograms: 60 })
      layer(backend)((it) => {
        it.effect("gradients of random programs are those of the reference", () => Effect.flatMap(Backend, (backend) =>
          forAll(programs({ zero: true }), (program) =>
            agreesWithReference(backend, gradients(program), { precision, tolerance }), { numRuns: 40 })))
      })
    })
  }
}
