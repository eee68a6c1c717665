/**
 * `cria export`: a model of Cria, or any other checkpoint, in a form that others load.
 *
 * Checked  test/cli/ExportCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Export from "../backend/onnx/Export.ts"
import * as CheckpointWriter from "../llama/CheckpointWriter.ts"
import { CheckpointExistsError } from "../llama/checkpoint/CheckpointError.ts"
import * as Transformer from "../llama/Transformer.ts"
import { causal } from "../llama/Visibility.ts"
import * as Durable from "../store/Durable.ts"
import * as Program from "../tensor/Program.ts"
import * as Specification from "../tensor/Specification.ts"
import * as CheckpointSource from "./CheckpointSource.ts"
import { drawing } from "./Continuation.ts"
import { count, given, pathFlag } from "./Flags.ts"
import * as Screen from "./Screen.ts"

type Target = typeof targets[number]
type Type = typeof types[number]

const targets = ["huggingface", "meta", "gguf", "llama2c", "onnx"] as const
const types = ["f32", "f16", "bf16", "q8"] as const
const versions = { 0: "f32", 1: "f32", 2: "q8" } as const

/** The numbers that each form holds; the first by default. */
const held = {
  huggingface: ["f32", "f16", "bf16"],
  meta: ["f32", "f16", "bf16"],
  gguf: ["f32", "f16", "q8"],
  llama2c: ["f32", "q8"],
  onnx: ["f32"]
} as const satisfies Record<Target, ReadonlyArray<Type>>

/** Numbers that a form does not hold. */
export class TypeUnfitError extends Schema.TaggedError<TypeUnfitError>()("TypeUnfitError", {
  target: Schema.String,
  type: Schema.String,
  held: Schema.Array(Schema.String)
}) {
  override get message() {
    const held = this.held.length === 1 ? this.held[0] : `one of ${this.held.join(", ")}`
    return `${this.target} holds no ${this.type}: give ${held} with --type` +
      (this.held.length === 1 ? ", or leave it out" : "")
  }
}

/** A number of tokens that no model is written for. */
export class LengthError extends Schema.TaggedError<LengthError>()("LengthError", {
  length: Schema.Number,
  /** The most that the model reads; absent where the form has no fixed number. */
  contextLength: Schema.optionalKey(Schema.Number)
}) {
  override get message() {
    return `--length ${this.length}: ` + (this.contextLength === undefined
      ? "only an ONNX model is written for a number of tokens: leave it out, or give --to onnx"
      : `the model reads 1 to ${this.contextLength} tokens`)
  }
}

/** A version of llama2.c's files that is asked of another form, or does not hold the numbers. */
export class VersionUnfitError extends Schema.TaggedError<VersionUnfitError>()("VersionUnfitError", {
  target: Schema.String,
  version: Schema.String,
  type: Schema.String
}) {
  override get message() {
    return `--llama2c-version ${this.version}: ` + (this.target !== "llama2c"
      ? "only a file for llama2.c has these versions: leave it out, or give --to llama2c"
      : `it does not hold ${this.type}, for 0 and 1 hold f32, and 2 holds q8: give --type ` +
        (this.version === "2" ? "q8" : "f32") + ", or leave the version out")
  }
}

/** The endings by which files of a form are known: without them nobody would find what was written. */
const endings: Readonly<Partial<Record<Target, string>>> = { gguf: ".gguf", llama2c: ".bin" }

/** A file whose name does not tell its form. */
export class EndingError extends Schema.TaggedError<EndingError>()("EndingError", {
  path: Schema.String,
  target: Schema.String,
  ending: Schema.String
}) {
  override get message() {
    const name = this.path.replace(/\/+$/, "") // a file, and no folder
    return `${this.path} does not end in ${this.ending}, by which a ${this.target} file is known\n` +
      `  Give --out ${name}${name.endsWith(this.ending) ? "" : this.ending}.`
  }
}

const dtypes = { f32: "F32", f16: "F16", bf16: "BF16" } as const

/** Writes a folder with the forward pass as an ONNX model: token ids in, scores out, in sizes that are fixed. */
const onnx = Effect.fnUntraced(function*<E, R>(
  out: string, { config, read, tokenizer }: CheckpointWriter.Source<E, R>, position: number
) {
  const fileSystem = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const model = Transformer.llama(config)
  const program = yield* Program.makeGeneric("forward", {
    inputs: { ids: Specification.ids({ batch: 1, position }) }, state: model.specification
  }, ({ ids }, parameters) => ({
    outputs: { logits: model.logits(parameters, model.hidden(parameters, { ids, visibility: causal })) }
  }))
  yield* CheckpointWriter.whole(out, Effect.fnUntraced(function*(partial) {
    yield* fileSystem.makeDirectory(partial)
    yield* Export.write(partial, program, read)
    if (tokenizer !== undefined) yield* Durable.writeFile(path.join(partial, "tokenizer.model"), tokenizer.bytes)
    yield* Durable.syncFolder(partial)
  }))
})

/** Whether a source says more of generation than its tokenizer and Cria do; what cannot be read may say anything. */
const saysMore = ({ codec, generation }: CheckpointSource.Source) =>
  generation === undefined ? Effect.succeed(false) : Effect.match(generation(), {
    onFailure: () => true,
    onSuccess: ({ endIds, isDrawn, temperature, topK, topP, unused }) =>
      isDrawn && !(temperature === drawing.temperature && topP === drawing.topP && topK === undefined) ||
      unused.length > 0 || endIds.some((id) => id !== codec?.eosId)
  })

/** Writes a model in a form. */
const write = <E, R>(
  target: Target, out: string, source: CheckpointWriter.Source<E, R> & Pick<CheckpointSource.Source, "format">,
  type: Type, length: Option.Option<number>, version: keyof typeof versions
) => {
  const dtype = type === "q8" ? "F32" : dtypes[type]
  switch (target) {
    case "huggingface": return CheckpointWriter.huggingFace(out, source, {
      dtype, ...source.format === "huggingface" ? {} : { drawing } // a folder that says nothing of it goes on doing so
    })
    case "meta": return CheckpointWriter.meta(out, source, { dtype })
    case "gguf": return CheckpointWriter.gguf(out, source, {
      type: type === "q8" ? "Q8_0" : type === "f16" ? "F16" : "F32"
    })
    case "llama2c": return CheckpointWriter.llama2c(out, source, { version })
    case "onnx": return onnx(out, source, Option.getOrElse(length, () => source.config.contextLength))
  }
}

/** The command. */
export const command = Command.make("export", {
  ...CheckpointSource.flags,
  to: Flag.Literals("to", targets).pipe(Flag.withDescription("huggingface: a folder that transformers loads; meta: a " +
    "folder as Meta's; gguf: a .gguf file that llama.cpp loads; llama2c: a .bin file for llama2.c; onnx: a folder " +
    "with the forward pass for ONNX Runtime")),
  out: pathFlag("out").pipe(Flag.withMetavar("PATH"), Flag.withDescription("Where it goes; must not exist")),
  type: given(Flag.Literals("type", types), "TYPE", "The numbers of the weights: f32 (the default), f16, bf16, or q8 " +
    "(8 bit with scales)"),
  llama2cVersion: given(Flag.Literals("llama2c-version", ["0", "1", "2"]), "VERSION", "llama2c: 0 (what its run " +
    "reads; the default of f32), 1 (the same numbers behind a better header) or 2 (what its runq reads; always of q8)"),
  length: count("length", "onnx: tokens that the model takes, always so many; its longest sequence by default")
}, Effect.fnUntraced(function*({ length, llama2cVersion, out, to, type, ...from }) {
  const chosen = Option.getOrElse(type, () => "f32" as const)
  const known: ReadonlyArray<Type> = held[to]
  if (to !== "onnx" && Option.isSome(length)) return yield* new LengthError({ length: length.value })
  if (!known.includes(chosen)) return yield* new TypeUnfitError({ target: to, type: chosen, held: known })
  const version = Option.match(llama2cVersion, {
    onNone: () => chosen === "q8" ? 2 : 0,
    onSome: (given) => given === "0" ? 0 : given === "1" ? 1 : 2
  })
  if (Option.isSome(llama2cVersion) && (to !== "llama2c" || versions[version] !== chosen)) {
    return yield* new VersionUnfitError({ target: to, version: llama2cVersion.value, type: chosen })
  }
  const ending = endings[to]
  if (ending !== undefined && !out.endsWith(ending)) return yield* new EndingError({ path: out, target: to, ending })
  const screen = yield* Screen.make
  const source = yield* CheckpointSource.openToConvert(from)
  const { contextLength } = source.config
  const wanted = Option.getOrElse(length, () => contextLength)
  if (wanted < 1 || wanted > contextLength) return yield* new LengthError({ length: wanted, contextLength })
  const file = `${out.replace(/\.bin$/, "")}.tokenizer.bin`
  const pieces = to === "llama2c" ? source.tokenizer : undefined
  if (pieces !== undefined && (yield* (yield* FileSystem.FileSystem).exists(file))) { // or half would be written
    return yield* new CheckpointExistsError({ path: file })
  }
  yield* write(to, out, source, chosen, length, version)
  if (pieces !== undefined) {
    yield* CheckpointWriter.llama2cTokenizer(file, pieces)
    yield* screen.print(`${file}: ${pieces.pieces.length} pieces`)
  }
  if (to !== "huggingface" && (yield* saysMore(source))) {
    yield* screen.print(`${to} has no place for what the model's folder says of generation: that is not kept`)
  }
  if (to === "meta") {
    yield* screen.print("meta has no place for the longest sequence: " +
      `where it is read, --context-length ${contextLength} says it`)
  }
  yield* screen.print(`${out}: ${CheckpointSource.sizeOf(source)}, ${to}, ${chosen}` +
    (source.tokenizer === undefined ? ", without a tokenizer (--tokenizer names one)" : ""))
}, Effect.scoped)).pipe(
  Command.withShortDescription("Write a model in a form that others load"),
  Command.withDescription(
    "Writes the model of a run, from its newest snapshot, or any checkpoint that Cria reads, in a form of others: " +
      "Hugging Face's folder, Meta's folder, GGUF, llama2.c or ONNX. All but ONNX can be read back: f32 to the bit, " +
      "the others rounded. What a form cannot say is refused, not left out."
  ),
  Command.withExamples([
    { command: "cria export runs/stories --to huggingface --out stories-hf", description: "For transformers" },
    { command: "cria export runs/stories --to gguf --type q8 --out stories.gguf", description: "For llama.cpp, 8 bit" },
    { command: "cria export llama-2-7b-hf --to meta --type bf16 --out llama-2-7b",
      description: "From one form of others to another" }
  ])
)
