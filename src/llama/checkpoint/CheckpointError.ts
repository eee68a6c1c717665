/**
 * How reading and writing models of others fails: each error names the file, what stands there and what was expected.
 *
 * Checked  test/llama/CheckpointError.test.ts (every message, as text).
 *
 * @module
 */
import * as Schema from "effect/Schema"

/** Schema for a key of a model's description whose value cannot be used. */
export const Fault = Schema.Struct({ key: Schema.String, value: Schema.String, expected: Schema.String })

/** A key whose value cannot be used; texts as they are shown. */
export interface Fault extends Schema.Schema.Type<typeof Fault> {}

/** A model that computes something other than Cria's Llama, or whose description cannot be read; all faults at once. */
export class CheckpointConfigError extends Schema.TaggedError<CheckpointConfigError>()("CheckpointConfigError", {
  path: Schema.String,
  faults: Schema.Array(Fault)
}) {
  override get message() {
    const lines = this.faults.map(({ expected, key, value }) => `  ${key} = ${value}: expected ${expected}`)
    if (this.faults.every(({ key }) => key.startsWith("tokenizer."))) {
      return [
        `${this.path}: its tokenizer is none that Cria reads`, ...lines,
        "The model itself can be read. Name its tokenizer in another form, if there is one: a .model, tokenizer.json " +
          "or tokenizer.bin (of commands the flag --tokenizer)."
      ].join("\n")
    }
    return [
      `${this.path}: this model is none that Cria computes`, ...lines,
      "A key that is read past would change what the model says without a word. Take another model, or, where the " +
        "key changes nothing for yours, remove it from the file."
    ].join("\n")
  }
}

/** What a folder says of generation and cannot mean, told where text is generated; all faults at once. */
export class GenerationConfigError extends Schema.TaggedError<GenerationConfigError>()("GenerationConfigError", {
  path: Schema.String,
  faults: Schema.Array(Fault)
}) {
  override get message() {
    const lines = this.faults.map(({ expected, key, value }) => `  ${key} = ${value}: expected ${expected}`)
    return [
      `${this.path}: text cannot be generated as this file says`, ...lines,
      "Correct the file, or remove it: it says how text is drawn and where it ends, and the model is the same " +
        "without it."
    ].join("\n")
  }
}

const listed = 12 // a foreign file differs in hundreds of names: the message lists so many, the error has all

const list = (title: string, names: ReadonlyArray<string>): ReadonlyArray<string> =>
  names.length === 0 ? [] : [
    `  ${title} (${names.length}): ${names.slice(0, listed).join("; ")}${names.length > listed ? "; …" : ""}`
  ]

/** Tensors that are not those of the model: all that are missing, unknown or of other sizes. */
export class CheckpointTensorError extends Schema.TaggedError<CheckpointTensorError>()("CheckpointTensorError", {
  path: Schema.String,
  missing: Schema.Array(Schema.String),
  unknown: Schema.Array(Schema.String),
  misfits: Schema.Array(Schema.String)
}) {
  override get message() {
    return [
      `${this.path}: its tensors must be those that its description asks for`,
      ...list("missing", this.missing), ...list("not part of the model", this.unknown),
      ...list("other sizes or types", this.misfits),
      "Weights and description belong to different models, or the download is not whole: fetch them again together."
    ].join("\n")
  }
}

/** A path at which there is no checkpoint of a form that Cria knows. */
export class CheckpointFormatError extends Schema.TaggedError<CheckpointFormatError>()("CheckpointFormatError", {
  path: Schema.String,
  found: Schema.String
}) {
  override get message() {
    return `${this.path}: no checkpoint that Cria reads; found ${this.found}\n` +
      "  These are read: a run of Cria or one of its snapshots; a Hugging Face folder (config.json and " +
      "*.safetensors); a Meta folder (params.json and consolidated.NN.pth); .gguf; .bin of llama2.c.\n" +
      "  The order of the numbers in a query differs between them, so a file of unknown form is never guessed at." +
      (/\.onnx\b/.test(`${this.path} ${this.found}`)
        ? "\n  An ONNX model is written for others and not read: name what it was exported from." : "")
  }
}

/** A tokenizer that is not the model's, by the number of its pieces. */
export class PieceCountError extends Schema.TaggedError<PieceCountError>()("PieceCountError", {
  path: Schema.String,
  /** The file that holds the tokenizer, where it is known. */
  tokenizer: Schema.optionalKey(Schema.String),
  pieces: Schema.Number,
  vocabSize: Schema.Number
}) {
  override get message() {
    const why = this.pieces > this.vocabSize
      ? "The model has no scores for the pieces beyond: it is another model's, or pieces were added to it."
      : "A vocabulary may be filled up beyond its tokenizer, but not by more than a third: this is another model's."
    const tokenizer = this.tokenizer === undefined ? "the tokenizer" : `the tokenizer in ${this.tokenizer}`
    return `${this.path}: the model knows ${this.vocabSize} tokens, and ${tokenizer} ${this.pieces}\n  ${why} ` +
      "Give the tokenizer that the model learned with."
  }
}

/** A part of what memory must hold: its bytes, and of what they are, as words behind them ("of weights in float32"). */
export const MemoryPart = Schema.Struct({ bytes: Schema.Number, what: Schema.String })
/** A part of what memory must hold. */
export interface MemoryPart extends Schema.Schema.Type<typeof MemoryPart> {}

/** A model, and what is computed with it, that memory cannot hold together. */
export class CheckpointMemoryError extends Schema.TaggedError<CheckpointMemoryError>()("CheckpointMemoryError", {
  path: Schema.String,
  parts: Schema.Array(MemoryPart),
  memoryBytes: Schema.Number,
  /** What could be taken so that less is needed, each as words behind "Take". */
  remedies: Schema.Array(Schema.String)
}) {
  override get message() {
    const gigabytes = (count: number): string => count.toFixed(count < 10 ? 2 : count < 100 ? 1 : 0)
    const size = (bytes: number): string => bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB`
      : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${gigabytes(bytes / 1e9)} GB`
    const whole = this.parts.reduce((sum, { bytes }) => sum + bytes, 0)
    return `${this.path} takes at least ${size(whole)} of memory here, and there are ${size(this.memoryBytes)}\n` +
      `  ${this.parts.map(({ bytes, what }) => `${size(bytes)} ${what}`).join(", ")}\n` +
      `  Take ${[...this.remedies, "or a machine with more memory"].join(", ")}.`
  }
}

/** A place to which a model was to be written and at which something stands. */
export class CheckpointExistsError extends Schema.TaggedError<CheckpointExistsError>()("CheckpointExistsError", {
  path: Schema.String
}) {
  override get message() {
    return `${this.path} exists already, and is left as it is\n  Name another place, or remove it first.`
  }
}

/** A model that a format has no words for; all reasons at once. */
export class CheckpointUnfitError extends Schema.TaggedError<CheckpointUnfitError>()("CheckpointUnfitError", {
  format: Schema.String,
  reasons: Schema.Array(Schema.String)
}) {
  override get message() {
    return [`this model cannot be written as ${this.format}`, ...this.reasons.map((reason) => `  ${reason}`),
      "A reader would compute something else: write another format (Hugging Face's holds every model of Cria)."
    ].join("\n")
  }
}
