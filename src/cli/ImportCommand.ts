/**
 * `cria import`: any checkpoint becomes a folder of Cria's own.
 *
 * Checked  test/cli/ImportCommand.test.ts.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Command from "effect/cli/Command"
import * as CheckpointWriter from "../llama/CheckpointWriter.ts"
import * as CheckpointSource from "./CheckpointSource.ts"
import { given, pathFlag } from "./Flags.ts"
import * as Host from "./Host.ts"
import * as Screen from "./Screen.ts"

/** The command. */
export const command = Command.make("import", {
  ...CheckpointSource.flags,
  out: given(pathFlag("out"), "FOLDER", "Where it goes; by default runs/ and the name of the checkpoint")
}, Effect.fnUntraced(function*({ out, ...from }) {
  const path = yield* Path.Path
  const screen = yield* Screen.make
  const source = yield* CheckpointSource.openToConvert(from)
  const target = Option.getOrElse(out, () =>
    path.join("runs", path.basename(path.resolve(from.path)).replace(/\.(gguf|bin)$/, "")))
  const { features, model } = yield* Host.processor
  yield* CheckpointWriter.cria(target, source, {
    from: source.format,
    environment: { engine: { name: "import", version: source.format }, cpu: { model, features }, threadCount: 0 }
  })
  yield* screen.print(`${target}: ${CheckpointSource.sizeOf({ ...source, isTied: false })} from ${source.format}` +
    (source.tokenizer === undefined ? ", without a tokenizer (--tokenizer names one)" : ""))
}, Effect.scoped)).pipe(
  Command.withShortDescription("Make a checkpoint of others Cria's own"),
  Command.withDescription(
    "Reads a checkpoint of Hugging Face (config.json with .safetensors), Meta (params.json with " +
      "consolidated.NN.pth), llama.cpp (.gguf) or llama2.c (.bin) and writes a folder of Cria's own, as a run leaves " +
      "it. Every key of its description is understood or refused by name. Weights become float32; nothing that is " +
      "there is written over."
  ),
  Command.withExamples([
    { command: "cria import llama-2-7b-hf", description: "To runs/llama-2-7b-hf" },
    { command: "cria import stories260K.bin --tokenizer tok512.bin --out runs/tiny",
      description: "A model of llama2.c, whose tokenizer is a file of its own" }
  ])
)
