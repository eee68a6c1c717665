import { assert, describe, it } from "@effect/vitest"
import {
  CheckpointConfigError, CheckpointExistsError, CheckpointFormatError, CheckpointMemoryError, CheckpointTensorError,
  CheckpointUnfitError, GenerationConfigError, PieceCountError
} from "../../src/llama/checkpoint/CheckpointError.ts"
import { parameterCount, presets } from "../../src/llama/Config.ts"

describe("errors of checkpoints", () => {
  it("name a key, its value and what was expected", () => {
    const faults = [{ key: "rope_theta", value: "-1", expected: "a number above 0" }]
    assert.strictEqual(new CheckpointConfigError({ path: "a/config.json", faults }).message,
      "a/config.json: this model is none that Cria computes\n  rope_theta = -1: expected a number above 0\n" +
        "A key that is read past would change what the model says without a word. Take another model, or, where the " +
        "key changes nothing for yours, remove it from the file.")
  })
  it("name what a folder says of generation and cannot mean", () => {
    const faults = [{ key: "temperature", value: "0", expected: "a number above 0" }]
    assert.strictEqual(new GenerationConfigError({ path: "a/generation_config.json", faults }).message,
      "a/generation_config.json: text cannot be generated as this file says\n" +
        "  temperature = 0: expected a number above 0\nCorrect the file, or remove it: it says how text is drawn and " +
        "where it ends, and the model is the same without it.")
  })
  it("name the sizes of a model and of a tokenizer that is another's", () => {
    const told = (pieces: number) => new PieceCountError({ path: "a", pieces, vocabSize: 12 }).message
    assert.strictEqual(told(5), "a: the model knows 12 tokens, and the tokenizer 5\n  A vocabulary may be filled up " +
      "beyond its tokenizer, but not by more than a third: this is another model's. Give the tokenizer that the " +
      "model learned with.")
    assert.strictEqual(told(13), "a: the model knows 12 tokens, and the tokenizer 13\n  The model has no scores for " +
      "the pieces beyond: it is another model's, or pieces were added to it. Give the tokenizer that the model " +
      "learned with.")
    const named = new PieceCountError({ path: "a", tokenizer: "b/tokenizer.model", pieces: 13, vocabSize: 12 })
    assert.match(named.message, /^a: the model knows 12 tokens, and the tokenizer in b\/tokenizer\.model 13\n/)
  })
  it("list all tensors at once, and no more than can be read", () => {
    const many = Array.from({ length: 14 }, (_, i) => `t${i}`)
    const [missing, misfits] = [["x [2]"], ["y is [1], not [2]"]]
    assert.strictEqual(
      new CheckpointTensorError({ path: "a", missing, unknown: many, misfits }).message,
      "a: its tensors must be those that its description asks for\n  missing (1): x [2]\n" +
        "  not part of the model (14): t0; t1; t2; t3; t4; t5; t6; t7; t8; t9; t10; t11; …\n" +
        "  other sizes or types (1): y is [1], not [2]\n" +
        "Weights and description belong to different models, or the download is not whole: fetch them again together.")
  })
  it("say what is read where nothing known stands", () => {
    assert.strictEqual(new CheckpointFormatError({ path: "a", found: "an empty folder" }).message,
      "a: no checkpoint that Cria reads; found an empty folder\n  These are read: a run of Cria or one of its " +
        "snapshots; a Hugging Face folder (config.json and *.safetensors); a Meta folder (params.json and " +
        "consolidated.NN.pth); .gguf; .bin of llama2.c.\n  The order of the numbers in a query differs between " +
        "them, so a file of unknown form is never guessed at.")
    for (const [path, found] of [["a", "model.onnx, model.onnx.data"], ["a.onnx", "a file of another name"]] as const) {
      assert.match(new CheckpointFormatError({ path, found }).message,
        /\n {2}An ONNX model is written for others and not read: name what it was exported from\.$/)
    }
  })
  it("give the figure where memory does not suffice", () => {
    const parts = [
      { bytes: 4 * parameterCount(presets["7B"]), what: "of weights" }, { bytes: 12.34e6, what: "of caches" },
      { bytes: 1.5e9, what: "of scores" }
    ]
    const error = new CheckpointMemoryError({ path: "llama-2-7b", parts, memoryBytes: 16e9, remedies: ["less"] })
    assert.strictEqual(error.message,
      "llama-2-7b takes at least 28.5 GB of memory here, and there are 16.0 GB\n  27.0 GB of weights, 12.3 MB of " +
        "caches, 1.50 GB of scores\n  Take less, or a machine with more memory.")
  })
  it("leave what exists, and refuse what a form cannot say", () => {
    assert.strictEqual(new CheckpointExistsError({ path: "a" }).message,
      "a exists already, and is left as it is\n  Name another place, or remove it first.")
    assert.strictEqual(new CheckpointUnfitError({ format: "GGUF", reasons: ["one", "two"] }).message,
      "this model cannot be written as GGUF\n  one\n  two\nA reader would compute something else: write another " +
        "format (Hugging Face's holds every model of Cria).")
  })
})
