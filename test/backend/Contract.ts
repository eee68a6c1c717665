/**
 * The public laws of backends, run on a layer by vitest.
 */
import { layer as withLayer } from "@effect/vitest"
import type * as Layer from "effect/Layer"
import type { Backend } from "../../src/backend/Backend.ts"
import { laws, type Options, type Tolerance } from "../../src/testing/BackendLaws.ts"

/** Tries every law on a layer, which is built once. CRIA_LAW_RUNS multiplies the random draws. */
export const contract = <E>(
  layer: Layer.Layer<Backend, E>, tolerance: Tolerance, options: Options = {}
): void => {
  const times = Number(process.env["CRIA_LAW_RUNS"] ?? 1)
  const { perOperation = 4, programs = 40 } = options
  withLayer(layer)("keeps the laws", (it) => {
    for (const { group, holds, name } of laws(tolerance, {
      ...options, perOperation: perOperation * times, programs: programs * times
    })) {
      it.effect(`${group}: ${name}`, () => holds, 240_000 * times)
    }
  })
}
