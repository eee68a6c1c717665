/** Models of checkpoints on the float64 reference: parameters as constants, scores of tokens; folders cut in two. */
import { Effect, FileSystem } from "effect"
import * as TorchFile from "../../src/format/TorchFile.ts"
import type * as Checkpoint from "../../src/llama/Checkpoint.ts"
import { places } from "../../src/llama/checkpoint/Layout.ts"
import * as MetaModel from "../../src/llama/checkpoint/MetaModel.ts"
import type * as Config from "../../src/llama/Config.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { causal } from "../../src/llama/Visibility.ts"
import { isSpecification, leaves } from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { mapAs } from "../../src/tensor/Tree.ts"
import { elements, evaluate } from "../law/Evaluation.ts"

/** The parameters of a checkpoint as constants. */
export const parametersOf = (checkpoint: Pick<Checkpoint.Checkpoint, "config" | "read">) =>
  Effect.gen(function*() {
    const model = Transformer.llama(checkpoint.config)
    const read = new Map<string, ArrayLike<number>>()
    for (const [path] of leaves(model.specification)) read.set(path, yield* checkpoint.read(path))
    const parameters = mapAs<Transformer.LlamaParameters>()(model.specification, isSpecification, ({ sizes }, path) =>
      T.values(sizes, Float64Array.from(read.get(path)!)))
    return { model, parameters }
  })

/** The scores that the model of a checkpoint gives. */
export const scoresOf = (
  checkpoint: Pick<Checkpoint.Checkpoint, "config" | "read">, tokens: ReadonlyArray<number>,
  sizes: { readonly batch: number; readonly position: number }
) =>
  Effect.map(parametersOf(checkpoint), ({ model, parameters }) => {
    const { logits } = evaluate(() => {
      const ids = T.ids(sizes, tokens)
      return { logits: model.logits(parameters, model.hidden(parameters, { ids, visibility: causal })) }
    })
    return elements(logits, ["batch", "position", "vocab"])
  })

/** Cuts the one file of a folder of Meta into two, as Meta cuts the larger models. */
export const cutInTwo = Effect.fnUntraced(function*(from: string, to: string, config: Config.Config) {
  const fileSystem = yield* FileSystem.FileSystem
  const one = yield* TorchFile.open(`${from}/consolidated.00.pth`)
  yield* fileSystem.makeDirectory(to)
  yield* fileSystem.copyFile(`${from}/params.json`, `${to}/params.json`)
  for (const shard of [0, 1]) {
    const tensors = yield* Effect.forEach(places(config, MetaModel.naming), Effect.fnUntraced(function*(place) {
      const whole = yield* one.read(place.name)
      const [rows = 1, columns = 1] = place.sizes
      const kept = whole.filter((_, i) => place.cut === undefined ||
        (place.cut === 0 ? Math.floor(i / columns) < rows / 2 : i % columns < columns / 2) === (shard === 0))
      const sizes = place.sizes.map((size, axis) => axis === place.cut ? size / 2 : size)
      return { name: place.name, type: "F32" as const, sizes, bytes: new Uint8Array(kept.buffer) }
    }))
    const frequencies = { name: "rope.freqs", type: "F32" as const, sizes: [1], bytes: new Uint8Array(4) }
    yield* TorchFile.write(`${to}/consolidated.0${shard}.pth`, [...tensors, frequencies])
  }
})
