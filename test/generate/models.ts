import { Effect, Result } from "effect"
import { Backend } from "../../src/backend/Backend.ts"
import * as Config from "../../src/llama/Config.ts"
import { draws } from "../../src/llama/Initialization.ts"
import * as Transformer from "../../src/llama/Transformer.ts"
import { causal } from "../../src/llama/Visibility.ts"
import * as Key from "../../src/random/Key.ts"
import * as Program from "../../src/tensor/Program.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"

/** Bytes and a few pieces, normalizing as Llama does. */
export const codec: Tokenizer.Codec = Result.getOrThrow(Tokenizer.fromModel(Result.getOrThrow(SentencePiece.make(
  [
    { text: "<unk>", score: 0, type: "unknown" },
    { text: "<s>", score: 0, type: "control" },
    { text: "</s>", score: 0, type: "control" },
    ...SentencePiece.bytePieces,
    ...["▁", "a", "b", "▁a", "ab", "é"].map((text, i): SentencePiece.Piece => ({ text, score: -i, type: "normal" }))
  ],
  { ...SentencePiece.defaultTrainer, modelType: "bpe", byteFallback: true },
  SentencePiece.identityNormalizer
))))

export const contextLength = 12

/** A tiny model over that vocabulary: two blocks, two groups of two heads. */
export const model = Transformer.llama(Config.make({
  vocabSize: codec.vocabSize, embedSize: 8, layerCount: 2, headCount: 4, kvHeadCount: 2, headSize: 8, hiddenSize: 6,
  contextLength
}))

/** Its parameters, with weights so large that its distributions are far from uniform and depend on every token. */
export const parameters = (seed: number) =>
  Effect.flatMap(Backend, (backend) => {
    const draw = draws(Key.make(seed), model.specification)
    return backend.allocate(model.specification, { initial: (path) => draw(path)?.map((weight) => weight * 20) })
  })

/** One with sizes that blocks of codes divide. */
export const divisible = Transformer.llama(
  Config.make({ ...model.config, embedSize: 32, headSize: 16, hiddenSize: 32 }))

/** Its parameters. */
export const divisibleParameters = Effect.flatMap(Backend, (backend) => {
  const draw = draws(Key.make(3), divisible.specification)
  return backend.allocate(divisible.specification, { initial: (path) => draw(path)?.map((weight) => weight * 10) })
})

/** The scores of the token after each token of one sequence, computed at once. */
export const whole = Program.make("whole", {
  inputs: { ids: Specification.ids({ batch: 1, position: contextLength }) }, state: { parameters: model.specification }
}, ({ ids }, { parameters }) => {
  const hidden = model.hidden(parameters, { ids, visibility: causal })
  return { outputs: { logits: model.logits(parameters, hidden) } }
})
