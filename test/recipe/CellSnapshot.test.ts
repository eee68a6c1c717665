import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Backend } from "../../src/backend/Backend.ts"
import * as Reference from "../../src/backend/Reference.ts"
import type * as Safetensors from "../../src/format/Safetensors.ts"
import { fromTensors, toTensors } from "../../src/recipe/CellSnapshot.ts"
import * as Specification from "../../src/tensor/Specification.ts"

const specification = {
  block: [{ weight: Specification.real({ embed: 2, hidden: 3 }) }],
  codes: Specification.codes({ byte: 2 }),
  ids: Specification.ids({ position: 2 }),
  seen: Specification.truths({ position: 2 })
}

const materialize = Effect.fnUntraced(function*(cells: unknown) {
  const sources = yield* toTensors(cells)
  return yield* Effect.forEach(sources, ({ bytes, ...rest }) =>
    Effect.map(bytes instanceof Uint8Array ? Effect.succeed(bytes) : bytes,
      (all): Safetensors.Tensor => ({ ...rest, bytes: all })))
})

layer(Reference.layer)("CellSnapshot", (it) => {
  it.effect("gives back every bit, NaN payloads and negative zeros too", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const [from, to] = [yield* backend.allocate(specification), yield* backend.allocate(specification)]
      const odd = new Float64Array(6)
      new BigUint64Array(odd.buffer).set(
        [0x7ff8_0000_0000_1234n, 0x8000_0000_0000_0000n, 1n, 0n, 0x7ff0_0000_0000_0000n, 42n])
      yield* backend.write(from.block[0]!.weight, odd)
      yield* backend.write(from.codes, Uint8Array.of(0, 255))
      yield* backend.write(from.ids, Int32Array.of(-1, 2147483647))
      yield* backend.write(from.seen, Uint8Array.of(1, 0))
      const tensors = yield* materialize(from)
      assert.deepStrictEqual(tensors.map(({ dtype, name, shape }) => [name, dtype, shape]), [
        ["block.0.weight", "F64", [2, 3]], ["codes", "U8", [2]], ["ids", "I32", [2]], ["seen", "BOOL", [2]]
      ])
      yield* fromTensors("snapshot", tensors, to)
      assert.deepStrictEqual(
        (yield* materialize(to)).map(({ bytes }) => [...bytes]), tensors.map(({ bytes }) => [...bytes]))
    }))

  it.effect("names every tensor that is missing, extra or of another form, and writes none", () =>
    Effect.gen(function*() {
      const backend = yield* Backend
      const cells = yield* backend.allocate(specification)
      const [weight, codes, ids, seen] = yield* materialize(cells)
      const wrong = [{ ...ids!, bytes: new Uint8Array(Int32Array.of(7, 7).buffer) }, { ...weight!, shape: [3, 2] },
        { ...weight!, name: "gate" }]
      const error = yield* Effect.flip(fromTensors("run/snapshot-00000003", wrong, cells))
      assert.strictEqual(error.message, [
        "run/snapshot-00000003: its tensors must be those of the model",
        "  block.0.weight is F64 [3, 2]; the model has F64 [embed: 2, hidden: 3]",
        "  codes is missing; the model has U8 [byte: 2]",
        "  seen is missing; the model has BOOL [position: 2]",
        "  gate is not in the model",
        "It was saved with another configuration, or by another version: resume with the configuration in its manifest."
      ].join("\n"))
      assert.deepStrictEqual([...(yield* backend.read(cells.ids)).elements], [0, 0])
      for (const one of [[weight!, codes!, ids!], [weight!, codes!, ids!, { ...seen!, dtype: "U8" as const }]]) {
        const error = yield* Effect.flip(fromTensors("run", one, cells))
        assert.isTrue(error._tag === "TensorMismatchError" && error.faults.length === 1, error.message)
      }
    }))
})
