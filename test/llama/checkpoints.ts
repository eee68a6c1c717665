/** Models of checkpoints on the float64 reference: parameters as constants, scores of tokens. */
import { Effect } from "effect"
import type * as Checkpoint from "../../src/llama/Checkpoint.ts"
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
